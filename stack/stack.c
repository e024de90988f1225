/*
 * The engine's public face: lays a stack over an arena and leads frames and time to the layers.
 */
#include "stack/stack.h"

#include <errno.h>

#include "stack/internal.h"
#include "stack/ip/ip.h"

const char *const stack_counter_names[STACK_COUNTER_COUNT] = {
#define X(id, name, doc) [COUNT_##id] = name,
    STACK_COUNTERS(X)
#undef X
};

/* Rounds of sending and delivering in one flush; a full window over the loopback takes a few dozen.
 */
#define FLUSH_ROUNDS_MAX 10000

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* struct stack, behind it the buckets of the flow table, behind those the caller's extra bytes. */
static size_t buckets_offset(void)
{
    return round_up(sizeof(struct stack), 64);
}

size_t stack_size(void)
{
    const size_t buckets = (FLOW_BUCKETS + FLOW_PORT_BUCKETS) * sizeof(struct list);
    return round_up(buckets_offset() + buckets, 64);
}

struct stack *stack_init(void *base, size_t size, size_t extra, const struct stack_config *config,
                         nsec_t now)
{
    if (size < STACK_SIZE_MIN)
        return NULL;
    struct arena *a = arena_init(base, size, stack_size() + extra);
    if (a == NULL)
        return NULL;
    struct stack *st = arena_reserved(a);
    st->arena = a;
    st->config = *config;
    st->extra_offset = stack_size();
    rng_init(&st->rng, config->seed);
    wheel_init(&st->wheel, now);
    st->tcp.flows.buckets = (struct list *)((uint8_t *)st + buckets_offset());
    st->tcp.flows.port_buckets = st->tcp.flows.buckets + FLOW_BUCKETS;

    st->nnetifs = 1;
    st->netifs[NETIF_LOOP] = (struct netif){
        .up = config->loopback,
        .kind = NETIF_LOOPBACK,
        .mtu = LOOPBACK_MTU,
        .gso = true,
        .csum_offload = true,
    };
    ip_init(st, now);
    tcp_stack_init(st, now);
    return st;
}

void *stack_extra(struct stack *st)
{
    return (uint8_t *)st + st->extra_offset;
}

void stack_ignore_strangers(struct stack *st)
{
    st->ignore_strangers = true;
}

void stack_repair(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    struct pool *const pools[] = {&st->tcp.conns, &st->tcp.listeners, &st->tcp.half_opens,
                                  &st->tcp.time_waits, &st->tcp.parcels};
    for (unsigned i = 0; i < ARRAY_LEN(pools); i++)
        pool_repair(pools[i]);
    wheel_init(&st->wheel, st->wheel.tick << WHEEL_TICK_SHIFT);
    tcp_repair(cx);
    ip_repair(cx);
    arena_repair(st->arena);
    st->working = NULL;
    st->transmitting = false;
    tcp_repair_end(cx);
}

struct arena *stack_arena(struct stack *st)
{
    return st->arena;
}

struct netif *stack_netif(struct stack *st, unsigned index)
{
    return index < st->nnetifs ? &st->netifs[index] : NULL;
}

int stack_add_netif(struct stack *st, const struct netif *nif)
{
    if (st->nnetifs >= NETIFS_MAX)
        return -ENOSPC;
    const unsigned index = st->nnetifs++;
    st->netifs[index] = *nif;
    ip_netif_added(st, index);
    return (int)index;
}

int stack_netif_by_ifindex(const struct stack *st, uint32_t ifindex)
{
    /* from 1: the loopback inside the stack has no number in the kernel */
    for (unsigned i = NETIF_LOOP + 1; i < st->nnetifs; i++) {
        if (st->netifs[i].ifindex == ifindex)
            return (int)i;
    }
    return -1;
}

uint64_t stack_counter(const struct stack *st, enum stack_counter c)
{
    return st->counters[c];
}

void stack_count(struct stack *st, enum stack_counter c)
{
    st->counters[c]++;
}

void stack_input(struct stack_cx *cx, const struct frame_in *frame)
{
    cx->st->counters[COUNT_FRAMES_IN]++;
    stack_settle(cx); /* it may acknowledge */
    ip_input(cx, frame);
}

void stack_run_timers(struct stack_cx *cx)
{
    struct wheel_timer *t;
    while ((t = wheel_expire(&cx->st->wheel, cx->now)) != NULL) {
        if (t->kind >= STACK_TIMER_IP)
            ip_timer(cx, t);
        else
            tcp_timer(cx, t);
    }
}

static bool work_left(const struct stack *st)
{
    return tcp_flush_pending(st) || ip_loopback_pending(st);
}

static void flush(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    if (unlikely(st->ip.announce_pending))
        ip_announce(cx);
    /*
     * What the loopback delivers makes TCP send, and what TCP sends may go to the loopback. Buffers
     * and windows end this; should a defect keep it going, the caller gets away nevertheless.
     */
    for (unsigned round = 0; round < FLUSH_ROUNDS_MAX && work_left(st); round++) {
        if (tcp_flush_pending(st))
            tcp_flush(cx);
        if (ip_loopback_pending(st))
            ip_loopback_run(cx);
    }
    stack_settle(cx);
}

static void flush_held(struct stack_cx *cx, enum tcp_release which)
{
    if (unlikely(cx->st->tcp.unfinished != NULL))
        tcp_finish(cx, false);
    tcp_release_held(cx, which);
    flush(cx);
}

void stack_flush(struct stack_cx *cx)
{
    flush_held(cx, TCP_RELEASE_ALL);
}

void stack_flush_to_look(struct stack_cx *cx)
{
    flush_held(cx, TCP_RELEASE_DUE);
}

void stack_flush_patiently(struct stack_cx *cx)
{
    if (unlikely(cx->st->tcp.unfinished != NULL))
        tcp_finish(cx, true);
    tcp_release_held(cx, TCP_RELEASE_OLD);
    cx->st->tcp.patient = true;
    flush(cx);
    cx->st->tcp.patient = false;
}

nsec_t stack_deadline(const struct stack *st)
{
    if (unlikely(work_left(st)))
        return 0; /* stack_flush() stopped before the end, or was not called */
    return wheel_next(&st->wheel);
}
