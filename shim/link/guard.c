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
#include <sys/stat.h>
#include <unistd.h>

#include "shim/core/endpoint.h"
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
    bool group; /* was a member of an SO_REUSEPORT group */
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

/* The user whose a socket is. */
static uid_t owner(int fd)
{
    struct stat st = {0};
    raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0);
    return st.st_uid;
}

/* The local name of a kernel socket; port 0: none. */
static struct endpoint name_of(int fd)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof(sa);
    raw_getsockname(fd, &sa, &len);
    return endpoint_of((const struct sockaddr *)&sa);
}

/* Whether what is bound to `wide` has all of what `narrow` has. */
static bool covers(const struct endpoint *wide, const struct endpoint *narrow)
{
    return wide->port == narrow->port &&
           (ip_addr_is_any(&wide->addr) || ip_addr_eq(&wide->addr, &narrow->addr));
}

static bool overlaps(const struct endpoint *a, const struct endpoint *b)
{
    return covers(a, b) || covers(b, a);
}

struct listener_search {
    struct endpoint at;
    bool group; /* only members of an SO_REUSEPORT group count */
    bool found;
};

static void match_listener(void *object, void *arg)
{
    const struct usock *us = object;
    struct listener_search *s = arg;
    if (us->kind == USOCK_LISTENER && (us->reuseport || !s->group) && overlaps(&us->local, &s->at))
        s->found = true;
}

static bool search_listeners(struct listener_search s)
{
    pool_each(&engine.sh->usocks, match_listener, &s);
    return s.found;
}

/* Whether a member of an SO_REUSEPORT group listens on the port somewhere in the family. */
static bool group_listens(uint16_t port)
{
    return search_listeners((struct listener_search){.at.port = port, .group = true});
}

/* ... or anybody of the family at this place, */
static bool somebody_listens_at(const struct endpoint *at)
{
    return search_listeners((struct listener_search){.at = *at});
}

/* ... or at any address. */
static bool somebody_listens(uint16_t port)
{
    return search_listeners((struct listener_search){.at.port = port});
}

/* Whoever has its descriptor: the socket stops listening, and gives the port to who says
 * SO_REUSEADDR. */
static void step_down(int fd)
{
    const int on = 1;
    raw_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    raw_syscall(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
}

/* Processes that forked from this one may still have the descriptor, whether they ever come to
 * close it or not. */
static void drop_kept(unsigned i)
{
    keeper_let_go(kept[i].fd, kept[i].port); /* takes a while: before the port is open */
    step_down(kept[i].fd);
    fd_release_internal(kept[i].fd);
    kept[i] = kept[--nkept];
}

/* The guards of what is bound to `at` end, whichever process has them: kept here, or in custody. */
static void end_guards(const struct endpoint *at)
{
    struct guard_yield end = {.to = *at, .end = true};
    for (unsigned i = nkept; i-- > 0;) {
        const struct endpoint name = name_of(kept[i].fd);
        if (covers(at, &name))
            drop_kept(i);
    }
    keeper_yield(&end);
}

/* A socket that shares the port with older guards stands. Where another one of the program's group
 * listens, they ended before. */
static void take_over(struct usock *us, int fd)
{
    us->beside = false;
    if (!somebody_listens_at(&us->local))
        end_guards(&us->local);
    set_reuseport(fd, us->reuseport);
}

int guard_backing(struct usock *us, int fd, bool local_clients, bool v6_kernel, int backlog)
{
    int err = seal_socket(fd, local_clients, v6_kernel);
    if (err == 0)
        err = raw_listen(fd, backlog);
    if (err < 0)
        return err;
    if (us->beside)
        take_over(us, fd);
    keeper_hold(fd, name_of(fd).port, true);
    return 0;
}

static void share_with(int fd, struct guard_yield *y)
{
    set_reuseport(fd, 1);
    if (owner(fd) != y->uid && raw_syscall(SYS_fchown, fd, y->uid, -1, 0, 0, 0) < 0)
        y->foreign = true;
}

bool guard_yields(int fd, struct guard_yield *y)
{
    const struct endpoint name = name_of(fd);
    const bool concerned = y->end ? covers(&y->to, &name) : overlaps(&y->to, &name);
    if (!concerned || !get_flag(fd, SO_REUSEADDR))
        return false;
    if (y->end)
        step_down(fd);
    else
        share_with(fd, y);
    return y->end;
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
    kept[nkept++] = (struct kept){
        .fd = fd_make_internal(copy), .port = port, .group = get_flag(fd, SO_REUSEPORT)};
}

bool guard_adopt(int fd, uint16_t port)
{
    if (!tcp_port_in_use(engine.st, port))
        return false;
    /* what another process still listens on has no need of us, and is not ours to seal */
    if (somebody_listens(port))
        return true;
    guard_keep(fd, port);
    return true;
}

bool guard_orphaned(int fd, uint64_t cookie, uint16_t port)
{
    return get_flag(fd, SO_REUSEPORT) && diag_is_door(fd) && group_listens(port) &&
           tcp_listener_member(engine.st, port, cookie) == NULL;
}

/*
 * Lets go of kept guards that are not needed: no flow uses the port, or a listener of the same
 * group guards it, whose share of local clients the kept one would swallow. Returns how many went.
 */
static unsigned sweep_kept(void)
{
    unsigned before = nkept;
    for (unsigned i = nkept; i-- > 0;) {
        const struct kept *k = &kept[i];
        if (!tcp_port_in_use(engine.st, k->port) || (k->group && group_listens(k->port)))
            drop_kept(i);
    }
    return before - nkept;
}

/*
 * bind(2) to a port that guards of the family hold, as a connection of another socket needs it:
 * they share the port until this one stands. Any process may have them, dead or alive, in custody.
 */
static int bind_beside(struct usock *us, int fd, const struct sockaddr *sa, socklen_t len,
                       const struct endpoint *to)
{
    struct guard_yield y = {.to = *to, .uid = owner(fd)};
    for (unsigned i = 0; i < nkept; i++) {
        const struct endpoint name = name_of(kept[i].fd);
        if (overlaps(to, &name))
            share_with(kept[i].fd, &y);
    }
    keeper_yield(&y);
    set_reuseport(fd, 1);
    const int err = raw_bind(fd, sa, len);
    us->beside = err == 0;
    if (err == 0)
        return 0;
    set_reuseport(fd, us->reuseport);
    if (err != -EADDRINUSE || !y.foreign)
        return err;
    end_guards(to); /* until this one stands, nobody guards the port */
    return raw_bind(fd, sa, len);
}

int guard_bind(struct usock *us, int fd, const struct sockaddr *sa, socklen_t len)
{
    int err = raw_bind(fd, sa, len);
    if (err != -EADDRINUSE)
        return err;
    if (sweep_kept() > 0) {
        err = raw_bind(fd, sa, len);
        if (err != -EADDRINUSE)
            return err;
    }
    const struct endpoint to = endpoint_of(sa);
    /* without SO_REUSEADDR as the kernel says while connections of the port live on */
    if (!us->reuseaddr || to.port == 0 || !tcp_port_in_use(engine.st, to.port) ||
        somebody_listens_at(&to))
        return err;
    return bind_beside(us, fd, sa, len, &to);
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
    for (unsigned i = 0; i < nkept; i++) {
        if (owner(kept[i].fd) == 0)
            raw_syscall(SYS_fchown, kept[i].fd, uid, -1, 0, 0, 0);
    }
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
