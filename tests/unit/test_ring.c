/* The ring of last events: order, wrapping, one connection's part, and reading while it is written.
 */
#include "stack/ring.h"

#include <pthread.h>

#include "stack/tcp/names.h"
#include "tests/unit/suites.h"

static struct ring ring;
static struct ring_event seen[RING_EVENTS];
static unsigned nseen;

static void forget(void)
{
    memset(&ring, 0, sizeof(ring));
    nseen = 0;
}

static void keep(const struct ring_event *e, void *arg)
{
    ck_assert_ptr_eq(arg, &ring);
    ck_assert_uint_lt(nseen, RING_EVENTS);
    seen[nseen++] = *e;
}

static unsigned walk(uint32_t number, unsigned most)
{
    nseen = 0;
    ring_walk(&ring, number, most, keep, &ring);
    return nseen;
}

static void note(uint32_t number, uint32_t value)
{
    const uint8_t small[3] = {1, 2, 3};
    ring_put(&ring, value, number, TRACE_EV_SEGMENT_OUT, small, value, value, value, value);
}

START_TEST(order_and_limit)
{
    forget();
    ck_assert_uint_eq(walk(0, 100), 0);
    for (uint32_t i = 1; i <= 20; i++)
        note(1 + i % 2, i);
    note(0, 99); /* of no connection: not told */
    ck_assert_uint_eq(walk(0, 100), 20);
    for (uint32_t i = 0; i < 20; i++)
        ck_assert_uint_eq(seen[i].values[0], i + 1);
    ck_assert_uint_eq(walk(2, 100), 10);
    for (uint32_t i = 0; i < 10; i++) {
        ck_assert_uint_eq(seen[i].number, 2);
        ck_assert_uint_eq(seen[i].values[0], 2 * i + 1);
    }
    ck_assert_uint_eq(walk(1, 3), 3); /* the latest */
    ck_assert_uint_eq(seen[0].values[0], 16);
    ck_assert_uint_eq(seen[2].values[0], 20);
    ck_assert_uint_eq(walk(0, 1), 1);
    ck_assert_uint_eq(seen[0].values[0], 20);
    ck_assert_uint_eq(walk(3, 100), 0);
    ck_assert_uint_eq(walk(1, 0), 0);
}
END_TEST

START_TEST(wraps)
{
    forget();
    note(9, 1); /* written over */
    for (uint32_t i = 0; i < 3 * RING_EVENTS / 2; i++)
        note(1, i);
    ck_assert_uint_eq(walk(9, 10), 0);
    ck_assert_uint_eq(walk(1, UINT32_MAX), RING_EVENTS);
    for (uint32_t i = 0; i < RING_EVENTS; i++)
        ck_assert_uint_eq(seen[i].values[3], RING_EVENTS / 2 + i);
    /* a broken count, as an arena of a hostile program could have it */
    ring.next = UINT64_MAX;
    walk(0, UINT32_MAX);
    ring.next = 0;
    ck_assert_uint_eq(walk(0, UINT32_MAX), 0);
}
END_TEST

START_TEST(half_written)
{
    forget();
    note(1, 1);
    note(1, 2);
    ring.events[1].number = 0; /* its writer was interrupted there, by a crash for one */
    ck_assert_uint_eq(walk(1, 10), 1);
    ck_assert_uint_eq(walk(0, 10), 1);
    ck_assert_uint_eq(seen[0].values[0], 1);
}
END_TEST

static volatile bool stop;

static void *writer(void *arg)
{
    for (uint32_t i = 1; !stop; i++)
        note(1 + i % 3, i);
    return arg;
}

static uint32_t last_value;
static unsigned told, torn, backwards;

static void examine(const struct ring_event *e, void *arg)
{
    (void)arg;
    told++;
    torn += e->when != e->values[0] || e->values[0] != e->values[1] ||
            e->values[0] != e->values[2] || e->values[0] != e->values[3] ||
            e->number != 1 + e->values[0] % 3;
    backwards += e->values[0] <= last_value;
    last_value = e->values[0];
}

/* No record is seen that is half an old one and half a new one, and none out of its turn. */
START_TEST(read_while_written)
{
    pthread_t thread;
    forget();
    ck_assert_int_eq(pthread_create(&thread, NULL, writer, NULL), 0);
    while (__atomic_load_n(&ring.next, __ATOMIC_RELAXED) < 2 * RING_EVENTS)
        sched_yield();
    for (unsigned i = 0; i < 400; i++) {
        last_value = 0;
        ring_walk(&ring, i % 4, UINT32_MAX, examine, NULL);
    }
    stop = true;
    pthread_join(thread, NULL);
    ck_assert_uint_gt(told, 0);
    ck_assert_uint_eq(torn, 0);
    ck_assert_uint_eq(backwards, 0);
}
END_TEST

/* What is kept of an event has the arguments of the schema, in its order. */
START_TEST(expands)
{
    const struct ring_event e = {.small = {5, 6, 7}, .values = {10, 11, 12, 13}};
    const struct {
        enum trace_event_id id;
        unsigned n;
        uint64_t argv[TRACE_ARGS_MAX];
    } cases[] = {
        {TRACE_EV_STATE, 3, {5, 6, 7}},
        {TRACE_EV_SEGMENT_IN, 6, {5, 10, 11, 12, 13, 6}},
        {TRACE_EV_SEGMENT_OUT, 6, {5, 10, 11, 12, 13, 6}},
        {TRACE_EV_TIMER_FIRED, 2, {5, 10}},
        {TRACE_EV_RECOVERY, 4, {5, 10, 11, 12}},
        {TRACE_EV_SEND_HELD, 5, {5, 10, 11, 12, 13}},
        {TRACE_EV_DROPPED, 0, {0}},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t argv[TRACE_ARGS_MAX];
        struct ring_event one = e;
        one.event = (uint8_t)cases[i].id;
        ck_assert_uint_eq(ring_expand(&one, argv), cases[i].n);
        for (unsigned k = 0; k < cases[i].n; k++)
            ck_assert_uint_eq(argv[k], cases[i].argv[k]);
    }
    for (unsigned id = 0; id < 256; id++) {
        uint64_t argv[TRACE_ARGS_MAX];
        struct ring_event one = e;
        one.event = (uint8_t)id;
        ck_assert_uint_le(ring_expand(&one, argv), TRACE_ARGS_MAX);
    }
}
END_TEST

Suite *suite_ring(void)
{
    Suite *s = suite_create("ring");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, order_and_limit);
    tcase_add_test(t, wraps);
    tcase_add_test(t, half_written);
    tcase_add_test(t, read_while_written);
    tcase_add_test(t, expands);
    suite_add_tcase(s, t);
    return s;
}
