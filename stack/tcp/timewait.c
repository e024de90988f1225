/*
 * TIME_WAIT in a record of its own: it keeps old duplicates from a new incarnation of the tuple and
 * answers a FIN that comes again (RFC 9293 3.10.7.4, RFC 1337, RFC 6191).
 */
#include "stack/tcp/timewait.h"

#include <errno.h>

#include "stack/tcp/conn.h"

static void time_wait_free(struct stack_cx *cx, struct tcp_time_wait *tw)
{
    wheel_cancel(&cx->st->wheel, &tw->timer);
    flow_remove(&cx->st->tcp.flows, &tw->flow);
    list_remove(&tw->age_link);
    pool_free(&cx->st->tcp.time_waits, tw);
}

void tcp_time_wait_drop(struct stack_cx *cx, struct tcp_time_wait *tw, enum tcp_reason why)
{
    TRACE(cx, STATE, &tw->flow, STATE, TCP_TIME_WAIT, TCP_CLOSED, why);
    time_wait_free(cx, tw);
}

static void recycle_oldest(struct stack_cx *cx)
{
    stack_count(cx->st, COUNT_TW_RECYCLED);
    tcp_time_wait_drop(cx, list_first(&cx->st->tcp.time_wait_age, struct tcp_time_wait, age_link),
                       TCP_WHY_NO_MEMORY);
}

static struct tcp_time_wait *time_wait_alloc(struct stack_cx *cx)
{
    struct tcp_stack *t = &cx->st->tcp;
    /* Linux's tcp_max_tw_buckets: the dead may not crowd out the living. */
    const size_t most = arena_limit(cx->st->arena) / 4 / sizeof(struct tcp_time_wait);
    if (t->time_waits.live >= most && !list_empty(&t->time_wait_age))
        recycle_oldest(cx);
    struct tcp_time_wait *tw = pool_alloc(&t->time_waits);
    if (tw || list_empty(&t->time_wait_age))
        return tw;
    recycle_oldest(cx);
    return pool_alloc(&t->time_waits);
}

static void time_wait_begin(struct stack_cx *cx, struct tcp_time_wait *tw, nsec_t ends_at)
{
    flow_insert(&cx->st->tcp.flows, &tw->flow);
    list_push_back(&cx->st->tcp.time_wait_age, &tw->age_link);
    wheel_timer_init(&tw->timer, STACK_TIMER_TIME_WAIT);
    wheel_arm(&cx->st->wheel, &tw->timer, ends_at);
}

void tcp_time_wait_enter(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    tcp_set_state(cx, c, TCP_TIME_WAIT, why);
    struct tcp_time_wait *tw = time_wait_alloc(cx);
    if (tw) {
        tw->flow.kind = FLOW_TIME_WAIT;
        tw->flow.number = c->flow.number;
        tw->flow.tuple = c->flow.tuple;
        tw->path = c->path;
        tw->snd_nxt = c->snd_nxt;
        tw->rcv_nxt = c->rcv_nxt;
        tw->rcv_wnd = c->wscale_ok ? tcp_receive_window(cx, c) >> c->rcv_wscale
                                   : min_u32(tcp_receive_window(cx, c), 65535);
        tw->ts_ok = c->ts_ok;
        tw->accecn = c->accecn != NULL;
        if (c->accecn != NULL)
            tw->ace = tcp_ace_told(c->accecn);
        tw->tos = c->opts.tos;
        tw->ttl = c->opts.ttl;
        tw->ts_recent = c->ts_recent;
        tw->ts_recent_at = tcp_last_heard(c);
        tw->ts_offset = c->ts_offset;
    }
    /* An ACK that is still due goes before the connection does. */
    if (c->ack_now)
        tcp_emit_ack(cx, c, c->ack_why);
    const enum tcp_state seen = c->state;
    c->state =
        TCP_CLOSED; /* the socket is closed from here on, as Linux shows it; the tuple is not */
    tcp_done(cx, c, 0, TCP_WHY_NONE);
    if (!tw) {
        c->state = seen;
        tcp_set_state(cx, c, TCP_CLOSED, TCP_WHY_NO_MEMORY);
        return;
    }
    time_wait_begin(cx, tw, cx->now + TCP_MSL_2);
    TRACE(cx, TIMER, &tw->flow, TIMER_ARMED, TCP_TIMER_TIME_WAIT, TCP_MSL_2);
}

void tcp_time_wait_timer(struct stack_cx *cx, struct tcp_time_wait *tw)
{
    tcp_time_wait_drop(cx, tw, TCP_WHY_TIMEOUT_TIME_WAIT);
}

bool tcp_time_wait_reusable(const struct stack_cx *cx, const struct tcp_time_wait *tw)
{
    return tw->ts_ok && cx->now - tw->ts_recent_at > NSEC_PER_SEC;
}

static void time_wait_ack(struct stack_cx *cx, struct tcp_time_wait *tw)
{
    struct tcp_segment a = {.src_port = tw->flow.tuple.lport,
                            .dst_port = tw->flow.tuple.rport,
                            .seq = tw->snd_nxt,
                            .ack = tw->rcv_nxt,
                            .flags = TCP_ACK,
                            .wnd = (uint16_t)min_u32(tw->rcv_wnd, 65535)};
    if (tw->ts_ok) {
        a.opt.has_ts = true;
        a.opt.ts_val = tcp_ts_now(cx, tw->ts_offset);
        a.opt.ts_ecr = tw->ts_recent;
    }
    if (tw->accecn)
        tcp_set_ace(&a, tw->ace);
    tcp_emit_bare(cx, &tw->flow, &tw->flow.tuple, &tw->path, tw->tos, tw->ttl, &a,
                  TCP_WHY_SEND_ACK_DUPLICATE);
}

static bool old_timestamp(const struct stack_cx *cx, const struct tcp_time_wait *tw,
                          const struct tcp_segment *s)
{
    return tw->ts_ok && s->opt.has_ts && (int32_t)(tw->ts_recent - s->opt.ts_val) > 0 &&
           cx->now - tw->ts_recent_at < TCP_PAWS_EXPIRE;
}

/* A SYN that can only be of a new incarnation: RFC 9293 3.10.7.4 and RFC 6191 2. */
static bool newer_syn(const struct tcp_time_wait *tw, const struct tcp_segment *s)
{
    if ((s->flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_SYN)
        return false;
    return seq_gt(s->seq, tw->rcv_nxt) ||
           (tw->ts_ok && s->opt.has_ts && (int32_t)(s->opt.ts_val - tw->ts_recent) > 0);
}

void tcp_time_wait_arrives(struct stack_cx *cx, struct tcp_time_wait *tw,
                           const struct tcp_segment *s, const struct ip_packet *p)
{
    const bool old = old_timestamp(cx, tw, s);
    if (s->flags & TCP_RST) /* RFC 1337: a reset does not end TIME_WAIT early */
        return;
    if (!old && newer_syn(tw, s)) {
        const struct flow_tuple t = tw->flow.tuple;
        struct tcp_listener *l = tcp_listener_find(cx->st, &t);
        if (l) {
            /* Linux: well above anything the old incarnation sent */
            const tcp_seq iss = seq_add(tw->snd_nxt, 65537);
            stack_count(cx->st, COUNT_TW_RECYCLED);
            tcp_time_wait_drop(cx, tw, TCP_WHY_RX_SYN);
            tcp_listener_arrives(cx, l, s, p, &t, &iss);
            return;
        }
        if (cx->st->ignore_strangers) { /* for another stack of the address, or nobody */
            tcp_time_wait_drop(cx, tw, TCP_WHY_RX_SYN);
            return;
        }
    }
    if (!old && seq_eq(s->seq, tw->rcv_nxt) && tcp_segment_len(s) == 0) {
        if (s->opt.has_ts && tw->ts_ok) {
            tw->ts_recent = s->opt.ts_val;
            tw->ts_recent_at = cx->now;
        }
        return; /* an ACK in place: nothing to say */
    }
    /*
     * Linux differs: an old timestamp in a SYN renews the wait, too. It may be that of a host which
     * has restarted (its clock is another), whose retries would keep it out for ever.
     */
    if (s->flags & TCP_ACK || (old && !(s->flags & TCP_SYN))) {
        wheel_arm(&cx->st->wheel, &tw->timer, cx->now + TCP_MSL_2);
        TRACE(cx, TIMER, &tw->flow, TIMER_ARMED, TCP_TIMER_TIME_WAIT, TCP_MSL_2);
    }
    /* One answer per FIN that comes again; others are limited (Linux: tcp_invalid_ratelimit). */
    if (!(s->flags & TCP_FIN) && tw->last_ack && cx->now - tw->last_ack < TCP_CHALLENGE_INTERVAL)
        return;
    tw->last_ack = cx->now;
    if (tw->adopted)
        ip_path_reply(p, &tw->path);
    time_wait_ack(cx, tw);
}

/* ---- moving to another stack ---- */

struct visit_time_wait {
    void (*visit)(const struct tcp_time_wait_image *tw, void *arg);
    void *arg;
};

static void visit_time_wait(void *object, void *arg)
{
    const struct visit_time_wait *v = arg;
    const struct tcp_time_wait *tw = object;
    const struct tcp_time_wait_image image = {
        .tuple = tw->flow.tuple,
        .snd_nxt = tw->snd_nxt.v,
        .rcv_nxt = tw->rcv_nxt.v,
        .rcv_wnd = tw->rcv_wnd,
        .ts_recent = tw->ts_recent,
        .ts_offset = tw->ts_offset,
        .ts_recent_at = tw->ts_recent_at,
        .ends_at = tw->timer.deadline,
        .ts_ok = tw->ts_ok,
        .accecn = tw->accecn,
        .ace = tw->ace,
        .tos = tw->tos,
        .ttl = tw->ttl,
    };
    v->visit(&image, v->arg);
}

void tcp_each_time_wait(struct stack *st,
                        void (*visit)(const struct tcp_time_wait_image *tw, void *arg), void *arg)
{
    struct visit_time_wait v = {visit, arg};
    pool_each(&st->tcp.time_waits, visit_time_wait, &v);
}

int tcp_time_wait_adopt(struct stack_cx *cx, const struct tcp_time_wait_image *image)
{
    if (flow_find(&cx->st->tcp.flows, &image->tuple))
        return -EEXIST;
    struct tcp_time_wait *tw = time_wait_alloc(cx);
    if (!tw)
        return -ENOMEM;
    tw->flow.kind = FLOW_TIME_WAIT;
    tw->flow.tuple = image->tuple;
    tw->adopted = true;
    tw->snd_nxt.v = image->snd_nxt;
    tw->rcv_nxt.v = image->rcv_nxt;
    tw->rcv_wnd = image->rcv_wnd;
    tw->ts_recent = image->ts_recent;
    tw->ts_offset = image->ts_offset;
    tw->ts_recent_at = image->ts_recent_at;
    tw->ts_ok = image->ts_ok;
    tw->accecn = image->accecn;
    tw->ace = image->ace & 7;
    tw->tos = image->tos;
    tw->ttl = image->ttl;
    time_wait_begin(cx, tw, min_u64(image->ends_at, cx->now + TCP_MSL_2));
    return 0;
}
