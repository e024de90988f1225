/* close(), close_range(), closefrom(). */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/close_range.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "shim/libc/follow.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/wait/wait.h"

/* The engine does not announce the ACK of our FIN: a lingering close() looks again this often. */
#define LINGER_STEP (10 * NSEC_PER_MSEC)

/*
 * SO_LINGER with a time: the last close() waits until everything is acknowledged. Not with unread
 * data, which resets the connection at once (RFC 1122 4.2.2.13), nor for other references.
 */
static void linger(struct call *c)
{
    struct usock *us = c->us;
    if (us->kind != USOCK_CONN || us->refs > 1)
        return;
    const struct tcp_opts *opts = tcp_opts(us->conn);
    if (!opts->linger || opts->linger_secs == 0 || tcp_unread(us->conn) > 0 ||
        tcp_shutdown(&c->cx, us->conn, TCP_SHUT_RDWR) < 0)
        return;
    const nsec_t end = c->cx.now + opts->linger_secs * NSEC_PER_SEC;
    while (!tcp_sent_all(us->conn) && tcp_state(us->conn) != TCP_CLOSED && c->cx.now < end) {
        const nsec_t step = min_u64(end, c->cx.now + LINGER_STEP);
        if (call_wait(c, TCP_EV_OUT, NULL, step, WAIT_RESTART, NULL) == -EINTR)
            return;
    }
}

int sock_forget_fd(int fd, const char *name, bool lingers)
{
    if (fd_is_internal(fd))
        return -EBADF;
    if (fd_epset(fd) != NULL || (fd_entry(fd) == 0 && wait_is_epoll(fd))) {
        wait_epoll_close(fd);
        return 0;
    }
    struct call c;
    if (!call_begin(&c, fd, name, CALL_ANY))
        return 0;
    follow_close(&c);
    if (lingers)
        linger(&c);
    c.drop = fd_usock(fd) == c.us; /* not closed by another thread while we lingered */
    call_end(&c, 0);
    return 0;
}

SHIM_EXPORT int close(int fd)
{
    if (unlikely(fd_entry(fd) != 0 || wait_is_epoll(fd))) {
        const int r = sock_forget_fd(fd, "close", true);
        if (r < 0)
            return (int)call_result(r);
    }
    return real_ready()->close(fd);
}
extern __typeof(close) __close __attribute__((alias("close"), visibility("default")));

/* The kernel's part, around the descriptors that are ours alone. */
static int close_around(unsigned first, unsigned last, unsigned flags)
{
    const unsigned high = fd_high();
    for (unsigned fd = first; fd < high && fd <= last; fd++) {
        if (!fd_is_internal((int)fd))
            continue;
        if (fd > first) {
            const long r = raw_syscall(SYS_close_range, first, fd - 1, flags, 0, 0, 0);
            if (r < 0)
                return (int)r;
        }
        first = fd + 1;
    }
    return first > last ? 0 : (int)raw_syscall(SYS_close_range, first, last, flags, 0, 0, 0);
}

SHIM_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    if (likely(fd_high() == 0) || (flags & CLOSE_RANGE_CLOEXEC) != 0 || first > last)
        return (int)call_result(raw_syscall(SYS_close_range, first, last, flags, 0, 0, 0));
    for (unsigned fd = first; fd < fd_high() && fd <= last; fd++) {
        if (fd_entry((int)fd) != 0)
            sock_forget_fd((int)fd, "close_range", false);
    }
    return (int)call_result(close_around(first, last, (unsigned)flags));
}

SHIM_EXPORT void closefrom(int low)
{
    const int saved = errno;
    if (close_range(low < 0 ? 0 : (unsigned)low, UINT_MAX, 0) < 0) {
        /* A kernel before 5.9 */
        const long limit = sysconf(_SC_OPEN_MAX);
        for (int fd = low < 0 ? 0 : low; fd < limit; fd++)
            close(fd);
    }
    errno = saved;
}
