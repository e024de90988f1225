/* stack/tcp/rtt.c */
#include "stack/tcp/rtt.h"
#include "tests/unit/suites.h"

#define MS NSEC_PER_MSEC

/* RFC 6298 2.1, 2.2 */
START_TEST(test_first_sample)
{
    struct rtt r;
    rtt_init(&r);
    ck_assert_uint_eq(r.srtt, 0);
    ck_assert_uint_eq(r.rto, RTO_INITIAL);
    rtt_sample(&r, 400 * MS, 0);
    ck_assert_uint_eq(r.srtt, 400 * MS);
    ck_assert_uint_eq(r.rttvar, 200 * MS);
    ck_assert_uint_eq(r.rto, 1200 * MS);
    ck_assert_uint_eq(r.min_rtt, 400 * MS);
}
END_TEST

/* A steady path: srtt stays, the RTO falls to srtt + 200 ms and no further (Linux's TCP_RTO_MIN).
 */
START_TEST(test_steady)
{
    struct rtt r;
    rtt_init(&r);
    for (int i = 0; i < 200; i++) {
        rtt_sample(&r, 50 * MS, 0);
        rtt_round(&r);
    }
    ck_assert_uint_eq(r.srtt, 50 * MS);
    ck_assert_uint_eq(r.rto, 250 * MS);
}
END_TEST

/* The deviation decays once a round, not with each sample. */
START_TEST(test_decay_by_round)
{
    struct rtt a, b;
    rtt_init(&a);
    rtt_sample(&a, 800 * MS, 0);
    rtt_round(&a);
    b = a;
    for (int i = 0; i < 40; i++) {
        rtt_sample(&a, 800 * MS, 0);
        rtt_sample(&b, 800 * MS, 0);
        rtt_round(&b);
    }
    ck_assert_uint_eq(a.rttvar, 400 * MS);
    ck_assert_uint_lt(b.rttvar, 10 * MS);
    ck_assert_uint_eq(b.rto, 1000 * MS);
    rtt_round(&a);
    ck_assert_uint_lt(a.rttvar, 400 * MS);
}
END_TEST

/* Nobody tells of rounds: each sample is one. */
START_TEST(test_decay_without_rounds)
{
    struct rtt r;
    rtt_init(&r);
    for (int i = 0; i < 100; i++)
        rtt_sample(&r, 800 * MS, 0);
    ck_assert_uint_eq(r.rto, 1000 * MS);
}
END_TEST

/* A longer round trip widens the RTO at once; a shorter one does not. */
START_TEST(test_rise_and_fall)
{
    struct rtt r;
    rtt_init(&r);
    for (int i = 0; i < 100; i++)
        rtt_sample(&r, 500 * MS, 0);
    const nsec_t before = r.rto;
    struct rtt up = r, down = r;
    rtt_sample(&up, 1500 * MS, 0);
    ck_assert_uint_gt(up.rto, before + 300 * MS);
    rtt_sample(&down, 1 * MS, 0);
    ck_assert_uint_le(down.rto, before);
    ck_assert_uint_eq(down.min_rtt, 1 * MS);
}
END_TEST

/* tcp_min_rtt_wlen: the path of long ago may have been another one. */
START_TEST(test_minimum_is_forgotten)
{
    struct rtt r;
    rtt_init(&r);
    rtt_sample(&r, 1 * MS, 5 * NSEC_PER_SEC);
    rtt_sample(&r, 50 * MS, 290 * NSEC_PER_SEC);
    ck_assert_uint_eq(r.min_rtt, 1 * MS);
    rtt_sample(&r, 50 * MS, 320 * NSEC_PER_SEC);
    ck_assert_uint_eq(r.min_rtt, 50 * MS);
    rtt_sample(&r, 60 * MS, 330 * NSEC_PER_SEC);
    ck_assert_uint_eq(r.min_rtt, 50 * MS);
}
END_TEST

START_TEST(test_bounds)
{
    struct rtt r;
    rtt_init(&r);
    rtt_sample(&r, 0, 0);
    ck_assert_uint_gt(r.srtt, 0);
    ck_assert_uint_ge(r.rto, RTO_MIN);
    for (int i = 0; i < 10000; i++) {
        rtt_sample(&r, i % 2 ? 0 : UINT64_MAX, 0);
        ck_assert_uint_gt(r.srtt, 0);
        ck_assert_uint_ge(r.rto, RTO_MIN);
        ck_assert_uint_le(r.rto, RTO_MAX);
    }
}
END_TEST

START_TEST(test_backoff)
{
    struct rtt r;
    rtt_init(&r);
    ck_assert_uint_eq(rtt_backed_off(&r, 0, RTO_MAX), 1 * NSEC_PER_SEC);
    ck_assert_uint_eq(rtt_backed_off(&r, 3, RTO_MAX), 8 * NSEC_PER_SEC);
    ck_assert_uint_eq(rtt_backed_off(&r, 7, RTO_MAX), RTO_MAX);
    ck_assert_uint_eq(rtt_backed_off(&r, 1000000, RTO_MAX), RTO_MAX);
    ck_assert_uint_eq(rtt_backed_off(&r, 3, 5 * NSEC_PER_SEC), 5 * NSEC_PER_SEC);
}
END_TEST

Suite *suite_rtt(void)
{
    Suite *s = suite_create("rtt");
    TCase *tc = tcase_create("rtt");
    tcase_add_test(tc, test_first_sample);
    tcase_add_test(tc, test_steady);
    tcase_add_test(tc, test_decay_by_round);
    tcase_add_test(tc, test_decay_without_rounds);
    tcase_add_test(tc, test_rise_and_fall);
    tcase_add_test(tc, test_minimum_is_forgotten);
    tcase_add_test(tc, test_bounds);
    tcase_add_test(tc, test_backoff);
    suite_add_tcase(s, tc);
    return s;
}
