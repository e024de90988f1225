/* Congestion control: the table of algorithms and what they share. See cc.h. */
#include "stack/tcp/cc.h"

#include "stack/tcp/cc_algo.h"
#include "stack/tcp/rtt.h"

const struct cc_ops *cc_ops(uint8_t id)
{
    static const struct cc_ops *const table[TCP_CC_COUNT] = {
        [TCP_CC_CUBIC] = &cc_cubic,
        [TCP_CC_RENO] = &cc_reno,
        [TCP_CC_DCTCP] = &cc_dctcp,
        [TCP_CC_BBR] = &cc_bbr,
    };
    return id < TCP_CC_COUNT ? table[id] : table[TCP_CC_CUBIC];
}

int cc_by_name(const char *name, size_t len)
{
    static const char *const names[TCP_CC_COUNT] = {
#define X(id, name) [TCP_CC_##id] = name,
        TCP_CCS(X)
#undef X
    };
    for (int i = 0; i < TCP_CC_COUNT; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return i;
    }
    return -1;
}

uint32_t cc_initial_window(uint32_t mss)
{
    /* RFC 6928 2: min(10 * MSS, max(2 * MSS, 14600)) */
    return min_u32(CC_INITIAL_SEGS * mss, max_u32(2 * mss, 14600));
}

void cc_init(struct tcp_cc *cc, uint8_t id, uint32_t mss, nsec_t now)
{
    memset(cc, 0, sizeof(*cc));
    cc->id = id < TCP_CC_COUNT ? id : TCP_CC_CUBIC;
    cc->mss = (uint16_t)max_u32(mss, 1);
    cc->cwnd = cc_initial_window(cc->mss);
    cc->ssthresh = CC_SSTHRESH_INFINITE;
    cc_ops(cc->id)->init(cc, now);
}

void cc_switch(struct tcp_cc *cc, uint8_t id, nsec_t now)
{
    cc->id = id < TCP_CC_COUNT ? id : TCP_CC_CUBIC;
    cc->acked_rest = 0;
    memset(&cc->cubic, 0, sizeof(*cc) - offsetof(struct tcp_cc, cubic));
    cc_ops(cc->id)->init(cc, now);
}

void cc_set_mss(struct tcp_cc *cc, uint32_t mss)
{
    mss = max_u32(mss, 1);
    if (mss == cc->mss)
        return;
    cc->mss = (uint16_t)mss;
    cc->cwnd = max_u32(cc->cwnd, mss);
}

void cc_remember(struct tcp_cc *cc)
{
    cc->prior_cwnd = cc->cwnd;
    cc->prior_ssthresh = cc->ssthresh;
}

void cc_undo(struct tcp_cc *cc)
{
    if (cc->prior_cwnd == 0)
        return;
    if (!cc_ops(cc->id)->owns_cwnd) {
        cc->cwnd = max_u32(cc->cwnd, cc->prior_cwnd);
        cc->ssthresh = max_u32(cc->ssthresh, cc->prior_ssthresh);
        cc->prior_cwnd = 0;
    }
    if (cc_ops(cc->id)->on_undo != NULL)
        cc_ops(cc->id)->on_undo(cc);
}

uint32_t cc_slow_start(struct tcp_cc *cc, uint32_t acked)
{
    const uint32_t room = cc->ssthresh > cc->cwnd ? cc->ssthresh - cc->cwnd : 0;
    const uint32_t used = min_u32(acked, room);
    cc_grow(cc, used);
    return acked - used;
}

void cc_decay_idle(struct tcp_cc *cc, nsec_t idle, nsec_t srtt)
{
    const nsec_t rto = srtt + RTO_MIN;
    const uint32_t restart = min_u32(cc_initial_window(cc->mss), cc->cwnd);
    const uint32_t before = cc->cwnd;
    for (; idle > rto && cc->cwnd > restart; idle -= rto)
        cc->cwnd /= 2;
    cc->cwnd = max_u32(cc->cwnd, restart);
    /* Slow start finds the way back to where the path was known to carry (RFC 2861 3). */
    cc->ssthresh = max_u32(cc->ssthresh, before / 4 * 3);
    cc->acked_rest = 0;
}
