/* What the congestion control algorithms share; only for cc*.c. */
#pragma once

#include "stack/tcp/cc.h"

/* No window is larger (RFC 7323 2.3: 65535 << 14). */
#define CC_CWND_MAX (1u << 30)

extern const struct cc_ops cc_reno, cc_cubic, cc_dctcp, cc_bbr;

static inline void cc_grow(struct tcp_cc *cc, uint64_t bytes)
{
    cc->cwnd = (uint32_t)min_u64((uint64_t)cc->cwnd + bytes, CC_CWND_MAX);
}

/*
 * Slow start by bytes acknowledged, up to ssthresh; returns the bytes left for congestion
 * avoidance. Linux differs from RFC 3465's limit of two segments an ACK: peers that receive
 * coalesced segments acknowledge 64 KB at once, and the window must still double in a round trip.
 */
uint32_t cc_slow_start(struct tcp_cc *cc, uint32_t acked);
/* Remembers what cc_undo() restores. */
void cc_remember(struct tcp_cc *cc);
/* Restart after idle time (RFC 5681 4.1 in Linux's form, RFC 7661): half for each RTO. */
void cc_decay_idle(struct tcp_cc *cc, nsec_t idle, nsec_t srtt);
/* Reno's, for those that differ from it in the reaction to congestion alone. */
void cc_reno_on_ack(struct tcp_cc *cc, const struct cc_ack *ack);
void cc_reno_on_timeout(struct tcp_cc *cc, nsec_t now);
void cc_reno_on_idle(struct tcp_cc *cc, nsec_t now, nsec_t idle, nsec_t srtt);
uint32_t cc_initial_window(uint32_t mss);
