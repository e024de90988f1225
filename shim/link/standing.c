#include "shim/link/standing.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/keeper.h"
#include "shim/link/guard.h"
#include "shim/link/link.h"
#include "shim/link/seal.h"
#include "stack/util/random.h"
#include "stack/util/siphash.h"

#define STANDING_MIN 16
/* Descriptors up to here may be guards, where the hard limit allows. */
#define STANDING_ROOM (STANDING_MAX * 2)
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

/* Where there is no custody, a guard ends with the process and serves that one alone. */
static struct standing_set own;
static bool alone;
static unsigned nmade; /* by this process, and those it was forked from: descriptors */
static struct rng rng;
static bool seeded;

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

static struct standing_set *guards(void)
{
    return alone ? &own : &engine.sh->standing;
}

static struct standing *place(struct standing_set *set, struct standing s)
{
    set->of[set->n] = s;
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* who dies in between leaves only what is whole */
    set->at[s.port] = (uint16_t)++set->n;
    return &set->of[set->n - 1];
}

void standing_gone(struct standing_set *set, uint16_t port)
{
    const uint32_t at = set->at[port];
    if (at == 0)
        return;
    set->of[at - 1] = set->of[--set->n];
    set->at[set->of[at - 1].port] = (uint16_t)at;
    set->at[port] = 0;
}

void standing_repair(struct standing_set *set, bool sound)
{
    const uint32_t n = sound ? min_u32(set->n, STANDING_MAX) : 0;
    memset(set->at, 0, sizeof(set->at));
    set->n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (set->of[i].port != 0 && set->at[set->of[i].port] == 0)
            place(set, set->of[i]);
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
    struct standing_set *set = guards();
    if (set->n == 0)
        return NULL;
    const uint32_t hash = remote_hash(remote), now = coarse(cx->now), first = pick(set->n);
    struct standing *best = NULL;
    uint32_t most = 0;
    for (unsigned i = 0; i < min_u32(n, set->n) && most < coarse(REST_TIME); i++) {
        struct standing *s = &set->of[(first + i) % set->n];
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
    if (nmade < STANDING_MIN)
        return 0;
    struct rlimit high = {.rlim_max = before->rlim_max};
    high.rlim_cur = min_u64(before->rlim_max, max_u64(before->rlim_cur, STANDING_ROOM));
    if (nmade >= before->rlim_cur / 2 + (high.rlim_cur - before->rlim_cur))
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
    return fd_make_internal(fd);
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

/* Puts a new guard where it stands longest. */
static struct standing *enter(uint16_t port, int fd)
{
    /* may take others' guards down, so before the place of this one is chosen */
    if (!keeper_hold(fd, port, false))
        alone = true;
    nmade++;
    return place(guards(), (struct standing){.port = port});
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
        if (guards()->at[port] != 0) {
            *out = &guards()->of[guards()->at[port] - 1];
            if (rested(*out, cx, remote))
                return 0;
            continue;
        }
        int fd = make_guard(port);
        if (fd >= 0) {
            *out = enter(port, fd);
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

void standing_port_range(uint16_t *min, uint16_t *max)
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
    if (guards()->n == STANDING_MAX)
        return -EMFILE;
    for (unsigned i = 0; i < min_u32(ports->nblocks, 2) && err == -EADDRNOTAVAIL; i++)
        err = new_standing(cx, local, remote, &ports->blocks[ports->nblocks - 1 - i], out);
    while (err == -EADDRNOTAVAIL && add_block(ports) == 0)
        err = new_standing(cx, local, remote, &ports->blocks[ports->nblocks - 1], out);
    return err;
}

int standing_port(struct stack_cx *cx, const struct ip_addr *local, const struct endpoint *remote)
{
    guard_sweep(cx);
    struct standing *s = find_standing(cx, local, remote, PICKS);
    int err = 0;
    if (s == NULL || (guards()->n < STANDING_ENOUGH && !rested(s, cx, remote))) {
        struct standing *other = NULL;
        err = grow(cx, local, remote, &other);
        if (err == 0 || s == NULL)
            s = other;
    }
    if (s == NULL)
        s = find_standing(cx, local, remote, guards()->n);
    if (s)
        return use(s, cx, remote);
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS ? err : -EADDRNOTAVAIL;
}

void standing_after_fork_child(void)
{
    seeded = false;
}
