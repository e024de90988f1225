/* TCP_INFO: the engine's view in Linux's layout and units (microseconds, segments). */
#define _GNU_SOURCE
#include <linux/tcp.h>

#include "shim/libc/sockopt.h"

static uint32_t usec(nsec_t t)
{
    return (uint32_t)min_u64(t / NSEC_PER_USEC, UINT32_MAX);
}

static uint32_t msec(nsec_t t)
{
    return (uint32_t)min_u64(t / NSEC_PER_MSEC, UINT32_MAX);
}

static void fill(const struct tcp_view *v, struct tcp_info *i)
{
    const uint32_t mss = max_u32(v->snd_mss, 1);
    i->tcpi_state = (uint8_t)v->state;
    i->tcpi_ca_state = v->ca_state;
    i->tcpi_retransmits = v->retransmits;
    i->tcpi_probes = v->probes;
    i->tcpi_backoff = v->backoff;
    i->tcpi_options =
        (uint8_t)((v->ts ? TCPI_OPT_TIMESTAMPS : 0) | (v->sack ? TCPI_OPT_SACK : 0) |
                  (v->wscale ? TCPI_OPT_WSCALE : 0) | (v->ecn ? TCPI_OPT_ECN : 0) |
                  (v->ecn_seen ? TCPI_OPT_ECN_SEEN : 0) | (v->syn_data ? TCPI_OPT_SYN_DATA : 0));
    i->tcpi_snd_wscale = v->snd_wscale & 0xf;
    i->tcpi_rcv_wscale = v->rcv_wscale & 0xf;
    i->tcpi_rto = usec(v->rto);
    i->tcpi_ato = usec(v->ato);
    i->tcpi_snd_mss = v->snd_mss;
    i->tcpi_rcv_mss = v->rcv_mss;
    i->tcpi_unacked = v->unacked_segs;
    i->tcpi_sacked = v->sacked_segs;
    i->tcpi_lost = v->lost_segs;
    i->tcpi_retrans = v->retrans_segs;
    i->tcpi_last_data_sent = msec(v->last_data_sent);
    i->tcpi_last_data_recv = msec(v->last_data_recv);
    i->tcpi_last_ack_recv = msec(v->last_ack_recv);
    i->tcpi_pmtu = v->pmtu;
    i->tcpi_rcv_ssthresh = v->rcv_ssthresh;
    i->tcpi_rtt = usec(v->srtt);
    i->tcpi_rttvar = usec(v->rttvar);
    i->tcpi_snd_ssthresh = v->ssthresh >= 0x7fffffff ? 0x7fffffff : v->ssthresh / mss;
    i->tcpi_snd_cwnd = v->cwnd / mss;
    i->tcpi_advmss = v->advmss;
    i->tcpi_reordering = v->reordering;
    i->tcpi_rcv_rtt = usec(v->rcv_rtt);
    i->tcpi_rcv_space = v->rcv_space;
    i->tcpi_total_retrans = v->total_retrans;
    i->tcpi_pacing_rate = v->pacing_rate;
    i->tcpi_max_pacing_rate = v->max_pacing_rate;
    i->tcpi_bytes_acked = v->bytes_acked;
    i->tcpi_bytes_received = v->bytes_received;
    i->tcpi_segs_out = v->segs_out;
    i->tcpi_segs_in = v->segs_in;
    i->tcpi_notsent_bytes = v->notsent;
    i->tcpi_min_rtt = usec(v->min_rtt);
    i->tcpi_data_segs_in = v->data_segs_in;
    i->tcpi_data_segs_out = v->data_segs_out;
    i->tcpi_delivery_rate = v->delivery_rate;
    i->tcpi_delivery_rate_app_limited = v->app_limited;
    i->tcpi_busy_time = v->busy / NSEC_PER_USEC;
    i->tcpi_rwnd_limited = v->rwnd_limited / NSEC_PER_USEC;
    i->tcpi_sndbuf_limited = v->sndbuf_limited / NSEC_PER_USEC;
    i->tcpi_delivered = v->delivered_segs;
    i->tcpi_bytes_sent = v->bytes_sent;
    i->tcpi_bytes_retrans = v->bytes_retrans;
    i->tcpi_dsack_dups = v->dsack_dups;
    i->tcpi_reord_seen = v->reord_seen;
    i->tcpi_snd_wnd = v->snd_wnd;
}

/*
 * Bytes that Linux 6.18 gives. Debian 12's header ends earlier; behind it come counts of time-outs,
 * which stay zero, and of accurate ECN.
 */
#define TCP_INFO_LEN    280
#define TCP_INFO_ACCECN 248 /* tcpi_received_ce */

struct info_accecn {
    uint32_t received_ce;
    uint32_t delivered_e1, delivered_e0, delivered_ce;
    uint32_t received_e1, received_e0, received_ce_bytes;
    uint32_t mode; /* 2 bits mode, 2 bits option seen, 4 bits failures; Linux 7.0 */
};
_Static_assert(TCP_INFO_ACCECN + sizeof(struct info_accecn) == TCP_INFO_LEN, "Linux's layout");
/* TCPI_ECN_MODE_* */
enum { ECN_MODE_NONE, ECN_MODE_CLASSIC, ECN_MODE_ACCURATE, ECN_MODE_PENDING };

static uint32_t ecn_mode(const struct tcp_view *v)
{
    if (!v->ecn)
        return ECN_MODE_NONE;
    if (v->state == TCP_SYN_SENT)
        return ECN_MODE_PENDING;
    return v->accecn ? ECN_MODE_ACCURATE : ECN_MODE_CLASSIC;
}

static void fill_ecn(const struct tcp_view *view, const struct tcp_conn *c, struct tcp_info *info,
                     uint8_t *whole)
{
    struct info_accecn i = {.mode = ecn_mode(view)};
    struct tcp_view_accecn v;
    if (tcp_view_accecn(c, &v)) {
        info->tcpi_delivered_ce = v.delivered_ce;
        i.received_ce = v.received_ce;
        i.delivered_e1 = v.delivered_e1;
        i.delivered_e0 = v.delivered_e0;
        i.delivered_ce = v.delivered_ce_bytes;
        i.received_e1 = v.received_e1;
        i.received_e0 = v.received_e0;
        i.received_ce_bytes = v.received_ce_bytes;
        i.mode |= (uint32_t)v.option_seen << 2 | (uint32_t)v.failures << 4;
    }
    memcpy(whole + TCP_INFO_ACCECN, &i, sizeof(i));
}

int64_t option_get_tcp_info(struct call *c, void *val, socklen_t *len)
{
    struct tcp_info info;
    memset(&info, 0, sizeof(info));
    uint8_t whole[TCP_INFO_LEN] = {0};
    if (c->us->kind == USOCK_CONN) {
        struct tcp_view view;
        tcp_view(&c->cx, c->us->conn, &view);
        fill(&view, &info);
        fill_ecn(&view, c->us->conn, &info, whole);
    } else if (c->us->kind == USOCK_LISTENER) {
        /* Linux reports the queue of a listener in these two. */
        uint32_t syn_queue, accept_queue, backlog;
        tcp_listener_queues(c->us->listener, &syn_queue, &accept_queue, &backlog);
        info.tcpi_state = TCP_LISTEN;
        info.tcpi_unacked = accept_queue;
        info.tcpi_sacked = backlog;
    } else {
        return CALL_PASS;
    }
    memcpy(whole, &info, sizeof(info) < TCP_INFO_ACCECN ? sizeof(info) : TCP_INFO_ACCECN);
    return option_give(val, len, whole, sizeof(whole));
}
