/*
 * Guards of ports that the program chose (guard.h). Beside its own backing sockets stand here the
 * kept guards: duplicates of backing sockets that the program closed while connections of their
 * port live on.
 *
 * The table is process-local, as descriptors are, and used under the engine lock. A fork's child
 * inherits the descriptors and so the guards.
 */
#include "shim/link/guard.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/keeper.h"
#include "shim/link/diag.h"
#include "shim/link/link.h"
#include "shim/link/seal.h"

#define KEPT_MAX         4096
#define LOOPBACK_IFINDEX 1 /* of each network namespace (include/net/flow.h) */

struct kept {
    int fd;
    uint16_t port;
    bool group;  /* was a member of an SO_REUSEPORT group */
    bool shared; /* adopted: has SO_REUSEPORT, so that others of the family can bind to the port */
    bool yielding; /* a new socket shares the port; this guard ends when that one listens */
    bool lent;     /* ... and that one has SO_REUSEPORT only for that reason */
};

static struct kept kept[KEPT_MAX];
static unsigned nkept;
static nsec_t swept;

static int set_reuseport(int fd, int on)
{
    return raw_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
}

static bool get_flag(int fd, int name)
{
    int on = 0;
    socklen_t len = sizeof(on);
    return raw_getsockopt(fd, SOL_SOCKET, name, &on, &len) == 0 && on != 0;
}

/* The local port of a kernel socket; 0: none. */
static uint16_t port_of(int fd)
{
    struct sockaddr_in6 sa;
    socklen_t len = sizeof(sa);
    if (raw_getsockname(fd, &sa, &len) < 0)
        return 0;
    /* sin_port and sin6_port lie at the same place */
    return get_be16(&sa.sin6_port);
}

/*
 * Processes that forked from this one may still have the descriptor: the socket stops listening,
 * and gives the port to whoever says SO_REUSEADDR, whether they ever come to close it or not.
 */
static void drop_kept(unsigned i)
{
    const int on = 1;
    keeper_let_go(kept[i].fd, kept[i].port); /* takes a while: before the port is open */
    raw_setsockopt(kept[i].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    raw_syscall(SYS_shutdown, kept[i].fd, SHUT_RDWR, 0, 0, 0, 0);
    fd_release_internal(kept[i].fd);
    kept[i] = kept[--nkept];
}

/* The new listener of the port stands: guards that shared the port with it may go. */
static void end_yielding(int fd)
{
    uint16_t port = port_of(fd);
    bool lent = false;
    for (unsigned i = nkept; i-- > 0;) {
        if (!kept[i].yielding || kept[i].port != port)
            continue;
        lent = lent || kept[i].lent;
        drop_kept(i);
    }
    if (lent)
        set_reuseport(fd, 0);
}

int guard_backing(int fd, bool local_clients, bool v6_kernel, int backlog)
{
    int err = seal_socket(fd, local_clients, v6_kernel);
    if (err == 0)
        err = raw_listen(fd, backlog);
    if (err == 0 && nkept > 0)
        end_yielding(fd);
    if (err == 0)
        keeper_hold(fd, port_of(fd), true);
    return err;
}

/* ---- kept guards ---- */

/* Local clients that the program never accepted are reset, as the kernel does when a listener
 * closes. */
static void reset_waiting(int fd)
{
    const struct linger reset = {.l_onoff = 1};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timespec zero = {0};
    while (raw_ppoll(&p, 1, &zero) == 1) {
        int client = raw_accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            return;
        raw_setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        raw_close(client);
    }
}

struct port_search {
    uint16_t port;
    bool group; /* only members of an SO_REUSEPORT group count */
    bool found;
};

static void match_listener(void *object, void *arg)
{
    const struct usock *us = object;
    struct port_search *s = arg;
    if (us->kind == USOCK_LISTENER && (us->reuseport || !s->group) && us->local.port == s->port)
        s->found = true;
}

/* Whether a member of an SO_REUSEPORT group listens on the port somewhere in the family. */
static bool group_listens(uint16_t port)
{
    struct port_search s = {.port = port, .group = true};
    pool_each(&engine.sh->usocks, match_listener, &s);
    return s.found;
}

static bool somebody_listens(uint16_t port)
{
    struct port_search s = {.port = port};
    pool_each(&engine.sh->usocks, match_listener, &s);
    return s.found;
}

void guard_keep(int fd, uint16_t port)
{
    if (nkept == KEPT_MAX || seal_socket(fd, false, false) < 0)
        return;
    if (!get_flag(fd, SO_ACCEPTCONN))
        return;
    int copy = fd_duplicate(fd);
    if (copy < 0)
        return;
    reset_waiting(copy);
    int moved = fd_make_internal(copy);
    kept[nkept++] = (struct kept){
        .fd = moved >= 0 ? moved : copy, .port = port, .group = get_flag(fd, SO_REUSEPORT)};
}

bool guard_adopt(int fd, uint16_t port)
{
    if (!tcp_port_in_use(engine.st, port))
        return false;
    /* what another process still listens on has no need of us, and is not ours to seal */
    if (somebody_listens(port))
        return true;
    const unsigned before = nkept;
    guard_keep(fd, port);
    if (nkept > before)
        kept[before].shared = set_reuseport(kept[before].fd, 1) == 0;
    return true;
}

bool guard_orphaned(int fd, uint64_t cookie, uint16_t port)
{
    return get_flag(fd, SO_REUSEPORT) && diag_is_door(fd) && group_listens(port) &&
           tcp_listener_member(engine.st, port, cookie) == NULL;
}

bool guard_make_way(uint16_t port)
{
    bool any = false;
    for (unsigned i = nkept; i-- > 0;) {
        if (kept[i].port != port)
            continue;
        drop_kept(i);
        any = true;
    }
    return any;
}

/*
 * Lets go of kept guards that are not needed: no flow uses the port, or a listener of the same
 * group, or of one that shares, guards it, whose share of local clients the kept one would swallow.
 * Returns how many went.
 */
static unsigned sweep_kept(void)
{
    unsigned before = nkept;
    for (unsigned i = nkept; i-- > 0;) {
        const struct kept *k = &kept[i];
        if (!tcp_port_in_use(engine.st, k->port) || (k->group && group_listens(k->port)) ||
            (k->shared && somebody_listens(k->port)))
            drop_kept(i);
    }
    return before - nkept;
}

/* bind(2) beside a guard that shares the port; group: the program said SO_REUSEPORT itself. */
static int bind_shared(int fd, const struct sockaddr *sa, socklen_t len, bool group)
{
    set_reuseport(fd, 1);
    const int err = raw_bind(fd, sa, len);
    if (err < 0 && !group)
        set_reuseport(fd, 0);
    return err;
}

/*
 * The guard that holds the port may be another process's of the family, which adopted it (a process
 * that died had the port's connections): it shares. Its sockets of another user share with nobody.
 */
static int bind_beside(int fd, const struct sockaddr *sa, socklen_t len, uint16_t port)
{
    if (port == 0 || !tcp_port_in_use(engine.st, port) || somebody_listens(port) ||
        get_flag(fd, SO_REUSEPORT))
        return -EADDRINUSE;
    return bind_shared(fd, sa, len, false);
}

int guard_bind(int fd, const struct sockaddr *sa, socklen_t len, bool reuseaddr)
{
    int err = raw_bind(fd, sa, len);
    if (err != -EADDRINUSE || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return err;
    if (sweep_kept() > 0) {
        err = raw_bind(fd, sa, len);
        if (err != -EADDRINUSE)
            return err;
    }
    if (!reuseaddr)
        return err; /* as the kernel says while connections of the port live on */
    uint16_t port = ntohs(((const struct sockaddr_in *)(const void *)sa)->sin_port);
    bool group = get_flag(fd, SO_REUSEPORT), any = false;
    for (unsigned i = 0; i < nkept; i++) {
        if (kept[i].port != port)
            continue;
        kept[i].yielding = true;
        kept[i].lent = !group;
        any = true;
        set_reuseport(kept[i].fd, 1);
    }
    if (!any)
        return bind_beside(fd, sa, len, port);
    /* both share the port until the new one listens; its own SO_REUSEPORT must stay until then */
    err = bind_shared(fd, sa, len, group);
    if (err == 0)
        return 0;
    /* another user's guard (the program changed its uid) shares with nobody */
    return guard_make_way(port) ? raw_bind(fd, sa, len) : err;
}

int guard_retire(int fd)
{
    const int r = seal_socket(fd, false, false);
    if (r == 0)
        reset_waiting(fd);
    return r;
}

void guard_give(uid_t uid)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        const struct usock *us = fd_usock((int)fd);
        if (us && us->kernel_bound)
            raw_syscall(SYS_fchown, (int)fd, uid, -1, 0, 0, 0);
    }
    for (unsigned i = 0; i < nkept; i++)
        raw_syscall(SYS_fchown, kept[i].fd, uid, -1, 0, 0, 0);
}

void guard_end(int fd, uint16_t port)
{
    if (fd >= 0)
        raw_syscall(SYS_shutdown, fd, SHUT_RD, 0, 0, 0, 0);
    keeper_let_go(fd, port);
}

void guard_release_unused(void)
{
    sweep_kept();
}

bool guard_is_deaf(const struct endpoint *here)
{
    const struct port_set *ports = &engine.sh->ports;
    if (!ports_has(ports, here->port) && !ports_in_block(ports, here->port))
        return false;
    guard_release_unused();
    const struct flow_tuple t = {.local = here->addr, .remote = here->addr, .lport = here->port};
    struct diag_socket s;
    return diag_find(&t, LOOPBACK_IFINDEX, &s) == 0 && s.kind == DIAG_DEAF;
}

void guard_sweep(struct stack_cx *cx)
{
    if (cx->now < swept + NSEC_PER_SEC)
        return;
    swept = cx->now;
    sweep_kept();
    if (engine.link)
        link_filter_sweep(engine.link);
}
