#include "tests/unit/suites.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/link/aside.h"

#define ROOM 64 /* of the ring */
#define FEW  10

/* Each test has a process of its own, where nothing was learnt yet. */
static nsec_t now = NSEC_PER_SEC;
static struct sockaddr_in there;
static int out, in;
static bool hears = true;
static unsigned calls;

static bool listens(void)
{
    return hears;
}

static void call(void)
{
    calls++;
}

static const struct aside_helper helper = {listens, call};

static void setup(void)
{
    socklen_t len = sizeof(there);
    const struct timeval patience = {.tv_sec = 5};
    there = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    in = socket(AF_INET, SOCK_DGRAM, 0);
    out = socket(AF_INET, SOCK_DGRAM, 0);
    ck_assert(in >= 0 && out >= 0);
    ck_assert_int_eq(bind(in, (struct sockaddr *)&there, sizeof(there)), 0);
    ck_assert_int_eq(getsockname(in, (struct sockaddr *)&there, &len), 0);
    aside_use(&helper);
    setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

/* As many ACKs as are between two decisions, which take so long each. */
static void acks_cost(nsec_t took, nsec_t apart)
{
    for (unsigned i = 0; i < 256; i++, now += apart)
        if (aside_timed())
            aside_took(now, took);
}

static bool take_on(int fd, uint32_t number)
{
    struct iovec parts[2] = {{&number, 1}, {(uint8_t *)&number + 1, sizeof(number) - 1}};
    const struct msghdr m = {
        .msg_name = &there, .msg_namelen = sizeof(there), .msg_iov = parts, .msg_iovlen = 2};
    return aside_take(fd, &m, now += 20 * NSEC_PER_USEC);
}

static bool take(uint32_t number)
{
    return take_on(out, number);
}

/* Whether one goes aside now; it leaves at once. */
static bool pays(void)
{
    uint32_t number;
    if (!take(ROOM))
        return false;
    aside_flush();
    ck_assert_int_eq(recv(in, &number, sizeof(number), 0), sizeof(number));
    return true;
}

static void switch_on(void)
{
    for (unsigned i = 0; i < 2 && !pays(); i++) /* what was before may be in the first */
        acks_cost(20 * NSEC_PER_USEC, 20 * NSEC_PER_USEC);
    ck_assert(pays());
}

static void check_arrives(uint32_t first, uint32_t count)
{
    uint32_t number = 0;
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(recv(in, &number, sizeof(number), 0), sizeof(number));
        ck_assert_uint_eq(number, first + i);
    }
    ck_assert_int_eq(recv(in, &number, sizeof(number), MSG_DONTWAIT), -1);
}

START_TEST(only_what_is_dear_and_often_goes_aside)
{
    ck_assert(!pays());
    acks_cost(3 * NSEC_PER_USEC, 3 * NSEC_PER_USEC);
    acks_cost(3 * NSEC_PER_USEC, 3 * NSEC_PER_USEC);
    ck_assert(!pays());
    acks_cost(20 * NSEC_PER_USEC, NSEC_PER_MSEC);
    acks_cost(20 * NSEC_PER_USEC, NSEC_PER_MSEC);
    ck_assert(!pays());
    switch_on();
}
END_TEST

START_TEST(nothing_goes_aside_where_nobody_comes)
{
    switch_on();
    hears = false;
    ck_assert(!pays());
    hears = true;
    ck_assert(pays());
    aside_use(NULL);
    for (unsigned i = 0; i < 4; i++)
        acks_cost(20 * NSEC_PER_USEC, 20 * NSEC_PER_USEC);
    ck_assert(!pays());
}
END_TEST

START_TEST(what_becomes_rare_goes_aside_no_more)
{
    switch_on();
    for (uint32_t i = 0; i < 256 && pays(); i++)
        now += NSEC_PER_MSEC;
    ck_assert(!pays());
}
END_TEST

/* As many as are between two decisions, which the caller has to send, or the thread does. */
static void pass(void (*by)(void))
{
    uint32_t number;
    for (uint32_t i = 0; i < 256 && take(i); i++) {
        by();
        ck_assert_int_eq(recv(in, &number, sizeof(number), 0), sizeof(number));
    }
}

START_TEST(a_thread_that_is_late_is_left_alone_for_a_while)
{
    switch_on();
    pass(aside_help);
    switch_on();
    for (unsigned i = 0; i < 4; i++)
        pass(aside_flush);
    for (unsigned i = 0; i < 4; i++)
        acks_cost(20 * NSEC_PER_USEC, 20 * NSEC_PER_USEC);
    ck_assert(!pays());
    now += 2 * NSEC_PER_SEC;
    switch_on();
}
END_TEST

START_TEST(they_leave_in_order_and_whole)
{
    switch_on();
    for (uint32_t i = 0; i < FEW; i++)
        ck_assert(take(i));
    aside_flush();
    check_arrives(0, FEW);
    aside_flush();
    check_arrives(0, 0);
}
END_TEST

START_TEST(a_full_ring_empties_and_the_caller_sends)
{
    switch_on();
    for (uint32_t i = 0; i < ROOM; i++)
        ck_assert(take(i));
    ck_assert(!take(ROOM));
    check_arrives(0, ROOM);
    ck_assert(take(ROOM));
    aside_flush();
    check_arrives(ROOM, 1);
}
END_TEST

START_TEST(who_sleeps_is_called_once)
{
    switch_on();
    ck_assert(take(0));
    ck_assert_uint_eq(calls, 0);
    ck_assert(aside_listen());
    ck_assert(aside_awake());
    aside_help();
    check_arrives(0, 1);
    ck_assert(!aside_listen());
    ck_assert(take(1) && take(2));
    ck_assert_uint_eq(calls, 1);
    ck_assert(aside_awake());
    aside_help();
    check_arrives(1, 2);
    ck_assert(!aside_awake());
}
END_TEST

START_TEST(what_the_kernel_refuses_is_counted)
{
    int err = 0;
    switch_on();
    ck_assert_uint_eq(aside_refused(&err), 0);
    ck_assert(take_on(-1, 0) && take_on(-1, 1) && take(2));
    aside_flush();
    ck_assert_uint_eq(aside_refused(&err), 2);
    ck_assert_int_eq(err, -EBADF);
    ck_assert_uint_eq(aside_refused(&err), 0);
    check_arrives(2, 1);
}
END_TEST

START_TEST(a_child_sends_nothing_of_its_parents)
{
    switch_on();
    ck_assert(take(0));
    const pid_t child = fork();
    if (child == 0) {
        aside_after_fork_child();
        aside_flush();
        _exit(take(1));
    }
    int status = -1;
    ck_assert(waitpid(child, &status, 0) == child && status == 0);
    check_arrives(0, 0);
    aside_flush();
    check_arrives(0, 1);
}
END_TEST

static bool stop; /* (atomic) */

static void *help(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        aside_help();
    return NULL;
}

/* Both sides send: each entry leaves once. */
START_TEST(nothing_is_lost_or_doubled_between_the_two)
{
    enum { MANY = 20000 };
    static uint8_t arrived[MANY];
    pthread_t thread;
    uint32_t next = 0, number;
    ck_assert_int_eq(pthread_create(&thread, NULL, help, NULL), 0);
    for (uint32_t count = 0; count < MANY;) {
        if (next < MANY && next - count < 2 * ROOM) {
            if (take(next))
                next++;
            else /* it costs too little */
                acks_cost(20 * NSEC_PER_USEC, 20 * NSEC_PER_USEC);
            if (next % 7 == 0)
                aside_flush();
            continue;
        }
        ck_assert_int_eq(recv(in, &number, sizeof(number), 0), sizeof(number));
        ck_assert(number < MANY && !arrived[number]);
        arrived[number] = 1;
        count++;
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    check_arrives(0, 0);
}
END_TEST

START_TEST(forbidden_the_thread_sends_nothing)
{
    pthread_t thread;
    switch_on();
    ck_assert_int_eq(pthread_create(&thread, NULL, help, NULL), 0);
    for (uint32_t i = 0; i < FEW; i++)
        ck_assert(take(i));
    aside_forbid();
    check_arrives(0, FEW);
    now += 4 * NSEC_PER_SEC;
    for (unsigned i = 0; i < 4; i++)
        acks_cost(20 * NSEC_PER_USEC, 20 * NSEC_PER_USEC);
    ck_assert(!pays());
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}
END_TEST

Suite *suite_aside(void)
{
    Suite *s = suite_create("aside");
    TCase *t = tcase_create("aside");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, only_what_is_dear_and_often_goes_aside);
    tcase_add_test(t, nothing_goes_aside_where_nobody_comes);
    tcase_add_test(t, what_becomes_rare_goes_aside_no_more);
    tcase_add_test(t, a_thread_that_is_late_is_left_alone_for_a_while);
    tcase_add_test(t, they_leave_in_order_and_whole);
    tcase_add_test(t, a_full_ring_empties_and_the_caller_sends);
    tcase_add_test(t, who_sleeps_is_called_once);
    tcase_add_test(t, what_the_kernel_refuses_is_counted);
    tcase_add_test(t, a_child_sends_nothing_of_its_parents);
    tcase_add_test(t, nothing_is_lost_or_doubled_between_the_two);
    tcase_add_test(t, forbidden_the_thread_sends_nothing);
    suite_add_tcase(s, t);
    return s;
}
