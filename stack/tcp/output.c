/*
 * What to send, and why not: predicates decide with a reason, emit.c sends.
 *
 * Order: what was lost, then new data and FIN as far as both windows allow, then an ACK that is
 * still due. One call sends everything that may go now.
 */
#include "stack/tcp/conn.h"

/* The most payload of one frame: L2 frames end at 65,535 bytes. */
static uint32_t frame_payload_max(const struct tcp_conn *c)
{
    const uint32_t most = FRAME_BYTES_MAX - FRAME_HEADROOM - TCP_HEADER_MAX;
    const uint32_t mss = max_u32(c->mss, 1);
    if (unlikely(c->cwr_due)) /* CWR belongs on one segment, not on all that a device cuts */
        return mss;
    return tcp_pacing_frame(c, mss < most ? most - most % mss : mss);
}

/*
 * Linux's tcp_tso_autosize(): a frame holds what goes in about a millisecond at the rate of the
 * window, more on a short path, but two segments at least: a burst should not be a queue.
 */
static uint32_t frame_payload_wanted(const struct stack_cx *cx, const struct tcp_conn *c)
{
    const uint32_t most = frame_payload_max(c);
    const nsec_t srtt = c->rtt.srtt;
    if (srtt == 0)
        return most;
    const uint64_t percent = c->cc.cwnd < c->cc.ssthresh / 2 ? 200 : 120;
    uint64_t bytes = (uint64_t)c->cc.cwnd * percent * (NSEC_PER_SEC / 100) / srtt / 1024;
    const uint64_t halvings = c->rtt.min_rtt / NSEC_PER_USEC / 512;
    if (halvings < 16)
        bytes += FRAME_BYTES_MAX >> halvings;
    const uint8_t tuned = cx->st->config.tuning.min_frame_segs;
    const uint64_t segs = max_u64(bytes / max_u32(c->mss, 1), tuned ? tuned : 2);
    return (uint32_t)min_u64(segs * c->mss, most);
}

/* How much may go in one frame now, or the reason why nothing goes. */
struct plan {
    uint32_t len;
    bool fin;
    bool mtu_probe;
    enum tcp_reason why;
};

static struct plan hold(enum tcp_reason why)
{
    return (struct plan){.why = why};
}

/* A segment smaller than the MSS: Nagle (RFC 9293 3.7.4, in Minshall's variant as Linux), cork. */
static enum tcp_reason small_segment_waits(const struct tcp_conn *c)
{
    if ((c->opts.cork || c->more) && !c->cork_expired)
        return TCP_WHY_HELD_CORK;
    if (!c->opts.nodelay && seq_gt(c->snd_sml, c->snd_una))
        return TCP_WHY_HELD_NAGLE;
    return TCP_WHY_NONE;
}

static struct plan plan_new(struct stack_cx *cx, struct tcp_conn *c)
{
    const uint32_t mss = max_u32(c->mss, 1);
    const uint32_t all = tcp_unsent(c);
    const uint32_t unsent = tcp_within_record(c, all);
    const bool closing = c->syn_acked || c->state == TCP_FIN_WAIT_1;
    const bool fin = c->fin_queued && closing && !tcp_fin_sent(c);
    if (unsent == 0 && !fin)
        return hold(TCP_WHY_NONE);
    const int32_t room = seq_diff(seq_add(tcp_data_start(c), c->snd_wnd), c->snd_nxt);
    const uint32_t wnd = room > 0 ? (uint32_t)room : 0;
    if (wnd == 0)
        return hold(TCP_WHY_HELD_RWND);
    /* Linux: the congestion window is not held against the last FIN. */
    if (unsent == 0)
        return (struct plan){.fin = true, .why = TCP_WHY_SEND_FIN};

    if (unlikely(c->pace_next > 0) && tcp_pacing_holds(cx, c))
        return hold(TCP_WHY_HELD_PACING);
    const uint32_t pipe = tcp_in_flight(c);
    const uint32_t most = min_u32(c->cc.cwnd, tcp_flight_max(cx->st, c));
    const uint32_t free = most > pipe ? most - pipe : 0;
    const uint32_t frame = frame_payload_wanted(cx, c);
    uint32_t len = min_u32(min_u32(unsent, wnd), frame);
    if (most < c->cc.cwnd) { /* which asks for fewer bytes, not for smaller frames */
        /* ACKs are near, and with them what makes a whole frame of a rest */
        const bool rest = unsent < frame && pipe >= frame && !fin && !c->opts.nodelay;
        if (free < len || rest)
            return hold(TCP_WHY_HELD_FLIGHT);
    } else if (free < min_u32(len, mss)) {
        c->cwnd_limited = true;
        return hold(TCP_WHY_HELD_CWND);
    }
    len = min_u32(len, free);
    /* Linux's tcp_cwnd_test(): at least two frames share a window */
    len = min_u32(len, max_u32(c->cc.cwnd / 2, mss));
    if (len < unsent && len > mss)
        len -= len % mss;

    if (len == all && len % mss != 0 && !fin) {
        const enum tcp_reason why = small_segment_waits(c);
        if (why != TCP_WHY_NONE) {
            len -= len % mss;
            if (len == 0)
                return hold(why);
        }
    } else if (len < unsent && len < mss && len < c->snd_wnd_max / 2) {
        /* RFC 9293 3.8.6.2.1: a sliver of window is not worth a segment */
        return hold(TCP_WHY_HELD_SWS);
    }
    const bool last = len == unsent;
    return (struct plan){.len = len,
                         .fin = fin && len == all && wnd > len,
                         .why = last ? TCP_WHY_SEND_PUSH : TCP_WHY_SEND_DATA};
}

/* In place of `usual`: a probe of the path's MTU, or the wait for room in cwnd for one. */
static struct plan plan_probe(struct stack_cx *cx, struct tcp_conn *c, const struct plan *usual)
{
    bool wait;
    const uint32_t len = tcp_mtu_probe_len(cx, c, &wait);
    if (wait)
        return hold(TCP_WHY_HELD_CWND);
    return len ? (struct plan){.len = len, .mtu_probe = true, .why = TCP_WHY_SEND_MTU_PROBE}
               : *usual;
}

static void note_flight(struct tcp_conn *c)
{
    c->max_in_flight = max_u32(c->max_in_flight, tcp_in_flight(c));
}

/* RFC 5681 4.1: cwnd says little after an idle time. True: it was changed. */
static bool restart_after_idle(struct stack_cx *cx, struct tcp_conn *c)
{
    if (cx->st->config.tuning.no_idle_restart)
        return false;
    if (c->sent.total || !c->last_sent || cx->now - c->last_sent <= c->rtt.rto)
        return false;
    cc_ops(c->cc.id)->on_idle(&c->cc, cx->now, cx->now - c->last_sent, c->rtt.srtt);
    return true;
}

/*
 * RFC 6298 5.1; RFC 8985 7.2: a loss probe is put off by each transmission, but not beyond the time
 * at which the RTO would come.
 */
static void arm_after_send(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!tcp_timer_armed(c, TCP_TIMER_LOSS_PROBE)) {
        if (!tcp_timer_armed(c, TCP_TIMER_RETRANSMIT))
            tcp_arm_retransmit(cx, c);
        return;
    }
    const struct sent_record *head = sentmap_first(&c->sent);
    const nsec_t rto = (head ? head->sent : cx->now) + c->rtt.rto;
    nsec_t at = cx->now + tcp_probe_timeout(c);
    if (rto > cx->now)
        at = min_u64(at, rto);
    tcp_timer_set(cx, c, TCP_TIMER_LOSS_PROBE, at);
}

/* A frame of so much is one of many. */
#define MUCH (32u << 10)

/* Sends the planned frame; false when nothing could be sent. */
static bool send_new(struct stack_cx *cx, struct tcp_conn *c, const struct plan *p)
{
    struct tcp_emit e = {
        .seq = c->snd_nxt, .len = p->len, .flags = TCP_ACK, .whole = p->mtu_probe, .why = p->why};
    if (p->fin)
        e.flags |= TCP_FIN;
    const bool record = unlikely(c->extra != NULL) && tcp_extra_ends(c, p->len);
    if (p->len && (record || seq_in(seq_sub(c->push_seq, 1), c->snd_nxt, p->len)))
        e.flags |= TCP_PSH;
    const int64_t sent = tcp_emit(cx, c, &e);
    if (p->len && sent <= 0)
        return false;
    const bool fin = p->fin && (uint32_t)max_u64((uint64_t)sent, 0) >= p->len;
    const uint32_t bytes = p->len ? (uint32_t)sent : 0;
    const uint32_t span = bytes + (fin ? 1 : 0);
    const uint8_t marks = (fin ? TCP_FIN : 0) | (record && bytes == p->len ? TCP_PSH : 0);
    const bool recorded =
        sentmap_sent(&cx->st->tcp.records, &c->sent, c->snd_nxt, span, marks, cx->now);
    c->snd_nxt = seq_add(c->snd_nxt, span);
    if (unlikely(c->extra != NULL))
        tcp_extra_sent(cx, c);
    if (unlikely(p->mtu_probe)) {
        if (recorded && bytes == p->len)
            tcp_mtu_probe_sent(c, bytes);
    } else if (bytes % c->mss != 0)
        c->snd_sml = c->snd_nxt;
    tcp_recovery_on_send(cx, c, span, false);
    tcp_pacing_sent(cx, c, bytes);
    note_flight(c);
    if (bytes >= MUCH)
        tcp_moves_much(cx, c);
    arm_after_send(cx, c);
    tcp_timer_stop(cx, c, TCP_TIMER_PERSIST);
    tcp_timer_stop(cx, c, TCP_TIMER_CORK); /* what is held from now on is held anew */
    return true;
}

/* Normally r is no longer than most; when memory was short it could not be split: then its head
 * goes. */
static void send_again(struct stack_cx *cx, struct tcp_conn *c, struct sent_record *r,
                       uint32_t most, bool probe)
{
    const uint32_t controls = ((r->flags & TCP_SYN) != 0) + ((r->flags & TCP_FIN) != 0);
    const bool syn = r->flags & TCP_SYN;
    struct tcp_emit e = {
        .seq = r->seq, .len = r->len - controls, .flags = r->flags & (TCP_SYN | TCP_FIN)};
    if (unlikely(e.len > most)) {
        e.len = most;
        e.flags &= (uint8_t)~TCP_FIN;
    }
    if (c->state != TCP_SYN_SENT)
        e.flags |= TCP_ACK;
    if (e.len && ((r->flags & TCP_PSH && e.len == r->len - controls) ||
                  seq_eq(seq_add(r->seq, e.len), tcp_data_end(c))))
        e.flags |= TCP_PSH;
    e.why = probe                                                 ? TCP_WHY_SEND_LOSS_PROBE
            : c->ca_state == TCP_CA_LOSS || syn                   ? TCP_WHY_SEND_RETRANSMIT
            : r->transmissions == 1 && seq_eq(r->seq, c->snd_una) ? TCP_WHY_SEND_FAST_RETRANSMIT
                                                                  : TCP_WHY_SEND_RECOVERY;
    stack_count(cx->st, probe ? COUNT_LOSS_PROBES : COUNT_RETRANS);
    c->total_retrans += 1 + e.len / (c->mss + 1u);
    c->bytes_retrans += e.len;
    tcp_emit(cx, c, &e);
    sentmap_retransmitted(&c->sent, r, cx->now);
    tcp_pacing_sent(cx, c, e.len);
    if (!probe)
        tcp_recovery_on_send(cx, c, r->len, true);
    note_flight(c);
    /* Linux: the time-out counts from when the oldest was sent last */
    if (!tcp_timer_armed(c, TCP_TIMER_RETRANSMIT) ||
        (seq_eq(e.seq, c->snd_una) && c->ca_state == TCP_CA_RECOVERY))
        tcp_arm_retransmit(cx, c);
}

/* A segment of new data, whatever cwnd and Nagle's algorithm say. False: there is none, or no
 * window for it. */
static bool send_segment(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    const int32_t room = seq_diff(seq_add(c->snd_una, c->snd_wnd), c->snd_nxt);
    const uint32_t len = tcp_within_record(
        c, min_u32(min_u32(tcp_unsent(c), c->mss), room > 0 ? (uint32_t)room : 0));
    if (len == 0)
        return false;
    const struct plan p = {.len = len, .why = why};
    return send_new(cx, c, &p);
}

bool tcp_probe_new(struct stack_cx *cx, struct tcp_conn *c)
{
    return send_segment(cx, c, TCP_WHY_SEND_LOSS_PROBE);
}

/*
 * After a time-out, RFC 5682 3.1 step 2.b: up to two new segments, as cwnd and the peer's window
 * allow, go in place of what was taken for lost. True: that waits for what the peer answers.
 */
static bool asks_by_new_data(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->frto_step == FRTO_NEW) {
        if (c->pace_next > 0 && tcp_pacing_holds(cx, c))
            return true;
        unsigned n = 0;
        while (n < 2 && c->cc.cwnd >= tcp_in_flight(c) + c->mss &&
               send_segment(cx, c, TCP_WHY_SEND_FRTO))
            n++;
        c->frto_step = n ? FRTO_ASKED : FRTO_NONE;
    }
    return c->frto_step == FRTO_ASKED;
}

void tcp_probe_again(struct stack_cx *cx, struct tcp_conn *c)
{
    struct sent_record *r = sentmap_last(&cx->st->tcp.records, &c->sent, c->mss);
    if (r)
        send_again(cx, c, r, c->mss, true);
}

static void send_lost(struct stack_cx *cx, struct tcp_conn *c)
{
    while (c->sent.lost) {
        const uint32_t pipe = tcp_in_flight(c);
        const struct sent_record *head = sentmap_first(&c->sent);
        /* RFC 5681 3.2 step 3, 6675 5 (4.3), 6582 3.2: the oldest goes at once, whatever cwnd is */
        const bool at_once = head && head->lost && head->transmissions == 1;
        if (pipe && c->cc.cwnd < pipe + c->mss && !at_once)
            return;
        if (unlikely(c->pace_next > 0) && tcp_pacing_holds(cx, c))
            return;
        const uint32_t room = max_u32(c->cc.cwnd > pipe ? c->cc.cwnd - pipe : 0, c->mss);
        const uint32_t most = min_u32(room - room % c->mss, frame_payload_max(c));
        struct sent_record *r = sentmap_next_lost(&cx->st->tcp.records, &c->sent, most);
        /* RFC 7413 4.2.1: until the SYN is acknowledged it goes alone when it goes again */
        if (!r || (!c->syn_acked && !(r->flags & TCP_SYN)))
            return;
        send_again(cx, c, r, most, false);
    }
}

void tcp_retransmit_syn(struct stack_cx *cx, struct tcp_conn *c)
{
    sentmap_mark_all_lost(&c->sent, false);
    struct sent_record *r = sentmap_next_lost(&cx->st->tcp.records, &c->sent, 1);
    if (!r || !(r->flags & TCP_SYN))
        return;
    c->retries++; /* it goes without what made it large */
    send_again(cx, c, r, 1, false);
    tcp_arm_retransmit(cx, c);
}

void tcp_arm_retransmit(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->sent.total == 0) {
        tcp_timer_stop(cx, c, TCP_TIMER_RETRANSMIT);
        tcp_timer_stop(cx, c, TCP_TIMER_LOSS_PROBE);
        tcp_timer_stop(cx, c, TCP_TIMER_REORDER);
        return;
    }
    nsec_t at = cx->now + tcp_backed_off(c, c->backoffs);
    if (c->opts.user_timeout && c->retrans_start) {
        const nsec_t end = c->retrans_start + c->opts.user_timeout * NSEC_PER_MSEC;
        at = min_u64(at, max_u64(end, cx->now));
    }
    if (tcp_probe_wanted(cx, c)) {
        tcp_timer_stop(cx, c, TCP_TIMER_RETRANSMIT);
        tcp_timer_set(cx, c, TCP_TIMER_LOSS_PROBE, min_u64(cx->now + tcp_probe_timeout(c), at));
        return;
    }
    tcp_timer_stop(cx, c, TCP_TIMER_LOSS_PROBE);
    tcp_timer_set(cx, c, TCP_TIMER_RETRANSMIT, at);
}

/* Linux: once the send buffer is what limits it, it does so until there is room again. */
static enum tcp_limit limit_now(const struct tcp_conn *c, enum tcp_reason why)
{
    if (c->sendbuf.len == 0)
        return TCP_LIMIT_NONE;
    if (unlikely(c->no_room) && (c->limit == TCP_LIMIT_SNDBUF ||
                                 (tcp_unsent(c) == 0 && !c->cwnd_limited && tcp_synchronized(c))))
        return TCP_LIMIT_SNDBUF;
    return why == TCP_WHY_HELD_RWND || why == TCP_WHY_HELD_SWS ? TCP_LIMIT_RWND : TCP_LIMIT_BUSY;
}

/* Data waits: see that something will move it. */
static void note_held(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    tcp_note_limit(cx, c, limit_now(c, why));
    if (why == TCP_WHY_NONE) {
        c->held = TCP_WHY_NONE;
        return;
    }
    if (c->held != why) {
        c->held = (uint8_t)why;
        TRACE(cx, SEGMENT, &c->flow, SEND_HELD, why, tcp_unsent(c), tcp_in_flight(c), c->cc.cwnd,
              c->snd_wnd);
        stack_note(cx, &c->flow, TRACE_EV_SEND_HELD, (uint8_t)why, 0, 0,
                   (uint32_t[4]){tcp_unsent(c), tcp_in_flight(c), c->cc.cwnd, c->snd_wnd});
    }
    if (why == TCP_WHY_HELD_CORK && !tcp_timer_armed(c, TCP_TIMER_CORK))
        tcp_timer_set(cx, c, TCP_TIMER_CORK, cx->now + TCP_CORK_MAX);
    if ((why == TCP_WHY_HELD_RWND || why == TCP_WHY_HELD_SWS) && c->sent.total == 0 &&
        !tcp_timer_armed(c, TCP_TIMER_PERSIST))
        tcp_timer_set(cx, c, TCP_TIMER_PERSIST, cx->now + tcp_backed_off(c, c->persist_backoff));
}

/* The program sends less than the path would take: rates measured now are not the path's. */
static void note_app_limited(struct tcp_conn *c, enum tcp_reason why)
{
    if ((why == TCP_WHY_NONE || why == TCP_WHY_HELD_NAGLE || why == TCP_WHY_HELD_CORK) &&
        c->sent.lost == 0 && tcp_in_flight(c) < c->cc.cwnd)
        sentmap_app_limited(&c->sent);
}

/* A held ACK's delayed-ACK timer tells since when it waits: whether since `when`, or longer. */
static bool held_since(const struct tcp_conn *c, nsec_t when)
{
    return !c->ack_delayed || c->deadline[TCP_TIMER_DELAYED_ACK] <= when + TCP_DELACK_MIN;
}

static bool held_enough(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return held_since(c, cx->now - TCP_ACK_PATIENCE);
}

bool tcp_ack_has_time(const struct tcp_conn *c)
{
    return c->ack_why == TCP_WHY_SEND_ACK_QUICK || c->ack_why == TCP_WHY_SEND_ACK_FIN ||
           c->ack_why == TCP_WHY_SEND_ACK_HANDSHAKE;
}

/*
 * The program took what an ACK is due for, and more lies in the device: one ACK will do for both,
 * as it does for what a kernel's GRO puts together. A few of them a window keep the sender going.
 */
#define ACK_STRETCH (256u << 10)

static uint32_t unacknowledged(const struct tcp_conn *c)
{
    return (uint32_t)seq_diff(c->rcv_nxt, c->rcv_wup);
}

static bool may_stretch(const struct tcp_conn *c)
{
    return c->ack_why == TCP_WHY_SEND_ACK_NOW && !tcp_acks_quickly(c) &&
           unacknowledged(c) < min_u32(ACK_STRETCH, c->rcv_limit / 4);
}

/*
 * The receiver of a stream of large frames often finds one at a time, and the next as soon as it
 * looks again. An ACK for each is a frame and a system call at both ends, so it waits for the next
 * one, as long as there is one: where there was none, so many ACKs leave at once that the sender,
 * which may have waited for it, loses little: STREAM_PENALTY_MIN, and twice as many each time. What
 * several streams may have in flight is too little for that.
 */
#define STREAM_PENALTY_MIN 8
#define STREAM_PENALTY_MAX 1024

static bool stream_ack(const struct tcp_conn *c)
{
    return c->ack_why == TCP_WHY_SEND_ACK_NOW && unacknowledged(c) >= MUCH;
}

static bool stream_goes_on(const struct stack *st, const struct tcp_conn *c)
{
    return stream_ack(c) && st->tcp.stream_pause == 0 && st->tcp.movers_count <= 1;
}

static void stream_paused(struct tcp_stack *t)
{
    const uint32_t more = max_u32(2u * t->stream_penalty, STREAM_PENALTY_MIN);
    t->stream_pause = t->stream_penalty = (uint16_t)min_u32(more, STREAM_PENALTY_MAX);
}

static void ack_at_once(struct stack_cx *cx, struct tcp_conn *c)
{
    struct tcp_stack *t = &cx->st->tcp;
    if (stream_ack(c)) {
        if (t->stream_pause > 0)
            t->stream_pause--;
        else
            t->stream_penalty = 0; /* it waited, and for something */
    }
    tcp_emit_ack(cx, c, c->ack_why);
}

/* What the program sends next may carry it; who has sent all clocks nothing by it. */
static bool may_have_company(const struct tcp_conn *c)
{
    return tcp_ack_has_time(c) &&
           (c->ack_why == TCP_WHY_SEND_ACK_FIN || unacknowledged(c) <= c->rcv_mss);
}

/* Until the program sleeps: stack_flush_patiently(). */
static bool ack_may_wait(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return (may_have_company(c) ||
            ((tcp_any_foreseen(cx->st) || stream_goes_on(cx->st, c)) && may_stretch(c))) &&
           !(c->ack_delayed && held_enough(cx, c)) &&
           (c->state == TCP_ESTABLISHED || c->state == TCP_CLOSE_WAIT) && !c->ece_due &&
           !c->dsack_due && c->path.netif != NETIF_LOOP;
}

static void hold_ack(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->ack_delayed) {
        c->ack_delayed = true;
        TRACE(cx, SEGMENT, &c->flow, ACK_HELD, TCP_WHY_HELD_NO_ACK_YET, TCP_DELACK_MIN,
              (uint64_t)seq_diff(c->rcv_nxt, c->rcv_wup));
    }
    const nsec_t latest = cx->now + TCP_DELACK_MIN;
    if (c->deadline[TCP_TIMER_DELAYED_ACK] > latest)
        tcp_timer_set(cx, c, TCP_TIMER_DELAYED_ACK, latest);
    if (c->needs_output)
        list_remove(&c->pending_link);
    c->needs_output = c->ack_held = true;
    struct tcp_stack *t = &cx->st->tcp;
    struct list *held = &t->held_acks;
    if (c->ack_why == TCP_WHY_SEND_ACK_HANDSHAKE)
        held = &t->held_handshakes;
    else if (stream_goes_on(cx->st, c))
        held = &t->held_streams;
    list_push_back(held, &c->pending_link);
}

void tcp_output(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->state == TCP_CLOSED || c->state == TCP_LISTEN || c->state == TCP_TIME_WAIT)
        return;
    if (c->sent.lost && !(c->ca_state == TCP_CA_LOSS && asks_by_new_data(cx, c)))
        send_lost(cx, c);
    const bool synchronized = c->syn_acked || c->fast_open || c->state == TCP_FIN_WAIT_1;
    if (synchronized && c->sent.lost == 0) {
        struct plan p = plan_new(cx, c);
        if (p.len && restart_after_idle(cx, c))
            p = plan_new(cx, c);
        if (unlikely(c->path.mtu_high) && p.len)
            p = plan_probe(cx, c, &p);
        while (p.len || p.fin) {
            if (!send_new(cx, c, &p))
                break;
            p = plan_new(cx, c);
        }
        note_app_limited(c, p.why);
        note_held(cx, c, p.len ? TCP_WHY_NONE : p.why);
    }
    if (c->ack_now && tcp_text_foreseen(cx->st, c) && may_stretch(c)) {
        c->ack_now = false;
        tcp_delay_ack(cx, c);
    }
    if (c->ack_now) {
        if (cx->st->tcp.patient && ack_may_wait(cx, c))
            hold_ack(cx, c);
        else
            ack_at_once(cx, c);
    }
}

bool tcp_flush_pending(const struct stack *st)
{
    return !list_empty(&st->tcp.output_pending);
}

/* To the front, for they are older: the newest of them goes there first. False: none goes. */
static bool release(struct stack_cx *cx, struct list *held, bool all)
{
    if (likely(list_empty(held)) ||
        (!all && !held_enough(cx, list_first(held, struct tcp_conn, pending_link))))
        return false;
    while (!list_empty(held)) {
        struct list *newest = held->prev;
        list_remove(newest);
        list_push_front(&cx->st->tcp.output_pending, newest);
    }
    return true;
}

void tcp_release_held(struct stack_cx *cx, enum tcp_release which)
{
    struct tcp_stack *t = &cx->st->tcp;
    release(cx, &t->held_acks, which != TCP_RELEASE_OLD);
    release(cx, &t->held_handshakes, which != TCP_RELEASE_OLD);
    if (which != TCP_RELEASE_DUE && release(cx, &t->held_streams, which == TCP_RELEASE_ALL))
        stream_paused(t);
}

/* c waited on a list, and was taken from it. */
static inline void output_listed(struct stack_cx *cx, struct tcp_conn *c)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    c->needs_output = c->ack_held = false;
    tcp_output(cx, c);
    work_end(cx->st, outer);
}

/* c completes its own handshake by what it sends. */
static bool completes_handshake(const struct tcp_conn *c)
{
    return tcp_synchronized(c) && (c->ack_now || c->ack_delayed) &&
           c->ack_why == TCP_WHY_SEND_ACK_HANDSHAKE;
}

static void __attribute__((noinline))
release_handshakes(struct stack_cx *cx, const struct tcp_conn *c)
{
    const struct list *held = &cx->st->tcp.held_handshakes;
    const bool own = completes_handshake(c);
    while (!list_empty(held)) {
        struct tcp_conn *first = list_first(held, struct tcp_conn, pending_link);
        if (own && (first == c || !held_since(first, c->created)))
            return;
        list_remove(&first->pending_link);
        output_listed(cx, first);
    }
}

void tcp_release_handshakes(struct stack_cx *cx, const struct tcp_conn *c)
{
    if (unlikely(!list_empty(&cx->st->tcp.held_handshakes)))
        release_handshakes(cx, c);
}

void tcp_flush(struct stack_cx *cx)
{
    struct list *n;
    while ((n = list_pop_front(&cx->st->tcp.output_pending)))
        output_listed(cx, list_entry(n, struct tcp_conn, pending_link));
}
