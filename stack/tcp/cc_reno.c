/* Reno: slow start and congestion avoidance of RFC 5681 3.1, counting bytes (RFC 3465). */
#include "stack/tcp/cc_algo.h"

static void reno_init(struct tcp_cc *cc, nsec_t now)
{
    (void)now;
    cc->acked_rest = 0;
}

void cc_reno_on_ack(struct tcp_cc *cc, const struct cc_ack *ack)
{
    if (!ack->cwnd_limited)
        return;
    uint32_t acked = ack->acked;
    if (cc_in_slow_start(cc))
        acked = cc_slow_start(cc, acked);
    /* One segment for each window acknowledged. */
    const uint64_t total = (uint64_t)cc->acked_rest + acked;
    const uint64_t windows = total / cc->cwnd;
    cc->acked_rest = (uint32_t)(total % cc->cwnd);
    cc_grow(cc, windows * cc->mss);
}

static uint32_t reno_on_loss(struct tcp_cc *cc, uint32_t in_flight, nsec_t now)
{
    (void)in_flight;
    (void)now;
    cc_remember(cc);
    cc->acked_rest = 0;
    /* Linux differs from RFC 5681 (4): half of cwnd, which grows only while it is used. */
    cc->ssthresh = max_u32(cc->cwnd / 2, 2 * cc->mss);
    return cc->ssthresh;
}

void cc_reno_on_timeout(struct tcp_cc *cc, nsec_t now)
{
    (void)now;
    cc->acked_rest = 0;
}

void cc_reno_on_idle(struct tcp_cc *cc, nsec_t now, nsec_t idle, nsec_t srtt)
{
    (void)now;
    cc_decay_idle(cc, idle, srtt);
}

const struct cc_ops cc_reno = {
    .name = "reno",
    .init = reno_init,
    .on_ack = cc_reno_on_ack,
    .on_loss = reno_on_loss,
    .on_timeout = cc_reno_on_timeout,
    .on_idle = cc_reno_on_idle,
};
