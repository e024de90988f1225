#include "tests/unit/suites.h"

#include <errno.h>

#include "tests/unit/ip_harness.h"

#define LOCALHOST IP4(127, 0, 0, 1)

static struct ip_path loop_path(void)
{
    struct ip_path path;
    struct ip_addr src;
    const struct ip_addr dst = ip_addr_from_v4(LOCALHOST);
    ck_assert_int_eq(ip_route(world.st, &dst, &path, &src), 0);
    ck_assert_uint_eq(path.netif, NETIF_LOOP);
    return path;
}

START_TEST(comes_back_at_the_flush)
{
    const struct ip_path path = loop_path();
    static const uint32_t lens[] = {0, 1, 1000, 1900, 2000, 30000, LOOPBACK_MTU - 40};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        world.nin = 0;
        ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, lens[i], 0, 0x18), 0);
        ck_assert_uint_eq(world.nin, 0);
        ck_assert(ip_loopback_pending(world.st));
        stack_flush(&world.cx);
        ck_assert_uint_eq(world.nin, 1);
        ck_assert_uint_eq(world.in.packet.len, 20 + lens[i]);
        ck_assert(world.in.packet.csum_trusted);
        ck_assert_uint_eq(world.in.packet.netif, NETIF_LOOP);
        bool same = true;
        for (uint32_t k = 0; k < lens[i]; k++)
            same &= world.in.payload[20 + k] == pattern(k);
        ck_assert(same);
        ck_assert(world_clean());
    }
    ck_assert_uint_eq(world.nsent, 0);
    ck_assert_uint_eq(ip_path_mtu(world.st, &path), LOOPBACK_MTU);
}
END_TEST

START_TEST(own_addresses_too)
{
    struct ip_path path;
    struct ip_addr src;
    const struct ip_addr dst = ip_addr_from_v4(OUR_ADDR);
    ck_assert_int_eq(ip_route(world.st, &dst, &path, &src), 0);
    ck_assert(ip_addr_eq(&src, &dst));
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, OUR_ADDR, 10, 0, 0x18), 0);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, 1);
    ip_path_reply(&world.in.packet, &path);
    ck_assert(!path.mac_known);
    ck_assert_uint_eq(path.netif, NETIF_LOOP);
}
END_TEST

START_TEST(coalesced_frames)
{
    const struct ip_path path = loop_path();
    ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, 50000, 536, 0x18), 0);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, 1);
    ck_assert_uint_eq(world.in.packet.gso_size, 536);
    /* more than a buffer holds: cut */
    world.nin = 0;
    ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, 65470, 40000, 0x18), 0);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, 2);
    ck_assert_uint_eq(world.in.packet.len, 20 + 25470);
    ck_assert(world_clean());
}
END_TEST

START_TEST(queue_is_bounded)
{
    const struct ip_path path = loop_path();
    unsigned n = 0;
    while (send_tcp(&path, LOCALHOST, LOCALHOST, 10, 0, 0x18) == 0)
        n++;
    ck_assert_uint_eq(n, LOOPBACK_PACKETS_MAX);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, n);
    ck_assert(world_clean());
    n = 0;
    while (send_tcp(&path, LOCALHOST, LOCALHOST, 60000, 0, 0x18) == 0)
        n++;
    ck_assert_uint_eq(n, LOOPBACK_BYTES_MAX / PACKET_LARGE_SIZE);
    stack_flush(&world.cx);
    ck_assert(world_clean());
}
END_TEST

START_TEST(dropped_when_memory_is_short)
{
    const struct ip_path path = loop_path();
    struct pool hog;
    pool_init(world.st->arena, &hog, ARENA_OBJECT_MAX);
    while (pool_alloc(&hog) != NULL)
        continue;
    ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, 10, 0, 0x18), -ENOBUFS);
    ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, 10000, 0, 0x18), -ENOBUFS);
    ck_assert_uint_eq(count_of(COUNT_NO_MEMORY), 2);
    ck_assert(world_clean());
}
END_TEST

static unsigned echoes;

static void answer(struct world *w, const struct ip_packet *p)
{
    (void)w;
    if (echoes == 0)
        return;
    echoes--;
    struct ip_path path;
    ip_path_reply(p, &path);
    ck_assert_int_eq(send_tcp(&path, LOCALHOST, LOCALHOST, 10, 0, 0x10), 0);
}

START_TEST(what_answers_cause_is_delivered_too)
{
    const struct ip_path path = loop_path();
    world.on_tcp = answer;
    echoes = 100;
    send_tcp(&path, LOCALHOST, LOCALHOST, 10, 0, 0x18);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, 101);
    ck_assert(world_clean());
    /* two that never stop answering do not hang the program */
    echoes = UINT32_MAX;
    send_tcp(&path, LOCALHOST, LOCALHOST, 10, 0, 0x18);
    stack_flush(&world.cx);
    ck_assert_uint_eq(stack_deadline(world.st), 0);
    echoes = 0;
    stack_flush(&world.cx);
    ck_assert(world_clean());
}
END_TEST

START_TEST(foreign_addresses_do_not_pass)
{
    const struct ip_path path = loop_path();
    send_tcp(&path, LOCALHOST, FAR_ADDR, 10, 0, 0x18);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nin, 0);
    ck_assert_uint_eq(count_of(COUNT_NOT_OURS), 1);
}
END_TEST

Suite *suite_loopback(void)
{
    Suite *s = suite_create("loopback");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, comes_back_at_the_flush);
    tcase_add_test(t, own_addresses_too);
    tcase_add_test(t, coalesced_frames);
    tcase_add_test(t, queue_is_bounded);
    tcase_add_test(t, dropped_when_memory_is_short);
    tcase_add_test(t, what_answers_cause_is_delivered_too);
    tcase_add_test(t, foreign_addresses_do_not_pass);
    suite_add_tcase(s, t);
    return s;
}
