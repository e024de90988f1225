/*
 * CUBIC (RFC 9438) with HyStart++ (RFC 9406) in the first slow start. Integers only: windows of the
 * cubic are in 1/1024 segments, its time in milliseconds.
 */
#include "stack/tcp/cc_algo.h"

/* beta = 0.7 and alpha = 3 * (1 - beta) / (1 + beta) = 9 / 17 (RFC 9438 4.6, 4.3) */
#define BETA_NUM  7u
#define BETA_DEN  10u
#define ALPHA_NUM 9u
#define ALPHA_DEN 17u

/* RFC 9406 4.3 */
#define HS_MIN_RTT_THRESH     (4 * NSEC_PER_MSEC)
#define HS_MAX_RTT_THRESH     (16 * NSEC_PER_MSEC)
#define HS_MIN_RTT_DIVISOR    8
#define HS_RTT_SAMPLES        8
#define HS_CSS_GROWTH_DIVISOR 4
#define HS_CSS_ROUNDS         5

static void cubic_init(struct tcp_cc *cc, nsec_t now)
{
    (void)now;
    memset(&cc->cubic, 0, sizeof(cc->cubic));
    cc->cubic.round_min_rtt = NSEC_NEVER;
    cc->cubic.last_round_min_rtt = NSEC_NEVER;
}

/* Bytes to 1/1024 segments. */
static uint32_t to_units(const struct tcp_cc *cc, uint32_t bytes)
{
    return (uint32_t)min_u64((uint64_t)bytes * 1024 / cc->mss, UINT32_MAX);
}

static uint32_t to_bytes(const struct tcp_cc *cc, uint64_t units)
{
    return (uint32_t)min_u64(min_u64(units, 1ull << 42) * cc->mss / 1024, CC_CWND_MAX);
}

/* The largest r with r^3 <= v, bit by bit. */
static uint32_t cube_root(uint64_t v)
{
    uint64_t r = 0;
    for (int bit = 20; bit >= 0; bit--) {
        const uint64_t t = r | 1ull << bit;
        if (t * t * t <= v)
            r = t;
    }
    return (uint32_t)r;
}

/* RFC 9438 4.2 and figure 2: K = cbrt((W_max - cwnd_epoch) / C), C = 0.4 segments/s^3. */
static nsec_t cubic_k(uint32_t w_max, uint32_t w_epoch)
{
    if (w_max <= w_epoch)
        return 0;
    /* ms^3 = units / 1024 / 0.4 * 10^9 */
    const uint64_t cube = (uint64_t)(w_max - w_epoch) * 2441406u;
    return cube_root(cube) * NSEC_PER_MSEC;
}

static void begin_epoch(struct tcp_cc *cc, nsec_t now)
{
    const uint32_t w = to_units(cc, cc->cwnd);
    cc->cubic.epoch = max_u64(now, 1);
    cc->cubic.k = cubic_k(cc->cubic.w_max, w);
    cc->cubic.w_max = max_u32(cc->cubic.w_max, w);
    cc->cubic.w_est = cc->cwnd;
    cc->cubic.est_rest = 0;
    cc->acked_rest = 0;
}

/* RFC 9438 figure 1: W_cubic(t) = C * (t - K)^3 + W_max, in bytes. */
static uint32_t w_cubic(const struct tcp_cc *cc, nsec_t t)
{
    const nsec_t k = cc->cubic.k;
    /* 131 s away from K the curve is beyond any window. */
    const uint64_t d = min_u64((t > k ? t - k : k - t) / NSEC_PER_MSEC, 131071);
    /* 0.4 * 1024 / 10^9 = 4096 / 10^10 */
    const uint64_t delta = d * d * d * 4096 / 10000000000u;
    const uint64_t w_max = cc->cubic.w_max;
    if (t > k)
        return to_bytes(cc, w_max + delta);
    return to_bytes(cc, w_max > delta ? w_max - delta : 0);
}

/* RFC 9438 4.3: what Reno with the same beta would have. */
static void grow_estimate(struct tcp_cc *cc, uint32_t acked)
{
    const uint32_t w_prior = to_bytes(cc, cc->cubic.w_last_max);
    /* alpha is 1 once the estimate has reached the window before the loss. */
    const bool caught_up = cc->cubic.w_est >= w_prior;
    const uint64_t num = (uint64_t)(caught_up ? ALPHA_DEN : ALPHA_NUM) * cc->mss;
    const uint64_t den = (uint64_t)ALPHA_DEN * cc->cwnd;
    const uint64_t rest = min_u64((uint64_t)cc->cubic.est_rest + acked, CC_CWND_MAX);
    const uint64_t inc = rest * num / den;
    cc->cubic.est_rest = (uint32_t)(rest - inc * den / num);
    cc->cubic.w_est = (uint32_t)min_u64(cc->cubic.w_est + inc, CC_CWND_MAX);
}

static void avoid_congestion(struct tcp_cc *cc, const struct cc_ack *ack, uint32_t acked)
{
    if (cc->cubic.epoch == 0)
        begin_epoch(cc, ack->now);
    const nsec_t t = ack->now > cc->cubic.epoch ? ack->now - cc->cubic.epoch : 0;

    grow_estimate(cc, acked);
    if (w_cubic(cc, t) < cc->cubic.w_est) {
        cc->cwnd = max_u32(cc->cwnd, cc->cubic.w_est);
        cc->acked_rest = 0;
        return;
    }
    /* RFC 9438 4.4, 4.5: reach the target within a round trip, but no more than half as much again.
     */
    const uint32_t target = min_u32(w_cubic(cc, t + ack->srtt), cc->cwnd / 2 * 3);
    if (target <= cc->cwnd)
        return;
    const uint64_t step = target - cc->cwnd;
    const uint64_t rest = min_u64((uint64_t)cc->acked_rest + acked, CC_CWND_MAX);
    const uint64_t inc = rest * step / cc->cwnd;
    cc->acked_rest = (uint32_t)(rest - inc * cc->cwnd / step);
    cc_grow(cc, min_u64(inc, step));
}

/* RFC 9406 4.2: a new round trip of slow start. */
static void hystart_round(struct tcp_cc *cc)
{
    cc->cubic.last_round_min_rtt = cc->cubic.round_min_rtt;
    cc->cubic.round_min_rtt = NSEC_NEVER;
    cc->cubic.round_samples = 0;
    if (cc->cubic.in_css && ++cc->cubic.css_rounds >= HS_CSS_ROUNDS) {
        /* The longer round trips were no accident: congestion avoidance begins. */
        cc->ssthresh = cc->cwnd;
        cc->cubic.in_css = false;
    }
}

/* RFC 9406 4.2: does the round trip grow? Then conservative slow start, and back when it shrinks.
 */
static void hystart_sample(struct tcp_cc *cc, nsec_t rtt)
{
    cc->cubic.round_min_rtt = min_u64(cc->cubic.round_min_rtt, rtt);
    if (++cc->cubic.round_samples < HS_RTT_SAMPLES)
        return;
    const nsec_t now_min = cc->cubic.round_min_rtt, last_min = cc->cubic.last_round_min_rtt;
    if (cc->cubic.in_css) {
        if (now_min < cc->cubic.css_baseline)
            cc->cubic.in_css = false;
        return;
    }
    if (last_min == NSEC_NEVER)
        return;
    const nsec_t thresh =
        max_u64(HS_MIN_RTT_THRESH, min_u64(last_min / HS_MIN_RTT_DIVISOR, HS_MAX_RTT_THRESH));
    if (now_min >= last_min + thresh) {
        cc->cubic.css_baseline = now_min;
        cc->cubic.in_css = true;
        cc->cubic.css_rounds = 0;
    }
}

static void cubic_on_ack(struct tcp_cc *cc, const struct cc_ack *ack)
{
    /* Only the first slow start searches blindly (RFC 9406 4.3); later ones know ssthresh. */
    if (cc->ssthresh == CC_SSTHRESH_INFINITE) {
        if (ack->round_start)
            hystart_round(cc);
        if (ack->rtt_valid && cc_in_slow_start(cc))
            hystart_sample(cc, ack->rtt);
    }
    if (!ack->cwnd_limited)
        return;
    uint32_t acked = ack->acked;
    if (cc_in_slow_start(cc)) {
        if (cc->cubic.in_css) {
            cc_slow_start(cc, acked / HS_CSS_GROWTH_DIVISOR);
            return;
        }
        acked = cc_slow_start(cc, acked);
    }
    if (acked > 0)
        avoid_congestion(cc, ack, acked);
}

static uint32_t cubic_on_loss(struct tcp_cc *cc, uint32_t in_flight, nsec_t now)
{
    (void)in_flight;
    (void)now;
    cc_remember(cc);
    const uint32_t w = to_units(cc, cc->cwnd);
    /* RFC 9438 4.7, fast convergence: a window that shrinks makes room for newcomers. */
    const bool shrinks = w < cc->cubic.w_max;
    cc->cubic.w_max =
        shrinks ? (uint32_t)((uint64_t)w * (BETA_DEN + BETA_NUM) / (2 * BETA_DEN)) : w;
    cc->cubic.w_last_max = w;
    cc->cubic.epoch = 0;
    cc->cubic.in_css = false;
    cc->acked_rest = 0;
    /*
     * RFC 9438 4.6. Linux differs from it: cwnd, not the flight size, since cwnd grows only while
     * it is used.
     */
    const uint32_t cut = (uint32_t)((uint64_t)cc->cwnd * BETA_NUM / BETA_DEN);
    cc->ssthresh = max_u32(cut, 2 * cc->mss);
    return cc->ssthresh;
}

/* RFC 9438 4.8: the epoch that follows begins at its own window, with K = 0. */
static void cubic_on_timeout(struct tcp_cc *cc, nsec_t now)
{
    const uint32_t w_last_max = cc->cubic.w_last_max;
    cubic_init(cc, now);
    cc->cubic.w_last_max = w_last_max;
    cc->acked_rest = 0;
}

static void cubic_on_idle(struct tcp_cc *cc, nsec_t now, nsec_t idle, nsec_t srtt)
{
    cc_decay_idle(cc, idle, srtt);
    /* Time without traffic does not move along the curve (RFC 9438 4.2, 5.8). */
    if (cc->cubic.epoch != 0)
        cc->cubic.epoch = min_u64(cc->cubic.epoch + idle, now);
}

/* The window of before is the right one after all: the curve starts anew from it. */
static void cubic_on_undo(struct tcp_cc *cc)
{
    cc->cubic.epoch = 0;
    cc->cubic.w_max = cc->cubic.w_last_max = to_units(cc, cc->cwnd);
}

const struct cc_ops cc_cubic = {
    .name = "cubic",
    .init = cubic_init,
    .on_ack = cubic_on_ack,
    .on_loss = cubic_on_loss,
    .on_timeout = cubic_on_timeout,
    .on_idle = cubic_on_idle,
    .on_undo = cubic_on_undo,
};
