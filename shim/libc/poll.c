/* poll and its variants. Sets without a user socket go straight to libc. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>

#include "shim/libc/real.h"
#include "shim/libc/user.h"
#include "shim/wait/pollset.h"

/* glibc's: a fortified call was given a buffer that is too small. */
extern void __chk_fail(void) __attribute__((noreturn));

/* glibc declares that poll() only writes here; it reads, too. */
static struct pollfd *filled(struct pollfd *fds)
{
    __asm__("" : "+r"(fds));
    return fds;
}

/* More than the kernel ever takes is refused by it. In line: most calls have no user socket. */
static inline __attribute__((always_inline)) bool concerns_us(struct pollfd *fds, nfds_t n,
                                                              bool waits)
{
    return n <= INT32_MAX / sizeof(*fds) && user_valid(fds, n * sizeof(*fds)) &&
           pollset_ours(fds, n, waits);
}

static __attribute__((noinline)) int result_of(int r)
{
    if (r >= 0)
        return r;
    errno = -r;
    return -1;
}

/* Out of line, so that the others save no registers for it. */
static __attribute__((noinline)) int poll_ours(struct pollfd *fds, nfds_t n, int timeout)
{
    return result_of(pollset_wait(fds, n, pollset_millis(timeout), NULL, 0));
}

SHIM_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    fds = filled(fds);
    if (likely(!concerns_us(fds, n, timeout != 0)))
        return real_ready()->poll(fds, n, timeout);
    return poll_ours(fds, n, timeout);
}

SHIM_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                      const sigset_t *mask)
{
    fds = filled(fds);
    if (likely(!concerns_us(fds, n, true)))
        return real_ready()->ppoll(fds, n, timeout, mask);
    nsec_t span;
    if (timeout != NULL && !user_valid(timeout, sizeof(*timeout)))
        return result_of(-EFAULT);
    if (!pollset_timespec(timeout, &span))
        return result_of(-EINVAL);
    return result_of(pollset_wait(fds, n, span, mask, 0));
}

SHIM_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
    if (size / sizeof(*fds) < n)
        __chk_fail();
    return poll(fds, n, timeout);
}

SHIM_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                            const sigset_t *mask, size_t size)
{
    if (size / sizeof(*fds) < n)
        __chk_fail();
    return ppoll(fds, n, timeout, mask);
}

SHIM_EXPORT int __poll(struct pollfd *fds, nfds_t n, int timeout)
{
    return poll(fds, n, timeout);
}
