/* Frames: malformed ones, checksums, GSO out, coalesced in, ARP, memory running out. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

TEST(frame_tcp_checksum, "RFC 9293 MUST-3: a wrong checksum: dropped")
{
    established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10", f);
    f[n - 1] ^= 1;
    inject_raw(f, n);
    expect_none(ms(500));
    check_eq(counter(COUNT_BAD_TCP_CSUM), 1);
}

TEST(frame_each_bit, "each single flipped bit behind the Ethernet header is noticed")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10", f);
    for (size_t bit = 8 * L2_LEN; bit < 8 * n; bit++) {
        f[bit / 8] ^= (uint8_t)(1u << bit % 8);
        inject_raw(f, n);
        f[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    expect_none(ms(500));
    check_eq(tcp_inq(c), 0);
}

TEST(frame_csum_trusted, "a partial checksum of a local sender is not verified")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10", f);
    f[L2_LEN + IP4_LEN + 16] ^= 0x55;
    inject_trusted(f, n, 0);
    expect_tx("A ack 11");
    check_eq(call_recv(c, 100), 10);
}

TEST(frame_truncated, "a frame cut off anywhere: dropped, counted, never read past its end")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10 <nop,nop,ts 1 1>", f);
    for (size_t len = 0; len < n; len++) {
        inject_raw(f, len);
        inject_trusted(f, len, 0);
    }
    expect_none(0);
    check_eq(tcp_inq(c), 0);
}

TEST(frame_ip_lengths, "RFC 791: header length and total length that do not fit")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned ihl = 0; ihl < 16; ihl++)
        for (unsigned total = 0; total < 70; total++) {
            uint8_t f[2000];
            size_t n = build_frame("PA seq 1 ack 1 len 10", f);
            if (ihl == 5 && total == 50)
                continue;
            f[L2_LEN] = (uint8_t)(0x40 | ihl);
            put_be16(f + L2_LEN + 2, (uint16_t)total);
            wire_fix_csums(f, n);
            inject_raw(f, n);
            drain_tx();
        }
    check(tcp_inq(c) <= 10);
}

TEST(frame_ip_padding, "Ethernet padding behind the packet is not text")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 1", f);
    memset(f + n, 0xee, 20);
    inject_raw(f, n + 20);
    expect_tx("A ack 2");
    check_eq(call_recv(c, 100), 1);
}

TEST(frame_ip_options, "RFC 791: IP options are passed over")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000], g[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10", f);
    memcpy(g, f, L2_LEN + IP4_LEN);
    memset(g + L2_LEN + IP4_LEN, 1, 8);
    memcpy(g + L2_LEN + IP4_LEN + 8, f + L2_LEN + IP4_LEN, n - L2_LEN - IP4_LEN);
    g[L2_LEN] = 0x47;
    put_be16(g + L2_LEN + 2, (uint16_t)(n - L2_LEN + 8));
    wire_fix_csums(g, n + 8);
    inject_raw(g, n + 8);
    drain_tx();
    check(tcp_inq(c) == 10 || tcp_inq(c) == 0);
}

TEST(frame_data_offset, "RFC 9293 3.1: a data offset below 5 or past the end")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned off = 0; off < 16; off++) {
        uint8_t f[2000];
        size_t n = build_frame("PA seq 1 ack 1 len 10", f);
        f[L2_LEN + IP4_LEN + 12] = (uint8_t)(off << 4);
        wire_fix_csums(f, n);
        if (off < 5 || off > 7)
            inject_raw(f, n);
    }
    expect_none(0);
    check_eq(tcp_inq(c), 0);
    check(counter(COUNT_BAD_TCP) >= 13);
}

TEST(frame_flag_combinations,
     "every combination of flags in every state: no crash, no broken invariant")
{
    static const enum tcp_state states[] = {
        TCP_CLOSED,     TCP_SYN_SENT,   TCP_SYN_RECEIVED, TCP_ESTABLISHED, TCP_FIN_WAIT_1,
        TCP_FIN_WAIT_2, TCP_CLOSE_WAIT, TCP_CLOSING,      TCP_LAST_ACK,    TCP_TIME_WAIT};
    for (size_t s = 0; s < ARRAY_LEN(states); s++)
        for (unsigned flags = 0; flags < 256; flags += s % 2 ? 1 : 5) {
            if (flags % 64 == 0)
                world((struct world_opts){0});
            struct tcp_conn *c = flags % 64 == 0 ? bring(states[s]) : NULL;
            (void)c;
            uint8_t f[2000];
            size_t n = build_frame("A len 10", f);
            f[L2_LEN + IP4_LEN + 13] = (uint8_t)flags;
            wire_fix_csums(f, n);
            inject_raw(f, n);
            drain_tx();
        }
}

TEST(frame_bad_source, "RFC 1122 3.2.1.3: a source that nobody can have")
{
    call_listen(5);
    static const uint32_t bad[] = {0, 0xffffffff, 0x0a0000ff, 0xe0000001, 0x7f000001, 0x0a000001};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t f[200];
        struct wire_seg s = {.src = bad[i],
                             .dst = HOST_IP,
                             .sport = 99,
                             .dport = LISTEN_PORT,
                             .flags = TCP_SYN,
                             .win = 1000};
        size_t n = wire_build_tcp(f, &s, host_mac, peer_mac);
        inject_raw(f, n);
    }
    expect_none(ms(100));
    check_eq(the_stack()->tcp.half_opens.live, 0);
}

TEST(frame_broadcast_dst, "RFC 9293 MUST-57: a SYN to a broadcast or multicast address is dropped")
{
    call_listen(5);
    static const uint32_t bad[] = {0xffffffff, 0x0a0000ff, 0xe0000001, 0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t f[200];
        struct wire_seg s = {.src = PEER_IP,
                             .dst = bad[i],
                             .sport = 99,
                             .dport = LISTEN_PORT,
                             .flags = TCP_SYN,
                             .win = 1000};
        size_t n = wire_build_tcp(f, &s, host_mac, peer_mac);
        inject_raw(f, n);
    }
    expect_none(ms(100));
}

TEST(frame_not_ours, "a packet for another address is not ours, in both modes")
{
    for (unsigned shared = 0; shared < 2; shared++) {
        world((struct world_opts){.shared = shared});
        uint8_t f[200];
        struct wire_seg s = {.src = PEER_IP,
                             .dst = ip4(10, 0, 0, 9),
                             .sport = 99,
                             .dport = 80,
                             .flags = TCP_SYN,
                             .win = 1000};
        size_t n = wire_build_tcp(f, &s, host_mac, peer_mac);
        inject_raw(f, n);
        expect_none(0);
    }
}

/* ---- large frames ---- */

TEST(gso_out,
     "frames of many segments, with the segment size for the link to cut; Linux: two a window, "
     "with PSH")
{
    world((struct world_opts){.gso = true, .csum_offload = true});
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 14600), 14600);
    expect_tx("PA seq 1 len 7300 gso 1460");
    expect_tx("PA seq 7301 len 7300 gso 1460");
    expect_none(0);
    inject("A ack 14601");
    check_eq(tcp_outq(c), 0);
}

TEST(gso_out_partial_last, "a small rest travels with the large frame or after it")
{
    world((struct world_opts){.gso = true, .csum_offload = true});
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 5000), 5000);
    check_eq(drain_text(), 5000);
}

TEST(gso_out_64k, "never more than 65535 bytes in a frame")
{
    world((struct world_opts){.gso = true, .csum_offload = true});
    struct tcp_conn *c = established("<mss 1460,nop,wscale 10>");
    inject("A seq 1 ack 1 win 65535");
    for (unsigned round = 0; round < 8; round++) {
        call_send(c, 1 << 20);
        check(drain_tx() >= 1);
        t_run(ms(1));
        inject("A win 65535");
    }
    drain_tx();
    check(counter(COUNT_TX_FAILED) == 0);
}

TEST(gso_out_retransmit, "a large frame of which a part was lost: only the part comes again")
{
    world((struct world_opts){.gso = true, .csum_offload = true});
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    check_eq(call_send(c, 14600), 14600);
    expect_tx("PA seq 1 len 7300 gso 1460");
    expect_tx("PA seq 7301 len 7300 gso 1460");
    inject("A ack 1461 <nop,nop,sack 2921:4381>");
    inject("A ack 1461 <nop,nop,sack 2921:5841>");
    inject("A ack 1461 <nop,nop,sack 2921:7301>");
    expect_tx("A seq 1461 len 1460 gso 0");
    expect_none(0);
    inject("A ack 14601");
    check_eq(tcp_outq(c), 0);
}

TEST(gso_software, "a link without GSO gets segments")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 14600), 14600);
    for (unsigned i = 0; i < 10; i++)
        expect_tx("A len 1460 gso 0");
    (void)c;
}

TEST(gso_sack_room, "RFC 6691: SACK blocks come out of the segment, not on top of it")
{
    for (unsigned gso = 0; gso < 2; gso++) {
        world((struct world_opts){.gso = gso, .csum_offload = gso});
        struct tcp_conn *c = established("<mss 1460,sackOK,ts>");
        cur()->sends_ts = true;
        for (unsigned i = 1; i < 4; i++) {
            char spec[48];
            snprintf(spec, sizeof(spec), "A seq %u ack 1 len 100", 1000 * i);
            inject(spec);
        }
        drain_tx();
        check_eq(call_send(c, 5000), 5000); /* the harness looks at the size of what leaves */
        check_eq(drain_text(), 5000);
    }
}

TEST(gro_in, "a coalesced frame counts as its segments: taken whole, acknowledged when read")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    inject("PA seq 1 ack 1 len 14600 gso 1460");
    check_eq(call_recv(c, 20000), 14600);
    expect_tx("A ack 14601");
}

TEST(gro_in_large, "a coalesced frame of 64 KB")
{
    struct tcp_conn *c = established("<mss 1460,nop,wscale 7>");
    inject("PA seq 1 ack 1 len 62780 gso 1460");
    drain_tx();
    check_eq(call_recv(c, 100000), 62780);
    drain_tx();
}

TEST(gro_in_out_of_order, "coalesced frames out of order, overlapping")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    inject("A seq 14601 ack 1 len 14600 gso 1460");
    expect_tx("A ack 1 <sack 14601:29201>");
    inject("A seq 1461 ack 1 len 14600 gso 1460");
    expect_tx("A ack 1 <sack 14601:16061 1461:29201>"); /* the D-SACK first */
    inject("A seq 1 ack 1 len 2920 gso 1460");
    expect_tx("A ack 29201");
    check_eq(call_recv(c, 100000), 29200);
}

TEST(mtu_jumbo, "MTU 9000")
{
    world((struct world_opts){.mtu = 9000});
    struct tcp_conn *c = call_connect();
    expect_tx("S <mss 8960>");
    inject("SA seq 0 ack 1 <mss 8960>");
    expect_tx("A");
    check_eq(call_send(c, 20000), 20000);
    expect_tx("A len 8960");
    drain_tx();
}

TEST(mtu_tiny, "MTU 68, the least of RFC 791")
{
    world((struct world_opts){.mtu = 68});
    struct tcp_conn *c = call_connect();
    uint32_t len;
    const uint8_t *p = next_tx(&len);
    if (!p)
        skip("the options of a SYN do not fit");
    inject("SA seq 0 ack 1 <mss 28>");
    drain_tx();
    check(call_send(c, 100) > 0);
    t_run(sec(1));
    drain_tx();
}

/* ---- ARP ---- */

static void expect_arp_request(uint32_t for_ip)
{
    uint32_t len;
    const uint8_t *p = next_tx(&len);
    check(p != NULL);
    if (p == NULL)
        return;
    check_eq(get_be16(p + 12), 0x0806);
    check_eq(get_be16(p + L2_LEN + 6), 1);
    check_eq(get_be32(p + L2_LEN + 24), for_ip);
    check_eq(get_be32(p + L2_LEN + 14), HOST_IP);
}

static void arp_reply(void)
{
    uint8_t f[64];
    size_t n = wire_build_arp(f, 2, peer_mac, PEER_IP, host_mac, HOST_IP, host_mac);
    inject_raw(f, n);
}

TEST(arp_resolves, "RFC 826: the SYN waits for the answer")
{
    world((struct world_opts){.no_neighbour = true});
    drain_tx();
    call_connect();
    expect_arp_request(PEER_IP);
    check_eq(pending_tx(), 0);
    arp_reply();
    expect_tx("S seq 0");
}

TEST(arp_fails, "no answer: connect() ends by EHOSTUNREACH (Linux: after three tries)")
{
    world((struct world_opts){.no_neighbour = true});
    t_run(sec(5)); /* announcements of the own address */
    drain_tx();
    struct tcp_conn *c = call_connect();
    expect_arp_request(PEER_IP);
    t_run(sec(10));
    unsigned n = drain_tx();
    check(n >= 2 && n <= 10);
    check(tcp_state(c) == TCP_CLOSED);
    check_eq(tcp_take_error(c), EHOSTUNREACH);
}

TEST(arp_reply_own, "RFC 826: own address mode answers who-has")
{
    world((struct world_opts){.no_neighbour = true});
    t_run(sec(5));
    drain_tx();
    uint8_t f[64];
    static const uint8_t zero[6], all[6] = {255, 255, 255, 255, 255, 255};
    size_t n = wire_build_arp(f, 1, peer_mac, PEER_IP, zero, HOST_IP, all);
    inject_raw(f, n);
    uint32_t len;
    const uint8_t *p = next_tx(&len);
    check(p != NULL);
    if (p == NULL)
        return;
    check_eq(get_be16(p + L2_LEN + 6), 2);
    check_eq(get_be32(p + L2_LEN + 14), HOST_IP);
    check(memcmp(p + L2_LEN + 8, host_mac, 6) == 0);
    check(memcmp(p, peer_mac, 6) == 0);
}

TEST(arp_shared_silent, "shared address mode: the kernel answers ARP")
{
    world((struct world_opts){.shared = true, .no_neighbour = true});
    uint8_t f[64];
    static const uint8_t zero[6], all[6] = {255, 255, 255, 255, 255, 255};
    size_t n = wire_build_arp(f, 1, peer_mac, PEER_IP, zero, HOST_IP, all);
    inject_raw(f, n);
    expect_none(0);
}

TEST(arp_conflict, "RFC 5227 2.4: another station claims our address: said once, defended")
{
    world((struct world_opts){.no_neighbour = true});
    t_run(sec(10));
    drain_tx();
    uint8_t f[64];
    static const uint8_t other[6] = {2, 0, 0, 0, 0, 9}, zero[6],
                         all[6] = {255, 255, 255, 255, 255, 255};
    size_t n = wire_build_arp(f, 1, other, HOST_IP, zero, HOST_IP, all);
    for (unsigned i = 0; i < 20; i++)
        inject_raw(f, n);
    check(drain_tx() <= 2);
}

TEST(arp_truncated, "ARP cut off anywhere, and with odd fields")
{
    uint8_t f[64];
    size_t n = wire_build_arp(f, 1, peer_mac, PEER_IP, host_mac, HOST_IP, host_mac);
    for (size_t len = 0; len < n; len++)
        inject_raw(f, len);
    for (size_t i = L2_LEN; i < n; i++) {
        f[i] ^= 0xff;
        inject_raw(f, n);
        f[i] ^= 0xff;
    }
    t_run(ms(10));
    drain_tx();
}

/* ---- memory ---- */

TEST(memory_connections,
     "an arena that is full: calls fail by ENOBUFS, nothing breaks, all comes back")
{
    world((struct world_opts){.arena = 8 << 20});
    unsigned n = 0;
    struct tcp_conn *c;
    while (n < 7000 && (c = tcp_open(the_cx())) != NULL) {
        tcp_close(the_cx(), c);
        n++;
    }
    check_eq(n, 7000);
    static struct tcp_conn *open[8000];
    for (n = 0; n < ARRAY_LEN(open) && (open[n] = tcp_open(the_cx())) != NULL; n++)
        ;
    check(n > 1000);
    flush();
    while (n)
        tcp_close(the_cx(), open[--n]);
    flush();
    check_eq(the_stack()->tcp.conns.live, 0);
}

TEST(memory_send, "send() into a full arena: EAGAIN, and goes on when memory is back")
{
    world((struct world_opts){.arena = 8 << 20});
    struct tcp_conn *c[8];
    for (unsigned i = 0; i < 8; i++) {
        c[i] = call_open();
        tcp_opts(c[i])->sndbuf = 4 << 20;
        tcp_opts(c[i])->sndbuf_locked = true;
        check_eq(call_connect_from(c[i], (uint16_t)(6000 + i), PEER_PORT), 0);
        expect_tx("S");
        inject("SA seq 0 ack 1 <mss 1460>");
        expect_tx("A");
    }
    bool full = false;
    for (unsigned i = 0; i < 8; i++) {
        int64_t r;
        while ((r = call_send(c[i], 1 << 20)) > 0)
            drain_tx();
        check_eq(r, -EAGAIN);
        full |= tcp_outq(c[i]) < 4 << 20;
    }
    check(full);
    call_abort(c[0]);
    drain_tx();
    check(call_send(c[7], 1000) > 0);
    drain_tx();
}

TEST(memory_receive, "memory pressure closes windows before anything is lost")
{
    world((struct world_opts){.arena = 8 << 20});
    struct tcp_conn *c[64];
    for (unsigned i = 0; i < 64; i++) {
        c[i] = call_open();
        check_eq(call_connect_from(c[i], (uint16_t)(6000 + i), PEER_PORT), 0);
        expect_tx("S");
        inject("SA seq 0 ack 1 <mss 1460,sackOK,nop,nop,nop,wscale 7>");
        expect_tx("A");
    }
    for (unsigned round = 0; round < 100; round++)
        for (unsigned i = 0; i < 64; i++) {
            flow((uint16_t)(6000 + i), PEER_PORT);
            inject("A len 1460");
            cur()->p_nxt = 1 + tcp_inq(c[i]);
            drain_tx();
        }
    for (unsigned i = 0; i < 64; i++) {
        flow((uint16_t)(6000 + i), PEER_PORT);
        uint32_t n = tcp_inq(c[i]);
        check(n >= 1460);
        check_eq(call_recv(c[i], 1 << 20), n);
        drain_tx();
        inject("A len 1460");
        drain_tx();
        check_eq(call_recv(c[i], 1 << 20), 1460);
        drain_tx();
    }
}

TEST(memory_out_of_order, "out-of-order data gives way first")
{
    world((struct world_opts){.arena = 8 << 20});
    for (unsigned i = 0; i < 100; i++) {
        struct tcp_conn *c = call_open();
        check_eq(call_connect_from(c, (uint16_t)(6000 + i), PEER_PORT), 0);
        expect_tx("S");
        inject("SA seq 0 ack 1 <mss 1460,sackOK,nop,nop,nop,wscale 7>");
        expect_tx("A");
        for (unsigned k = 1; k < 44; k++) {
            char spec[48];
            snprintf(spec, sizeof(spec), "A seq %u len 1460", 1 + 1460 * k);
            inject(spec);
            drain_tx();
        }
    }
    for (unsigned i = 0; i < 100; i++) {
        flow((uint16_t)(6000 + i), PEER_PORT);
        inject("A seq 1 len 1460");
        check(drain_tx() >= 1);
    }
}
