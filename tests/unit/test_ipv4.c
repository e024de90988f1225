#include "tests/unit/suites.h"

#include <errno.h>

#include "stack/util/checksum.h"
#include "tests/unit/ip_harness.h"

static uint8_t buf[FRAME_KEPT];

static uint32_t tcp_frame(uint32_t src, uint32_t dst, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        buf[34 + i] = pattern(i);
    return make_ip4(buf, src, dst, IPPROTO_TCP_, 0x4000, 1, len);
}

static bool accepted(uint32_t len)
{
    const unsigned before = world.nin;
    world_frame(buf, len);
    return world.nin == before + 1;
}

START_TEST(delivers_to_tcp)
{
    const uint32_t len = tcp_frame(PEER_ADDR, OUR_ADDR, 100);
    world_frame(buf, len);
    ck_assert_uint_eq(world.nin, 1);
    const struct ip_packet *p = &world.in.packet;
    ck_assert_uint_eq(p->len, 100);
    ck_assert_uint_eq(ip_addr_v4(&p->src), PEER_ADDR);
    ck_assert_uint_eq(ip_addr_v4(&p->dst), OUR_ADDR);
    ck_assert_uint_eq(p->ttl, 63);
    ck_assert_uint_eq(p->tos, 0x10);
    ck_assert_uint_eq(p->netif, world.wire);
    ck_assert_mem_eq(p->src_mac, peer_mac, 6);
    ck_assert(!p->csum_trusted);
    ck_assert_mem_eq(p->payload, buf + 34, 100);
    world_frame_on(world.wire, buf, len, true);
    ck_assert(world.in.packet.csum_trusted);

    struct ip_path path;
    ip_path_reply(&world.in.packet, &path);
    ck_assert(path.mac_known);
    ck_assert_mem_eq(path.mac, peer_mac, 6);
    ck_assert_uint_eq(path.netif, world.wire);
    ck_assert_uint_eq(ip_path_mtu(world.st, &path), 1500);
    path.mtu = 1400;
    ck_assert_uint_eq(ip_path_mtu(world.st, &path), 1400);
    path.mtu = 9000;
    ck_assert_uint_eq(ip_path_mtu(world.st, &path), 1500);
}
END_TEST

START_TEST(padding_is_cut_off)
{
    tcp_frame(PEER_ADDR, OUR_ADDR, 20);
    memset(buf + 54, 0xee, 6);
    world_frame(buf, 60);
    ck_assert_uint_eq(world.nin, 1);
    ck_assert_uint_eq(world.in.packet.len, 20);
}
END_TEST

START_TEST(a_coalesced_frame_is_one_packet)
{
    const uint32_t len = tcp_frame(PEER_ADDR, OUR_ADDR, 65000);
    world_frame(buf, len);
    ck_assert_uint_eq(world.nin, 1);
    ck_assert_uint_eq(world.in.packet.len, 65000);
}
END_TEST

START_TEST(options_are_skipped)
{
    const uint8_t options[8] = {1, 7, 7, 4, 0, 0, 0, 0}; /* NOP, record route, end */
    uint8_t payload[40];
    memset(payload, 0x5a, sizeof(payload));
    make_ip4(buf, PEER_ADDR, OUR_ADDR, IPPROTO_TCP_, 0, 1, 48);
    buf[14] = 0x47;
    memcpy(buf + 34, options, 8);
    memcpy(buf + 42, payload, 40);
    fix_ip4_checksum(buf);
    ck_assert(accepted(34 + 48));
    ck_assert_uint_eq(world.in.packet.len, 40);
    ck_assert_mem_eq(world.in.payload, payload, 40);

    const uint8_t bad[][8] = {
        {7, 0}, /* a length of nothing */
        {7, 1},
        {7, 9},                      /* longer than the header */
        {1, 1, 1, 1, 1, 1, 1, 7},    /* no length */
        {131, 7, 4, 10, 9, 0, 1, 0}, /* loose source route */
        {1, 137, 7, 4, 10, 9, 0, 1}, /* strict source route */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        memcpy(buf + 34, bad[i], 8);
        fix_ip4_checksum(buf);
        ck_assert(!accepted(34 + 48));
        ck_assert_uint_eq(count_of(COUNT_BAD_IP), i + 1);
    }
}
END_TEST

START_TEST(malformed_headers)
{
    const uint32_t len = tcp_frame(PEER_ADDR, OUR_ADDR, 100);
    ck_assert(accepted(len));
    for (uint32_t cut = 0; cut < len; cut++)
        ck_assert(!accepted(cut));
    ck_assert_uint_eq(count_of(COUNT_SHORT_FRAME), len);

    for (unsigned v = 0; v < 16; v++) {
        tcp_frame(PEER_ADDR, OUR_ADDR, 100);
        buf[14] = (uint8_t)(v << 4 | 5);
        fix_ip4_checksum(buf);
        ck_assert(accepted(len) == (v == 4));
    }
    for (unsigned ihl = 0; ihl < 5; ihl++) {
        tcp_frame(PEER_ADDR, OUR_ADDR, 100);
        buf[14] = (uint8_t)(0x40 | ihl);
        ck_assert(!accepted(len));
    }
    tcp_frame(PEER_ADDR, OUR_ADDR, 100);
    put_be16(buf + 16, 19); /* total length below the header */
    fix_ip4_checksum(buf);
    ck_assert(!accepted(len));
    put_be16(buf + 16, 121); /* above the frame */
    fix_ip4_checksum(buf);
    ck_assert(!accepted(len));
    /* one wrong bit anywhere in the header */
    const unsigned before = world.nin;
    for (unsigned bit = 0; bit < 160; bit++) {
        tcp_frame(PEER_ADDR, OUR_ADDR, 100);
        buf[14 + bit / 8] ^= (uint8_t)(1 << (bit % 8));
        world_frame(buf, len);
    }
    ck_assert_uint_eq(world.nin, before);
    ck_assert_uint_gt(count_of(COUNT_BAD_IP_CSUM), 100);
}
END_TEST

START_TEST(source_addresses)
{
    static const uint32_t bad[] = {
        IP4(0, 0, 0, 0),   IP4(0, 1, 2, 3),         IP4(127, 0, 0, 1),  IP4(224, 0, 0, 1),
        IP4(239, 1, 1, 1), IP4(255, 255, 255, 255), IP4(10, 9, 0, 255), OUR_ADDR,
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert(!accepted(tcp_frame(bad[i], OUR_ADDR, 40)));
        ck_assert_uint_eq(count_of(COUNT_BAD_SOURCE), i + 1);
    }
    ck_assert(accepted(tcp_frame(IP4(8, 8, 8, 8), OUR_ADDR, 40)));
}
END_TEST

START_TEST(destination_addresses)
{
    static const uint32_t others[] = {
        IP4(10, 9, 0, 3),  IP4(10, 9, 0, 255), IP4(255, 255, 255, 255),
        IP4(224, 0, 0, 1), IP4(127, 0, 0, 1),  IP4(0, 0, 0, 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ck_assert(!accepted(tcp_frame(PEER_ADDR, others[i], 40)));
        ck_assert_uint_eq(count_of(COUNT_NOT_OURS), i + 1);
    }
    ck_assert_uint_eq(world.nsent, 0);
    /* an address of another interface of the stack is ours as well */
    struct netif nif = *stack_netif(world.st, world.wire);
    nif.addrs[0].addr = ip_addr_from_v4(IP4(10, 8, 0, 5));
    ck_assert_int_gt(stack_add_netif(world.st, &nif), 0);
    ck_assert(accepted(tcp_frame(PEER_ADDR, IP4(10, 8, 0, 5), 40)));
}
END_TEST

START_TEST(ethernet_addresses)
{
    const uint32_t len = tcp_frame(PEER_ADDR, OUR_ADDR, 40);
    memcpy(buf, broadcast_mac, 6);
    ck_assert(!accepted(len));
    memcpy(buf, (const uint8_t[6]){0x01, 0, 0x5e, 1, 2, 3}, 6);
    ck_assert(!accepted(len));
    memcpy(buf, other_mac, 6);
    ck_assert(!accepted(len));
    memcpy(buf, our_mac, 6);
    memcpy(buf + 6, broadcast_mac, 6);
    ck_assert(!accepted(len));
    memcpy(buf + 6, peer_mac, 6);
    ck_assert(accepted(len));
    put_be16(buf + 12, 0x86dd);
    ck_assert(!accepted(len));
    ck_assert_uint_eq(count_of(COUNT_BAD_PROTO), 1);
    put_be16(buf + 12, 0x8100);
    ck_assert(!accepted(len));
    ck_assert_uint_eq(count_of(COUNT_BAD_ETHER), 2);
}
END_TEST

START_TEST(interfaces)
{
    const uint32_t len = tcp_frame(PEER_ADDR, OUR_ADDR, 40);
    world_frame_on(15, buf, len, false);
    world_frame_on(255, buf, len, false);
    ck_assert_uint_eq(world.nin, 0);
    stack_netif(world.st, world.wire)->up = false;
    ck_assert(!accepted(len));
    stack_netif(world.st, world.wire)->up = true;
    /* a link without Ethernet */
    struct netif tun = {.up = true, .kind = NETIF_RAW_IP, .mtu = 1400, .naddrs = 1};
    tun.addrs[0].addr = ip_addr_from_v4(IP4(10, 7, 0, 1));
    tun.addrs[0].prefix = 120;
    const int n = stack_add_netif(world.st, &tun);
    const uint32_t tlen = tcp_frame(IP4(10, 7, 0, 2), IP4(10, 7, 0, 1), 40);
    world_frame_on((uint8_t)n, buf + 14, tlen - 14, false);
    ck_assert_uint_eq(world.nin, 1);
    struct ip_path path;
    ip_path_reply(&world.in.packet, &path);
    ck_assert(!path.mac_known);
    ck_assert_int_eq(send_tcp(&path, IP4(10, 7, 0, 1), IP4(10, 7, 0, 2), 500, 0, 0x10), 0);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_uint_eq(world.sent[0].len, 540);
    ck_assert_uint_eq(world.sent[0].data[0], 0x45);
    ck_assert(sent_checksums_right(&world.sent[0]));
    buf[14] = 0x65;
    world_frame_on((uint8_t)n, buf + 14, tlen - 14, false);
    world_frame_on((uint8_t)n, buf + 14, 0, false);
    ck_assert_uint_eq(world.nin, 1);
}
END_TEST

START_TEST(unknown_protocols_are_counted)
{
    make_ip4(buf, PEER_ADDR, OUR_ADDR, 17, 0, 1, 30);
    world_frame(buf, 64);
    ck_assert_uint_eq(count_of(COUNT_BAD_PROTO), 1);
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

/* ---- output ---- */

static struct ip_path known_path(void)
{
    struct ip_path path = {.netif = world.wire, .mac_known = true};
    path.next_hop = ip_addr_from_v4(PEER_ADDR);
    memcpy(path.mac, peer_mac, 6);
    return path;
}

START_TEST(headers_and_checksums)
{
    const struct ip_path path = known_path();
    for (uint32_t len = 0; len < 1460; len += 1 + len / 9) {
        world.nsent = 0;
        ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, len, 0, 0x18), 0);
        ck_assert_uint_eq(world.nsent, 1);
        const struct sent *s = &world.sent[0];
        ck_assert_uint_eq(s->len, 54 + len);
        ck_assert_uint_eq(get_be16(s->data + 12), 0x0800);
        const uint8_t *ip = s->data + 14;
        ck_assert_uint_eq(ip[0], 0x45);
        ck_assert_uint_eq(ip[1], 8);
        ck_assert_uint_eq(get_be16(ip + 2), 40 + len);
        ck_assert_uint_eq(get_be16(ip + 6), 0x4000);
        ck_assert_uint_eq(ip[8], 64);
        ck_assert_uint_eq(ip[9], 6);
        ck_assert(sent_checksums_right(s));
    }
}
END_TEST

START_TEST(partial_checksum)
{
    const struct ip_path path = known_path();
    stack_netif(world.st, world.wire)->csum_offload = true;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 333, 0, 0x18), 0);
    const struct sent *s = &world.sent[0];
    ck_assert(s->csum_partial);
    ck_assert_uint_eq(s->csum_offset, 16);
    const struct ip_addr a = ip_addr_from_v4(OUR_ADDR), b = ip_addr_from_v4(FAR_ADDR);
    const uint16_t pseudo = csum_fold(csum_pseudo(&a, &b, 6, 353));
    ck_assert_mem_eq(s->data + 34 + 16, &pseudo, 2);
    /* what the link does with it gives a right packet */
    struct sent whole = *s;
    const uint16_t check = (uint16_t)~csum_fold(csum_add(0, whole.data + 34, 353, false));
    memcpy(whole.data + 34 + 16, &check, 2);
    whole.csum_partial = false;
    ck_assert(sent_checksums_right(&whole));
}
END_TEST

START_TEST(send_errors)
{
    struct ip_path path = known_path();
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 1461, 0, 0x18), -EMSGSIZE);
    world.transmit_result = -ENOBUFS;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 10, 0, 0x18), -ENOBUFS);
    ck_assert_uint_eq(count_of(COUNT_TX_FAILED), 1);
    world.transmit_result = 0;
    path.netif = 9;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 10, 0, 0x18), -ENETDOWN);
    path = known_path();
    stack_netif(world.st, world.wire)->up = false;
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, FAR_ADDR, 10, 0, 0x18), -ENETDOWN);
}
END_TEST

START_TEST(identification)
{
    const struct ip_path path = known_path();
    struct netif *nif = stack_netif(world.st, world.wire);
    nif->gso = true;
    nif->csum_offload = true;
    send_tcp(&path, OUR_ADDR, FAR_ADDR, 10, 0, 0x18);
    send_tcp(&path, OUR_ADDR, FAR_ADDR, 2500, 1000, 0x18); /* three on the wire */
    send_tcp(&path, OUR_ADDR, FAR_ADDR, 2000, 1000, 0x18); /* two */
    send_tcp(&path, OUR_ADDR, FAR_ADDR, 10, 0, 0x18);
    const uint16_t first = get_be16(world.sent[0].data + 18);
    ck_assert_uint_eq(get_be16(world.sent[1].data + 18), (uint16_t)(first + 1));
    ck_assert_uint_eq(get_be16(world.sent[2].data + 18), (uint16_t)(first + 4));
    ck_assert_uint_eq(get_be16(world.sent[3].data + 18), (uint16_t)(first + 6));
}
END_TEST

/* Whatever arrives: no crash, no read past the end, nothing left behind. */
START_TEST(random_frames)
{
    struct rng r;
    const uint8_t seed[16] = {(uint8_t)_i, 0x77};
    rng_init(&r, seed);
    for (unsigned n = 0; n < 5000; n++) {
        uint32_t len;
        const uint32_t payload = rng_below(&r, 200);
        for (uint32_t i = 0; i < payload; i++)
            buf[34 + i] = (uint8_t)rng_u64(&r);
        switch (rng_below(&r, 4)) {
        case 0:
            len = 42;
            make_arp(buf, rng_below(&r, 2) ? our_mac : broadcast_mac,
                     (uint16_t)(1 + rng_below(&r, 2)), peer_mac, IP4(10, 9, 0, rng_below(&r, 5)),
                     our_mac, IP4(10, 9, 0, rng_below(&r, 5)));
            break;
        case 1:
            len = make_ip4(buf, PEER_ADDR, OUR_ADDR, rng_below(&r, 2) ? 6 : 1, 0, 1, payload);
            break;
        case 2:
            len = make_ip4(buf, IP4(10, 9, 0, rng_below(&r, 5)), OUR_ADDR, 6,
                           (uint16_t)(rng_below(&r, 20) | (rng_below(&r, 2) << 13)),
                           (uint16_t)rng_below(&r, 3), payload);
            break;
        default:
            len = make_ip4(buf, PEER_ADDR, OUR_ADDR, 1, 0, 1, payload);
            buf[34] = (uint8_t)(3 + 8 * rng_below(&r, 2));
            buf[35] = (uint8_t)rng_below(&r, 18);
        }
        for (uint32_t k = rng_below(&r, 3); k > 0; k--) {
            buf[rng_below(&r, len)] = (uint8_t)rng_u64(&r);
            if (rng_below(&r, 2) && len >= 74)
                fix_ip4_checksum(buf);
        }
        if (rng_below(&r, 10) == 0)
            len = rng_below(&r, len + 1);
        world_frame(buf, len);
        world.nsent = 0;
        if (rng_below(&r, 50) == 0)
            world_run(rng_below(&r, 2000) * NSEC_PER_MSEC);
        world.nsent = 0;
    }
    world_run(60 * NSEC_PER_SEC);
    ck_assert(world_clean());
    ck_assert_uint_eq(arena_used(world.st->arena), 0);
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

Suite *suite_ipv4(void)
{
    Suite *s = suite_create("ipv4");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 30);
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, delivers_to_tcp);
    tcase_add_test(t, padding_is_cut_off);
    tcase_add_test(t, a_coalesced_frame_is_one_packet);
    tcase_add_test(t, options_are_skipped);
    tcase_add_test(t, malformed_headers);
    tcase_add_test(t, source_addresses);
    tcase_add_test(t, destination_addresses);
    tcase_add_test(t, ethernet_addresses);
    tcase_add_test(t, interfaces);
    tcase_add_test(t, unknown_protocols_are_counted);
    tcase_add_test(t, headers_and_checksums);
    tcase_add_test(t, partial_checksum);
    tcase_add_test(t, send_errors);
    tcase_add_test(t, identification);
    tcase_add_loop_test(t, random_frames, 0, 5);
    suite_add_tcase(s, t);
    return s;
}
