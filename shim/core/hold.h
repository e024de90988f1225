/*
 * Who holds what: one record in the arena for each descriptor of each process that is a user socket
 * or an epoll set. So a process that is killed leaves behind an exact account of what it held, and
 * another of the family closes that (shim/core/family.h). All entered.
 */
#pragma once

#include "stack/stack.h"
#include "stack/util/list.h"

struct usock;
struct epset;

struct hold {
    struct list of_process; /* process.holds */
    struct usock *us;       /* either this */
    struct epset *ep;       /* or this */
    uint32_t process;       /* index + 1 in shared.processes */
    int32_t fd;             /* -1: closed or replaced, calls are still in progress on it */
    uint32_t calls;         /* threads of that process inside a call on it (sockets only) */
    struct list on_kept;    /* in waiter.kept: a poll() by a number that was closed meanwhile */
    int32_t kept_fd;        /* that number, */
    uint32_t kept_events;   /* and what it waits for: TCP_EV_* */
};

/*
 * Descriptor fd of this process is the socket or set from now on, and counts as a reference to it.
 * False: the arena is full, nothing changed.
 */
bool hold_usock(int fd, struct usock *us);
bool hold_epset(int fd, struct epset *ep);
/*
 * Descriptor fd is none any more: its entry goes and its reference is given back; the caller looks
 * whether it was the last. What calls in progress count stays until hold_leave().
 */
void hold_release(int fd);
/* As hold_release(), but the entry stays: another thread that looks there must not find the
 * kernel's socket, or exec may yet fail (hold_again()). */
void hold_forget(int fd);
/* Entries that hold_forget() left count again. */
void hold_again(void);

/*
 * After exec: this process's holds whose descriptor is still the socket get their entries, others
 * end.
 */
void hold_adopt(struct stack_cx *cx, bool (*same)(int fd, const struct usock *us));

/* A call on the descriptor begins and ends. */
struct hold *hold_enter(int fd);
void hold_leave(struct hold *h);

/*
 * A poll() waits by descriptor fd of the socket, which is about to be closed: as in Linux the open
 * file lives until poll() returns. The hold counts as a call until hold_leave(). NULL: the arena is
 * full.
 */
struct hold *hold_keep(struct usock *us, int fd, uint32_t events);

/*
 * Before a fork: a hold of the child's for each of this process, for process number `child` (index
 * + 1). False: the arena is full, nothing changed.
 */
bool hold_fork(uint32_t child);
/* The fork failed. */
void hold_fork_failed(uint32_t child);
/* In the child: its holds are the ones made for it. lost: they are gone, it has no sockets. */
void hold_forked(bool lost);

/* The process is dead, or its image: the socket or set may go with it. */
void hold_end(struct stack_cx *cx, struct hold *h);
