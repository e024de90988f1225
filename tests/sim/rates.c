/*
 * sim --rates: one transfer over each of some paths that do harm, and the rate it must reach. Two
 * hosts, 100 Mbit/s, 20 ms of round trip; virtual time.
 */
#include "tests/sim/sim.h"

#include <stdio.h>

struct path {
    const char *name;
    unsigned loss, reorder; /* permille */
    nsec_t late;            /* how late a reordered frame may be; 0: up to five one-way delays */
    double least;           /* Mbit/s */
};

static const struct path paths[] = {
    {"clean", 0, 0, 0, 60},
    {"5 % reordered, up to 5 ms late", 0, 50, 5 * NSEC_PER_MSEC, 30},
    {"5 % reordered, up to 50 ms late", 0, 50, 0, 4},
    {"0.1 % lost", 1, 0, 0, 10},
};
#define TRANSFER (12u << 20)

static const struct path *chosen;

static void make(struct sim *s)
{
    s->mild = true;
    s->nhosts = 2;
    s->npairs = 1;
    s->bytes_total = TRANSFER;
    s->frames_max = 1000000;
    s->faults_end = s->now + 1000 * NSEC_PER_SEC;
    for (unsigned i = 0; i < 2; i++) {
        struct host *h = &s->hosts[i];
        h->sim = s;
        h->index = i;
        h->ip = ip4(10, 0, 0, i + 1);
        memcpy(h->mac, (uint8_t[6]){2, 0, 0, 0, 1, (uint8_t)(i + 1)}, 6);
        h->mtu = 1500;
        h->out = (struct impairment){
            .delay = 10 * NSEC_PER_MSEC, .ns_per_byte = 80, .queue_max = 40 * NSEC_PER_MSEC};
        host_start(h, (size_t)12 << 20, false, false);
        host_listen(h, 0, 16);
    }
    s->hosts[0].out.loss = chosen->loss;
    s->hosts[0].out.reorder = chosen->reorder;
    s->hosts[0].out.reorder_max = chosen->late;
    struct pair *p = &s->pairs[0];
    for (unsigned side = 0; side < 2; side++) {
        struct app *a = &p->app[side];
        a->sim = s;
        a->host = &s->hosts[side];
        a->pair = p;
        a->side = (uint8_t)side;
        a->send_chunk = a->recv_chunk = 65536;
        p->at[side].addr = ip_addr_from_v4(__builtin_bswap32(s->hosts[side].ip));
        p->at[side].port = side ? LISTEN_BASE : 10000;
    }
    p->app[0].total = TRANSFER;
    p->app[0].end = END_SHUTDOWN;
    p->app[1].end = END_AFTER_EOF;
    p->clean = true;
    p->start = s->now;
    struct event *e = event_new(s, EV_START, p->start, p->app[0].host, 0);
    e->arg = &p->app[0];
    event_push(s, e);
    event_push(s, event_new(s, EV_FAULTS_END, s->faults_end, NULL, 0));
    event_push(s, event_new(s, EV_WATCH, s->now + 100 * NSEC_PER_SEC, NULL, 0));
}

unsigned sim_rates(bool verbose)
{
    unsigned failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        chosen = &paths[i];
        const struct sim *s;
        const char *why = sim_play(1, verbose, make, &s);
        const struct pair *p = &s->pairs[0];
        const nsec_t took = max_u64(p->app[1].progress - p->start, 1);
        const double rate = TRANSFER * 8e3 / (double)took;
        const bool slow = !why && rate < paths[i].least;
        printf("rate, %s: %.1f Mbit/s (at least %.0f)%s%s\n", paths[i].name, rate, paths[i].least,
               why    ? ": "
               : slow ? ": too slow"
                      : "",
               why ? why : "");
        failed += why || slow;
    }
    printf("sim: %zu passed, %u failed, 0 skipped\n", ARRAY_LEN(paths) - failed, failed);
    return failed;
}
