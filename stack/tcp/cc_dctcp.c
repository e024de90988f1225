/*
 * DCTCP (RFC 8257): the window falls in proportion to the part of the bytes that met congestion.
 * For data centres whose switches mark early (ECN); beside ordinary flows elsewhere it takes too
 * much.
 */
#include "stack/tcp/cc_algo.h"

#define ALPHA_ONE 1024u
/* g = 1/16 (RFC 8257 4.2) */
#define ALPHA_SHIFT 4

static void dctcp_init(struct tcp_cc *cc, nsec_t now)
{
    (void)now;
    /* Begins careful: the first mark halves the window (Linux: dctcp_alpha_on_init). */
    cc->dctcp.alpha = ALPHA_ONE;
    cc->dctcp.acked = cc->dctcp.marked = 0;
}

/* RFC 8257 3.3 steps 1 to 9: one estimate a round trip. */
static void dctcp_observe(struct tcp_cc *cc, const struct cc_ack *ack)
{
    cc->dctcp.acked += ack->acked;
    cc->dctcp.marked += ack->marked;
    if (!ack->round_start || cc->dctcp.acked == 0)
        return;
    uint32_t alpha = cc->dctcp.alpha;
    alpha -= max_u32(alpha >> ALPHA_SHIFT, alpha < 1u << ALPHA_SHIFT ? alpha : 0);
    const uint64_t part = (uint64_t)cc->dctcp.marked * ALPHA_ONE / cc->dctcp.acked;
    cc->dctcp.alpha = min_u32(alpha + (uint32_t)(part >> ALPHA_SHIFT), ALPHA_ONE);
    cc->dctcp.acked = cc->dctcp.marked = 0;
}

static uint32_t dctcp_on_loss(struct tcp_cc *cc, uint32_t in_flight, nsec_t now)
{
    (void)in_flight;
    (void)now;
    cc_remember(cc);
    cc->acked_rest = 0;
    /* RFC 8257 3.3 step 9; 3.5: Linux differs for real losses and halves only in its newer versions
     */
    const uint32_t cut = (uint32_t)((uint64_t)cc->cwnd * cc->dctcp.alpha / (2 * ALPHA_ONE));
    cc->ssthresh = max_u32(cc->cwnd - cut, 2 * cc->mss);
    return cc->ssthresh;
}

const struct cc_ops cc_dctcp = {
    .name = "dctcp",
    .init = dctcp_init,
    .on_ack = cc_reno_on_ack,
    .observe = dctcp_observe,
    .on_loss = dctcp_on_loss,
    .on_timeout = cc_reno_on_timeout,
    .on_idle = cc_reno_on_idle,
    .exact_ecn = true,
};
