#include "tests/unit/suites.h"

#include <errno.h>

#include "tests/unit/ip_harness.h"

static struct ip_path path_to(uint32_t next_hop)
{
    return (struct ip_path){.netif = world.wire, .next_hop = ip_addr_from_v4(next_hop)};
}

static int send_to(uint32_t addr)
{
    const struct ip_path path = path_to(addr);
    return send_tcp(&path, OUR_ADDR, addr, 100, 0, 0x18);
}

static void reply_from(uint32_t addr, const uint8_t mac[6])
{
    uint8_t f[42];
    make_arp(f, our_mac, 2, mac, addr, our_mac, OUR_ADDR);
    world_frame(f, sizeof(f));
}

static const struct sent *last_sent(void)
{
    ck_assert_uint_gt(world.nsent, 0);
    return &world.sent[world.nsent - 1];
}

START_TEST(resolves_and_sends_what_waited)
{
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_uint_eq(world.nsent, 1);
    const struct sent *s = &world.sent[0];
    ck_assert(is_arp(s));
    ck_assert_mem_eq(s->data, broadcast_mac, 6);
    ck_assert_mem_eq(s->data + 6, our_mac, 6);
    ck_assert_uint_eq(sent_arp_op(s), 1);
    ck_assert_uint_eq(sent_arp_spa(s), OUR_ADDR);
    ck_assert_uint_eq(sent_arp_tpa(s), PEER_ADDR);

    reply_from(PEER_ADDR, peer_mac);
    ck_assert_uint_eq(world.nsent, 3);
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_mem_eq(world.sent[i].data, peer_mac, 6);
        ck_assert_mem_eq(world.sent[i].data + 6, our_mac, 6);
        ck_assert_uint_eq(world.sent[i].len, 14 + 20 + 20 + 100);
        ck_assert_uint_eq(world.sent[i].l4, 34);
        ck_assert(sent_checksums_right(&world.sent[i]));
        for (uint32_t k = 0; k < 100; k++)
            ck_assert_uint_eq(world.sent[i].data[54 + k], pattern(k));
    }
    ck_assert(world_clean());
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_uint_eq(world.nsent, 4);
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

START_TEST(three_requests_then_unreachable)
{
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    world_run(2500 * NSEC_PER_MSEC);
    ck_assert_uint_eq(world.nsent, 3);
    ck_assert_uint_eq(world.nerrors, 0);
    world_run(NSEC_PER_SEC);
    ck_assert_uint_eq(world.nsent, 3);
    ck_assert_uint_eq(world.nerrors, 1);
    ck_assert_int_eq(world.error.err, EHOSTUNREACH);
    ck_assert(!world.error.hard);
    ck_assert_uint_eq(ip_addr_v4(&world.error.src), OUR_ADDR);
    ck_assert_uint_eq(ip_addr_v4(&world.error.dst), PEER_ADDR);
    ck_assert_uint_eq(get_be16(world.error.header), 1234);
    ck_assert(world_clean());
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);

    /* later it is asked again */
    world_run(NSEC_PER_SEC);
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_uint_eq(world.nsent, 4);
}
END_TEST

START_TEST(failed_a_moment_ago)
{
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    world_run(3000 * NSEC_PER_MSEC + 3 * (1 << WHEEL_TICK_SHIFT));
    ck_assert_uint_eq(world.nerrors, 1);
    ck_assert_int_eq(send_to(PEER_ADDR), -EHOSTUNREACH);
    reply_from(PEER_ADDR, peer_mac); /* late, but welcome */
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_mem_eq(last_sent()->data, peer_mac, 6);
}
END_TEST

START_TEST(queue_is_bounded)
{
    for (unsigned i = 0; i < ARP_QUEUE_ENTRY_MAX; i++)
        ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_int_eq(send_to(PEER_ADDR), -ENOBUFS);
    for (unsigned n = 0; n < 20; n++) {
        for (unsigned i = 0; i < ARP_QUEUE_ENTRY_MAX; i++)
            send_to(IP4(10, 9, 0, 100 + n));
    }
    ck_assert_uint_eq(world.st->ip.arp.nqueued, ARP_QUEUE_MAX);
    ck_assert_uint_eq(world.st->ip.small.live, ARP_QUEUE_MAX);
    world_run(10 * NSEC_PER_SEC);
    ck_assert_uint_eq(world.nerrors, ARP_QUEUE_MAX);
    ck_assert(world_clean());
}
END_TEST

START_TEST(stale_entry_is_used_and_asked_again)
{
    send_to(PEER_ADDR);
    reply_from(PEER_ADDR, peer_mac);
    world_run(31 * NSEC_PER_SEC);
    world.nsent = 0;
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_uint_eq(world.nsent, 2);
    ck_assert(is_arp(&world.sent[0]));
    ck_assert_mem_eq(world.sent[0].data, peer_mac, 6); /* by unicast */
    ck_assert(!is_arp(&world.sent[1]));
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_uint_eq(world.nsent, 3);
    world_run(1100 * NSEC_PER_MSEC);
    ck_assert_uint_eq(world.nsent, 4);
    ck_assert_mem_eq(world.sent[3].data, broadcast_mac, 6); /* then by broadcast */
    reply_from(PEER_ADDR, other_mac);
    ck_assert_int_eq(send_to(PEER_ADDR), 0);
    ck_assert_mem_eq(last_sent()->data, other_mac, 6);
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

START_TEST(stale_entry_that_does_not_answer_fails)
{
    send_to(PEER_ADDR);
    reply_from(PEER_ADDR, peer_mac);
    world_run(31 * NSEC_PER_SEC);
    send_to(PEER_ADDR);
    world_run(4 * NSEC_PER_SEC);
    world.nsent = 0;
    ck_assert_int_eq(send_to(PEER_ADDR), 0); /* waits: the entry starts anew */
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert(is_arp(last_sent()));
}
END_TEST

START_TEST(answers_requests_for_own_addresses)
{
    uint8_t f[60] = {0};
    make_arp(f, broadcast_mac, 1, peer_mac, PEER_ADDR, (const uint8_t[6]){0}, OUR_ADDR);
    world_frame(f, sizeof(f)); /* padded, as on the wire */
    ck_assert_uint_eq(world.nsent, 1);
    const struct sent *s = last_sent();
    ck_assert(is_arp(s));
    ck_assert_uint_eq(sent_arp_op(s), 2);
    ck_assert_mem_eq(s->data, peer_mac, 6);
    ck_assert_mem_eq(s->data + 22, our_mac, 6);
    ck_assert_uint_eq(sent_arp_spa(s), OUR_ADDR);
    ck_assert_uint_eq(sent_arp_tpa(s), PEER_ADDR);
    /* who asks is known, though not confirmed: used, and asked */
    world.nsent = 0;
    send_to(PEER_ADDR);
    ck_assert_uint_eq(world.nsent, 2);
    /* for others: no answer, nothing learned */
    world.nsent = 0;
    make_arp(f, broadcast_mac, 1, other_mac, IP4(10, 9, 0, 77), (const uint8_t[6]){0},
             IP4(10, 9, 0, 78));
    world_frame(f, 42);
    ck_assert_uint_eq(world.nsent, 0);
    send_to(IP4(10, 9, 0, 77));
    ck_assert(is_arp(last_sent()));
    /* the kernel answers for shared addresses */
    world.nsent = 0;
    stack_netif(world.st, world.wire)->answers_arp = false;
    make_arp(f, broadcast_mac, 1, peer_mac, PEER_ADDR, (const uint8_t[6]){0}, OUR_ADDR);
    world_frame(f, 42);
    ck_assert_uint_eq(world.nsent, 0);
}
END_TEST

START_TEST(malformed_packets_are_dropped)
{
    uint8_t good[42], f[42];
    make_arp(good, our_mac, 2, peer_mac, PEER_ADDR, our_mac, OUR_ADDR);
    send_to(PEER_ADDR);
    const struct {
        unsigned at, len;
        uint8_t with[6];
    } bad[] = {
        {14, 2, {0, 2}},       /* hardware type */
        {16, 2, {0x86, 0xdd}}, /* protocol type */
        {18, 1, {8}},          /* lengths */
        {19, 1, {16}},
        {20, 2, {0, 0}}, /* opcode */
        {20, 2, {0, 3}},
        {22, 6, {0}}, /* sender MAC: zero, group */
        {22, 6, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
        {22, 6, {0x01, 0, 0x5e, 0, 0, 1}},
        {28, 4, {0}}, /* sender IP: zero in a reply, group, broadcast, loopback */
        {28, 4, {224, 0, 0, 1}},
        {28, 4, {255, 255, 255, 255}},
        {28, 4, {127, 0, 0, 1}},
        {38, 4, {127, 0, 0, 1}}, /* target */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        memcpy(f, good, 42);
        memcpy(f + bad[i].at, bad[i].with, bad[i].len);
        world_frame(f, 42);
        ck_assert_uint_eq(count_of(COUNT_BAD_ARP), i + 1);
    }
    world_frame(good, 41);
    ck_assert_uint_eq(count_of(COUNT_BAD_ARP), ARRAY_LEN(bad) + 1);
    ck_assert_uint_eq(world.nsent, 1);
    world_frame(good, 42);
    ck_assert_uint_eq(world.nsent, 2);
}
END_TEST

START_TEST(unsolicited_replies_make_no_entry)
{
    reply_from(IP4(10, 9, 0, 50), peer_mac);
    ck_assert_uint_eq(world.st->ip.arp.used, 0);
}
END_TEST

START_TEST(first_answer_stays_for_a_second)
{
    send_to(PEER_ADDR);
    reply_from(PEER_ADDR, peer_mac);
    reply_from(PEER_ADDR, other_mac);
    send_to(PEER_ADDR);
    ck_assert_mem_eq(last_sent()->data, peer_mac, 6);
    world_run(2 * NSEC_PER_SEC);
    reply_from(PEER_ADDR, other_mac);
    send_to(PEER_ADDR);
    ck_assert_mem_eq(last_sent()->data, other_mac, 6);
}
END_TEST

/* 10.9.x.y, never ours nor a broadcast address */
static uint32_t many(unsigned i)
{
    return IP4(10, 10 + i / 200, 1, 1 + i % 200);
}

START_TEST(table_is_bounded_and_replaces_the_least_used)
{
    for (unsigned i = 0; i < ARP_ENTRIES_MAX; i++)
        arp_learn(&world.cx, world.wire, many(i), peer_mac);
    send_to(many(0)); /* now the one used last */
    for (unsigned i = 0; i < 500; i++)
        arp_learn(&world.cx, world.wire, many(ARP_ENTRIES_MAX + i), peer_mac);
    ck_assert_uint_eq(world.st->ip.arp.used, ARP_ENTRIES_MAX);
    world.nsent = 0;
    send_to(many(0));
    ck_assert(!is_arp(last_sent()));
    send_to(many(1)); /* gone */
    ck_assert(is_arp(last_sent()));

    /* strangers who ask us replace each other, not those we use */
    uint8_t f[42];
    for (unsigned i = 0; i < 2000; i++) {
        make_arp(f, broadcast_mac, 1, other_mac, IP4(10, 9, 1 + i / 200, 1 + i % 200),
                 (const uint8_t[6]){0}, OUR_ADDR);
        world_frame(f, 42);
        world.nsent = 0;
    }
    send_to(many(0));
    ck_assert(!is_arp(last_sent()));
    world_run(10 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

START_TEST(entry_with_frames_waiting_is_replaced)
{
    send_to(PEER_ADDR);
    for (unsigned i = 0; i < ARP_ENTRIES_MAX; i++)
        arp_learn(&world.cx, world.wire, many(i), peer_mac);
    ck_assert(world_clean());
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

START_TEST(learned_from_outside)
{
    arp_learn(&world.cx, world.wire, PEER_ADDR, peer_mac);
    send_to(PEER_ADDR);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_mem_eq(last_sent()->data, peer_mac, 6);
    /* never for us, never a group */
    arp_learn(&world.cx, world.wire, OUR_ADDR, peer_mac);
    arp_learn(&world.cx, world.wire, IP4(10, 9, 0, 9), broadcast_mac);
    arp_learn(&world.cx, 99, IP4(10, 9, 0, 9), peer_mac);
    arp_learn(&world.cx, NETIF_LOOP, IP4(10, 9, 0, 9), peer_mac);
    ck_assert_uint_eq(world.st->ip.arp.used, 1);
}
END_TEST

START_TEST(announces_twice)
{
    struct netif nif = *stack_netif(world.st, world.wire);
    nif.addrs[0].addr = ip_addr_from_v4(IP4(10, 8, 0, 5));
    const int n = stack_add_netif(world.st, &nif);
    ck_assert_int_gt(n, 0);
    ck_assert_uint_eq(world.nsent, 0);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nsent, 1);
    world_run(1900 * NSEC_PER_MSEC);
    ck_assert_uint_eq(world.nsent, 1);
    world_run(200 * NSEC_PER_MSEC);
    ck_assert_uint_eq(world.nsent, 2);
    world_run(100 * NSEC_PER_SEC);
    ck_assert_uint_eq(world.nsent, 2);
    for (unsigned i = 0; i < 2; i++) {
        const struct sent *s = &world.sent[i];
        ck_assert(is_arp(s));
        ck_assert_uint_eq(s->netif, (unsigned)n);
        ck_assert_uint_eq(sent_arp_op(s), 1);
        ck_assert_uint_eq(sent_arp_spa(s), IP4(10, 8, 0, 5));
        ck_assert_uint_eq(sent_arp_tpa(s), IP4(10, 8, 0, 5));
        ck_assert_mem_eq(s->data, broadcast_mac, 6);
    }
}
END_TEST

START_TEST(defends_its_address)
{
    uint8_t f[42];
    make_arp(f, broadcast_mac, 1, other_mac, OUR_ADDR, (const uint8_t[6]){0}, OUR_ADDR);
    world_frame(f, 42);
    ck_assert(stack_netif(world.st, world.wire)->addrs[0].conflict);
    ck_assert_uint_eq(world.nwarned, 1);
    ck_assert_uint_eq(ip_addr_v4(&world.warned), OUR_ADDR);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_uint_eq(sent_arp_spa(last_sent()), OUR_ADDR);
    ck_assert_uint_eq(world.st->ip.arp.used, 0);
    for (unsigned i = 0; i < 100; i++)
        world_frame(f, 42);
    ck_assert_uint_eq(world.nsent, 1); /* once in ten seconds */
    world_run(11 * NSEC_PER_SEC);
    world_frame(f, 42);
    ck_assert_uint_eq(world.nsent, 2);
    ck_assert_uint_eq(world.nwarned, 1); /* once a minute */
    world_run(60 * NSEC_PER_SEC);
    world_frame(f, 42);
    ck_assert_uint_eq(world.nwarned, 2);
    /* our own announcement come back is no conflict */
    world.nsent = 0;
    stack_netif(world.st, world.wire)->addrs[0].conflict = false;
    make_arp(f, broadcast_mac, 1, our_mac, OUR_ADDR, (const uint8_t[6]){0}, OUR_ADDR);
    world_frame(f, 42);
    ck_assert(!stack_netif(world.st, world.wire)->addrs[0].conflict);
}
END_TEST

/* Adds 10.8.0.5 and probes for it. */
static uint8_t probing(void)
{
    struct netif nif = *stack_netif(world.st, world.wire);
    nif.addrs[0].addr = ip_addr_from_v4(IP4(10, 8, 0, 5));
    const uint8_t n = (uint8_t)stack_add_netif(world.st, &nif);
    arp_probe(&world.cx, n, &nif.addrs[0].addr);
    stack_flush(&world.cx);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_uint_eq(sent_arp_spa(last_sent()), 0);
    ck_assert_uint_eq(sent_arp_tpa(last_sent()), IP4(10, 8, 0, 5));
    return n;
}

START_TEST(probe_without_answer)
{
    const uint8_t n = probing();
    uint8_t f[42];
    make_arp(f, broadcast_mac, 1, peer_mac, IP4(10, 8, 0, 1), (const uint8_t[6]){0},
             IP4(10, 8, 0, 5));
    world_frame_on(n, f, 42, false);
    ck_assert_uint_eq(world.nsent, 1); /* not ours yet */
    world_run(10 * NSEC_PER_SEC);
    ck_assert_uint_eq(world.nsent, 3); /* two announcements */
    ck_assert(!stack_netif(world.st, n)->addrs[0].conflict);
    world_frame_on(n, f, 42, false);
    ck_assert_uint_eq(world.nsent, 4);
}
END_TEST

START_TEST(probe_answered)
{
    const uint8_t n = probing();
    uint8_t f[42];
    make_arp(f, our_mac, 2, other_mac, IP4(10, 8, 0, 5), our_mac, 0);
    world_frame_on(n, f, 42, false);
    ck_assert(stack_netif(world.st, n)->addrs[0].conflict);
    world_run(10 * NSEC_PER_SEC);
    ck_assert_uint_eq(world.nsent, 1); /* neither defended nor announced */
    make_arp(f, broadcast_mac, 1, peer_mac, IP4(10, 8, 0, 1), (const uint8_t[6]){0},
             IP4(10, 8, 0, 5));
    world_frame_on(n, f, 42, false);
    ck_assert_uint_eq(world.nsent, 1); /* nor answered for */
}
END_TEST

START_TEST(two_stations_probe_at_once)
{
    const uint8_t n = probing();
    uint8_t f[42];
    make_arp(f, broadcast_mac, 1, other_mac, 0, (const uint8_t[6]){0}, IP4(10, 8, 0, 5));
    world_frame_on(n, f, 42, false);
    ck_assert(stack_netif(world.st, n)->addrs[0].conflict);
}
END_TEST

START_TEST(probes_for_our_address_are_answered)
{
    uint8_t f[42];
    make_arp(f, broadcast_mac, 1, other_mac, 0, (const uint8_t[6]){0}, OUR_ADDR);
    world_frame(f, 42);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_uint_eq(sent_arp_op(last_sent()), 2);
    ck_assert_uint_eq(world.st->ip.arp.used, 0);
}
END_TEST

START_TEST(a_known_mac_needs_no_arp)
{
    struct ip_path path = path_to(PEER_ADDR);
    path.mac_known = true;
    memcpy(path.mac, other_mac, 6);
    ck_assert_int_eq(send_tcp(&path, OUR_ADDR, PEER_ADDR, 10, 0, 0x18), 0);
    ck_assert_uint_eq(world.nsent, 1);
    ck_assert_mem_eq(last_sent()->data, other_mac, 6);
    ck_assert_uint_eq(world.st->ip.arp.used, 0);
}
END_TEST

Suite *suite_arp(void)
{
    Suite *s = suite_create("arp");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, resolves_and_sends_what_waited);
    tcase_add_test(t, three_requests_then_unreachable);
    tcase_add_test(t, failed_a_moment_ago);
    tcase_add_test(t, queue_is_bounded);
    tcase_add_test(t, stale_entry_is_used_and_asked_again);
    tcase_add_test(t, stale_entry_that_does_not_answer_fails);
    tcase_add_test(t, answers_requests_for_own_addresses);
    tcase_add_test(t, malformed_packets_are_dropped);
    tcase_add_test(t, unsolicited_replies_make_no_entry);
    tcase_add_test(t, first_answer_stays_for_a_second);
    tcase_add_test(t, table_is_bounded_and_replaces_the_least_used);
    tcase_add_test(t, entry_with_frames_waiting_is_replaced);
    tcase_add_test(t, learned_from_outside);
    tcase_add_test(t, announces_twice);
    tcase_add_test(t, defends_its_address);
    tcase_add_test(t, probe_without_answer);
    tcase_add_test(t, probe_answered);
    tcase_add_test(t, two_stations_probe_at_once);
    tcase_add_test(t, probes_for_our_address_are_answered);
    tcase_add_test(t, a_known_mac_needs_no_arp);
    suite_add_tcase(s, t);
    return s;
}
