/* Making, naming, timing and ending connections. */
#include <errno.h>

#include "stack/tcp/conn.h"
#include "stack/tcp/parcel.h"

void tcp_lists_init(struct tcp_stack *t)
{
    list_init(&t->output_pending);
    list_init(&t->held_acks);
    list_init(&t->held_handshakes);
    list_init(&t->held_streams);
    list_init(&t->orphans);
    list_init(&t->time_wait_age);
}

void tcp_stack_init(struct stack *st, nsec_t now)
{
    struct tcp_stack *t = &st->tcp;
    struct siphash_key *keys[] = {&t->isn_secret, &t->ts_secret, &t->port_secret, &t->cookie_secret,
                                  &t->fastopen_secret};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        *keys[i] = (struct siphash_key){rng_u64(&st->rng), rng_u64(&st->rng)};
    const struct siphash_key table_key = {rng_u64(&st->rng), rng_u64(&st->rng)};
    flow_table_init(&t->flows, &table_key);

    pool_init(st->arena, &t->conns, sizeof(struct tcp_conn));
    pool_init(st->arena, &t->listeners, sizeof(struct tcp_listener));
    pool_init(st->arena, &t->half_opens, sizeof(struct tcp_half_open));
    pool_init(st->arena, &t->time_waits, sizeof(struct tcp_time_wait));
    pool_init(st->arena, &t->chunks, sizeof(struct chunk));
    pool_init(st->arena, &t->ranges, sizeof(struct recv_range));
    pool_init(st->arena, &t->records, sizeof(struct sent_record));
    pool_init(st->arena, &t->extras, sizeof(struct tcp_extra));
    pool_init(st->arena, &t->accecns, sizeof(struct tcp_accecn));
    pool_init(st->arena, &t->parcels, sizeof(struct tcp_parcel));
    tcp_lists_init(t);
    t->next_number = 1;
    t->challenge_epoch = now;
}

void tcp_opts_init(struct tcp_opts *o, const struct stack *st)
{
    const struct stack_tuning *t = &st->config.tuning;
    *o = (struct tcp_opts){
        .ttl = 64,
        .cc = st->config.cc,
        .sndbuf = t->sndbuf ? t->sndbuf : TCP_SNDBUF_DEFAULT,
        .rcvbuf = t->rcvbuf ? t->rcvbuf : TCP_RCVBUF_DEFAULT,
        .rcvlowat = 1,
        .notsent_lowat = UINT32_MAX,
    };
}

struct tcp_conn *tcp_conn_new(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    struct tcp_conn *c =
        unlikely(arena_reserve_only(st->arena)) ? NULL : pool_alloc(&st->tcp.conns);
    if (!c) {
        stack_count(st, COUNT_NO_MEMORY);
        return NULL;
    }
    c->flow.kind = FLOW_CONN;
    c->flow.number = st->tcp.next_number++;
    c->state = TCP_CLOSED;
    list_init(&c->pending_link);
    list_init(&c->holder_link);
    tcp_opts_init(&c->opts, st);
    sentmap_init(&c->sent);
    rtt_init(&c->rtt);
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        c->deadline[i] = NSEC_NEVER;
    wheel_timer_init(&c->timer, STACK_TIMER_CONN);
    c->mss = TCP_MSS_DEFAULT;
    c->peer_mss = TCP_MSS_DEFAULT;
    c->created = cx->now;
    return c;
}

struct tcp_conn *tcp_open(struct stack_cx *cx)
{
    struct tcp_conn *c = tcp_conn_new(cx);
    if (c)
        c->app_held = true;
    return c;
}

void tcp_set_state(struct stack_cx *cx, struct tcp_conn *c, enum tcp_state s, enum tcp_reason why)
{
    if (c->state == s)
        return;
    TRACE(cx, STATE, &c->flow, STATE, c->state, s, why);
    stack_note(cx, &c->flow, TRACE_EV_STATE, c->state, (uint8_t)s, (uint8_t)why, (uint32_t[4]){0});
    c->state = s;
}

void tcp_conn_mark(struct stack *st, const struct tcp_conn *c)
{
    const struct netif *nif = &st->netifs[c->path.netif];
    if (st->tcp.marks != NULL && nif->kind == NETIF_ETHERNET)
        mark_set(st->tcp.marks, &c->flow.tuple, nif->ifindex);
}

void tcp_conn_insert(struct stack *st, struct tcp_conn *c)
{
    flow_insert(&st->tcp.flows, &c->flow);
    c->in_table = true;
    tcp_conn_mark(st, c);
}

void tcp_conn_remove(struct stack *st, struct tcp_conn *c)
{
    if (!c->in_table)
        return;
    c->in_table = false;
    flow_remove(&st->tcp.flows, &c->flow);
    if (st->tcp.marks != NULL)
        mark_clear(st->tcp.marks, &c->flow.tuple);
}

void tcp_conn_enter(struct stack_cx *cx, struct tcp_conn *c, const struct flow_tuple *t)
{
    c->flow.tuple = *t;
    c->ts_offset = ts_offset(&cx->st->tcp.ts_secret, t);
    tcp_conn_insert(cx->st, c);
}

void tcp_notify(struct stack_cx *cx, struct tcp_conn *c, uint32_t events)
{
    if (c->app_held && c->owner && cx->ops->notify)
        cx->ops->notify(cx, c->owner, events);
}

void tcp_want_output(struct stack_cx *cx, struct tcp_conn *c)
{
    if (unlikely(c->ack_held))
        list_remove(&c->pending_link);
    else if (c->needs_output)
        return;
    c->ack_held = false;
    c->needs_output = true;
    list_push_back(&cx->st->tcp.output_pending, &c->pending_link);
}

static nsec_t earliest_deadline(const struct tcp_conn *c)
{
    nsec_t first = NSEC_NEVER;
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        first = min_u64(first, c->deadline[i]);
    return first;
}

void tcp_timer_set(struct stack_cx *cx, struct tcp_conn *c, enum tcp_timer which, nsec_t at)
{
    if (stack_traces(cx, TRACE_TIMER) && c->deadline[which] != at)
        TRACE(cx, TIMER, &c->flow, TIMER_ARMED, which, at > cx->now ? at - cx->now : 0);
    c->deadline[which] = at;
    if (at < c->timer.deadline)
        wheel_arm(&cx->st->wheel, &c->timer, at);
}

static void conn_timer(struct stack_cx *cx, struct tcp_conn *c)
{
    tcp_conn_timer(cx, c);
    if (tcp_reap(cx, c))
        return;
    const nsec_t next = earliest_deadline(c);
    if (next != NSEC_NEVER && next < c->timer.deadline)
        wheel_arm(&cx->st->wheel, &c->timer, next);
}

void tcp_timer(struct stack_cx *cx, struct wheel_timer *t)
{
    struct tcp_conn *const c = container_of(t, struct tcp_conn, timer);
    struct tcp_half_open *const h = container_of(t, struct tcp_half_open, timer);
    struct tcp_time_wait *const tw = container_of(t, struct tcp_time_wait, timer);
    struct flow *outer;
    switch (t->kind) {
    case STACK_TIMER_CONN:
        outer = work_begin(cx->st, &c->flow);
        conn_timer(cx, c);
        break;
    case STACK_TIMER_HALF_OPEN:
        outer = work_begin(cx->st, &h->flow);
        tcp_half_open_timer(cx, h);
        break;
    default:
        outer = work_begin(cx->st, &tw->flow);
        tcp_time_wait_timer(cx, tw);
    }
    work_end(cx->st, outer);
}

static void drop_buffers(struct stack_cx *cx, struct tcp_conn *c, bool receive_too)
{
    struct tcp_stack *t = &cx->st->tcp;
    if (c->sendbuf.len)
        stack_settle(cx);
    sendbuf_clear(&t->chunks, &c->sendbuf);
    sentmap_clear(&t->records, &c->sent);
    tcp_note_limit(cx, c, TCP_LIMIT_NONE);
    if (unlikely(c->extra != NULL))
        tcp_extra_forget(c);
    c->reno_sacked = 0;
    if (receive_too)
        recvbuf_clear(&t->chunks, &t->ranges, &c->recvbuf);
    else
        while (c->recvbuf.nranges && recvbuf_prune(&t->chunks, &t->ranges, &c->recvbuf))
            ;
}

/* An end that somebody may wonder about. */
static void report_trouble(struct stack_cx *cx, struct tcp_conn *c, int err, enum tcp_reason why)
{
    const bool aborted = why == TCP_WHY_CALL_ABORT || why == TCP_WHY_CALL_CLOSE_UNREAD ||
                         why == TCP_WHY_CALL_DISCONNECT || why == TCP_WHY_LISTENER_CLOSED;
    if ((err || aborted) && cx->ops->trouble)
        cx->ops->trouble(cx, &c->flow);
}

void tcp_done(struct stack_cx *cx, struct tcp_conn *c, int err, enum tcp_reason why)
{
    if (unlikely(c->fast_open))
        tcp_fastopen_done(cx, c);
    tcp_conn_remove(cx->st, c);
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        tcp_timer_stop(cx, c, i);
    wheel_cancel(&cx->st->wheel, &c->timer);
    list_remove(&c->pending_link);
    c->needs_output = c->ack_held = false;
    /* Linux keeps what was received in order: recv() gives it before the error. */
    drop_buffers(cx, c, !c->app_held && !c->half_accepted);
    tcp_set_state(cx, c, TCP_CLOSED, why);
    if (stack_traces(cx, TRACE_TROUBLE))
        report_trouble(cx, c, err, why);
    c->fin_queued = false;
    c->ack_now = c->ack_delayed = false;
    c->snd_una = c->snd_nxt;
    c->rcv_shut = c->snd_shut = true;
    if (err)
        c->err = err;
    tcp_notify(cx, c, TCP_WAKE_ALL);
}

void tcp_orphan(struct stack_cx *cx, struct tcp_conn *c)
{
    if (list_linked(&c->holder_link))
        return;
    c->app_held = false;
    c->owner = NULL;
    list_push_back(&cx->st->tcp.orphans, &c->holder_link);
    cx->st->tcp.norphans++;
}

bool tcp_reap(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->state != TCP_CLOSED || c->app_held || c->half_accepted)
        return false;
    struct tcp_stack *t = &cx->st->tcp;
    tcp_conn_remove(cx->st, c);
    wheel_cancel(&cx->st->wheel, &c->timer);
    list_remove(&c->pending_link);
    if (list_linked(&c->holder_link)) {
        list_remove(&c->holder_link);
        t->norphans--;
    }
    drop_buffers(cx, c, true);
    if (unlikely(c->extra != NULL))
        pool_free(&t->extras, c->extra);
    if (unlikely(c->accecn != NULL))
        tcp_accecn_drop(cx->st, c);
    if (t->foreseen == c)
        t->foreseen = NULL;
    if (t->unfinished == c)
        t->unfinished = NULL;
    pool_free(&t->conns, c);
    return true;
}

uint16_t tcp_local_mss(const struct stack *st, const struct ip_path *path, const struct tcp_opts *o,
                       const struct ip_addr *peer)
{
    const uint32_t headers = ip_addr_is_v4(peer) ? 40 : 60;
    const uint32_t mtu = ip_path_mtu(st, path);
    uint32_t mss = mtu > headers + TCP_MSS_MIN ? min_u32(mtu - headers, TCP_MSS_MAX) : TCP_MSS_MIN;
    if (o->user_mss)
        mss = min_u32(mss, o->user_mss);
    return (uint16_t)mss;
}

void tcp_update_mss(struct stack_cx *cx, struct tcp_conn *c)
{
    uint32_t mss = tcp_local_mss(cx->st, &c->path, &c->opts, &c->flow.tuple.remote);
    mss = min_u32(mss, c->peer_mss);
    mss = max_u32(mss, TCP_MSS_MIN);
    if (c->ts_ok)
        mss -= 12; /* RFC 6691: options come out of the segment */
    if (unlikely(c->accecn != NULL)) {
        c->accecn->reserved = tcp_accecn_reserve(cx->st, c->accecn);
        mss -= c->accecn->reserved;
    }
    if (c->mss == mss)
        return;
    c->mss = (uint16_t)mss;
    if (c->cc.mss)
        cc_set_mss(&c->cc, mss);
}

void tcp_ready_for_data(struct stack_cx *cx, struct tcp_conn *c)
{
    c->connected = true;
    c->copied_seq = seq_add(c->irs, 1);
    tcp_mtu_begin(cx, c);
    tcp_update_mss(cx, c);
    cc_init(&c->cc, c->opts.cc, c->mss, cx->now);
    c->round_end = c->snd_nxt;
    c->high_seq = c->snd_nxt;
    c->rcv_mss = (uint16_t)max_u32(min_u32(min_u32(c->advmss, c->mss), TCP_MSS_DEFAULT), 88);
    c->drs_start = tcp_short_clock(cx->now);
    c->drs_seq = c->copied_seq;
    c->drs_space = min_u32(10u * c->advmss, c->rcv_limit);
    c->retries = 0;
    c->backoffs = 0;
    c->snd_sml = c->snd_una; /* Nagle waits neither for a SYN nor for its text */
    c->push_seq = c->snd_nxt;
    c->last_recv = cx->now;
    c->last_ack = cx->now;
    tcp_sndbuf_grow(cx, c);
}

void tcp_established(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    tcp_ready_for_data(cx, c);
    tcp_set_state(cx, c, TCP_ESTABLISHED, why);
    tcp_keepalive_arm(cx, c);
}

/* ---- invariants ---- */

struct invariant_check {
    struct stack *st;
    uint32_t broken;
};

static void check_conn(void *object, void *arg)
{
    const struct tcp_conn *c = object;
    struct invariant_check *k = arg;
    bool ok = c->sent.sacked + c->sent.lost <= c->sent.total;
    if (c->state != TCP_CLOSED && c->state != TCP_LISTEN) {
        ok &= seq_leq(c->snd_una, c->snd_nxt);
        ok &= c->sent.total == (uint32_t)seq_diff(c->snd_nxt, c->snd_una);
        ok &= seq_leq(c->snd_nxt, seq_add(tcp_data_end(c), c->fin_queued ? 1 : 0));
        ok &= c->in_table;
    }
    if (tcp_synchronized(c)) {
        ok &= seq_leq(c->rcv_wup, c->rcv_nxt);
        ok &= seq_leq(c->copied_seq, c->rcv_nxt);
        ok &= recvbuf_ready(&c->recvbuf) ==
              (uint32_t)seq_diff(c->rcv_nxt, c->copied_seq) - (c->fin_received ? 1 : 0);
        ok &= c->cc.cwnd >= c->mss;
    }
    if (!ok) {
        k->broken++;
        stack_count(k->st, COUNT_INVARIANT);
    }
}

uint32_t tcp_check_invariants(struct stack *st)
{
    struct invariant_check k = {st, 0};
    pool_each(&st->tcp.conns, check_conn, &k);
    return k.broken;
}
