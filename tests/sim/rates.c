/*
 * sim --rates: transfers over paths that are narrow, far, shared or do harm, and what they must
 * reach. Two hosts, a bottleneck with a queue from the first to the second; virtual time.
 */
#include "tests/sim/rates.h"

#include <stdio.h>

/* Fair: Jain's index of the flows' rates. */
#define FAIR 0.95

static const struct path paths[] = {
    {.name = "clean",
     TCP_CC_CUBIC,
     1,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 60},
    {.name = "clean, BBR",
     TCP_CC_BBR,
     1,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 75},
    {.name = "5 % reordered, up to 5 ms late",
     TCP_CC_CUBIC,
     1,
     .reorder = 50,
     .late = 5 * NSEC_PER_MSEC,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 30},
    {.name = "5 % reordered, up to 50 ms late",
     TCP_CC_CUBIC,
     1,
     .reorder = 50,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 4},
    {.name = "0.1 % lost",
     TCP_CC_CUBIC,
     1,
     .loss = 1,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 20},
    /*
     * What Mathis et al. 1997 give Reno: MSS / RTT * sqrt(3/2) / sqrt(p), here 7.1 and 4.1 Mbit/s.
     * CUBIC is as fast there: on so short a path it is in its Reno-friendly region (RFC 9438 4.3).
     */
    {.name = "1 % lost, Reno",
     TCP_CC_RENO,
     1,
     .loss = 10,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 6,
     .least = 5,
     .most = 10},
    {.name = "1 % lost",
     TCP_CC_CUBIC,
     1,
     .loss = 10,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 6,
     .least = 6,
     .most = 12},
    {.name = "3 % lost",
     TCP_CC_CUBIC,
     1,
     .loss = 30,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 3,
     .least = 3},
    {.name = "3 % lost, BBR",
     TCP_CC_BBR,
     1,
     .loss = 30,
     .mbits = 100,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 12,
     .least = 50},
    {.name = "four flows",
     TCP_CC_CUBIC,
     4,
     .mbits = 20,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 10,
     .least = 17},
    {.name = "four flows, Reno",
     TCP_CC_RENO,
     4,
     .mbits = 20,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 10,
     .least = 17},
    {.name = "ten flows, drop-tail",
     TCP_CC_CUBIC,
     10,
     .mbits = 40,
     .rtt_ms = 20,
     .queue_ms = 40,
     .megabytes = 8,
     .least = 34},
    {.name = "ten flows, marked above 5 ms",
     TCP_CC_CUBIC,
     10,
     .mbits = 40,
     .rtt_ms = 20,
     .queue_ms = 200,
     .mark_us = 5000,
     .megabytes = 8,
     .least = 34,
     .lossless = true},
    {.name = "asymmetric: the way back carries 300 kbit/s",
     TCP_CC_CUBIC,
     1,
     .mbits = 20,
     .back_kbits = 300,
     .rtt_ms = 20,
     .queue_ms = 60,
     .megabytes = 8,
     .least = 10},
    {.name = "a path that becomes twice as long",
     TCP_CC_CUBIC,
     1,
     .mbits = 50,
     .rtt_ms = 40,
     .queue_ms = 80,
     .megabytes = 12,
     .least = 35,
     .longer_at = 800 * NSEC_PER_MSEC},
    {.name = "two flows, marked above 5 ms",
     TCP_CC_CUBIC,
     2,
     .mbits = 50,
     .rtt_ms = 20,
     .queue_ms = 200,
     .mark_us = 5000,
     .megabytes = 12,
     .least = 35,
     .lossless = true},
    {.name = "two flows, accurate ECN, marked above 5 ms",
     TCP_CC_CUBIC,
     2,
     .mbits = 50,
     .rtt_ms = 20,
     .queue_ms = 200,
     .mark_us = 5000,
     .accurate = true,
     .megabytes = 12,
     .least = 35,
     .lossless = true},
    {.name = "two flows, DCTCP with accurate ECN, marked above 1 ms",
     TCP_CC_DCTCP,
     2,
     .mbits = 50,
     .rtt_ms = 10,
     .queue_ms = 100,
     .mark_us = 1000,
     .accurate = true,
     .megabytes = 12,
     .least = 35,
     .lossless = true},
    {.name = "two flows, DCTCP, marked above 1 ms",
     TCP_CC_DCTCP,
     2,
     .mbits = 50,
     .rtt_ms = 10,
     .queue_ms = 100,
     .mark_us = 1000,
     .megabytes = 12,
     .least = 35,
     .lossless = true},
    /*
     * A window that doubles each round trip from 10 segments needs 10 of them, and the handshake's,
     * for the 12.5 MB of this path. Linux's buffers follow so fast; twice the time is allowed.
     */
    {.name = "far and fast: buffers grow",
     TCP_CC_RENO,
     1,
     .mbits = 1000,
     .rtt_ms = 100,
     .queue_ms = 200,
     .megabytes = 150,
     .least = 400,
     .lossless = true,
     .buffers = 64,
     .rounds = 22},
    {.name = "far and fast: buffers grow, CUBIC",
     TCP_CC_CUBIC,
     1,
     .mbits = 1000,
     .rtt_ms = 100,
     .queue_ms = 200,
     .megabytes = 150,
     .least = 400,
     .lossless = true,
     .buffers = 64,
     .rounds = 22},
};

static const struct path *chosen;
nsec_t rates_marks[MARKS_MAX];

static void make_host(struct sim *s, unsigned i)
{
    struct host *h = &s->hosts[i];
    h->sim = s;
    h->index = i;
    h->ip = ip4(10, 0, 0, i + 1);
    memcpy(h->mac, (uint8_t[6]){2, 0, 0, 0, 1, (uint8_t)(i + 1)}, 6);
    h->mtu = 1500;
    h->out.delay = chosen->rtt_ms * NSEC_PER_MSEC / 2;
    if (i == 0) {
        h->out.ns_per_byte = 8000 / chosen->mbits;
        h->out.queue_max = chosen->queue_ms * NSEC_PER_MSEC;
        h->out.mark_above = chosen->mark_us * NSEC_PER_USEC;
        h->out.loss = chosen->loss;
        h->out.loss_ppm = chosen->loss_ppm;
        h->out.reorder = chosen->reorder;
        h->out.reorder_max = chosen->late;
    } else if (chosen->back_kbits) {
        h->out.ns_per_byte = 8000000 / chosen->back_kbits;
        h->out.queue_max = chosen->queue_ms * NSEC_PER_MSEC;
    }
    host_start(h, (size_t)(24 + 3 * chosen->buffers) << 20, false, false);
    h->cx.st->config.tuning.rcvbuf_max = h->cx.st->config.tuning.sndbuf_max = chosen->buffers << 20;
    h->cx.st->config.cc = chosen->cc;
    h->cx.st->config.ecn = chosen->accurate  ? STACK_ECN_ACCURATE
                           : chosen->mark_us ? STACK_ECN_ASK
                                             : STACK_ECN_OFF;
    host_listen(h, 0, 16);
}

static void make_pair(struct sim *s, unsigned i)
{
    struct pair *p = &s->pairs[i];
    p->number = i;
    for (unsigned side = 0; side < 2; side++) {
        struct app *a = &p->app[side];
        a->sim = s;
        a->host = &s->hosts[side];
        a->pair = p;
        a->side = (uint8_t)side;
        a->send_chunk = a->recv_chunk = 65536;
        a->reno = i < chosen->renos;
        p->at[side].addr = ip_addr_from_v4(__builtin_bswap32(s->hosts[side].ip));
        p->at[side].port = (uint16_t)(side ? LISTEN_BASE : 10000 + i);
    }
    p->app[0].total = (uint64_t)chosen->megabytes << 20;
    p->app[0].end = END_SHUTDOWN;
    p->app[1].end = END_AFTER_EOF;
    p->app[1].marks = rates_marks;
    p->app[1].marks_max = MARKS_MAX;
    p->clean = true;
    p->start = s->now + i * 50 * NSEC_PER_MSEC;
    struct event *e = event_new(s, EV_START, p->start, p->app[0].host, 0);
    e->arg = &p->app[0];
    event_push(s, e);
}

static void make(struct sim *s)
{
    s->mild = true;
    s->nhosts = 2;
    s->npairs = chosen->flows;
    s->bytes_total = (uint64_t)chosen->flows * chosen->megabytes << 20;
    s->frames_max = 2000000;
    s->faults_end = s->now + 1000 * NSEC_PER_SEC;
    for (unsigned i = 0; i < 2; i++)
        make_host(s, i);
    for (unsigned i = 0; i < chosen->flows; i++)
        make_pair(s, i);
    if (chosen->longer_at)
        event_push(s, event_new(s, EV_LONGER, s->now + chosen->longer_at, &s->hosts[0], 0));
    event_push(s, event_new(s, EV_FAULTS_END, s->faults_end, NULL, 0));
    event_push(s, event_new(s, EV_WATCH, s->now + 100 * NSEC_PER_SEC, NULL, 0));
}

/* Jain, Chiu, Hawe 1984; of one flow: 1. */
static double fairness(const struct sim *s)
{
    double sum = 0, squares = 0;
    for (unsigned i = 0; i < s->npairs; i++) {
        const double rate = 1e9 / (double)(s->pairs[i].app[1].progress - s->pairs[i].start);
        sum += rate;
        squares += rate * rate;
    }
    return sum * sum / (s->npairs * squares);
}

static double total_rate(const struct sim *s)
{
    nsec_t last = 0;
    for (unsigned i = 0; i < s->npairs; i++)
        last = max_u64(last, s->pairs[i].app[1].progress);
    return (double)s->bytes_total * 8e3 / (double)max_u64(last - s->pairs[0].start, 1);
}

/* Round trips from the first SYN until a round trip's worth came at 90 % of the bottleneck's rate;
 * 0: never. */
static unsigned rounds_to_rate(const struct path *p, const struct sim *s)
{
    /* text in a packet of 1500 bytes and its Ethernet header */
    const double rate = p->mbits / 8e3 * 1448 / 1514; /* bytes a nanosecond */
    const unsigned window =
        (unsigned)(rate * (double)(p->rtt_ms * NSEC_PER_MSEC) / (double)MARK_BYTES);
    for (unsigned i = window; i < p->megabytes && i < MARKS_MAX; i++)
        if ((double)(window * MARK_BYTES) >=
            0.9 * rate * (double)(rates_marks[i] - rates_marks[i - window]))
            return 1 +
                   (unsigned)((rates_marks[i] - s->pairs[0].start) / (p->rtt_ms * NSEC_PER_MSEC));
    return 0;
}

/* NULL, or what was not reached. */
static const char *falls_short(const struct path *p, const struct sim *s)
{
    if (total_rate(s) < p->least)
        return "too slow";
    if (p->most > 0 && total_rate(s) > p->most)
        return "more than its share";
    if (p->rounds && (rounds_to_rate(p, s) == 0 || rounds_to_rate(p, s) > p->rounds))
        return "too many round trips";
    if (fairness(s) < FAIR)
        return "not fair";
    if (p->lossless && stack_counter(s->hosts[0].cx.st, COUNT_RETRANS) > 0)
        return "marks did not prevent losses";
    if (p->mark_us && stack_counter(s->hosts[0].cx.st, COUNT_ECN_REDUCED) == 0)
        return "marks were not heeded";
    return NULL;
}

const char *rates_play(const struct path *p, bool verbose, const struct sim **played)
{
    chosen = p;
    return sim_play(1, verbose, make, played);
}

unsigned sim_rates(bool verbose)
{
    unsigned rows, failed = sim_models(verbose, &rows);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const struct path *p = &paths[i];
        const struct sim *s;
        const char *why = rates_play(p, verbose, &s);
        if (!why)
            why = falls_short(p, s);
        printf("rate, %s: %.1f Mbit/s (at least %.0f)", p->name, total_rate(s), p->least);
        if (p->flows > 1)
            printf(", fairness %.3f", fairness(s));
        if (p->rounds)
            printf(", 90 %% of the bottleneck after %u round trips (at most %u)",
                   rounds_to_rate(p, s), p->rounds);
        printf("%s%s\n", why ? ": " : "", why ? why : "");
        failed += why != NULL;
    }
    printf("sim: %zu passed, %u failed, 0 skipped\n", ARRAY_LEN(paths) + rows - failed, failed);
    return failed;
}
