#include "tests/unit/suites.h"

#include "stack/util/random.h"
#include "stack/util/wheel.h"

#define TICK ((nsec_t)1 << WHEEL_TICK_SHIFT)

static struct wheel w;

START_TEST(fires_once_not_early_and_in_order)
{
    struct wheel_timer a, b, c;
    wheel_init(&w, 5 * TICK);
    wheel_timer_init(&a, 1);
    wheel_timer_init(&b, 2);
    wheel_timer_init(&c, 3);
    ck_assert_uint_eq(wheel_next(&w), NSEC_NEVER);
    wheel_arm(&w, &a, NSEC_PER_SEC);
    wheel_arm(&w, &b, NSEC_PER_MSEC);
    wheel_arm(&w, &c, 120 * NSEC_PER_SEC);
    ck_assert_ptr_null(wheel_expire(&w, NSEC_PER_MSEC - 1));
    ck_assert_ptr_eq(wheel_expire(&w, NSEC_PER_MSEC + TICK), &b);
    ck_assert_ptr_null(wheel_expire(&w, NSEC_PER_MSEC + TICK));
    ck_assert_ptr_eq(wheel_expire(&w, 200 * NSEC_PER_SEC), &a);
    ck_assert_ptr_eq(wheel_expire(&w, 200 * NSEC_PER_SEC), &c);
    ck_assert_ptr_null(wheel_expire(&w, 200 * NSEC_PER_SEC));
    ck_assert_uint_eq(c.deadline, NSEC_NEVER);
    ck_assert_uint_eq(wheel_next(&w), NSEC_NEVER);
}
END_TEST

START_TEST(past_deadlines_fire_at_the_next_call)
{
    struct wheel_timer a;
    wheel_init(&w, 1000 * TICK);
    wheel_timer_init(&a, 1);
    wheel_arm(&w, &a, 3);
    ck_assert_uint_le(wheel_next(&w), 1000 * TICK);
    ck_assert_ptr_eq(wheel_expire(&w, 1000 * TICK), &a);
    /* time that goes backwards harms nothing */
    wheel_arm(&w, &a, 1001 * TICK);
    ck_assert_ptr_null(wheel_expire(&w, 5));
    ck_assert_ptr_eq(wheel_expire(&w, 1001 * TICK), &a);
}
END_TEST

START_TEST(cancel_and_never)
{
    struct wheel_timer a, b;
    wheel_init(&w, 0);
    wheel_timer_init(&a, 1);
    wheel_timer_init(&b, 1);
    wheel_cancel(&w, &a); /* not armed */
    wheel_arm(&w, &a, 10 * TICK);
    wheel_arm(&w, &b, 10 * TICK);
    wheel_cancel(&w, &a);
    wheel_arm(&w, &b, NSEC_NEVER);
    ck_assert_uint_eq(wheel_next(&w), NSEC_NEVER);
    ck_assert_ptr_null(wheel_expire(&w, 1000 * TICK));
}
END_TEST

START_TEST(furthest_deadlines)
{
    struct wheel_timer a, b;
    wheel_init(&w, 77);
    wheel_timer_init(&a, 1);
    wheel_timer_init(&b, 1);
    wheel_arm(&w, &a, NSEC_NEVER - 1);
    wheel_arm(&w, &b, (nsec_t)1 << 62);
    ck_assert_ptr_null(wheel_expire(&w, ((nsec_t)1 << 62) - 1));
    ck_assert_ptr_eq(wheel_expire(&w, ((nsec_t)1 << 62)), &b);
    ck_assert_ptr_null(wheel_expire(&w, (nsec_t)3 << 62));
    ck_assert_ptr_eq(wheel_expire(&w, NSEC_NEVER), &a);
}
END_TEST

#define TIMERS 200

static nsec_t random_delay(struct rng *r)
{
    /* from less than a tick to days, and often just around where levels meet */
    switch (rng_below(r, 5)) {
    case 0:
        return rng_below(r, 1 << 17);
    case 1:
        return rng_below(r, 100000000);
    case 2:
        return (nsec_t)rng_below(r, 200) * NSEC_PER_SEC;
    case 3:
        return (TICK << (6 * rng_below(r, 5))) + rng_below(r, 3 * TICK) - TICK;
    default:
        return (nsec_t)rng_below(r, 1000000) * NSEC_PER_SEC;
    }
}

/* Against a plain array of deadlines. */
START_TEST(random_operations_against_a_model)
{
    static struct wheel_timer timers[TIMERS];
    static nsec_t model[TIMERS];
    const uint8_t seed[16] = {(uint8_t)_i, 3};
    struct rng r;
    rng_init(&r, seed);
    nsec_t now = rng_u64(&r) >> rng_below(&r, 40) >> 8;
    wheel_init(&w, now);
    for (unsigned i = 0; i < TIMERS; i++) {
        wheel_timer_init(&timers[i], 0);
        model[i] = NSEC_NEVER;
    }
    for (int op = 0; op < 20000; op++) {
        const unsigned i = rng_below(&r, TIMERS);
        switch (rng_below(&r, 4)) {
        case 0:
        case 1:
            model[i] = now + random_delay(&r);
            if (rng_below(&r, 10) == 0) /* in the past, too */
                model[i] = now > model[i] - now ? now - (model[i] - now) : 0;
            wheel_arm(&w, &timers[i], model[i]);
            break;
        case 2:
            model[i] = NSEC_NEVER;
            wheel_cancel(&w, &timers[i]);
            break;
        default: {
            nsec_t earliest = NSEC_NEVER;
            for (unsigned k = 0; k < TIMERS; k++)
                earliest = min_u64(earliest, model[k]);
            const nsec_t next = wheel_next(&w);
            if (earliest == NSEC_NEVER)
                ck_assert_uint_eq(next, NSEC_NEVER);
            else
                ck_assert_uint_le(next, max_u64(earliest, now) + TICK);
            /* sometimes exactly when the wheel asks for it, sometimes at any time */
            if (next != NSEC_NEVER && rng_below(&r, 2))
                now = max_u64(now, next);
            else
                now += random_delay(&r) >> rng_below(&r, 20);
            bool early = false, late = false;
            for (struct wheel_timer *t; (t = wheel_expire(&w, now)) != NULL;) {
                const size_t k = (size_t)(t - timers);
                early |= model[k] > now;
                model[k] = NSEC_NEVER;
            }
            for (unsigned k = 0; k < TIMERS; k++)
                late |= model[k] != NSEC_NEVER && model[k] + TICK <= now;
            ck_assert(!early && !late);
        }
        }
    }
}
END_TEST

/* Sleeping until wheel_next() each time must reach any timer in a few steps, never spin. */
START_TEST(every_wake_up_makes_progress)
{
    const uint8_t seed[16] = {5};
    struct rng r;
    rng_init(&r, seed);
    for (int round = 0; round < 1000; round++) {
        struct wheel_timer t;
        nsec_t now = rng_u64(&r) >> 12;
        wheel_init(&w, now);
        wheel_timer_init(&t, 0);
        const nsec_t deadline = now + random_delay(&r);
        wheel_arm(&w, &t, deadline);
        int steps = 0;
        while (wheel_expire(&w, now) == NULL) {
            ck_assert_int_lt(++steps, 10);
            const nsec_t next = wheel_next(&w);
            ck_assert_uint_gt(next, now);
            now = next;
        }
        ck_assert_uint_ge(now, deadline);
        ck_assert_uint_lt(now, deadline + TICK);
    }
}
END_TEST

Suite *suite_wheel(void)
{
    Suite *s = suite_create("wheel");
    TCase *t = tcase_create("all");
    tcase_add_test(t, fires_once_not_early_and_in_order);
    tcase_add_test(t, past_deadlines_fire_at_the_next_call);
    tcase_add_test(t, cancel_and_never);
    tcase_add_test(t, furthest_deadlines);
    tcase_add_loop_test(t, random_operations_against_a_model, 0, 10);
    tcase_add_test(t, every_wake_up_makes_progress);
    suite_add_tcase(s, t);
    return s;
}
