/* A host: an engine, its listeners, and the programs that it wakes. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "stack/tcp/inside.h"

#define ARENA_MAX ((size_t)256 << 20)

static int on_transmit(struct stack_cx *cx, const struct frame_out *f)
{
    return net_transmit(cx->user, f);
}

/* Owners are programs, or a host's listener slots. */
static void on_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    struct host *h = cx->user;
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        if (owner == &h->listener_ready[i]) {
            h->listener_ready[i] = true;
            return;
        }
    app_event(owner, events);
}

static void on_trace(struct stack_cx *cx, const struct trace_record *r)
{
    struct host *h = cx->user;
    struct sim *s = h->sim;
    /* but for what is a pointer (to options, ranges, text) */
    const bool pointer_last = r->id == TRACE_EV_SEGMENT_IN || r->id == TRACE_EV_SEGMENT_OUT ||
                              r->id == TRACE_EV_RECV_FROM;
    for (unsigned i = 0; i + pointer_last < r->argc; i++)
        s->trace_sum = s->trace_sum * 31 + r->argv[i];
    if (!s->verbose || r->id == TRACE_EV_SEGMENT_IN || r->id == TRACE_EV_SEGMENT_OUT)
        return;
    char text[200];
    unsigned n = 0;
    for (unsigned i = 0; i < r->argc; i++)
        n +=
            (unsigned)snprintf(text + n, sizeof(text) - n, " %llu", (unsigned long long)r->argv[i]);
    if (r->id == TRACE_EV_STATE)
        snprintf(text, sizeof(text), " %s -> %s (%s)", tcp_state_name((unsigned)r->argv[0]),
                 tcp_state_name((unsigned)r->argv[1]), tcp_reason_text((unsigned)r->argv[2]));
    if (r->id == TRACE_EV_SEND_HELD)
        snprintf(text, sizeof(text), " (%s) unsent %llu in flight %llu cwnd %llu snd_wnd %llu",
                 tcp_reason_text((unsigned)r->argv[0]), (unsigned long long)r->argv[1],
                 (unsigned long long)r->argv[2], (unsigned long long)r->argv[3],
                 (unsigned long long)r->argv[4]);
    if (r->id == TRACE_EV_TIMER_FIRED)
        snprintf(text, sizeof(text), " %s %llu", tcp_timer_name((unsigned)r->argv[0]),
                 (unsigned long long)r->argv[1]);
    if (r->id == TRACE_EV_DROPPED)
        snprintf(text, sizeof(text), " %s", (const char *)(uintptr_t)r->argv[0]);
    sim_say(s, h, "  . [%u] %s%s", r->flow ? r->flow->number : 0, trace_events[r->id].name, text);
}

static const struct stack_ops ops = {
    .transmit = on_transmit,
    .notify = on_notify,
    .trace = on_trace,
};

/* Mapped once for each host number and given back between seeds: reads zero again, costs no mmap.
 */
static void *arena_memory(unsigned index, size_t size)
{
    static void *memory[HOSTS_MAX];
    static size_t used[HOSTS_MAX];
    if (!memory[index]) {
        char *p = mmap(NULL, ARENA_MAX + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            abort();
        uintptr_t at = ((uintptr_t)p + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1);
        memory[index] = (void *)at;
    } else {
        madvise(memory[index], used[index], MADV_DONTNEED);
    }
    used[index] = size;
    return memory[index];
}

void host_start(struct host *h, size_t arena, bool loopback, bool traced)
{
    struct sim *s = h->sim;
    h->arena = arena;
    const uint32_t ecn = prng_below(&s->plan_rng, (STACK_ECN_MAX + 1) * 4);
    struct stack_config config = {
        .own_address = true,
        .loopback = loopback,
        .port_min = 32768,
        .port_max = 60999,
        .cc = (uint8_t)prng_below(&s->plan_rng, TCP_CC_COUNT),
        .ecn = (uint8_t)(ecn % (STACK_ECN_MAX + 1)),
        .tuning = {.ecn_option = (uint8_t)(ecn / (STACK_ECN_MAX + 1))},
    };
    for (unsigned i = 0; i < sizeof(config.seed); i++)
        config.seed[i] = (uint8_t)prng_u64(&s->plan_rng);
    h->cx = (struct stack_cx){.now = host_clock(h), .ops = &ops, .user = h};
    /* to be shown is not to change what happens */
    const uint32_t shown = loopback ? TRACE_ALL & ~(uint32_t)TCP_INSIDE_SEEN : TRACE_ALL;
    h->cx.trace = traced ? TRACE_ALL : s->verbose ? shown : 0;
    h->cx.st = stack_init(arena_memory(h->index, arena), arena, 0, &config, h->cx.now);
    if (!h->cx.st)
        sim_fail(s, "stack_init() returned NULL");
    struct netif nif = {
        .up = true,
        .kind = NETIF_ETHERNET,
        .ifindex = 2,
        .mtu = h->mtu,
        .gso = h->gso,
        .csum_offload = h->csum_offload,
        .answers_arp = true,
        .naddrs = 1,
    };
    memcpy(nif.mac, h->mac, 6);
    nif.addrs[0].addr = ip_addr_from_v4(__builtin_bswap32(h->ip));
    nif.addrs[0].prefix = 120;
    int n = stack_add_netif(h->cx.st, &nif);
    if (n < 0)
        sim_fail(s, "stack_add_netif(): %d", n);
    h->netif = (uint8_t)n;
    h->deadline = NSEC_NEVER;
}

void host_listen(struct host *h, unsigned which, int backlog)
{
    struct tcp_opts o;
    tcp_opts_init(&o, h->cx.st);
    struct tcp_listen_args args = {
        .local = {.addr = ip_addr_from_v4(0), .port = (uint16_t)(LISTEN_BASE + which)},
        .backlog = backlog,
        .opts = &o,
        .owner = &h->listener_ready[which],
    };
    int r = tcp_listen(&h->cx, &args, &h->listener[which]);
    if (r)
        sim_fail(h->sim, "tcp_listen(): %d", r);
}

/* The program that a new connection belongs to: found by the port that its peer uses. */
static struct app *app_for(struct host *h, struct tcp_conn *c)
{
    struct endpoint e;
    struct sim *s = h->sim;
    struct app *found = NULL;
    if (!tcp_remote(c, &e))
        return NULL;
    for (unsigned i = 0; i < s->npairs; i++) {
        struct pair *p = &s->pairs[i];
        if (!p->simultaneous && p->app[1].host == h && p->at[0].port == e.port &&
            ip_addr_eq(&p->at[0].addr, &e.addr) && (!found || p->app[0].state != APP_IDLE))
            found = &p->app[1]; /* the latest that has begun, where ports are taken over */
    }
    return found;
}

void host_accept(struct host *h, unsigned which)
{
    struct sim *s = h->sim;
    h->cx.now = host_clock(h);
    struct tcp_conn *c;
    if (!h->listener[which])
        return;
    while ((c = tcp_accept(&h->cx, h->listener[which])) != NULL) {
        struct app *a = app_for(h, c);
        if (!a || a->state != APP_IDLE) {
            /*
             * Reset while it waited in the queue: the peer's name is gone with it. Or an old ACK
             * came late and its SYN cookie made a ghost of a connection that is over: a reset, for
             * a FIN of the ghost would fit the living end.
             */
            if (!a && tcp_state(c) != TCP_CLOSED)
                sim_fail(s, "host %u accepted a connection of nobody", h->index);
            tcp_opts(c)->linger = true;
            tcp_opts(c)->linger_secs = 0;
            tcp_close(&h->cx, c);
        } else {
            app_accepted(a, c);
        }
        if (h->slow_acceptor) {
            struct event *e =
                event_new(s, EV_ACCEPT, s->now + prng_below(&s->rng, 300 * NSEC_PER_MSEC), h, 0);
            e->arg = &h->listener_ready[which];
            event_push(s, e);
            return;
        }
    }
}

void host_toggle_listener(struct host *h, unsigned which)
{
    if (h->listener[which]) {
        tcp_listener_close(&h->cx, h->listener[which]);
        h->listener[which] = NULL;
    } else {
        host_listen(h, which, 16);
    }
}

void host_wake(struct host *h, struct app *a)
{
    if (a->dirty)
        return;
    a->dirty = true;
    a->next_dirty = NULL;
    if (h->dirty_tail)
        h->dirty_tail->next_dirty = a;
    else
        h->dirty_head = a;
    h->dirty_tail = a;
}

static void check(struct host *h)
{
    struct sim *s = h->sim;
    if (stack_counter(h->cx.st, COUNT_INVARIANT))
        sim_fail(s, "host %u counted a broken invariant", h->index);
    if (h->steps++ % 64 == 0 || s->verbose) {
        uint32_t broken = tcp_check_invariants(h->cx.st);
        if (broken)
            sim_fail(s, "host %u: %u invariants broken", h->index, broken);
    }
}

/* Every other host's programs are always about to go on; of others some look before they sleep. */
static void host_flush(struct host *h)
{
    if (((h->sim->seed >> 1 ^ h->index) & 1) != 0)
        stack_flush_patiently(&h->cx);
    else if ((h->sim->seed & 4) != 0 && h->steps % 2 != 0)
        stack_flush_to_look(&h->cx);
    else
        stack_flush(&h->cx);
}

void host_settle(struct host *h)
{
    host_flush(h);
    check(h);
    bool again = true;
    for (unsigned rounds = 0; again; rounds++) {
        if (rounds > 100000)
            sim_fail(h->sim, "host %u: programs and engine wake each other for ever", h->index);
        again = false;
        for (unsigned i = 0; i < LISTENERS_MAX; i++)
            if (h->listener_ready[i]) {
                h->listener_ready[i] = false;
                host_accept(h, i);
                again = true;
            }
        struct app *a = h->dirty_head;
        if (a) {
            h->dirty_head = a->next_dirty;
            if (!h->dirty_head)
                h->dirty_tail = NULL;
            a->dirty = false;
            app_run(a);
            again = true;
        }
        if (again)
            host_flush(h);
    }
    const nsec_t at = stack_deadline(h->cx.st);
    h->deadline = at == NSEC_NEVER ? at : at > h->ahead ? at - h->ahead : 0;
}

void host_restart(struct host *h)
{
    struct sim *s = h->sim;
    sim_say(s, h, "restarts");
    const struct stack_config before = h->cx.st->config;
    for (unsigned i = 0; i < s->npairs; i++)
        for (unsigned side = 0; side < 2; side++)
            if (s->pairs[i].app[side].host == h)
                app_killed(&s->pairs[i].app[side]);
    host_start(h, h->arena, before.loopback, (h->cx.trace & TCP_INSIDE_SEEN) != 0);
    h->cx.st->config.tuning = before.tuning;
    for (unsigned k = 0; k < LISTENERS_MAX; k++) {
        h->listener_ready[k] = false;
        host_listen(h, k, 1024);
    }
}

void host_check_memory(struct host *h)
{
    struct tcp_stack *t = &h->cx.st->tcp;
    const struct {
        const char *what;
        uint32_t n;
    } live[] = {
        {"connections", t->conns.live},     {"half-open entries", t->half_opens.live},
        {"TIME_WAITs", t->time_waits.live}, {"chunks", t->chunks.live},
        {"ranges", t->ranges.live},         {"sent records", t->records.live},
        {"orphans", t->norphans},
    };
    for (size_t i = 0; i < ARRAY_LEN(live); i++)
        if (live[i].n)
            sim_fail(h->sim, "host %u: %u %s are left at the end", h->index, live[i].n,
                     live[i].what);
    uint32_t flows = 0;
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        flows += h->listener[i] != NULL;
    if (t->flows.count != flows)
        sim_fail(h->sim, "host %u: %u flows in the table for %u listeners", h->index,
                 t->flows.count, flows);
}
