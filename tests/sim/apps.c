/* The programs: each moves bytes as its plan says and trusts nothing but what notify() tells. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdlib.h>

/* Prime, so that no power of two of misplaced bytes looks right. */
#define PATTERN 65521u
#define IO_MAX  65536u
/* Calls of one program before the others get their turn. */
#define TURNS 16

static uint8_t pattern[PATTERN + IO_MAX];

void app_pattern_init(void)
{
    struct prng r = {12345};
    for (size_t i = 0; i < PATTERN; i++)
        pattern[i] = (uint8_t)prng_u64(&r);
    for (size_t i = PATTERN; i < sizeof(pattern); i++)
        pattern[i] = pattern[i - PATTERN];
}

/* The bytes of the stream of `side` from offset off on; IO_MAX of them can be read. */
static uint8_t *stream_at(const struct pair *p, unsigned side, uint64_t off)
{
    return pattern + (off + p->salt[side]) % PATTERN;
}

static void say(struct app *a, const char *what, int64_t n)
{
    if (a->sim->verbose)
        sim_say(a->sim, a->host, "  app %u.%u %s %lld (sent %llu received %llu)", a->pair->number,
                a->side, what, (long long)n, (unsigned long long)a->sent,
                (unsigned long long)a->received);
}

/* ---- endings ---- */

/* Connections that take over the ports of `before` begin between low and high ms from now. */
static void schedule_after(struct sim *s, const struct pair *before, unsigned low, unsigned high)
{
    for (unsigned i = 0; i < s->npairs; i++) {
        struct pair *p = &s->pairs[i];
        if (p->after != before || p->scheduled)
            continue;
        p->scheduled = true;
        p->start = s->now + prng_range(&s->rng, low, high) * NSEC_PER_MSEC;
        struct event *e = event_new(s, EV_START, p->start, p->app[0].host, 0);
        e->arg = &p->app[0];
        event_push(s, e);
    }
}

static void ended(struct app *a)
{
    a->state = APP_ENDED;
    a->conn = NULL;
    a->sim->ended++;
    /* when nothing of the old connection can be on its way any more, but TIME_WAIT */
    if (app_peer(a)->state == APP_ENDED)
        schedule_after(a->sim, a->pair, 2000, 4000);
}

void app_killed(struct app *a)
{
    const struct app *peer = app_peer(a);
    if (a->state == APP_IDLE && peer->state == APP_IDLE)
        return; /* has not begun */
    if (a->state != APP_ENDED || peer->state != APP_ENDED)
        a->pair->clean = false;
    if (a->state != APP_CONNECTING && a->state != APP_OPEN)
        return;
    say(a, "killed", 0);
    a->error = ECONNRESET;
    ended(a);
    if (a->side == 0)
        schedule_after(a->sim, a->pair, 0, 3000);
}

/* The ports are in TIME_WAIT on this side: once more, later. */
static void connect_later(struct app *a)
{
    struct sim *s = a->sim;
    tcp_set_owner(a->conn, NULL);
    tcp_close(&a->host->cx, a->conn);
    a->conn = NULL;
    a->state = APP_IDLE;
    struct event *e = event_new(s, EV_START, s->now + 700 * NSEC_PER_MSEC, a->host, 0);
    e->arg = a;
    event_push(s, e);
}

static void finish(struct app *a, bool abort)
{
    struct tcp_conn *c = a->conn;
    struct stack_cx *cx = &a->host->cx;
    if (abort) {
        tcp_opts(c)->linger = true;
        tcp_opts(c)->linger_secs = 0;
        tcp_opts_changed(cx, c);
    } else if (tcp_inq(c) == 0) {
        a->fin_valid = true;
    }
    say(a, abort ? "aborts" : "closes", tcp_inq(c));
    tcp_set_owner(c, NULL);
    tcp_close(cx, c);
    ended(a);
}

static void broke(struct app *a, int64_t err)
{
    struct sim *s = a->sim;
    say(a, "error", err);
    a->error = (int)-err;
    if (s->mild && a->pair->clean)
        sim_fail(s,
                 "app %u.%u: error %d in a clean connection of a mild world (sent %llu of %llu, "
                 "received %llu)",
                 a->pair->number, a->side, a->error, (unsigned long long)a->sent,
                 (unsigned long long)a->total, (unsigned long long)a->received);
    finish(a, false);
}

/* ---- sleeping ---- */

static void sleep_until(struct app *a, nsec_t at)
{
    if (a->sleeping)
        return;
    a->sleeping = true;
    struct event *e = event_new(a->sim, EV_APP, at, a->host, 0);
    e->arg = a;
    event_push(a->sim, e);
}

static nsec_t think(struct app *a, nsec_t most)
{
    if (!most)
        return 0;
    return a->sim->now + prng_below(&a->sim->rng, most);
}

/* ---- sending ---- */

static void all_sent(struct app *a)
{
    switch (a->end) {
    case END_SHUTDOWN: {
        int r = tcp_shutdown(&a->host->cx, a->conn, TCP_SHUT_WR);
        say(a, "shutdown", r);
        a->shut = a->fin_valid = true;
        if (r && r != -ENOTCONN)
            sim_fail(a->sim, "shutdown(): %d", r);
        if (r)
            broke(a, r);
        break;
    }
    case END_CLOSE:
        finish(a, false);
        break;
    default:
        a->shut = true; /* nothing more to send; no FIN yet */
    }
}

/* One send(). False: nothing more for now. */
static bool send_some(struct app *a)
{
    struct sim *s = a->sim;
    uint64_t stop = a->end == END_ABORT && a->stop_at < a->total ? a->stop_at : a->total;
    if (a->sent >= stop) {
        if (a->end == END_ABORT)
            finish(a, true);
        else
            all_sent(a);
        return false;
    }
    if (a->send_at > s->now) {
        sleep_until(a, a->send_at);
        return false;
    }
    uint32_t n = (uint32_t)prng_range(&s->rng, 1, a->send_chunk);
    n = (uint32_t)min_u64(n, stop - a->sent);
    uint8_t *from = stream_at(a->pair, a->side, a->sent);
    uint32_t split = (uint32_t)prng_below(&s->rng, n + 1);
    struct slice v[2] = {{from, split}, {from + split, n - split}};
    uint32_t flags = a->cork && a->sent + n < stop ? TCP_SEND_MORE : 0;
    if ((a->sent & 4) != 0) /* whether more follows or not */
        flags |= TCP_SEND_UNFINISHED;
    int64_t r = tcp_send(&a->host->cx, a->conn, v, 2, flags);
    say(a, "send", r);
    if (r == -EAGAIN) {
        a->want_write = false;
        return false;
    }
    if (r < 0) {
        broke(a, r);
        return false;
    }
    if (r == 0 || r > n)
        sim_fail(s, "send() of %u bytes returned %lld", n, (long long)r);
    a->sent += (uint64_t)r;
    a->progress = s->now;
    a->send_at = think(a, a->send_think);
    return true;
}

/* ---- receiving ---- */

static void end_of_stream(struct app *a)
{
    struct app *from = app_peer(a);
    a->eof = true;
    a->progress = a->sim->now;
    if (!from->fin_valid || a->received != from->sent)
        sim_fail(a->sim, "app %u.%u: end of stream after %llu bytes; the peer sent %llu and %s",
                 a->pair->number, a->side, (unsigned long long)a->received,
                 (unsigned long long)from->sent, from->fin_valid ? "closed" : "did not close");
}

static void compare(struct app *a, const uint8_t *buf, uint64_t n)
{
    const uint8_t *want = stream_at(a->pair, !a->side, a->received);
    if (memcmp(buf, want, n) == 0)
        return;
    uint64_t i = 0;
    while (buf[i] == want[i])
        i++;
    sim_fail(a->sim, "app %u.%u: byte %llu of the stream is wrong", a->pair->number, a->side,
             (unsigned long long)a->received + i);
}

void app_took(struct app *a, const uint8_t *text, uint32_t n)
{
    compare(a, text, n);
    for (uint64_t m = a->received / MARK_BYTES;
         a->marks && m < (a->received + n) / MARK_BYTES && m < a->marks_max; m++)
        a->marks[m] = a->sim->now;
    a->received += n;
    a->progress = a->sim->now;
    a->recv_at = think(a, a->recv_think);
}

uint32_t app_reads(struct app *a)
{
    if (a->state != APP_OPEN || a->eof || a->end == END_UNREAD || a->recv_at > a->sim->now ||
        tcp_unread(a->conn) != 0)
        return 0;
    return (uint32_t)prng_below(&a->sim->rng, a->recv_chunk + 1);
}

/* One recv(). False: nothing more for now. */
static bool recv_some(struct app *a)
{
    static uint8_t buf[IO_MAX];
    struct sim *s = a->sim;
    if (a->end == END_UNREAD && a->received >= a->stop_at) {
        finish(a, false);
        return false;
    }
    if (a->recv_at > s->now) {
        sleep_until(a, a->recv_at);
        return false;
    }
    uint32_t n = (uint32_t)prng_range(&s->rng, 1, a->recv_chunk);
    uint32_t split = (uint32_t)prng_below(&s->rng, n + 1);
    struct slice v[2] = {{buf, split}, {buf + split, n - split}};
    if (a->peeks) {
        int64_t p = tcp_recv(&a->host->cx, a->conn, v, 2, TCP_RECV_PEEK, 0);
        if (p > 0)
            compare(a, buf, (uint64_t)p);
        if (p < 0 && p != -EAGAIN) { /* the error is given once, to this call */
            broke(a, p);
            return false;
        }
    }
    int64_t r = tcp_recv(&a->host->cx, a->conn, v, 2, 0, 0);
    say(a, "recv", r);
    if (r == -EAGAIN) {
        a->want_read = false;
        return false;
    }
    if (r < 0) {
        broke(a, r);
        return false;
    }
    if (r > n)
        sim_fail(s, "recv() of %u bytes returned %lld", n, (long long)r);
    if (r == 0) {
        end_of_stream(a);
        return false;
    }
    app_took(a, buf, (uint32_t)r);
    return true;
}

/* ---- running ---- */

static bool reads(const struct app *a)
{
    /* END_CLOSE and END_ABORT read too, if something is there: they only do not wait for it */
    return !a->eof;
}

static void run_open(struct app *a)
{
    for (unsigned turn = 0; turn < TURNS; turn++) {
        bool more = false;
        if (a->want_write && !a->shut)
            more |= send_some(a);
        if (a->state == APP_OPEN && a->want_read && reads(a))
            more |= recv_some(a);
        if (a->state != APP_OPEN)
            return;
        if (a->shut && a->eof) {
            finish(a, false);
            return;
        }
        if (!more)
            return;
    }
    host_wake(a->host, a);
}

void app_run(struct app *a)
{
    if (a->state == APP_CONNECTING) {
        uint32_t ev = tcp_poll(a->conn);
        if (ev & TCP_EV_ERR) {
            int err = tcp_take_error(a->conn);
            broke(a, -(err ? err : EIO));
            return;
        }
        if (!(ev & TCP_EV_OUT))
            return;
        int err = tcp_take_error(a->conn);
        if (err) {
            broke(a, -err);
            return;
        }
        a->state = APP_OPEN;
        a->progress = a->sim->now;
        a->want_read = a->want_write = true;
    }
    if (a->state == APP_OPEN)
        run_open(a);
}

void app_event(struct app *a, uint32_t events)
{
    if (events & (TCP_EV_IN | TCP_EV_RDHUP | TCP_EV_HUP | TCP_EV_ERR))
        a->want_read = true;
    if (events & (TCP_EV_OUT | TCP_EV_HUP | TCP_EV_ERR))
        a->want_write = true;
    host_wake(a->host, a);
}

static void set_options(struct app *a)
{
    struct tcp_opts *o = tcp_opts(a->conn);
    o->nodelay = a->nodelay;
    o->keepalive = a->keepalive;
    o->keepidle = 30;
    o->keepintvl = 10;
    o->keepcnt = 5;
    o->pmtu_dont = a->pmtu_dont;
    if (a->sndbuf) {
        o->sndbuf = a->sndbuf;
        o->sndbuf_locked = true;
    }
    if (a->rcvbuf) {
        o->rcvbuf = a->rcvbuf;
        o->rcvbuf_locked = true;
    }
    if (a->rcvlowat)
        o->rcvlowat = a->rcvlowat;
    if (a->user_mss)
        o->user_mss = (uint16_t)a->user_mss;
    if (a->reno)
        tcp_set_cc(&a->host->cx, a->conn, TCP_CC_RENO);
    tcp_opts_changed(&a->host->cx, a->conn);
}

void app_accepted(struct app *a, struct tcp_conn *c)
{
    a->conn = c;
    a->state = APP_OPEN;
    a->want_read = a->want_write = true;
    a->progress = a->sim->now;
    tcp_set_owner(c, a);
    set_options(a);
    say(a, "accepted", 0);
    host_wake(a->host, a);
}

void app_connect(struct app *a)
{
    struct host *h = a->host;
    struct sim *s = a->sim;
    const struct endpoint *local = &a->pair->at[a->side], *remote = &a->pair->at[!a->side];
    a->progress = s->now;
    a->conn = tcp_open(&h->cx);
    if (!a->conn) {
        a->error = ENOBUFS;
        ended(a);
        return;
    }
    tcp_set_owner(a->conn, a);
    set_options(a);
    struct ip_path path;
    struct ip_addr src;
    int r = ip_route(h->cx.st, &remote->addr, &path, &src);
    if (r)
        sim_fail(s, "ip_route(): %d", r);
    a->state = APP_CONNECTING;
    r = tcp_connect(&h->cx, a->conn, local, remote, &path);
    say(a, "connect", r);
    if (r == -ENOBUFS && !s->mild) {
        broke(a, r);
        return;
    }
    if (r == -EADDRINUSE && a->pair->after) {
        connect_later(a);
        return;
    }
    if (r)
        sim_fail(s, "connect(): %d", r);
    /* inside one stack it may be through already, and the word of it came before there was an owner
     */
    host_wake(h, a);
}

void app_watch(struct app *a)
{
    struct sim *s = a->sim;
    if ((a->state != APP_OPEN && a->state != APP_CONNECTING) ||
        s->now < a->progress + 300 * NSEC_PER_SEC)
        return;
    if (s->mild && a->pair->clean) {
        struct tcp_view v;
        tcp_view(&a->host->cx, a->conn, &v);
        sim_fail(s,
                 "app %u.%u is stuck in %s: sent %llu of %llu, received %llu, in buffers %u out, "
                 "%u in, poll 0x%x, snd_wnd %u, cwnd %u, retransmits %u, probes %u",
                 a->pair->number, a->side, tcp_state_name(v.state), (unsigned long long)a->sent,
                 (unsigned long long)a->total, (unsigned long long)a->received, tcp_outq(a->conn),
                 tcp_inq(a->conn), tcp_poll(a->conn), v.snd_wnd, v.cwnd, v.retransmits, v.probes);
    }
    a->error = ETIMEDOUT;
    finish(a, true);
}
