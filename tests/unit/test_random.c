#include "tests/unit/suites.h"

#include "stack/util/random.h"

START_TEST(same_seed_same_numbers)
{
    const uint8_t seed[16] = {1, 2, 3}, other[16] = {1, 2, 4};
    struct rng a, b, c;
    rng_init(&a, seed);
    rng_init(&b, seed);
    rng_init(&c, other);
    unsigned equal = 0;
    for (int i = 0; i < 1000; i++) {
        const uint64_t v = rng_u64(&a);
        ck_assert_uint_eq(v, rng_u64(&b));
        equal += v == rng_u64(&c);
    }
    ck_assert_uint_eq(equal, 0);
}
END_TEST

START_TEST(below_is_in_range_and_even)
{
    const uint8_t seed[16] = {9};
    struct rng r;
    rng_init(&r, seed);
    unsigned hits[7] = {0};
    for (int i = 0; i < 70000; i++) {
        const uint32_t v = rng_below(&r, 7);
        ck_assert_uint_lt(v, 7);
        hits[v]++;
    }
    for (unsigned i = 0; i < 7; i++) {
        ck_assert_uint_gt(hits[i], 9500);
        ck_assert_uint_lt(hits[i], 10500);
    }
    ck_assert_uint_eq(rng_below(&r, 1), 0);
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_lt(rng_below(&r, 0x80000001u), 0x80000001u);
}
END_TEST

Suite *suite_random(void)
{
    Suite *s = suite_create("random");
    TCase *t = tcase_create("all");
    tcase_add_test(t, same_seed_same_numbers);
    tcase_add_test(t, below_is_in_range_and_even);
    suite_add_tcase(s, t);
    return s;
}
