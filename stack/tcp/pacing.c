/*
 * Pacing: data leaves at a rate and not in bursts. The rate is the congestion control's own (BBR),
 * or follows from window and round trip where the program has set a limit (SO_MAX_PACING_RATE), as
 * Linux's TCP does without the fq queue discipline.
 */
#include "stack/tcp/conn.h"
#include "stack/util/wheel.h"

/* Linux: the first segments of a connection are not paced. */
#define UNPACED_SEGS 10u
/* Percent of cwnd per round trip (Linux: tcp_pacing_ss_ratio, tcp_pacing_ca_ratio). */
#define SLOW_START_PERCENT 200u
#define AVOIDANCE_PERCENT  120u
/* A frame is about a millisecond's worth: the timer need not fire more often. */
#define FRAME_SHIFT 10
/* What a timer fires late is made good, up to this. */
#define CREDIT (4ull << WHEEL_TICK_SHIFT)

static uint64_t window_rate(const struct tcp_conn *c)
{
    const nsec_t srtt = c->rtt.srtt;
    if (srtt == 0)
        return 0;
    const uint64_t percent =
        c->cc.cwnd < c->cc.ssthresh / 2 ? SLOW_START_PERCENT : AVOIDANCE_PERCENT;
    return max_u64((uint64_t)c->cc.cwnd * NSEC_PER_SEC / srtt * percent / 100, 1);
}

uint64_t tcp_pacing_rate(const struct tcp_conn *c)
{
    const struct cc_ops *ops = cc_ops(c->cc.id);
    const uint64_t limit = (uint64_t)c->opts.max_pacing << CC_RATE_SHIFT;
    if (!ops->pacing_rate && !limit)
        return 0;
    const uint64_t rate = ops->pacing_rate ? ops->pacing_rate(&c->cc) : window_rate(c);
    if (!limit || rate == 0)
        return rate ? rate : limit;
    return min_u64(rate, limit);
}

uint32_t tcp_pacing_frame(const struct tcp_conn *c, uint32_t most)
{
    const uint64_t rate = tcp_pacing_rate(c);
    if (rate == 0)
        return most;
    const uint64_t bytes = max_u64(rate >> FRAME_SHIFT, 2ull * c->mss);
    return bytes >= most ? most : (uint32_t)bytes - (uint32_t)bytes % c->mss;
}

bool tcp_pacing_holds(struct stack_cx *cx, struct tcp_conn *c)
{
    if (cx->now >= c->pace_next || tcp_pacing_rate(c) == 0)
        return false;
    if (!tcp_timer_armed(c, TCP_TIMER_PACE))
        tcp_timer_set(cx, c, TCP_TIMER_PACE, c->pace_next);
    return true;
}

void tcp_pacing_sent(struct stack_cx *cx, struct tcp_conn *c, uint32_t len)
{
    const uint64_t rate = tcp_pacing_rate(c);
    if (rate == 0 || c->bytes_sent < UNPACED_SEGS * c->mss)
        return;
    const nsec_t took = (nsec_t)len * NSEC_PER_SEC / rate;
    const nsec_t floor = cx->now > CREDIT ? cx->now - CREDIT : 0;
    c->pace_next = max_u64(c->pace_next, floor) + took;
}
