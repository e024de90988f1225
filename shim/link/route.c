/*
 * Routes and the choice between the stacks (route.h). The kernel's answers are kept for a second: a
 * program that connects often asks rarely, and a changed route is noticed soon. Used under the
 * engine lock.
 */
#include "shim/link/route.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>
#include <time.h>

#include "shim/core/addr.h"
#include "shim/core/engine.h"
#include "shim/core/rules.h"
#include "shim/link/group.h"
#include "shim/link/guard.h"
#include "shim/link/interfaces.h"
#include "shim/link/link.h"
#include "shim/link/netlink.h"
#include "shim/watch/trace.h"
#include "stack/tcp/flow.h"

#define CACHE_SIZE 64
#define CACHE_LIFE NSEC_PER_SEC

struct cached {
    nsec_t until; /* 0: empty */
    struct ip_addr dst, src;
    uint32_t oif;
    int err;
    struct route_answer answer;
};

static struct cached cache[CACHE_SIZE];

static const struct ip_addr any_addr;

static nsec_t clock_coarse(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* What a RTM_NEWROUTE message adds to the answer. */
struct route_visit {
    struct route_answer *answer;
    int err; /* -ENODATA: no message yet */
};

static void visit_route(const struct nlmsghdr *m, void *arg)
{
    struct route_visit *v = arg;
    const struct rtmsg *rt = NLMSG_DATA(m);
    const struct rtattr *a[RTA_VIA + 1];
    size_t len;
    if (m->nlmsg_type != RTM_NEWROUTE)
        return;
    const struct rtattr *attrs = nl_attrs(m, sizeof(*rt), &len);
    nl_parse(attrs, len, a, RTA_VIA);
    v->err = 0;
    v->answer->ifindex = nl_u32(a[RTA_OIF]);
    v->answer->local = rt->rtm_type == RTN_LOCAL;
    if (a[RTA_PREFSRC])
        v->answer->prefsrc = ip_addr_from_v4(nl_u32(a[RTA_PREFSRC]));
    if (a[RTA_GATEWAY])
        v->answer->next_hop = ip_addr_from_v4(nl_u32(a[RTA_GATEWAY]));
    if (a[RTA_METRICS]) {
        const struct rtattr *metrics[RTAX_MTU + 1];
        nl_parse(RTA_DATA(a[RTA_METRICS]), RTA_PAYLOAD(a[RTA_METRICS]), metrics, RTAX_MTU);
        v->answer->mtu = nl_u32(metrics[RTAX_MTU]);
    }
    if (rt->rtm_type == RTN_BROADCAST || rt->rtm_type == RTN_MULTICAST)
        v->err = -ENETUNREACH; /* as tcp_v4_connect() */
    else if (a[RTA_VIA])
        v->err = -EOPNOTSUPP; /* IPv4 over an IPv6 next hop (RFC 5549) */
}

static int ask_route(const struct ip_addr *dst, const struct ip_addr *src, uint32_t oif,
                     struct route_answer *out)
{
    struct nl_request rq;
    struct rtmsg rt = {.rtm_family = AF_INET, .rtm_dst_len = 32};
    struct route_visit visit = {.answer = out, .err = -ENODATA};
    if (src)
        rt.rtm_src_len = 32;
    nl_begin(&rq, RTM_GETROUTE, 0, &rt, sizeof(rt));
    nl_put_u32(&rq, RTA_DST, ip_addr_v4(dst));
    if (src) {
        nl_put_u32(&rq, RTA_SRC, ip_addr_v4(src));
        out->prefsrc = *src;
    }
    if (oif)
        nl_put_u32(&rq, RTA_OIF, oif);
    out->next_hop = *dst;
    int err = nl_ask(&rq, visit_route, &visit);
    return err < 0 ? err : visit.err;
}

static void visit_neigh(const struct nlmsghdr *m, void *arg)
{
    struct route_answer *out = arg;
    const struct ndmsg *nd = NLMSG_DATA(m);
    const struct rtattr *a[NDA_LLADDR + 1];
    size_t len;
    if (m->nlmsg_type != RTM_NEWNEIGH)
        return;
    const struct rtattr *attrs = nl_attrs(m, sizeof(*nd), &len);
    nl_parse(attrs, len, a, NDA_LLADDR);
    if (!(nd->ndm_state & (NUD_REACHABLE | NUD_PERMANENT)) || !a[NDA_LLADDR] ||
        RTA_PAYLOAD(a[NDA_LLADDR]) != sizeof(out->neigh_mac))
        return;
    memcpy(out->neigh_mac, RTA_DATA(a[NDA_LLADDR]), sizeof(out->neigh_mac));
    out->neigh_known = true;
}

/* Entries that the kernel itself would ask about again are left to the engine's ARP. */
static void ask_neigh(struct route_answer *out)
{
    struct nl_request rq;
    struct ndmsg nd = {.ndm_family = AF_INET, .ndm_ifindex = (int)out->ifindex};
    nl_begin(&rq, RTM_GETNEIGH, 0, &nd, sizeof(nd));
    nl_put_u32(&rq, NDA_DST, ip_addr_v4(&out->next_hop));
    (void)nl_ask(&rq, visit_neigh, out); /* ENOENT: not known */
}

static struct cached *cache_slot(const struct ip_addr *dst, const struct ip_addr *src, uint32_t oif)
{
    uint32_t h = ip_addr_v4(dst) * 2654435761u ^ ip_addr_v4(src) * 40503u ^ oif * 97u;
    return &cache[(h >> 16 ^ h) % CACHE_SIZE];
}

int route_lookup(const struct ip_addr *dst, const struct ip_addr *src, uint32_t oif,
                 struct route_answer *out)
{
    if (src && ip_addr_is_any(src))
        src = NULL;
    const struct ip_addr *from = src ? src : &any_addr;
    struct cached *c = cache_slot(dst, from, oif);
    nsec_t now = clock_coarse();
    bool fresh =
        now < c->until && c->oif == oif && ip_addr_eq(&c->dst, dst) && ip_addr_eq(&c->src, from);
    if (!fresh) {
        *c = (struct cached){.until = now + CACHE_LIFE, .dst = *dst, .src = *from, .oif = oif};
        c->err = ask_route(dst, src, oif, &c->answer);
        if (c->err == 0 && !c->answer.local)
            ask_neigh(&c->answer);
        if (c->err < 0)
            c->until = 0; /* the next attempt may find what was missing */
    }
    *out = c->answer;
    return c->err;
}

/* ---- decisions ---- */

static struct decision to_user(const char *why)
{
    return (struct decision){.verdict = VERDICT_USER, .why = why};
}

static struct decision to_kernel(const char *why)
{
    return (struct decision){.verdict = VERDICT_KERNEL, .why = why};
}

static struct decision fails(int err, const char *why)
{
    return (struct decision){.verdict = VERDICT_FAIL, .err = err, .why = why};
}

static bool is_own(const struct ip_addr *addr)
{
    return config.own_address && ip_addr_eq(addr, &config.addr);
}

/* A native IPv6 address, the unspecified one excepted: dual-stack sockets bind to that. */
static bool native_v6(const struct ip_addr *addr)
{
    return !ip_addr_is_v4(addr) && !ip_addr_is_any(addr);
}

/* To an address of this host: inside the arena when that is wanted and a listener of ours is there.
 */
static struct decision connect_local(const struct endpoint *remote, struct ip_path *path,
                                     struct ip_addr *local, const char *why)
{
    bool wanted = config.loopback_user || is_own(&remote->addr);
    const bool deaf = !config.own_address && guard_is_deaf(remote);
    if (!wanted && deaf)
        return fails(ECONNREFUSED, "the port is the stack's, and nothing listens there");
    if (!wanted)
        return to_kernel("the destination is this host (TCPSHIM_LOOPBACK=user would take it)");
    if (!deaf && !tcp_port_in_use(engine.st, remote->port) && !is_own(&remote->addr))
        return to_kernel("the destination is this host, and no listener of the stack is there");
    if (ip_route(engine.st, &remote->addr, path, local) < 0)
        return to_kernel("the destination is this host");
    return to_user(why);
}

static struct decision connect_own(const struct usock *us, const struct endpoint *remote,
                                   struct ip_path *path, struct ip_addr *local, const char *why)
{
    struct route_answer r;
    if (us->bound && !ip_addr_is_any(&us->local.addr) && !is_own(&us->local.addr))
        return to_kernel("bound to an address of the kernel's");
    if (is_own(&remote->addr) || (route_lookup(&remote->addr, NULL, 0, &r) == 0 && r.local))
        return connect_local(remote, path, local, why);
    int err = ip_route(engine.st, &remote->addr, path, local);
    if (err < 0)
        return fails(-err, "no route from the stack's own address (TCPSHIM_GW)");
    return to_user(why);
}

static bool netif_has(const struct netif *nif, const struct ip_addr *addr)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (ip_addr_eq(&nif->addrs[i].addr, addr))
            return true;
    return false;
}

/* Whether an interface of the stack has addr. */
static bool stack_has(const struct ip_addr *addr)
{
    for (unsigned at = NETIF_LOOP + 1; at < NETIFS_MAX; at++) {
        const struct netif *nif = stack_netif(engine.st, at);
        if (nif && nif->up && netif_has(nif, addr))
            return true;
    }
    return false;
}

/* The stack's interface for a route, looked for again on the machine when it or its address is new.
 */
static int route_netif(const struct route_answer *r)
{
    int at = stack_netif_by_ifindex(engine.st, r->ifindex);
    if (at <= 0 || !stack_netif(engine.st, (unsigned)at)->up || !stack_has(&r->prefsrc)) {
        link_refresh(engine.link, engine.st, r->ifindex);
        at = stack_netif_by_ifindex(engine.st, r->ifindex);
    }
    bool good = at > 0 && stack_netif(engine.st, (unsigned)at)->up && stack_has(&r->prefsrc);
    return good ? at : -ENODEV;
}

static struct decision connect_shared(const struct usock *us, const struct endpoint *remote,
                                      struct ip_path *path, struct ip_addr *local, const char *why)
{
    struct route_answer r;
    const struct ip_addr *src = us->bound ? &us->local.addr : NULL;
    int err = route_lookup(&remote->addr, src, us->bound_ifindex, &r);
    if (err == -ENETUNREACH || err == -EHOSTUNREACH || err == -EACCES)
        return fails(-err, "the kernel has no route");
    if (err < 0)
        return to_kernel("the kernel's route is of a kind that the stack cannot follow");
    if (r.local)
        return connect_local(remote, path, local, why);
    int at = route_netif(&r);
    if (at < 0)
        return to_kernel("the route's interface is not one of the stack's");
    *path = (struct ip_path){
        .netif = (uint8_t)at, .mac_known = r.neigh_known, .mtu = r.mtu, .next_hop = r.next_hop};
    memcpy(path->mac, r.neigh_mac, sizeof(path->mac));
    *local = r.prefsrc;
    return to_user(why);
}

static struct decision decide_connect(const struct usock *us, const struct endpoint *remote,
                                      struct ip_path *path, struct ip_addr *local)
{
    if (native_v6(&remote->addr) || (us->bound && native_v6(&us->local.addr)))
        return to_kernel("native IPv6");
    struct decision d = rules_decide(RULE_CONNECT, remote);
    if (d.verdict != VERDICT_USER)
        return d;
    if (ip_addr_is_any(&remote->addr)) {
        struct endpoint here = *remote; /* connect() to 0.0.0.0 means this host */
        here.addr = ip_addr_from_v4(htobe32(0x7f000001));
        return connect_local(&here, path, local, d.why);
    }
    if (addr_is_loopback(&remote->addr))
        return connect_local(remote, path, local, d.why);
    if (addr_is_group(&remote->addr))
        return to_kernel("multicast or broadcast");
    if (us->bound && addr_is_loopback(&us->local.addr))
        return to_kernel("bound to the loopback");
    return config.own_address ? connect_own(us, remote, path, local, d.why)
                              : connect_shared(us, remote, path, local, d.why);
}

/* One line of the rule trace; there is no connection yet, so the addresses stand for it. */
static void trace_rule(const char *call, const struct decision *d, const struct endpoint *local,
                       const struct endpoint *remote)
{
    if (likely(!(config.trace & TRACE_RULE)))
        return;
    struct flow flow = {.tuple = {.local = local->addr, .lport = local->port}};
    if (remote) {
        flow.tuple.remote = remote->addr;
        flow.tuple.rport = remote->port;
    }
    const uint64_t argv[] = {(uintptr_t)call, d->verdict == VERDICT_USER, (uintptr_t)d->why};
    trace_now(&flow, TRACE_EV_RULE, argv, ARRAY_LEN(argv));
}

struct decision route_connect(struct usock *us, const struct endpoint *remote, struct ip_path *path,
                              struct ip_addr *local)
{
    struct decision d = decide_connect(us, remote, path, local);
    struct endpoint from = us->local;
    if (d.verdict == VERDICT_USER)
        from.addr = *local;
    trace_rule("connect", &d, &from, remote);
    return d;
}

static struct decision decide_listen(const struct usock *us, const struct endpoint *local)
{
    bool any = ip_addr_is_any(&local->addr);
    if (native_v6(&local->addr) || (us->family == AF_INET6 && us->v6only))
        return to_kernel("native IPv6");
    struct decision d = rules_decide(RULE_LISTEN, local);
    if (d.verdict == VERDICT_USER && us->reuseport && !config.own_address && group_of_kernel(local))
        return to_kernel("a program listens there in the kernel (SO_REUSEPORT)");
    if (d.verdict != VERDICT_USER || any)
        return d;
    if (addr_is_loopback(&local->addr))
        return config.loopback_user
                   ? d
                   : to_kernel("bound to the loopback (TCPSHIM_LOOPBACK=user would take it)");
    if (config.own_address)
        return is_own(&local->addr) ? d : to_kernel("bound to an address of the kernel's");
    if (!stack_has(&local->addr))
        link_refresh(engine.link, engine.st, 0);
    return stack_has(&local->addr)
               ? d
               : to_kernel("bound to an address of no interface of the stack's");
}

struct decision route_listen(struct usock *us, const struct endpoint *local)
{
    struct decision d = decide_listen(us, local);
    trace_rule("listen", &d, local, NULL);
    return d;
}
