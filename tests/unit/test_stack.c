#include "tests/unit/suites.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/ip_harness.h"

START_TEST(too_little_memory)
{
    const struct stack_config config = {.seed = {1}};
    void *m = aligned_alloc(ARENA_SPAN_SIZE, STACK_SIZE_MIN);
    memset(m, 0, STACK_SIZE_MIN);
    ck_assert_ptr_null(stack_init(m, STACK_SIZE_MIN - 1, 0, &config, 0));
    ck_assert_ptr_null(stack_init(m, STACK_SIZE_MIN, STACK_SIZE_MIN, &config, 0));
    struct stack *st = stack_init(m, STACK_SIZE_MIN, 5000, &config, 0);
    ck_assert_ptr_nonnull(st);
    /* half of the least size at least is there for objects */
    ck_assert_uint_ge(arena_limit(stack_arena(st)), STACK_SIZE_MIN / 2);
    free(m);
}
END_TEST

START_TEST(extra_bytes_are_the_callers)
{
    uint8_t *extra = stack_extra(world.st);
    ck_assert(extra >= (uint8_t *)(world.st->tcp.flows.port_buckets + FLOW_PORT_BUCKETS));
    memset(extra, 0xee, 100);
    ck_assert_ptr_eq(world.st->tcp.flows.buckets[FLOW_BUCKETS - 1].next,
                     &world.st->tcp.flows.buckets[FLOW_BUCKETS - 1]);
    struct pool p;
    pool_init(stack_arena(world.st), &p, 64);
    ck_assert((uint8_t *)pool_alloc(&p) >= extra + 100);
    ck_assert_uint_eq(extra[99], 0xee);
}
END_TEST

START_TEST(interfaces_are_numbered)
{
    ck_assert_uint_eq(world.wire, 1);
    ck_assert_int_eq(stack_netif(world.st, NETIF_LOOP)->kind, NETIF_LOOPBACK);
    ck_assert(stack_netif(world.st, NETIF_LOOP)->up);
    ck_assert_ptr_null(stack_netif(world.st, 2));
    ck_assert_int_eq(stack_netif_by_ifindex(world.st, 3), 1);
    ck_assert_int_eq(stack_netif_by_ifindex(world.st, 0), -1);
    ck_assert_int_eq(stack_netif_by_ifindex(world.st, 4), -1);
    struct netif nif = {.kind = NETIF_RAW_IP};
    for (unsigned i = 2; i < NETIFS_MAX; i++)
        ck_assert_int_eq(stack_add_netif(world.st, &nif), (int)i);
    ck_assert_int_eq(stack_add_netif(world.st, &nif), -ENOSPC);
}
END_TEST

START_TEST(timers_go_to_their_layer)
{
    struct wheel_timer t;
    wheel_timer_init(&t, STACK_TIMER_TIME_WAIT);
    wheel_arm(&world.st->wheel, &t, world.cx.now + NSEC_PER_SEC);
    ck_assert_uint_le(stack_deadline(world.st), world.cx.now + NSEC_PER_SEC + NSEC_PER_MSEC);
    world_run(NSEC_PER_SEC / 2);
    ck_assert_uint_eq(world.ntimers, 0);
    world_run(NSEC_PER_SEC);
    ck_assert_uint_eq(world.ntimers, 1);
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

START_TEST(flush_runs_until_nothing_is_left)
{
    world.flushes_pending = 5;
    ck_assert_uint_eq(stack_deadline(world.st), 0);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nflushes, 5);
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
    /* a defect in TCP does not hang the program */
    world.flushes_pending = UINT32_MAX;
    stack_flush(&world.cx);
    world.flushes_pending = 0;
}
END_TEST

START_TEST(counters_have_names)
{
    for (unsigned i = 0; i < STACK_COUNTER_COUNT; i++)
        ck_assert_ptr_nonnull(stack_counter_names[i]);
    const uint8_t frame[4] = {0};
    const uint64_t before = count_of(COUNT_FRAMES_IN);
    world_frame(frame, 4);
    ck_assert_uint_eq(count_of(COUNT_FRAMES_IN), before + 1);
}
END_TEST

Suite *suite_stack(void)
{
    Suite *s = suite_create("stack");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, too_little_memory);
    tcase_add_test(t, extra_bytes_are_the_callers);
    tcase_add_test(t, interfaces_are_numbered);
    tcase_add_test(t, timers_go_to_their_layer);
    tcase_add_test(t, flush_runs_until_nothing_is_left);
    tcase_add_test(t, counters_have_names);
    suite_add_tcase(s, t);
    return s;
}
