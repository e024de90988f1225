/* stack/tcp/isn.c */
#include "stack/tcp/isn.h"
#include "stack/util/siphash.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

#define SEC NSEC_PER_SEC

static const struct siphash_key secret = {0x1122334455667788, 0x99aabbccddeeff00};

static struct flow_tuple tuple(uint16_t lport, uint16_t rport)
{
    struct flow_tuple t;
    memset(&t, 0, sizeof(t));
    t.local = ip_addr_from_v4(0x0100000a);
    t.remote = ip_addr_from_v4(0x0200000a);
    t.lport = lport;
    t.rport = rport;
    return t;
}

/* RFC 6528 3: for one tuple a clock, here of 64 ns ticks; for another tuple elsewhere. */
START_TEST(test_isn)
{
    const struct flow_tuple a = tuple(80, 5000), b = tuple(80, 5001);
    const tcp_seq first = isn_generate(&secret, &a, 10 * SEC);
    ck_assert(seq_eq(isn_generate(&secret, &a, 10 * SEC), first));
    ck_assert_int_eq(seq_diff(isn_generate(&secret, &a, 11 * SEC), first), 15625000);
    ck_assert(!seq_eq(isn_generate(&secret, &b, 10 * SEC), first));
    const struct siphash_key other = {1, 2};
    ck_assert(!seq_eq(isn_generate(&other, &a, 10 * SEC), first));
    ck_assert_uint_eq(ts_offset(&secret, &a), ts_offset(&secret, &a));
    ck_assert_uint_ne(ts_offset(&secret, &a), ts_offset(&secret, &b));
}
END_TEST

START_TEST(test_isn_ignores_padding)
{
    struct flow_tuple a = tuple(80, 5000), b = a;
    memset((char *)&b + 36, 0xff, sizeof(b) - 36);
    ck_assert(seq_eq(isn_generate(&secret, &a, 0), isn_generate(&secret, &b, 0)));
    ck_assert_uint_eq(ts_offset(&secret, &a), ts_offset(&secret, &b));
    const tcp_seq c = cookie_make(&secret, &a, seq(1), 1460, 0);
    ck_assert_uint_eq(cookie_check(&secret, &b, seq(1), c, 0), 1460);
}
END_TEST

/* RFC 6056 3.3.3: depends on the peer, not on the local port; spread over the range. */
START_TEST(test_port_offset)
{
    const struct flow_tuple a = tuple(0, 80), b = tuple(12345, 80);
    ck_assert_uint_eq(port_offset(&secret, &a, 28232), port_offset(&secret, &b, 28232));
    ck_assert_uint_eq(port_offset(&secret, &a, 1), 0);
    ck_assert_uint_eq(port_offset(&secret, &a, 0), 0);
    unsigned quarters[4] = {0};
    for (uint16_t p = 0; p < 4000; p++) {
        const struct flow_tuple t = tuple(0, p);
        const uint32_t off = port_offset(&secret, &t, 1000);
        ck_assert_uint_lt(off, 1000);
        quarters[off / 250]++;
    }
    for (int i = 0; i < 4; i++)
        ck_assert_uint_gt(quarters[i], 850);
}
END_TEST

START_TEST(test_cookie_mss)
{
    static const uint16_t rows[][2] = {{0, 536},     {535, 536},   {536, 536},    {1219, 536},
                                       {1220, 1220}, {1459, 1452}, {1460, 1460},  {4000, 1460},
                                       {8959, 4312}, {8960, 8960}, {65535, 8960}, {1448, 1440}};
    const struct flow_tuple t = tuple(80, 5000);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const tcp_seq c = cookie_make(&secret, &t, seq(77), rows[i][0], 1000 * SEC);
        ck_assert_uint_eq(cookie_check(&secret, &t, seq(77), c, 1000 * SEC), rows[i][1]);
    }
}
END_TEST

/* Good in its own period of 64 s and in the next, never after two minutes and a bit. */
START_TEST(test_cookie_age)
{
    const struct flow_tuple t = tuple(80, 5000);
    for (nsec_t start = 0; start < 300 * SEC; start += 7 * SEC) {
        const tcp_seq c = cookie_make(&secret, &t, seq(5), 1460, start);
        for (nsec_t age = 0; age < 64 * SEC; age += 9 * SEC)
            ck_assert_uint_eq(cookie_check(&secret, &t, seq(5), c, start + age), 1460);
        ck_assert_uint_eq(cookie_check(&secret, &t, seq(5), c, start + 128 * SEC), 0);
        /* when eight bits of the counter have come round */
        ck_assert_uint_eq(cookie_check(&secret, &t, seq(5), c, start + 256 * 64 * SEC), 0);
    }
}
END_TEST

START_TEST(test_cookie_is_bound)
{
    const struct flow_tuple t = tuple(80, 5000), u = tuple(80, 5001);
    const struct siphash_key other = {1, 2};
    const nsec_t now = 500 * SEC;
    const tcp_seq c = cookie_make(&secret, &t, seq(5), 1460, now);
    ck_assert_uint_eq(cookie_check(&secret, &u, seq(5), c, now), 0);
    ck_assert_uint_eq(cookie_check(&secret, &t, seq(6), c, now), 0);
    ck_assert_uint_eq(cookie_check(&other, &t, seq(5), c, now), 0);
    struct test_random r = {3};
    unsigned hits = 0;
    for (int i = 0; i < 1000000; i++)
        hits += cookie_check(&secret, &t, seq(5), seq((uint32_t)test_random_u64(&r)), now) != 0;
    ck_assert_uint_le(hits, 1);
}
END_TEST

START_TEST(test_cookie_timestamp)
{
    struct test_random r = {4};
    for (int i = 0; i < 20000; i++) {
        const uint32_t val = i == 0 ? 0 : i == 1 ? UINT32_MAX : (uint32_t)test_random_u64(&r);
        const bool ws_in = test_random_one_in(&r, 2), sack_in = test_random_one_in(&r, 2);
        const uint8_t scale_in = (uint8_t)test_random_below(&r, 15);
        const uint32_t coded = cookie_ts_encode(val, ws_in, scale_in, sack_in);
        /* never ahead of the clock, and not far behind */
        ck_assert_uint_lt(val - coded, 64);
        bool ws, sack;
        uint8_t scale;
        ck_assert(cookie_ts_decode(coded, &ws, &scale, &sack));
        ck_assert(ws == ws_in && sack == sack_in);
        ck_assert_uint_eq(scale, ws_in ? scale_in : 0);
    }
    bool ws, sack;
    uint8_t scale;
    ck_assert(!cookie_ts_decode(0x20, &ws, &scale, &sack));
}
END_TEST

Suite *suite_isn(void)
{
    Suite *s = suite_create("isn");
    TCase *tc = tcase_create("isn");
    tcase_add_test(tc, test_isn);
    tcase_add_test(tc, test_isn_ignores_padding);
    tcase_add_test(tc, test_port_offset);
    tcase_add_test(tc, test_cookie_mss);
    tcase_add_test(tc, test_cookie_age);
    tcase_add_test(tc, test_cookie_is_bound);
    tcase_add_test(tc, test_cookie_timestamp);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(s, tc);
    return s;
}
