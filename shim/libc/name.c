/* getsockname(), getpeername(), isfdtype() needs no hook: the backing descriptor is a socket. */
#define _GNU_SOURCE
#include <sys/socket.h>

#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/sockaddr.h"

static int64_t local_name(struct call *c, struct sockaddr *sa, socklen_t *len)
{
    struct usock *us = c->us;
    struct endpoint name = us->local;
    if (us->kind == USOCK_UNDECIDED && (us->kernel_bound || (!us->bound && us->last_port == 0)))
        return CALL_PASS; /* the kernel holds what bind() said */
    if (us->kind == USOCK_UNDECIDED && !us->bound)
        name.addr = us->family == AF_INET ? ip_addr_from_v4(0) : (struct ip_addr){.q = {0, 0}};
    if (us->kind == USOCK_UNDECIDED && name.port == 0)
        name.port = us->last_port;
    if (us->kind == USOCK_CONN && !us->rebound && (!tcp_local(us->conn, &name) || name.port == 0))
        name = us->local;
    return sockaddr_give(us->family, &name, sa, len);
}

SHIM_EXPORT int getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "getsockname", CALL_ANY))) {
        const int64_t r = local_name(&c, sa, len);
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
        call_pass(&c);
    }
    return real_ready()->getsockname(fd, sa, len);
}

static int peer_name(struct call *c, struct sockaddr *sa, socklen_t *len)
{
    struct usock *us = c->us;
    struct endpoint name;
    const enum tcp_state state = tcp_state(us->conn);
    if (state == TCP_SYN_SENT || state == TCP_CLOSED || !tcp_remote(us->conn, &name))
        return -ENOTCONN;
    return sockaddr_give(us->family, &name, sa, len);
}

SHIM_EXPORT int getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "getpeername", CALL_CONN)))
        return real_ready()->getpeername(fd, sa, len);
    return (int)call_end(&c, peer_name(&c, sa, len));
}
