/*
 * RACK-TLP (RFC 8985): losses are found by time. What was sent before something that has arrived,
 * and longer ago than a round trip and a window for reordering, is lost; a probe sees to it that
 * something arrives. In place of RFC 6675's DupThresh where SACK is in use.
 */
#include "stack/tcp/conn.h"

/* RFC 8985 6.2 step 4 */
#define REO_PERSIST  16
#define REO_MULT_MAX 20
/* Linux: tcp_max_reordering */
#define REORDERING_MAX 300u
/* Linux: TCP_TIMEOUT_MIN, for ACKs that are a little late */
#define PROBE_SLACK (2 * NSEC_PER_MSEC)

static bool in_recovery(const struct tcp_conn *c)
{
    return c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS;
}

/* ---- RACK (section 6) ---- */

/* Step 2: an ACK of something sent twice may be about the first time. */
static bool about_the_original(const struct stack_cx *cx, const struct tcp_conn *c,
                               const struct tcp_segment *s, const struct sent_mark *k)
{
    if (c->ts_ok && s->opt.has_ts &&
        (int32_t)(s->opt.ts_ecr - tcp_ts_at(k->sent, c->ts_offset)) < 0)
        return true;
    return cx->now - k->sent < c->rtt.min_rtt;
}

static void take_newest(const struct stack_cx *cx, struct tcp_conn *c, const struct sent_mark *k)
{
    if (!sent_after(k->sent, k->end, c->rack_sent, c->rack_end))
        return;
    c->rack_sent = k->sent;
    c->rack_end = k->end;
    c->rack_again = k->again;
    c->rack_rtt = cx->now - k->sent;
}

/* Step 4, the part that adapts: D-SACKs say that the window was too small. */
static void take_dsack(struct tcp_conn *c, const struct tcp_segment *s)
{
    if (c->dsack_round && seq_geq(c->snd_una, c->dsack_end))
        c->dsack_round = false;
    c->dsack_count++;
    if (c->tlp_out && c->tlp_retrans && seq_eq(s->opt.sack[0].end, c->tlp_end))
        return; /* that was the probe */
    /* Linux: the network doubles segments too */
    if (c->dsack_count > c->total_retrans || c->dsack_round)
        return;
    c->dsack_round = true;
    c->dsack_end = c->snd_nxt;
    if (c->reo_mult < REO_MULT_MAX)
        c->reo_mult++;
    c->reo_persist = REO_PERSIST;
}

void tcp_rack_saw_reordering(struct tcp_conn *c)
{
    c->reordering_seen = true;
    if (c->reorder_count < UINT16_MAX)
        c->reorder_count++;
}

/* Step 4: how much later than expected a segment may be. */
static nsec_t reordering_window(const struct tcp_conn *c)
{
    if (!c->reordering_seen && (in_recovery(c) || c->sent.sacked > (TCP_DUPTHRESH - 1u) * c->mss))
        return 0;
    return min_u64((c->reo_mult + 1u) * (c->rtt.min_rtt / 4), c->rtt.srtt);
}

void tcp_rack_update(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                     const struct sent_ack *a)
{
    if (a->once.valid)
        take_newest(cx, c, &a->once);
    if (a->again.valid && !about_the_original(cx, c, s, &a->again))
        take_newest(cx, c, &a->again);
    if (a->reordered) {
        tcp_rack_saw_reordering(c);
        const uint32_t segs = min_u32((a->late + c->mss - 1) / c->mss, REORDERING_MAX);
        c->sent.reordering = (uint16_t)max_u32(c->sent.reordering, segs);
    }
    if (a->dsack)
        take_dsack(c, s);
    if (stack_traces(cx, TRACE_CC) && (a->reordered || a->dsack))
        TRACE(cx, CC, &c->flow, REORDERING,
              a->reordered ? TCP_WHY_SEEN_REORDERING : TCP_WHY_SEEN_DSACK, reordering_window(c));
}

void tcp_rack_recovered(struct tcp_conn *c)
{
    if (c->reo_persist && --c->reo_persist == 0)
        c->reo_mult = 0;
}

uint32_t tcp_rack_detect(struct stack_cx *cx, struct tcp_conn *c)
{
    tcp_timer_stop(cx, c, TCP_TIMER_REORDER);
    if (c->rack_sent == 0 || (c->sent.sacked == 0 && c->sent.retrans == 0))
        return 0; /* what is in flight left after all that has arrived */
    const struct sent_mark newest = {true, c->rack_again, c->rack_sent, c->rack_end};
    nsec_t wait;
    const uint32_t lost =
        sentmap_mark_older(&c->sent, &newest, c->rack_rtt + reordering_window(c), cx->now, &wait);
    if (wait)
        tcp_timer_set(cx, c, TCP_TIMER_REORDER, cx->now + wait);
    return lost;
}

/* ---- TLP (section 7) ---- */

bool tcp_probe_wanted(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return !cx->st->config.tuning.no_probes && c->sack_ok && c->syn_acked && c->cc.mss &&
           c->ca_state == TCP_CA_OPEN && c->sent.total && c->sent.sacked == 0 &&
           c->sent.lost == 0 && !c->tlp_out && c->retries == 0;
}

/* 7.2. Flight of less than two full segments: its ACK may be a delayed one. */
nsec_t tcp_probe_timeout(const struct tcp_conn *c)
{
    if (c->rtt.srtt == 0)
        return c->rtt.rto;
    return 2 * c->rtt.srtt + (c->sent.total <= c->mss ? TCP_DELACK_MAX : PROBE_SLACK);
}

void tcp_loss_probe_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->sent.total == 0)
        return;
    tcp_trace_fired(cx, c, TCP_TIMER_LOSS_PROBE, 1);
    if (!c->tlp_out && !in_recovery(c)) {
        c->tlp_out = true;
        tcp_mtu_probe_given_up(cx, c);
        c->tlp_retrans = !tcp_probe_new(cx, c);
        if (c->tlp_retrans)
            tcp_probe_again(cx, c);
        c->tlp_end = c->snd_nxt;
    }
    tcp_arm_retransmit(cx, c); /* 7.3: the RTO, counted from here */
}

/* What became of a probe that repaired nothing. */
static void trace_probe(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    TRACE(cx, CC, &c->flow, RECOVERY, why, c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c));
}

/* 7.4.2. True: the probe repaired a loss that nobody else has seen. */
bool tcp_probe_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      const struct sent_ack *a, bool duplicate)
{
    if (!c->tlp_out || seq_lt(s->ack, c->tlp_end))
        return false;
    if (!c->tlp_retrans) {
        c->tlp_out = false;
        trace_probe(cx, c, TCP_WHY_PROBE_ANSWERED);
        return false;
    }
    if (a->dsack && seq_eq(s->opt.sack[0].end, c->tlp_end)) {
        c->tlp_out = false; /* both the original and the probe arrived */
        trace_probe(cx, c, TCP_WHY_PROBE_NEEDLESS);
        return false;
    }
    if (seq_gt(s->ack, c->tlp_end)) {
        c->tlp_out = false;
        return true;
    }
    if (duplicate && s->opt.sack_count == 0) {
        c->tlp_out = false;
        trace_probe(cx, c, TCP_WHY_PROBE_NEEDLESS);
    }
    return false;
}
