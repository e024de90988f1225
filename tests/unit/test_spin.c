#include "tests/unit/suites.h"

#include "shim/wait/spin.h"

#define SHORT (20 * NSEC_PER_USEC)
#define LONG  NSEC_PER_MSEC

static nsec_t now = NSEC_PER_SEC;

static void sleeps(enum spin_kind kind, nsec_t waited, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        spin_slept(kind, now += waited, waited, true, true);
}

START_TEST(idle_and_slow_programs_sleep_at_once)
{
    ck_assert(!spin_due(SPIN_DATA, now, false));
    sleeps(SPIN_DATA, LONG, 100);
    ck_assert(!spin_due(SPIN_DATA, now, false));
    spin_slept(SPIN_DATA, now, SHORT, false, true); /* short, but no frame ended it */
    ck_assert(!spin_due(SPIN_DATA, now, false));
}
END_TEST

START_TEST(short_sleeps_switch_it_on_for_their_kind)
{
    sleeps(SPIN_DATA, SHORT, 1);
    ck_assert(spin_due(SPIN_DATA, now, false));
    ck_assert(!spin_due(SPIN_CONNECTION, now, false));
    spin_ended(SPIN_DATA, true);
    ck_assert(spin_due(SPIN_DATA, now, false));
}
END_TEST

START_TEST(looking_in_vain_costs_ever_less)
{
    unsigned wanted = 1;
    sleeps(SPIN_SET, SHORT, 1);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(spin_due(SPIN_SET, now, false));
        spin_ended(SPIN_SET, false);
        wanted = min_u32(wanted * 2, 64);
        sleeps(SPIN_SET, SHORT, wanted - 1);
        ck_assert(!spin_due(SPIN_SET, now, false));
        sleeps(SPIN_SET, LONG, 1); /* they count in a row only */
        sleeps(SPIN_SET, SHORT, wanted - 1);
        ck_assert(!spin_due(SPIN_SET, now, false));
        sleeps(SPIN_SET, SHORT, 1);
    }
    spin_ended(SPIN_SET, true);
    spin_ended(SPIN_SET, false);
    sleeps(SPIN_SET, SHORT, 2);
    ck_assert(spin_due(SPIN_SET, now, false));
}
END_TEST

START_TEST(a_yield_that_others_use_makes_a_pause)
{
    sleeps(SPIN_ROOM, SHORT, 1);
    ck_assert(spin_yielded(now, SHORT));
    ck_assert(spin_due(SPIN_ROOM, now, false));
    ck_assert(!spin_yielded(now, LONG));
    ck_assert(!spin_due(SPIN_ROOM, now, false));
    ck_assert(!spin_due(SPIN_ROOM, now + 10 * LONG, false));
    ck_assert(spin_due(SPIN_ROOM, now + 20 * LONG, false));
}
END_TEST

START_TEST(kernel_descriptors_are_not_forgotten)
{
    now += 100 * LONG; /* no pause */
    sleeps(SPIN_CONNECTION, SHORT, 1);
    ck_assert(spin_due(SPIN_CONNECTION, now + SHORT, true));
    ck_assert(spin_due(SPIN_CONNECTION, now + LONG, false));
    ck_assert(!spin_due(SPIN_CONNECTION, now + LONG, true)); /* asks the kernel first */
    spin_slept(SPIN_CONNECTION, now += LONG, 0, true, true);
    ck_assert(spin_due(SPIN_CONNECTION, now, true));
}
END_TEST

Suite *suite_spin(void)
{
    Suite *s = suite_create("spin");
    TCase *t = tcase_create("all");
    tcase_add_test(t, idle_and_slow_programs_sleep_at_once);
    tcase_add_test(t, short_sleeps_switch_it_on_for_their_kind);
    tcase_add_test(t, looking_in_vain_costs_ever_less);
    tcase_add_test(t, a_yield_that_others_use_makes_a_pause);
    tcase_add_test(t, kernel_descriptors_are_not_forgotten);
    suite_add_tcase(s, t);
    return s;
}
