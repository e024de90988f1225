/* poll(2) over user sockets and kernel descriptors, for poll and select and their variants. */
#pragma once

#include <poll.h>
#include <signal.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"

/* Whether one is an epoll set that may get its first user socket. */
bool pollset_may_be_ours(const struct pollfd *fds, nfds_t n);
/*
 * Whether any of the descriptors concerns the engine; if not, the call is the kernel's alone.
 * waits: the call may sleep, and things may change meanwhile.
 */
static inline bool pollset_ours(const struct pollfd *fds, nfds_t n, bool waits)
{
    for (nfds_t i = 0; i < n; i++)
        if (fd_ours(fds[i].fd))
            return true;
    return waits && engine_running() && pollset_may_be_ours(fds, n);
}

/* As select(2) counts: HUP makes readable, ERR readable and writable, and nothing else is told. */
#define POLLSET_SELECT 0x1u
/*
 * Not entered. Waits up to `timeout` (NSEC_NEVER: for ever, 0: not at all) with signal mask `mask`
 * (may be NULL) and sets revents. Returns the number of descriptors with revents, or -EINTR,
 * -ENOMEM, -EINVAL. Is a cancellation point.
 */
int pollset_wait(struct pollfd *fds, nfds_t n, nsec_t timeout, const sigset_t *mask,
                 unsigned flags);

/* From the callers' formats; false: not valid (EINVAL). NULL is for ever. */
static inline bool pollset_timespec(const struct timespec *ts, nsec_t *timeout)
{
    *timeout = NSEC_NEVER;
    if (ts == NULL)
        return true;
    if (ts->tv_sec < 0 || ts->tv_nsec < 0 || (nsec_t)ts->tv_nsec >= NSEC_PER_SEC)
        return false;
    if ((nsec_t)ts->tv_sec < NSEC_NEVER / NSEC_PER_SEC / 2)
        *timeout = (nsec_t)ts->tv_sec * NSEC_PER_SEC + (nsec_t)ts->tv_nsec;
    return true;
}

/* poll's and epoll_wait's milliseconds: negative is for ever. */
static inline nsec_t pollset_millis(int ms)
{
    return ms < 0 ? NSEC_NEVER : (nsec_t)ms * NSEC_PER_MSEC;
}
