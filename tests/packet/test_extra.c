/* Records (MSG_EOR), the error queue (MSG_ERRQUEUE), what limits a sender (TCP_INFO). */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

#include "stack/tcp/conn.h"

/* ---- records ---- */

/* What is written next waits until "ack 14601". */
static struct tcp_conn *with_full_window(void)
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_tx(), 10);
    return c;
}

TEST(record_ends_segment, "send(2) MSG_EOR: what follows begins a segment")
{
    struct tcp_conn *c = with_full_window();
    check_eq(call_send(c, 100), 100);
    check_eq(call_send_flags(c, 300, TCP_SEND_EOR), 300); /* text before it is of its record */
    check_eq(call_send_flags(c, 200, TCP_SEND_EOR), 200);
    check_eq(call_send(c, 2000), 2000);
    inject("A seq 1 ack 14601");
    expect_tx("PA seq 14601 len 400");
    expect_tx("PA seq 15001 len 200");
    expect_tx("A seq 15201 len 1460");
    expect_none(0); /* Nagle: the rest waits for what is smaller than a segment */
    inject("A seq 1 ack 16661");
    expect_tx("PA seq 16661 len 540");
}

TEST(record_is_cut_at_mss, "send(2) MSG_EOR: a record of several segments ends with a short one")
{
    struct tcp_conn *c = with_full_window();
    check_eq(call_send_flags(c, 3000, TCP_SEND_EOR), 3000);
    check_eq(call_send(c, 1460), 1460);
    inject("A seq 1 ack 14601");
    expect_tx("A seq 14601 len 1460");
    expect_tx("A seq 16061 len 1460");
    expect_tx("PA seq 17521 len 80");
    expect_tx("PA seq 17601 len 1460");
}

TEST(record_retransmitted_alone, "Linux tcp_skb_can_collapse(): records are not joined when resent")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->nodelay = true;
    check_eq(call_send_flags(c, 100, TCP_SEND_EOR), 100);
    expect_tx("PA seq 1 len 100");
    check_eq(call_send_flags(c, 100, TCP_SEND_EOR), 100);
    expect_tx("PA seq 101 len 100");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 201 len 100");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 301 len 100");
    expect_tx_in(ms(150), sec(2), "PA seq 1 len 100");
    inject("A seq 1 ack 101"); /* after the time-out the others are lost, too */
    expect_tx("PA seq 101 len 100");
    inject("A seq 1 ack 201");
    expect_tx("PA seq 201 len 200"); /* no records: joined */
    inject("A seq 1 ack 401");
}

TEST(record_before_fin, "a record before FIN: FIN goes with the last text")
{
    struct tcp_conn *c = with_full_window();
    check_eq(call_send_flags(c, 100, TCP_SEND_EOR), 100);
    check_eq(call_send(c, 100), 100);
    call_shutdown(c, TCP_SHUT_WR);
    inject("A seq 1 ack 14601");
    expect_tx("PA seq 14601 len 100");
    expect_tx("FPA seq 14701 len 100");
}

TEST(record_cut_short, "send(2) MSG_EOR: a call that took a part has not come to the record's end")
{
    struct tcp_conn *c = established(NULL);
    struct tcp_opts *o = tcp_opts(c);
    o->sndbuf = 20000;
    o->sndbuf_locked = true;
    check_eq(call_send_flags(c, 30000, TCP_SEND_EOR | TCP_SEND_ONCE), 20000);
    check_eq(drain_text(), 14600);
    o->sndbuf = 40000;
    check_eq(call_send(c, 440), 440);
    inject("A seq 1 ack 14601");
    for (unsigned i = 0; i < 4; i++)
        expect_tx("A len 1460");
}

TEST(records_without_end, "more ends of records than are kept: the text goes all the same")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->sndbuf = 100000;
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_tx(), 10);
    for (unsigned i = 0; i < 1000; i++)
        check_eq(call_send_flags(c, 10, TCP_SEND_EOR), 10);
    uint32_t acked = 14601;
    inject("A seq 1 ack 14601");
    for (unsigned i = 0; i < 100 && acked < 24601; i++) {
        acked += drain_text();
        inject("A seq 1");
    }
    check_eq(tcp_outq(c), 0);
}

/* ---- the error queue ---- */

#define ALL_STAMPS (1u << TCP_REPORT_SCHED | 1u << TCP_REPORT_SENT | 1u << TCP_REPORT_ACKED)

static void expect_report(struct tcp_conn *c, enum tcp_report_kind kind, uint32_t first,
                          uint32_t last, nsec_t at)
{
    struct tcp_report r;
    check(tcp_poll(c) & TCP_EV_ERR);
    if (!tcp_take_report(the_cx(), c, &r))
        fail("no report");
    check_eq(r.kind, kind);
    check_eq(r.first, first);
    check_eq(r.last, last);
    check_eq(the_cx()->now - r.at, t_now() - at);
}

static void expect_no_report(struct tcp_conn *c)
{
    struct tcp_report r;
    check(!tcp_take_report(the_cx(), c, &r));
    check(!(tcp_poll(c) & TCP_EV_ERR));
}

TEST(stamps_of_last_bytes, "Linux SO_TIMESTAMPING: SCHED and SND when a call's last byte goes, ACK")
{
    struct tcp_conn *c = established(NULL);
    expect_no_report(c);
    check_eq(tcp_set_stamps(the_cx(), c, ALL_STAMPS, 1, TCP_STAMP_BASE_UNACKED), 0);
    check_eq(tcp_stamping(c), 1);
    check_eq(call_send(c, 2000), 2000);
    check_eq(drain_text(), 2000);
    const nsec_t sent = t_now();
    check_eq(call_send_flags(c, 100, TCP_SEND_PART), 100); /* the call is not over */
    drain_tx();
    t_run(ms(10));
    inject("A seq 1 ack 1461");
    t_run(ms(10));
    inject("A seq 1 ack 2001");
    drain_tx();
    const nsec_t acked = t_now();
    expect_report(c, TCP_REPORT_SCHED, 1999, 1999, sent);
    expect_report(c, TCP_REPORT_SENT, 1999, 1999, sent);
    expect_report(c, TCP_REPORT_ACKED, 1999, 1999, acked);
    expect_no_report(c);
}

TEST(stamps_wait_for_window, "Linux SO_TIMESTAMPING: a byte that waits has no stamp")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 1460");
    check_eq(tcp_set_stamps(the_cx(), c, 1u << TCP_REPORT_SENT, 1, TCP_STAMP_BASE_UNACKED), 0);
    check_eq(call_send(c, 2000), 2000);
    check_eq(drain_text(), 1460);
    expect_no_report(c);
    t_run(ms(5));
    inject("A seq 1 ack 1461");
    check_eq(drain_text(), 540);
    expect_report(c, TCP_REPORT_SENT, 1999, 1999, t_now());
    /* counted anew, from the next byte on */
    check_eq(tcp_set_stamps(the_cx(), c, 1u << TCP_REPORT_SENT, 1, TCP_STAMP_BASE_UNWRITTEN), 0);
    inject("A seq 1 ack 2001");
    check_eq(call_send(c, 7), 7);
    drain_tx();
    expect_report(c, TCP_REPORT_SENT, 6, 6, t_now());
    check_eq(tcp_set_stamps(the_cx(), c, 0, 0, TCP_STAMP_BASE_KEPT), 0);
    inject("A seq 1 ack 2008");
    check_eq(call_send(c, 7), 7);
    drain_tx();
    expect_no_report(c);
}

TEST(zerocopy_reports_join, "Linux MSG_ZEROCOPY: ids in a row are one report")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < 3; i++)
        tcp_zerocopy_done(the_cx(), c);
    expect_report(c, TCP_REPORT_ZEROCOPY, 0, 2, t_now());
    expect_no_report(c);
    tcp_zerocopy_done(the_cx(), c);
    expect_report(c, TCP_REPORT_ZEROCOPY, 3, 3, t_now());
    expect_no_report(c);
}

TEST(reports_are_bounded, "a queue that nobody reads does not grow; it outlives the connection")
{
    struct tcp_conn *c = established(NULL);
    check_eq(tcp_set_stamps(the_cx(), c, 1u << TCP_REPORT_SENT, 1, TCP_STAMP_BASE_UNACKED), 0);
    for (unsigned i = 0; i < 1000; i++) {
        check_eq(call_send(c, 1), 1);
        drain_tx();
        inject("A seq 1");
        drain_tx();
    }
    inject("R seq 1");
    expect_state(TCP_CLOSED);
    struct tcp_report r;
    unsigned n = 0;
    while (tcp_take_report(the_cx(), c, &r))
        check_eq(r.first, n++);
    check(n > 10 && n < 1000);
}

TEST(extra_survives_repair, "stack_repair(): marks and reports are kept")
{
    struct tcp_conn *c = established(NULL);
    check_eq(tcp_set_stamps(the_cx(), c, ALL_STAMPS, 1, TCP_STAMP_BASE_UNACKED), 0);
    check_eq(call_send(c, 100), 100);
    drain_tx();
    const nsec_t sent = t_now();
    stack_repair(the_cx());
    flush();
    drain_tx();
    inject("A seq 1 ack 101");
    drain_tx();
    expect_report(c, TCP_REPORT_SCHED, 99, 99, sent);
    expect_report(c, TCP_REPORT_SENT, 99, 99, sent);
    expect_report(c, TCP_REPORT_ACKED, 99, 99, t_now());
}

/* ---- what limits the sender ---- */

static void expect_limits(struct tcp_conn *c, nsec_t busy, nsec_t rwnd, nsec_t sndbuf)
{
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.busy, busy);
    check_eq(v.rwnd_limited, rwnd);
    check_eq(v.sndbuf_limited, sndbuf);
}

TEST(limited_by_network, "Linux tcpi_busy_time: while something is not acknowledged")
{
    struct tcp_conn *c = established(NULL);
    expect_limits(c, 0, 0, 0);
    t_run(ms(50));
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    t_run(ms(30));
    expect_limits(c, ms(30), 0, 0);
    inject("A seq 1 ack 1001");
    t_run(sec(1));
    expect_limits(c, ms(30), 0, 0);
}

TEST(limited_by_window, "Linux tcpi_rwnd_limited: text waits for the peer's window")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    t_run(ms(100));
    expect_limits(c, ms(100), ms(100), 0);
    inject("A seq 1 ack 1 win 2000");
    drain_tx();
    t_run(ms(20));
    expect_limits(c, ms(120), ms(100), 0);
    inject("A seq 1 ack 1001 win 10"); /* a sliver, which is not worth a segment */
    check_eq(call_send(c, 1000), 1000);
    t_run(ms(40));
    inject("A seq 1 ack 1001 win 2000");
    drain_tx();
    inject("A seq 1 ack 2001");
    t_run(sec(1));
    expect_limits(c, ms(160), ms(140), 0);
}

TEST(limited_by_buffer, "Linux tcpi_sndbuf_limited: all is sent, and the program would write more")
{
    struct tcp_conn *c = established(NULL);
    struct tcp_opts *o = tcp_opts(c);
    o->sndbuf = 10000;
    o->sndbuf_locked = true;
    check_eq(call_send(c, 20000), 10000);
    check_eq(drain_text(), 10000);
    t_run(ms(20));
    expect_limits(c, ms(20), 0, ms(20));
    inject("A seq 1 ack 7301"); /* room again */
    t_run(ms(10));
    expect_limits(c, ms(30), 0, ms(20));
    inject("A seq 1 ack 10001");
    expect_limits(c, ms(30), 0, ms(20));
}

/* ---- the delivery rate ---- */

static void expect_rate(struct tcp_conn *c, uint64_t rate, bool app_limited)
{
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.delivery_rate, rate);
    check_eq(v.app_limited, app_limited);
}

/* All that is in flight is acknowledged a round trip later, which is 100 ms. */
static void wait_for_ack(struct tcp_conn *c)
{
    char ack[40];
    drain_tx();
    t_run(ms(100));
    snprintf(ack, sizeof(ack), "A seq 1 ack %u", (uint32_t)seq_diff(c->snd_nxt, c->iss));
    inject(ack);
}

TEST(
    delivery_rate,
    "Linux tcpi_delivery_rate: what a round trip delivered; less counts only when it is the path's")
{
    struct tcp_conn *c = established_after(ms(100), "<mss 1460,sackOK,nop,nop>");
    expect_rate(c, 0, true);
    check_eq(call_send(c, 50000), 50000);
    wait_for_ack(c); /* ten segments */
    expect_rate(c, 146000, true);
    wait_for_ack(c); /* twenty; there was more to send all the time */
    expect_rate(c, 292000, false);
    wait_for_ack(c);
    expect_rate(c, 62000, false);
    check_eq(call_send(c, 100), 100);
    wait_for_ack(c); /* the program had no more */
    expect_rate(c, 62000, false);
    check_eq(call_send(c, 20000), 20000);
    wait_for_ack(c); /* nor here, but the path carried more than was known */
    expect_rate(c, 200000, true);
}

TEST(delivery_rate_of_late_acks,
     "Linux tcp_rate_gen(): a sample shorter than any round trip is one of what was sent in vain")
{
    struct tcp_conn *c = established_after(ms(100), "<mss 1460,sackOK,nop,nop>");
    check_eq(call_send(c, 14600), 14600);
    wait_for_ack(c);
    expect_rate(c, 146000, true);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    t_run(sec(1)); /* a time-out; then the ACKs of the first transmissions come */
    for (uint32_t ack = 16061; ack <= 29201; ack += 1460) {
        char text[40];
        snprintf(text, sizeof(text), "A seq 1 ack %u", ack);
        inject(text);
        drain_tx();
        t_run(ms(1));
        struct tcp_view v;
        tcp_view(the_cx(), c, &v);
        check(v.delivery_rate <= 146000);
    }
}
