/*
 * sim --rates, second part: one flow that loses segments at random against what the analytic models
 * say it reaches, and CUBIC beside Reno. Losses are drawn for each frame, a frame is one segment,
 * every ACK arrives.
 *
 *   Reno: at most Mathis, Semke, Mahdavi, Ott 1997, W = sqrt(3 / (2 b p)) segments, at least
 *   Padhye, Firoiu, Towsley, Kurose 1998 (30), which has time-outs. cwnd grows by the bytes
 *   acknowledged (RFC 3465), not by ACKs: b = 1 although ACKs are delayed.
 *   CUBIC: RFC 9438 5.1, W = (C (3 + beta) / (4 (1 - beta)))^(1/4) (RTT / p)^(3/4), or Reno's where
 *   that is more (4.3). The RFC's losses are evenly spaced; random ones give the same window curve
 * a mean that is 1.09 to 1.18 times as large in these rows.
 */
#include "tests/sim/rates.h"

#include <math.h>
#include <stdio.h>

#define SEGMENT 1448 /* bytes of text in a packet of 1500, with timestamps */

/* How far a run of some hundred losses may be from the model. */
#define BELOW 0.8
#define ABOVE 1.25
/* of random losses to evenly spaced ones, in CUBIC's model */
#define RANDOM 1.18

struct row {
    uint8_t cc;
    unsigned loss_ppm;
    unsigned rtt_ms;
    unsigned megabytes;
};

static const struct row rows[] = {
    {TCP_CC_RENO, 1000, 20, 150},   {TCP_CC_RENO, 1000, 100, 150}, {TCP_CC_RENO, 3000, 100, 60},
    {TCP_CC_RENO, 10000, 50, 40},   {TCP_CC_RENO, 10000, 200, 40}, {TCP_CC_RENO, 30000, 100, 20},
    {TCP_CC_CUBIC, 1000, 20, 150},  {TCP_CC_CUBIC, 10000, 50, 40}, {TCP_CC_CUBIC, 1000, 200, 150},
    {TCP_CC_CUBIC, 3000, 400, 100}, {TCP_CC_CUBIC, 1000, 800, 150}};

/* All in segments a second. */
static double mathis(double p, double rtt)
{
    return sqrt(1.5 / p) / rtt;
}

static double padhye(double p, double rtt)
{
    const double rto = fmax(0.2, rtt) + rtt;
    return 1 / (rtt * sqrt(p / 1.5) + rto * fmin(1, 3 * sqrt(3 * p / 8)) * p * (1 + 32 * p * p));
}

static double cubic(double p, double rtt)
{
    const double c = 0.4, beta = 0.7;
    return pow(c * (3 + beta) / (4 * (1 - beta)), 0.25) * pow(rtt / p, 0.75) / rtt;
}

static bool row_holds(const struct row *r, bool verbose)
{
    const struct path path = {.name = "model",
                              .cc = r->cc,
                              .flows = 1,
                              .loss_ppm = r->loss_ppm,
                              .mbits = 1000,
                              .rtt_ms = r->rtt_ms,
                              .queue_ms = 200,
                              .megabytes = r->megabytes};
    const struct sim *s;
    const char *why = rates_play(&path, verbose, &s);
    const bool reno = r->cc == TCP_CC_RENO;
    const double p = r->loss_ppm / 1e6, rtt = r->rtt_ms / 1e3;
    const double unit = SEGMENT * 8 / 1e6; /* Mbit */
    const double curve = fmax(cubic(p, rtt), mathis(p, rtt));
    const double least = BELOW * unit * (reno ? padhye(p, rtt) : curve);
    const double most = ABOVE * unit * (reno ? mathis(p, rtt) : RANDOM * curve);
    /* the first tenth is slow start's */
    const unsigned from = r->megabytes / 10, to = r->megabytes - 1;
    const double rate =
        (double)((to - from) * MARK_BYTES) * 8e3 / (double)(rates_marks[to] - rates_marks[from]);
    if (!why && rate < least)
        why = "too slow";
    if (!why && rate > most)
        why = "faster than the model: not congestion avoidance any more";
    printf("model, %s, %g %% lost, RTT %u ms: %.2f Mbit/s (%.2f to %.2f)%s%s\n",
           reno ? "Reno" : "CUBIC", p * 100, r->rtt_ms, rate, least, most, why ? ": " : "",
           why ? why : "");
    return why == NULL;
}

/*
 * RFC 9438 4.3: where Reno does well, CUBIC takes what Reno would. One flow of each shares a
 * bottleneck with a drop-tail queue; while both run, each has at least half of what the other has.
 */
static bool shares(unsigned queue_ms, bool verbose)
{
    const struct path path = {.name = "CUBIC beside Reno",
                              .cc = TCP_CC_CUBIC,
                              .flows = 2,
                              .renos = 1,
                              .mbits = 10,
                              .rtt_ms = 20,
                              .queue_ms = queue_ms,
                              .megabytes = 30};
    const struct sim *s;
    const char *why = rates_play(&path, verbose, &s);
    const nsec_t reno = s->pairs[0].app[1].progress - s->pairs[0].start;
    const nsec_t cub = s->pairs[1].app[1].progress - s->pairs[0].start;
    /* the slower one had the bottleneck to itself when the other was through */
    const double longest = (double)max_u64(reno, cub), first = (double)min_u64(reno, cub);
    const double share = 1 - 2 * (longest - first) / longest;
    if (!why && share < 0.5)
        why = "not fair";
    printf(
        "CUBIC beside Reno, queue of %u ms: %s has %.2f of the other's rate (at least 0.5)%s%s\n",
        queue_ms, reno > cub ? "Reno" : "CUBIC", share, why ? ": " : "", why ? why : "");
    return why == NULL;
}

unsigned sim_models(bool verbose, unsigned *nrows)
{
    static const unsigned queues_ms[] = {20, 40};
    unsigned failed = 0;
    *nrows = ARRAY_LEN(rows) + ARRAY_LEN(queues_ms);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        failed += !row_holds(&rows[i], verbose);
    for (size_t i = 0; i < ARRAY_LEN(queues_ms); i++)
        failed += !shares(queues_ms[i], verbose);
    return failed;
}
