/* One seed: the loop of virtual time, and what must hold at its end. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* From the start to the very end, TIME_WAIT included. An orphan's last retry comes after 15 minutes
 * and more. */
#define TIME_MAX (3 * 3600 * NSEC_PER_SEC)

_Noreturn void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->why, sizeof(s->why), fmt, ap);
    va_end(ap);
    if (s->verbose)
        sim_say(s, NULL, "FAILED: %s", s->why);
    longjmp(s->out, 1);
}

void sim_say(struct sim *s, const struct host *h, const char *fmt, ...)
{
    if (!s->verbose)
        return;
    printf("%12.6f ", (double)(s->now - SIM_EPOCH) / 1e9);
    if (h)
        printf("h%u ", h->index + 1);
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

static void faults_end(struct sim *s)
{
    s->faults_over = true;
    sim_say(s, NULL, "faults end");
    for (unsigned i = 0; i < s->nhosts; i++) {
        struct host *h = &s->hosts[i];
        struct impairment *im = &h->out;
        im->loss = im->dup = im->reorder = im->corrupt = im->mark = 0;
        im->jitter = 0;
        h->down_to = min_u64(h->down_to, s->now);
    }
}

static void watch(struct sim *s)
{
    for (unsigned i = 0; i < s->npairs; i++)
        for (unsigned side = 0; side < 2; side++) {
            struct app *a = &s->pairs[i].app[side];
            if (a->state == APP_IDLE)
                continue;
            a->host->cx.now = host_clock(a->host);
            app_watch(a);
        }
    for (unsigned i = 0; i < s->nhosts; i++) {
        s->hosts[i].cx.now = host_clock(&s->hosts[i]);
        host_settle(&s->hosts[i]);
    }
    event_push(s, event_new(s, EV_WATCH, s->now + 100 * NSEC_PER_SEC, NULL, 0));
}

static void happen(struct sim *s, struct event *e)
{
    struct host *h = e->host;
    if (h)
        h->cx.now = host_clock(h);
    else if (e->kind >= EV_LONGER && e->kind <= EV_JUMP)
        return;
    switch (e->kind) {
    case EV_FRAME:
        net_arrive(s, e); /* takes the event */
        host_settle(h);
        return;
    case EV_RX_BATCH:
        net_receive(h);
        break;
    case EV_APP: {
        struct app *a = e->arg;
        a->sleeping = false;
        host_wake(h, a);
        break;
    }
    case EV_START:
        app_connect(e->arg);
        break;
    case EV_ACCEPT:
        *(bool *)e->arg = true;
        break;
    case EV_LISTENER:
        host_toggle_listener(h, (unsigned)(uintptr_t)e->arg);
        break;
    case EV_WATCH:
        watch(s);
        break;
    case EV_LONGER:
        h->out.delay *= 2;
        break;
    case EV_ROUTE:
        net_reroute(h);
        break;
    case EV_RESTART:
        host_restart(h);
        break;
    case EV_JUMP:
        h->ahead += (nsec_t)(uintptr_t)e->arg;
        h->cx.now = host_clock(h);
        sim_say(s, h, "clock jumps by %llu ms",
                (unsigned long long)((nsec_t)(uintptr_t)e->arg / NSEC_PER_MSEC));
        break;
    case EV_FAULTS_END:
        faults_end(s);
        break;
    }
    if (h)
        host_settle(h);
    free(e);
}

/* Whether programs and engines have nothing left to do. */
static bool all_over(struct sim *s)
{
    if (!s->faults_over)
        return false;
    for (unsigned i = 0; i < s->npairs; i++) {
        const struct pair *p = &s->pairs[i];
        if (p->after && !p->scheduled) /* waits for one that is seen below, or for nothing */
            continue;
        if (p->app[0].state != APP_ENDED)
            return false;
        if (p->app[1].state != APP_ENDED && (p->simultaneous || p->app[1].state != APP_IDLE))
            return false;
    }
    for (unsigned i = 0; i < s->nhosts; i++) {
        struct tcp_stack *t = &s->hosts[i].cx.st->tcp;
        if (t->conns.live || t->half_opens.live || t->time_waits.live)
            return false;
    }
    return true;
}

static void loop(struct sim *s)
{
    for (unsigned n = 0, spins = 0;; n++) {
        if (n % 16 == 0 && all_over(s))
            return;
        nsec_t at = event_next(s);
        struct host *timer = NULL;
        for (unsigned i = 0; i < s->nhosts; i++)
            if (s->hosts[i].deadline < at) {
                at = s->hosts[i].deadline;
                timer = &s->hosts[i];
            }
        if (at > SIM_EPOCH + TIME_MAX) {
            if (all_over(s))
                return;
            for (unsigned i = 0; i < s->nhosts; i++) {
                struct tcp_stack *t = &s->hosts[i].cx.st->tcp;
                sim_say(s, &s->hosts[i], "%u connections, %u half-open, %u TIME_WAIT",
                        t->conns.live, t->half_opens.live, t->time_waits.live);
            }
            sim_fail(s, "not all connections have ended after three hours");
        }
        spins = at > s->now ? 0 : spins + 1;
        if (spins > 200000)
            sim_fail(s, "time does not advance");
        if (at > s->now)
            s->now = at;
        if (timer) {
            timer->cx.now = host_clock(timer);
            stack_run_timers(&timer->cx);
            host_settle(timer);
        } else {
            happen(s, event_pop(s));
        }
    }
}

static void judge_app(struct sim *s, struct app *a)
{
    const struct app *peer = app_peer(a);
    unsigned nr = a->pair->number;
    if (a->state != APP_ENDED)
        sim_fail(s, "app %u.%u never had its connection", nr, a->side);
    if (a->error)
        sim_fail(s, "app %u.%u: error %d", nr, a->side, a->error);
    if (a->sent != a->total)
        sim_fail(s, "app %u.%u sent %llu of %llu", nr, a->side, (unsigned long long)a->sent,
                 (unsigned long long)a->total);
    if (a->end != END_CLOSE && (!a->eof || a->received != peer->total))
        sim_fail(s, "app %u.%u received %llu of %llu", nr, a->side, (unsigned long long)a->received,
                 (unsigned long long)peer->total);
}

/* On a network that loses nothing whatever is sent twice was sent for nothing. */
/* Loss probes may go: a slow reader's ACK can be later than two round trips, on Linux too. */
static void judge_perfect(struct sim *s, struct host *h)
{
    static const enum stack_counter none[] = {COUNT_RETRANS,     COUNT_RTOS,     COUNT_PAWS,
                                              COUNT_BAD_TCP,     COUNT_BAD_IP,   COUNT_BAD_TCP_CSUM,
                                              COUNT_BAD_IP_CSUM, COUNT_TX_FAILED};
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        uint64_t n = stack_counter(h->cx.st, none[i]);
        if (n)
            sim_fail(s, "host %u: %s is %llu in a world without faults", h->index,
                     stack_counter_names[none[i]], (unsigned long long)n);
    }
}

static uint32_t window_of(const struct app *from, const struct app *to)
{
    uint32_t snd = from->sndbuf ? from->sndbuf : 64000, rcv = to->rcvbuf ? to->rcvbuf / 2 : 64000;
    return min_u32(snd, rcv) / 2;
}

/* Nor may a connection dawdle there: so many round trips as its windows need, and a delayed ACK in
 * each. */
static void judge_speed(struct sim *s, struct pair *p)
{
    nsec_t rtt = 45 * NSEC_PER_MSEC, last = 0;
    uint64_t rounds = 20;
    for (unsigned i = 0; i < 2; i++) {
        const struct app *a = &p->app[i];
        if (a->send_think || a->recv_think || a->host->slow_acceptor)
            return;
        /*
         * A receive buffer that was made smaller than half of the largest window ever offered, and
         * than one of the loopback's large segments: sender's SWS avoidance waits for the persist
         * timer each time, in Linux too.
         */
        if (a->rcvbuf && a->host == app_peer(&p->app[i])->host)
            return;
        last = max_u64(last, a->progress);
        rtt += a->host->out.delay;
        rounds += 2 * (a->total / window_of(a, app_peer(&p->app[i])));
    }
    if (last > p->start + 1500 * NSEC_PER_MSEC + rounds * rtt)
        sim_fail(s, "pair %u took %llu ms in a world without faults", p->number,
                 (unsigned long long)((last - p->start) / NSEC_PER_MSEC));
}

static void judge(struct sim *s)
{
    for (unsigned i = 0; s->mild && i < s->npairs; i++) {
        struct pair *p = &s->pairs[i];
        if (!p->clean || (p->after && !p->scheduled))
            continue;
        judge_app(s, &p->app[0]);
        judge_app(s, &p->app[1]);
        if (s->perfect)
            judge_speed(s, p);
    }
    for (unsigned i = 0; i < s->nhosts; i++) {
        struct host *h = &s->hosts[i];
        if (tcp_check_invariants(h->cx.st) || stack_counter(h->cx.st, COUNT_INVARIANT))
            sim_fail(s, "host %u: invariants broken at the end", i);
        host_check_memory(h);
        if (s->perfect)
            judge_perfect(s, h);
    }
}

const char *sim_play(uint64_t seed, bool verbose, void (*make)(struct sim *s),
                     const struct sim **world)
{
    static struct sim sim;
    struct sim *s = &sim;
    *world = s;
    event_free_all(s);
    memset(s, 0, sizeof(*s));
    s->seed = seed;
    s->verbose = verbose;
    s->plan_rng.s = seed * 2 + 1;
    s->rng.s = ~seed;
    s->now = SIM_EPOCH + prng_below(&s->plan_rng, NSEC_PER_SEC);
    if (setjmp(s->out))
        return s->why;
    make(s);
    loop(s);
    judge(s);
    sim_say(s, NULL, "passed: %llu frames", (unsigned long long)s->frames);
    return NULL;
}

const char *sim_run(uint64_t seed, bool verbose)
{
    const struct sim *world;
    return sim_play(seed, verbose, scenario_make, &world);
}
