/* stack/tcp/cc.c, cc_reno.c, cc_cubic.c */
#include "stack/tcp/cc.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

#define MS  NSEC_PER_MSEC
#define MSS 1448u
/* Those before BBR grow by on_ack() and fall by on_loss(). */
#define WINDOW_BASED TCP_CC_BBR

/* One round trip: a window of ACKs of one segment each, evenly spread. */
static void round_trip(struct tcp_cc *cc, nsec_t *now, nsec_t rtt)
{
    const uint32_t n = cc->cwnd / cc->mss;
    for (uint32_t i = 0; i < n; i++) {
        *now += rtt / n;
        const struct cc_ack ack = {.now = *now,
                                   .acked = cc->mss,
                                   .in_flight = cc->cwnd,
                                   .rtt_valid = true,
                                   .rtt = rtt,
                                   .srtt = rtt,
                                   .cwnd_limited = true,
                                   .round_start = i == 0};
        cc_ops(cc->id)->on_ack(cc, &ack);
    }
}

/* A loss and the end of the recovery that it began. */
static void lose(struct tcp_cc *cc, nsec_t now)
{
    cc->ssthresh = cc_ops(cc->id)->on_loss(cc, cc->cwnd, now);
    cc->cwnd = cc->ssthresh;
}

START_TEST(test_names)
{
    ck_assert_int_eq(cc_by_name("cubic", 5), TCP_CC_CUBIC);
    ck_assert_int_eq(cc_by_name("reno", 4), TCP_CC_RENO);
    ck_assert_int_eq(cc_by_name("renox", 4), TCP_CC_RENO);
    ck_assert_int_eq(cc_by_name("ren", 3), -1);
    ck_assert_int_eq(cc_by_name("bbr", 3), TCP_CC_BBR);
    ck_assert_int_eq(cc_by_name("vegas", 5), -1);
    ck_assert_int_eq(cc_by_name("", 0), -1);
    for (unsigned id = 0; id < TCP_CC_COUNT; id++) {
        const char *name = cc_ops((uint8_t)id)->name;
        ck_assert_int_eq(cc_by_name(name, strlen(name)), id);
    }
}
END_TEST

/* RFC 6928 2 */
START_TEST(test_initial_window)
{
    static const uint32_t rows[][2] = {{536, 5360},   {1448, 14480}, {1460, 14600},
                                       {2920, 14600}, {8960, 17920}, {65483, 130966}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tcp_cc cc;
        cc_init(&cc, TCP_CC_RENO, rows[i][0], 0);
        ck_assert_uint_eq(cc.cwnd, rows[i][1]);
        ck_assert_uint_eq(cc.ssthresh, CC_SSTHRESH_INFINITE);
        ck_assert(cc_in_slow_start(&cc));
    }
}
END_TEST

START_TEST(test_slow_start)
{
    struct tcp_cc cc;
    nsec_t now = NSEC_PER_SEC;
    cc_init(&cc, (uint8_t)_i, MSS, now);
    for (int i = 0; i < 6; i++) {
        const uint32_t before = cc.cwnd;
        round_trip(&cc, &now, 20 * MS);
        ck_assert_uint_eq(cc.cwnd, 2 * before);
    }
    /* one ACK for 64 KB counts whole: GRO peers */
    const uint32_t before = cc.cwnd;
    const struct cc_ack ack = {.now = now, .acked = 44 * MSS, .cwnd_limited = true};
    cc_ops(cc.id)->on_ack(&cc, &ack);
    ck_assert_uint_eq(cc.cwnd, before + 44 * MSS);
}
END_TEST

/* RFC 7661, Linux: a window that is not used does not grow. */
START_TEST(test_not_limited)
{
    struct tcp_cc cc;
    cc_init(&cc, (uint8_t)_i, MSS, 0);
    for (int half = 0; half < 2; half++) {
        const uint32_t before = cc.cwnd;
        for (int i = 0; i < 1000; i++) {
            const struct cc_ack ack = {.now = (nsec_t)i * MS, .acked = 10 * MSS, .srtt = 10 * MS};
            cc_ops(cc.id)->on_ack(&cc, &ack);
        }
        ck_assert_uint_eq(cc.cwnd, before);
        lose(&cc, 1000 * MS);
    }
}
END_TEST

/* RFC 5681 3.1: a segment each round trip; half after a loss, at least two segments. */
START_TEST(test_reno)
{
    struct tcp_cc cc;
    nsec_t now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_RENO, MSS, now);
    cc.cwnd = 100 * MSS;
    lose(&cc, now);
    ck_assert_uint_eq(cc.cwnd, 50 * MSS);
    for (int i = 0; i < 30; i++)
        round_trip(&cc, &now, 20 * MS);
    ck_assert_uint_ge(cc.cwnd, 79 * MSS);
    ck_assert_uint_le(cc.cwnd, 80 * MSS);
    for (int i = 0; i < 10; i++)
        lose(&cc, now);
    ck_assert_uint_eq(cc.ssthresh, 2 * MSS);
    /* slow start ends at ssthresh */
    cc.cwnd = MSS;
    cc.ssthresh = 8 * MSS;
    const struct cc_ack ack = {.now = now, .acked = 20 * MSS, .cwnd_limited = true};
    cc_ops(cc.id)->on_ack(&cc, &ack);
    ck_assert_uint_ge(cc.cwnd, 8 * MSS);
    ck_assert_uint_le(cc.cwnd, 9 * MSS);
}
END_TEST

static double cube(double x)
{
    return x * x * x;
}

static double cbrt_by_bisection(double v)
{
    double low = 0, high = 1e6;
    for (int i = 0; i < 100; i++) {
        const double mid = (low + high) / 2;
        if (cube(mid) < v)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* RFC 9438 figure 1: on a long fat path the window follows W_cubic(t) = C (t-K)^3 + W_max. */
START_TEST(test_cubic_curve)
{
    struct tcp_cc cc;
    nsec_t now = 5 * NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_CUBIC, MSS, now);
    const double w_max = 4000;
    cc.cwnd = (uint32_t)w_max * MSS;
    lose(&cc, now);
    ck_assert_uint_eq(cc.cwnd / MSS, 2800);
    const double k = cbrt_by_bisection(w_max * 0.3 / 0.4);
    const nsec_t epoch = now;
    for (int i = 0; i < 250; i++) {
        round_trip(&cc, &now, 100 * MS);
        const double t = (double)(now - epoch) / 1e9;
        const double want = 0.4 * cube(t - k) + w_max;
        const double got = (double)cc.cwnd / MSS;
        if (got < want * 0.97 || got > want * 1.03)
            ck_abort_msg("at %f s: %f segments, should be %f", t, got, want);
    }
    ck_assert_uint_gt(cc.cwnd / MSS, 4400);
}
END_TEST

/* RFC 9438 4.3: on a short path CUBIC is no slower than Reno would be with its alpha. */
START_TEST(test_cubic_friendly)
{
    struct tcp_cc cc;
    nsec_t now = 5 * NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_CUBIC, MSS, now);
    cc.cwnd = 100 * MSS;
    lose(&cc, now);
    for (int i = 0; i < 40; i++)
        round_trip(&cc, &now, MS);
    /* 70 + 40 * 9/17 = 91 */
    ck_assert_uint_ge(cc.cwnd / MSS, 90);
    ck_assert_uint_le(cc.cwnd / MSS, 92);
    for (int i = 0; i < 100; i++)
        round_trip(&cc, &now, MS);
    /* beyond the window before the loss: one segment a round */
    ck_assert_uint_ge(cc.cwnd / MSS, 175);
    ck_assert_uint_le(cc.cwnd / MSS, 190);
}
END_TEST

/* RFC 9438 4.7: a second loss below W_max releases bandwidth. */
START_TEST(test_fast_convergence)
{
    struct tcp_cc cc;
    cc_init(&cc, TCP_CC_CUBIC, MSS, 0);
    cc.cwnd = 1000 * MSS;
    lose(&cc, 1);
    ck_assert_uint_eq(cc.cubic.w_max, 1000 * 1024);
    lose(&cc, 2);
    ck_assert_uint_eq(cc.cubic.w_max, 700 * 1024 * 17 / 20);
    ck_assert_uint_eq(cc.cwnd, 490 * MSS);
    for (int i = 0; i < 40; i++)
        lose(&cc, 3);
    ck_assert_uint_eq(cc.cwnd, 2 * MSS);
}
END_TEST

/* RFC 9438 4.8: after a time-out the curve begins at its own window. */
START_TEST(test_cubic_timeout)
{
    struct tcp_cc cc;
    nsec_t now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_CUBIC, MSS, now);
    cc.cwnd = 1000 * MSS;
    lose(&cc, now);
    cc_ops(cc.id)->on_timeout(&cc, now);
    cc.cwnd = MSS;
    cc.ssthresh = 100 * MSS;
    for (int i = 0; i < 7; i++)
        round_trip(&cc, &now, 50 * MS);
    ck_assert_uint_ge(cc.cwnd, 100 * MSS);
    ck_assert_uint_le(cc.cwnd, 102 * MSS);
    ck_assert_uint_eq(cc.cubic.k, 0);
    uint32_t before = cc.cwnd;
    for (int i = 0; i < 200; i++) {
        round_trip(&cc, &now, 50 * MS);
        ck_assert_uint_ge(cc.cwnd, before);
        ck_assert_uint_le(cc.cwnd, before * 3 / 2);
        before = cc.cwnd;
    }
    ck_assert_uint_gt(cc.cwnd, 300 * MSS);
}
END_TEST

/* RFC 9406: a growing round trip ends slow start after five careful rounds. */
START_TEST(test_hystart)
{
    struct tcp_cc cc;
    nsec_t now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_CUBIC, MSS, now);
    for (int i = 0; i < 4; i++)
        round_trip(&cc, &now, 40 * MS);
    ck_assert(!cc.cubic.in_css);
    const uint32_t before = cc.cwnd;
    round_trip(&cc, &now, 46 * MS); /* 5 ms more is the threshold here */
    ck_assert(cc.cubic.in_css);
    ck_assert_uint_lt(cc.cwnd, before * 2);
    ck_assert(cc_in_slow_start(&cc));
    for (int i = 0; i < 5; i++)
        round_trip(&cc, &now, 60 * MS);
    ck_assert(!cc_in_slow_start(&cc));
    ck_assert_uint_lt(cc.cwnd, before * 5);
    ck_assert_uint_gt(cc.cwnd, before * 2);
}
END_TEST

/* ... unless the round trip shrinks again: that was no queue. */
START_TEST(test_hystart_back)
{
    struct tcp_cc cc;
    nsec_t now = NSEC_PER_SEC;
    cc_init(&cc, TCP_CC_CUBIC, MSS, now);
    for (int i = 0; i < 3; i++)
        round_trip(&cc, &now, 40 * MS);
    round_trip(&cc, &now, 50 * MS);
    ck_assert(cc.cubic.in_css);
    round_trip(&cc, &now, 41 * MS);
    ck_assert(!cc.cubic.in_css);
    const uint32_t before = cc.cwnd;
    round_trip(&cc, &now, 41 * MS);
    ck_assert_uint_eq(cc.cwnd, 2 * before);
    ck_assert_uint_eq(cc.ssthresh, CC_SSTHRESH_INFINITE);
}
END_TEST

/* RFC 5681 4.1 as Linux does it. */
START_TEST(test_idle)
{
    struct tcp_cc cc;
    cc_init(&cc, (uint8_t)_i, MSS, 0);
    cc.cwnd = 400 * MSS;
    cc.ssthresh = 20 * MSS;
    cc_ops(cc.id)->on_idle(&cc, 10000 * MS, 300 * MS, 20 * MS);
    ck_assert_uint_eq(cc.cwnd, 200 * MSS);
    ck_assert_uint_eq(cc.ssthresh, 300 * MSS);
    cc_ops(cc.id)->on_idle(&cc, 20000 * MS, UINT64_MAX, 20 * MS);
    ck_assert_uint_eq(cc.cwnd, 10 * MSS);
    cc.cwnd = 3 * MSS; /* a small window does not become larger */
    cc_ops(cc.id)->on_idle(&cc, 30000 * MS, 5000 * MS, 20 * MS);
    ck_assert_uint_eq(cc.cwnd, 3 * MSS);
}
END_TEST

START_TEST(test_undo)
{
    struct tcp_cc cc;
    cc_init(&cc, (uint8_t)_i, MSS, 0);
    cc_undo(&cc); /* nothing to undo */
    ck_assert_uint_eq(cc.cwnd, 10 * MSS);
    cc.cwnd = 100 * MSS;
    cc.ssthresh = 80 * MSS;
    lose(&cc, 1);
    cc_ops(cc.id)->on_timeout(&cc, 1);
    cc.cwnd = MSS;
    cc_undo(&cc);
    ck_assert_uint_eq(cc.cwnd, 100 * MSS);
    ck_assert_uint_eq(cc.ssthresh, 80 * MSS);
    cc.cwnd = 5 * MSS;
    cc_undo(&cc); /* once */
    ck_assert_uint_eq(cc.cwnd, 5 * MSS);
}
END_TEST

START_TEST(test_switch_and_mss)
{
    struct tcp_cc cc;
    cc_init(&cc, TCP_CC_CUBIC, MSS, 0);
    cc.cwnd = 50 * MSS;
    cc.ssthresh = 40 * MSS;
    cc_switch(&cc, TCP_CC_RENO, 1);
    ck_assert_uint_eq(cc.id, TCP_CC_RENO);
    ck_assert_uint_eq(cc.cwnd, 50 * MSS);
    ck_assert_uint_eq(cc.ssthresh, 40 * MSS);
    cc_set_mss(&cc, 8948);
    ck_assert_uint_eq(cc.cwnd, 50 * MSS);
    cc.cwnd = 1000;
    cc_set_mss(&cc, 9000);
    ck_assert_uint_eq(cc.cwnd, 9000);
}
END_TEST

/* Any history: the window stays between one segment and 1 GiB. */
START_TEST(test_bounds)
{
    static const uint32_t sizes[] = {1, 88, 536, 1448, 8948, 65483};
    for (int seed = 0; seed < 30; seed++) {
        struct test_random r = {(uint64_t)seed};
        struct tcp_cc cc;
        nsec_t now = test_random_u64(&r) % (1000 * NSEC_PER_SEC);
        cc_init(&cc, (uint8_t)_i, sizes[seed % 6], now);
        for (int op = 0; op < 3000; op++) {
            now += test_random_u64(&r) % (test_random_one_in(&r, 50) ? 500 * NSEC_PER_SEC : 5 * MS);
            const uint32_t kind = test_random_below(&r, 200);
            const nsec_t rtt = 1 + test_random_u64(&r) % (2 * NSEC_PER_SEC);
            if (kind > 5) {
                const struct cc_ack ack = {
                    .now = now,
                    .acked = test_random_one_in(&r, 10) ? cc.cwnd : test_random_below(&r, 65536),
                    .in_flight = cc.cwnd,
                    .rtt_valid = true,
                    .rtt = rtt,
                    .srtt = rtt,
                    .cwnd_limited = !test_random_one_in(&r, 4),
                    .round_start = test_random_one_in(&r, 20)};
                const uint32_t before = cc.cwnd;
                cc_ops(cc.id)->on_ack(&cc, &ack);
                ck_assert_uint_ge(cc.cwnd, before);
            } else if (kind == 5) {
                lose(&cc, now);
            } else if (kind == 4) {
                cc.ssthresh = cc_ops(cc.id)->on_loss(&cc, 0, now);
                cc_ops(cc.id)->on_timeout(&cc, now);
                cc.cwnd = cc.mss;
            } else if (kind == 3) {
                cc_undo(&cc);
            } else if (kind == 2) {
                cc_ops(cc.id)->on_idle(&cc, now, rtt, rtt);
            } else if (kind == 1) {
                cc_set_mss(&cc, sizes[test_random_below(&r, 6)]);
            }
            ck_assert(cc.cwnd >= cc.mss && cc.cwnd <= 1u << 30 && cc.ssthresh >= 2);
        }
    }
}
END_TEST

Suite *suite_cc(void)
{
    Suite *s = suite_create("cc");
    TCase *tc = tcase_create("cc");
    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, test_names);
    tcase_add_test(tc, test_initial_window);
    tcase_add_loop_test(tc, test_slow_start, 0, WINDOW_BASED);
    tcase_add_loop_test(tc, test_not_limited, 0, WINDOW_BASED);
    tcase_add_test(tc, test_reno);
    tcase_add_test(tc, test_cubic_curve);
    tcase_add_test(tc, test_cubic_friendly);
    tcase_add_test(tc, test_fast_convergence);
    tcase_add_test(tc, test_cubic_timeout);
    tcase_add_test(tc, test_hystart);
    tcase_add_test(tc, test_hystart_back);
    tcase_add_loop_test(tc, test_idle, 0, WINDOW_BASED);
    tcase_add_loop_test(tc, test_undo, 0, WINDOW_BASED);
    tcase_add_test(tc, test_switch_and_mss);
    tcase_add_loop_test(tc, test_bounds, 0, WINDOW_BASED);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(s, tc);
    return s;
}
