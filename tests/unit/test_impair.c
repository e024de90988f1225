/* What the rules of TCPSHIM_IMPAIR make of segments, and the store of what is held back. */
#include "shim/link/impair_store.h"

#include "stack/stack.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

#define MS NSEC_PER_MSEC

static struct impair_rules rules;
static struct impair_state *state;
static struct test_pools pools;
static nsec_t now;
static struct impair_verdict v;

static void setup(void)
{
    test_pools_open(&pools, 64);
    state = calloc(1, sizeof(*state));
    ck_assert_ptr_nonnull(state);
    impair_store_init(state, pools.arena);
    now = NSEC_PER_SEC;
}

static void teardown(void)
{
    free(state);
    test_pools_close(&pools);
}

static void use(const char *text)
{
    const char *error = impair_rules_parse(&rules, text);
    ck_assert_msg(error == NULL, "%s", error);
}

/* A segment of the connection 10.0.0.1:4000 -> 10.0.0.2:port, seen from 10.0.0.1. */
static const struct impair_verdict *pass_on(enum impair_dir dir, uint16_t port, uint8_t flags,
                                            uint32_t seq, uint32_t len)
{
    const struct ip_addr here = ip_addr_from_v4(0x0100000a), there = ip_addr_from_v4(0x0200000a);
    struct segment s = {.ip = 14,
                        .l4 = 34,
                        .text = 66,
                        .end = 66 + len,
                        .src = here,
                        .dst = there,
                        .sport = 4000,
                        .dport = port,
                        .seq = seq,
                        .ack = 1,
                        .flags = flags,
                        .len = len};
    if (dir == IMPAIR_IN) {
        s.src = there;
        s.dst = here;
        s.sport = port;
        s.dport = 4000;
    }
    impair_decide(&rules, state, dir, &s, s.end, now, &v);
    return &v;
}

static bool dropped(enum impair_dir dir, uint8_t flags, uint32_t seq, uint32_t len)
{
    return pass_on(dir, 80, flags, seq, len)->drop != NULL;
}

START_TEST(first_syn_ack)
{
    use("drop syn-ack 1");
    ck_assert(!dropped(IMPAIR_OUT, TCP_SYN, 100, 0));
    ck_assert(dropped(IMPAIR_IN, TCP_SYN | TCP_ACK, 500, 0));
    ck_assert(!dropped(IMPAIR_IN, TCP_SYN | TCP_ACK, 500, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 101, 0));
    /* another connection, and a new one of the same addresses */
    ck_assert(pass_on(IMPAIR_IN, 81, TCP_SYN | TCP_ACK, 500, 0)->drop != NULL);
    ck_assert(!dropped(IMPAIR_OUT, TCP_SYN, 100, 0)); /* repeated: the same */
    ck_assert(!dropped(IMPAIR_IN, TCP_SYN | TCP_ACK, 500, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_SYN, 999, 0));
    ck_assert(dropped(IMPAIR_IN, TCP_SYN | TCP_ACK, 700, 0));
}
END_TEST

START_TEST(second_retransmit_of_fin)
{
    use("drop fin 2nd retransmit");
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 100, 50));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK | TCP_FIN, 150, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK | TCP_FIN, 150, 0));
    ck_assert(dropped(IMPAIR_OUT, TCP_ACK | TCP_FIN, 150, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK | TCP_FIN, 150, 0));
    /* each direction has its own */
    ck_assert(!dropped(IMPAIR_IN, TCP_ACK | TCP_FIN, 9, 0));
    ck_assert(!dropped(IMPAIR_IN, TCP_ACK | TCP_FIN, 9, 0));
    ck_assert(dropped(IMPAIR_IN, TCP_ACK | TCP_FIN, 9, 0));
}
END_TEST

START_TEST(retransmitted_data)
{
    use("drop data retransmit");
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 0xffffff00, 200));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 0xffffffc8, 200));
    ck_assert(dropped(IMPAIR_OUT, TCP_ACK, 0xffffff00, 200));
    ck_assert(dropped(IMPAIR_OUT, TCP_ACK, 0xffffffc8, 200));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 0x90, 10));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 0x90, 0)); /* an ACK is no data */
}
END_TEST

START_TEST(scope)
{
    use("drop in ack, drop out data port 443, drop syn port 90-99");
    ck_assert(dropped(IMPAIR_IN, TCP_ACK, 1, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 1, 0));
    ck_assert(!dropped(IMPAIR_OUT, TCP_ACK, 1, 5));
    ck_assert(pass_on(IMPAIR_OUT, 443, TCP_ACK, 1, 5)->drop != NULL);
    ck_assert(pass_on(IMPAIR_IN, 443, TCP_ACK, 1, 5)->drop == NULL);
    ck_assert(pass_on(IMPAIR_IN, 95, TCP_SYN, 1, 0)->drop != NULL);
    ck_assert(pass_on(IMPAIR_IN, 100, TCP_SYN, 1, 0)->drop == NULL);
    ck_assert(pass_on(IMPAIR_IN, 95, TCP_SYN | TCP_ACK, 1, 0)->drop == NULL);
}
END_TEST

/* Which of the first 64 segments are dropped. */
static uint64_t fate(const char *text)
{
    uint64_t bits = 0;
    memset(state, 0, sizeof(*state));
    impair_store_init(state, pools.arena);
    use(text);
    for (unsigned i = 0; i < 64; i++) {
        if (i % 3 == 0)
            dropped(IMPAIR_IN, TCP_ACK, 1, 0); /* the other direction does not matter */
        now += i * 77777;
        bits |= (uint64_t)dropped(IMPAIR_OUT, TCP_ACK, 100 + i * 10, 10) << i;
    }
    return bits;
}

START_TEST(determined_by_the_seed)
{
    const uint64_t first = fate("drop=30%,seed=7");
    ck_assert_uint_ne(first, 0);
    ck_assert_uint_eq(fate("drop=30%,seed=7"), first);
    ck_assert_uint_ne(fate("drop=30%,seed=8"), first);
    ck_assert_uint_eq(fate("drop=100%"), UINT64_MAX);
    ck_assert_uint_eq(fate("drop=0%"), 0);
}
END_TEST

START_TEST(chance_is_what_it_says)
{
    unsigned drops = 0, dups = 0, damaged = 0;
    use("drop=10%,dup=1%,corrupt=0.1%");
    for (unsigned i = 0; i < 100000; i++) {
        pass_on(IMPAIR_OUT, 80, TCP_ACK, i * 10, 10);
        drops += v.drop != NULL;
        dups += v.dup != NULL;
        if (v.corrupt) {
            damaged++;
            ck_assert_uint_lt(v.bit, (66 + 10 - 34) * 8);
        }
    }
    ck_assert(drops > 9500 && drops < 10500);
    ck_assert(dups > 850 && dups < 1150);
    ck_assert(damaged > 60 && damaged < 140);
}
END_TEST

START_TEST(delays)
{
    use("delay=20ms, delay ack 300ms");
    ck_assert_uint_eq(pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 10)->due, now + 20 * MS);
    ck_assert_uint_eq(pass_on(IMPAIR_OUT, 80, TCP_ACK, 11, 0)->due, now + 320 * MS);
    ck_assert_uint_eq(pass_on(IMPAIR_OUT, 80, TCP_ACK, 11, 10)->due, now + 20 * MS); /* overtakes */
}
END_TEST

START_TEST(jitter_keeps_order)
{
    nsec_t last = 0, least = NSEC_NEVER, most = 0;
    use("delay=20ms,jitter=5ms");
    for (unsigned i = 0; i < 1000; i++) {
        now += 20 * MS;
        const nsec_t due = pass_on(IMPAIR_OUT, 80, TCP_ACK, i, 1)->due;
        ck_assert_uint_ge(due, last);
        last = due;
        least = min_u64(least, due - now);
        most = max_u64(most, due - now);
    }
    ck_assert(least >= 15 * MS && least < 16 * MS);
    ck_assert(most <= 25 * MS && most > 24 * MS);
}
END_TEST

START_TEST(reorders)
{
    use("reorder data 2");
    ck_assert_uint_le(pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 10)->due, now);
    ck_assert_uint_gt(pass_on(IMPAIR_OUT, 80, TCP_ACK, 11, 10)->due, now);
    ck_assert_uint_le(pass_on(IMPAIR_OUT, 80, TCP_ACK, 21, 10)->due, now);
}
END_TEST

START_TEST(rate_spaces_and_overflows)
{
    use("rate=8M"); /* a byte in a microsecond */
    nsec_t due = pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 934)->due;
    ck_assert_uint_eq(due, now + MS);
    ck_assert_uint_eq(pass_on(IMPAIR_OUT, 80, TCP_ACK, 935, 934)->due, now + 2 * MS);
    ck_assert_uint_eq(pass_on(IMPAIR_IN, 80, TCP_ACK, 1, 934)->due, now + MS); /* a queue each */
    unsigned taken = 2;
    for (uint32_t i = 2; i < 1000; i++)
        taken += pass_on(IMPAIR_OUT, 80, TCP_ACK, 1 + i * 934, 934)->drop == NULL;
    ck_assert(taken >= 200 && taken <= 202); /* 200 ms */
    now += NSEC_PER_SEC;
    ck_assert_uint_eq(pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 934)->due, now + MS);
}
END_TEST

START_TEST(resets_once)
{
    use("rst after 1000");
    ck_assert_ptr_null(pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 600)->reset);
    ck_assert_ptr_null(pass_on(IMPAIR_OUT, 80, TCP_ACK, 1, 600)->reset); /* sent again */
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_ACK, 1, 300)->reset);
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_ACK, 401, 300)->reset); /* not in order */
    ck_assert_ptr_nonnull(pass_on(IMPAIR_IN, 80, TCP_ACK, 701, 100)->reset);
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_ACK, 801, 100)->reset);
}
END_TEST

START_TEST(closes_the_window)
{
    use("zero-window 5s after 100");
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_SYN | TCP_ACK, 1, 0)->zero_window);
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_ACK, 2, 50)->zero_window);
    ck_assert_ptr_null(pass_on(IMPAIR_OUT, 80, TCP_ACK, 2, 50)->zero_window);
    ck_assert_ptr_nonnull(pass_on(IMPAIR_IN, 80, TCP_ACK, 52, 0)->zero_window);
    now += 4999 * MS;
    ck_assert_ptr_nonnull(pass_on(IMPAIR_IN, 80, TCP_ACK, 52, 0)->zero_window);
    now += MS;
    ck_assert_ptr_null(pass_on(IMPAIR_IN, 80, TCP_ACK, 52, 0)->zero_window);
}
END_TEST

START_TEST(many_connections)
{
    use("drop any 2");
    for (unsigned round = 0; round < 3; round++)
        for (unsigned port = 1; port < 60000; port += 7)
            pass_on(IMPAIR_OUT, (uint16_t)port, TCP_ACK, 1, 0);
    /* the latest are still known */
    ck_assert(pass_on(IMPAIR_OUT, 7, TCP_ACK, 1, 0)->drop == NULL);
    ck_assert(pass_on(IMPAIR_OUT, 7, TCP_ACK, 1, 0)->drop != NULL);
}
END_TEST

START_TEST(store_by_time)
{
    enum impair_dir dir;
    uint8_t netif, frame[FRAME_BYTES_MAX], got[FRAME_BYTES_MAX];
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 31 + i / 256);
    ck_assert_uint_eq(impair_store_due(state), NSEC_NEVER);
    ck_assert(impair_store_put(state, 30, IMPAIR_IN, 1, frame, 66));
    ck_assert(impair_store_put(state, 10, IMPAIR_OUT, 2, frame, FRAME_BYTES_MAX));
    ck_assert(impair_store_put(state, 20, IMPAIR_IN, 3, frame, 1514));
    ck_assert(impair_store_put(state, 20, IMPAIR_OUT, 4, frame + 1, 2040));
    ck_assert_uint_eq(impair_store_due(state), 10);
    ck_assert_uint_eq(impair_store_take(state, 9, &dir, &netif, got), 0);
    ck_assert_uint_eq(impair_store_take(state, 30, &dir, &netif, got), FRAME_BYTES_MAX);
    ck_assert(dir == IMPAIR_OUT && netif == 2);
    ck_assert_mem_eq(got, frame, FRAME_BYTES_MAX);
    ck_assert_uint_eq(impair_store_take(state, 30, &dir, &netif, got), 1514);
    ck_assert_uint_eq(netif, 3);
    ck_assert_uint_eq(impair_store_take(state, 30, &dir, &netif, got), 2040);
    ck_assert_mem_eq(got, frame + 1, 2040);
    ck_assert_uint_eq(impair_store_take(state, 30, &dir, &netif, got), 66);
    ck_assert_uint_eq(impair_store_due(state), NSEC_NEVER);
    ck_assert_uint_eq(arena_used(pools.arena), 0);
}
END_TEST

START_TEST(store_is_bounded)
{
    static uint8_t frame[60000];
    unsigned taken = 0;
    while (taken < 1000 && impair_store_put(state, 5, IMPAIR_IN, 1, frame, sizeof(frame)))
        taken++;
    ck_assert(taken > 0 && taken < 20);
    ck_assert_uint_le(arena_used(pools.arena), arena_limit(pools.arena) / 4);
    impair_store_repair(state); /* as after a death inside: all of it is gone */
    ck_assert_uint_eq(impair_store_due(state), NSEC_NEVER);
    ck_assert_uint_eq(arena_used(pools.arena), 0);
    ck_assert(impair_store_put(state, 5, IMPAIR_IN, 1, frame, sizeof(frame)));
}
END_TEST

Suite *suite_impair(void)
{
    Suite *s = suite_create("impair");
    TCase *tc = tcase_create("core");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, first_syn_ack);
    tcase_add_test(tc, second_retransmit_of_fin);
    tcase_add_test(tc, retransmitted_data);
    tcase_add_test(tc, scope);
    tcase_add_test(tc, determined_by_the_seed);
    tcase_add_test(tc, chance_is_what_it_says);
    tcase_add_test(tc, delays);
    tcase_add_test(tc, jitter_keeps_order);
    tcase_add_test(tc, reorders);
    tcase_add_test(tc, rate_spaces_and_overflows);
    tcase_add_test(tc, resets_once);
    tcase_add_test(tc, closes_the_window);
    tcase_add_test(tc, many_connections);
    tcase_add_test(tc, store_by_time);
    tcase_add_test(tc, store_is_bounded);
    suite_add_tcase(s, tc);
    return s;
}
