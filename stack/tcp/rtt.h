/* Round-trip time and the retransmission time-out (RFC 6298, with Linux's bounds). */
#pragma once

#include "stack/base.h"

#define RTO_MIN     (200 * NSEC_PER_MSEC) /* Linux: TCP_RTO_MIN; the RFC says 1 s */
#define RTO_MAX     (120 * NSEC_PER_SEC)
#define RTO_INITIAL (1 * NSEC_PER_SEC)

struct rtt {
    nsec_t srtt;   /* 0: no sample yet */
    nsec_t rttvar; /* Linux's: decays within a window only, and keeps RTO_MIN as its floor in the
                      RTO */
    nsec_t mdev;   /* smoothed mean deviation (TCP_INFO's tcpi_rttvar) */
    uint64_t mdev_max : 42;   /* nsec_t, its largest value in this round */
    uint64_t min_at : 22;     /* when min_rtt was measured, in units of 2^30 ns */
    nsec_t min_rtt;           /* of the last five minutes (Linux: tcp_min_rtt_wlen) */
    uint64_t rto : 63;        /* nsec_t, without backoff */
    uint64_t rounds_told : 1; /* rtt_round() is in use */
};

void rtt_init(struct rtt *r);
/* A valid sample (Karn's rule is the caller's). */
void rtt_sample(struct rtt *r, nsec_t sample, nsec_t now);
/*
 * A round trip ended: SND.UNA passed what SND.NXT was when it began. Lets rttvar decay. While this
 * was never called each sample counts as a round.
 */
void rtt_round(struct rtt *r);
/* The RTO after `backoffs` doublings, bounded by `most`, RTO_MAX if nothing else is wanted. */
nsec_t rtt_backed_off(const struct rtt *r, unsigned backoffs, nsec_t most);
