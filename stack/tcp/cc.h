/*
 * Congestion control as a table of functions (RFC 5681, 9438). An algorithm sees ACKs and losses
 * and keeps cwnd and ssthresh, in bytes; it does not know segments, timers or recovery.
 */
#pragma once

#include "stack/base.h"

/* X(ID, name as in TCP_CONGESTION) */
#define TCP_CCS(X)                                                                                 \
    X(CUBIC, "cubic")                                                                              \
    X(RENO, "reno")

enum tcp_cc_id {
#define X(id, name) TCP_CC_##id,
    TCP_CCS(X)
#undef X
        TCP_CC_COUNT
};

#define CC_SSTHRESH_INFINITE UINT32_MAX
/* RFC 6928 */
#define CC_INITIAL_SEGS 10

/* Per connection. Small, and without pointers to code: it lives in the arena. */
struct tcp_cc {
    uint8_t id;    /* enum tcp_cc_id */
    uint32_t cwnd; /* bytes */
    uint32_t ssthresh;
    uint32_t mss;
    uint32_t acked_rest; /* bytes acknowledged that did not yet move cwnd */
    union {
        struct {
            uint32_t w_max; /* segments * 1024 */
            uint32_t w_last_max;
            uint32_t w_est; /* Reno-friendly estimate, bytes */
            uint32_t est_rest;
            nsec_t epoch; /* start of the congestion avoidance epoch; 0: none */
            nsec_t k;     /* RFC 9438 4.2 */
            /* HyStart++ (RFC 9406) */
            nsec_t round_min_rtt, last_round_min_rtt;
            uint32_t round_samples;
            uint32_t css_rounds;
            nsec_t css_baseline;
            bool in_css;
        } cubic;
    };
    /* for undo; prior_cwnd 0: nothing to undo */
    uint32_t prior_cwnd, prior_ssthresh;
    nsec_t srtt; /* of the last ACK: what an idle period is measured by */
};

/* What an ACK means to an algorithm. */
struct cc_ack {
    nsec_t now;
    uint32_t acked;     /* bytes newly delivered */
    uint32_t in_flight; /* before this ACK */
    bool rtt_valid;
    nsec_t rtt;
    nsec_t srtt;
    bool cwnd_limited; /* the flow was limited by cwnd in the last round: only then may cwnd grow
                          (RFC 7661, Linux) */
    bool round_start;  /* this ACK begins a new round trip */
};

struct cc_ops {
    const char *name;
    void (*init)(struct tcp_cc *cc, nsec_t now);
    /* Not in recovery: slow start or congestion avoidance. */
    void (*on_ack)(struct tcp_cc *cc, const struct cc_ack *ack);
    /* Loss: returns the new ssthresh; recovery sets cwnd. Remembers what undo needs. */
    uint32_t (*on_loss)(struct tcp_cc *cc, uint32_t in_flight, nsec_t now);
    /* Time-out. ssthresh was set by on_loss(). */
    void (*on_timeout)(struct tcp_cc *cc, nsec_t now);
    /* Sending resumes after idling longer than one RTO. */
    void (*on_idle)(struct tcp_cc *cc, nsec_t now, nsec_t idle);
    /* cc_undo() restored cwnd and ssthresh. May be NULL. */
    void (*on_undo)(struct tcp_cc *cc);
};

const struct cc_ops *cc_ops(uint8_t id);
/* -1: unknown name. */
int cc_by_name(const char *name, size_t len);
/* Initial window by RFC 6928. */
void cc_init(struct tcp_cc *cc, uint8_t id, uint32_t mss, nsec_t now);
/* Another algorithm for a living connection: cwnd and ssthresh stay. */
void cc_switch(struct tcp_cc *cc, uint8_t id, nsec_t now);
/* The segment size changed (path MTU): cwnd keeps its bytes, at least one segment. */
void cc_set_mss(struct tcp_cc *cc, uint32_t mss);
/* The loss was spurious: cwnd and ssthresh as before. */
void cc_undo(struct tcp_cc *cc);
static inline bool cc_in_slow_start(const struct tcp_cc *cc)
{
    return cc->cwnd < cc->ssthresh;
}
