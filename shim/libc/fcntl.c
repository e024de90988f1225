/* fcntl(): duplicates, and O_NONBLOCK as the program sees it. The rest is the backing socket's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>

#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/wait/wait.h"

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
        r = raw_fcntl(c->fd, F_SETFL, (long)arg | (sock_keeps_nonblock(us) ? O_NONBLOCK : 0));
        if (r == 0)
            us->nonblock = ((long)arg & O_NONBLOCK) != 0;
        return r;
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
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
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
