/* What can be asked of connections and of the stack: readiness, addresses, counts, TCP_INFO. */
#include <errno.h>

#include "stack/tcp/conn.h"

/* Linux's tcp_poll(). */
uint32_t tcp_poll(const struct tcp_conn *c)
{
    uint32_t mask = 0;
    if (c->deferred) /* Linux: the first data is awaited, nothing has been sent */
        return TCP_EV_OUT;
    if ((c->rcv_shut && c->snd_shut) || c->state == TCP_CLOSED)
        mask |= TCP_EV_HUP;
    if (c->rcv_shut)
        mask |= TCP_EV_IN | TCP_EV_RDHUP;
    if (!tcp_handshaking(c)) {
        const uint32_t ready = recvbuf_ready(&c->recvbuf);
        /* Linux: a non-inline urgent byte does not make the stream readable by itself */
        const uint32_t need = c->opts.rcvlowat + (c->urg_state != URG_NONE && !c->opts.oobinline &&
                                                  seq_eq(c->urg_seq, c->copied_seq));
        if (ready >= need || (ready && ready >= c->rcv_limit / 2) || c->text_waits)
            mask |= TCP_EV_IN;
        if (c->snd_shut || tcp_writable(c))
            mask |= TCP_EV_OUT;
        if (c->urg_state == URG_VALID)
            mask |= TCP_EV_PRI;
    }
    if (c->err || unlikely(c->extra != NULL && c->extra->reports > 0))
        mask |= TCP_EV_ERR;
    return mask;
}

enum tcp_state tcp_state(const struct tcp_conn *c)
{
    return c->state;
}

bool tcp_local(const struct tcp_conn *c, struct endpoint *out)
{
    *out = (struct endpoint){c->flow.tuple.local, c->flow.tuple.lport};
    return c->flow.tuple.lport != 0;
}

bool tcp_remote(const struct tcp_conn *c, struct endpoint *out)
{
    *out = (struct endpoint){c->flow.tuple.remote, c->flow.tuple.rport};
    return c->state != TCP_CLOSED && c->state != TCP_SYN_SENT && c->flow.tuple.rport != 0;
}

uint32_t tcp_inq(const struct tcp_conn *c)
{
    const uint32_t ready = recvbuf_ready(&c->recvbuf);
    if (c->urg_state == URG_NONE || c->opts.oobinline)
        return ready;
    const int32_t ahead = seq_diff(c->urg_seq, c->copied_seq);
    /* Linux's tcp_inq(): what can be read before the urgent byte */
    return ahead >= 0 && (uint32_t)ahead < ready ? (uint32_t)ahead : ready;
}

uint32_t tcp_unread(const struct tcp_conn *c)
{
    return recvbuf_ready(&c->recvbuf);
}

uint32_t tcp_outq(const struct tcp_conn *c)
{
    return c->state == TCP_CLOSED ? 0 : c->sendbuf.len;
}

uint32_t tcp_outq_unsent(const struct tcp_conn *c)
{
    return c->state == TCP_CLOSED ? 0 : tcp_unsent(c);
}

bool tcp_at_mark(const struct tcp_conn *c)
{
    return c->urg_state != URG_NONE && seq_eq(c->urg_seq, c->copied_seq);
}

bool tcp_has_mark(const struct tcp_conn *c)
{
    return c->urg_state != URG_NONE;
}

bool tcp_reading_shut(const struct tcp_conn *c)
{
    return c->rcv_shut;
}

bool tcp_writing_shut(const struct tcp_conn *c)
{
    return c->snd_shut;
}

uint32_t tcp_number(const struct tcp_conn *c)
{
    return c->flow.number;
}

const struct flow *tcp_flow_find(const struct stack *st, const struct flow_tuple *tuple)
{
    return flow_find(&st->tcp.flows, tuple);
}

const struct flow *tcp_flow(const struct tcp_conn *c)
{
    return &c->flow;
}

const struct flow *tcp_listener_flow(const struct tcp_listener *l)
{
    return &l->flow;
}

bool tcp_flow_isns(const struct flow *f, struct tcp_isns *out)
{
    if (f->kind == FLOW_CONN) {
        const struct tcp_conn *c = container_of(f, struct tcp_conn, flow);
        out->has_iss = c->state != TCP_CLOSED || c->connected;
        out->has_irs = out->has_iss && c->state != TCP_SYN_SENT;
        out->iss = c->iss.v;
        out->irs = c->irs.v;
    } else if (f->kind == FLOW_HALF_OPEN) {
        const struct tcp_half_open *h = container_of(f, struct tcp_half_open, flow);
        *out = (struct tcp_isns){true, true, h->iss.v, h->irs.v};
    }
    return out->has_iss;
}

uint32_t tcp_mss(const struct tcp_conn *c)
{
    return c->mss;
}

bool tcp_is_inside(const struct tcp_conn *c)
{
    return c->path.netif == NETIF_LOOP && c->state != TCP_CLOSED && c->state != TCP_LISTEN;
}

uint32_t tcp_path_mtu(const struct stack *st, const struct tcp_conn *c)
{
    return ip_path_mtu(st, &c->path);
}

static uint32_t segs(const struct tcp_conn *c, uint32_t bytes)
{
    return (bytes + c->mss - 1) / c->mss;
}

/* For how long it was this that held up the text. */
static nsec_t limited(const struct stack_cx *cx, const struct tcp_conn *c, enum tcp_limit limit)
{
    const uint32_t now = c->limit == limit ? tcp_ms(cx->now) - c->limit_since : 0;
    return (c->limited_ms[limit - 1] + now) * NSEC_PER_MSEC;
}

void tcp_view(const struct stack_cx *cx, const struct tcp_conn *c, struct tcp_view *out)
{
    *out = (struct tcp_view){
        .state = c->state,
        .ca_state = c->ca_state,
        .backoff = c->backoffs,
        .retransmits = c->retries,
        .probes = c->probes_out ? c->probes_out : c->keepalives_out,
        .ts = c->ts_ok,
        .sack = c->sack_ok,
        .wscale = c->wscale_ok,
        .snd_wscale = c->snd_wscale,
        .rcv_wscale = c->rcv_wscale,
        .rto = tcp_backed_off(c, c->backoffs),
        .ato = c->ato,
        .srtt = c->rtt.srtt,
        .rttvar = c->rtt.rttvar,
        .min_rtt = c->rtt.min_rtt,
        .rcv_rtt = c->rtt.srtt,
        .snd_mss = c->mss,
        .rcv_mss = c->rcv_mss,
        .advmss = c->advmss,
        .pmtu = ip_path_mtu(cx->st, &c->path),
        .unacked_segs = segs(c, c->sent.total),
        .sacked_segs = segs(c, c->sent.sacked),
        /* Linux: also what was sent again since */
        .lost_segs = segs(c, c->sent.lost + (c->ca_state >= TCP_CA_RECOVERY ? c->sent.retrans : 0)),
        .retrans_segs = segs(c, c->sent.retrans),
        .last_data_sent = cx->now - (c->last_sent ? c->last_sent : c->created),
        .last_data_recv = cx->now - (c->last_recv ? c->last_recv : c->created),
        .last_ack_recv = cx->now - (c->last_ack ? c->last_ack : c->created),
        .cwnd = c->cc.cwnd,
        .ssthresh = c->cc.ssthresh,
        .rcv_ssthresh = c->rcv_limit,
        .rcv_space = c->drs_space,
        .snd_wnd = c->snd_wnd,
        .rcv_wnd = (uint32_t)max_u32((uint32_t)seq_diff(c->rcv_adv, c->rcv_nxt), 0),
        .total_retrans = c->total_retrans,
        .bytes_acked = c->bytes_acked,
        .bytes_received = c->bytes_received,
        .bytes_sent = c->bytes_sent,
        .bytes_retrans = c->bytes_retrans,
        /* Linux counts the SYN as a segment; the sent map counts bytes, of which the SYN is one */
        .delivered_segs =
            c->syn_acked +
            segs(c, (uint32_t)max_u64(c->sent.delivered, 1u + c->syn_text) - 1 - c->syn_text),
        .syn_data = c->syn_data,
        .segs_in = c->segs_in,
        .segs_out = c->segs_out,
        .data_segs_in = c->data_segs_in,
        .data_segs_out = c->data_segs_out,
        .notsent = tcp_outq_unsent(c),
        .sndbuf = c->opts.sndbuf,
        .rcvbuf = c->opts.rcvbuf,
        .reord_seen = c->reorder_count,
        .reordering = max_u32(c->sent.reordering, TCP_DUPTHRESH),
        .dsack_dups = c->dsack_count,
        .ecn = c->ecn_ok,
        .accecn = c->accecn != NULL,
        .ecn_seen = c->ecn_seen,
        .busy = limited(cx, c, TCP_LIMIT_BUSY) + limited(cx, c, TCP_LIMIT_RWND) +
                limited(cx, c, TCP_LIMIT_SNDBUF),
        .rwnd_limited = limited(cx, c, TCP_LIMIT_RWND),
        .sndbuf_limited = limited(cx, c, TCP_LIMIT_SNDBUF),
        .pacing_rate = tcp_pacing_rate(c) ? tcp_pacing_rate(c) : UINT64_MAX,
        .max_pacing_rate =
            c->opts.max_pacing ? (uint64_t)c->opts.max_pacing << CC_RATE_SHIFT : UINT64_MAX,
        .delivery_rate =
            c->rate_interval ? c->rate_delivered * (uint64_t)1000000 / c->rate_interval : 0,
        .app_limited = !c->rate_path,
    };
}

bool tcp_view_accecn(const struct tcp_conn *c, struct tcp_view_accecn *out)
{
    const struct tcp_accecn *x = c->accecn;
    if (x == NULL)
        return false;
    *out = (struct tcp_view_accecn){
        .received_ce = x->received_ce,
        .delivered_ce = x->delivered_ce,
        .received_e0 = x->received_bytes[IP_ECT_0 - 1],
        .received_e1 = x->received_bytes[IP_ECT_1 - 1],
        .received_ce_bytes = x->received_bytes[IP_CE - 1],
        .delivered_e0 = x->delivered_bytes[IP_ECT_0 - 1],
        .delivered_e1 = x->delivered_bytes[IP_ECT_1 - 1],
        .delivered_ce_bytes = x->delivered_bytes[IP_CE - 1],
        .option_seen = x->seen,
        .failures = (uint8_t)(x->deal.plain | (x->no_ect ? 2 : 0) | (x->option_lost ? 4 : 0) |
                              (x->seen == ACCECN_MANGLED ? 8 : 0)),
    };
    return true;
}

/* ---- ports and marks ---- */

void tcp_use_marks(struct stack *st, struct flow_mark *marks)
{
    st->tcp.marks = marks;
}

struct flow_mark *tcp_marks(const struct stack *st)
{
    return st->tcp.marks;
}

bool tcp_port_in_use(const struct stack *st, uint16_t port)
{
    return flow_port_used(&st->tcp.flows, port);
}

/* RFC 6056 algorithm 3: a keyed offset per destination, and a random stride between attempts. */
uint16_t tcp_ephemeral_port(struct stack_cx *cx, const struct ip_addr *local,
                            const struct endpoint *remote, uint16_t min, uint16_t max,
                            unsigned attempt)
{
    struct stack *st = cx->st;
    const uint32_t range = (uint32_t)max - min + 1;
    struct flow_tuple t = {.local = *local, .remote = remote->addr, .rport = remote->port};
    if (attempt == 0)
        st->tcp.port_increment += 1 + rng_below(&st->rng, 8);
    const uint32_t start = port_offset(&st->tcp.port_secret, &t, range) + st->tcp.port_increment;
    uint32_t skip = attempt;
    for (uint32_t i = 0; i < range; i++) {
        const uint16_t port = (uint16_t)(min + (start + i) % range);
        t.lport = port;
        const struct flow *f = flow_find(&st->tcp.flows, &t);
        const bool usable =
            !f || (f->kind == FLOW_TIME_WAIT &&
                   tcp_time_wait_reusable(cx, container_of(f, struct tcp_time_wait, flow)));
        if (usable && skip-- == 0)
            return port;
    }
    return 0;
}

/* ---- counts ---- */

uint32_t tcp_orphans(const struct stack *st)
{
    return st->tcp.norphans;
}

uint32_t tcp_orphans_unsent(const struct stack *st)
{
    uint32_t n = 0;
    list_for_each (l, &st->tcp.orphans)
        n += !tcp_sent_all(list_entry(l, struct tcp_conn, holder_link));
    return n;
}

uint32_t tcp_connections(const struct stack *st)
{
    return st->tcp.conns.live;
}

uint32_t tcp_time_waits(const struct stack *st)
{
    return st->tcp.time_waits.live;
}

struct visit_conn {
    void (*visit)(struct tcp_conn *c, void *arg);
    void *arg;
};

static void visit_conn(void *object, void *arg)
{
    const struct visit_conn *v = arg;
    v->visit(object, v->arg);
}

void tcp_each_conn(struct stack *st, void (*visit)(struct tcp_conn *c, void *arg), void *arg)
{
    struct visit_conn v = {visit, arg};
    pool_each(&st->tcp.conns, visit_conn, &v);
}

struct visit_listener {
    void (*visit)(struct tcp_listener *l, void *arg);
    void *arg;
};

static void visit_listener(void *object, void *arg)
{
    const struct visit_listener *v = arg;
    v->visit(object, v->arg);
}

void tcp_each_listener(struct stack *st, void (*visit)(struct tcp_listener *l, void *arg),
                       void *arg)
{
    struct visit_listener v = {visit, arg};
    pool_each(&st->tcp.listeners, visit_listener, &v);
}
