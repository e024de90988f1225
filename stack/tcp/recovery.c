/*
 * Loss recovery: RFC 6675 with SACK, RFC 6582 (NewReno) without, RFC 6298 section 5 after a
 * time-out. States are Linux's: Open, Disorder (something was sacked or duplicated), Recovery,
 * Loss.
 */
#include "stack/tcp/conn.h"

static void trace_recovery(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    TRACE(cx, CC, &c->flow, RECOVERY, why, c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c));
}

static void enter_recovery(struct stack_cx *cx, struct tcp_conn *c, uint32_t prior_in_flight)
{
    c->ca_state = TCP_CA_RECOVERY;
    c->high_seq = c->snd_nxt;
    c->cc.ssthresh = cc_ops(c->cc.id)->on_loss(&c->cc, prior_in_flight, cx->now);
    c->cc.cwnd = max_u32(c->cc.ssthresh, c->mss);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_ENTER);
}

static void leave_recovery(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->ca_state == TCP_CA_RECOVERY)
        c->cc.cwnd = max_u32(c->cc.ssthresh, c->mss);
    c->ca_state = TCP_CA_OPEN;
    c->reno_sacked = 0;
    c->dupacks = 0;
    trace_recovery(cx, c, TCP_WHY_RECOVERY_EXIT);
}

/* Without SACK a duplicate ACK stands for one segment that has left the network. */
static void count_duplicates(struct tcp_conn *c, const struct sent_ack *a, bool duplicate)
{
    if (duplicate) {
        if (c->dupacks < UINT8_MAX)
            c->dupacks++;
        const uint32_t outstanding = sentmap_pipe(&c->sent);
        c->reno_sacked =
            min_u32(c->reno_sacked + c->mss, outstanding > c->mss ? outstanding - c->mss : 0);
    } else if (a->acked) {
        if (c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS) {
            /* partial ACK: it covers the hole and what the duplicates stood for */
            const uint32_t beyond = a->acked > c->mss ? a->acked - c->mss : 0;
            c->reno_sacked -= min_u32(c->reno_sacked, beyond);
        } else {
            c->reno_sacked = 0;
            c->dupacks = 0;
        }
        c->reno_sacked = min_u32(c->reno_sacked, sentmap_pipe(&c->sent));
    }
}

static uint32_t find_losses(struct stack_cx *cx, struct tcp_conn *c, const struct sent_ack *a)
{
    struct pool *records = &cx->st->tcp.records;
    if (c->sack_ok)
        return c->sent.sacked ? sentmap_mark_lost(records, &c->sent, c->mss, TCP_DUPTHRESH) : 0;
    if (c->ca_state == TCP_CA_RECOVERY)
        return a->acked ? sentmap_mark_head_lost(records, &c->sent, c->mss) : 0;
    /* RFC 6582 3.2 step 2: not again for what was sent before the last recovery */
    if (c->dupacks >= TCP_DUPTHRESH && seq_geq(c->snd_una, c->high_seq))
        return sentmap_mark_head_lost(records, &c->sent, c->mss);
    return 0;
}

void tcp_recovery_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         const struct sent_ack *a, uint32_t prior_in_flight, bool duplicate)
{
    (void)s;
    if (!c->sack_ok)
        count_duplicates(c, a, duplicate);
    if (unlikely(a->reneged)) {
        /* RFC 2018 8: the receiver took its word back; trust the cumulative ACK alone */
        sentmap_mark_all_lost(&c->sent, true);
    }
    if ((c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS) &&
        seq_geq(c->snd_una, c->high_seq))
        leave_recovery(cx, c);
    if (c->ca_state == TCP_CA_LOSS)
        return;
    const uint32_t lost = find_losses(cx, c, a);
    if (c->ca_state == TCP_CA_RECOVERY)
        return;
    if (lost)
        enter_recovery(cx, c, prior_in_flight);
    else if (c->sent.sacked || c->dupacks)
        c->ca_state = TCP_CA_DISORDER;
    else
        c->ca_state = TCP_CA_OPEN;
}

void tcp_recovery_on_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    stack_count(cx->st, COUNT_RTOS);
    /* RFC 5681 3.1: ssthresh falls once for each loss event, not for each retry */
    const bool in_episode = c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS;
    if (c->cc.mss && (!in_episode || seq_geq(c->snd_una, c->high_seq))) {
        c->cc.ssthresh = cc_ops(c->cc.id)->on_loss(&c->cc, tcp_in_flight(c), cx->now);
    }
    if (c->cc.mss && c->ca_state != TCP_CA_LOSS)
        cc_ops(c->cc.id)->on_timeout(&c->cc, cx->now);
    c->cc.cwnd = c->mss;
    c->ca_state = TCP_CA_LOSS;
    c->high_seq = c->snd_nxt;
    c->reno_sacked = 0;
    c->dupacks = 0;
    /* A head that was sacked while everything before it is acknowledged: the peer reneged. */
    const struct sent_record *head = sentmap_first(&c->sent);
    sentmap_mark_all_lost(&c->sent, head && head->sacked);
    trace_recovery(cx, c, TCP_WHY_RECOVERY_RTO);
}
