/*
 * Text that goes from the device to its place in one copy: the link looks at the headers of a frame
 * before it takes it, asks here whose text it is, and has the device write that where it belongs
 * (the receive buffer, or the buffer of the program that reads). The segment then goes the way of
 * all segments; only where its text would be copied it is counted instead.
 */
#include "stack/ip/layer.h"
#include "stack/tcp/conn.h"

/* Nothing about c or the segment but that it is the next text in order. */
static bool plain(const struct tcp_conn *c, const struct tcp_segment *s)
{
    const uint8_t odd = TCP_FIN | TCP_SYN | TCP_RST | TCP_URG;
    return c->state == TCP_ESTABLISHED && c->app_held && !c->rcv_shut && !c->snd_shut &&
           !c->fin_ahead && !c->deferred && c->urg_state == URG_NONE && c->recvbuf.nranges == 0 &&
           (s->flags & (odd | TCP_ACK)) == TCP_ACK && seq_eq(s->seq, c->rcv_nxt) && s->len > 0 &&
           seq_leq(seq_add(s->seq, s->len), c->rcv_adv);
}

bool stack_foresee(struct stack_cx *cx, const struct frame_in *f, struct stack_place *place)
{
    struct stack *st = cx->st;
    const struct netif *nif = &st->netifs[f->netif];
    const uint8_t *ip = f->data + ETH_HEADER;
    struct tcp_segment s;
    if (!f->csum_trusted || nif->kind != NETIF_ETHERNET || f->len < FORESEEN_BYTES ||
        memcmp(f->data, nif->mac, 6) != 0 || get_be16(f->data + 12) != ETH_TYPE_IP4 ||
        ip[0] != 0x45 || get_be16(ip + 2) != f->len - ETH_HEADER || ip[9] != IPPROTO_TCP_ ||
        (get_be16(ip + 6) & (IP4_MF | IP4_OFFSET_MASK)) != 0)
        return false;
    const uint32_t len = f->len - ETH_HEADER - IP4_HEADER;
    if (!tcp_parse(ip + IP4_HEADER, len, &s) || arena_pressure(st->arena))
        return false;
    uint32_t src4, dst4;
    memcpy(&src4, ip + 12, 4);
    memcpy(&dst4, ip + 16, 4);
    const struct flow_tuple t = {ip_addr_from_v4(dst4), ip_addr_from_v4(src4), s.dst_port,
                                 s.src_port};
    struct flow *flow = flow_find_arriving(&st->tcp.flows, &t);
    if (flow == NULL || flow->kind != FLOW_CONN || !plain(conn_of(flow), &s))
        return false;
    *place = (struct stack_place){.conn = conn_of(flow), .head = f->len - s.len, .len = s.len};
    return true;
}

unsigned tcp_place_text(struct stack_cx *cx, struct tcp_conn *c, uint32_t direct, uint32_t len,
                        struct slice out[TCP_PLACE_SLICES])
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    const unsigned n =
        recvbuf_prepare(&cx->st->tcp.chunks, &c->recvbuf, direct, len, out, TCP_PLACE_SLICES);
    work_end(cx->st, outer);
    return n;
}

bool tcp_foreseen(const struct flow *f, const struct tcp_segment *s)
{
    return f != NULL && f == &s->place->conn->flow && s->len == s->place->len &&
           plain(s->place->conn, s);
}

void tcp_take_place(struct tcp_conn *c, struct stack_place *place)
{
    recvbuf_commit(&c->recvbuf, place->direct, place->len - place->direct);
    c->copied_seq = seq_add(c->copied_seq, place->direct);
    place->taken = true;
}

bool tcp_announce(struct stack_cx *cx, struct tcp_conn *c, uint32_t bytes)
{
    if (bytes < c->opts.rcvlowat)
        return false;
    tcp_unannounce(cx->st);
    cx->st->tcp.foreseen = c;
    cx->st->tcp.announcements++;
    c->text_waits = true;
    tcp_notify(cx, c, TCP_WAKE_DATA);
    return true;
}

void tcp_foresee_more(struct stack *st, struct tcp_conn *c)
{
    tcp_unannounce(st);
    st->tcp.foreseen = c;
    st->tcp.announcements++;
}

void tcp_unannounce(struct stack *st)
{
    if (likely(st->tcp.foreseen == NULL))
        return;
    st->tcp.foreseen->text_waits = false;
    st->tcp.foreseen = NULL;
}

bool tcp_any_foreseen(const struct stack *st)
{
    return st->tcp.foreseen != NULL;
}

bool tcp_any_announced(const struct stack *st)
{
    return st->tcp.foreseen != NULL && st->tcp.foreseen->text_waits;
}

uint32_t tcp_announced_last(const struct stack *st)
{
    return st->tcp.announcements;
}

bool tcp_announced(const struct tcp_conn *c)
{
    return c->text_waits;
}

bool tcp_text_foreseen(const struct stack *st, const struct tcp_conn *c)
{
    return st->tcp.foreseen == c;
}
