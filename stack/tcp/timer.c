/* What happens when a connection's deadline passes (RFC 6298, RFC 9293 3.8). */
#include <errno.h>

#include "stack/tcp/conn.h"

static void give_up(struct stack_cx *cx, struct tcp_conn *c, int err, enum tcp_reason why)
{
    tcp_done(cx, c, c->soft_err ? c->soft_err : err, why);
}

/*
 * Linux's retransmits_timed_out(): a number of retries stands for the time that so many doublings
 * from RTO_MIN take (15 retries: 924.6 s), so that a long RTO does not mean hours.
 */
static nsec_t retry_time(const struct tcp_conn *c, unsigned retries)
{
    const nsec_t most = tcp_rto_max(&c->opts);
    nsec_t rto = RTO_MIN, sum = 0;
    for (unsigned i = 0; i <= retries; i++) {
        sum += min_u64(rto, most);
        rto = min_u64(2 * rto, RTO_MAX);
    }
    return sum;
}

/* True when the connection ended. */
static bool retries_exhausted(struct stack_cx *cx, struct tcp_conn *c)
{
    const nsec_t waited = cx->now - c->retrans_start;
    if (c->opts.user_timeout && waited >= c->opts.user_timeout * NSEC_PER_MSEC) {
        give_up(cx, c, ETIMEDOUT, TCP_WHY_TIMEOUT_USER);
        return true;
    }
    if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RECEIVED) {
        const unsigned most = c->state == TCP_SYN_RECEIVED ? TCP_SYNACK_RETRIES
                              : c->opts.syncnt             ? c->opts.syncnt
                                                           : TCP_SYN_RETRIES;
        if (c->retries < most)
            return false;
        give_up(cx, c, ETIMEDOUT, TCP_WHY_TIMEOUT_RETRANSMIT);
        return true;
    }
    if (c->opts.user_timeout)
        return false;
    if (!c->app_held && !c->half_accepted) {
        if (c->retries == 0 || waited < retry_time(c, TCP_ORPHAN_RETRIES))
            return false;
        give_up(cx, c, ETIMEDOUT, TCP_WHY_TIMEOUT_ORPHAN);
        return true;
    }
    if (c->retries == 0 || waited < retry_time(c, TCP_RETRIES2))
        return false;
    give_up(cx, c, ETIMEDOUT, TCP_WHY_TIMEOUT_RETRANSMIT);
    return true;
}

/*
 * The peer took back a window that it had offered, and answers what we retry with "still closed":
 * such retries are probes, and a peer that answers probes keeps the connection (RFC 9293 3.8.6
 * MUST-34, 3.8.6.1; Linux's tcp_retransmit_timer()).
 */
static bool answers_zero_window(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return c->snd_wnd == 0 && c->app_held && tcp_synchronized(c) &&
           cx->now - c->last_ack < 2 * RTO_MAX;
}

static void retransmit_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    const struct sent_record *head = sentmap_first(&c->sent);
    if (!head)
        return;
    if (!c->retrans_start)
        c->retrans_start = head->sent;
    tcp_trace_fired(cx, c, TCP_TIMER_RETRANSMIT, c->retries + 1u);
    if (answers_zero_window(cx, c)) {
        c->retrans_start = 0;
        c->retries = 0;
    } else if (retries_exhausted(cx, c)) {
        return;
    }
    if (c->retries < UINT8_MAX)
        c->retries++;
    if (c->backoffs < 32)
        c->backoffs++;
    if (c->retries % TCP_BLACK_HOLE_RETRIES == 0 && cx->st->config.tuning.mtu_probing)
        tcp_suspect_black_hole(cx, c);
    tcp_recovery_on_timeout(cx, c);
    tcp_output(cx, c);
    tcp_arm_retransmit(cx, c);
}

/* Linux's tcp_xmit_probe_skb(): an old sequence number makes the peer answer with its window. */
static void send_probe(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    const struct tcp_emit e = {.seq = seq_sub(c->snd_una, 1), .flags = TCP_ACK, .why = why};
    tcp_emit(cx, c, &e);
}

/* A sliver of window that sender's SWS avoidance did not use: the override of RFC 9293 3.8.6.2.1.
 */
static bool send_sliver(struct stack_cx *cx, struct tcp_conn *c)
{
    const int32_t room = seq_diff(seq_add(c->snd_una, c->snd_wnd), c->snd_nxt);
    const uint32_t len = min_u32(min_u32(room > 0 ? (uint32_t)room : 0, tcp_unsent(c)), c->mss);
    if (len == 0)
        return false;
    const struct tcp_emit e = {
        .seq = c->snd_nxt, .len = len, .flags = TCP_ACK | TCP_PSH, .why = TCP_WHY_SEND_PROBE};
    const int64_t sent = tcp_emit(cx, c, &e);
    if (sent <= 0)
        return false;
    sentmap_sent(&cx->st->tcp.records, &c->sent, c->snd_nxt, (uint32_t)sent, 0, cx->now);
    c->snd_nxt = seq_add(c->snd_nxt, (uint32_t)sent);
    tcp_arm_retransmit(cx, c);
    return true;
}

static void persist_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->sent.total || (tcp_unsent(c) == 0 && !(c->fin_queued && !tcp_fin_sent(c)))) {
        c->probes_out = 0;
        return;
    }
    tcp_trace_fired(cx, c, TCP_TIMER_PERSIST, c->probes_out + 1u);
    /*
     * A peer that answers keeps the connection for ever (RFC 9293 MUST-37); silence ends it. Text
     * that no program answers for waits until the backoff is at its bound, as Linux's
     * tcp_probe_timer() has it: else a peer could fill the memory with it.
     */
    const nsec_t silent = cx->now - tcp_last_heard(c);
    const bool orphan = !c->app_held && !c->half_accepted;
    const unsigned most = orphan ? TCP_ORPHAN_RETRIES : TCP_RETRIES2;
    const bool forgotten = orphan && tcp_backed_off(c, c->persist_backoff) >= tcp_rto_max(&c->opts);
    if (forgotten ||
        (c->opts.user_timeout ? c->probes_out && silent >= c->opts.user_timeout * NSEC_PER_MSEC
                              : c->probes_out >= most)) {
        give_up(cx, c, ETIMEDOUT,
                c->opts.user_timeout ? TCP_WHY_TIMEOUT_USER : TCP_WHY_TIMEOUT_RETRANSMIT);
        return;
    }
    c->probes_out++;
    if (c->snd_wnd == 0 || !send_sliver(cx, c))
        send_probe(cx, c, TCP_WHY_SEND_PROBE);
    if (c->persist_backoff < 32)
        c->persist_backoff++;
    if (c->sent.total == 0)
        tcp_timer_set(cx, c, TCP_TIMER_PERSIST, cx->now + tcp_backed_off(c, c->persist_backoff));
}

/* ---- keepalive (RFC 9293 3.8.4) ---- */

static nsec_t keepalive_idle(const struct tcp_conn *c)
{
    return (c->opts.keepidle ? c->opts.keepidle : TCP_KEEPALIVE_TIME) * NSEC_PER_SEC;
}

static nsec_t keepalive_interval(const struct tcp_conn *c)
{
    return (c->opts.keepintvl ? c->opts.keepintvl : TCP_KEEPALIVE_INTVL) * NSEC_PER_SEC;
}

void tcp_keepalive_arm(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->opts.keepalive || !tcp_synchronized(c)) {
        tcp_timer_stop(cx, c, TCP_TIMER_KEEPALIVE);
        c->keepalives_out = 0;
        return;
    }
    const nsec_t heard = tcp_last_heard(c);
    tcp_timer_set(cx, c, TCP_TIMER_KEEPALIVE, max_u64(heard + keepalive_idle(c), cx->now));
}

static void keepalive_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->opts.keepalive || !tcp_synchronized(c))
        return;
    const nsec_t heard = tcp_last_heard(c);
    const nsec_t silent = cx->now - heard;
    /* Data in flight or waiting tests the peer better than a probe does. */
    if (c->sent.total || tcp_unsent(c)) {
        tcp_timer_set(cx, c, TCP_TIMER_KEEPALIVE, cx->now + keepalive_idle(c));
        return;
    }
    if (silent < keepalive_idle(c)) {
        tcp_timer_set(cx, c, TCP_TIMER_KEEPALIVE, heard + keepalive_idle(c));
        return;
    }
    const unsigned most = c->opts.keepcnt ? c->opts.keepcnt : TCP_KEEPALIVE_PROBES;
    tcp_trace_fired(cx, c, TCP_TIMER_KEEPALIVE, c->keepalives_out + 1u);
    const bool over = c->opts.user_timeout
                          ? c->keepalives_out && silent >= c->opts.user_timeout * NSEC_PER_MSEC
                          : c->keepalives_out >= most;
    if (over) {
        tcp_emit_rst(cx, c, TCP_WHY_TIMEOUT_KEEPALIVE);
        give_up(cx, c, ETIMEDOUT, TCP_WHY_TIMEOUT_KEEPALIVE);
        return;
    }
    c->keepalives_out++;
    send_probe(cx, c, TCP_WHY_SEND_KEEPALIVE);
    tcp_timer_set(cx, c, TCP_TIMER_KEEPALIVE, cx->now + keepalive_interval(c));
}

static void delayed_ack_timeout(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->ack_delayed)
        return;
    tcp_trace_fired(cx, c, TCP_TIMER_DELAYED_ACK, 1);
    /* Linux: a delayed ACK that found no company says that the flow is not interactive */
    if (!c->interactive) {
        c->ato = tcp_ato(c, 2ull * c->ato);
    } else {
        c->interactive = false;
        c->ato = TCP_DELACK_MIN;
    }
    if (c->fin_queued && !tcp_fin_sent(c)) /* it may have waited for company with the ACK */
        tcp_output(cx, c);
    if (c->ack_delayed)
        tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_DELAYED);
}

static void fire(struct stack_cx *cx, struct tcp_conn *c, enum tcp_timer which)
{
    switch (which) {
    case TCP_TIMER_RETRANSMIT:
        retransmit_timeout(cx, c);
        break;
    case TCP_TIMER_PERSIST:
        persist_timeout(cx, c);
        break;
    case TCP_TIMER_DELAYED_ACK:
        delayed_ack_timeout(cx, c);
        break;
    case TCP_TIMER_KEEPALIVE:
        keepalive_timeout(cx, c);
        break;
    case TCP_TIMER_CORK:
        tcp_trace_fired(cx, c, TCP_TIMER_CORK, 1);
        c->cork_expired = true;
        c->push_seq = tcp_data_end(c);
        tcp_output(cx, c);
        c->cork_expired = false;
        break;
    case TCP_TIMER_PACE:
        tcp_trace_fired(cx, c, TCP_TIMER_PACE, 1);
        tcp_output(cx, c);
        break;
    case TCP_TIMER_REORDER:
        tcp_recovery_on_reorder_timeout(cx, c);
        break;
    case TCP_TIMER_LOSS_PROBE:
        tcp_loss_probe_timeout(cx, c);
        break;
    case TCP_TIMER_FIN_WAIT_2:
        tcp_trace_fired(cx, c, TCP_TIMER_FIN_WAIT_2, 1);
        if (c->state == TCP_FIN_WAIT_2 && !c->app_held)
            tcp_done(cx, c, 0, TCP_WHY_TIMEOUT_FIN_WAIT_2);
        break;
    default:
        break;
    }
}

void tcp_conn_timer(struct stack_cx *cx, struct tcp_conn *c)
{
    for (unsigned i = 0; i < TCP_CONN_TIMERS && c->state != TCP_CLOSED; i++) {
        if (c->deadline[i] > cx->now)
            continue;
        c->deadline[i] = NSEC_NEVER;
        fire(cx, c, i);
    }
}
