/* Opening a connection: RFC 9293 3.5, options (3.7, RFC 7323, 2018), SYN retransmission, numbers.
 */
#include "tests/packet/harness.h"

#include <errno.h>

TEST(open_active, "RFC 9293 3.5 figure 6")
{
    struct tcp_conn *c = call_connect();
    expect_tx("S seq 0 ack 0 len 0 <mss 1460,sackOK,ts,wscale>");
    expect_state(TCP_SYN_SENT);
    t_run(ms(20));
    inject("SA seq 0 ack 1 <mss 1460,sackOK,ts,nop,wscale 7>");
    expect_tx("A seq 1 ack 1 len 0 <ts * 1020>");
    expect_state(TCP_ESTABLISHED);
    check(events_of(c) & TCP_EV_OUT);
    check_eq(tcp_poll(c), TCP_EV_OUT);
}

TEST(open_passive, "RFC 9293 3.5 figure 6, the other side")
{
    struct tcp_listener *l = call_listen(5);
    check_eq(tcp_listener_poll(l), 0);
    inject("S seq 0 <mss 1460,sackOK,ts,nop,wscale 7>");
    expect_tx("SA seq 0 ack 1 len 0 <mss 1460,sackOK,ts * 1000,wscale>");
    check_eq(tcp_listener_poll(l), 0);
    cur()->sends_ts = true;
    inject("A seq 1 ack 1");
    expect_none(0);
    check_eq(tcp_listener_poll(l), TCP_EV_IN);
    check(listener_events() & TCP_EV_IN);
    struct tcp_conn *c = call_accept(l);
    check(c && tcp_state(c) == TCP_ESTABLISHED);
    check(call_accept(l) == NULL);
    check_eq(tcp_listener_poll(l), 0);
}

TEST(open_simultaneous, "RFC 9293 3.5 figure 7")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1 <mss>");
    expect_state(TCP_SYN_RECEIVED);
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_state(TCP_ESTABLISHED);
    drain_tx(); /* Linux answers the SYN-ACK by an ACK, the RFC need not */
    check(events_of(c) & TCP_EV_OUT);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 ack 1 len 10");
}

TEST(open_simultaneous_timeout, "RFC 9293 3.5: the SYN-ACK of a simultaneous open is sent again")
{
    bring(TCP_SYN_RECEIVED);
    expect_tx_in(ms(900), ms(3100), "SA seq 0 ack 1");
    inject("A seq 1 ack 1");
    expect_state(TCP_ESTABLISHED);
}

TEST(open_old_duplicate_syn, "RFC 9293 3.5 figure 8: recovery from an old duplicate SYN")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    inject("R seq 1");
    expect_state(TCP_CLOSED);
    inject("S seq 5000 <mss 1460>");
    expect_tx("SA seq 0 ack 5001");
    inject("A seq 5001 ack 1");
    expect_state(TCP_ESTABLISHED);
    check(call_accept(l) != NULL);
}

TEST(open_half_open_discovery,
     "RFC 9293 3.5.1 figure 9: the peer crashed and we still are ESTABLISHED")
{
    struct tcp_conn *c = bring(TCP_ESTABLISHED);
    inject("S seq 900000 <mss 1460>");
    expect_tx("A seq 1 ack 1 len 0");
    inject("R seq 1");
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNRESET);
}

TEST(open_peer_half_open, "RFC 9293 3.5.1: an answer to our SYN from an old connection is reset")
{
    bring(TCP_SYN_SENT);
    inject("A seq 300 ack 400000");
    expect_tx("R seq 400000 len 0");
    expect_state(TCP_SYN_SENT);
    expect_tx_in(ms(990), ms(1100), "S seq 0");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
}

TEST(open_syn_retransmission,
     "Linux tcp_syn_retries 6: 1, 2, 4, 8, 16, 32 s, ETIMEDOUT after 127 s")
{
    struct tcp_conn *c = call_connect();
    expect_tx("S seq 0");
    nsec_t at[] = {sec(1), sec(3), sec(7), sec(15), sec(31), sec(63)};
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        nsec_t d = at[i] - t_now();
        expect_tx_in(d, d + ms(300), "S seq 0 <mss 1460>");
    }
    check_eq(tcp_state(c), TCP_SYN_SENT);
    t_at(sec(128) + ms(500));
    expect_none(0);
    expect_state(TCP_CLOSED);
    check(events_of(c) & (TCP_EV_ERR | TCP_EV_HUP));
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(open_syncnt, "tcp(7) TCP_SYNCNT")
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->syncnt = 2;
    call_opts_changed(c);
    call_connect_from(c, HOST_PORT, PEER_PORT);
    expect_tx("S seq 0");
    expect_tx_in(ms(999), ms(1100), "S seq 0");
    expect_tx_in(ms(1990), ms(2100), "S seq 0");
    t_run(sec(5));
    expect_none(0);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(open_syn_ack_retransmission, "Linux tcp_synack_retries 5: 1, 3, 7, 15, 31 s, given up at 63 s")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    nsec_t at[] = {sec(1), sec(3), sec(7), sec(15), sec(31)};
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        nsec_t d = at[i] - t_now();
        expect_tx_in(d, d + ms(300), "SA seq 0 ack 1 <mss 1460>");
    }
    t_at(sec(62));
    expect_state(TCP_SYN_RECEIVED);
    t_at(sec(65));
    expect_none(0);
    expect_state(TCP_CLOSED);
    uint32_t syns, accepts, backlog;
    tcp_listener_queues(l, &syns, &accepts, &backlog);
    check_eq(syns, 0);
}

TEST(open_third_ack_lost,
     "RFC 9293 3.10.7.4: text completes the handshake when the third ACK was lost")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    inject("PA seq 1 ack 1 len 100");
    expect_tx("A ack 101");
    struct tcp_conn *c = call_accept(l);
    check_eq(tcp_poll(c), TCP_EV_IN | TCP_EV_OUT);
    check_eq(call_recv(c, 1000), 100);
}

TEST(open_data_queued_before, "a send() in SYN_SENT waits (EAGAIN), and works once established")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    check_eq(call_send(c, 10), -EAGAIN);
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 len 10");
}

TEST(open_shutdown_in_syn_received,
     "RFC 9293 3.10.4: SYN_RECEIVED with a simultaneous open, then FIN")
{
    struct tcp_conn *c = bring(TCP_SYN_RECEIVED);
    check_eq(call_shutdown(c, TCP_SHUT_WR), 0);
    inject("A seq 1 ack 1");
    expect_tx("FA seq 1 ack 1");
    expect_state(TCP_FIN_WAIT_1);
    inject("A seq 1 ack 2");
    expect_state(TCP_FIN_WAIT_2);
}

TEST(open_close_in_syn_received, "RFC 9293 3.10.4: CLOSE in SYN-RECEIVED: FIN, FIN-WAIT-1")
{
    call_close(bring(TCP_SYN_RECEIVED));
    expect_tx("FA seq 1 ack 1");
    expect_state(TCP_FIN_WAIT_1);
    inject("A seq 1 ack 2");
    expect_state(TCP_FIN_WAIT_2);
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(open_close_in_syn_received_lost, "the SYN-ACK goes again before the FIN, alone")
{
    call_close(bring(TCP_SYN_RECEIVED));
    expect_tx("FA seq 1 ack 1");
    expect_tx_in(ms(900), ms(1100), "SA seq 0 ack 1 len 0");
    expect_none(ms(500));
    inject("A seq 1 ack 1");
    expect_state(TCP_FIN_WAIT_1);
    expect_tx_in(0, ms(1100), "FA seq 1 ack 1");
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(open_close_before_crossing_syn_ack, "RFC 9293 3.5 figure 7 with a CLOSE in the middle")
{
    call_close(bring(TCP_SYN_RECEIVED));
    expect_tx("FA seq 1 ack 1");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_state(TCP_FIN_WAIT_1);
    drain_tx();
    inject("FA seq 1 ack 1");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_CLOSING);
    inject("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(open_close_in_syn_received_rst, "RFC 5961 3.2 there, and an ACK of what was not sent")
{
    call_close(bring(TCP_SYN_RECEIVED));
    expect_tx("FA seq 1 ack 1");
    inject("A seq 1 ack 9");
    expect_tx("R seq 9 len 0");
    expect_state(TCP_FIN_WAIT_1);
    inject("R seq 1");
    expect_state(TCP_CLOSED);
}

/* ---- options ---- */

TEST(open_mss_absent, "RFC 9293 3.7.1: 536 when the option is absent")
{
    struct tcp_conn *c = established("<nop>");
    check_eq(call_send(c, 1000), 1000);
    expect_tx("A seq 1 len 536");
    drain_tx();
    check_eq(tcp_mss(c), 536);
}

TEST(open_mss_tiny, "Linux: an MSS below TCP_MIN_SND_MSS (48 less 40 of options) is raised")
{
    struct tcp_conn *c = established("<mss 1>");
    check(tcp_mss(c) >= 8 && tcp_mss(c) <= 536);
    check_eq(call_send(c, 100), 100);
    check(drain_tx() <= 13);
}

TEST(open_mss_zero, "an MSS of 0 counts as absent or is raised")
{
    struct tcp_conn *c = established("<mss 0>");
    check(tcp_mss(c) >= 8 && tcp_mss(c) <= 536);
    check_eq(call_send(c, 10), 10);
    drain_tx();
}

TEST(open_mss_large, "RFC 9293 3.7.1: bounded by our own MTU")
{
    struct tcp_conn *c = established("<mss 9000>");
    check_eq(call_send(c, 3000), 3000);
    expect_tx("A seq 1 len 1460");
    drain_tx();
}

TEST(open_mss_of_passive,
     "RFC 9293 3.7.1: the SYN-ACK carries our own MSS, the peer's rules what we send")
{
    struct tcp_conn *c = accepted("<mss 700>");
    check_eq(call_send(c, 1500), 1500);
    expect_tx("A seq 1 len 700");
    expect_tx("A seq 701 len 700");
    drain_tx();
}

TEST(open_mss_user, "tcp(7) TCP_MAXSEG bounds what we announce and what we send")
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->user_mss = 1000;
    call_opts_changed(c);
    call_connect_from(c, HOST_PORT, PEER_PORT);
    expect_tx("S seq 0 <mss 1000>");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    check_eq(call_send(c, 3000), 3000);
    expect_tx("A seq 1 len 1000");
    drain_tx();
}

TEST(open_mtu_small, "RFC 9293 3.7.1: MSS = MTU - 40")
{
    world((struct world_opts){.mtu = 576});
    struct tcp_conn *c = call_connect();
    expect_tx("S seq 0 <mss 536>");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    check_eq(call_send(c, 1000), 1000);
    expect_tx("A seq 1 len 536");
    drain_tx();
}

TEST(open_wscale_absent, "RFC 7323 2.2: without the peer's option neither side scales")
{
    established("<mss 1460>");
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11 win >10000");
}

TEST(open_wscale_syn_unscaled, "RFC 7323 2.2: the window of a SYN is never scaled")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject("SA seq 0 ack 1 win 1000 <mss 1460,nop,wscale 14>");
    expect_tx("A seq 1 ack 1");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.snd_wnd, 1000);
    inject("A seq 1 ack 1 win 1000");
    tcp_view(the_cx(), c, &v);
    check_eq(v.snd_wnd, 1000u << 14);
}

TEST(open_wscale_too_large, "RFC 7323 2.3: a shift above 14 is used as 14")
{
    struct tcp_conn *c = established("<mss 1460,nop,wscale 200>");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.snd_wscale, 14);
}

TEST(open_wscale_not_asked, "RFC 7323 2.2: not in the SYN-ACK when not in the SYN")
{
    call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA <mss,!wscale,!ts,!sackOK>");
    cur()->pport++;
    inject("S seq 0 <mss 1460,nop,wscale 2>");
    expect_tx("SA <mss,wscale,!ts,!sackOK>");
    cur()->pport++;
    inject("S seq 0 <mss 1460,sackOK,nop,nop>");
    expect_tx("SA <mss,!wscale,!ts,sackOK>");
    cur()->pport++;
    inject("S seq 0 <mss 1460,ts,nop,nop>");
    expect_tx("SA <mss,!wscale,ts,!sackOK>");
}

TEST(open_ts_off, "RFC 7323 3.2: no timestamps when the peer did not send them")
{
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 len 10 <none>");
}

TEST(open_ts_on, "RFC 7323 3.2: once agreed, in each segment; MSS less 12 bytes")
{
    struct tcp_conn *c = established("<mss 1460,nop,nop,ts>");
    cur()->sends_ts = true;
    check_eq(call_send(c, 2000), 2000);
    expect_tx("A seq 1 len 1448 <ts * 1000>");
    drain_tx();
}

TEST(open_options_padded_with_eol, "RFC 9293 3.1: End of Option List ends the options")
{
    struct tcp_conn *c = established("<mss 1000,eol,hex 03030e>");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.snd_mss, 1000);
    check(!v.wscale);
}

TEST(open_options_unknown, "RFC 9293 3.1 MUST-6: unknown options are skipped by their length")
{
    struct tcp_conn *c = established("<hex fe06aabbccdd,mss 1000>");
    check_eq(tcp_mss(c), 1000);
}

TEST(open_options_malformed, "an option with a length of 0, 1 or past the end ends the options")
{
    static const char *const syns[] = {"<mss 1000,hex 0300>", "<mss 1000,hex 0301>",
                                       "<mss 1000,hex 0000032f>", "<mss 1000,hex 08ff0000>",
                                       "<mss 1000,hex 01010103>"};
    for (size_t i = 0; i < ARRAY_LEN(syns); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = established(syns[i]);
        check_eq(tcp_mss(c), 1000);
    }
}

TEST(open_options_wrong_length, "an option whose length is not its own is ignored")
{
    struct tcp_conn *c = established("<hex 0203ff,hex 030401ff,hex 04,nop>");
    check(tcp_mss(c) <= 536);
}

TEST(open_fin_with_syn_ack, "RFC 9293 3.10.7.3: SYN,ACK,FIN: the connection opens, the FIN counts")
{
    bring(TCP_SYN_SENT);
    inject("SFA seq 0 ack 1 <mss 1460>");
    check(drain_tx() >= 1);
    check(flow_state() == TCP_CLOSE_WAIT || flow_state() == TCP_ESTABLISHED);
}

TEST(open_data_with_syn_ack, "RFC 9293 3.10.7.3: text in a SYN-ACK is kept or comes again")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject("SA seq 0 ack 1 win 65535 len 0 <mss 1460>");
    drain_tx();
    inject("PA seq 1 ack 1 len 100");
    expect_tx("A ack 101");
    check_eq(call_recv(c, 200), 100);
}

/* ---- numbers ---- */

TEST(open_isn_differs, "RFC 6528 3: ISNs differ between tuples and grow with time for one")
{
    uint32_t iss[40];
    for (unsigned i = 0; i < 40; i++) {
        struct tcp_conn *c = call_open();
        check_eq(call_connect_from(c, (uint16_t)(6000 + i), PEER_PORT), 0);
        expect_tx("S");
        iss[i] = cur()->iss;
        for (unsigned k = 0; k < i; k++)
            check(iss[k] != iss[i]);
    }
    /* far apart, not one after the other */
    unsigned near = 0;
    for (unsigned i = 1; i < 40; i++)
        near += iss[i] - iss[i - 1] < 100000;
    check(near < 3);
}

TEST(open_isn_clock, "RFC 6528 3: M is a clock; Linux: of 64 ns, 15,625,000 numbers a second")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    uint32_t first = cur()->iss;
    call_close(c);
    t_run(sec(1));
    bring(TCP_SYN_SENT);
    check_eq(cur()->iss - first, 15625000);
}

TEST(open_isn_secret, "RFC 6528 3: another secret, other numbers")
{
    bring(TCP_SYN_SENT);
    uint32_t first = cur()->iss;
    world((struct world_opts){.seed = 1});
    bring(TCP_SYN_SENT);
    check(cur()->iss != first);
}

TEST(open_ephemeral_ports, "RFC 6056: in the range, not in use, not predictable from one another")
{
    struct ip_addr local = ip_addr_from_v4(__builtin_bswap32(HOST_IP));
    struct endpoint remote = {ip_addr_from_v4(__builtin_bswap32(PEER_IP)), 80};
    unsigned steps = 0;
    uint16_t last = 0;
    for (unsigned i = 0; i < 50; i++) {
        uint16_t p = tcp_ephemeral_port(the_cx(), &local, &remote, 40000, 49999, 0);
        check(p >= 40000 && p <= 49999);
        struct tcp_conn *c = call_open();
        check_eq(call_connect_from(c, p, 80), 0);
        expect_tx("S");
        steps += p == last + 1;
        last = p;
    }
    check(steps < 25);
}

TEST(open_ephemeral_exhausted, "0 when no port is free; each free one is found")
{
    struct ip_addr local = ip_addr_from_v4(__builtin_bswap32(HOST_IP));
    struct endpoint remote = {ip_addr_from_v4(__builtin_bswap32(PEER_IP)), 80};
    for (unsigned i = 0; i < 8; i++) {
        uint16_t p = tcp_ephemeral_port(the_cx(), &local, &remote, 40000, 40007, 0);
        check(p >= 40000 && p <= 40007);
        struct tcp_conn *c = call_open();
        check_eq(call_connect_from(c, p, 80), 0);
        expect_tx("S");
    }
    check_eq(tcp_ephemeral_port(the_cx(), &local, &remote, 40000, 40007, 0), 0);
    check(tcp_port_in_use(the_stack(), 40003));
    check(!tcp_port_in_use(the_stack(), 40008));
}

TEST(open_ts_offset, "RFC 7323 5.4: the timestamp clock of each tuple has its own offset")
{
    uint32_t a, b;
    bring(TCP_SYN_SENT);
    a = cur()->host_ts;
    struct tcp_conn *c = call_open();
    call_connect_from(c, HOST_PORT + 1, PEER_PORT);
    expect_tx("S");
    b = cur()->host_ts;
    check(a - b > 100000 && b - a > 100000);
}

TEST(open_ts_clock, "RFC 7323 5.4: between 1 ms and 1 s a tick; Linux: 1 ms")
{
    struct tcp_conn *c = established("<mss 1460,nop,nop,ts>");
    cur()->sends_ts = true;
    uint32_t first = cur()->host_ts;
    t_run(sec(1));
    check_eq(call_send(c, 10), 10);
    expect_tx("PA len 10");
    check_eq(cur()->host_ts - first, 1000);
}
