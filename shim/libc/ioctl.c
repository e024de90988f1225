/* ioctl() and sockatmark(): queue lengths, the urgent mark, FIONBIO. */
#define _GNU_SOURCE
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"

static int64_t give_int(void *arg, uint32_t value)
{
    if (!user_valid(arg, sizeof(int)))
        return -EFAULT;
    *(int *)arg = (int)value;
    return 0;
}

static int64_t set_nonblock(struct call *c, const void *arg)
{
    if (!user_valid(arg, sizeof(int)))
        return -EFAULT;
    const int on = *(const int *)arg;
    int kernel = on || sock_keeps_nonblock(c->us);
    const long r = backing_is_common(c->us, c->fd)
                       ? 0
                       : raw_syscall(SYS_ioctl, c->fd, FIONBIO, (long)&kernel, 0, 0, 0);
    if (r == 0)
        c->us->nonblock = on != 0;
    return r;
}

static int64_t sock_ioctl(struct call *c, unsigned long request, void *arg)
{
    struct usock *us = c->us;
    call_note(c, (struct call_args){.shape = ARGS_REQUEST, .a = request});
    if (request == FIONBIO)
        return set_nonblock(c, arg);
    if (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP) {
        const int r = backing_own(us, c->fd);
        return r < 0 ? r : CALL_PASS;
    }
    const bool queue = request == SIOCINQ || request == SIOCOUTQ || request == SIOCOUTQNSD;
    if (us->kind == USOCK_LISTENER && queue)
        return -EINVAL;
    if (us->kind != USOCK_CONN)
        return CALL_PASS;
    switch (request) {
    case SIOCINQ:
        if (tcp_inq(us->conn) == 0)
            engine_drain(&c->cx);
        return give_int(arg, tcp_inq(us->conn));
    case SIOCOUTQ:
        return give_int(arg, tcp_outq(us->conn));
    case SIOCOUTQNSD:
        return give_int(arg, tcp_outq_unsent(us->conn));
    case SIOCATMARK:
        return give_int(arg, tcp_at_mark(us->conn));
    default:
        return CALL_PASS;
    }
}

SHIM_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    struct call c;
    if (unlikely(call_begin(&c, fd, "ioctl", CALL_ANY))) {
        const int64_t r = sock_ioctl(&c, request, arg);
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
        call_pass(&c);
    }
    return real_ready()->ioctl(fd, request, arg);
}

SHIM_EXPORT int sockatmark(int fd)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "sockatmark", CALL_CONN)))
        return real_ready()->sockatmark(fd);
    return (int)call_end(&c, tcp_at_mark(c.us->conn));
}
