/* The inside of struct stack: only for files under stack/. */
#pragma once

#include "stack/ip/state.h"
#include "stack/ring.h"
#include "stack/stack.h"
#include "stack/tcp/arrivals.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/marks.h"

/* Owners of wheel timers (wheel_timer.kind). */
enum stack_timer_kind {
    STACK_TIMER_CONN = 1,
    STACK_TIMER_HALF_OPEN,
    STACK_TIMER_TIME_WAIT,
    STACK_TIMER_IP, /* handed to ip_timer(): kinds from here on are the IP layer's */
};

/* TCP's part of the stack. */
/* A cookie that a server gave (RFC 7413 4.1.3). */
struct tcp_fastopen_entry {
    struct ip_addr server;
    uint16_t mss;
    uint8_t len;     /* of the cookie; 0: none */
    bool exp;        /* it came in the option's experimental form */
    uint8_t try_exp; /* Linux: 1: ask in that form next, 2: that was tried, too */
    bool known;      /* the entry is in use */
    uint8_t cookie[16];
};
#define TCP_FASTOPEN_ENTRIES 64

/* What a router said of the path to a host, for its next connections. */
struct tcp_mtu_entry {
    struct ip_addr host;
    nsec_t until; /* 0: the entry is free */
    uint32_t mtu;
};
#define TCP_MTU_ENTRIES 64

struct tcp_stack {
    struct flow_table flows;
    struct flow_mark *marks; /* of the connections in it; NULL: nobody reads them */
    struct pool conns, listeners, half_opens, time_waits;
    struct pool chunks, ranges, records, extras, accecns;
    struct pool parcels; /* parcel.h */
    struct siphash_key isn_secret, ts_secret, port_secret, cookie_secret, fastopen_secret;
    struct tcp_fastopen_entry fastopen[TCP_FASTOPEN_ENTRIES];
    struct tcp_mtu_entry mtus[TCP_MTU_ENTRIES];
    nsec_t mtus_until;           /* none of them is of use from then on */
    struct list output_pending;  /* connections that stack_flush() must look at */
    struct list held_acks;       /* connections that owe ACKs which it held back, oldest first */
    struct list held_handshakes; /* the same where this ACK completes a handshake, */
    struct list held_streams;    /* or where more text will come: until a look finds none */
    uint16_t stream_pause;       /* so many ACKs of streams leave at once, as one waited in vain */
    uint16_t stream_penalty;     /* and so many did the last time */
    bool patient;                /* stack_flush_patiently() is at work */
    struct tcp_conn *unfinished; /* whose text waits for what is to follow (TCP_SEND_UNFINISHED) */
    bool unfinished_now;         /* since this pass, or once more: the next one ends it */
    nsec_t closed_at;            /* last close() of what the peer had closed before */
    uint32_t returns;            /* how many of them in a row connect() followed at once */
    struct list orphans;
    struct list time_wait_age; /* oldest first: what is recycled when room is short */
    struct tcp_conn *foreseen; /* tcp_announce(), tcp_foresee_more(); NULL: none */
    uint32_t announcements;    /* so far */
    uint32_t norphans;
    uint32_t next_number;
    /* Connections that lately moved much, by the last bits of their numbers: tcp_moves_much() */
    uint64_t movers, movers_before;
    uint32_t movers_count; /* of both */
    nsec_t movers_since;
    /* RFC 5961 7: challenge ACKs of the whole stack in the current second */
    nsec_t challenge_epoch;
    uint32_t challenge_count;
    uint32_t challenge_limit;
    uint32_t port_increment;
    struct arrivals arrivals;
};

struct stack {
    struct arena *arena;
    struct stack_config config;
    bool ignore_strangers;
    struct rng rng;
    struct wheel wheel;
    unsigned nnetifs;
    struct netif netifs[NETIFS_MAX];
    struct ip_stack ip;
    struct tcp_stack tcp;
    /*
     * What is being changed, for stack_repair(): a connection, an entry or a listener; and whether
     * a frame is being transmitted, which happens between changes.
     */
    struct flow *working;
    bool transmitting;
    uint64_t counters[STACK_COUNTER_COUNT];
    size_t extra_offset;
    struct ring ring; /* last: it is large */
};

/*
 * Everything that changes a connection does so between these two: a process that is killed there
 * leaves this one in doubt and no other. They nest; work_end() gets what work_begin() returned.
 */
static inline struct flow *work_begin(struct stack *st, struct flow *f)
{
    struct flow *outer = st->working;
    st->working = f;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return outer;
}
static inline void work_end(struct stack *st, struct flow *outer)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    st->working = outer;
}

static inline void stack_note(struct stack_cx *cx, const struct flow *f, enum trace_event_id id,
                              uint8_t a, uint8_t b, uint8_t c, const uint32_t v[4])
{
#ifdef RING_NONE /* as TRACE_NONE */
    (void)cx, (void)f, (void)id, (void)a, (void)b, (void)c, (void)v;
    return;
#endif
    const uint8_t small[3] = {a, b, c};
    ring_put(&cx->st->ring, cx->now, f ? f->number : 0, id, small, v[0], v[1], v[2], v[3]);
}

/* Before anything is freed that frames on their way may point to. */
static inline void stack_settle(struct stack_cx *cx)
{
    if (likely(cx->ops->flush != NULL))
        cx->ops->flush(cx);
}

void tcp_stack_init(struct stack *st, nsec_t now);
/* repair.c: see stack_repair(). The wheel is empty, the pools have been gone through. */
void tcp_repair(struct stack_cx *cx);
/* Connections of which something was lost end here, when all tables stand again. */
void tcp_repair_end(struct stack_cx *cx);
/* Entries of stack/stack.c into TCP. */
void tcp_timer(struct stack_cx *cx, struct wheel_timer *t);
void tcp_flush(struct stack_cx *cx);
bool tcp_flush_pending(const struct stack *st);
/* Text that waits for what is to follow leaves now; with `patiently` if it waited through a call.
 */
void tcp_finish(struct stack_cx *cx, bool patiently);
/* Which of the ACKs that were held back leave with the next flush. */
enum tcp_release {
    TCP_RELEASE_OLD, /* if the oldest has waited enough */
    TCP_RELEASE_DUE, /* all but those of streams */
    TCP_RELEASE_ALL,
};
void tcp_release_held(struct stack_cx *cx, enum tcp_release which);
