/* Closing: RFC 9293 3.6, half close, aborts, orphans, TIME_WAIT. */
#include "tests/packet/harness.h"

#include <errno.h>

TEST(close_normal, "RFC 9293 3.6 figure 12")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1 ack 1 len 0");
    expect_state(TCP_FIN_WAIT_1);
    inject("A seq 1 ack 2");
    expect_state(TCP_FIN_WAIT_2);
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2 len 0");
    expect_state(TCP_TIME_WAIT);
    t_run(sec(59));
    expect_state(TCP_TIME_WAIT);
    t_run(sec(2));
    expect_none(0);
    expect_state(TCP_CLOSED);
}

TEST(close_passive, "RFC 9293 3.6 figure 12, the other side")
{
    struct tcp_conn *c = established(NULL);
    inject("FA seq 1 ack 1");
    expect_tx("A seq 1 ack 2 len 0");
    check_eq(tcp_poll(c), TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP);
    check_eq(call_recv(c, 10), 0);
    check_eq(call_recv(c, 10), 0);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 ack 2 len 10");
    inject("A seq 2 ack 11");
    call_close(c);
    expect_tx("FA seq 11 ack 2");
    expect_state(TCP_LAST_ACK);
    inject("A seq 2 ack 12");
    expect_state(TCP_CLOSED);
}

TEST(close_simultaneous, "RFC 9293 3.6 figure 13")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1 ack 1");
    inject("FA seq 1 ack 1");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_CLOSING);
    inject("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(close_half, "RFC 9293 3.6: after our FIN the peer goes on sending, and the program reading")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_shutdown(c, TCP_SHUT_WR), 0);
    expect_tx("FA seq 1");
    inject("A seq 1 ack 2");
    for (unsigned i = 0; i < 5; i++) {
        inject("PA len 1000");
        expect_tx_in(0, ms(50), "A seq 2 len 0");
    }
    check_eq(call_recv(c, 10000), 5000);
    inject("FA");
    expect_tx("A seq 2 ack 5002");
    check_eq(call_recv(c, 10000), 0);
    expect_state(TCP_TIME_WAIT);
}

TEST(close_fin_after_data, "RFC 9293 3.10.4: the FIN goes after what is queued")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 30000), 30000);
    call_close(c);
    for (unsigned i = 0; i < 10; i++)
        expect_tx("A len 1460");
    expect_none(0);
    inject("A seq 1 ack 14601");
    for (unsigned i = 0; i < 10; i++)
        expect_tx("A len 1460");
    expect_tx("FPA seq 29201 len 800");
    expect_none(0);
    inject("A seq 1 ack 30002");
    expect_state(TCP_FIN_WAIT_2);
}

TEST(close_fin_with_data, "the FIN travels with the last of the data")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->cork = true;
    call_opts_changed(c);
    check_eq(call_send(c, 100), 100);
    expect_none(0);
    call_close(c);
    expect_tx("FPA seq 1 ack 1 len 100");
    inject("FA seq 1 ack 102");
    expect_tx("A seq 102 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(close_fin_retransmitted, "RFC 6298: a FIN is retransmitted like data")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1");
    expect_tx_in(ms(190), ms(1100), "FA seq 1 ack 1");
    inject("A seq 1 ack 2");
    expect_state(TCP_FIN_WAIT_2);
    expect_none(sec(30));
}

TEST(close_unread, "RFC 1122 4.2.2.13, RFC 2525 2.17: close() with unread data sends RST")
{
    struct tcp_conn *c = established(NULL);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    call_close(c);
    expect_tx("RA seq 1 ack 11");
    expect_state(TCP_CLOSED);
}

TEST(close_read_all, "close() after everything was read sends FIN")
{
    struct tcp_conn *c = established(NULL);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 10), 10);
    call_close(c);
    expect_tx("FA seq 1 ack 11");
}

TEST(close_unread_fin_only, "a FIN alone is not unread data")
{
    struct tcp_conn *c = established(NULL);
    inject("FA seq 1 ack 1");
    expect_tx("A ack 2");
    call_close(c);
    expect_tx("FA seq 1 ack 2");
}

TEST(close_data_after, "RFC 1122 4.2.2.13: text after close() is answered by RST")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1");
    inject("A seq 1 ack 2");
    inject("PA seq 1 ack 2 len 10");
    expect_tx("R seq 2");
    expect_state(TCP_CLOSED);
}

TEST(close_data_after_fin_wait_1, "the same before our FIN is acknowledged")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1");
    inject("PA seq 1 ack 1 len 10");
    check_eq(pending_tx(), 1);
    drain_tx();
    expect_state(TCP_CLOSED);
}

TEST(close_linger_zero, "SO_LINGER with 0: RST, unsent data is dropped")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 30000), 30000);
    drain_tx();
    call_abort(c);
    expect_tx("RA ack 1");
    expect_none(sec(10));
    expect_state(TCP_CLOSED);
}

TEST(close_rst_seq, "RFC 9293 3.10.5: <SEQ=SND.NXT><CTL=RST>: the peer finds it exact")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1000), 1000);
    expect_tx("PA seq 1 len 1000");
    call_abort(c);
    expect_tx("RA seq 1001");
}

TEST(close_fin_wait_2_timeout, "Linux tcp_fin_timeout: an orphan waits 60 s for the FIN")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1");
    inject("A seq 1 ack 2");
    t_run(sec(59));
    expect_state(TCP_FIN_WAIT_2);
    t_run(sec(2));
    expect_none(0);
    expect_state(TCP_CLOSED);
}

TEST(close_fin_wait_2_held, "RFC 9293: FIN_WAIT_2 with a program that still reads lasts")
{
    struct tcp_conn *c = bring(TCP_FIN_WAIT_2);
    t_run(sec(600));
    expect_none(0);
    expect_state(TCP_FIN_WAIT_2);
    call_close(c);
    expect_none(0);
    t_run(sec(61));
    expect_state(TCP_CLOSED);
}

TEST(close_linger2, "tcp(7) TCP_LINGER2")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->linger2 = 5;
    call_close(c);
    expect_tx("FA seq 1");
    inject("A seq 1 ack 2");
    t_run(sec(4));
    expect_state(TCP_FIN_WAIT_2);
    t_run(sec(2));
    expect_state(TCP_CLOSED);
}

TEST(close_linger2_negative, "tcp(7) TCP_LINGER2 below 0: no FIN_WAIT_2 for an orphan")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->linger2 = -1;
    call_close(c);
    expect_tx("FA seq 1");
    inject("A seq 1 ack 2");
    t_run(ms(1));
    drain_tx(); /* Linux sends a RST */
    expect_state(TCP_CLOSED);
}

TEST(close_orphan_retries, "Linux tcp_orphan_retries 8: an orphan gives up, and frees its memory")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 20000), 20000);
    call_close(c);
    t_run(sec(300));
    check(drain_tx() > 8);
    expect_state(TCP_CLOSED);
    check_eq(tcp_orphans(the_stack()), 0);
}

TEST(close_orphans_counted, "tcp_orphans() and tcp_orphans_unsent(): what exit waits for")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    check_eq(tcp_orphans_unsent(the_stack()), 0);
    call_close(c);
    drain_tx();
    check_eq(tcp_orphans(the_stack()), 1);
    check_eq(tcp_orphans_unsent(the_stack()), 1);
    inject("A seq 1 ack 1002");
    check_eq(tcp_orphans_unsent(the_stack()), 0);
    check_eq(tcp_orphans(the_stack()), 1);
    inject("FA seq 1 ack 1002");
    expect_tx("A ack 2");
    check_eq(tcp_orphans(the_stack()), 0);
    check_eq(tcp_time_waits(the_stack()), 1);
}

TEST(close_orphan_rst, "an orphan whose peer resets is gone")
{
    struct tcp_conn *c = established(NULL);
    call_close(c);
    expect_tx("FA seq 1");
    inject("R seq 1");
    expect_state(TCP_CLOSED);
    check_eq(tcp_orphans(the_stack()), 0);
}

TEST(close_orphan_zero_window, "Linux: an orphan that meets a closed window gives up in time")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    call_close(c);
    expect_none(0);
    t_run(sec(1000));
    check_eq(drain_tx(), 7); /* the eighth would come 128 s after it: too long for an orphan */
    expect_state(TCP_CLOSED);
}

TEST(close_orphan_zero_window_answers,
     "Linux's tcp_probe_timer(): nor does a peer keep an orphan by answers with a closed window")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    call_close(c);
    for (unsigned i = 0; i < 7; i++) {
        expect_tx_in(ms(150), sec(70), "A ack 1");
        inject("A seq 1 ack 1 win 0");
    }
    expect_state(TCP_FIN_WAIT_1);
    t_run(sec(121));
    expect_none(0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_orphans(the_stack()), 0);
}

TEST(close_sent_all, "tcp_sent_all(): SO_LINGER waits for the ACK of data and FIN")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA len 100");
    check(!tcp_sent_all(c));
    call_shutdown(c, TCP_SHUT_RDWR);
    expect_tx("FA seq 101");
    check(!tcp_sent_all(c));
    inject("A seq 1 ack 101");
    check(!tcp_sent_all(c));
    inject("A seq 1 ack 102");
    check(tcp_sent_all(c));
}

/* ---- shutdown(RD) ---- */

TEST(close_shut_rd, "Linux: after shutdown(RD) recv() gives 0; what arrives is still acknowledged")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_shutdown(c, TCP_SHUT_RD), 0);
    expect_none(0);
    check_eq(call_recv(c, 10), 0);
    check(tcp_poll(c) & TCP_EV_RDHUP);
    inject("PA seq 1 ack 1 len 10");
    expect_tx_in(0, ms(50), "A ack 11");
    check_eq(call_recv(c, 10), 10);
    check_eq(call_recv(c, 10), 0);
    expect_state(TCP_ESTABLISHED);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 len 10");
}

TEST(close_shut_both, "shutdown(RDWR): FIN; POLLHUP")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_shutdown(c, TCP_SHUT_RDWR), 0);
    expect_tx("FA seq 1");
    check(tcp_poll(c) & TCP_EV_HUP);
    check_eq(call_recv(c, 10), 0);
    check_eq(call_send(c, 10), -EPIPE);
    check(tcp_reading_shut(c) && tcp_writing_shut(c));
}

/* ---- TIME_WAIT ---- */

TEST(time_wait_fin_again, "RFC 9293 3.10.7.4 eighth: the FIN again: ACK, and 2 MSL start anew")
{
    bring(TCP_TIME_WAIT);
    t_run(sec(40));
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2");
    t_run(sec(40));
    expect_state(TCP_TIME_WAIT);
    t_run(sec(21));
    expect_state(TCP_CLOSED);
}

TEST(time_wait_ack_limited,
     "Linux tcp_invalid_ratelimit: segments out of place are not all answered")
{
    bring(TCP_TIME_WAIT);
    for (unsigned i = 0; i < 20; i++)
        inject("A seq 5000 ack 2 len 10");
    check(drain_tx() <= 2);
}

TEST(time_wait_new_syn, "RFC 9293 3.6.1, RFC 6191: a newer SYN opens a new connection")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    call_close(c);
    expect_tx("FA seq 1");
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
    uint32_t old = cur()->iss;
    inject("S seq 1000 <mss 1460>");
    expect_tx("SA seq 0 ack 1001");
    check((int32_t)(cur()->iss - old) > 65536);
    inject("A seq 1001 ack 1");
    expect_state(TCP_ESTABLISHED);
    check(call_accept(l) != NULL);
    check(counter(COUNT_TW_RECYCLED) == 1);
}

TEST(time_wait_new_syn_by_timestamp, "RFC 6191 2: a newer timestamp is enough")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460,nop,nop,ts 100>");
    expect_tx("SA seq 0");
    inject("A seq 1 ack 1 <nop,nop,ts 100>");
    struct tcp_conn *c = call_accept(l);
    call_close(c);
    expect_tx("FA seq 1");
    inject("FA seq 1 ack 2 <nop,nop,ts 110>");
    expect_tx("A seq 2 ack 2");
    inject("S seq -5000 <mss 1460,nop,nop,ts 90>");
    expect_tx("A seq 2 ack 2");
    inject("S seq -5000 <mss 1460,nop,nop,ts 200>");
    expect_tx("SA seq 0 ack -4999");
}

TEST(time_wait_restarted_host,
     "RFC 9293 3.5.1: SYNs of a host that restarted, with an older clock, do not renew TIME-WAIT")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460,nop,nop,ts 100000>");
    expect_tx("SA seq 0");
    inject("A seq 1 ack 1 <nop,nop,ts 100000>");
    call_close(call_accept(l));
    expect_tx("FA seq 1");
    inject("FA seq 1 ack 2 <nop,nop,ts 100010>");
    expect_tx("A seq 2 ack 2");
    for (unsigned i = 0; i < 3; i++) {
        t_run(sec(19));
        inject("S seq -5000 <mss 1460,nop,nop,ts 90>");
        expect_tx("A seq 2 ack 2");
        inject("R seq 2");
    }
    t_run(sec(4));
    inject("S seq -5000 <mss 1460,nop,nop,ts 90>");
    expect_tx("SA ack -4999");
}

TEST(time_wait_old_syn, "RFC 9293 3.6.1: an old SYN does not")
{
    call_listen(5);
    flow(HOST_PORT, PEER_PORT);
    bring(TCP_TIME_WAIT);
    inject("S seq -100");
    expect_tx("A seq 2 ack 2");
    expect_state(TCP_TIME_WAIT);
}

TEST(time_wait_connect_reuse,
     "Linux tcp_tw_reuse: connect() takes over a TIME_WAIT with timestamps after 1 s")
{
    struct tcp_conn *c = established("<mss 1460,nop,nop,ts>");
    cur()->sends_ts = true;
    call_close(c);
    expect_tx("FA seq 1");
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2");
    c = call_open();
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), -EADDRINUSE);
    t_run(sec(2));
    uint32_t old_end = cur()->iss + 2;
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), 0);
    expect_tx("S");
    check((int32_t)(cur()->iss - old_end) > 0);
    expect_state(TCP_SYN_SENT);
}

TEST(time_wait_connect_refused, "without timestamps connect() to a TIME_WAIT tuple: EADDRINUSE")
{
    bring(TCP_TIME_WAIT);
    t_run(sec(5));
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), -EADDRINUSE);
}

TEST(time_wait_rst_ignored, "RFC 1337: hazards F1 to F3: a RST does not end TIME_WAIT")
{
    bring(TCP_TIME_WAIT);
    inject("R seq 2");
    inject("RA seq 2 ack 2");
    inject("R seq 100");
    expect_none(0);
    expect_state(TCP_TIME_WAIT);
}

TEST(time_wait_holds_port, "tcp_port_in_use() counts TIME_WAIT")
{
    struct tcp_conn *c = bring(TCP_TIME_WAIT);
    call_close(c);
    check(tcp_port_in_use(the_stack(), HOST_PORT));
    t_run(sec(61));
    check(!tcp_port_in_use(the_stack(), HOST_PORT));
}

TEST(time_wait_window_scaled, "the ACK of TIME_WAIT carries a window as scaled before")
{
    struct tcp_conn *c = established("<mss 1460,nop,wscale 7>");
    call_shutdown(c, TCP_SHUT_WR);
    expect_tx("FA seq 1");
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2 win <1025");
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2 win <1025");
    (void)c;
}
