/* stack/tcp/cc_bbr.c, cc_dctcp.c, stack/util/minmax.c */
#include "stack/tcp/cc.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

#define MS  NSEC_PER_MSEC
#define MSS 1448u

START_TEST(test_minmax)
{
    struct test_random r = {7};
    struct minmax m;
    uint32_t seen[1000];
    minmax_reset(&m, 0, 0);
    for (unsigned i = 0; i < ARRAY_LEN(seen); i++) {
        seen[i] = test_random_below(&r, 1000);
        const uint32_t best = minmax_running_max(&m, 10, (uint16_t)(65000 + i), seen[i]);
        /* never beyond the window's best, never below the best of its younger half */
        uint32_t most = 0, half = 0;
        for (unsigned back = 0; back <= 10 && back <= i; back++) {
            most = max_u32(most, seen[i - back]);
            if (back <= 2)
                half = max_u32(half, seen[i - back]);
        }
        ck_assert_uint_le(best, most);
        ck_assert_uint_ge(best, half);
    }
}
END_TEST

/* A path of a given rate and delay with a deep queue; the sender keeps to cwnd and pace. */
struct path {
    uint64_t rate; /* bytes a second */
    nsec_t delay;
    nsec_t now, next_send;
    nsec_t free_at; /* when the bottleneck has sent what it has */
    struct {
        nsec_t sent, arrives;
        uint64_t prior;
        nsec_t prior_at, burst;
    } flight[65536];
    unsigned head, tail;
    uint64_t delivered;
    nsec_t delivered_at, burst;
    nsec_t longest; /* round trip seen lately */
};

static void send_one(struct path *p)
{
    if (p->head == p->tail)
        p->delivered_at = p->burst = p->now;
    const unsigned i = p->tail++ % 65536;
    p->free_at = max_u64(p->free_at, p->now) + (uint64_t)MSS * NSEC_PER_SEC / p->rate;
    p->flight[i].sent = p->now;
    p->flight[i].arrives = p->free_at + p->delay;
    p->flight[i].prior = p->delivered;
    p->flight[i].prior_at = p->delivered_at;
    p->flight[i].burst = p->burst;
}

static void ack_one(struct path *p, struct tcp_cc *cc)
{
    const unsigned i = p->head % 65536;
    const uint32_t before = (p->tail - p->head) * MSS;
    p->head++;
    p->now = p->flight[i].arrives;
    p->delivered += MSS;
    p->delivered_at = p->now;
    p->burst = p->flight[i].sent;
    const nsec_t rtt = p->now - p->flight[i].sent;
    p->longest = max_u64(p->longest, rtt);
    const struct cc_ack ack = {
        .now = p->now,
        .acked = MSS,
        .in_flight = before,
        .rtt_valid = true,
        .rtt = rtt,
        .srtt = rtt,
        .cwnd_limited = true,
        .pipe = before - MSS,
        .delivered = p->delivered,
        .rate_prior = p->flight[i].prior,
        .rate_interval =
            max_u64(p->now - p->flight[i].prior_at,
                    p->flight[i].sent - min_u64(p->flight[i].burst, p->flight[i].sent))};
    cc_ops(cc->id)->observe(cc, &ack);
}

/* Runs for a time; returns bytes delivered in it. */
static uint64_t run(struct path *p, struct tcp_cc *cc, nsec_t time)
{
    const nsec_t end = p->now + time;
    const uint64_t begun = p->delivered;
    while (p->now < end) {
        const bool room = (p->tail - p->head + 1) * MSS <= cc->cwnd && p->tail - p->head < 65000;
        const nsec_t send_at = room ? max_u64(p->next_send, p->now) : NSEC_NEVER;
        const nsec_t ack_at = p->head != p->tail ? p->flight[p->head % 65536].arrives : NSEC_NEVER;
        ck_assert(send_at != NSEC_NEVER || ack_at != NSEC_NEVER);
        if (send_at < ack_at) {
            p->now = send_at;
            send_one(p);
            p->next_send = p->now + (uint64_t)MSS * NSEC_PER_SEC / cc_ops(cc->id)->pacing_rate(cc);
        } else {
            ack_one(p, cc);
        }
    }
    return p->delivered - begun;
}

/* It finds the rate within a few round trips, keeps it, and keeps the queue short. */
START_TEST(test_bbr_finds_the_rate)
{
    static const uint64_t rates[] = {125000, 1250000, 6250000};
    static struct path p;
    memset(&p, 0, sizeof(p));
    struct tcp_cc cc;
    p.rate = rates[_i];
    p.delay = 40 * MS;
    p.now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_BBR, MSS, p.now);
    run(&p, &cc, 3 * NSEC_PER_SEC);
    p.longest = 0;
    const uint64_t bytes = run(&p, &cc, 12 * NSEC_PER_SEC); /* with a PROBE_RTT in it */
    ck_assert_uint_ge(bytes, p.rate * 12 * 90 / 100);
    /* CUBIC would have filled any queue; BBR's is one product of bandwidth and delay at most */
    const nsec_t segment = (uint64_t)MSS * NSEC_PER_SEC / p.rate;
    ck_assert_uint_le(p.longest, 3 * (p.delay + 4 * segment));
}
END_TEST

/* The path becomes ten times slower: the model follows within its windows. */
START_TEST(test_bbr_follows)
{
    static struct path p;
    memset(&p, 0, sizeof(p));
    struct tcp_cc cc;
    p.rate = 6250000;
    p.delay = 20 * MS;
    p.now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_BBR, MSS, p.now);
    run(&p, &cc, 5 * NSEC_PER_SEC);
    p.rate /= 10;
    run(&p, &cc, 10 * NSEC_PER_SEC);
    ck_assert_uint_le(cc_ops(cc.id)->pacing_rate(&cc), p.rate * 14 / 10);
    p.rate *= 10;
    run(&p, &cc, 10 * NSEC_PER_SEC);
    ck_assert_uint_ge(cc_ops(cc.id)->pacing_rate(&cc), p.rate * 7 / 10);
}
END_TEST

/* Losses leave the window of before when recovery is over. */
START_TEST(test_bbr_recovery)
{
    struct tcp_cc cc;
    cc_init(&cc, TCP_CC_BBR, MSS, 0);
    cc.cwnd = 100 * MSS;
    cc_ops(cc.id)->on_loss(&cc, 90 * MSS, MS);
    struct cc_ack ack = {.now = 2 * MS,
                         .acked = MSS,
                         .in_flight = 90 * MSS,
                         .pipe = 80 * MSS,
                         .lost = 9 * MSS,
                         .ca_state = 3,
                         .delivered = 200 * MSS};
    cc_ops(cc.id)->observe(&cc, &ack);
    ck_assert_uint_le(cc.cwnd, 82 * MSS); /* as much goes as arrives */
    ack.ca_state = 0;
    ack.lost = 0;
    cc_ops(cc.id)->observe(&cc, &ack);
    ck_assert_uint_ge(cc.cwnd, 100 * MSS);
}
END_TEST

/* Any history: the window stays between one segment and 1 GiB, the rate above nothing. */
START_TEST(test_bbr_bounds)
{
    static const uint32_t sizes[] = {1, 88, 536, 1448, 8948, 65483};
    for (int seed = 0; seed < 20; seed++) {
        struct test_random r = {(uint64_t)seed};
        struct tcp_cc cc;
        nsec_t now = test_random_u64(&r) % (1000 * NSEC_PER_SEC);
        uint64_t delivered = 0;
        cc_init(&cc, TCP_CC_BBR, sizes[seed % 6], now);
        for (int op = 0; op < 1500; op++) {
            now += test_random_u64(&r) % (test_random_one_in(&r, 50) ? 500 * NSEC_PER_SEC : 5 * MS);
            const uint32_t acked = test_random_below(&r, 65536);
            delivered += acked;
            const struct cc_ack ack = {
                .now = now,
                .acked = acked,
                .in_flight = test_random_below(&r, 1u << 30),
                .pipe = test_random_below(&r, 1u << 30),
                .lost = test_random_one_in(&r, 5) ? test_random_below(&r, 1u << 30) : 0,
                .rtt_valid = !test_random_one_in(&r, 4),
                .rtt = 1 + test_random_u64(&r) % (2 * NSEC_PER_SEC),
                .ca_state = (uint8_t)test_random_below(&r, 5),
                .delivered = delivered,
                .rate_prior = delivered - test_random_u64(&r) % (delivered + 1),
                .rate_interval = test_random_u64(&r) % (3 * NSEC_PER_SEC),
                .rate_app_limited = test_random_one_in(&r, 4)};
            cc_ops(cc.id)->observe(&cc, &ack);
            if (test_random_one_in(&r, 40))
                cc.ssthresh = cc_ops(cc.id)->on_loss(&cc, 0, now);
            if (test_random_one_in(&r, 100)) {
                cc_ops(cc.id)->on_timeout(&cc, now);
                cc.cwnd = cc.mss;
            }
            if (test_random_one_in(&r, 100))
                cc_undo(&cc);
            ck_assert(cc.cwnd >= cc.mss && cc.cwnd <= 1u << 30);
            ck_assert(cc_ops(cc.id)->pacing_rate(&cc) > 0);
        }
    }
}
END_TEST

/* RFC 8257 3.3: the part marked decides; none: the estimate dies away, all: half. */
START_TEST(test_dctcp)
{
    struct tcp_cc cc;
    cc_init(&cc, TCP_CC_DCTCP, MSS, 0);
    const struct cc_ack clear = {.acked = 100 * MSS, .round_start = true};
    struct cc_ack marked = clear;
    marked.marked = marked.acked;
    for (int i = 0; i < 200; i++)
        cc_ops(cc.id)->observe(&cc, &clear);
    ck_assert_uint_eq(cc.dctcp.alpha, 0);
    cc.cwnd = 1000 * MSS;
    ck_assert_uint_eq(cc_ops(cc.id)->on_loss(&cc, 0, 0), 1000 * MSS);
    cc_ops(cc.id)->observe(&cc, &marked);
    ck_assert_uint_eq(cc.dctcp.alpha, 1024 / 16);
    ck_assert_uint_eq(cc_ops(cc.id)->on_loss(&cc, 0, 0), 1000 * MSS - 1000 * MSS / 32);
    for (int i = 0; i < 200; i++)
        cc_ops(cc.id)->observe(&cc, &marked);
    ck_assert_uint_ge(cc.dctcp.alpha, 1000);
    ck_assert_uint_le(cc_ops(cc.id)->on_loss(&cc, 0, 0), 512 * MSS);
}
END_TEST

Suite *suite_bbr(void)
{
    Suite *s = suite_create("bbr");
    TCase *tc = tcase_create("bbr");
    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, test_minmax);
    tcase_add_loop_test(tc, test_bbr_finds_the_rate, 0, 3);
    tcase_add_test(tc, test_bbr_follows);
    tcase_add_test(tc, test_bbr_recovery);
    tcase_add_test(tc, test_bbr_bounds);
    tcase_add_test(tc, test_dctcp);
    suite_add_tcase(s, tc);
    return s;
}
