/*
 * accept(), accept4(). A listener has two doors: the engine's accept queue, and its kernel socket
 * for clients on this host. A connection of the engine gets a descriptor of the common backing
 * socket; where none can be had (EMFILE) it stays in the queue, as in the kernel.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/sockaddr.h"
#include "shim/wait/wait.h"

/* What Linux's accepted socket has from its listener, and which the engine's options do not hold.
 */
static void inherit(struct usock *child, const struct usock *listener)
{
    child->kind = USOCK_CONN;
    child->bound = !ip_addr_is_any(&listener->local.addr);
    child->reuseaddr = listener->reuseaddr;
    child->reuseport = listener->reuseport;
    child->rcvtimeo = listener->rcvtimeo;
    child->sndtimeo = listener->sndtimeo;
    child->bound_ifindex = listener->bound_ifindex;
}

static int accept_user(struct call *c, int flags, struct endpoint *remote)
{
    struct usock *us = c->us;
    if ((tcp_listener_poll(us->listener) & TCP_EV_IN) == 0)
        return -EAGAIN;
    struct usock *child = usock_new(&c->cx, us->family);
    if (child == NULL)
        return -ENOBUFS;
    int fd = backing_open(us->family, flags, &child->shares);
    if (fd >= 0 && (unsigned)fd >= fd_limit) {
        raw_close(fd);
        fd = -EMFILE;
    }
    if (fd >= 0 && unlikely(fd_entry(fd) != 0))
        call_purge(fd);
    if (fd >= 0 && !hold_usock(fd, child)) {
        raw_close(fd);
        fd = -ENOBUFS;
    }
    if (fd < 0) {
        usock_settle(&c->cx, child);
        return fd;
    }
    child->conn = tcp_accept(&c->cx, us->listener);
    if (child->conn == NULL) {
        usock_drop(&c->cx, child, fd, false);
        raw_close(fd);
        return -EAGAIN;
    }
    inherit(child, us);
    child->nonblock = (flags & SOCK_NONBLOCK) != 0;
    tcp_set_owner(child->conn, child);
    tcp_local(child->conn, &child->local);
    tcp_remote(child->conn, remote);
    return fd;
}

static int accept_kernel(struct call *c, struct sockaddr *sa, socklen_t *len, int flags)
{
    if (!c->us->kernel_listen || fd_usock(c->fd) != c->us)
        return -EAGAIN;
    const int fd = raw_accept4(c->fd, sa, len, flags);
    if (fd >= 0 && unlikely(fd_entry(fd) != 0))
        call_purge(fd);
    return fd;
}

/* As in Linux: where the peer's name cannot be given, the connection is lost. */
static int drop_accepted(struct call *c, int fd, int err)
{
    struct usock *child = fd_usock(fd);
    usock_drop(&c->cx, child, fd, true);
    raw_close(fd);
    return err;
}

/*
 * The engine's door, or either, without waiting. The kernel makes a file before it finds that
 * nobody stands at its door, so that one is not knocked at before there is reason to.
 */
static int accept_now(struct call *c, struct sockaddr *sa, socklen_t *len, int flags, bool either)
{
    struct endpoint remote = {.port = 0};
    const int fd = accept_user(c, flags, &remote);
    if (fd == -EAGAIN && either)
        return accept_kernel(c, sa, len, flags);
    if (fd < 0 || sa == NULL)
        return fd;
    const int r = sockaddr_give(c->us->family, &remote, sa, len);
    return r < 0 ? drop_accepted(c, fd, r) : fd;
}

/* Linux takes a number before it waits: 0, or -EMFILE when there is none. */
static int number_free(const struct call *c)
{
    if (engine.sandboxed)
        return 0;
    const int fd = raw_fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    if (fd == -EMFILE)
        return fd;
    if (fd >= 0)
        raw_close(fd);
    return 0;
}

static int sock_accept(struct call *c, struct sockaddr *sa, socklen_t *len, int flags)
{
    struct usock *us = c->us;
    if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0)
        return -EINVAL;
    const nsec_t deadline = call_deadline(c, us->rcvtimeo);
    const unsigned how = WAIT_ONE | (us->rcvtimeo == 0 ? WAIT_RESTART : 0);
    struct pollfd kernel = {.fd = c->fd, .events = POLLIN};
    bool drained = false, waited = false;
    for (;;) {
        if (us->kind != USOCK_LISTENER)
            return -EINVAL; /* or shut down while we slept; the backing socket may listen, as a
                               guard */
        int r = accept_now(c, sa, len, flags, drained || kernel.revents != 0);
        if (r != -EAGAIN)
            return r;
        if (us->nonblock) {
            if (drained)
                return -EAGAIN;
            engine_drain(&c->cx);
            drained = true;
            continue;
        }
        if (!waited && (r = number_free(c)) < 0)
            return r;
        waited = true;
        const bool two_doors = us->kernel_listen && fd_usock(c->fd) == us;
        r = call_wait(c, TCP_EV_IN, two_doors ? &kernel : NULL, deadline, how, NULL);
        if (r < 0)
            return r;
    }
}

SHIM_EXPORT int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "accept4", CALL_ANY))) {
        call_note(&c, (struct call_args){.shape = ARGS_ACCEPT, .a = (unsigned)flags});
        return (int)call_end(&c, sock_accept(&c, sa, len, flags));
    }
    const int new_fd = real_ready()->accept4(fd, sa, len, flags);
    if (unlikely(new_fd >= 0 && fd_entry(new_fd) != 0))
        call_purge(new_fd);
    return new_fd;
}

SHIM_EXPORT int accept(int fd, struct sockaddr *sa, socklen_t *len)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "accept", CALL_ANY)))
        return (int)call_end(&c, sock_accept(&c, sa, len, 0));
    const int new_fd = real_ready()->accept(fd, sa, len);
    if (unlikely(new_fd >= 0 && fd_entry(new_fd) != 0))
        call_purge(new_fd);
    return new_fd;
}
