/* fcntl(): duplicates, and O_NONBLOCK as the program sees it. The rest is the backing socket's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/streams.h"
#include "shim/wait/wait.h"

/* F_SETFL; O_NONBLOCK of a socket that shares its file is the engine's alone. */
static int set_flags(struct call *c, long flags)
{
    struct usock *us = c->us;
    int r = 0;
    if ((flags & (O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME)) != 0)
        r = backing_own(us, c->fd);
    if (r == 0 && !backing_is_common(us, c->fd))
        r = raw_fcntl(c->fd, F_SETFL, flags | (sock_keeps_nonblock(us) ? O_NONBLOCK : 0));
    if (r == 0)
        us->nonblock = (flags & O_NONBLOCK) != 0;
    return r;
}

static int64_t sock_fcntl(struct call *c, int cmd, void *arg)
{
    struct usock *us = c->us;
    int r;
    call_note(c, (struct call_args){
                     .shape = ARGS_COMMAND, .a = (unsigned)cmd, .b = (uint64_t)(uintptr_t)arg});
    switch (cmd) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        r = raw_fcntl(c->fd, cmd, (long)arg);
        if (r >= 0)
            r = sock_add_fd(c, r);
        return r;
    case F_GETFL:
        r = raw_fcntl(c->fd, F_GETFL, 0);
        return r < 0 ? r : (r & ~O_NONBLOCK) | (us->nonblock ? O_NONBLOCK : 0);
    case F_SETFL:
        return set_flags(c, (long)arg);
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
        r = backing_own(us, c->fd);
        return r < 0 ? r : CALL_PASS;
    default:
        return CALL_PASS;
    }
}

SHIM_EXPORT int fcntl(int fd, int cmd, ...)
{
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    struct call c;
    if (unlikely(call_begin(&c, fd, "fcntl", CALL_ANY))) {
        const int64_t r = sock_fcntl(&c, cmd, arg);
        if (r != CALL_PASS) {
            const int result = (int)call_end(&c, r);
            return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? streams_arrived(result) : result;
        }
        call_pass(&c);
    }
    const int r = real_ready()->fcntl(fd, cmd, arg);
    if (unlikely(r >= 0 && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))) {
        if (fd_entry(r) != 0)
            call_purge(r);
        if (wait_is_epoll(fd))
            wait_epoll_dup(fd, r);
    }
    return r;
}
extern __typeof(fcntl) fcntl64 __attribute__((alias("fcntl"), visibility("default")));
extern __typeof(fcntl) __fcntl __attribute__((alias("fcntl"), visibility("default")));
