/*
 * BBR, version 1 (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016, and
 * draft-cardwell-iccrg-bbr-congestion-control-00), as Linux has it but for the detector of traffic
 * policers. The path is modelled by the largest delivery rate of the last ten rounds and the
 * smallest round trip of the last ten seconds; the sender is paced at the rate and keeps about two
 * bandwidth-delay products in flight. Losses do not move the model.
 *
 *   STARTUP    doubles the rate each round until three rounds bring no quarter more
 *   DRAIN      empties the queue that STARTUP made
 *   PROBE_BW   eight round trips: one at 5/4 of the rate, one at 3/4, six at it
 *   PROBE_RTT  four segments in flight for 200 ms, when the smallest round trip is 10 s old
 */
#include "stack/tcp/cc_algo.h"

enum bbr_mode { BBR_STARTUP, BBR_DRAIN, BBR_PROBE_BW, BBR_PROBE_RTT };

#define UNIT            256u                     /* of gains */
#define HIGH_GAIN       (UNIT * 2885 / 1000 + 1) /* 2/ln 2: doubles the rate each round */
#define DRAIN_GAIN      (UNIT * 1000 / 2885)
#define CWND_GAIN       (2 * UNIT)
#define CYCLE_LEN       8
#define BW_WINDOW       10     /* rounds */
#define MIN_RTT_WINDOW  10000u /* ms */
#define PROBE_RTT_TIME  200u   /* ms */
#define MIN_CWND_SEGS   4u
#define FULL_BW_ROUNDS  3
#define EXTRA_ROUNDS    5 /* rounds of each of the two windows of ACK aggregation */
#define EXTRA_MAX_MS    100u
#define EPOCH_ACKED_MAX (1u << 20 << 10)
/* Linux: pace 1 % below the rate, so that queues drain. */
#define PACING_MARGIN 99u
/* RFC 6928's window in a millisecond: the rate before the first round trip. */
#define INITIAL_RTT_US 1000u

/* TCP_CA_RECOVERY and TCP_CA_LOSS (conn.h): this file knows no connection. */
#define CA_RECOVERY 3
#define CA_LOSS     4

static const uint16_t cycle_gains[CYCLE_LEN] = {UNIT * 5 / 4, UNIT * 3 / 4, UNIT, UNIT,
                                                UNIT,         UNIT,         UNIT, UNIT};

static uint32_t usec(nsec_t t)
{
    return (uint32_t)(t / 1000);
}

static uint32_t msec(nsec_t t)
{
    return (uint32_t)(t / NSEC_PER_MSEC);
}

/* The rate (64 B/s) as bytes a second times gain. */
static uint64_t bytes_per_second(uint32_t rate, uint32_t gain)
{
    return ((uint64_t)rate << CC_RATE_SHIFT) * gain / UNIT;
}

/* RFC-less: bytes that the path holds at the rate, times gain. Before any sample: the first window.
 */
static uint32_t bdp(const struct tcp_cc *cc, uint32_t rate, uint32_t gain)
{
    const struct cc_bbr *b = &cc->bbr;
    if (!b->has_rtt || rate == 0)
        return cc_initial_window(cc->mss);
    const uint64_t bytes = bytes_per_second(rate, UNIT) / 1000 * b->min_rtt_us / 1000;
    return (uint32_t)min_u64(bytes * gain / UNIT, CC_CWND_MAX);
}

/* Room for what offloads hold back: three frames, and an even number of segments. */
static uint32_t with_budget(const struct tcp_cc *cc, uint64_t window)
{
    const struct cc_bbr *b = &cc->bbr;
    const uint64_t burst =
        max_u64(min_u64(bytes_per_second(b->pace, UNIT) >> 10, 65535), 2ull * cc->mss);
    window += 3 * burst;
    if (b->mode == BBR_PROBE_BW && b->cycle == 0) /* probing must get beyond the plateau */
        window += 2ull * cc->mss;
    return (uint32_t)min_u64(window, CC_CWND_MAX);
}

static uint32_t inflight(const struct tcp_cc *cc, uint32_t rate, uint32_t gain)
{
    return with_budget(cc, bdp(cc, rate, gain));
}

/* ---- the rate ---- */

static void set_pace(struct tcp_cc *cc, uint32_t rate, uint32_t gain)
{
    struct cc_bbr *b = &cc->bbr;
    const uint64_t pace = (uint64_t)rate * gain / UNIT * PACING_MARGIN / 100;
    const uint32_t next = (uint32_t)min_u64(max_u64(pace, 1), UINT32_MAX);
    /* Until the pipe is full the rate only grows: early samples are too low. */
    if (b->full_bw_reached || next > b->pace)
        b->pace = next;
}

static void first_pace(struct tcp_cc *cc, nsec_t srtt)
{
    const uint64_t us = max_u64(srtt ? srtt / 1000 : INITIAL_RTT_US, 1);
    const uint64_t rate = ((uint64_t)cc->cwnd * 1000000 / us) >> CC_RATE_SHIFT;
    cc->bbr.pace = (uint32_t)min_u64(rate * HIGH_GAIN / UNIT, UINT32_MAX);
}

static void update_bw(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    b->round_start = false;
    if (ack->rate_interval == 0)
        return;
    if ((int32_t)((uint32_t)ack->rate_prior - b->next_round) >= 0) {
        b->next_round = (uint32_t)ack->delivered;
        b->rounds++;
        b->round_start = true;
        b->conserving = false;
    }
    const uint64_t bytes = ack->delivered - ack->rate_prior;
    const uint64_t rate =
        min_u64((bytes * NSEC_PER_SEC / ack->rate_interval) >> CC_RATE_SHIFT, UINT32_MAX);
    /* What the program did not fill says nothing, unless it beats what is known. */
    if (!ack->rate_app_limited || rate >= minmax_best(&b->bw))
        minmax_running_max(&b->bw, BW_WINDOW, b->rounds, (uint32_t)rate);
}

/* ---- ACKs that come in heaps (wireless, GRO): cwnd covers the pauses between them ---- */

static uint32_t extra_acked(const struct tcp_cc *cc)
{
    const struct cc_bbr *b = &cc->bbr;
    if (!b->full_bw_reached)
        return 0;
    const uint32_t segs =
        b->extra_acked[0] > b->extra_acked[1] ? b->extra_acked[0] : b->extra_acked[1];
    const uint64_t most = bytes_per_second(minmax_best(&b->bw), UNIT) * EXTRA_MAX_MS / 1000;
    return (uint32_t)min_u64((uint64_t)segs * cc->mss, most);
}

static void update_aggregation(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    if (ack->acked == 0 || ack->rate_interval == 0)
        return;
    if (b->round_start && ++b->extra_rounds >= EXTRA_ROUNDS) {
        b->extra_rounds = 0;
        b->extra_window ^= 1;
        b->extra_acked[b->extra_window] = 0;
    }
    const uint32_t since = usec(ack->now) - b->epoch_stamp_us;
    uint64_t expected = bytes_per_second(minmax_best(&b->bw), UNIT) / 1000 * since / 1000;
    if (b->epoch_acked <= expected || b->epoch_acked + (uint64_t)ack->acked >= EPOCH_ACKED_MAX) {
        b->epoch_acked = 0;
        b->epoch_stamp_us = usec(ack->now);
        expected = 0;
    }
    b->epoch_acked = (uint32_t)min_u64((uint64_t)b->epoch_acked + ack->acked, EPOCH_ACKED_MAX);
    uint64_t extra = b->epoch_acked > expected ? b->epoch_acked - expected : 0;
    extra = min_u64(min_u64(extra, cc->cwnd) / cc->mss, UINT16_MAX);
    if (extra > b->extra_acked[b->extra_window])
        b->extra_acked[b->extra_window] = (uint16_t)extra;
}

/* ---- modes ---- */

static void enter_probe_bw(struct tcp_cc *cc, nsec_t now)
{
    struct cc_bbr *b = &cc->bbr;
    b->mode = BBR_PROBE_BW;
    /* Anywhere but in the phase that drains: flows that began together shall not probe together. */
    const unsigned pick = (usec(now) ^ b->next_round) % (CYCLE_LEN - 1);
    b->cycle = (pick + 2) % CYCLE_LEN == 1 ? 2 : (uint8_t)((pick + 2) % CYCLE_LEN);
    b->cycle_stamp_us = usec(now);
}

static void enter_startup(struct tcp_cc *cc)
{
    cc->bbr.mode = BBR_STARTUP;
}

static void update_cycle(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    if (b->mode != BBR_PROBE_BW)
        return;
    const bool full_length = usec(ack->now) - b->cycle_stamp_us > b->min_rtt_us;
    const uint16_t gain = cycle_gains[b->cycle];
    const uint32_t rate = minmax_best(&b->bw);
    bool next = full_length;
    if (gain >
        UNIT) /* until the queue that it asks for is there, or a loss says that it cannot be */
        next = full_length && (ack->lost || ack->in_flight >= inflight(cc, rate, gain));
    else if (gain < UNIT) /* or as soon as the queue is gone */
        next = full_length || ack->in_flight <= inflight(cc, rate, UNIT);
    if (next) {
        b->cycle = (b->cycle + 1) % CYCLE_LEN;
        b->cycle_stamp_us = usec(ack->now);
    }
}

static void check_full_bw(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    if (b->full_bw_reached || !b->round_start || ack->rate_app_limited)
        return;
    const uint32_t best = minmax_best(&b->bw);
    if (best >= (uint64_t)b->full_bw * 5 / 4) {
        b->full_bw = best;
        b->full_bw_count = 0;
        return;
    }
    b->full_bw_count++;
    b->full_bw_reached = b->full_bw_count >= FULL_BW_ROUNDS;
}

static void check_drain(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    const uint32_t rate = minmax_best(&b->bw);
    if (b->mode == BBR_STARTUP && b->full_bw_reached) {
        b->mode = BBR_DRAIN;
        cc->ssthresh = inflight(cc, rate, UNIT);
    }
    if (b->mode == BBR_DRAIN && ack->pipe <= inflight(cc, rate, UNIT))
        enter_probe_bw(cc, ack->now);
}

static void leave_probe_rtt(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    if (b->probe_rtt_done_ms == 0 || (int32_t)(msec(ack->now) - b->probe_rtt_done_ms) < 0)
        return;
    b->min_rtt_stamp_ms = msec(ack->now);
    cc->cwnd = max_u32(cc->cwnd, cc->prior_cwnd);
    if (b->full_bw_reached)
        enter_probe_bw(cc, ack->now);
    else
        enter_startup(cc);
}

static void save_cwnd(struct tcp_cc *cc)
{
    if (cc->bbr.ca_before < CA_RECOVERY && cc->bbr.mode != BBR_PROBE_RTT)
        cc->prior_cwnd = cc->cwnd;
    else
        cc->prior_cwnd = max_u32(cc->prior_cwnd, cc->cwnd);
}

static void update_min_rtt(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    const bool expired = b->has_rtt && msec(ack->now) - b->min_rtt_stamp_ms > MIN_RTT_WINDOW;
    const uint32_t rtt_us = max_u32(usec(ack->rtt), 1);
    if (ack->rtt_valid && (!b->has_rtt || rtt_us < b->min_rtt_us || expired)) {
        b->min_rtt_us = rtt_us;
        b->min_rtt_stamp_ms = msec(ack->now);
        b->has_rtt = true;
    }
    if (expired && !b->idle_restart && b->mode != BBR_PROBE_RTT) {
        save_cwnd(cc);
        b->mode = BBR_PROBE_RTT;
        b->probe_rtt_done_ms = 0;
    }
    if (b->mode == BBR_PROBE_RTT) {
        if (b->probe_rtt_done_ms == 0 && ack->pipe <= MIN_CWND_SEGS * cc->mss) {
            b->probe_rtt_done_ms = max_u32(msec(ack->now) + PROBE_RTT_TIME, 1);
            b->probe_rtt_round_done = false;
            b->next_round = (uint32_t)ack->delivered;
        } else if (b->probe_rtt_done_ms) {
            if (b->round_start)
                b->probe_rtt_round_done = true;
            if (b->probe_rtt_round_done)
                leave_probe_rtt(cc, ack);
        }
    }
    if (ack->acked > 0)
        b->idle_restart = false;
}

static void update_gains(struct tcp_cc *cc)
{
    struct cc_bbr *b = &cc->bbr;
    switch (b->mode) {
    case BBR_STARTUP:
        b->pacing_gain = b->cwnd_gain = HIGH_GAIN;
        break;
    case BBR_DRAIN:
        b->pacing_gain = DRAIN_GAIN;
        b->cwnd_gain = HIGH_GAIN;
        break;
    case BBR_PROBE_BW:
        b->pacing_gain = cycle_gains[b->cycle];
        b->cwnd_gain = CWND_GAIN;
        break;
    default:
        b->pacing_gain = b->cwnd_gain = UNIT;
        break;
    }
}

/* ---- the window ---- */

/* In recovery's first round: as much goes out as has arrived. True: cwnd is settled. */
static bool conserve(struct tcp_cc *cc, const struct cc_ack *ack, uint32_t *cwnd)
{
    struct cc_bbr *b = &cc->bbr;
    if (ack->lost > 0)
        *cwnd = *cwnd > ack->lost + cc->mss ? *cwnd - ack->lost : cc->mss;
    if (ack->ca_state == CA_RECOVERY && b->ca_before != CA_RECOVERY) {
        b->conserving = true;
        b->next_round = (uint32_t)ack->delivered;
        *cwnd = ack->pipe + ack->acked;
    } else if (b->ca_before >= CA_RECOVERY && ack->ca_state < CA_RECOVERY) {
        *cwnd = max_u32(*cwnd, cc->prior_cwnd);
        b->conserving = false;
    }
    b->ca_before = ack->ca_state;
    if (b->conserving) {
        *cwnd = max_u32(*cwnd, ack->pipe + ack->acked);
        return true;
    }
    return false;
}

static void set_cwnd(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    uint32_t cwnd = cc->cwnd;
    if (ack->acked > 0 && !conserve(cc, ack, &cwnd)) {
        const uint64_t want =
            (uint64_t)bdp(cc, minmax_best(&b->bw), b->cwnd_gain) + extra_acked(cc);
        const uint32_t target = with_budget(cc, want);
        const uint32_t grown = (uint32_t)min_u64((uint64_t)cwnd + ack->acked, CC_CWND_MAX);
        if (b->full_bw_reached)
            cwnd = min_u32(grown, target);
        else if (cwnd < target || ack->delivered < cc_initial_window(cc->mss))
            cwnd = grown;
        cwnd = max_u32(cwnd, MIN_CWND_SEGS * cc->mss);
    }
    if (b->mode == BBR_PROBE_RTT)
        cwnd = min_u32(cwnd, MIN_CWND_SEGS * cc->mss);
    cc->cwnd = max_u32(cwnd, cc->mss);
}

static void bbr_observe(struct tcp_cc *cc, const struct cc_ack *ack)
{
    struct cc_bbr *b = &cc->bbr;
    if (!b->has_rtt && ack->rtt_valid)
        first_pace(cc, ack->srtt);
    update_bw(cc, ack);
    update_aggregation(cc, ack);
    update_cycle(cc, ack);
    check_full_bw(cc, ack);
    check_drain(cc, ack);
    update_min_rtt(cc, ack);
    update_gains(cc);
    if (minmax_best(&b->bw))
        set_pace(cc, minmax_best(&b->bw), b->pacing_gain);
    set_cwnd(cc, ack);
}

static void bbr_init(struct tcp_cc *cc, nsec_t now)
{
    memset(&cc->bbr, 0, sizeof(cc->bbr));
    cc->ssthresh = CC_SSTHRESH_INFINITE;
    cc->bbr.min_rtt_stamp_ms = msec(now);
    cc->bbr.epoch_stamp_us = usec(now);
    first_pace(cc, 0);
    enter_startup(cc);
    update_gains(cc);
}

/* Losses do not move the model; the window of before is restored when recovery ends. */
static uint32_t bbr_on_loss(struct tcp_cc *cc, uint32_t in_flight, nsec_t now)
{
    (void)in_flight;
    (void)now;
    save_cwnd(cc);
    return cc->ssthresh;
}

static void bbr_on_timeout(struct tcp_cc *cc, nsec_t now)
{
    (void)now;
    cc->bbr.full_bw = 0;
    cc->bbr.round_start = true;
    cc->bbr.ca_before = CA_LOSS;
    cc->bbr.conserving = false;
}

/* A paced flow restarts at its rate: the window need not decay. */
static void bbr_on_idle(struct tcp_cc *cc, nsec_t now, nsec_t idle, nsec_t srtt)
{
    (void)idle;
    (void)srtt;
    cc->bbr.idle_restart = true;
    cc->bbr.epoch_stamp_us = usec(now);
    cc->bbr.epoch_acked = 0;
    if (cc->bbr.mode == BBR_PROBE_BW)
        set_pace(cc, minmax_best(&cc->bbr.bw), UNIT);
}

static void bbr_on_undo(struct tcp_cc *cc)
{
    cc->bbr.full_bw = 0; /* the rate was not known to be reached after all */
    cc->bbr.full_bw_count = 0;
}

static uint64_t bbr_pacing_rate(const struct tcp_cc *cc)
{
    return (uint64_t)cc->bbr.pace << CC_RATE_SHIFT;
}

const struct cc_ops cc_bbr = {
    .name = "bbr",
    .init = bbr_init,
    .observe = bbr_observe,
    .on_loss = bbr_on_loss,
    .on_timeout = bbr_on_timeout,
    .on_idle = bbr_on_idle,
    .on_undo = bbr_on_undo,
    .pacing_rate = bbr_pacing_rate,
    .owns_cwnd = true,
};
