/*
 * connect(). The state machine of Linux's inet_stream_connect(): `connecting` is its SS_CONNECTING,
 * set by the call that sent the SYN and cleared by the call that reports the outcome. So a second
 * connect() says EALREADY, then success once, then EISCONN; a failure is reported once, after
 * which the socket can connect again.
 */
#define _GNU_SOURCE
#include <sys/socket.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/sockaddr.h"
#include "shim/link/guard.h"
#include "shim/link/link.h"
#include "shim/link/route.h"
#include "shim/link/standing.h"
#include "shim/wait/wait.h"

/* Linux's ip_local_port_range; in own address mode no kernel has a say. */
#define EPHEMERAL_MIN 32768
#define EPHEMERAL_MAX 60999
/* Ports whose 4-tuple turns out to be taken, before connect() gives up. */
#define PORT_ATTEMPTS 16

/* The program bound a port: its backing socket becomes the guard. */
static int guard_bound_port(struct call *c)
{
    struct usock *us = c->us;
    if (config.own_address || us->guarded || !us->kernel_bound)
        return 0;
    link_filter_add_port(engine.link, us->local.port);
    link_filter_update(engine.link);
    const int r = guard_backing(us, c->fd, false, false, 1);
    if (r == 0) {
        us->guarded = true;
        return 0;
    }
    link_filter_remove_port(engine.link, us->local.port); /* a no-op while the port is in use */
    /* SO_REUSEADDR: another socket of ours holds the port and guards it already. */
    return r == -EADDRINUSE && tcp_port_in_use(c->cx.st, us->local.port) ? 0 : r;
}

static int choose_port(struct call *c, const struct ip_addr *local, const struct endpoint *remote,
                       unsigned attempt)
{
    if (!config.own_address)
        return standing_port(&c->cx, local, remote);
    const uint16_t port =
        tcp_ephemeral_port(&c->cx, local, remote, EPHEMERAL_MIN, EPHEMERAL_MAX, attempt);
    return port != 0 ? port : -EADDRNOTAVAIL;
}

static int connect_guarded(struct call *c, struct tcp_conn *conn, const struct endpoint *from,
                           const struct endpoint *remote, const struct ip_path *path)
{
    const int r = guard_bound_port(c);
    return r == 0 ? tcp_connect(&c->cx, conn, from, remote, path) : r;
}

static int open_from(struct call *c, struct tcp_conn *conn, const struct ip_addr *local,
                     const struct endpoint *remote, const struct ip_path *path)
{
    struct usock *us = c->us;
    struct endpoint from = {.addr = *local, .port = us->local.port};
    if (us->bound_port) {
        int r = connect_guarded(c, conn, &from, remote, path);
        if (r == -EADDRINUSE && tcp_port_in_use(c->cx.st, from.port)) {
            /* the connection before may be over but for what nobody looked at yet */
            stack_flush(&c->cx);
            engine_drain(&c->cx);
            r = connect_guarded(c, conn, &from, remote, path);
        }
        return r == -EADDRINUSE ? -EADDRNOTAVAIL : r;
    }
    for (unsigned attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
        const int port = choose_port(c, local, remote, attempt);
        if (port < 0)
            return port == -EADDRINUSE ? -EADDRNOTAVAIL : port;
        from.port = (uint16_t)port;
        const int r = tcp_connect(&c->cx, conn, &from, remote, path);
        if (r != -EADDRINUSE)
            return r;
    }
    return -EADDRNOTAVAIL;
}

/*
 * What shutdown() said before connect() holds for the kernel's connection too, as in Linux, and so
 * does the address that an accepted socket has of its listener.
 */
static void carry_over(const struct call *c)
{
    const struct usock *us = c->us;
    const struct tcp_conn *conn = us->conn;
    if (us->bound && !us->kernel_bound && us->local.port == 0) {
        union sockaddr_any name;
        const socklen_t len = sockaddr_make(us->family, &us->local, &name);
        raw_bind(c->fd, &name.sa, len);
    }
    if (conn != NULL && tcp_reading_shut(conn))
        raw_syscall(SYS_shutdown, c->fd, SHUT_RD, 0, 0, 0, 0);
    if (conn != NULL && tcp_writing_shut(conn))
        raw_syscall(SYS_shutdown, c->fd, SHUT_WR, 0, 0, 0, 0);
}

/* Of start_connect(): not an error, and nothing was sent. */
#define DEFERRED 1

/* Text of which the first part is to go with the SYN (RFC 7413). */
struct ahead {
    const struct slice *from;
    unsigned n;
    bool nonblock; /* the call may not wait, whatever the socket says */
    int64_t taken;
};

static int64_t to_kernel(struct call *c)
{
    const int r = backing_own(c->us, c->fd);
    if (r < 0)
        return r;
    guard_release_unused(); /* one that is not needed any more would swallow a SYN to its port */
    carry_over(c);
    usock_to_kernel(&c->cx, c->us);
    return CALL_PASS;
}

/*
 * Sends the SYN, or decides for the kernel (CALL_PASS). ahead: NULL, or what goes with the SYN if a
 * cookie of the peer is known.
 */
static int64_t start_connect(struct call *c, const struct endpoint *remote, struct ahead *ahead)
{
    struct usock *us = c->us;
    struct ip_path path = {0};
    struct ip_addr local = {.q = {0, 0}};
    const struct decision d = route_connect(us, remote, &path, &local);
    if (d.verdict == VERDICT_FAIL)
        return -d.err;
    if (d.verdict == VERDICT_KERNEL)
        return to_kernel(c);
    if (us->bound && !ip_addr_is_any(&us->local.addr))
        local = us->local.addr; /* bind() said so */
    struct tcp_conn *conn = usock_conn(&c->cx, us);
    if (conn == NULL)
        return -ENOBUFS;
    if (ahead != NULL)
        tcp_opts(conn)->fastopen_connect = true;
    const bool known = ahead != NULL && tcp_fastopen_known(c->cx.st, conn, &remote->addr);
    if (known && !tcp_deferred(conn) && ahead->from == NULL) {
        /* TCP_FASTOPEN_CONNECT: the SYN waits for the first data */
        us->deferred_to = *remote;
        us->kind = USOCK_CONN;
        tcp_defer(conn, true);
        return DEFERRED;
    }
    tcp_defer(conn, false);
    if (known && ahead->from != NULL) {
        ahead->taken = tcp_send_ahead(&c->cx, conn, &remote->addr, &path, ahead->from, ahead->n);
        if (ahead->taken < 0)
            return ahead->taken;
    }
    const int r = open_from(c, conn, &local, remote, &path);
    if (r < 0)
        return r;
    us->kind = USOCK_CONN;
    us->connecting = true;
    if (us->shares)
        backing_paid();
    return 0;
}

static bool in_handshake(const struct usock *us)
{
    const enum tcp_state state = us->conn != NULL ? tcp_state(us->conn) : TCP_CLOSED;
    return state == TCP_SYN_SENT || state == TCP_SYN_RECEIVED;
}

void sock_disconnects(struct usock *us)
{
    struct endpoint name;
    if (us->conn == NULL || us->kernel_bound || !tcp_local(us->conn, &name) || name.port == 0)
        return;
    us->last_port = name.port;
    if (!us->bound_port || us->port_chosen)
        us->local.port = 0;
}

static void end_connection(struct call *c)
{
    struct usock *us = c->us;
    if (us->conn == NULL)
        return;
    sock_disconnects(us);
    tcp_set_owner(us->conn, NULL);
    tcp_disconnect(&c->cx, us->conn);
}

/* The connection came to nothing: its error once, and the socket is as new. */
static int report_failure(struct call *c)
{
    struct usock *us = c->us;
    us->connecting = false;
    int err = 0;
    if (us->conn != NULL) {
        err = tcp_take_error(us->conn);
        end_connection(c);
    }
    us->kind = USOCK_UNDECIDED;
    sock_unguard(c);
    sock_ended(c);
    return err != 0 ? -err : -ECONNABORTED;
}

/* Whether what waits in the call comes after what went with the SYN. */
static bool more_follows(const struct ahead *ahead)
{
    int64_t total = 0;
    for (unsigned i = 0; ahead != NULL && i < ahead->n; i++)
        total += (int64_t)ahead->from[i].len;
    return ahead != NULL && ahead->taken < total;
}

/* Waits for the outcome as far as the socket blocks. pending: what to say when it does not. */
static int finish_connect(struct call *c, int pending, const struct ahead *ahead)
{
    struct usock *us = c->us;
    const bool nonblock = us->nonblock || (ahead != NULL && ahead->nonblock);
    if (us->conn != NULL)
        tcp_expect_send(us->conn, !nonblock && more_follows(ahead));
    const nsec_t deadline = call_deadline(c, us->sndtimeo);
    const unsigned restart = us->sndtimeo == 0 ? WAIT_RESTART : 0;
    while (in_handshake(us)) {
        if (nonblock)
            return pending;
        const int r = call_wait(c, TCP_EV_OUT, NULL, deadline, restart, NULL);
        if (r == -EAGAIN)
            return in_handshake(us) ? pending : 0;
        if (r < 0)
            return r;
    }
    if (us->conn == NULL || tcp_state(us->conn) == TCP_CLOSED)
        return report_failure(c);
    us->connecting = false;
    return 0;
}

static int disconnect(struct call *c)
{
    struct usock *us = c->us;
    if (us->kind == USOCK_LISTENER) {
        sock_unlisten(c);
        return 0;
    }
    end_connection(c);
    us->kind = USOCK_UNDECIDED;
    us->connecting = us->given_up = us->rebound = false;
    sock_unguard(c);
    sock_ended(c);
    return 0;
}

static int64_t connect_to(struct call *c, const struct sockaddr *sa, socklen_t len,
                          struct ahead *ahead)
{
    struct usock *us = c->us;
    call_note(c, (struct call_args){.shape = ARGS_ADDRESS, .p = sa, .len = len});
    if (len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    if (!user_valid(sa, len))
        return -EFAULT;
    if (len < sizeof(sa_family_t))
        return -EINVAL;
    if (sa->sa_family == AF_UNSPEC)
        return disconnect(c);
    if (us->kind == USOCK_LISTENER)
        return -EISCONN;
    if (us->given_up)
        return -EINVAL;
    if (us->kind == USOCK_CONN && us->connecting)
        return finish_connect(c, -EALREADY, ahead);
    if (us->kind == USOCK_CONN)
        return -EISCONN; /* also when it was reset: only AF_UNSPEC makes it new */
    struct endpoint remote;
    int64_t r = sockaddr_parse(us->family, sa, len, &remote);
    if (r < 0)
        return r;
    if (!ip_addr_is_v4(&remote.addr) && !ip_addr_is_any(&remote.addr)) {
        r = backing_own(us, c->fd);
        if (r < 0)
            return r;
        usock_to_kernel(&c->cx, us); /* native IPv6 */
        return CALL_PASS;
    }
    if (ip_addr_is_any(&remote.addr))
        remote.addr = ip_addr_from_v4(__builtin_bswap32(0x7f000001)); /* Linux: this host */
    const struct tcp_opts *opts = us->conn != NULL ? tcp_opts(us->conn) : NULL;
    struct ahead nothing = {0};
    if (ahead == NULL && opts != NULL && opts->fastopen_connect)
        ahead = &nothing; /* TCP_FASTOPEN_CONNECT */
    r = start_connect(c, &remote, ahead);
    if (r == DEFERRED)
        return 0;
    return r != 0 ? r : finish_connect(c, -EINPROGRESS, ahead);
}

int64_t sock_connect(struct call *c, const struct sockaddr *sa, socklen_t len)
{
    return connect_to(c, sa, len, NULL);
}

/* Linux's tcp_sendmsg_fastopen(): what the SYN took is the result of a call that may not wait. */
static int64_t outcome(int64_t r, const struct ahead *ahead)
{
    if (r == 0 || (r == -EINPROGRESS && ahead->taken > 0))
        return ahead->taken;
    return r;
}

int64_t sock_connect_with(struct call *c, const struct sockaddr *sa, socklen_t len,
                          const struct slice *from, unsigned n, bool nonblock)
{
    if (!tcp_fastopen_client(c->cx.st) ||
        (len >= sizeof(sa_family_t) && user_valid(sa, len) && sa->sa_family == AF_UNSPEC))
        return -EOPNOTSUPP;
    if (c->us->conn != NULL && tcp_deferred(c->us->conn))
        return sock_send_deferred(c, from, n, nonblock);
    struct ahead ahead = {.from = from, .n = n, .nonblock = nonblock};
    return outcome(connect_to(c, sa, len, &ahead), &ahead);
}

int64_t sock_send_deferred(struct call *c, const struct slice *from, unsigned n, bool nonblock)
{
    struct ahead ahead = {.from = from, .n = n, .nonblock = nonblock};
    const struct endpoint remote = c->us->deferred_to;
    c->us->kind = USOCK_UNDECIDED;
    int64_t r = start_connect(c, &remote, &ahead);
    if (r == CALL_PASS) /* the rules or routes have changed since */
        return -ENETUNREACH;
    if (r == 0)
        r = finish_connect(c, -EINPROGRESS, &ahead);
    return outcome(r, &ahead);
}

SHIM_EXPORT int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "connect", CALL_ANY))) {
        const int64_t r = sock_connect(&c, sa, len);
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
        call_pass(&c);
    } else {
        const int refused = sock_refused(fd, sa, len);
        if (refused != 0)
            return (int)call_result(-refused);
    }
    return real_ready()->connect(fd, sa, len);
}
extern __typeof(connect) __connect __attribute__((alias("connect"), visibility("default")));
