/*
 * Guards (guard.h). Two kinds of kernel sockets stand here beside the program's own backing
 * sockets:
 *
 * - standing guards of ephemeral ports, bound to 0.0.0.0:port behind a filter that drops all. They
 * are never taken down: a port may serve one connection to each remote end at a time, so a standing
 *   guard makes most connections free of any system call;
 * - kept guards: duplicates of backing sockets that the program closed while connections of their
 *   port live on.
 *
 * Tables are process-local, as descriptors are; both are used under the engine lock. A fork's child
 * inherits the descriptors and so the guards.
 */
#include "shim/link/guard.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/keeper.h"
#include "shim/link/diag.h"
#include "shim/link/link.h"
#include "shim/link/seal.h"
#include "stack/util/random.h"
#include "stack/util/siphash.h"

#define STANDING_MAX 16384
#define STANDING_MIN 16
/* Descriptors up to here may be guards, where the hard limit allows. */
#define STANDING_ROOM (STANDING_MAX * 2)
#define KEPT_MAX      4096
/* From so many on a new one is made only where none of those looked at can serve at all. */
#define STANDING_ENOUGH 4096
/* Standing guards that are looked at, from a random one on, before a new one is made. */
#define PICKS 16
/* Ports of a block tried for a new guard: others may hold some. */
#define TRIES 32
/*
 * A remote end is not met from the same port again within this time, unless so many connections are
 * made to it that STANDING_ENOUGH guards have no such rest: its TIME_WAIT of that port may last,
 * and is reopened by ISN and timestamp, which both grow (RFC 9293 3.6.1, RFC 6191).
 */
#define REST_TIME (4 * NSEC_PER_SEC)

/* A standing guard. */
struct standing {
    uint16_t port;
    int fd;
    uint32_t remote; /* hash of the remote end that it last served */
    uint32_t used;   /* when, in units of 2^20 ns */
};

struct kept {
    int fd;
    uint16_t port;
    bool group;  /* was a member of an SO_REUSEPORT group */
    bool shared; /* adopted: has SO_REUSEPORT, so that others of the family can bind to the port */
    bool yielding; /* a new socket shares the port; this guard ends when that one listens */
    bool lent;     /* ... and that one has SO_REUSEPORT only for that reason */
};

static struct standing standing[STANDING_MAX];
static unsigned nstanding;
static uint16_t standing_at[65536]; /* by port: index + 1 in standing[] */
static struct kept kept[KEPT_MAX];
static unsigned nkept;
static nsec_t swept;
static struct rng rng;
static bool seeded;

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

/* ---- ephemeral ports ---- */

static uint32_t pick(uint32_t n)
{
    if (!seeded) {
        uint8_t seed[16] = {0};
        raw_getrandom(seed, sizeof(seed));
        rng_init(&rng, seed);
        seeded = true;
    }
    return rng_below(&rng, n);
}

static uint32_t remote_hash(const struct endpoint *remote)
{
    uint64_t words[3] = {remote->addr.q[0], remote->addr.q[1], remote->port};
    struct siphash_key key = {0};
    return (uint32_t)siphash13(&key, words, sizeof(words));
}

static uint32_t coarse(nsec_t now)
{
    return (uint32_t)(now >> 20);
}

static bool serves(struct stack_cx *cx, const struct standing *s, const struct ip_addr *local,
                   const struct endpoint *remote)
{
    return tcp_ephemeral_port(cx, local, remote, s->port, s->port, 0) != 0;
}

/* How long the guard has not served this remote end (a hash), as far as it is remembered. */
static uint32_t rest_of(const struct standing *s, uint32_t remote, uint32_t now)
{
    return s->remote == remote ? now - s->used : UINT32_MAX;
}

/*
 * Looks at no more than n standing guards, from a random one on, for one that fits. One that has
 * rested is best, else the one that has rested longest.
 */
static struct standing *find_standing(struct stack_cx *cx, const struct ip_addr *local,
                                      const struct endpoint *remote, unsigned n)
{
    if (nstanding == 0)
        return NULL;
    const uint32_t hash = remote_hash(remote), now = coarse(cx->now), first = pick(nstanding);
    struct standing *best = NULL;
    uint32_t most = 0;
    for (unsigned i = 0; i < min_u32(n, nstanding) && most < coarse(REST_TIME); i++) {
        struct standing *s = &standing[(first + i) % nstanding];
        const uint32_t rest = rest_of(s, hash, now);
        if ((best == NULL || rest > most) && serves(cx, s, local, remote)) {
            best = s;
            most = rest;
        }
    }
    return best;
}

static bool rested(const struct standing *s, const struct stack_cx *cx,
                   const struct endpoint *remote)
{
    return rest_of(s, remote_hash(remote), coarse(cx->now)) >= coarse(REST_TIME);
}

/*
 * The limit that counts while a guard is made. A few guards live among the program's descriptors;
 * the others go above its soft limit (RLIMIT_NOFILE), where they take none of its numbers: a limit
 * matters only when a descriptor is made. -EMFILE: the hard limit leaves no room.
 */
static int raise_limit(struct rlimit *before)
{
    *before = (struct rlimit){.rlim_cur = 1024, .rlim_max = 1024};
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)before, 0, 0);
    if (nstanding < STANDING_MIN)
        return 0;
    struct rlimit high = {.rlim_max = before->rlim_max};
    high.rlim_cur = min_u64(before->rlim_max, max_u64(before->rlim_cur, STANDING_ROOM));
    if (nstanding >= before->rlim_cur / 2 + (high.rlim_cur - before->rlim_cur))
        return -EMFILE;
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&high, 0, 0, 0);
    return 1;
}

/* A bound and listening socket on 0.0.0.0:port that admits nobody, or negative errno. */
static int open_guard(uint16_t port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = fd_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return fd;
    int err = raw_bind(fd, &any, sizeof(any));
    if (err == 0)
        err = seal_socket(fd, false, false);
    if (err == 0)
        err = raw_listen(fd, 1);
    if (err < 0) {
        raw_close(fd);
        return err;
    }
    int moved = fd_make_internal(fd);
    return moved >= 0 ? moved : fd;
}

static int make_guard(uint16_t port)
{
    struct rlimit before;
    int raised = raise_limit(&before);
    if (raised < 0)
        return raised;
    int fd = open_guard(port);
    if (raised)
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&before, 0, 0, 0);
    return fd;
}

/* A guard in the block for a port that no connection to remote uses: a new one, or one met on the
 * way. */
static int new_standing(struct stack_cx *cx, const struct ip_addr *local,
                        const struct endpoint *remote, const struct port_range *block,
                        struct standing **out)
{
    for (unsigned attempt = 0; attempt < TRIES; attempt++) {
        uint16_t port = tcp_ephemeral_port(cx, local, remote, block->low, block->high, attempt);
        if (port == 0)
            break;
        if (standing_at[port] != 0) {
            *out = &standing[standing_at[port] - 1];
            if (rested(*out, cx, remote))
                return 0;
            continue;
        }
        int fd = make_guard(port);
        if (fd >= 0) {
            standing[nstanding] = (struct standing){.port = port, .fd = fd};
            *out = &standing[nstanding++];
            standing_at[port] = (uint16_t)nstanding;
            keeper_hold(fd, port, false);
            return 0;
        }
        if (fd != -EADDRINUSE && fd != -EACCES)
            return fd;
    }
    return -EADDRNOTAVAIL;
}

/* net.ipv4.ip_local_port_range, "low high". */
static struct port_range local_port_range(void)
{
    static struct port_range range;
    char text[32] = "";
    unsigned low = 0, high = 0;
    if (range.high != 0)
        return range;
    int fd = raw_open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        (void)!raw_read(fd, text, sizeof(text) - 1);
        raw_close(fd);
    }
    if (sscanf(text, "%u %u", &low, &high) != 2 || low == 0 || high < low || high > 65535) {
        low = 32768;
        high = 60999;
    }
    range = (struct port_range){(uint16_t)low, (uint16_t)high};
    return range;
}

void guard_port_range(uint16_t *min, uint16_t *max)
{
    struct port_range r = local_port_range();
    *min = r.low;
    *max = r.high;
}

/* Takes one more block of the local port range, at random. -EADDRNOTAVAIL: all are taken. */
static int add_block(const struct port_set *ports)
{
    struct port_range range = local_port_range();
    unsigned nblocks = (range.high - range.low) / PORT_BLOCK_SIZE + 1u;
    unsigned first = pick(nblocks);
    for (unsigned i = 0; i < nblocks; i++) {
        unsigned low = range.low + (first + i) % nblocks * PORT_BLOCK_SIZE;
        if (ports_in_block(ports, (uint16_t)low))
            continue;
        unsigned high = min_u32(low + PORT_BLOCK_SIZE - 1, range.high);
        if (link_filter_add_block(engine.link, (uint16_t)low, (uint16_t)high) == 0)
            return 0;
        break;
    }
    return -EADDRNOTAVAIL;
}

static int use(struct standing *s, const struct stack_cx *cx, const struct endpoint *remote)
{
    s->remote = remote_hash(remote);
    s->used = coarse(cx->now);
    return s->port;
}

/* Tries the newest blocks, which have the most free ports, then takes more. */
static int grow(struct stack_cx *cx, const struct ip_addr *local, const struct endpoint *remote,
                struct standing **out)
{
    const struct port_set *ports = &engine.sh->ports;
    int err = -EADDRNOTAVAIL;
    if (nstanding == STANDING_MAX)
        return -EMFILE;
    for (unsigned i = 0; i < min_u32(ports->nblocks, 2) && err == -EADDRNOTAVAIL; i++)
        err = new_standing(cx, local, remote, &ports->blocks[ports->nblocks - 1 - i], out);
    while (err == -EADDRNOTAVAIL && add_block(ports) == 0)
        err = new_standing(cx, local, remote, &ports->blocks[ports->nblocks - 1], out);
    return err;
}

int guard_ephemeral(struct stack_cx *cx, const struct ip_addr *local, const struct endpoint *remote)
{
    guard_sweep(cx);
    struct standing *s = find_standing(cx, local, remote, PICKS);
    int err = 0;
    if (s == NULL || (nstanding < STANDING_ENOUGH && !rested(s, cx, remote))) {
        struct standing *other = NULL;
        err = grow(cx, local, remote, &other);
        if (err == 0 || s == NULL)
            s = other;
    }
    if (s == NULL)
        s = find_standing(cx, local, remote, nstanding);
    if (s)
        return use(s, cx, remote);
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS ? err : -EADDRNOTAVAIL;
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

void guard_sweep(struct stack_cx *cx)
{
    if (cx->now < swept + NSEC_PER_SEC)
        return;
    swept = cx->now;
    sweep_kept();
    if (engine.link)
        link_filter_sweep(engine.link);
}

void guard_after_fork_child(void)
{
    /* the descriptors are shared and stay guards; the child must not choose the parent's ports */
    seeded = false;
}
