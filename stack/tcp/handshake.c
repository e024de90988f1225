/* The active side of the handshake: connect() and SYN_SENT (RFC 9293 3.10.1, 3.10.7.3). */
#include <errno.h>

#include "stack/tcp/conn.h"

void tcp_take_syn_options(struct tcp_conn *c, const struct tcp_options *o)
{
    /* RFC 9293 MUST-15: no MSS option means 536 */
    c->peer_mss = o->has_mss && o->mss ? (uint16_t)max_u32(o->mss, TCP_MSS_MIN) : TCP_MSS_DEFAULT;
    c->wscale_ok = o->has_wscale;
    c->snd_wscale = o->has_wscale ? (uint8_t)min_u32(o->wscale, TCP_WSCALE_MAX) : 0;
    if (!c->wscale_ok)
        c->rcv_wscale = 0;
    c->sack_ok = o->sack_permitted;
    c->ts_ok = o->has_ts;
}

static int check_connectable(struct stack_cx *cx, struct tcp_conn *c, const struct flow_tuple *t)
{
    if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RECEIVED)
        return -EALREADY;
    /* Linux: also when that connection is over, until connect(AF_UNSPEC) forgets it */
    if (c->state != TCP_CLOSED || c->connected)
        return -EISCONN;
    struct flow *f = flow_find(&cx->st->tcp.flows, t);
    if (!f)
        return 0;
    if (f->kind == FLOW_TIME_WAIT) {
        struct tcp_time_wait *tw = container_of(f, struct tcp_time_wait, flow);
        if (tcp_time_wait_reusable(cx, tw)) {
            tcp_time_wait_drop(cx, tw, TCP_WHY_CALL_CONNECT);
            return 0;
        }
    }
    return -EADDRINUSE;
}

/*
 * What a connection forgets when it is opened again after a failure. Not what shutdown() said: that
 * holds for the next connection, as in Linux, unless tcp_disconnect() forgot it.
 */
static void renew(struct tcp_conn *c)
{
    /* An attempt that failed shut both ways by itself (tcp_done()): Linux's connect() undoes that.
     */
    if (c->iss.v != 0 || c->snd_nxt.v != 0)
        c->rcv_shut = c->snd_shut = false;
    c->err = c->soft_err = 0;
    c->fin_queued = c->fin_received = c->fin_ahead = false;
    c->syn_acked = c->connected = c->ack_now = c->ack_delayed = c->syn_data = false;
    c->urg_state = URG_NONE;
    c->retries = c->backoffs = c->dupacks = 0;
    c->ca_state = TCP_CA_OPEN;
    c->retrans_start = 0;
    rtt_init(&c->rtt);
}

static int do_connect(struct stack_cx *cx, struct tcp_conn *c, const struct endpoint *local,
                      const struct endpoint *remote, const struct ip_path *path)
{
    const struct flow_tuple t = {local->addr, remote->addr, local->port, remote->port};
    const int r = check_connectable(cx, c, &t);
    if (r < 0)
        return r;
    renew(c);
    c->path = *path;
    tcp_conn_enter(cx, c, &t);
    c->iss = isn_generate(&cx->st->tcp.isn_secret, &t, cx->now);
    c->snd_una = c->snd_nxt = c->iss;
    c->snd_sml = c->snd_up = c->push_seq = seq_add(c->iss, 1);
    c->advmss = tcp_local_mss(cx->st, path, &c->opts, &remote->addr);
    c->peer_mss = c->advmss;
    uint32_t wnd;
    tcp_window_init(cx, &c->opts, &wnd, &c->rcv_wscale);
    c->rcv_limit = wnd;
    c->created = cx->now;
    cc_init(&c->cc, c->opts.cc, TCP_MSS_DEFAULT, cx->now);
    tcp_ecn_begin(cx, c);
    c->pace_next = 0;
    tcp_set_state(cx, c, TCP_SYN_SENT, TCP_WHY_CALL_CONNECT);
    if (!sentmap_sent(&cx->st->tcp.records, &c->sent, c->iss, 1, TCP_SYN, cx->now)) {
        tcp_done(cx, c, 0, TCP_WHY_NO_MEMORY);
        return -ENOBUFS;
    }
    c->snd_nxt = seq_add(c->iss, 1);
    const uint32_t text =
        min_u32(c->sendbuf.len, tcp_fastopen_room(cx->st, c, &remote->addr, c->advmss));
    const struct tcp_emit e = {
        .seq = c->iss, .len = text, .flags = TCP_SYN, .why = TCP_WHY_SEND_SYN};
    const int64_t sent = tcp_emit(cx, c, &e);
    if (text && sent > 0) {
        stack_count(cx->st, COUNT_FASTOPEN_ACTIVE);
        sentmap_sent(&cx->st->tcp.records, &c->sent, c->snd_nxt, (uint32_t)sent, 0, cx->now);
        c->snd_nxt = seq_add(c->snd_nxt, (uint32_t)sent);
    }
    tcp_arm_retransmit(cx, c);
    return 0;
}

/* No more lies between close() and connect() of a program that does nothing else. */
#define RETURN_SPAN (100 * NSEC_PER_USEC)

/* Whether the program connects again and again, for who closes (api.c). */
static void note_return(struct stack_cx *cx)
{
    struct tcp_stack *t = &cx->st->tcp;
    t->returns = cx->now - t->closed_at < RETURN_SPAN ? t->returns + 1 : 0;
}

int tcp_connect(struct stack_cx *cx, struct tcp_conn *c, const struct endpoint *local,
                const struct endpoint *remote, const struct ip_path *path)
{
    if (unlikely(c->sendbuf.len != 0)) /* which the SYN may carry */
        tcp_release_handshakes(cx, c);
    note_return(cx);
    struct flow *outer = work_begin(cx->st, &c->flow);
    const int r = do_connect(cx, c, local, remote, path);
    work_end(cx->st, outer);
    return r;
}

static void take_syn(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    c->irs = s->seq;
    c->rcv_nxt = c->rcv_wup = c->copied_seq = seq_add(s->seq, 1);
    tcp_take_syn_options(c, &s->opt);
    if (c->ts_ok)
        c->ts_recent = s->opt.ts_val;
    c->rcv_adv = seq_add(c->rcv_nxt, min_u32(c->rcv_limit, 65535));
    c->snd_wnd = c->snd_wnd_max = s->wnd; /* never scaled in a SYN */
    c->snd_wl1 = s->seq;
    c->snd_wl2 = s->ack;
    tcp_update_mss(cx, c);
}

/* The SYN is acknowledged, and what went with it or not (RFC 7413 4.2.1): then it goes again at
 * once. */
static void take_ack_of_text(struct stack_cx *cx, struct tcp_conn *c, tcp_seq ack)
{
    const uint32_t text = (uint32_t)seq_diff(ack, seq_add(c->iss, 1));
    if (text) {
        sendbuf_release(&cx->st->tcp.chunks, &c->sendbuf, text);
        c->bytes_acked += text;
        c->syn_data = c->sent.total == 0; /* Linux: not when a part of it is missing */
        c->syn_text = (uint16_t)min_u32(text, UINT16_MAX);
    }
    c->snd_una = ack;
    c->syn_acked = true;
    if (c->sent.total == 0)
        return;
    if (c->retries)
        tcp_fastopen_forget(cx->st, &c->flow.tuple.remote);
    sentmap_mark_all_lost(&c->sent, false);
    tcp_want_output(cx, c);
}

static void ack_handshake(struct stack_cx *cx, struct tcp_conn *c)
{
    const bool more = tcp_unsent(c) || c->sent.lost;
    if (more)
        tcp_want_output(cx, c);
    if (unlikely(c->accecn != NULL)) { /* at once and bare (RFC 9768 3.2.2.1) */
        tcp_accecn_ack_syn(cx, c);
    } else if (more) {
        /* Linux differs: data that waits carries the ACK of the handshake; else it goes at once. */
        c->ack_now = true;
        c->ack_why = TCP_WHY_SEND_ACK_HANDSHAKE;
    } else if (c->send_expected) {
        c->ack_delayed = true;
        c->ack_why = TCP_WHY_SEND_ACK_HANDSHAKE;
        c->ato = TCP_DELACK_MIN;
        c->last_recv = cx->now; /* Linux: what is sent now makes it an interactive flow */
        tcp_timer_set(cx, c, TCP_TIMER_DELAYED_ACK, cx->now + TCP_DELACK_MAX);
    } else {
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_HANDSHAKE); /* of what came with it, too */
    }
}

static void connected(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      uint8_t tos)
{
    struct sent_ack a;
    const struct tcp_options none = {0};
    take_syn(cx, c, s);
    tcp_fastopen_learn(cx->st, c, &s->opt);
    tcp_ecn_granted(cx, c, s, tos);
    sentmap_ack(&cx->st->tcp.records, &c->sent, c->snd_una, s->ack, c->snd_nxt, &none, cx->now, &a);
    take_ack_of_text(cx, c, s->ack);
    const bool retried = c->retries > 0;
    if (a.rtt_valid)
        rtt_sample(&c->rtt, a.rtt, cx->now);
    tcp_timer_stop(cx, c, TCP_TIMER_RETRANSMIT);
    tcp_established(cx, c, TCP_WHY_RX_SYN_ACK);
    c->push_seq = tcp_data_end(c); /* of what tcp_send_ahead() took */
    if (retried)                   /* RFC 6298 5.7: the initial RTO proved too small */
        c->rtt.rto = c->rtt.srtt ? c->rtt.rto : 3 * NSEC_PER_SEC;
    ack_handshake(cx, c);
    if (c->fin_queued) {
        tcp_set_state(cx, c, TCP_FIN_WAIT_1, TCP_WHY_CALL_SHUTDOWN);
        tcp_want_output(cx, c);
    }
    tcp_notify(cx, c, TCP_WAKE_ALL);
}

void tcp_syn_sent_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                          const struct ip_packet *p)
{
    const bool ack = s->flags & TCP_ACK;
    /* first: ACK */
    if (ack && (seq_leq(s->ack, c->iss) || seq_gt(s->ack, c->snd_nxt))) {
        tcp_reset_reply(cx, p, s);
        return;
    }
    /* RFC 7323 3.2: an echo that we never sent is a segment of another incarnation */
    if (ack && s->opt.has_ts && s->opt.ts_ecr &&
        (int32_t)(tcp_ts_now(cx, c->ts_offset) - s->opt.ts_ecr) < 0) {
        tcp_reset_reply(cx, p, s);
        return;
    }
    /* second: RST; without an acceptable ACK it is blind (RFC 9293 3.10.7.3) */
    if (s->flags & TCP_RST) {
        if (ack)
            tcp_done(cx, c, ECONNREFUSED, TCP_WHY_RX_RST);
        return;
    }
    /* fourth: SYN */
    if (!(s->flags & TCP_SYN))
        return;
    if (ack) {
        connected(cx, c, s, p->tos);
        if (s->len || s->flags & TCP_FIN) {
            struct tcp_segment rest = *s;
            rest.seq = seq_add(s->seq, 1);
            rest.flags &= (uint8_t)~TCP_SYN;
            tcp_process_text(cx, c, &rest, p->gso_size);
        }
        return;
    }
    /* simultaneous open (RFC 9293 3.5 figure 8) */
    take_syn(cx, c, s);
    tcp_ecn_crossed(cx, c, s, p->tos);
    tcp_set_state(cx, c, TCP_SYN_RECEIVED, TCP_WHY_RX_SYN);
    const struct tcp_emit e = {
        .seq = c->iss, .flags = TCP_SYN | TCP_ACK, .why = TCP_WHY_SEND_SYN_ACK};
    tcp_emit(cx, c, &e);
    tcp_arm_retransmit(cx, c);
}
