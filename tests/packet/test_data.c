/* Moving data: Nagle, cork, pushes, ACKs, windows on both sides, urgent data. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

/* ---- what is sent when ---- */

TEST(data_simple, "RFC 9293 3.10.2")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 ack 1 len 100");
    check_eq(tcp_outq(c), 100);
    inject("A seq 1 ack 101");
    check_eq(tcp_outq(c), 0);
    expect_none(sec(10));
}

TEST(data_segments, "RFC 9293 3.7.1: cut at the MSS, PSH on the last")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 4000), 4000);
    expect_tx("A seq 1 len 1460");
    expect_tx("A seq 1461 len 1460");
    expect_tx("PA seq 2921 len 1080");
}

TEST(data_initial_window, "RFC 6928: ten segments")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 50000), 50000);
    for (unsigned i = 0; i < 10; i++)
        expect_tx("A len 1460");
    expect_none(ms(100));
    check_eq(tcp_outq_unsent(c), 50000 - 14600);
}

TEST(data_slow_start, "RFC 5681 3.1: cwnd grows by what is acknowledged")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 80000), 80000);
    check_eq(drain_tx(), 10);
    t_run(ms(10));
    inject("A seq 1 ack 2921");
    check_eq(drain_text(), 4 * 1460);
    inject("A seq 1 ack 14601");
    check_eq(drain_text(), 16 * 1460);
}

TEST(data_nagle, "RFC 9293 3.7.4, Minshall: one small segment in flight")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 len 100");
    check_eq(call_send(c, 100), 100);
    check_eq(call_send(c, 100), 100);
    expect_none(ms(100));
    inject("A seq 1 ack 101");
    expect_tx("PA seq 101 len 200");
}

TEST(data_nagle_full, "RFC 9293 3.7.4: full segments are not held")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 len 100");
    check_eq(call_send(c, 1600), 1600);
    expect_tx("A seq 101 len 1460");
    expect_none(ms(100));
    inject("A seq 1 ack 1561");
    expect_tx("PA seq 1561 len 140");
}

TEST(data_nagle_minshall, "Minshall: a small segment goes although full ones are unacknowledged")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1460), 1460);
    expect_tx("A len 1460");
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1461 len 10");
}

TEST(data_nodelay, "tcp(7) TCP_NODELAY")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->nodelay = true;
    call_opts_changed(c);
    for (unsigned i = 0; i < 5; i++) {
        check_eq(call_send(c, 10), 10);
        expect_tx("PA len 10");
    }
}

TEST(data_nodelay_pushes, "tcp(7): setting TCP_NODELAY flushes what Nagle holds")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA len 10");
    check_eq(call_send(c, 10), 10);
    expect_none(0);
    tcp_opts(c)->nodelay = true;
    call_opts_changed(c);
    expect_tx("PA seq 11 len 10");
}

TEST(data_cork, "tcp(7) TCP_CORK: only full segments until it is taken off")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->cork = true;
    call_opts_changed(c);
    check_eq(call_send(c, 100), 100);
    expect_none(ms(100));
    check_eq(call_send(c, 1500), 1500);
    expect_tx("A seq 1 len 1460");
    expect_none(ms(50));
    tcp_opts(c)->cork = false;
    call_opts_changed(c);
    expect_tx("PA seq 1461 len 140");
}

TEST(data_cork_200ms, "tcp(7) TCP_CORK: at most 200 ms")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->cork = true;
    call_opts_changed(c);
    check_eq(call_send(c, 100), 100);
    expect_tx_in(ms(150), ms(250), "PA seq 1 len 100");
}

TEST(data_msg_more, "send(2) MSG_MORE: as a cork for one call")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send_flags(c, 100, TCP_SEND_MORE), 100);
    expect_none(ms(100));
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 len 200");
}

TEST(data_msg_more_nodelay, "Linux: MSG_MORE holds although TCP_NODELAY is set")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->nodelay = true;
    call_opts_changed(c);
    check_eq(call_send_flags(c, 100, TCP_SEND_MORE), 100);
    expect_none(ms(100));
    check_eq(call_send_flags(c, 1460, TCP_SEND_MORE), 1460);
    expect_tx("A seq 1 len 1460");
    expect_tx_in(ms(100), ms(300), "PA seq 1461 len 100");
}

TEST(data_msg_more_until_ack, "Linux: what MSG_MORE holds goes with the next ACK of new data")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send_flags(c, 1500, TCP_SEND_MORE), 1500);
    expect_tx("A seq 1 len 1460");
    check_eq(call_send_flags(c, 10, TCP_SEND_MORE), 10);
    expect_none(ms(50));
    inject("A seq 1 ack 1461");
    expect_tx("A seq 1461 len 50");
}

TEST(data_sndbuf_full, "send(): takes what fits, then EAGAIN; POLLOUT when a third is free")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->sndbuf = 20000;
    tcp_opts(c)->sndbuf_locked = true;
    call_opts_changed(c);
    check_eq(call_send(c, 100000), 20000);
    check_eq(call_send(c, 1), -EAGAIN);
    check(!(tcp_poll(c) & TCP_EV_OUT));
    drain_tx();
    events_of(c);
    inject("A seq 1 ack 1461");
    drain_tx();
    check(!(events_of(c) & TCP_EV_OUT));
    check(!(tcp_poll(c) & TCP_EV_OUT));
    check(tcp_send_room(c) == 1460);
    inject("A seq 1 ack 14601");
    drain_tx();
    check(events_of(c) & TCP_EV_OUT);
    check(tcp_poll(c) & TCP_EV_OUT);
}

TEST(data_notsent_lowat, "tcp(7) TCP_NOTSENT_LOWAT bounds what is written and not sent")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->notsent_lowat = 5000;
    call_opts_changed(c);
    inject("A seq 1 ack 1 win 3000");
    check(call_send(c, 20000) > 0);
    drain_tx();
    check(!(tcp_poll(c) & TCP_EV_OUT));
    check_eq(call_send(c, 1000), -EAGAIN);
}

/* ---- acknowledging ---- */

TEST(ack_quick_at_start, "Linux: the first segments of a connection are acknowledged at once")
{
    established(NULL);
    for (unsigned i = 0; i < 8; i++) {
        inject("PA len 1460");
        expect_tx("A len 0");
    }
}

TEST(ack_every_second,
     "RFC 9293 MUST-58, RFC 5681 4.2: an ACK for at least every second full segment")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    for (unsigned i = 0; i < 10; i++) {
        inject("A len 1460");
        inject("A len 1460");
        call_recv(c, 10000);
        check(drain_tx() >= 1);
    }
}

TEST(ack_after_reading,
     "Linux's __tcp_ack_snd_check(), tcp_cleanup_rbuf(): what is unread is acknowledged when read")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    for (unsigned i = 0; i < 10; i++)
        inject("A len 1460");
    check_eq(drain_tx(), 0);
    check_eq(call_recv(c, 20000), 14600);
    expect_tx("A ack 14601");
    for (unsigned i = 0; i < 10; i++)
        inject("A len 1460");
    /* a program that does not read: in time all the same */
    expect_tx_in(ms(35), ms(201), "A ack 29201");
    check_eq(call_recv(c, 20000), 14600);
}

TEST(ack_low_water, "Linux's __tcp_ack_snd_check(): nobody was woken to read below SO_RCVLOWAT")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    tcp_opts(c)->rcvlowat = 10000;
    inject("A len 1460");
    inject("A len 1460");
    expect_tx("A ack 2921");
    check_eq(call_recv(c, 20000), 2920);
}

TEST(ack_delayed, "RFC 9293 3.8.6.3; Linux: 40 ms")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    inject("PA len 100");
    expect_tx_in(ms(35), ms(201), "A seq 1 ack 101 len 0");
}

TEST(ack_delayed_bound, "RFC 9293 MUST-59: the delay is below 0.5 s")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < 30; i++) {
        inject("PA len 100");
        expect_tx_in(0, ms(500), "A len 0");
        t_run(ms(700));
        call_recv(c, 1000);
    }
}

TEST(ack_piggyback, "RFC 9293 3.8.6.3: a reply carries the ACK")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    inject("PA len 100");
    check_eq(call_recv(c, 100), 100);
    check_eq(call_send(c, 50), 50);
    expect_tx("PA seq 1 ack 101 len 50");
    expect_none(ms(150));
}

TEST(ack_pingpong, "Linux: after some exchanges of an interactive flow ACKs wait for the reply")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->nodelay = true;
    call_opts_changed(c);
    for (unsigned i = 0; i < 20; i++) {
        inject("PA len 10");
        drain_tx();
        call_recv(c, 10);
        call_send(c, 10);
        drain_tx();
    }
    inject("PA len 10");
    expect_none(ms(30));
    check_eq(call_recv(c, 10), 10);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA len 10");
}

TEST(ack_quickack_on, "tcp(7) TCP_QUICKACK 1 sends the ACK that is held")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    inject("PA len 10");
    expect_none(0);
    tcp_quickack(the_cx(), c, true);
    flush();
    expect_tx("A ack 11 len 0");
}

TEST(ack_fin_at_once, "RFC 9293: a FIN is acknowledged at once")
{
    struct tcp_conn *c = established(NULL);
    tcp_quickack(the_cx(), c, false);
    inject("FA");
    expect_tx("A ack 2");
}

TEST(ack_out_of_order, "RFC 5681 4.2: a hole opens, is filled: an ACK at once each time")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    tcp_quickack(the_cx(), c, false);
    inject("A seq 1001 len 1000");
    expect_tx("A ack 1 <sack 1001:2001>");
    inject("A seq 3001 len 1000");
    expect_tx("A ack 1 <sack 3001:4001 1001:2001>");
    inject("A seq 1 len 1000");
    expect_tx("A ack 2001 <sack 3001:4001>");
    inject("A seq 2001 len 1000");
    expect_tx("A ack 4001 <!sack>");
    check_eq(call_recv(c, 10000), 4000);
}

TEST(ack_sack_newest_first, "RFC 2018 4: the block of the newest arrival comes first")
{
    established("<mss 1460,sackOK,nop,nop>");
    inject("A seq 1001 len 100");
    expect_tx("A ack 1 <sack 1001:1101>");
    inject("A seq 2001 len 100");
    expect_tx("A ack 1 <sack 2001:2101 1001:1101>");
    inject("A seq 3001 len 100");
    expect_tx("A ack 1 <sack 3001:3101 2001:2101 1001:1101>");
    inject("A seq 1101 len 100");
    expect_tx("A ack 1 <sack 1001:1201 3001:3101 2001:2101>");
    inject("A seq 4001 len 100");
    inject("A seq 5001 len 100");
    drain_tx();
    inject("A seq 6001 len 100");
    expect_tx("A ack 1 <sack 6001:6101 5001:5101 4001:4101 1001:1201>");
}

TEST(ack_sack_with_ts, "RFC 2018 3: with timestamps three blocks fit")
{
    established("<mss 1460,sackOK,ts>");
    cur()->sends_ts = true;
    for (unsigned i = 1; i < 6; i++) {
        char spec[64];
        snprintf(spec, sizeof(spec), "A seq %u len 100", 1 + 1000 * i);
        inject(spec);
    }
    for (unsigned i = 0; i < 4; i++) {
        uint32_t len;
        next_tx(&len);
    }
    expect_tx("A ack 1 <ts,sack 5001:5101 4001:4101 3001:3101>");
}

TEST(ack_no_sack, "RFC 2018 2: no SACK when it was not agreed")
{
    established(NULL);
    inject("A seq 1001 len 1000");
    expect_tx("A ack 1 <none>");
    inject("A seq 2001 len 1000");
    expect_tx("A ack 1 <none>");
    inject("A seq 1 len 1000");
    expect_tx("A ack 3001");
}

TEST(ack_dsack, "RFC 2883 4: bytes that came twice are reported")
{
    established("<mss 1460,sackOK,nop,nop>");
    inject("A seq 1 len 1000");
    expect_tx("A ack 1001");
    inject("A seq 1 len 1000");
    expect_tx("A ack 1001 <sack 1:1001>");
    inject("A seq 501 len 1000");
    expect_tx("A ack 1501 <sack 501:1001>");
    inject("A seq 3001 len 100");
    expect_tx("A ack 1501 <sack 3001:3101>");
    inject("A seq 3001 len 100");
    expect_tx("A ack 1501 <sack 3001:3101 3001:3101>");
}

TEST(ack_reassembly_overlaps,
     "RFC 9293 3.10.7.4: overlapping segments; bytes held are not overwritten")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    inject("A seq 501 len 500");
    inject("A seq 1501 len 500");
    inject("A seq 801 len 1000");
    inject("A seq 301 len 1400");
    drain_tx();
    inject("A seq 1 len 400");
    expect_tx("A ack 2001");
    check_eq(call_recv(c, 5000), 2000);
}

TEST(ack_fin_out_of_order, "a FIN behind a hole counts when the hole is filled")
{
    struct tcp_conn *c = established(NULL);
    inject("FA seq 1001 len 500");
    expect_tx("A ack 1");
    inject("A seq 1 len 1000");
    expect_tx("A ack 1502");
    expect_state(TCP_CLOSE_WAIT);
    check_eq(call_recv(c, 5000), 1500);
    check_eq(call_recv(c, 5000), 0);
}

/* ---- the window that we offer ---- */

TEST(window_shrinks_with_data, "RFC 9293 3.8.6: the right edge does not move while nothing is read")
{
    established(NULL);
    inject("A seq 1 len 1000");
    expect_tx("A ack 1001 win <65536");
    inject("A len 1000");
    expect_tx("A ack 2001 win <65536");
}

/* Fills the window; returns how much it took. */
static uint32_t fill(void)
{
    uint32_t n = 0, idle = 0, last = cur()->p_nxt;
    while (idle < 3) {
        inject("A len 1460");
        t_run(ms(50));
        uint32_t len;
        const uint8_t *p;
        while ((p = next_tx(&len)) != NULL) {
            struct wire_seg s;
            wire_parse_tcp(p, len, false, &s);
            uint32_t acked = s.ack - cur()->irs;
            if (acked == last)
                idle++;
            last = acked;
            n = acked - 1;
        }
        cur()->p_nxt = last;
    }
    return n;
}

TEST(window_zero, "RFC 9293 3.8.6: text beyond the window is not taken; the window closes")
{
    struct tcp_conn *c = established(NULL);
    uint32_t n = fill();
    check(n >= 10000 && n <= 1 << 20);
    inject("A len 1460");
    expect_tx_in(0, ms(50), "A len 0 win <1460");
    check_eq(tcp_inq(c), n);
    /* reading all of it opens the window and says so */
    check_eq(call_recv(c, 1 << 20), n);
    expect_tx("A len 0 win >10000");
    cur()->p_nxt = n + 1;
    inject("A len 1460");
    drain_tx();
    check_eq(call_recv(c, 2000), 1460);
}

TEST(window_sws_receiver, "RFC 9293 3.8.6.2.2: no update for a sliver")
{
    struct tcp_conn *c = established(NULL);
    uint32_t n = fill();
    check(n > 0);
    check_eq(call_recv(c, 100), 100);
    check_eq(call_recv(c, 100), 100);
    expect_none(ms(500));
    inject("A len 1");
    expect_tx_in(0, ms(50), "A win <1460");
    check_eq(call_recv(c, n), n - 200);
    expect_tx("A win >10000");
}

/* The peer fills the window of a connection whose round trip is 100 us: the bytes that came. */
static uint32_t fill_near(struct tcp_conn **c)
{
    *c = call_open();
    call_connect_from(*c, HOST_PORT, PEER_PORT);
    expect_tx("S seq 0");
    t_run(us(100));
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    t_run(ms(2));
    return fill();
}

TEST(window_waits_for_reader,
     "RFC 9293 3.8.6.2.2, more than its Fr: small reads of a full buffer open it by halves")
{
    struct tcp_conn *c;
    const uint32_t n = fill_near(&c);
    check(n > 50000);
    uint32_t taken = 0;
    for (; taken + 4096 < n / 2; taken += 4096)
        check_eq(call_recv(c, 4096), 4096);
    expect_none(us(100));
    check_eq(call_recv(c, 4096), 4096);
    expect_tx("A len 0 win >30000");
}

TEST(window_waits_for_no_silence, "who reads a part and waits for more than half a buffer gets it")
{
    struct tcp_conn *c;
    check(fill_near(&c) > 50000);
    check_eq(call_recv(c, 4096), 4096);
    expect_none(ms(200));
    inject("A len 1"); /* a probe */
    expect_tx_in(0, ms(50), "A win >4000");
}

TEST(window_probe_answered, "RFC 9293 MUST-37: a probe into a closed window gets an ACK")
{
    struct tcp_conn *c = established(NULL);
    fill();
    for (unsigned i = 0; i < 5; i++) {
        t_run(sec(1));
        h_inject(__FILE__, __LINE__, "A len 1");
        cur()->p_nxt--;
        check_eq(drain_tx(), 1);
    }
    (void)c;
}

TEST(window_never_retreats, "RFC 9293 3.8.6 SHLD-14: the right edge never moves left")
{
    struct tcp_conn *c = established("<mss 1460,nop,wscale 7>");
    uint32_t edge = 0;
    for (unsigned i = 0; i < 400; i++) {
        inject("A len 1460");
        if (i % 3 == 2)
            check(call_recv(c, 3 * 1460) > 0);
        if (i % 37 == 5)
            t_run(ms(60));
        uint32_t len;
        const uint8_t *p;
        while ((p = next_tx(&len)) != NULL) {
            struct wire_seg s;
            wire_parse_tcp(p, len, false, &s);
            uint32_t e = s.ack - cur()->irs + ((uint32_t)s.win << 7);
            check((int32_t)(e - edge) >= 0);
            edge = e;
        }
    }
}

TEST(window_autotunes, "Linux tcp_moderate_rcvbuf: the window grows when the program keeps up")
{
    struct tcp_conn *c = established("<mss 1460,nop,nop,ts,nop,wscale 7>");
    cur()->sends_ts = true;
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    uint32_t first = v.rcv_wnd;
    check_eq(call_send(c, 100), 100);
    drain_tx();
    t_run(ms(10));
    inject("A ack 101");
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned i = 0; i < 30 + 10 * round; i++) {
            inject("A len 1448");
            call_recv(c, 10000);
            drain_tx();
        }
        t_run(ms(10));
    }
    tcp_view(the_cx(), c, &v);
    check(v.rcv_wnd > 2 * first);
}

TEST(window_rcvbuf_locked, "socket(7) SO_RCVBUF turns autotuning off and bounds the window")
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->rcvbuf = 16384;
    tcp_opts(c)->rcvbuf_locked = true;
    call_opts_changed(c);
    call_connect_from(c, HOST_PORT, PEER_PORT);
    expect_tx("S win <16385");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A win <16385");
    check(fill() <= 16384);
}

TEST(window_clamp, "tcp(7) TCP_WINDOW_CLAMP")
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->window_clamp = 4000;
    call_opts_changed(c);
    call_connect_from(c, HOST_PORT, PEER_PORT);
    expect_tx("S win <4001");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A win <4001");
}

TEST(window_rcvlowat, "socket(7) SO_RCVLOWAT: readable from so many bytes on")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->rcvlowat = 500;
    call_opts_changed(c);
    events_of(c);
    inject("A len 300");
    drain_tx();
    check(!(events_of(c) & TCP_EV_IN));
    check(!(tcp_poll(c) & TCP_EV_IN));
    inject("A len 300");
    drain_tx();
    check(events_of(c) & TCP_EV_IN);
    check(tcp_poll(c) & TCP_EV_IN);
}

/* ---- the window that the peer offers ---- */

TEST(peer_window_limits, "RFC 9293 3.10.2: no more than the peer's window")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 3000");
    check_eq(call_send(c, 10000), 10000);
    check(drain_text() <= 3000);
    inject("A seq 1 ack 2921 win 3000");
    check(drain_text() <= 3000);
}

TEST(peer_window_update, "RFC 9293 3.10.7.4 fifth: a window update lets data go")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    expect_none(ms(100));
    inject("A seq 1 ack 1 win 5000");
    expect_tx("PA seq 1 len 1000");
}

TEST(peer_window_old_update,
     "RFC 9293 3.10.7.4 fifth: SND.WL1/WL2: an old segment does not change the window")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 len 100 win 5000");
    drain_tx();
    inject("A seq 1 ack 1 win 1");
    struct tcp_view v;
    expect_tx("A ack 101"); /* it is not acceptable either */
    tcp_view(the_cx(), c, &v);
    check_eq(v.snd_wnd, 5000);
}

TEST(peer_window_shrinks, "RFC 9293 3.8.6 MUST-34: a peer that takes its window back")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 8000), 8000);
    check_eq(drain_text(), 8000);
    inject("A seq 1 ack 1461 win 1000");
    t_run(sec(1));
    drain_tx();
    inject("A seq 1 ack 8001 win 65535");
    check_eq(call_send(c, 100), 100);
    drain_tx();
    expect_state(TCP_ESTABLISHED);
}

TEST(peer_sws_sender, "RFC 9293 3.8.6.2.1: no small segments into a small window")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 200");
    check_eq(call_send(c, 10000), 10000);
    expect_none(ms(100)); /* less than a segment and less than half of the largest window seen */
    inject("A seq 1 ack 1 win 2000");
    expect_tx("A seq 1 len 1460");
    expect_none(0);
}

TEST(peer_zero_window_probes,
     "RFC 9293 3.8.6.1: probes with backoff, for ever while they are answered")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    nsec_t last = t_now(), gap = 0;
    for (unsigned i = 0; i < 30; i++) {
        expect_tx_in(ms(150), sec(125), "A ack 1");
        check(t_now() - last + ms(1) >= gap || t_now() - last > sec(110));
        gap = t_now() - last;
        last = t_now();
        inject("A seq 1 ack 1 win 0");
        expect_none(0);
    }
    check(gap > sec(100));
    inject("A seq 1 ack 1 win 65535");
    expect_tx("PA seq 1 len 1000");
    (void)c;
}

TEST(peer_zero_window_silent, "Linux: unanswered probes end the connection: ETIMEDOUT after 15")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    t_run(sec(3000));
    check(drain_tx() >= 15);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(peer_zero_window_fin, "a FIN waits for the window as data does, and gets there")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 10), 10);
    call_shutdown(c, TCP_SHUT_WR);
    expect_none(ms(100));
    inject("A seq 1 ack 1 win 1000");
    expect_tx("FPA seq 1 len 10");
}

/* ---- urgent data (RFC 9293 3.8.5, RFC 6093) ---- */

TEST(urgent_send, "send(2) MSG_OOB: URG, the pointer one behind the urgent byte (Linux, RFC 6093)")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send_flags(c, 5, TCP_SEND_OOB), 5);
    expect_tx("PAU seq 1 len 5 urg 5");
    inject("A seq 1 ack 6");
    check_eq(call_send(c, 5), 5);
    expect_tx("PA seq 6 len 5 urg 0");
}

TEST(urgent_send_ahead, "RFC 9293 3.8.5: segments before the urgent byte announce it")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 1460");
    check_eq(call_send_flags(c, 3000, TCP_SEND_OOB), 3000);
    expect_tx("AU seq 1 len 1460 urg 3000");
}

TEST(urgent_receive, "Linux: the urgent byte is kept out of the stream; POLLPRI; the mark")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 10 urg 6");
    expect_tx("A ack 11");
    check(events_of(c) & TCP_EV_PRI);
    check(tcp_poll(c) & TCP_EV_PRI);
    /* before the mark, never across it */
    check_eq(call_recv(c, 100), 5);
    check(tcp_at_mark(c));
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), 1);
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), -EINVAL);
    check(!(tcp_poll(c) & TCP_EV_PRI));
}

TEST(urgent_receive_rest, "Linux: what follows the urgent byte is read after it was passed over")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 10 urg 6");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 100), 5);
    uint8_t b[16];
    struct slice s = {b, sizeof(b)};
    check_eq(tcp_recv(the_cx(), c, &s, 1, 0, 0), 4);
    flush();
    check_eq(tcp_recv(the_cx(), c, &s, 1, 0, 0), -EAGAIN);
}

TEST(urgent_inline, "socket(7) SO_OOBINLINE: the byte stays in the stream, the mark stops a read")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->oobinline = true;
    call_opts_changed(c);
    inject("PAU seq 1 ack 1 len 10 urg 6");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 100), 5);
    check(tcp_at_mark(c));
    check_eq(call_recv(c, 100), 5);
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), -EINVAL);
}

TEST(urgent_not_yet,
     "recv(MSG_OOB): EAGAIN while the byte is announced but not here; EINVAL without any")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), -EINVAL);
    inject("PAU seq 1 ack 1 len 10 urg 16");
    expect_tx("A ack 11");
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), -EAGAIN);
    inject("PAU seq 11 ack 1 len 10 urg 6");
    expect_tx("A ack 21");
    check_eq(call_recv_flags(c, 1, TCP_RECV_OOB), 1);
}

TEST(urgent_no_text, "RFC 9293 3.8.5: an urgent pointer without text is only an announcement")
{
    struct tcp_conn *c = established(NULL);
    inject("AU seq 1 ack 1 urg 1");
    drain_tx();
    expect_state(TCP_ESTABLISHED);
    inject("PA seq 1 ack 1 len 10");
    drain_tx();
    uint8_t b[16];
    struct slice s = {b, sizeof(b)};
    check_eq(tcp_recv(the_cx(), c, &s, 1, 0, 0), 9);
    flush();
}

TEST(urgent_after_fin, "3.10.7.4 sixth: URG after the peer's FIN is ignored")
{
    struct tcp_conn *c = bring(TCP_CLOSE_WAIT);
    inject("AU seq 2 ack 1 urg 5");
    drain_tx();
    check(!(tcp_poll(c) & TCP_EV_PRI));
}

/* ---- reading ---- */

TEST(recv_peek, "recv(2) MSG_PEEK leaves the bytes; MSG_TRUNC throws them away")
{
    struct tcp_conn *c = established(NULL);
    inject("A len 1000");
    drain_tx();
    check_eq(call_recv_flags(c, 400, TCP_RECV_PEEK), 400);
    check_eq(call_recv_flags(c, 400, TCP_RECV_PEEK), 400);
    check_eq(tcp_inq(c), 1000);
    check_eq(call_recv_flags(c, 300, TCP_RECV_TRUNC), 300);
    check_eq(tcp_inq(c), 700);
    check_eq(call_recv(c, 2000), 700);
}

TEST(recv_window_full_of_small,
     "many small segments: memory per segment stays bounded, nothing is lost")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < 2000; i++) {
        inject("A len 7");
        drain_tx();
    }
    check_eq(tcp_inq(c), 14000);
    check(the_stack()->tcp.chunks.live < 16);
    check_eq(call_recv(c, 20000), 14000);
    drain_tx();
}

TEST(recv_ooo_flood, "many single bytes out of order: the memory for them is bounded")
{
    established("<mss 1460,sackOK,nop,nop>");
    for (unsigned i = 0; i < 3000; i++) {
        char spec[48];
        snprintf(spec, sizeof(spec), "A seq %u ack 1 len 1", 3 + 2 * i);
        inject(spec);
        drain_tx();
    }
    check(the_stack()->tcp.ranges.live <= 300);
    check(the_stack()->tcp.chunks.live <= 20);
}
