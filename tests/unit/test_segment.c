#include "tests/unit/suites.h"

#include <errno.h>

#include "stack/tcp/wire.h"
#include "tests/unit/ip_harness.h"

static struct ip_path known_path(void)
{
    struct ip_path path = {.netif = world.wire, .mac_known = true};
    path.next_hop = ip_addr_from_v4(PEER_ADDR);
    memcpy(path.mac, peer_mac, 6);
    return path;
}

/* The frames sent are the payload in segments of at most mss, headers as a sender makes them. */
static void check_segments(uint32_t len, uint16_t mss, uint8_t flags)
{
    const unsigned expected = (len + mss - 1) / mss;
    ck_assert_uint_eq(world.nsent, expected);
    uint32_t at = 0;
    bool same = true;
    for (unsigned i = 0; i < expected; i++) {
        const struct sent *s = &world.sent[i];
        const uint8_t *ip = s->data + 14, *tcp = s->data + 34;
        const uint32_t n = s->len - 54;
        const bool last = i == expected - 1;
        ck_assert_uint_eq(n, last ? len - at : mss);
        ck_assert_uint_eq(s->gso_size, 0);
        ck_assert(sent_checksums_right(s));
        ck_assert_uint_eq(get_be16(ip + 2), 40 + n);
        ck_assert_uint_eq(get_be16(ip + 4), (uint16_t)(get_be16(world.sent[0].data + 18) + i));
        ck_assert_uint_eq(get_be32(tcp + 4), 0xfffffff0u + at); /* wraps on the way */
        ck_assert_uint_eq(get_be32(tcp + 8), 77);
        uint8_t want = flags;
        if (!last)
            want &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        if (i > 0)
            want &= (uint8_t)~TCP_CWR;
        ck_assert_uint_eq(tcp[13], want);
        for (uint32_t k = 0; k < n; k++)
            same &= s->data[54 + k] == pattern(at + k);
        at += n;
    }
    ck_assert(same);
    ck_assert_uint_eq(at, len);
}

START_TEST(cuts_into_segments)
{
    const struct ip_path path = known_path();
    static const uint32_t lens[] = {1, 999, 1000, 1001, 1999, 2000, 2001, 7777, 64000, 65000};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        world.nsent = 0;
        const uint8_t flags = TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR;
        ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, lens[i], 1000, flags), 0);
        check_segments(lens[i], 1000, flags);
    }
    world.nsent = 0;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 65000, 1459, TCP_ACK), 0);
    check_segments(65000, 1459, TCP_ACK);
}
END_TEST

START_TEST(a_link_with_gso_gets_it_whole)
{
    const struct ip_path path = known_path();
    stack_netif(world.st, world.wire)->gso = true;
    stack_netif(world.st, world.wire)->csum_offload = true;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 60000, 1448, TCP_ACK), 0);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_uint_eq(world.sent[0].gso_size, 1448);
    ck_assert(world.sent[0].csum_partial);
    /* a single segment is no GSO frame */
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 1448, 1448, TCP_ACK), 0);
    ck_assert_uint_eq(world.sent[1].gso_size, 0);
}
END_TEST

START_TEST(never_above_the_largest_frame)
{
    const struct ip_path path = known_path();
    stack_netif(world.st, world.wire)->gso = true;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, FRAME_BYTES_MAX - 54, 1448, TCP_ACK), 0);
    ck_assert_uint_eq(world.nsent, 1);
    world.nsent = 0;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, FRAME_BYTES_MAX - 53, 1448, TCP_ACK), 0);
    ck_assert_uint_eq(world.nsent, 46);
}
END_TEST

START_TEST(stops_at_the_first_error)
{
    const struct ip_path path = known_path();
    world.transmit_result = -ENOBUFS;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 10000, 1000, TCP_ACK), -ENOBUFS);
    ck_assert_uint_eq(count_of(COUNT_TX_FAILED), 1);
}
END_TEST

Suite *suite_segment(void)
{
    Suite *s = suite_create("segment");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, cuts_into_segments);
    tcase_add_test(t, a_link_with_gso_gets_it_whole);
    tcase_add_test(t, never_above_the_largest_frame);
    tcase_add_test(t, stops_at_the_first_error);
    suite_add_tcase(s, t);
    return s;
}
