#include "tests/unit/suites.h"

#include <errno.h>

#include "tests/unit/ip_harness.h"

static struct ip_path path;
static struct ip_addr src;

static int route(uint32_t dst4)
{
    const struct ip_addr dst = ip_addr_from_v4(dst4);
    memset(&path, 0xee, sizeof(path));
    return ip_route(world.st, &dst, &path, &src);
}

static int add(uint32_t addr, uint8_t prefix, uint32_t gateway)
{
    struct netif nif = {.up = true, .kind = NETIF_ETHERNET, .mtu = 1500, .naddrs = 1};
    nif.addrs[0].addr = ip_addr_from_v4(addr);
    nif.addrs[0].prefix = prefix;
    if (gateway != 0)
        nif.gateway = ip_addr_from_v4(gateway);
    return stack_add_netif(world.st, &nif);
}

START_TEST(on_link_and_gateway)
{
    ck_assert_int_eq(route(PEER_ADDR), 0);
    ck_assert_uint_eq(path.netif, world.wire);
    ck_assert_uint_eq(ip_addr_v4(&path.next_hop), PEER_ADDR);
    ck_assert_uint_eq(ip_addr_v4(&src), OUR_ADDR);
    ck_assert(!path.mac_known);
    ck_assert_uint_eq(path.mtu, 0);
    ck_assert_int_eq(route(FAR_ADDR), 0);
    ck_assert_uint_eq(ip_addr_v4(&path.next_hop), GATEWAY);
    ck_assert_uint_eq(ip_addr_v4(&src), OUR_ADDR);
}
END_TEST

START_TEST(longest_prefix_wins)
{
    const int wide = add(IP4(172, 16, 0, 1), 96 + 12, 0);
    const int narrow = add(IP4(172, 16, 5, 1), 96 + 23, 0);
    ck_assert_int_eq(route(IP4(172, 16, 4, 9)), 0);
    ck_assert_int_eq(path.netif, narrow);
    ck_assert_uint_eq(ip_addr_v4(&src), IP4(172, 16, 5, 1));
    ck_assert_int_eq(route(IP4(172, 16, 6, 9)), 0);
    ck_assert_int_eq(path.netif, wide);
    add(IP4(172, 24, 0, 1), 96 + 13, 0); /* and in any order */
    add(IP4(172, 24, 0, 2), 96 + 12, 0);
    ck_assert_int_eq(route(IP4(172, 24, 6, 9)), 0);
    ck_assert_uint_eq(ip_addr_v4(&src), IP4(172, 24, 0, 1));
    stack_netif(world.st, (unsigned)narrow)->up = false;
    ck_assert_int_eq(route(IP4(172, 16, 4, 9)), 0);
    ck_assert_int_eq(path.netif, wide);
}
END_TEST

START_TEST(no_route)
{
    stack_netif(world.st, world.wire)->gateway = (struct ip_addr){0};
    ck_assert_int_eq(route(FAR_ADDR), -ENETUNREACH);
    ck_assert_int_eq(route(IP4(224, 0, 0, 1)), -ENETUNREACH);
    ck_assert_int_eq(route(IP4(255, 255, 255, 255)), -ENETUNREACH);
    ck_assert_int_eq(route(IP4(10, 9, 0, 255)), -ENETUNREACH);
    ck_assert_int_eq(route(0), -ENETUNREACH);
    const struct ip_addr v6 = {.b = {0x20, 1, [15] = 1}};
    ck_assert_int_eq(ip_route(world.st, &v6, &path, &src), -ENETUNREACH);
    stack_netif(world.st, world.wire)->up = false;
    ck_assert_int_eq(route(PEER_ADDR), -ENETUNREACH);
}
END_TEST

START_TEST(point_to_point_has_no_broadcast)
{
    const int n = add(IP4(10, 1, 1, 0), 96 + 31, 0);
    ck_assert_int_eq(route(IP4(10, 1, 1, 1)), 0);
    ck_assert_int_eq(path.netif, n);
}
END_TEST

START_TEST(local_addresses)
{
    ck_assert_int_eq(route(IP4(127, 5, 5, 5)), 0);
    ck_assert_uint_eq(path.netif, NETIF_LOOP);
    ck_assert_uint_eq(ip_addr_v4(&src), IP4(127, 0, 0, 1));
    ck_assert_uint_eq(ip_addr_v4(&path.next_hop), IP4(127, 5, 5, 5));
    const struct ip_addr own = ip_addr_from_v4(OUR_ADDR), loop = ip_addr_from_v4(IP4(127, 9, 9, 9)),
                         peer = ip_addr_from_v4(PEER_ADDR);
    ck_assert(ip_is_local(world.st, &own));
    ck_assert(ip_is_local(world.st, &loop));
    ck_assert(!ip_is_local(world.st, &peer));
    /* without it both are the kernel's business */
    world.st->config.loopback = false;
    ck_assert(!ip_is_local(world.st, &loop));
    ck_assert(ip_is_local(world.st, &own));
    ck_assert_int_eq(route(IP4(127, 0, 0, 1)), -ENETUNREACH);
    ck_assert_int_eq(route(OUR_ADDR), -ENETUNREACH);
}
END_TEST

Suite *suite_route(void)
{
    Suite *s = suite_create("route");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, on_link_and_gateway);
    tcase_add_test(t, longest_prefix_wins);
    tcase_add_test(t, no_route);
    tcase_add_test(t, point_to_point_has_no_broadcast);
    tcase_add_test(t, local_addresses);
    suite_add_tcase(s, t);
    return s;
}
