/*
 * socket, bind, listen, shutdown. A TCP socket is born undecided: options and bind() go to its
 * kernel socket (backing.h); listen() and connect() decide.
 */
#define _GNU_SOURCE
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/backing.h"
#include "shim/libc/follow.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/sockaddr.h"
#include "shim/life/keeper.h"
#include "shim/link/diag.h"
#include "shim/link/foreign.h"
#include "shim/link/group.h"
#include "shim/link/guard.h"
#include "shim/link/link.h"
#include "shim/link/route.h"
#include "shim/wait/wait.h"

static bool concerns_us(int domain, int type, int protocol)
{
    return (domain == AF_INET || domain == AF_INET6) &&
           (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
           (protocol == 0 || protocol == IPPROTO_TCP) && !config.off;
}

/* Entered. */
static int new_socket(struct stack_cx *cx, int family, int flags)
{
    bool shares;
    const int fd = backing_open_undecided(family, flags, &shares);
    if (fd >= 0 && unlikely(fd_entry(fd) != 0))
        call_purge(fd);
    if (fd < 0 || (unsigned)fd >= fd_limit)
        return fd;
    struct usock *us = usock_new(cx, family);
    if (us != NULL) {
        us->nonblock = (flags & SOCK_NONBLOCK) != 0;
        us->shares = shares;
        if (hold_usock(fd, us))
            return fd;
        usock_settle(cx, us);
    }
    raw_close(fd);
    return -ENOBUFS;
}

SHIM_EXPORT int socket(int domain, int type, int protocol)
{
    const int saved = errno;
    int fd;
    if (concerns_us(domain, type, protocol) && engine_start() >= 0 && fd_table_init() >= 0) {
        struct stack_cx cx;
        engine_enter(&cx);
        fd = new_socket(&cx, domain, type & (SOCK_NONBLOCK | SOCK_CLOEXEC));
        engine_leave(&cx);
        if (fd < 0)
            return (int)call_result(fd);
        errno = saved;
        return fd;
    }
    errno = saved; /* an engine that did not start is told by connect() and listen() */
    fd = real_ready()->socket(domain, type, protocol);
    if (fd >= 0 && unlikely(fd_entry(fd) != 0))
        call_purge(fd);
    return fd;
}

int sock_refused(int fd, const struct sockaddr *sa, socklen_t len)
{
    if (likely(engine.start_error == 0) || config.off || config.fallback_kernel)
        return 0;
    int protocol = 0, domain = 0;
    socklen_t size = sizeof(int);
    if (raw_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 ||
        protocol != IPPROTO_TCP || raw_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
        return 0;
    struct endpoint to;
    if (sa != NULL && (sockaddr_parse(domain, sa, len, &to) < 0 || !ip_addr_is_v4(&to.addr) ||
                       to.addr.b[12] == 127))
        return 0; /* the kernel's affair in any case */
    return engine.start_error;
}

/* What the kernel made of bind(): a port for 0, an address for a name. */
static int bound_by_kernel(struct call *c)
{
    struct usock *us = c->us;
    union sockaddr_any name;
    socklen_t len = sizeof(name);
    int r = raw_getsockname(c->fd, &name, &len);
    if (r == 0)
        r = sockaddr_parse(us->family, &name.sa, len, &us->local);
    if (r < 0)
        return r;
    us->bound = true;
    us->bound_port = us->local.port != 0;
    us->kernel_bound = true;
    return 0;
}

static bool foreign_v6(const struct endpoint *ep)
{
    return !ip_addr_is_v4(&ep->addr) && !ip_addr_is_any(&ep->addr);
}

/* A bind() that is judged here, and whether some socket of the stack is in its way. */
struct bind_check {
    const struct usock *us;
    const struct endpoint *want;
    bool conflict;
};

/* Linux's inet_csk_bind_conflict() */
static void check_conflict(void *object, void *arg)
{
    struct bind_check *check = arg;
    const struct usock *us = check->us, *other = object;
    if (other == us || other->kind == USOCK_KERNEL || other->local.port != check->want->port)
        return;
    if (!ip_addr_is_any(&other->local.addr) && !ip_addr_is_any(&check->want->addr) &&
        !ip_addr_eq(&other->local.addr, &check->want->addr))
        return;
    if ((us->reuseport && other->reuseport) ||
        (us->reuseaddr && other->reuseaddr && other->kind != USOCK_LISTENER))
        return;
    check->conflict = true;
}

static bool in_the_way(const struct call *c, const struct endpoint *want)
{
    if (want->port == 0)
        return false;
    struct bind_check check = {.us = c->us, .want = want};
    pool_each(&engine.sh->usocks, check_conflict, &check);
    /* Flows without a socket: orphans, TIME_WAIT. */
    return check.conflict ||
           (!c->us->reuseaddr && !c->us->reuseport && tcp_port_in_use(c->cx.st, want->port));
}

/*
 * Own address mode: the kernel does not have the address. A wildcard is bound in the kernel too,
 * for local clients, but the kernel's refusal counts only if this stack uses the port as well.
 */
static int bind_own_address(struct call *c, const struct sockaddr *sa, socklen_t len)
{
    struct usock *us = c->us;
    struct endpoint want;
    int r = sockaddr_parse(us->family, sa, len, &want);
    if (r < 0)
        return r;
    if (us->bound && us->local.port != 0)
        return -EINVAL;
    const bool any = ip_addr_is_any(&want.addr), own = ip_addr_eq(&want.addr, &config.addr);
    if (!any && !own) {
        r = raw_bind(c->fd, sa, len);
        return r < 0 ? r : bound_by_kernel(c);
    }
    if (in_the_way(c, &want))
        return -EADDRINUSE;
    if (any) {
        r = raw_bind(c->fd, sa, len);
        if (r == 0)
            return bound_by_kernel(c);
        if (r != -EADDRINUSE || want.port == 0)
            return r;
    } else if (want.port == 0) {
        const struct endpoint nobody = {.addr = want.addr};
        want.port = tcp_ephemeral_port(&c->cx, &want.addr, &nobody, 32768, 60999, 0);
        if (want.port == 0)
            return -EADDRINUSE;
    }
    us->local = want;
    us->bound = us->bound_port = true;
    return 0;
}

/* bind() of a socket that has a name already: what is wrong with the new one comes first, as in
 * Linux. */
static int refuse_bind(const struct call *c, const struct sockaddr *sa, socklen_t len)
{
    struct endpoint want;
    int r = sockaddr_parse(c->us->family, sa, len, &want);
    if (r < 0)
        return r;
    int free_bind = 0;
    socklen_t len_of_int = sizeof(free_bind);
    raw_getsockopt(c->fd, IPPROTO_IP, IP_FREEBIND, &free_bind, &len_of_int);
    if (c->us->family == AF_INET6 || free_bind != 0)
        return -EINVAL; /* the address is not looked at */
    want.port = 0;
    union sockaddr_any name;
    const socklen_t name_len = sockaddr_make(c->us->family, &want, &name);
    const int probe = raw_socket(c->us->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return -EINVAL;
    r = raw_bind(probe, &name, name_len);
    raw_close(probe);
    return r == -EADDRNOTAVAIL ? r : -EINVAL;
}

/*
 * As in Linux, a connection that is over has given its port back, unless bind() had asked for just
 * that one: the dead socket may have another name. Not where flows of others still need its guard.
 */
static bool gave_port_back(struct call *c)
{
    struct usock *us = c->us;
    if (us->kind != USOCK_CONN || tcp_state(us->conn) != TCP_CLOSED || tcp_deferred(us->conn) ||
        (us->bound_port && !us->port_chosen) || (us->rebound && us->bound))
        return false;
    if (us->guarded ? tcp_port_in_use(c->cx.st, us->local.port)
                    : us->kernel_bound && us->bound_port)
        return false;
    sock_unguard(c);
    us->bound = us->kernel_bound = false;
    const int addr = us->reuseaddr, port = us->reuseport; /* an accepted one's are its listener's */
    raw_setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &addr, sizeof(addr));
    raw_setsockopt(c->fd, SOL_SOCKET, SO_REUSEPORT, &port, sizeof(port));
    return true;
}

/* The name of the connection is not the socket's any more; where the new one is taken, only its
 * port is left of it. */
static void rename_dead(struct usock *us, bool has_new)
{
    if (!has_new && !us->rebound) {
        tcp_local(us->conn, &us->local);
        us->local.addr = us->family == AF_INET ? ip_addr_from_v4(0) : (struct ip_addr){.q = {0, 0}};
    }
    us->rebound = true;
}

static int sock_bind(struct call *c, const struct sockaddr *sa, socklen_t len)
{
    struct usock *us = c->us;
    int r = backing_own(us, c->fd);
    if (r < 0)
        return r;
    const bool dead = gave_port_back(c);
    if (us->kind != USOCK_UNDECIDED && !dead)
        return refuse_bind(c, sa, len);
    struct endpoint asked;
    if (config.own_address) {
        r = bind_own_address(c, sa, len);
    } else {
        r = guard_bind(us, c->fd, sa, len);
        if (r == 0)
            r = bound_by_kernel(c);
    }
    if (r == 0 && sockaddr_parse(us->family, sa, len, &asked) == 0)
        us->port_chosen = asked.port == 0;
    if (dead && (r == 0 || r == -EADDRINUSE))
        rename_dead(us, r == 0);
    if (r == 0 && foreign_v6(&us->local))
        usock_to_kernel(&c->cx, us); /* native IPv6 is the kernel's */
    return r;
}

SHIM_EXPORT int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "bind", CALL_ANY)))
        return real_ready()->bind(fd, sa, len);
    call_note(&c, (struct call_args){.shape = ARGS_ADDRESS, .p = sa, .len = len});
    return (int)call_end(&c, sock_bind(&c, sa, len));
}

/*
 * bindresvport(3): any free port that needs privileges to bind. libc's own calls bind() inside
 * libc.
 */
SHIM_EXPORT int bindresvport(int fd, struct sockaddr_in *sin)
{
    enum { FIRST = 600, LAST = 1023 };
    static unsigned next;
    struct sockaddr_in any = {.sin_family = AF_INET};
    if (sin == NULL)
        sin = &any;
    if (sin->sin_family != AF_INET)
        return (int)call_result(-EAFNOSUPPORT);
    for (unsigned i = FIRST; i <= LAST; i++) {
        const unsigned turn =
            __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) + (unsigned)raw_getpid();
        put_be16(&sin->sin_port, (uint16_t)(FIRST + turn % (LAST - FIRST + 1)));
        if (bind(fd, (const struct sockaddr *)sin, sizeof(*sin)) == 0)
            return 0;
        if (errno != EADDRINUSE)
            break;
    }
    return -1;
}

/* listen() on a socket that was never bound: the kernel chooses the port. */
static int autobind(struct call *c)
{
    struct usock *us = c->us;
    if (us->bound && us->local.port != 0)
        return 0;
    const struct endpoint any = {.addr = us->bound               ? us->local.addr
                                         : us->family == AF_INET ? ip_addr_from_v4(0)
                                                                 : (struct ip_addr){.q = {0, 0}}};
    union sockaddr_any name;
    const socklen_t len = sockaddr_make(us->family, &any, &name);
    if (us->kernel_bound)
        return 0; /* IP_BIND_ADDRESS_NO_PORT: listen() itself will choose */
    const int r = raw_bind(c->fd, &name, len);
    us->port_chosen = r == 0;
    return r < 0 ? r : bound_by_kernel(c);
}

/* The packet socket lets the port through; before its guard stands, so that no SYN falls between.
 */
static void want_port(uint16_t port)
{
    if (port == 0)
        return;
    link_filter_add_port(engine.link, port);
    link_filter_update(engine.link);
}

/* The kernel's side of a listener: guard of the port, and door for clients on this host. */
static int listen_in_kernel(struct call *c, int backlog)
{
    struct usock *us = c->us;
    if (config.own_address) {
        if (!us->kernel_bound)
            return 0;
        const int r = raw_listen(c->fd, backlog);
        us->kernel_listen = r == 0;
        if (r < 0)
            return r;
    } else {
        want_port(us->local.port);
        const int r =
            guard_backing(us, c->fd, true, us->family == AF_INET6 && !us->v6only, backlog);
        if (r < 0) {
            link_filter_remove_port(engine.link, us->local.port);
            return r;
        }
        us->guarded = us->kernel_listen = true;
        foreign_look(&c->cx, us->local.port);
    }
    raw_fcntl(c->fd, F_SETFL, raw_fcntl(c->fd, F_GETFL, 0) | O_NONBLOCK);
    return us->local.port != 0 ? 0 : bound_by_kernel(c);
}

static int listen_in_engine(struct call *c, int backlog)
{
    struct usock *us = c->us;
    struct tcp_opts defaults;
    tcp_opts_init(&defaults, c->cx.st);
    us->cookie = diag_cookie(c->fd);
    if (us->reuseport)
        group_note(us->local.port);
    uint8_t key[TCP_FASTOPEN_KEY_LEN];
    socklen_t key_len = sizeof(key);
    const bool keyed = us->fastopen_keyed &&
                       raw_getsockopt(c->fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, key, &key_len) == 0 &&
                       key_len == sizeof(key);
    const struct tcp_listen_args args = {
        .local = us->local,
        .backlog = backlog,
        .reuseport = us->reuseport,
        .member = us->cookie,
        .opts = us->conn != NULL ? tcp_opts(us->conn) : &defaults,
        .fastopen_key = keyed ? key : NULL,
        .owner = us,
    };
    want_port(us->local.port);
    const int r = tcp_listen(&c->cx, &args, &us->listener);
    if (r < 0)
        return r;
    us->kind = USOCK_LISTENER;
    us->backlog = backlog;
    if (us->conn != NULL) {
        us->listen_error = tcp_take_error(us->conn);
        tcp_set_owner(us->conn, NULL);
        tcp_close(&c->cx, us->conn);
        us->conn = NULL;
    }
    if (us->kernel_listen)
        wait_listens(&c->cx, us);
    return 0;
}

static int64_t sock_listen(struct call *c, int backlog)
{
    struct usock *us = c->us;
    if (us->kind == USOCK_CONN)
        return -EINVAL;
    if (us->kind == USOCK_LISTENER) {
        tcp_listener_set_backlog(us->listener, backlog);
        us->backlog = backlog;
        return us->kernel_listen ? raw_listen(c->fd, backlog) : 0;
    }
    int r = backing_own(us, c->fd);
    if (r == 0)
        r = autobind(c);
    if (r < 0)
        return r;
    const struct decision d = route_listen(us, &us->local);
    if (d.verdict == VERDICT_FAIL)
        return -d.err;
    if (d.verdict == VERDICT_KERNEL) {
        usock_to_kernel(&c->cx, us);
        return CALL_PASS;
    }
    r = listen_in_kernel(c, backlog);
    return r < 0 ? r : listen_in_engine(c, backlog);
}

SHIM_EXPORT int listen(int fd, int backlog)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "listen", CALL_ANY))) {
        call_note(&c, (struct call_args){.shape = ARGS_NUMBER, .a = (uint64_t)(int64_t)backlog});
        const int64_t r = sock_listen(&c, backlog);
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
        call_pass(&c);
    } else {
        const int refused = sock_refused(fd, NULL, 0);
        if (refused != 0)
            return (int)call_result(-refused);
    }
    return real_ready()->listen(fd, backlog);
}

/*
 * A call ended a connection, or half of it, that had no owner meanwhile. In Linux the frames of
 * such a call are on their way (and over the loopback have arrived) before its own socket's waiters
 * wake.
 */
void sock_ended(struct call *c)
{
    stack_flush(&c->cx);
    if (c->us->conn != NULL)
        tcp_set_owner(c->us->conn, c->us);
    wait_notify(&c->cx, c->us, UINT32_MAX);
    wait_wake_all(&c->cx, c->us);
}

void sock_unguard(struct call *c)
{
    struct usock *us = c->us;
    if (!us->guarded)
        return;
    guard_end(c->fd, us->local.port);
    us->guarded = false;
    if (!us->port_chosen)
        return;
    us->local.port = 0; /* Linux: a port that bind(0) chose is free again, another comes next */
    us->bound_port = us->port_chosen = false;
}

struct peer_search {
    struct stack *st;
    uint16_t port;
    bool found;
};

static void find_remote_peer(struct tcp_conn *conn, void *arg)
{
    struct peer_search *s = arg;
    struct endpoint local, remote;
    if (tcp_local(conn, &local) && local.port == s->port && tcp_remote(conn, &remote) &&
        !ip_is_local(s->st, &remote.addr))
        s->found = true;
}

/* Whether connections of this port go over the wire: the kernel would reset them without a guard.
 */
static bool remote_peers(struct stack *st, uint16_t port)
{
    struct peer_search s = {.st = st, .port = port};
    tcp_each_conn(st, find_remote_peer, &s);
    return s.found;
}

void sock_unlisten(struct call *c)
{
    struct usock *us = c->us;
    struct tcp_conn *conn = usock_conn(&c->cx, us);
    if (conn != NULL)
        *tcp_opts(conn) = *tcp_listener_opts(us->listener); /* its options stay */
    tcp_listener_close(&c->cx, us->listener);
    us->listener = NULL;
    us->kind = USOCK_UNDECIDED;
    us->kernel_listen = false;
    wait_unlistens(&c->cx, us);
    /* haproxy pauses its listeners by shutdown(): their connections must not lose the guard */
    if (!us->guarded || !remote_peers(c->cx.st, us->local.port) || guard_retire(c->fd) < 0)
        sock_unguard(c);
    raw_fcntl(c->fd, F_SETFL,
              (raw_fcntl(c->fd, F_GETFL, 0) & ~O_NONBLOCK) | (us->nonblock ? O_NONBLOCK : 0));
    sock_ended(c);
}

static int sock_shutdown(struct call *c, int how)
{
    struct usock *us = c->us;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (us->kind == USOCK_LISTENER) {
        if (how != SHUT_WR) /* ends it: accept() fails from then on, connect() may follow */
            sock_unlisten(c);
        else
            wait_notify(&c->cx, us, UINT32_MAX); /* Linux wakes everybody though nothing changed */
        return 0;
    }
    struct tcp_conn *conn = usock_conn(&c->cx, us);
    if (conn == NULL)
        return -ENOTCONN;
    const enum tcp_state state = tcp_state(conn);
    if (how != SHUT_RD)
        follow_close(c);
    tcp_set_owner(conn, NULL);
    if (state == TCP_SYN_SENT)
        sock_disconnects(us);
    const int r = tcp_shutdown(&c->cx, conn, (enum tcp_how)how);
    if (us->connecting) { /* as Linux's inet_shutdown(): the attempt is over, however it stands */
        us->connecting = false;
        us->given_up = state == TCP_CLOSED;
    }
    if (state == TCP_SYN_SENT) {
        us->kind = USOCK_UNDECIDED;
        sock_unguard(c);
    }
    sock_ended(c);
    return r;
}

SHIM_EXPORT int shutdown(int fd, int how)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "shutdown", CALL_ANY)))
        return real_ready()->shutdown(fd, how);
    call_note(&c, (struct call_args){.shape = ARGS_HOW, .a = (uint64_t)how});
    return (int)call_end(&c, sock_shutdown(&c, how));
}
