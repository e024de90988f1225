/* ICMP errors about our segments (RFC 9293 3.9.2.2, RFC 5927, Linux's tcp_v4_err()). */
#include <errno.h>

#include "stack/tcp/conn.h"

/* RFC 1191 7: the plateau below, for routers that do not say */
static uint32_t plateau_below(uint32_t mtu)
{
    static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, TCP_PMTU_MIN};
    for (unsigned i = 0; i < ARRAY_LEN(plateaus); i++)
        if (plateaus[i] < mtu)
            return plateaus[i];
    return TCP_PMTU_MIN;
}

static void fragmentation_needed(struct stack_cx *cx, struct tcp_conn *c, uint32_t mtu)
{
    const uint32_t current = ip_path_mtu(cx->st, &c->path);
    if (mtu == 0)
        mtu = plateau_below(current);
    mtu = max_u32(mtu, TCP_PMTU_MIN);
    if (mtu >= max_u32(current, c->path.mtu_probe) || c->opts.pmtu_dont)
        return; /* RFC 5927 7.2: it can only shrink */
    tcp_mtu_learned(cx, c, mtu);
    if (mtu >= current) /* a probe: what comes after it shows that it was lost */
        return;
    if (c->state == TCP_SYN_SENT && c->sent.total > 1) { /* RFC 7413: a SYN with data was too big */
        c->advmss = tcp_local_mss(cx->st, &c->path, &c->opts, &c->flow.tuple.remote);
        tcp_retransmit_syn(cx, c);
    }
    if (!tcp_synchronized(c))
        return;
    /* Nothing was lost to congestion: send again at once what was too big, cwnd as it is. */
    sentmap_mark_all_lost(&c->sent, false);
    c->reno_sacked = 0;
    tcp_want_output(cx, c);
}

static void half_open_error(struct stack_cx *cx, struct tcp_half_open *h, tcp_seq at)
{
    /* Linux: an error about the SYN-ACK ends the entry */
    if (seq_eq(at, h->iss))
        tcp_half_open_drop(cx, h, TCP_WHY_RX_ICMP);
}

static void conn_error(struct stack_cx *cx, struct tcp_conn *c, int err, uint32_t mtu)
{
    if (err == EMSGSIZE) {
        fragmentation_needed(cx, c, mtu);
        return;
    }
    if (c->state == TCP_SYN_SENT || c->state == TCP_SYN_RECEIVED) {
        /* Linux: any error ends an attempt to connect */
        tcp_done(cx, c, err, TCP_WHY_RX_ICMP);
        tcp_reap(cx, c);
        return;
    }
    /*
     * Linux differs from RFC 1122 4.2.3.9 for hard errors: without IP_RECVERR an established
     * connection is not ended (RFC 5927 6.1 agrees); the error is told when a time-out ends it.
     */
    c->soft_err = err;
}

void tcp_icmp_error(struct stack_cx *cx, const struct ip_addr *src, const struct ip_addr *dst,
                    const uint8_t *header, uint32_t len, int err, bool hard, uint32_t mtu)
{
    struct stack *st = cx->st;
    if (len < 8) {
        stack_count(st, COUNT_BAD_ICMP);
        return;
    }
    const struct flow_tuple t = {*src, *dst, get_be16(header), get_be16(header + 2)};
    const tcp_seq at = seq(get_be32(header + 4));
    struct flow *f = flow_find(&st->tcp.flows, &t);
    if (f && f->kind == FLOW_HALF_OPEN && err != EMSGSIZE)
        half_open_error(cx, container_of(f, struct tcp_half_open, flow), at);
    if (!f || f->kind != FLOW_CONN) {
        stack_count(st, COUNT_BAD_ICMP);
        return;
    }
    struct tcp_conn *c = conn_of(f);
    /* RFC 5927 4.1: it must quote something in flight */
    if (!(seq_geq(at, c->snd_una) && seq_lt(at, seq_add(c->snd_nxt, c->sent.total == 0)))) {
        stack_count(st, COUNT_BAD_ICMP);
        return;
    }
    stack_count(st, COUNT_ICMP_IN);
    (void)hard; /* conn_error() */
    struct flow *outer = work_begin(st, f);
    conn_error(cx, c, err, mtu);
    work_end(st, outer);
}
