/*
 * SEGMENT ARRIVES (RFC 9293 3.10.7), with RFC 5961's protection against blind attacks and PAWS.
 * Finds whom a segment is for and walks it through the steps; each step is a function.
 */
#include <errno.h>

#include "stack/tcp/conn.h"
#include "stack/util/checksum.h"

/* The window as the sender means it: scaled once both sides have agreed to scale. */
static uint32_t meant_window(const struct flow *f, const struct tcp_segment *s)
{
    if (!f || s->flags & TCP_SYN)
        return s->wnd;
    if (f->kind == FLOW_CONN) {
        const struct tcp_conn *c = container_of(f, struct tcp_conn, flow);
        return (uint32_t)s->wnd << (c->wscale_ok ? c->snd_wscale : 0);
    }
    if (f->kind == FLOW_HALF_OPEN) {
        const struct tcp_half_open *h = container_of(f, struct tcp_half_open, flow);
        return (uint32_t)s->wnd << (h->wscale_ok ? h->snd_wscale : 0);
    }
    return s->wnd;
}

static void trace_in(struct stack_cx *cx, const struct flow *f, const struct flow_tuple *t,
                     const struct tcp_segment *s)
{
    const struct flow anonymous = {.tuple = *t};
    TRACE(cx, SEGMENT, f ? f : &anonymous, SEGMENT_IN, s->flags, s->seq.v,
          s->flags & TCP_ACK ? s->ack.v : 0, s->len, meant_window(f, s), TCP_WHY_NONE,
          (uintptr_t)&s->opt);
}

bool tcp_challenge_allowed(struct stack_cx *cx, uint32_t *last_ms)
{
    struct tcp_stack *t = &cx->st->tcp;
    const uint32_t now_ms = tcp_ms(cx->now);
    if (*last_ms && now_ms - *last_ms < TCP_CHALLENGE_INTERVAL / NSEC_PER_MSEC &&
        !cx->st->config.tuning.no_ack_interval) {
        stack_count(cx->st, COUNT_CHALLENGE_LIMITED);
        return false;
    }
    /* RFC 5961 7, with a limit that varies so that it cannot be probed (CVE-2016-5696) */
    if (t->challenge_limit == 0 || cx->now - t->challenge_epoch >= NSEC_PER_SEC) {
        t->challenge_epoch = cx->now;
        t->challenge_count = 0;
        t->challenge_limit = 500 + rng_below(&cx->st->rng, 1000);
    }
    if (t->challenge_count >= t->challenge_limit) {
        stack_count(cx->st, COUNT_CHALLENGE_LIMITED);
        return false;
    }
    t->challenge_count++;
    *last_ms = max_u32(now_ms, 1);
    stack_count(cx->st, COUNT_CHALLENGE);
    return true;
}

void tcp_challenge(struct stack_cx *cx, struct tcp_conn *c)
{
    if (tcp_challenge_allowed(cx, &c->challenged_ms))
        tcp_emit_ack(cx, c, TCP_WHY_SEND_CHALLENGE);
}

/* ---- step 1: sequence number, PAWS ---- */

/* RFC 7323 5.3 R1. Linux differs: a pure ACK that was only reordered is let through. */
static bool paws_rejects(const struct stack_cx *cx, const struct tcp_conn *c,
                         const struct tcp_segment *s)
{
    if (!c->ts_ok || !s->opt.has_ts || s->flags & TCP_RST)
        return false;
    if ((int32_t)(c->ts_recent - s->opt.ts_val) <= 0)
        return false;
    if (cx->now - tcp_last_heard(c) >= TCP_PAWS_EXPIRE)
        return false;
    const bool reordered_ack = s->len == 0 && seq_eq(s->seq, c->rcv_nxt) &&
                               seq_eq(s->ack, c->snd_una) &&
                               (int32_t)(c->ts_recent - s->opt.ts_val) < 1000;
    return !reordered_ack;
}

/* The four cases of RFC 9293 3.4 table 5 ("acceptability test"). */
static bool acceptable(const struct tcp_conn *c, const struct tcp_segment *s)
{
    const int32_t offered = seq_diff(c->rcv_adv, c->rcv_nxt);
    const uint32_t wnd = offered > 0 ? (uint32_t)offered : 0;
    const uint32_t len = tcp_segment_len(s);
    if (len == 0)
        return wnd == 0 ? seq_eq(s->seq, c->rcv_nxt)
                        : seq_in(s->seq, c->rcv_nxt, wnd) || seq_eq(s->seq, c->rcv_adv);
    if (wnd == 0) /* no text is taken, but ACK and RST of the very next segment count (MUST-66) */
        return seq_eq(s->seq, c->rcv_nxt);
    return seq_in(s->seq, c->rcv_nxt, wnd) || seq_in(seq_add(s->seq, len - 1), c->rcv_nxt, wnd) ||
           (seq_leq(s->seq, c->rcv_nxt) && seq_geq(seq_add(s->seq, len), c->rcv_nxt) &&
            seq_gt(seq_add(s->seq, len), c->rcv_nxt));
}

/* A SYN where none belongs (RFC 5961 4). */
static void challenge_syn(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                          const struct ip_packet *p)
{
    if (unlikely(c->accecn != NULL) && s->flags & TCP_ACK)
        tcp_accecn_challenge(cx, c, p->tos);
    else
        tcp_challenge(cx, c);
}

static void answer_unacceptable(struct stack_cx *cx, struct tcp_conn *c,
                                const struct tcp_segment *s, const struct ip_packet *p)
{
    stack_count(cx->st, COUNT_OUT_OF_WINDOW);
    if (s->flags & TCP_RST)
        return;
    if (s->flags & TCP_SYN) {
        challenge_syn(cx, c, s, p);
        return;
    }
    if (s->len && seq_lt(s->seq, c->rcv_nxt)) {
        if (unlikely(c->accecn != NULL))
            tcp_accecn_arrives(cx, c, s, p); /* an ACK that was lost is no mark that is */
        tcp_note_duplicate(cx, c, s->seq, seq_min(seq_add(s->seq, s->len), c->rcv_nxt));
    }
    if (tcp_segment_len(s) == 0 && !seq_eq(s->seq, seq_sub(c->rcv_nxt, 1))) {
        tcp_challenge(cx, c); /* a bare ACK out of place must not start a war of ACKs */
        return;
    }
    tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
}

/*
 * Simultaneous open: the peer's SYN,ACK carries a SYN that we have already taken; its ACK of our
 * SYN is what counts (RFC 9293 figure 8).
 */
static bool crossing_syn_ack(const struct tcp_conn *c, const struct tcp_segment *s)
{
    return (s->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) && !(s->flags & TCP_RST) &&
           s->len == 0 && seq_eq(seq_add(s->seq, 1), c->rcv_nxt) && seq_gt(s->ack, c->iss) &&
           seq_leq(s->ack, c->snd_nxt);
}

/* ---- step 2: RST ---- */

static int reset_error(const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_SYN_SENT:
        return ECONNREFUSED;
    case TCP_SYN_RECEIVED:
        return c->fast_open ? ECONNRESET : ECONNREFUSED;
    case TCP_CLOSE_WAIT:
        return EPIPE;
    default:
        return ECONNRESET;
    }
}

static void process_rst(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    if (!seq_eq(s->seq, c->rcv_nxt)) { /* RFC 5961 3.2 */
        tcp_challenge(cx, c);
        return;
    }
    tcp_done(cx, c, reset_error(c), TCP_WHY_RX_RST);
}

/* ---- step 5: ACK, and what it does to the state ---- */

static bool our_fin_acked(const struct tcp_conn *c, const struct tcp_segment *s)
{
    return tcp_fin_sent(c) && seq_eq(s->ack, c->snd_nxt);
}

static bool established_by(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    if (!(seq_lt(c->snd_una, s->ack) && seq_leq(s->ack, c->snd_nxt))) {
        const struct flow_tuple *t = &c->flow.tuple;
        const struct tcp_segment r = {
            .src_port = t->lport, .dst_port = t->rport, .flags = TCP_RST, .seq = s->ack};
        tcp_emit_bare(cx, &c->flow, t, &c->path, c->opts.tos, c->opts.ttl, &r, TCP_WHY_SEND_RST);
        return false;
    }
    c->snd_wnd = (uint32_t)s->wnd << (c->wscale_ok ? c->snd_wscale : 0);
    c->snd_wnd_max = max_u32(c->snd_wnd, c->snd_wnd_max);
    c->snd_wl1 = s->seq;
    c->snd_wl2 = s->ack;
    if (c->state == TCP_FIN_WAIT_1) {
        c->retries = c->backoffs = 0;
        return true;
    }
    if (c->fast_open) {
        tcp_fastopen_done(cx, c);
        c->retries = c->backoffs = 0;
        tcp_set_state(cx, c, TCP_ESTABLISHED, TCP_WHY_RX_ACK_OF_SYN);
        tcp_keepalive_arm(cx, c);
    } else {
        tcp_established(cx, c, TCP_WHY_RX_ACK_OF_SYN);
    }
    if (c->fin_queued) /* shutdown() came before: RFC 9293 3.10.4 */
        tcp_set_state(cx, c, TCP_FIN_WAIT_1, TCP_WHY_CALL_SHUTDOWN);
    tcp_notify(cx, c, TCP_WAKE_ALL);
    return true;
}

/* The connection's path follows the frames of its peer: a neighbour that moved is found again. */
static void refresh_path(struct tcp_conn *c, const struct ip_packet *p)
{
    if (c->path.mac_known && c->path.netif == p->netif)
        memcpy(c->path.mac, p->src_mac, sizeof(c->path.mac));
}

/* Our FIN is acknowledged: false when the connection's state is over. */
static bool after_fin_acked(struct stack_cx *cx, struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_FIN_WAIT_1:
        tcp_set_state(cx, c, TCP_FIN_WAIT_2, TCP_WHY_RX_ACK_OF_FIN);
        tcp_notify(cx, c, TCP_WAKE_ALL);
        if (!c->app_held) {
            const int32_t secs = c->opts.linger2 ? c->opts.linger2 : TCP_FIN_TIMEOUT;
            tcp_timer_set(cx, c, TCP_TIMER_FIN_WAIT_2,
                          cx->now + (secs > 0 ? (nsec_t)secs : 0) * NSEC_PER_SEC);
        }
        return true;
    case TCP_CLOSING:
        tcp_time_wait_enter(cx, c, TCP_WHY_RX_ACK_OF_FIN);
        return false;
    case TCP_LAST_ACK:
        tcp_done(cx, c, 0, TCP_WHY_RX_ACK_OF_FIN);
        return false;
    default:
        return true;
    }
}

/*
 * Text for a program that has closed, or shut both ways down: nobody will read it (RFC 9293 3.6.1,
 * RFC 1122 4.2.2.13).
 */
static bool refuses_text(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         const struct ip_packet *p)
{
    const bool held = c->app_held || c->half_accepted;
    const bool shut = c->rcv_shut && (c->state == TCP_FIN_WAIT_1 || c->state == TCP_FIN_WAIT_2);
    if ((held && !shut) || s->len == 0)
        return false;
    if (seq_leq(seq_add(s->seq, s->len), c->rcv_nxt))
        return false;
    if (held)
        tcp_process_urgent(cx, c, s);
    tcp_reset_reply(cx, p, s);
    tcp_done(cx, c, ECONNRESET, TCP_WHY_RX_DATA_AFTER_CLOSE);
    return true;
}

static void trace_ignored(struct stack_cx *cx, const struct tcp_conn *c,
                          const struct tcp_segment *s, enum tcp_reason why)
{
    TRACE(cx, SEGMENT, &c->flow, SEGMENT_IGNORED, s->flags, s->seq.v, s->ack.v, s->len, why);
}

/*
 * RFC 7323 4.3: the stamp of the segment that is next to be acknowledged. After the ACK was judged:
 * a forged segment must not make PAWS reject the true ones.
 */
static void note_timestamp(struct tcp_conn *c, const struct tcp_segment *s)
{
    if (!c->ts_ok || !s->opt.has_ts || seq_gt(s->seq, c->rcv_wup) ||
        (int32_t)(s->opt.ts_val - c->ts_recent) < 0)
        return;
    c->ts_recent = s->opt.ts_val;
}

void tcp_segment_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         const struct ip_packet *p)
{
    if (unlikely(paws_rejects(cx, c, s))) {
        stack_count(cx->st, COUNT_PAWS);
        trace_ignored(cx, c, s, TCP_WHY_DROP_PAWS);
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
        return;
    }
    if (unlikely(c->fast_open) && (s->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN &&
        seq_eq(s->seq, c->irs)) { /* the SYN again: our answer was lost */
        if (c->accecn != NULL)
            tcp_accecn_syn_again(cx->st, &c->accecn->deal, s, p->tos);
        const struct tcp_emit e = {
            .seq = c->iss, .flags = TCP_SYN | TCP_ACK, .why = TCP_WHY_SEND_SYN_ACK};
        tcp_emit(cx, c, &e);
        return;
    }
    const bool opening = unlikely(tcp_awaits_ack_of_syn(c));
    const bool crossing = opening && crossing_syn_ack(c, s);
    if (!crossing) {
        if (unlikely(!acceptable(c, s))) {
            trace_ignored(cx, c, s, TCP_WHY_DROP_SEQ);
            answer_unacceptable(cx, c, s, p);
            return;
        }
        if (unlikely(s->flags & TCP_RST)) {
            process_rst(cx, c, s);
            return;
        }
        if (unlikely(s->flags & TCP_SYN)) { /* RFC 5961 4.2 */
            trace_ignored(cx, c, s, TCP_WHY_DROP_STATE);
            challenge_syn(cx, c, s, p);
            return;
        }
    }
    if (unlikely(!(s->flags & TCP_ACK))) {
        trace_ignored(cx, c, s, TCP_WHY_DROP_NO_ACK);
        return;
    }
    if (opening && !established_by(cx, c, s))
        return;
    if (unlikely(c->accecn != NULL))
        tcp_accecn_arrives(cx, c, s, p);
    const bool fin_acked = unlikely(c->fin_queued) && our_fin_acked(c, s);
    if (!tcp_process_ack(cx, c, s)) {
        trace_ignored(cx, c, s,
                      seq_gt(s->ack, c->snd_nxt) ? TCP_WHY_DROP_ACK_FUTURE : TCP_WHY_DROP_ACK_OLD);
        return;
    }
    note_timestamp(c, s);
    refresh_path(c, p);
    if (fin_acked && !after_fin_acked(cx, c))
        return;
    if (unlikely(c->snd_shut) && refuses_text(cx, c, s, p))
        return;
    if (unlikely(c->ecn_ok))
        tcp_ecn_receive(cx, c, s, p->tos);
    if (s->len || s->flags & (TCP_FIN | TCP_URG))
        tcp_process_text(cx, c, s, p->gso_size);
}

/* ---- whom it is for ---- */

static bool checksum_ok(const struct ip_packet *p)
{
    if (p->csum_trusted)
        return true;
    uint64_t sum = csum_pseudo(&p->src, &p->dst, IPPROTO_TCP_, p->len);
    return csum_fold(csum_add(sum, p->payload, p->len, false)) == 0xffff;
}

/* So many segments later a connection has its mark again, should another have got the place. */
#define MARK_AGAIN 64

static void conn_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         const struct ip_packet *p)
{
    if (unlikely(++c->segs_in % MARK_AGAIN == 0))
        tcp_conn_mark(cx->st, c);
    if (c->state == TCP_SYN_SENT)
        tcp_syn_sent_arrives(cx, c, s, p);
    else
        tcp_segment_arrives(cx, c, s, p);
    tcp_reap(cx, c);
}

static void stranger_arrives(struct stack_cx *cx, const struct tcp_segment *s,
                             const struct ip_packet *p, const struct flow_tuple *t)
{
    struct tcp_listener *l = tcp_listener_find(cx->st, t);
    if (l) {
        tcp_listener_arrives(cx, l, s, p, t, NULL);
        return;
    }
    stack_count(cx->st, COUNT_NO_CONN);
    if (cx->st->ignore_strangers)
        return;
    /* In shared address mode other ports are the kernel's: only for ours do we answer. */
    if (cx->st->config.own_address || p->netif == NETIF_LOOP ||
        flow_port_used(&cx->st->tcp.flows, t->lport))
        tcp_reset_stranger(cx, p, s, true);
}

/* Options of a SYN that this stack is set not to speak are as if they were not there. */
static void hide_options(const struct stack_tuning *t, struct tcp_options *o)
{
    o->sack_permitted &= !t->no_sack;
    o->has_ts &= !t->no_timestamps;
    o->has_wscale &= !t->no_wscale;
}

void tcp_input(struct stack_cx *cx, const struct ip_packet *p)
{
    struct stack *st = cx->st;
    struct tcp_segment s;
    if (unlikely(!tcp_parse(p->payload, p->len, &s))) {
        stack_count(st, COUNT_BAD_TCP);
        return;
    }
    if (unlikely(!checksum_ok(p))) {
        stack_count(st, COUNT_BAD_TCP_CSUM);
        return;
    }
    stack_count(st, COUNT_SEGS_IN);
    if (s.flags & TCP_SYN)
        hide_options(&st->config.tuning, &s.opt);
    const struct flow_tuple t = {p->dst, p->src, s.dst_port, s.src_port};
    struct flow *f = flow_find_arriving(&st->tcp.flows, &t);
    s.place = p->place;
    if (unlikely(s.place != NULL && !tcp_foreseen(f, &s)))
        return;
    if (stack_traces(cx, TRACE_SEGMENT))
        trace_in(cx, f, &t, &s);
    if (likely(f != NULL))
        stack_note(
            cx, f, TRACE_EV_SEGMENT_IN, s.flags, TCP_WHY_NONE, 0,
            (uint32_t[4]){s.seq.v, s.flags & TCP_ACK ? s.ack.v : 0, s.len, meant_window(f, &s)});
    if (unlikely(!f)) {
        stranger_arrives(cx, &s, p, &t);
        return;
    }
    struct flow *outer = work_begin(st, f);
    switch (f->kind) {
    case FLOW_CONN:
        conn_arrives(cx, conn_of(f), &s, p);
        break;
    case FLOW_HALF_OPEN:
        tcp_half_open_arrives(cx, container_of(f, struct tcp_half_open, flow), &s, p);
        break;
    case FLOW_TIME_WAIT:
        tcp_time_wait_arrives(cx, container_of(f, struct tcp_time_wait, flow), &s, p);
        break;
    default:
        break;
    }
    work_end(st, outer);
}
