/* Corners: what the other files' tests leave of the engine's branches. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

/* Fills the receive window of the current flow and of c; the peer's next number is what was
 * acknowledged. */
static uint32_t fill_window(struct tcp_conn *c)
{
    uint32_t n;
    do {
        n = tcp_inq(c);
        inject("A len 1460");
        t_run(ms(50));
        drain_tx();
        cur()->p_nxt = 1 + tcp_inq(c);
    } while (tcp_inq(c) != n);
    return n;
}

TEST(corner_zero_window_ack,
     "RFC 9293 MUST-66: with a closed window the ACK of a segment with text still counts")
{
    struct tcp_conn *c = established(NULL);
    fill_window(c);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA len 100");
    inject("A ack 101 len 1");
    drain_tx();
    check_eq(tcp_outq(c), 0);
}

TEST(corner_zero_window_rst, "RFC 9293 MUST-66: with a closed window a RST at RCV.NXT counts")
{
    struct tcp_conn *c = established(NULL);
    fill_window(c);
    inject("R");
    expect_state(TCP_CLOSED);
    check_eq(tcp_peek_error(c), ECONNRESET);
}

TEST(corner_zero_window_fin, "Linux differs: a FIN fits a closed window, it takes no room")
{
    struct tcp_conn *c = established(NULL);
    uint32_t n = fill_window(c);
    inject("FA");
    t_run(ms(100));
    check(drain_tx() >= 1);
    check(flow_state() == TCP_CLOSE_WAIT || flow_state() == TCP_ESTABLISHED);
    check_eq(call_recv(c, 1 << 20), n);
    drain_tx();
    cur()->p_nxt = n + 1;
    inject("FA");
    drain_tx();
    expect_state(TCP_CLOSE_WAIT);
    check_eq(call_recv(c, 1 << 20), 0);
}

TEST(corner_keepalive_answered,
     "RFC 9293 3.8.4: a keepalive probe, with or without a byte of garbage, gets an ACK")
{
    established(NULL);
    inject("PA len 10");
    drain_tx();
    for (unsigned i = 0; i < 5; i++) {
        t_run(sec(10));
        inject("A seq 10 ack 1");
        expect_tx("A seq 1 ack 11 len 0");
        inject("A seq 10 ack 1 len 1");
        expect_tx("A seq 1 ack 11 len 0");
    }
}

TEST(corner_sliver,
     "RFC 9293 3.8.6.2.1: the override: a small window that stays is used in the end")
{
    struct tcp_conn *c = established(NULL);
    inject("A ack 1 win 200");
    check_eq(call_send(c, 10000), 10000);
    expect_tx_in(ms(150), sec(2), "PA seq 1 len 200");
    inject("A ack 201 win 200");
    expect_tx_in(ms(150), sec(2), "PA seq 201 len 200");
    inject("A ack 401 win 65535");
    check(drain_text() > 0);
    (void)c;
}

TEST(corner_shrunk_window_alive,
     "RFC 9293 MUST-34, 3.8.6.1: a peer that took its window back and answers keeps the connection")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 8000), 8000);
    drain_tx();
    inject("A ack 1461 win 0");
    for (unsigned i = 0; i < 3600; i++) {
        t_run(sec(1));
        if (drain_tx())
            inject("A ack 1461 win 0");
    }
    expect_state(TCP_ESTABLISHED);
    inject("A ack 1461 win 65535");
    t_run(sec(130));
    drain_tx();
    inject("A ack 8001 win 65535");
    check_eq(tcp_outq(c), 0);
}

TEST(corner_zero_window_fin_probe, "a FIN alone waits behind a closed window; probes go on")
{
    struct tcp_conn *c = established(NULL);
    inject("A ack 1 win 0");
    call_shutdown(c, TCP_SHUT_WR);
    for (unsigned i = 0; i < 5; i++) {
        expect_tx_in(ms(100), sec(60), "A seq 0 ack 1");
        inject("A ack 1 win 0");
    }
    inject("A ack 1 win 1000");
    expect_tx("FA seq 1");
}

TEST(corner_half_open_paws, "RFC 7323 5.3: PAWS in SYN_RECEIVED: ACK and drop")
{
    call_listen(5);
    inject("S seq 0 <mss 1460,nop,nop,ts 5000,nop,wscale 7>");
    expect_tx("SA");
    inject("A seq 1 ack 1 <nop,nop,ts 4000>");
    expect_tx("A seq 1 ack 1 <ts * 5000>");
    expect_state(TCP_SYN_RECEIVED);
    inject("S seq 9 <mss 1460,nop,nop,ts 5001>");
    expect_tx("A seq 1 ack 1");
    inject("A seq 1 ack 1 <nop,nop,ts 5001>");
    expect_state(TCP_ESTABLISHED);
}

TEST(corner_user_mss_listener, "tcp(7) TCP_MAXSEG on a listener")
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.user_mss = 600;
    struct tcp_listener *l = call_listen_opts(5, &o);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA <mss 600>");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check_eq(call_send(c, 1000), 1000);
    expect_tx("A len 600");
    drain_tx();
}

TEST(corner_rcvbuf_shrunk,
     "SO_RCVBUF made smaller on a living connection: what was offered stays offered")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->rcvbuf = 4608;
    tcp_opts(c)->rcvbuf_locked = true;
    call_opts_changed(c);
    inject("A len 1460");
    inject("A len 1460");
    inject("A len 1460");
    drain_tx();
    inject("A seq 30001 ack 1 len 1460");
    drain_tx();
    check_eq(call_recv(c, 100000), 3 * 1460);
    drain_tx();
}

TEST(corner_linger2_in_fin_wait_2, "TCP_LINGER2 below 0 and close() in FIN_WAIT_2")
{
    struct tcp_conn *c = bring(TCP_FIN_WAIT_2);
    tcp_opts(c)->linger2 = -1;
    call_close(c);
    drain_tx();
    expect_state(TCP_CLOSED);
}

TEST(corner_cc_switch, "tcp(7) TCP_CONGESTION on a living connection")
{
    struct tcp_conn *c = established(NULL);
    check_eq(tcp_set_cc(the_cx(), c, 99), -ENOENT);
    struct tcp_view before, after;
    tcp_view(the_cx(), c, &before);
    check_eq(tcp_set_cc(the_cx(), c, TCP_CC_RENO), 0);
    tcp_view(the_cx(), c, &after);
    check_eq(after.cwnd, before.cwnd);
    check_eq(call_send(c, 100000), 87040);
    for (unsigned i = 0; i < 50; i++) {
        drain_tx();
        inject("A");
    }
    check_eq(tcp_outq(c), 0);
    check(cc_by_name("reno", 4) == TCP_CC_RENO && cc_by_name("nope", 4) == -1);
}

TEST(corner_reno_halves, "RFC 5681 3.1: Reno: ssthresh = half of what was in flight")
{
    world((struct world_opts){.cc = TCP_CC_RENO});
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    inject("A ack 1 <nop,nop,sack 1461:5841>");
    expect_tx("A seq 1");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check(v.ssthresh >= 4 * 1460 && v.ssthresh <= 6 * 1460);
}

TEST(corner_urgent_twice,
     "Linux: a second urgent byte takes the first one's place; the first stays in the stream")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 5 urg 5");
    drain_tx();
    inject("PAU seq 6 ack 1 len 5 urg 5");
    drain_tx();
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), 1);
    uint8_t b[32];
    struct slice s = {b, sizeof(b)};
    int64_t n = tcp_recv(the_cx(), c, &s, 1, 0, 0);
    check(n == 9 || n == 4);
    flush();
}

TEST(corner_urgent_inq, "Linux tcp_inq(): SIOCINQ counts up to the urgent byte")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 10 urg 4");
    drain_tx();
    check_eq(tcp_inq(c), 3);
}

TEST(corner_urgent_out_of_order, "an urgent byte that comes out of order")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 6 ack 1 len 5 urg 3");
    drain_tx();
    check(tcp_poll(c) & TCP_EV_PRI);
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), 1);
    inject("PA seq 1 ack 1 len 5");
    drain_tx();
    check_eq(call_recv(c, 100), 7);
    check(tcp_at_mark(c));
}

TEST(corner_urgent_retransmitted, "an urgent segment that comes twice is urgent once")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 5 urg 5");
    drain_tx();
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), 1);
    check_eq(call_recv(c, 100), 4);
    events_of(c);
    inject("PAU seq 1 ack 1 len 5 urg 5");
    drain_tx();
    check(!(events_of(c) & TCP_EV_PRI));
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), -EINVAL);
    check_eq(call_recv(c, 100), -EAGAIN);
}

TEST(corner_peek_offset, "SO_PEEK_OFF: peeking from an offset")
{
    struct tcp_conn *c = established(NULL);
    inject("A len 1000");
    drain_tx();
    uint8_t b[600];
    struct slice s = {b, sizeof(b)};
    check_eq(tcp_recv(the_cx(), c, &s, 1, TCP_RECV_PEEK, 700), 300);
    check_eq(tcp_recv(the_cx(), c, &s, 1, TCP_RECV_PEEK, 1000), -EAGAIN);
    inject("FA");
    drain_tx();
    check_eq(tcp_recv(the_cx(), c, &s, 1, TCP_RECV_PEEK, 1000), 0);
    check_eq(call_recv(c, 2000), 1000);
}

TEST(corner_notify_once, "events come when something changes, not for each ACK")
{
    struct tcp_conn *c = established(NULL);
    events_of(c);
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    inject("A ack 1001");
    check_eq(events_of(c), 0);
}

TEST(corner_owner_gone, "no notification after tcp_set_owner(NULL)")
{
    struct tcp_conn *c = established(NULL);
    void *owner = tcp_owner(c);
    tcp_set_owner(c, NULL);
    inject("A len 10");
    drain_tx();
    tcp_set_owner(c, owner);
    check_eq(events_of(c) & TCP_EV_IN, 0);
    check_eq(tcp_poll(c) & TCP_EV_IN, TCP_EV_IN);
}

TEST(corner_time_wait_memory,
     "TIME_WAIT entries give way when the arena is full: connections still open and work")
{
    world((struct world_opts){.arena = 8 << 20});
    for (unsigned i = 0; i < 40000; i++) {
        struct tcp_conn *c = tcp_open(the_cx());
        if (!c)
            fail("tcp_open() failed with %u TIME_WAIT entries", tcp_time_waits(the_stack()));
        struct endpoint local = {ip_addr_from_v4(__builtin_bswap32(HOST_IP)),
                                 (uint16_t)(1024 + i % 60000)};
        struct endpoint remote = {ip_addr_from_v4(__builtin_bswap32(PEER_IP)),
                                  (uint16_t)(80 + i / 60000)};
        struct ip_path path = {.netif = 1, .next_hop = remote.addr};
        if (tcp_connect(the_cx(), c, &local, &remote, &path) != 0)
            fail("tcp_connect() failed with %u TIME_WAIT entries", tcp_time_waits(the_stack()));
        stack_flush(the_cx());
        uint32_t len;
        const uint8_t *p = next_tx(&len);
        struct wire_seg s;
        if (!p || wire_parse_tcp(p, len, false, &s))
            fail("no SYN");
        static uint8_t f[200];
        struct wire_seg a = {.src = PEER_IP,
                             .dst = HOST_IP,
                             .sport = s.dport,
                             .dport = s.sport,
                             .seq = 1000,
                             .ack = s.seq + 1,
                             .flags = TCP_SYN | TCP_ACK,
                             .win = 9999};
        struct frame_in in = {
            .data = f, .len = (uint32_t)wire_build_tcp(f, &a, host_mac, peer_mac), .netif = 1};
        stack_input(the_cx(), &in);
        tcp_close(the_cx(), c);
        a.seq = 1001;
        a.ack = s.seq + 2;
        a.flags = TCP_FIN | TCP_ACK;
        in.len = (uint32_t)wire_build_tcp(f, &a, host_mac, peer_mac);
        stack_input(the_cx(), &in);
        stack_flush(the_cx());
        drain_tx();
    }
    check(tcp_time_waits(the_stack()) > 1000);
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 10000), 10000);
    drain_tx();
}

TEST(corner_half_open_memory, "half-open entries of many listeners do not fill the arena for ever")
{
    world((struct world_opts){.arena = 8 << 20});
    call_listen(4096);
    for (unsigned i = 0; i < 5000; i++) {
        flow(LISTEN_PORT, (uint16_t)(10000 + i));
        inject("S seq 0 <mss 1460>");
        drain_tx();
    }
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    for (unsigned i = 0; i < 70; i++) {
        t_run(sec(1));
        drain_tx();
    }
    check_eq(the_stack()->tcp.half_opens.live, 0);
}

TEST(corner_loopback_holds_no_ack, "inside the stack an ACK costs no frame and waits for nobody")
{
    struct tcp_conn *s, *c;
    established_inside(0, &c, &s);
    program_goes_on(true);
    check_eq(call_send(c, 100), 100);
    check_eq(tcp_outq(c), 0);
    check_eq(call_recv(s, 200), 100);
}

TEST(corner_loopback,
     "connections inside the stack: handshake, data, close, without a frame on the wire")
{
    struct tcp_conn *s, *c;
    established_inside(0, &c, &s);
    check_eq(call_send(c, 50000), 50000);
    check_eq(call_recv(s, 100000), 50000);
    check_eq(call_send(s, 50000), 50000);
    check_eq(call_recv(c, 100000), 50000);
    call_shutdown(c, TCP_SHUT_WR);
    check_eq(call_recv(s, 10), 0);
    call_close(s);
    check_eq(call_recv(c, 10), 0);
    expect_none(0);
}

TEST(corner_loopback_refused, "connect() inside the stack to a port that nobody has: ECONNREFUSED")
{
    world((struct world_opts){.loopback = true});
    struct tcp_conn *c = call_open();
    struct ip_addr lo = ip_addr_from_v4(__builtin_bswap32(ip4(127, 0, 0, 1)));
    struct ip_path path;
    struct ip_addr src;
    check_eq(ip_route(the_stack(), &lo, &path, &src), 0);
    struct endpoint local = {src, 6000}, remote = {lo, 9};
    check_eq(tcp_connect(the_cx(), c, &local, &remote, &path), 0);
    flush();
    check_eq(tcp_state(c), TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNREFUSED);
}

TEST(corner_loopback_self,
     "a connection to itself: simultaneous open of one tuple (Linux allows it)")
{
    world((struct world_opts){.loopback = true});
    struct tcp_conn *c = call_open();
    struct ip_addr lo = ip_addr_from_v4(__builtin_bswap32(ip4(127, 0, 0, 1)));
    struct ip_path path;
    struct ip_addr src;
    check_eq(ip_route(the_stack(), &lo, &path, &src), 0);
    struct endpoint self = {lo, 6000};
    check_eq(tcp_connect(the_cx(), c, &self, &self, &path), 0);
    flush();
    check_eq(tcp_state(c), TCP_ESTABLISHED);
    check_eq(call_send(c, 1000), 1000);
    check_eq(call_recv(c, 2000), 1000);
}

TEST(corner_spoofed_loopback, "RFC 1122 3.2.1.3: 127/8 from the wire is dropped")
{
    world((struct world_opts){.loopback = true});
    call_listen(5);
    uint8_t f[200];
    struct wire_seg s = {.src = PEER_IP,
                         .dst = ip4(127, 0, 0, 1),
                         .sport = 99,
                         .dport = LISTEN_PORT,
                         .flags = TCP_SYN,
                         .win = 1000};
    inject_raw(f, wire_build_tcp(f, &s, host_mac, peer_mac));
    s.src = ip4(127, 0, 0, 1);
    s.dst = HOST_IP;
    inject_raw(f, wire_build_tcp(f, &s, host_mac, peer_mac));
    expect_none(ms(100));
    check_eq(the_stack()->tcp.half_opens.live, 0);
}

/* ---- fragments (RFC 791, 5722) ---- */

/* Sends bytes [from, to) of the IP payload of frame as a fragment. */
static void fragment(const uint8_t *frame, size_t from, size_t to, bool last)
{
    uint8_t f[2000];
    memcpy(f, frame, L2_LEN + IP4_LEN);
    memcpy(f + L2_LEN + IP4_LEN, frame + L2_LEN + IP4_LEN + from, to - from);
    put_be16(f + L2_LEN + 2, (uint16_t)(IP4_LEN + to - from));
    put_be16(f + L2_LEN + 4, 77);
    put_be16(f + L2_LEN + 6, (uint16_t)(from / 8 | (last ? 0 : 0x2000)));
    put_be16(f + L2_LEN + 10, 0);
    put_be16(f + L2_LEN + 10, wire_csum(0, f + L2_LEN, IP4_LEN));
    inject_raw(f, L2_LEN + IP4_LEN + to - from);
}

TEST(fragments_joined, "RFC 791: fragments in any order make the segment")
{
    static const uint8_t orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}};
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = established(NULL);
        uint8_t f[2000];
        size_t n = build_frame("PA seq 1 ack 1 len 1200", f) - L2_LEN - IP4_LEN;
        size_t cut[] = {0, 400, 800, n};
        for (unsigned k = 0; k < 3; k++)
            fragment(f, cut[orders[i][k]], cut[orders[i][k] + 1], orders[i][k] == 2);
        expect_tx("A ack 1201");
        check_eq(call_recv(c, 2000), 1200);
    }
}

TEST(fragments_overlap, "RFC 5722: overlapping fragments end the datagram")
{
    struct tcp_conn *c = established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 1200", f) - L2_LEN - IP4_LEN;
    fragment(f, 0, 400, false);
    fragment(f, 200, 800, false);
    fragment(f, 800, n, true);
    expect_none(0);
    check_eq(tcp_inq(c), 0);
}

TEST(fragments_bounded, "fragments that never become whole: bounded memory, given back")
{
    established(NULL);
    uint8_t f[2000];
    build_frame("PA seq 1 ack 1 len 1200", f);
    size_t used = arena_used(stack_arena(the_stack()));
    for (unsigned i = 0; i < 5000; i++) {
        put_be32(f + L2_LEN + 12, PEER_IP + i % 97);
        fragment(f, 8 * (1 + i % 50), 8 * (1 + i % 50) + 400, false);
    }
    check(arena_used(stack_arena(the_stack())) - used < 3 << 20);
    t_run(sec(120));
    check(arena_used(stack_arena(the_stack())) <= used + (1 << 17));
    drain_tx();
}

TEST(corner_black_hole, "RFC 4821 7.7: a path that swallows large segments in silence: smaller "
                        "ones after three time-outs")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_BLACK_HOLE});
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 4000), 4000);
    drain_tx();
    for (unsigned i = 0; i < 2; i++)
        expect_tx_in(ms(100), sec(4), "A seq 1 len 1460");
    /* the third one, cut */
    expect_tx_in(ms(100), sec(8), "A seq 1 len 1024");
    check_eq(counter(COUNT_BLACK_HOLES), 1);
    inject("A ack 1025");
    check(drain_text() >= 1024); /* slow start goes on with small segments */
    inject("A ack 4001");
    check_eq(tcp_outq(c), 0);
    check_eq(tcp_mss(c), 1024);
}

TEST(corner_no_black_hole,
     "RFC 4821 7.7: small segments that are lost say nothing about the path's MTU")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_BLACK_HOLE});
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 400), 400);
    drain_tx();
    t_run(sec(20));
    drain_tx();
    check_eq(counter(COUNT_BLACK_HOLES), 0);
    check_eq(tcp_mss(c), 1460);
}
