/*
 * Loss recovery. Losses are found by RACK (rack.c) with SACK, by RFC 6582 (NewReno) without, and by
 * the time-out of RFC 6298 section 5. Meanwhile PRR (RFC 6937) says how much may go, and D-SACK and
 * timestamps tell when it was all for nothing (RFC 3708, RFC 3522, RFC 4015). States are Linux's:
 * Open, Disorder (something was sacked or duplicated), Recovery, Loss.
 */
#include "stack/tcp/conn.h"

static void trace_recovery(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    TRACE(cx, CC, &c->flow, RECOVERY, why, c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c));
    stack_note(cx, &c->flow, TRACE_EV_RECOVERY, (uint8_t)why, 0, 0,
               (uint32_t[4]){c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c)});
}

static bool in_recovery(const struct tcp_conn *c)
{
    return c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS;
}

/* cwnd is on its way down to ssthresh. */
static bool reducing(const struct tcp_conn *c)
{
    return c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_CWR;
}

/* ---- how much to send: RFC 6937 ---- */

/*
 * 3.1. delivered: bytes that this ACK says have arrived; progress: SND.UNA moved and nothing more
 * was found lost, so that it is safe to send more than has arrived (SSRB), else as much (CRB).
 */
static void reduce_proportionally(struct tcp_conn *c, uint32_t delivered, bool progress)
{
    if (cc_ops(c->cc.id)->owns_cwnd)
        return;
    c->prr_delivered += delivered;
    const uint32_t pipe = tcp_in_flight(c);
    const uint32_t ssthresh = c->cc.ssthresh;
    uint64_t room;
    if (pipe > ssthresh) {
        const uint64_t flight = max_u32(c->prr_flight, 1);
        const uint64_t due = ((uint64_t)c->prr_delivered * ssthresh + flight - 1) / flight;
        room = due > c->prr_out ? due - c->prr_out : 0;
    } else {
        const uint32_t ahead = c->prr_delivered > c->prr_out ? c->prr_delivered - c->prr_out : 0;
        room = (uint64_t)max_u32(ahead, delivered) + (progress ? c->mss : 0);
        room = min_u64(room, ssthresh - pipe);
    }
    if (c->prr_out == 0) /* Linux, RFC 9937: the first retransmission goes at once */
        room = max_u64(room, c->mss);
    c->cc.cwnd = max_u32((uint32_t)min_u64(pipe + room, UINT32_MAX), c->mss);
}

void tcp_recovery_on_send(struct stack_cx *cx, struct tcp_conn *c, uint32_t len, bool again)
{
    if (reducing(c))
        c->prr_out += len;
    if (!again || !c->undo_armed)
        return;
    c->undo_retrans += len;
    if (!c->undo_stamped) {
        c->undo_stamped = true;
        c->undo_stamp = tcp_ts_now(cx, c->ts_offset);
    }
}

/* ---- beginning and end ---- */

/* cwnd is going to fall: remember what it takes to take that back. */
static void arm_undo(struct tcp_conn *c)
{
    c->undo_armed = true;
    c->undo_stamped = false;
    c->undo_retrans = 0;
}

static void begin_reduction(struct stack_cx *cx, struct tcp_conn *c, uint32_t prior_in_flight)
{
    c->prr_delivered = 0;
    c->prr_out = 0;
    c->prr_flight = c->cc.cwnd; /* Linux: cwnd, as ssthresh is a part of cwnd, not of the flight */
    c->cc.ssthresh = cc_ops(c->cc.id)->on_loss(&c->cc, prior_in_flight, cx->now);
    c->cwr_due = tcp_ecn_says_cwr(c);
}

/* RFC 3168 6.1.2: an echoed mark counts as a loss, once a round trip. */
static void enter_cwr(struct stack_cx *cx, struct tcp_conn *c, uint32_t prior_in_flight)
{
    c->undo_armed = false;
    begin_reduction(cx, c, prior_in_flight);
    c->ca_state = TCP_CA_CWR;
    c->high_seq = c->snd_nxt;
    stack_count(cx->st, COUNT_ECN_REDUCED);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_ECN);
}

static void enter_recovery(struct stack_cx *cx, struct tcp_conn *c, uint32_t prior_in_flight)
{
    c->tlp_out = false;
    if (c->ca_state != TCP_CA_CWR) { /* else the window falls already: once for each round trip */
        arm_undo(c);
        begin_reduction(cx, c, prior_in_flight);
    }
    c->ca_state = TCP_CA_RECOVERY;
    c->high_seq = c->snd_nxt;
    trace_recovery(cx, c, TCP_WHY_RECOVERY_ENTER);
}

static void leave_recovery(struct stack_cx *cx, struct tcp_conn *c)
{
    if (reducing(c) && !cc_ops(c->cc.id)->owns_cwnd)
        c->cc.cwnd = max_u32(c->cc.ssthresh, c->mss);
    c->ca_state = TCP_CA_OPEN;
    c->reno_sacked = 0;
    c->dupacks = 0;
    tcp_rack_recovered(c);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_EXIT);
}

/* ---- was it for nothing? ---- */

/* RFC 3708, in Linux's form: all that was sent again has been reported as a duplicate. */
static bool all_were_duplicates(struct tcp_conn *c, const struct tcp_segment *s,
                                const struct sent_ack *a)
{
    if (!a->dsack || c->undo_retrans == 0)
        return false;
    const struct tcp_sack_block *b = &s->opt.sack[0];
    c->undo_retrans -= min_u32(c->undo_retrans, (uint32_t)seq_diff(b->end, b->start));
    return c->undo_retrans == 0;
}

/* RFC 3522 3.2 (Eifel detection): the ACK echoes a stamp older than the first retransmission. */
static bool original_arrived(const struct tcp_conn *c, const struct tcp_segment *s,
                             const struct sent_ack *a)
{
    return in_recovery(c) && a->acked && c->undo_stamped && c->ts_ok && s->opt.has_ts &&
           s->opt.ts_ecr && (int32_t)(s->opt.ts_ecr - c->undo_stamp) < 0;
}

/*
 * RFC 5682 3.1 step 3.b, with SACK: after a time-out something arrived that was not sent again. As
 * on Linux it counts also before step 3, and when it is acknowledged together with what was, as by
 * a delayed ACK of the first two segments; but for the last (step 2.a), which that may have
 * completed.
 */
static bool time_out_was_spurious(const struct tcp_conn *c, const struct sent_ack *a)
{
    return c->frto && c->ca_state == TCP_CA_LOSS && a->once.valid &&
           seq_leq(a->once.end, c->high_seq) &&
           (!a->acked_retransmitted || seq_lt(c->snd_una, c->high_seq));
}

static void undo_if_spurious(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                             const struct sent_ack *a)
{
    if (!c->undo_armed)
        return;
    const enum tcp_reason why = all_were_duplicates(c, s, a)  ? TCP_WHY_UNDO_DSACK
                                : original_arrived(c, s, a)   ? TCP_WHY_UNDO_EIFEL
                                : time_out_was_spurious(c, a) ? TCP_WHY_UNDO_FRTO
                                                              : TCP_WHY_NONE;
    if (why == TCP_WHY_NONE)
        return;
    c->undo_armed = false;
    cc_undo(&c->cc);
    if (c->ca_state == TCP_CA_RECOVERY)
        tcp_rack_saw_reordering(c);
    if (in_recovery(c)) {
        /* What was really lost RACK finds again, with a window that is wider now. */
        sentmap_unmark_lost(&c->sent);
        c->ca_state = TCP_CA_OPEN;
        c->reno_sacked = 0;
        c->dupacks = 0;
    }
    c->backoffs = 0;
    c->retries = 0;
    trace_recovery(cx, c, why);
}

/*
 * RFC 5682 3.1 steps 2 and 3, what an ACK after a time-out leads to that did not show it to be
 * spurious. 2.b: after the first that moves SND.UNA new data asks the peer, where there is any and
 * its window allows. 3.a: the answer is about the new data, so that what was sent before was lost.
 * ACKs that say nothing, as window updates, are no answer.
 */
static void continue_frto(struct tcp_conn *c, const struct sent_ack *a, bool duplicate)
{
    if (c->frto_step == FRTO_NONE || !(a->acked || a->newly_sacked || duplicate))
        return;
    if (c->frto_step == FRTO_FIRST) {
        if (a->acked)
            c->frto_step = FRTO_NEW;
        return;
    }
    if (c->frto_step == FRTO_ASKED)
        c->frto = a->acked && !(a->once.valid && seq_gt(a->once.end, c->high_seq));
    c->frto_step = FRTO_NONE;
}

/* ---- finding losses ---- */

/* Without SACK a duplicate ACK stands for one segment that has left the network. Returns the bytes
 * that this ACK says have arrived. */
static uint32_t count_duplicates(struct tcp_conn *c, const struct sent_ack *a, bool duplicate)
{
    const uint32_t before = c->reno_sacked;
    if (duplicate) {
        if (c->dupacks < UINT8_MAX)
            c->dupacks++;
        const uint32_t outstanding = sentmap_pipe(&c->sent);
        c->reno_sacked =
            min_u32(c->reno_sacked + c->mss, outstanding > c->mss ? outstanding - c->mss : 0);
        return c->mss;
    }
    if (!a->acked)
        return 0;
    if (in_recovery(c)) {
        /* partial ACK: it covers the hole and what the duplicates stood for */
        const uint32_t beyond = a->acked > c->mss ? a->acked - c->mss : 0;
        c->reno_sacked -= min_u32(c->reno_sacked, beyond);
    } else {
        c->reno_sacked = 0;
        c->dupacks = 0;
    }
    c->reno_sacked = min_u32(c->reno_sacked, sentmap_pipe(&c->sent));
    return a->acked - min_u32(a->acked, before - min_u32(before, c->reno_sacked));
}

static uint32_t find_losses(struct stack_cx *cx, struct tcp_conn *c, const struct sent_ack *a)
{
    struct pool *records = &cx->st->tcp.records;
    if (c->sack_ok)
        return tcp_rack_detect(cx, c);
    if (c->ca_state == TCP_CA_LOSS)
        return 0;
    if (c->ca_state == TCP_CA_RECOVERY)
        return a->acked ? sentmap_mark_head_lost(records, &c->sent, c->mss) : 0;
    /* RFC 6582 3.2 step 2: not again for what was sent before the last recovery */
    if (c->dupacks >= TCP_DUPTHRESH && seq_geq(c->snd_una, c->high_seq))
        return sentmap_mark_head_lost(records, &c->sent, c->mss);
    return 0;
}

/* RFC 8985 7.4.2: a loss that the probe repaired is a sign of congestion like any other. */
static void reduce_for_probe(struct stack_cx *cx, struct tcp_conn *c, uint32_t prior_in_flight)
{
    if (in_recovery(c))
        return;
    c->undo_armed = false;
    c->cc.ssthresh = cc_ops(c->cc.id)->on_loss(&c->cc, prior_in_flight, cx->now);
    if (!cc_ops(c->cc.id)->owns_cwnd)
        c->cc.cwnd = max_u32(min_u32(c->cc.cwnd, c->cc.ssthresh), c->mss);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_PROBE);
}

/* Nothing is missing: order, disorder, or a reduction that a mark began or is to begin. */
static void settle_state(struct stack_cx *cx, struct tcp_conn *c, bool marked,
                         uint32_t prior_in_flight)
{
    if (c->ca_state == TCP_CA_CWR)
        return;
    if (marked)
        enter_cwr(cx, c, prior_in_flight);
    else
        c->ca_state = c->sent.sacked || c->dupacks ? TCP_CA_DISORDER : TCP_CA_OPEN;
}

static enum tcp_reason why_lost(const struct tcp_conn *c, const struct sent_ack *a)
{
    if (a->reneged)
        return TCP_WHY_LOST_RENEGED;
    if (c->sack_ok)
        return TCP_WHY_LOST_RACK;
    return c->ca_state == TCP_CA_RECOVERY ? TCP_WHY_LOST_PARTIAL_ACK : TCP_WHY_LOST_DUPACKS;
}

uint32_t tcp_recovery_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                             struct sent_ack *a, uint32_t prior_in_flight, bool duplicate)
{
    if (!c->sack_ok)
        a->delivered = count_duplicates(c, a, duplicate);
    else
        tcp_rack_update(cx, c, s, a);
    const uint32_t delivered = a->delivered;
    if (unlikely(a->reneged)) {
        /* RFC 2018 8: the receiver took its word back; trust the cumulative ACK alone */
        sentmap_mark_all_lost(&c->sent, true);
    }
    if (unlikely(c->tlp_out) && tcp_probe_on_ack(cx, c, s, a, duplicate))
        reduce_for_probe(cx, c, prior_in_flight);
    undo_if_spurious(cx, c, s, a);
    /* Linux: something beyond high_seq is acknowledged, so that CWR has reached the peer */
    if ((in_recovery(c) && seq_geq(c->snd_una, c->high_seq)) ||
        (c->ca_state == TCP_CA_CWR && seq_gt(c->snd_una, c->high_seq)))
        leave_recovery(cx, c);
    uint32_t lost = find_losses(cx, c, a);
    if (stack_traces(cx, TRACE_CC) && (lost || a->reneged))
        tcp_report_lost(cx, c, why_lost(c, a));
    if (unlikely(c->path.mtu_probe))
        lost = tcp_mtu_probe_on_ack(cx, c, a, lost);
    if (c->ca_state == TCP_CA_LOSS) {
        continue_frto(c, a, duplicate);
        return lost;
    }
    if (c->ca_state != TCP_CA_RECOVERY) {
        if (lost == 0)
            settle_state(cx, c, a->marked != 0, prior_in_flight);
        else
            enter_recovery(cx, c, prior_in_flight);
    }
    if (reducing(c) && (delivered || lost))
        reduce_proportionally(c, delivered, a->acked && lost == 0);
    return lost;
}

void tcp_recovery_on_reorder_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    const uint32_t prior_in_flight = tcp_in_flight(c);
    const uint32_t lost = tcp_rack_detect(cx, c);
    tcp_trace_fired(cx, c, TCP_TIMER_REORDER, 1);
    if (lost == 0)
        return;
    if (stack_traces(cx, TRACE_CC))
        tcp_report_lost(cx, c, TCP_WHY_LOST_RACK);
    if (tcp_mtu_probe_lost(cx, c, lost) == 0)
        c->ca_state = c->ca_state == TCP_CA_OPEN ? TCP_CA_DISORDER : c->ca_state;
    else if (!in_recovery(c))
        enter_recovery(cx, c, prior_in_flight);
    if (c->ca_state == TCP_CA_RECOVERY)
        reduce_proportionally(c, 0, false);
    tcp_output(cx, c);
}

void tcp_recovery_on_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    stack_count(cx->st, COUNT_RTOS);
    /* RFC 5681 3.1: ssthresh falls once for each loss event, not for each retry */
    const bool in_episode = in_recovery(c);
    if (c->cc.mss && (!in_episode || seq_geq(c->snd_una, c->high_seq))) {
        arm_undo(c);
        c->cc.ssthresh = cc_ops(c->cc.id)->on_loss(&c->cc, tcp_in_flight(c), cx->now);
    }
    if (c->cc.mss && c->ca_state != TCP_CA_LOSS)
        cc_ops(c->cc.id)->on_timeout(&c->cc, cx->now);
    c->cc.cwnd = c->mss;
    c->cwr_due = tcp_ecn_says_cwr(c);
    c->ca_state = TCP_CA_LOSS;
    /* RFC 5682 3.1 step 1, 3.2: not for what recovery sent again; for the same segment once more */
    c->frto = c->sack_ok && c->syn_acked && (!in_episode || c->retries > 1);
    c->frto_step = c->frto ? FRTO_FIRST : FRTO_NONE;
    c->high_seq = c->snd_nxt;
    c->reno_sacked = 0;
    c->dupacks = 0;
    c->tlp_out = false;
    tcp_mtu_probe_given_up(cx, c);
    tcp_timer_stop(cx, c, TCP_TIMER_REORDER);
    /* A head that was sacked while everything before it is acknowledged: the peer reneged. */
    const struct sent_record *head = sentmap_first(&c->sent);
    sentmap_mark_all_lost(&c->sent, head && head->sacked);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_RTO);
    if (stack_traces(cx, TRACE_CC))
        tcp_report_lost(cx, c, TCP_WHY_LOST_RTO);
}
