/* An ACK arrives: what it acknowledges, the window it offers, the time it took (RFC 9293 3.10.7.4).
 */
#include "stack/tcp/conn.h"

static void take_window(struct tcp_conn *c, const struct tcp_segment *s)
{
    /* SND.WL1/WL2 keep an old segment from setting the window back */
    if (!(seq_lt(c->snd_wl1, s->seq) ||
          (seq_eq(c->snd_wl1, s->seq) && seq_leq(c->snd_wl2, s->ack))))
        return;
    c->snd_wnd = (uint32_t)s->wnd << (c->wscale_ok ? c->snd_wscale : 0);
    c->snd_wnd_max = max_u32(c->snd_wnd_max, c->snd_wnd);
    c->snd_wl1 = s->seq;
    c->snd_wl2 = s->ack;
}

/* Of an ACK, beside what the sent map says. */
struct ack_context {
    uint32_t prior_in_flight, lost;
    bool round_start;
};

/* RTT from the record, or from the echoed timestamp when only retransmitted data was acknowledged
 * (RFC 7323 4). */
static void sample_rtt(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                       struct sent_ack *a)
{
    if (!a->rtt_valid && a->acked && c->ts_ok && s->opt.has_ts && s->opt.ts_ecr) {
        const uint32_t ms = tcp_ts_now(cx, c->ts_offset) - s->opt.ts_ecr;
        if (ms < 120000) {
            a->rtt = max_u64(ms, 1) * NSEC_PER_MSEC;
            a->rtt_valid = true;
        }
    }
    if (!a->rtt_valid)
        return;
    rtt_sample(&c->rtt, a->rtt, cx->now);
    TRACE(cx, CC, &c->flow, RTT, a->rtt, c->rtt.srtt, c->rtt.rttvar, c->rtt.rto, c->rtt.min_rtt);
}

/*
 * The delivery rate for TCP_INFO: the newest of the path, else the highest of the program (Linux's
 * tcp_rate_gen(), in bytes instead of segments). A sample shorter than any round trip is one of
 * ACKs that came together.
 */
static void note_rate(struct tcp_conn *c, const struct sent_ack *a)
{
    if (a->rate_interval < max_u64(c->rtt.min_rtt, NSEC_PER_USEC) || c->rtt.min_rtt == 0)
        return;
    const uint64_t delivered = min_u64(c->sent.delivered - a->rate_prior, UINT32_MAX);
    const uint64_t us = min_u64(a->rate_interval / NSEC_PER_USEC, UINT32_MAX);
    if (a->rate_app_limited && delivered * c->rate_interval < c->rate_delivered * us)
        return;
    c->rate_delivered = (uint32_t)delivered;
    c->rate_interval = (uint32_t)us;
    c->rate_path = !a->rate_app_limited;
}

/* What the congestion control learns from this ACK. */
static void grow_cwnd(struct stack_cx *cx, struct tcp_conn *c, const struct sent_ack *a,
                      const struct ack_context *k)
{
    const struct cc_ops *ops = cc_ops(c->cc.id);
    const bool reducing = c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_CWR;
    const bool grows = ops->on_ack && !reducing && a->acked;
    if (!grows && !ops->observe)
        return;
    const bool limited =
        c->cwnd_limited || (cc_in_slow_start(&c->cc) && c->cc.cwnd < 2 * c->max_in_flight);
    const struct cc_ack ack = {.now = cx->now,
                               .acked = a->delivered,
                               .in_flight = k->prior_in_flight,
                               .rtt_valid = a->rtt_valid,
                               .rtt = a->rtt,
                               .srtt = c->rtt.srtt,
                               .cwnd_limited = limited,
                               .round_start = k->round_start,
                               .marked = min_u32(a->marked, a->delivered),
                               .ca_state = c->ca_state,
                               .pipe = tcp_in_flight(c),
                               .lost = k->lost,
                               .delivered = c->sent.delivered,
                               .rate_prior = a->rate_prior,
                               .rate_interval = a->rate_interval,
                               .rate_app_limited = a->rate_app_limited};
    const uint32_t before = c->cc.cwnd;
    if (ops->observe)
        ops->observe(&c->cc, &ack);
    if (grows)
        ops->on_ack(&c->cc, &ack);
    if (c->cc.cwnd != before) {
        TRACE(cx, CC, &c->flow, CWND, c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c), c->rtt.srtt,
              c->rtt.rto);
        tcp_sndbuf_grow(cx, c);
    }
}

void tcp_text_acked(struct stack_cx *cx, struct tcp_conn *c, uint32_t len)
{
    c->bytes_acked += len;
    if (c->sendbuf.len == 0)
        tcp_note_limit(cx, c, TCP_LIMIT_NONE);
    TRACE(cx, BUFFER, &c->flow, BUFFER_ACKED, len, c->sendbuf.len);
}

/* Moves SND.UNA; true when our FIN is acknowledged. */
static void advance_una(struct stack_cx *cx, struct tcp_conn *c, tcp_seq ack)
{
    const tcp_seq start = tcp_data_start(c);
    const int32_t data = seq_diff(seq_min(ack, tcp_data_end(c)), start);
    c->snd_una = ack;
    c->syn_acked = true;
    if (data > 0) {
        sendbuf_release(&cx->st->tcp.chunks, &c->sendbuf, (uint32_t)data);
        tcp_text_acked(cx, c, (uint32_t)data);
    }
    if (seq_lt(c->snd_sml, ack))
        c->snd_sml = ack;
    if (unlikely(c->extra != NULL))
        tcp_extra_acked(cx, c);
    if (c->urgent_out && seq_geq(ack, c->snd_up))
        c->urgent_out = false;
    c->backoffs = 0;
    c->retries = 0;
    c->retrans_start = 0;
    c->soft_err = 0;
}

bool tcp_process_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    /* RFC 5961 5: an ACK older than any window or of data not sent is answered by a challenge */
    if (seq_gt(s->ack, c->snd_nxt) ||
        seq_lt(s->ack, seq_sub(c->snd_una, max_u32(c->snd_wnd_max, 1)))) {
        tcp_challenge(cx, c);
        return false;
    }
    c->last_ack = cx->now;
    c->keepalives_out = 0;
    c->probes_out = 0;
    const uint32_t window_before = c->snd_wnd;
    const bool writable_before = tcp_writable(c);
    const uint32_t prior_in_flight = tcp_in_flight(c);
    take_window(c, s);
    if (c->snd_wnd)
        c->persist_backoff = 0;

    if (c->sent.total == 0) {
        if (unlikely(c->accecn != NULL)) {
            struct sent_ack nothing = {0};
            tcp_accecn_feedback(cx, c, s, &nothing);
        }
        /* a D-SACK may come when all is acknowledged: what was sent twice had arrived before */
        if (s->opt.sack_count) {
            struct sent_ack late;
            sentmap_ack(&cx->st->tcp.records, &c->sent, c->snd_una, s->ack, c->snd_nxt, &s->opt,
                        cx->now, &late);
            tcp_recovery_on_ack(cx, c, s, &late, prior_in_flight, false);
        }
        if (c->snd_wnd) {
            tcp_timer_stop(cx, c, TCP_TIMER_PERSIST);
            tcp_want_output(cx, c);
        }
        return true;
    }
    const bool forward = seq_gt(s->ack, c->snd_una);
    const bool duplicate = seq_eq(s->ack, c->snd_una) && tcp_segment_len(s) == 0 &&
                           c->snd_wnd == window_before && !(s->flags & TCP_SYN);
    const bool round_start = seq_geq(s->ack, c->round_end);
    struct sent_ack a;
    sentmap_ack(&cx->st->tcp.records, &c->sent, c->snd_una, s->ack, c->snd_nxt, &s->opt, cx->now,
                &a);
    if (forward) {
        advance_una(cx, c, s->ack);
        c->more = false; /* Linux: only the send() that says MSG_MORE holds back */
    }
    if (unlikely(c->ecn_ok))
        tcp_ecn_feedback(cx, c, s, &a);
    if (forward || a.newly_sacked)
        sample_rtt(cx, c, s, &a);
    note_rate(c, &a);
    const uint32_t lost = tcp_recovery_on_ack(cx, c, s, &a, prior_in_flight, duplicate);
    const struct ack_context k = {prior_in_flight, lost, round_start};
    grow_cwnd(cx, c, &a, &k);
    if (round_start) {
        rtt_round(&c->rtt);
        c->round_end = c->snd_nxt;
        c->cwnd_limited = false;
        /* what was in flight when the round began counts for it (Linux: max_packets_out) */
        c->max_in_flight = max_u32(prior_in_flight, tcp_in_flight(c));
    }
    /* RFC 6298 5.2, 5.3 */
    if (forward || (tcp_timer_armed(c, TCP_TIMER_LOSS_PROBE) && !tcp_probe_wanted(cx, c)))
        tcp_arm_retransmit(cx, c);
    tcp_tell_writer(cx, c, writable_before);
    if (tcp_unsent(c) || c->sent.lost || (c->fin_queued && !tcp_fin_sent(c)))
        tcp_want_output(cx, c);
    return true;
}
