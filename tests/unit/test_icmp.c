#include "tests/unit/suites.h"

#include <errno.h>

#include "stack/util/checksum.h"
#include "tests/unit/ip_harness.h"

static uint8_t buf[FRAME_KEPT];

/* Header and checksum around `len` bytes of body at buf + 42. */
static uint32_t icmp_frame(uint32_t src, uint8_t type, uint8_t code, uint32_t info, uint32_t len)
{
    uint8_t *icmp = buf + 34;
    icmp[0] = type;
    icmp[1] = code;
    memset(icmp + 2, 0, 2);
    put_be32(icmp + 4, info);
    const uint16_t check = (uint16_t)~csum_fold(csum_add(0, icmp, 8 + len, false));
    memcpy(icmp + 2, &check, 2);
    return make_ip4(buf, src, OUR_ADDR, IPPROTO_ICMP_, 0, 1, 8 + len);
}

static void ping(uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        buf[42 + i] = pattern(i);
    world_frame(buf, icmp_frame(PEER_ADDR, 8, 0, 0x12340001, len));
}

START_TEST(echo)
{
    for (uint32_t len = 0; len <= 1472; len += 1 + len / 5) {
        world.nsent = 0;
        ping(len);
        ck_assert_uint_eq(world.nsent, 1);
        const struct sent *s = &world.sent[0];
        ck_assert_uint_eq(s->len, 42 + len);
        ck_assert_mem_eq(s->data, peer_mac, 6);
        ck_assert(sent_checksums_right(s));
        ck_assert_mem_eq(s->data + 26, &(uint32_t){OUR_ADDR}, 4);
        ck_assert_mem_eq(s->data + 30, &(uint32_t){PEER_ADDR}, 4);
        ck_assert_uint_eq(s->data[34], 0);
        ck_assert_uint_eq(get_be32(s->data + 38), 0x12340001);
        ck_assert_mem_eq(s->data + 42, buf + 42, len);
    }
    world.nsent = 0;
    ping(1473); /* came in fragments: one byte more than a packet, so the answer is in two */
    ck_assert_uint_eq(world.nsent, 2);
    ck_assert_uint_eq(get_be16(world.sent[0].data + 20), 0x2000); /* MF, offset 0 */
    ck_assert_uint_eq(get_be16(world.sent[1].data + 20), 1480 / 8);
    ck_assert_mem_eq(world.sent[0].data + 18, world.sent[1].data + 18, 2); /* one identification */
    ck_assert_uint_eq(world.sent[1].len, 14 + 20 + 1);
    ck_assert_uint_eq(world.sent[1].data[34], pattern(1472));
    uint64_t sum = csum_add(0, world.sent[0].data + 34, 1480, false);
    ck_assert_uint_eq(csum_fold(csum_add(sum, world.sent[1].data + 34, 1, false)), 0xffff);
    world.nsent = 0;
    /* complete also where the link makes partial checksums of TCP */
    stack_netif(world.st, world.wire)->csum_offload = true;
    ping(77);
    ck_assert(sent_checksums_right(&world.sent[0]));
}
END_TEST

START_TEST(echo_only_for_own_addresses)
{
    stack_netif(world.st, world.wire)->answers_arp = false;
    ping(10);
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

START_TEST(echo_is_limited)
{
    unsigned answered = 0;
    for (unsigned i = 0; i < 3000; i++) {
        world.nsent = 0;
        ping(10);
        answered += world.nsent;
    }
    ck_assert_uint_eq(answered, 1000);
    ck_assert_uint_eq(count_of(COUNT_ICMP_RATE), 2000);
    world_run(100 * NSEC_PER_MSEC);
    answered = 0;
    for (unsigned i = 0; i < 3000; i++) {
        world.nsent = 0;
        ping(10);
        answered += world.nsent;
    }
    ck_assert_uint_ge(answered, 99);
    ck_assert_uint_le(answered, 101);
}
END_TEST

/* An error about a segment from src4:1234 of which `quoted` bytes of TCP header came back. */
static uint32_t error_frame(uint8_t type, uint8_t code, uint32_t info, uint32_t src4, uint8_t proto,
                            uint32_t quoted)
{
    uint8_t inner[14 + 20 + 64] = {0};
    make_ip4(inner, src4, FAR_ADDR, proto, 0x4000, 5, 1000);
    put_be16(inner + 34, 1234);
    put_be16(inner + 36, 80);
    put_be32(inner + 38, 0x01020304);
    memcpy(buf + 42, inner + 14, 20 + quoted);
    return icmp_frame(IP4(10, 9, 0, 254), type, code, info, 20 + quoted);
}

START_TEST(errors_as_linux_maps_them)
{
    static const struct {
        uint8_t type, code;
        int err;
        bool hard;
    } table[] = {
        {3, 0, ENETUNREACH, false},   {3, 1, EHOSTUNREACH, false},  {3, 2, ENOPROTOOPT, true},
        {3, 3, ECONNREFUSED, true},   {3, 4, EMSGSIZE, false},      {3, 5, EOPNOTSUPP, false},
        {3, 6, ENETUNREACH, true},    {3, 7, EHOSTDOWN, true},      {3, 8, ENONET, true},
        {3, 9, ENETUNREACH, true},    {3, 10, EHOSTUNREACH, true},  {3, 11, ENETUNREACH, false},
        {3, 12, EHOSTUNREACH, false}, {3, 13, EHOSTUNREACH, true},  {3, 14, EHOSTUNREACH, true},
        {3, 15, EHOSTUNREACH, true},  {11, 0, EHOSTUNREACH, false}, {11, 1, EHOSTUNREACH, false},
        {12, 0, EPROTO, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        world.nerrors = 0;
        world_frame(buf, error_frame(table[i].type, table[i].code, 1234, OUR_ADDR, 6, 8));
        ck_assert_uint_eq(world.nerrors, 1);
        ck_assert_int_eq(world.error.err, table[i].err);
        ck_assert_int_eq(world.error.hard, table[i].hard);
        ck_assert_uint_eq(world.error.mtu, table[i].err == EMSGSIZE ? 1234 : 0);
        ck_assert_uint_eq(ip_addr_v4(&world.error.src), OUR_ADDR);
        ck_assert_uint_eq(ip_addr_v4(&world.error.dst), FAR_ADDR);
        ck_assert_uint_eq(world.error.len, 8);
        ck_assert_uint_eq(get_be16(world.error.header), 1234);
        ck_assert_uint_eq(get_be32(world.error.header + 4), 0x01020304);
    }
    ck_assert_uint_eq(count_of(COUNT_ICMP_IN), ARRAY_LEN(table));
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

START_TEST(errors_about_others_are_dropped)
{
    world_frame(buf, error_frame(3, 3, 0, IP4(10, 9, 0, 3), 6, 8)); /* not from us */
    world_frame(buf, error_frame(3, 3, 0, OUR_ADDR, 17, 8));        /* not TCP */
    world_frame(buf, error_frame(3, 3, 0, OUR_ADDR, 6, 7));         /* too little of it */
    world_frame(buf, error_frame(3, 16, 0, OUR_ADDR, 6, 8));        /* no such code */
    ck_assert_uint_eq(count_of(COUNT_BAD_ICMP), 4);

    error_frame(3, 3, 0, OUR_ADDR, 6, 8);
    buf[42] = 0x65; /* quotes no IPv4 */
    world_frame(buf, icmp_frame(PEER_ADDR, 3, 3, 0, 28));
    error_frame(3, 3, 0, OUR_ADDR, 6, 8);
    buf[42] = 0x44; /* with too short a header */
    world_frame(buf, icmp_frame(PEER_ADDR, 3, 3, 0, 28));
    error_frame(3, 3, 0, OUR_ADDR, 6, 8);
    buf[42] = 0x4f; /* with a header longer than what is there */
    world_frame(buf, icmp_frame(PEER_ADDR, 3, 3, 0, 28));
    error_frame(3, 3, 0, OUR_ADDR, 6, 8);
    put_be16(buf + 48, 100); /* a later fragment: no ports in it */
    world_frame(buf, icmp_frame(PEER_ADDR, 3, 3, 0, 28));
    for (uint32_t len = 0; len < 28; len++) {
        error_frame(3, 3, 0, OUR_ADDR, 6, 8);
        world_frame(buf, icmp_frame(PEER_ADDR, 3, 3, 0, len));
    }
    ck_assert_uint_eq(count_of(COUNT_BAD_ICMP), 4 + 4 + 28);
    ck_assert_uint_eq(world.nerrors, 0);
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

START_TEST(checksum_and_length)
{
    const uint32_t len = error_frame(3, 3, 0, OUR_ADDR, 6, 8);
    buf[60] ^= 1;
    world_frame(buf, len);
    world_frame_on(world.wire, buf, len, true); /* trust is about TCP's checksum */
    ck_assert_uint_eq(world.nerrors, 0);
    world_frame(buf, make_ip4(buf, PEER_ADDR, OUR_ADDR, IPPROTO_ICMP_, 0, 1, 7));
    ck_assert_uint_eq(count_of(COUNT_BAD_ICMP), 3);
}
END_TEST

START_TEST(quench_and_redirect_are_ignored)
{
    world_frame(buf, error_frame(4, 0, 0, OUR_ADDR, 6, 8));
    world_frame(buf, error_frame(5, 1, 0, OUR_ADDR, 6, 8));
    world_frame(buf, icmp_frame(PEER_ADDR, 0, 0, 0, 50));
    ck_assert_uint_eq(world.nerrors, 0);
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

START_TEST(longer_quotes_and_inner_options)
{
    world_frame(buf, error_frame(3, 1, 0, OUR_ADDR, 6, 40));
    ck_assert_uint_eq(world.error.len, 40);
    error_frame(3, 1, 0, OUR_ADDR, 6, 40);
    memmove(buf + 42 + 24, buf + 42 + 20, 40);
    buf[42] = 0x46;
    world_frame(buf, icmp_frame(PEER_ADDR, 3, 1, 0, 64));
    ck_assert_uint_eq(world.nerrors, 2);
    ck_assert_uint_eq(get_be16(world.error.header), 1234);
}
END_TEST

Suite *suite_icmp(void)
{
    Suite *s = suite_create("icmp");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, echo);
    tcase_add_test(t, echo_only_for_own_addresses);
    tcase_add_test(t, echo_is_limited);
    tcase_add_test(t, errors_as_linux_maps_them);
    tcase_add_test(t, errors_about_others_are_dropped);
    tcase_add_test(t, checksum_and_length);
    tcase_add_test(t, quench_and_redirect_are_ignored);
    tcase_add_test(t, longer_quotes_and_inner_options);
    suite_add_tcase(s, t);
    return s;
}
