#define _GNU_SOURCE
#include "shim/libc/backing.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "shim/core/raw.h"
#include "shim/libc/sockopt.h"

/* TCP_USER_TIMEOUT of a common socket, which the program never sees: the engine answers for it. */
#define MARK 0x74637073
/* Sockets of socket() that are made without looking whether sharing pays: a program's first, which
 * are often all; and after one that did not, more each time. */
#define FIRST_OWN 2
#define OWN_MAX   63

/* Process-local, as descriptors are; a fork's child has the same. */
static struct {
    int v4, v6, judge; /* descriptor + 1; 0: none yet */
    unsigned own_next; /* of the next sockets so many get their own */
    unsigned regrets;
    bool forbidden;
} common = {.own_next = FIRST_OWN};

/* A socket of ours, out of the program's way; 0: none can be had. */
static int open_internal(int family)
{
    const int fd = fd_socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return 0;
    return fd_make_internal(fd) + 1;
}

static void give_up(int *place)
{
    if (*place != 0)
        fd_release_internal(*place - 1);
    *place = 0;
}

/* The common socket; negative: there is none. */
static int common_socket(int family)
{
    const int mark = MARK;
    int *place = family == AF_INET6 ? &common.v6 : &common.v4;
    if (unlikely(*place == 0)) {
        *place = open_internal(family);
        if (*place != 0 &&
            raw_setsockopt(*place - 1, IPPROTO_TCP, TCP_USER_TIMEOUT, &mark, sizeof(mark)) < 0)
            give_up(place);
    }
    return *place - 1;
}

int backing_open(int family, int flags, bool *shares)
{
    const int from = common.forbidden || engine.sandboxed ? -1 : common_socket(family);
    *shares = from >= 0;
    if (unlikely(from < 0))
        return raw_socket(family, SOCK_STREAM | flags, IPPROTO_TCP);
    const int fd = raw_fcntl(from, (flags & SOCK_CLOEXEC) != 0 ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    if (likely(fd != -EBADF && (fd < 0 || (unsigned)fd < fd_limit)))
        return fd;
    if (fd == -EBADF) /* the program closed it by a system call of its own */
        common.v4 = common.v6 = 0;
    else
        raw_close(fd); /* beyond the table: the kernel's */
    *shares = false;
    return raw_socket(family, SOCK_STREAM | flags, IPPROTO_TCP);
}

int backing_open_undecided(int family, int flags, bool *shares)
{
    if (likely(common.own_next == 0))
        return backing_open(family, flags, shares);
    common.own_next--;
    *shares = false;
    return raw_socket(family, SOCK_STREAM | flags, IPPROTO_TCP);
}

void backing_paid(void)
{
    common.regrets = 0;
}

static void regret(void)
{
    common.regrets = min_u32(2 * common.regrets + 1, OWN_MAX);
    common.own_next = common.regrets;
}

bool backing_is_common(const struct usock *us, int fd)
{
    int mark = 0;
    socklen_t len = sizeof(mark);
    return us->shares && raw_getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &mark, &len) == 0 &&
           mark == MARK;
}

/* Under the same number; close-on-exec as it was. */
static int replace(int own, int fd)
{
    const int flags = raw_fcntl(fd, F_GETFD, 0);
    if (flags < 0)
        return flags;
    return (int)raw_syscall(SYS_dup3, own, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0, 0, 0, 0);
}

/* The other numbers that this process has for it. */
static void replace_duplicates(const struct usock *us, int own, int first)
{
    uint32_t replaced = 1;
    for (unsigned fd = 0; fd < fd_high() && replaced < us->refs; fd++) {
        if ((int)fd == first || fd_usock((int)fd) != us || !backing_is_common(us, (int)fd))
            continue;
        replaced += replace(own, (int)fd) >= 0;
    }
}

/* A new socket with what the program has said to this one so far. */
static int make_own(const struct usock *us)
{
    const int type = SOCK_STREAM | SOCK_CLOEXEC | (us->nonblock ? SOCK_NONBLOCK : 0);
    int own = fd_socket(us->family, type, IPPROTO_TCP);
    if (own == -EMFILE) { /* ours must go for it then */
        give_up(&common.judge);
        give_up(us->family == AF_INET6 ? &common.v6 : &common.v4);
        own = raw_socket(us->family, type, IPPROTO_TCP);
    }
    if (own >= 0 && us->conn != NULL)
        options_repeat(tcp_opts(us->conn), own);
    return own;
}

int backing_own(struct usock *us, int fd)
{
    if (likely(!us->shares) || !backing_is_common(us, fd))
        return 0;
    if (engine.sandboxed)
        return -ENOBUFS;
    if (us->kind == USOCK_UNDECIDED)
        regret();
    const int own = make_own(us);
    if (own < 0)
        return own;
    int r = replace(own, fd);
    if (r >= 0) {
        if (us->refs > 1)
            replace_duplicates(us, own, fd);
        us->shares = us->refs > 1; /* other processes' may still share */
        r = 0;
    }
    raw_close(own);
    return r;
}

int backing_judge(int level, int name, const void *val, socklen_t len)
{
    if (unlikely(common.judge == 0))
        common.judge = open_internal(AF_INET);
    return common.judge != 0 ? raw_setsockopt(common.judge - 1, level, name, val, len) : -ENOBUFS;
}

static void own_all(bool inherited_only)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct usock *us = fd_usock((int)fd);
        if (us != NULL && us->shares &&
            !(inherited_only && (raw_fcntl((int)fd, F_GETFD, 0) & FD_CLOEXEC) != 0))
            (void)backing_own(us, (int)fd);
    }
}

void backing_own_inherited(void)
{
    own_all(true);
}

void backing_forbid(void)
{
    if (common.forbidden)
        return;
    common.forbidden = true;
    own_all(false);
}
