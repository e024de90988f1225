/* The one place where segments are made. Who may send what, and why, is decided in output.c. */
#include <errno.h>

#include "stack/tcp/conn.h"

static uint16_t window_field(struct stack_cx *cx, struct tcp_conn *c, bool syn)
{
    const uint32_t wnd = syn ? min_u32(c->rcv_limit, 65535) : tcp_receive_window(cx, c);
    const tcp_seq edge = seq_add(c->rcv_nxt, wnd);
    if (seq_gt(edge, c->rcv_adv) || !tcp_synchronized(c))
        c->rcv_adv = edge;
    /* RFC 7323 2.2: the window in a SYN is never scaled */
    return (uint16_t)(syn || !c->wscale_ok ? min_u32(wnd, 65535) : wnd >> c->rcv_wscale);
}

static void syn_options(struct stack_cx *cx, struct tcp_conn *c, bool ack, struct tcp_options *o)
{
    const struct stack_tuning *t = &cx->st->config.tuning;
    o->has_mss = true;
    o->mss = c->advmss;
    /* An active opener offers everything; an answer repeats only what was offered to it. */
    o->sack_permitted = ack ? c->sack_ok : !t->no_sack;
    o->has_wscale = ack ? c->wscale_ok : !t->no_wscale;
    o->wscale = c->rcv_wscale;
    o->has_ts = ack ? c->ts_ok : !t->no_timestamps;
    o->ts_val = tcp_ts_now(cx, c->ts_offset);
    o->ts_ecr = ack ? c->ts_recent : 0;
    if (!ack)
        tcp_fastopen_offer(cx->st, c, o);
}

static void data_options(struct stack_cx *cx, struct tcp_conn *c, struct tcp_options *o)
{
    if (c->ts_ok) {
        o->has_ts = true;
        o->ts_val = tcp_ts_now(cx, c->ts_offset);
        o->ts_ecr = c->ts_recent;
    }
    if (likely(c->recvbuf.nranges == 0 && !c->dsack_due))
        return;
    if (!c->sack_ok)
        return;
    const unsigned room = c->ts_ok ? 3 : 4;
    unsigned n = 0;
    if (c->dsack_due) { /* RFC 2883: the duplicate first */
        o->sack[n++] = c->dsack;
        c->dsack_due = false;
    }
    n += recvbuf_sack(&c->recvbuf, o->sack + n, room - n);
    o->sack_count = (uint8_t)n;
}

static void frame_init(struct frame_out *f)
{
    f->l4_proto = IPPROTO_TCP_;
    f->l4 = FRAME_HEADROOM;
    f->csum_offset = 16;
    f->gso_size = 0;
    f->lasting = false;
    f->csum_partial = false;
    f->payload_len = 0;
    f->nslices = 0;
}

static void __attribute__((noinline, cold))
trace_watched(struct stack_cx *cx, const struct flow *flow, const struct tcp_segment *s,
              uint32_t len, uint32_t wnd, enum tcp_reason why)
{
    TRACE(cx, SEGMENT, flow, SEGMENT_OUT, s->flags, s->seq.v, s->flags & TCP_ACK ? s->ack.v : 0,
          len, wnd, why, (uintptr_t)&s->opt);
}

static inline void trace_out(struct stack_cx *cx, const struct flow *flow,
                             const struct tcp_segment *s, uint32_t len, uint32_t wnd,
                             enum tcp_reason why)
{
    if (stack_traces(cx, TRACE_SEGMENT))
        trace_watched(cx, flow, s, len, wnd, why);
    if (likely(flow->number != 0))
        stack_note(cx, flow, TRACE_EV_SEGMENT_OUT, s->flags, (uint8_t)why, 0,
                   (uint32_t[4]){s->seq.v, s->flags & TCP_ACK ? s->ack.v : 0, len, wnd});
}

/* What the emission of any segment of a connection settles. */
static void note_sent(struct stack_cx *cx, struct tcp_conn *c, uint8_t flags, uint32_t len)
{
    if (flags & TCP_ACK) {
        c->rcv_wup = c->rcv_nxt;
        c->ack_now = false;
        c->ack_delayed = false;
        tcp_timer_stop(cx, c, TCP_TIMER_DELAYED_ACK);
        if (c->quickacks)
            c->quickacks--;
    }
    c->segs_out++;
    stack_count(cx->st, COUNT_SEGS_OUT);
    if (len == 0)
        return;
    c->data_segs_out++;
    c->bytes_sent += len;
    /* A reply within the delayed-ACK time: an interactive flow. */
    if (c->last_recv && cx->now - c->last_recv < c->ato)
        c->interactive = true;
    c->last_sent = cx->now;
}

/* Text of a segment: c->mss leaves room for timestamps and the option of accurate ECN; SACK blocks
 * come out of the segment (RFC 6691). */
static uint32_t segment_room(const struct tcp_conn *c, const struct tcp_options *o)
{
    uint32_t left = c->ts_ok ? 12 : 0;
    if (unlikely(c->accecn != NULL))
        left += c->accecn->reserved;
    const uint32_t size = tcp_options_size(o);
    if (size <= left)
        return c->mss;
    return c->mss > size - left ? c->mss - (size - left) : 1;
}

int64_t tcp_emit(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e)
{
    struct frame_out f;
    frame_init(&f);
    struct tcp_segment s = {
        .src_port = c->flow.tuple.lport,
        .dst_port = c->flow.tuple.rport,
        .seq = e->seq,
        .flags = e->flags,
    };
    if (e->flags & TCP_ACK)
        s.ack = c->rcv_nxt;
    uint8_t tos = c->opts.tos;
    const bool syn = e->flags & TCP_SYN;
    s.wnd = window_field(cx, c, syn);
    if (syn)
        syn_options(cx, c, e->flags & TCP_ACK, &s.opt);
    else
        data_options(cx, c, &s.opt);
    tcp_ecn_mark(cx, c, e, &s, &tos);

    uint32_t len = 0, want = e->len;
    if (want) {
        const tcp_seq first = syn ? seq_add(e->seq, 1) : e->seq; /* RFC 7413: text behind a SYN */
        const uint32_t off = (uint32_t)seq_diff(first, tcp_data_start(c));
        const uint32_t segment = segment_room(c, &s.opt);
        const bool cuts = !syn && !e->whole;     /* a SYN is one segment: tcp_fastopen_room() */
        if (unlikely(s.flags & TCP_CWR) && cuts) /* a device clears it on all but the first */
            want = min_u32(want, segment);
        f.nslices = sendbuf_gather(&c->sendbuf, off, want, f.slices, FRAME_SLICES_MAX, &len);
        if (len < e->len) /* FIN and PSH belong to the last byte, which does not go now */
            s.flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        if (len > segment && cuts) {
            f.gso_size = (uint16_t)segment;
            f.lasting = true; /* see stack_settle() */
            s.flags |=
                TCP_PSH; /* on the last of them, as Linux: the receiver's GRO waits no more */
        }
    }
    f.payload_len = len;
    if (unlikely(c->urgent_out)) {
        const int32_t ahead = seq_diff(c->snd_up, e->seq);
        if (ahead > 0 && !syn) {
            s.flags |= TCP_URG;
            s.urg = (uint16_t)min_u32((uint32_t)ahead, 65535);
        }
    }
    f.head_end = (uint16_t)(f.l4 + tcp_build(f.head + f.l4, &s));
    trace_out(cx, &c->flow, &s, len,
              c->wscale_ok && !syn ? (uint32_t)s.wnd << c->rcv_wscale : s.wnd, e->why);
    note_sent(cx, c, s.flags, len);

    const struct ip_out how = {.path = &c->path,
                               .src = &c->flow.tuple.local,
                               .dst = &c->flow.tuple.remote,
                               .tos = tos,
                               .ttl = c->opts.ttl,
                               .df = !c->opts.pmtu_dont};
    const int r = ip_send(cx, &how, &f);
    if (unlikely(want < e->len) && len == want) {
        struct tcp_emit rest = *e;
        rest.seq = seq_add(e->seq, len);
        rest.len -= len;
        return len + tcp_emit(cx, c, &rest);
    }
    return r < 0 && len == 0 ? r : (int64_t)len;
}

void tcp_emit_bare(struct stack_cx *cx, const struct flow *trace_as, const struct flow_tuple *tuple,
                   const struct ip_path *path, uint8_t tos, uint8_t ttl,
                   const struct tcp_segment *seg, enum tcp_reason why)
{
    struct frame_out f;
    frame_init(&f);
    f.head_end = (uint16_t)(f.l4 + tcp_build(f.head + f.l4, seg));
    const struct flow anonymous = {.tuple = *tuple};
    trace_out(cx, trace_as ? trace_as : &anonymous, seg, 0, seg->wnd, why);
    stack_count(cx->st, COUNT_SEGS_OUT);
    if (seg->flags & TCP_RST)
        stack_count(cx->st, COUNT_RSTS_OUT);
    const struct ip_out how = {.path = path,
                               .src = &tuple->local,
                               .dst = &tuple->remote,
                               .tos = tos,
                               .ttl = ttl ? ttl : 64,
                               .df = true};
    ip_send(cx, &how, &f);
}

void tcp_reset_reply(struct stack_cx *cx, const struct ip_packet *p, const struct tcp_segment *s)
{
    if (s->flags & TCP_RST)
        return;
    const struct flow_tuple t = {p->dst, p->src, s->dst_port, s->src_port};
    struct tcp_segment r = {.src_port = t.lport, .dst_port = t.rport, .flags = TCP_RST};
    if (s->flags & TCP_ACK) {
        r.seq = s->ack;
    } else {
        r.flags |= TCP_ACK;
        r.ack = seq_add(s->seq, tcp_segment_len(s));
    }
    struct ip_path path;
    ip_path_reply(p, &path);
    tcp_emit_bare(cx, NULL, &t, &path, 0, 0, &r, TCP_WHY_SEND_RST);
}

bool tcp_reset_stranger(struct stack_cx *cx, const struct ip_packet *p, const struct tcp_segment *s,
                        bool unheard)
{
    const struct flow_tuple t = {p->dst, p->src, s->dst_port, s->src_port};
    if (!cx->st->config.own_address && p->netif != NETIF_LOOP && cx->ops->foreign &&
        !(s->flags & TCP_RST) &&
        cx->ops->foreign(cx, &t, stack_netif(cx->st, p->netif)->ifindex, unheard))
        return false;
    tcp_reset_reply(cx, p, s);
    return true;
}

void tcp_emit_rst(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    stack_count(cx->st, COUNT_RSTS_OUT);
    const struct tcp_emit e = {.seq = c->snd_nxt, .flags = TCP_RST | TCP_ACK, .why = why};
    tcp_emit(cx, c, &e);
}

void tcp_emit_ack(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    const struct tcp_emit e = {.seq = c->snd_nxt, .flags = TCP_ACK, .why = why};
    tcp_emit(cx, c, &e);
}
