/*
 * Congestion control as a table of functions (RFC 5681, 9438). An algorithm sees ACKs and losses
 * and keeps cwnd and ssthresh, in bytes; it does not know segments, timers or recovery.
 */
#pragma once

#include "stack/base.h"
#include "stack/util/minmax.h"

/* X(ID, name as in TCP_CONGESTION) */
#define TCP_CCS(X)                                                                                 \
    X(CUBIC, "cubic")                                                                              \
    X(RENO, "reno")                                                                                \
    X(DCTCP, "dctcp")                                                                              \
    X(BBR, "bbr")

enum tcp_cc_id {
#define X(id, name) TCP_CC_##id,
    TCP_CCS(X)
#undef X
        TCP_CC_COUNT
};

#define CC_SSTHRESH_INFINITE UINT32_MAX
/* RFC 6928 */
#define CC_INITIAL_SEGS 10

/* Rates are kept in units of 64 bytes a second: 32 bits reach 275 GB/s. */
#define CC_RATE_SHIFT 6

/* BBR version 1, see cc_bbr.c. Times are the low bits of a clock in microseconds (us) or
 * milliseconds (ms); they are only ever subtracted. */
struct cc_bbr {
    struct minmax bw; /* the largest delivery rate of the last 10 rounds; its clock counts rounds */
    uint32_t pace;    /* the rate to send at */
    uint32_t full_bw; /* the rate at which STARTUP last saw growth */
    uint32_t min_rtt_us;
    uint32_t min_rtt_stamp_ms;
    uint32_t probe_rtt_done_ms; /* 0: not yet set */
    uint32_t next_round;        /* the round ends when what was delivered reaches this (low bits) */
    uint32_t cycle_stamp_us;
    uint32_t epoch_stamp_us; /* ACK aggregation is counted from here */
    uint32_t epoch_acked;
    uint16_t rounds;
    uint16_t pacing_gain, cwnd_gain; /* 256 is 1.0 */
    uint16_t extra_acked[2]; /* segments beyond the rate, largest of two windows of 5 rounds */
    uint8_t mode : 2;        /* enum bbr_mode */
    uint8_t full_bw_count : 2;
    uint8_t cycle : 3;
    uint8_t extra_window : 1;
    bool full_bw_reached : 1, round_start : 1, conserving : 1, idle_restart : 1;
    bool probe_rtt_round_done : 1, has_rtt : 1;
    uint8_t extra_rounds;
    uint8_t ca_before;
};

/* Per connection. Small, and without pointers to code: it lives in the arena. */
struct tcp_cc {
    uint8_t id; /* enum tcp_cc_id */
    uint16_t mss;
    uint32_t cwnd; /* bytes */
    uint32_t ssthresh;
    uint32_t acked_rest; /* bytes acknowledged that did not yet move cwnd */
    /* for undo; prior_cwnd 0: nothing to undo */
    uint32_t prior_cwnd, prior_ssthresh;
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
            nsec_t css_baseline;
            uint32_t round_samples;
            uint16_t css_rounds;
            bool in_css;
        } cubic;
        struct {
            uint32_t alpha;  /* the part of bytes marked, 1024 is all (RFC 8257 3.3) */
            uint32_t acked;  /* bytes of this observation window */
            uint32_t marked; /* of those, bytes that met congestion */
        } dctcp;
        struct cc_bbr bbr;
    };
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
    uint32_t
        marked; /* of those delivered, bytes that met congestion marks; RFC 3168: all, or none */
    /* for those who model the path */
    uint8_t ca_state;   /* enum tcp_ca_state after this ACK */
    uint32_t pipe;      /* in flight after this ACK */
    uint32_t lost;      /* bytes that this ACK showed to be lost */
    uint64_t delivered; /* bytes, in all */
    /* delivery rate sample; interval 0: none */
    uint64_t rate_prior; /* bytes delivered when the sampled segment left */
    nsec_t rate_interval;
    bool rate_app_limited;
};

struct cc_ops {
    const char *name;
    void (*init)(struct tcp_cc *cc, nsec_t now);
    /* Not in recovery: slow start or congestion avoidance. NULL with `observe` alone. */
    void (*on_ack)(struct tcp_cc *cc, const struct cc_ack *ack);
    /* Each ACK that delivered something, whatever the state; before on_ack(). May be NULL. */
    void (*observe)(struct tcp_cc *cc, const struct cc_ack *ack);
    /* Loss: returns the new ssthresh; recovery sets cwnd. Remembers what undo needs. */
    uint32_t (*on_loss)(struct tcp_cc *cc, uint32_t in_flight, nsec_t now);
    /* Time-out. ssthresh was set by on_loss(). */
    void (*on_timeout)(struct tcp_cc *cc, nsec_t now);
    /* Sending resumes after idling longer than one RTO; srtt as estimated now. */
    void (*on_idle)(struct tcp_cc *cc, nsec_t now, nsec_t idle, nsec_t srtt);
    /* cc_undo() restored cwnd and ssthresh. May be NULL. */
    void (*on_undo)(struct tcp_cc *cc);
    /* The rate to send at, bytes a second. NULL: derived from cwnd and the round trip when the
     * program asks for pacing. */
    uint64_t (*pacing_rate)(const struct tcp_cc *cc);
    /* observe() alone sets cwnd, in recovery too: no proportional reduction, no undo of it. */
    bool owns_cwnd;
    /* Each mark is echoed as it came (RFC 8257 3.2), and ECN is negotiated whatever the system
     * says. */
    bool exact_ecn;
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
