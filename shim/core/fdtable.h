/*
 * From descriptor to user socket or epoll set: a flat array, process-local, read without a lock.
 * A descriptor that is not ours costs a bound check, a load and a branch.
 */
#pragma once

#include <sys/resource.h>

#include "shim/core/usock.h"

struct hold;  /* shim/core/hold.h */
struct epset; /* shim/wait/epoll_set.h: the user-stack side of an epoll descriptor, in the arena */

/* An entry: a pointer with its kind in the low bits; 0: not ours. */
enum fd_tag { FD_NONE = 0, FD_SOCKET = 1, FD_EPOLL = 2, FD_INTERNAL = 3 };

extern uintptr_t *fd_entries; /* NULL until the first entry */
extern unsigned fd_limit;     /* entries in the array */
/* Beside each entry of a socket or epoll set: its account in the arena; and, during a fork, the
 * child's. */
extern struct hold **fd_holds, **fd_heirs;

static inline uintptr_t fd_entry(int fd)
{
    if (likely((unsigned)fd >= fd_limit))
        return 0;
    return __atomic_load_n(&fd_entries[fd], __ATOMIC_ACQUIRE);
}

/* NULL: not a user socket, or decided for the kernel. */
static inline struct usock *fd_usock(int fd)
{
    uintptr_t e = fd_entry(fd);
    if (likely((e & 3) != FD_SOCKET))
        return NULL;
    return (struct usock *)(e & ~(uintptr_t)3);
}

static inline struct epset *fd_epset(int fd)
{
    uintptr_t e = fd_entry(fd);
    if (likely((e & 3) != FD_EPOLL))
        return NULL;
    return (struct epset *)(e & ~(uintptr_t)3);
}

/* Either of them. */
static inline bool fd_ours(int fd)
{
    return unlikely((fd_entry(fd) & 3) - FD_SOCKET <= FD_EPOLL - FD_SOCKET);
}

/* NULL: none. */
static inline struct hold *fd_hold(int fd)
{
    return likely((unsigned)fd < fd_limit) ? fd_holds[fd] : NULL;
}

/* Ours but nobody's business: the packet socket, guards, wake-ups. close() and dup2() leave them
 * alone. */
static inline bool fd_is_internal(int fd)
{
    return unlikely((fd_entry(fd) & 3) == FD_INTERNAL);
}

/* Makes room for descriptors up to RLIMIT_NOFILE (hard limit, at most 1M). 0 or -ENOMEM. */
int fd_table_init(void);
/* Sets an entry (and replaces what was there, without touching references). */
void fd_set_usock(int fd, struct usock *us);
void fd_set_epset(int fd, struct epset *ep);
void fd_clear(int fd);
/*
 * Moves a descriptor of our own out of the program's way: as high as the limit allows,
 * close-on-exec, marked internal. Returns the number that it has now: its old one where it cannot
 * be moved; a negative one as it is.
 */
int fd_make_internal(int fd);
/*
 * A limit (RLIMIT_NOFILE) matters only when a descriptor is made: lifts the soft one for that, so
 * that one of ours can be had when the program has used up its own. False: it stays as it was.
 */
bool fd_limit_lift(struct rlimit *before);
void fd_limit_restore(const struct rlimit *before);
/* socket(2), and fcntl(2) with F_DUPFD_CLOEXEC, also where the program has used up its own. */
int fd_socket(int family, int type, int protocol);
int fd_duplicate(int fd);
/* A descriptor of our own that lies well already: close-on-exec, marked internal. */
void fd_mark_internal(int fd);
void fd_release_internal(int fd);
/* Highest entry ever set + 1: the bound for walks (fork, exec, close_range). */
unsigned fd_high(void);
/* Where that number is kept, for readers outside. */
const unsigned *fd_high_at(void);
