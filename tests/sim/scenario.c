/* From a seed to a world: hosts, links, faults, and what each program will do. */
#include "tests/sim/sim.h"

#define MEGABYTE ((size_t)1 << 20)

/* What kind of world it is. */
enum theme {
    THEME_PLAIN,
    THEME_LOSSY,
    THEME_REORDER,
    THEME_CORRUPT,
    THEME_DOWN,
    THEME_EVERYTHING,
    THEME_NARROW, /* little bandwidth, short queues */
    THEME_SMALL_MTU,
    THEME_PMTU,
    THEME_STORM,  /* many connections, short backlogs */
    THEME_MEMORY, /* more data than the arenas hold */
    THEME_LOOPBACK,
    THEME_REUSE,   /* connections that take over the ports of others */
    THEME_RESTART, /* so, and hosts that forget what they were doing: RFC 9293 3.5.1 */
    THEME_ROUTES,  /* paths change */
    THEME_CLOCKS,  /* clocks jump ahead, and the timestamps with them */
    THEME_COUNT
};

static bool reuses(enum theme theme)
{
    return theme == THEME_REUSE || theme == THEME_RESTART;
}

static nsec_t pick_delay(struct prng *r)
{
    switch (prng_below(r, 4)) {
    case 0:
        return 20 * NSEC_PER_USEC;
    case 1:
        return prng_range(r, 50, 2000) * NSEC_PER_USEC;
    case 2:
        return prng_range(r, 1, 60) * NSEC_PER_MSEC;
    default:
        return prng_range(r, 5, 300) * NSEC_PER_USEC;
    }
}

static void make_link(struct sim *s, struct host *h, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    struct impairment *im = &h->out;
    unsigned hard = s->mild ? 1 : 3;
    bool all = theme == THEME_EVERYTHING;
    im->delay = pick_delay(r);
    if (s->perfect)
        return;
    im->jitter = prng_one_in(r, 3) ? prng_below(r, im->delay + 1) : 0;
    if (theme == THEME_LOSSY || all || prng_one_in(r, 8))
        im->loss = (unsigned)prng_range(r, 1, 50 * hard);
    if (theme == THEME_REORDER || all || prng_one_in(r, 8)) {
        im->reorder = (unsigned)prng_range(r, 10, 300);
        im->dup = (unsigned)prng_range(r, 0, 100 * hard);
    }
    if (theme == THEME_CORRUPT || all || prng_one_in(r, 16))
        im->corrupt = (unsigned)prng_range(r, 1, 30 * hard);
    if (all || prng_one_in(r, 4))
        im->mark = (unsigned)prng_range(r, 1, 200 * hard);
    if (theme == THEME_NARROW || (all && prng_one_in(r, 2))) {
        im->ns_per_byte = prng_range(r, 8, 2000);
        im->queue_max = prng_range(r, 2, 200) * NSEC_PER_MSEC;
    }
    if (theme == THEME_DOWN || all) {
        h->down_from = s->now + prng_below(r, 3 * NSEC_PER_SEC);
        h->down_to = h->down_from + prng_below(r, (s->mild ? 3 : 60) * NSEC_PER_SEC);
    }
    if (theme == THEME_PMTU)
        im->pmtu = (uint32_t)prng_range(r, 600, 1400);
    im->silent = im->pmtu && s->seed % 3 == 0;
}

static void make_host(struct sim *s, unsigned i, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    struct host *h = &s->hosts[i];
    h->sim = s;
    h->index = i;
    h->ip = ip4(10, 0, 0, i + 1);
    memcpy(h->mac, (uint8_t[6]){2, 0, 0, 0, 1, (uint8_t)(i + 1)}, 6);
    h->mtu = 1500;
    if (theme == THEME_SMALL_MTU || prng_one_in(r, 20))
        h->mtu = (uint32_t)prng_range(r, 300, 1499);
    else if (prng_one_in(r, 12))
        h->mtu = 9000;
    h->csum_offload = prng_one_in(r, 2);
    h->gso = h->csum_offload && !prng_one_in(r, 3);
    h->virtual_link = h->csum_offload && prng_one_in(r, 2);
    h->coalesces = prng_one_in(r, 2);
    h->rx_wait = prng_one_in(r, 2) ? prng_range(r, 1, 100) * NSEC_PER_USEC : 0;
    h->slow_acceptor = prng_one_in(r, 10);
    make_link(s, h, theme);
    host_start(h, theme == THEME_MEMORY ? 8 * MEGABYTE : 12 * MEGABYTE, theme == THEME_LOOPBACK,
               prng_one_in(r, 40));
    h->cx.st->config.tuning.mtu_probing =
        (uint8_t)(h->out.silent ? 1 + s->seed / 3 % 2 : s->seed % 3);
    bool short_backlog = theme == THEME_STORM && prng_one_in(r, 2);
    for (unsigned k = 0; k < LISTENERS_MAX; k++)
        host_listen(h, k, short_backlog ? (int)prng_below(r, 5) : 1024);
    if (short_backlog)
        s->mild = false;
}

static uint64_t pick_size(struct sim *s, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    if (theme == THEME_MEMORY)
        return prng_range(r, 1 << 18, 1 << 20);
    if (theme == THEME_STORM)
        return prng_skewed(r, 3000);
    if (s->seed % 997 == 0)
        return prng_range(r, 1 << 20, 6 << 20);
    if (prng_one_in(r, 30))
        return prng_range(r, 1 << 16, 1 << 20);
    return prng_skewed(r, 1 << 16);
}

static void make_app(struct sim *s, struct pair *p, unsigned side, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    struct app *a = &p->app[side];
    a->sim = s;
    a->pair = p;
    a->side = (uint8_t)side;
    a->total = pick_size(s, theme);
    a->stop_at = prng_below(r, a->total + 1);
    a->send_chunk = (uint32_t)prng_range(r, 1, prng_one_in(r, 2) ? 65536 : 3000);
    a->recv_chunk = (uint32_t)prng_range(r, 1, prng_one_in(r, 2) ? 65536 : 3000);
    /* at most some thousands of calls for one connection */
    a->send_chunk = (uint32_t)min_u64(max_u64(a->send_chunk, a->total / 500), 65536);
    if (prng_one_in(r, 5))
        a->send_think = prng_range(r, 1, 200) * NSEC_PER_MSEC / (1 + a->total / a->send_chunk / 20);
    if (prng_one_in(r, 5))
        a->recv_think = prng_range(r, 1, 200) * NSEC_PER_MSEC;
    a->nodelay = prng_one_in(r, 2);
    a->cork = prng_one_in(r, 8);
    a->keepalive = prng_one_in(r, 8);
    a->pmtu_dont = theme == THEME_PMTU && prng_one_in(r, 3);
    a->peeks = prng_one_in(r, 8);
    if (prng_one_in(r, 6))
        a->sndbuf = (uint32_t)prng_range(r, TCP_BUF_MIN, 30000);
    if (prng_one_in(r, 6))
        a->rcvbuf = (uint32_t)prng_range(r, 2304, 30000);
    if (prng_one_in(r, 12))
        a->rcvlowat = (uint32_t)prng_range(r, 2, 5000);
    if (prng_one_in(r, 25))
        a->user_mss = (uint32_t)prng_range(r, 88, 1460);
}

static void make_ends(struct sim *s, struct pair *p)
{
    struct prng *r = &s->plan_rng;
    struct app *a = &p->app[0], *b = &p->app[1];
    a->end = b->end = END_SHUTDOWN;
    p->clean = true;
    switch (prng_below(r, 8)) {
    case 0:
    case 1:
        break;
    case 2:
        a->end = END_AFTER_EOF;
        break;
    case 3:
        b->end = END_AFTER_EOF;
        break;
    case 4: /* the sender closes at once; the reader has nothing to say */
        a->end = END_CLOSE;
        b->end = END_AFTER_EOF;
        b->total = 0;
        break;
    case 5:
        b->end = END_CLOSE;
        a->end = END_AFTER_EOF;
        a->total = 0;
        break;
    default:
        p->clean = false;
        a->end = (enum app_end)prng_below(r, 5);
        b->end = (enum app_end)prng_below(r, 5);
        if (a->end == END_AFTER_EOF && b->end == END_AFTER_EOF)
            a->end = END_SHUTDOWN;
    }
    /* reading one byte a time would take for ever */
    for (unsigned k = 0; k < 2; k++) {
        struct app *x = &p->app[k];
        uint64_t in = p->app[!k].total;
        x->recv_chunk = (uint32_t)min_u64(max_u64(x->recv_chunk, in / 500), 65536);
        x->recv_think /= 1 + in / x->recv_chunk / 20;
        x->stop_at = x->end == END_UNREAD ? prng_below(r, in + 1) : x->stop_at;
    }
}

static void make_pair(struct sim *s, unsigned i, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    struct pair *p = &s->pairs[i];
    p->number = i;
    for (unsigned side = 0; side < 2; side++)
        make_app(s, p, side, theme);
    unsigned client = (unsigned)prng_below(r, s->nhosts);
    unsigned server = (client + 1 + (unsigned)prng_below(r, s->nhosts - 1)) % s->nhosts;
    if (theme == THEME_LOOPBACK && prng_one_in(r, 2))
        server = client;
    p->app[0].host = &s->hosts[client];
    p->app[1].host = &s->hosts[server];
    p->listener = (unsigned)prng_below(r, LISTENERS_MAX);
    p->simultaneous = client != server && !reuses(theme) && prng_one_in(r, 12);
    p->salt[0] = (uint32_t)prng_u64(r);
    p->salt[1] = (uint32_t)prng_u64(r);
    /* one port for each pair: a name for it at both ends */
    p->at[0].addr = ip_addr_from_v4(__builtin_bswap32(s->hosts[client].ip));
    p->at[0].port = (uint16_t)(10000 + i);
    p->at[1].addr = ip_addr_from_v4(__builtin_bswap32(s->hosts[server].ip));
    p->at[1].port = (uint16_t)(p->simultaneous ? 30000 + i : LISTEN_BASE + p->listener);
    if (reuses(theme) && i >= 2) {
        p->after = &s->pairs[i - 2];
        p->simultaneous = false;
        p->listener = p->after->listener;
        for (unsigned side = 0; side < 2; side++) {
            p->app[side].host = p->after->app[side].host;
            p->at[side] = p->after->at[side];
        }
    }
    p->start = s->now + prng_below(r, theme == THEME_STORM ? 20 * NSEC_PER_MSEC : 2 * NSEC_PER_SEC);
    make_ends(s, p);
    s->bytes_total += p->app[0].total + p->app[1].total;
    for (unsigned side = 0; side < (p->after ? 0u : p->simultaneous ? 2u : 1u); side++) {
        struct event *e = event_new(s, EV_START, p->start, p->app[side].host, 0);
        e->arg = &p->app[side];
        event_push(s, e);
    }
}

/* What the theme does to hosts and paths while connections are at work. */
static void make_upheavals(struct sim *s, enum theme theme)
{
    struct prng *r = &s->plan_rng;
    const enum event_kind kind = theme == THEME_RESTART  ? EV_RESTART
                                 : theme == THEME_ROUTES ? EV_ROUTE
                                                         : EV_JUMP;
    if (theme != THEME_RESTART && theme != THEME_ROUTES && theme != THEME_CLOCKS)
        return;
    for (uint64_t n = prng_range(r, 1, 4); n > 0; n--) {
        struct host *h = &s->hosts[prng_below(r, s->nhosts)];
        struct event *e = event_new(s, kind, s->now + prng_below(r, 4 * NSEC_PER_SEC), h, 0);
        if (kind == EV_JUMP) /* in a mild world by less than what ends a connection */
            e->arg = (void *)(uintptr_t)(prng_skewed(r, s->mild ? 8000 : 86400000) * NSEC_PER_MSEC);
        event_push(s, e);
    }
}

void scenario_make(struct sim *s)
{
    struct prng *r = &s->plan_rng;
    enum theme theme = (enum theme)prng_below(r, THEME_COUNT);
    if ((theme == THEME_STORM || theme == THEME_MEMORY) && !prng_one_in(r, 8))
        theme = THEME_PLAIN;
    s->mild = !prng_one_in(r, 3);
    if (theme == THEME_MEMORY)
        s->mild = false;
    if (theme == THEME_PLAIN || theme == THEME_SMALL_MTU || theme == THEME_LOOPBACK)
        s->perfect = s->mild && prng_one_in(r, 2);
    s->nhosts = 2;
    if (prng_one_in(r, 4))
        s->nhosts = (unsigned)prng_range(r, 2, theme == THEME_STORM ? HOSTS_MAX : 4);
    for (unsigned i = 0; i < s->nhosts; i++)
        make_host(s, i, theme);
    s->npairs = (unsigned)prng_range(r, 1, 4);
    if (theme == THEME_STORM)
        s->npairs = (unsigned)prng_range(r, 50, 400);
    if (theme == THEME_MEMORY)
        s->npairs = (unsigned)prng_range(r, 12, 30);
    if (reuses(theme))
        s->npairs = (unsigned)prng_range(r, 3, 8);
    for (unsigned i = 0; !s->mild && i < s->nhosts; i++) {
        if (!prng_one_in(r, 4))
            continue;
        nsec_t at = s->now;
        for (unsigned k = 0; k < 4; k++) { /* closed, open, closed, open */
            at += prng_below(r, 2 * NSEC_PER_SEC);
            event_push(s, event_new(s, EV_LISTENER, at, &s->hosts[i], 0));
        }
    }
    for (unsigned i = 0; i < s->npairs; i++)
        make_pair(s, i, theme);
    make_upheavals(s, theme);
    uint32_t mtu = theme == THEME_ROUTES ? 600 : 1500;
    for (unsigned i = 0; i < s->nhosts; i++) {
        mtu = min_u32(mtu, s->hosts[i].mtu);
        if (s->hosts[i].out.pmtu)
            mtu = min_u32(mtu, s->hosts[i].out.pmtu);
    }
    s->frames_max = 5000 + 1500 * s->npairs + 30 * (s->bytes_total / (mtu - 52) + 1);
    s->faults_end = s->now + prng_range(r, 1, 20) * NSEC_PER_SEC;
    event_push(s, event_new(s, EV_FAULTS_END, s->faults_end, NULL, 0));
    event_push(s, event_new(s, EV_WATCH, s->now + 100 * NSEC_PER_SEC, NULL, 0));
    sim_say(s, NULL, "theme %u, %s, %u hosts, %u pairs, %llu bytes", theme,
            s->perfect ? "perfect"
            : s->mild  ? "mild"
                       : "harsh",
            s->nhosts, s->npairs, (unsigned long long)s->bytes_total);
}
