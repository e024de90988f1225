/* Loss and recovery: RFC 6298, 5681, 6582, 6675, 2883, with Linux's bounds. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

#define SACK_OPTS "<mss 1460,sackOK,nop,nop>"

/* ---- the time-out ---- */

TEST(rto_min, "Linux TCP_RTO_MIN: never below 200 ms")
{
    struct tcp_conn *c = established_after(us(100), "<mss 1460>");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    expect_tx_in(ms(199), ms(230), "PA seq 1 len 100");
}

TEST(rto_from_rtt, "RFC 6298 2.2: RTO = SRTT + max(G, 4*RTTVAR) after the first sample: 3 R")
{
    struct tcp_conn *c = established_after(ms(300), "<mss 1460>");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    expect_tx_in(ms(890), ms(920), "PA seq 1 len 100");
}

TEST(rto_converges, "RFC 6298 2.3: with steady samples the RTO falls towards SRTT + 200 ms")
{
    struct tcp_conn *c = established_after(ms(300), "<mss 1460>");
    for (unsigned i = 0; i < 100; i++) {
        check_eq(call_send(c, 100), 100);
        drain_tx();
        t_run(ms(300));
        drain_tx();
        inject("A");
    }
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check(v.srtt > ms(295) && v.srtt < ms(305));
    check(v.rto >= ms(480) && v.rto < ms(620));
}

TEST(rto_max_set, "Linux TCP_RTO_MAX_MS: no time-out is longer, and 15 retries take less")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    tcp_opts(c)->rto_max = 1000;
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    t_run(ms(1450)); /* 200, 400, 800 ms */
    drain_tx();
    for (unsigned i = 0; i < 8; i++) {
        expect_none(ms(900));
        t_run(ms(100));
        expect_tx("PA seq 1 len 100");
    }
    t_run(sec(10));
    drain_tx();
    check_eq(tcp_state(c), TCP_CLOSED);
}

TEST(rto_backoff, "RFC 6298 5.5: doubles; Linux: ends by ETIMEDOUT after 15 retries, some 924 s")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    nsec_t gap = 0, last = t_now();
    unsigned n = 0;
    while (tcp_state(c) != TCP_CLOSED) {
        check(n < 20);
        t_run(ms(50));
        if (pending_tx() == 0)
            continue;
        expect_tx("PA seq 1 len 100");
        check(n == 0 || t_now() - last >= gap);
        if (gap && gap < sec(60))
            check(t_now() - last <= 2 * gap + ms(101));
        gap = t_now() - last;
        last = t_now();
        n++;
    }
    check(n >= 14 && n <= 16);
    check(t_now() > sec(850) && t_now() < sec(1050));
    check(gap <= sec(121));
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(rto_resets_on_ack, "RFC 6298 5.7: an ACK of new data ends the backoff")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    expect_tx_in(ms(195), ms(230), "PA seq 1");
    expect_tx_in(ms(390), ms(430), "PA seq 1");
    expect_tx_in(ms(790), ms(830), "PA seq 1");
    inject("A seq 1 ack 101");
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 101");
    expect_tx_in(ms(195), ms(430), "PA seq 101");
}

TEST(rto_restarted, "RFC 6298 5.3: an ACK of new data restarts the timer")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    check_eq(call_send(c, 2920), 2920);
    drain_tx();
    t_run(ms(150));
    inject("A seq 1 ack 1461");
    expect_none(ms(190));
    expect_tx_in(ms(1), ms(50), "PA seq 1461 len 1460");
}

TEST(rto_karn, "RFC 6298 3 (Karn): no sample from what was sent twice")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    struct tcp_view v;
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    expect_tx_in(ms(195), ms(250), "PA seq 1");
    t_run(ms(150));
    inject("A seq 1 ack 101");
    tcp_view(the_cx(), c, &v);
    check(v.srtt < ms(11));
}

TEST(rto_timestamps, "RFC 7323 4.1: with timestamps a retransmission gives a sample too")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460,nop,nop,ts>");
    cur()->sends_ts = true;
    struct tcp_view v;
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1");
    expect_tx_in(ms(195), ms(250), "PA seq 1");
    t_run(ms(100));
    inject("A seq 1 ack 101"); /* echoes the stamp of the retransmission */
    tcp_view(the_cx(), c, &v);
    check(v.srtt > ms(15) && v.srtt < ms(60));
}

TEST(rto_one_segment, "RFC 5681 3.1: after a time-out cwnd is one segment, then slow start")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    expect_tx_in(ms(195), ms(250), "A seq 1 len 1460");
    expect_none(0);
    inject("A seq 1 ack 1461");
    expect_tx("A seq 1461 len 1460");
    expect_tx("A seq 2921 len 1460");
    expect_none(0);
    inject("A seq 1 ack 4381");
    check(drain_text() >= 3 * 1460);
}

TEST(rto_whole_window_lost, "everything in flight was lost: all of it comes again, once")
{
    struct tcp_conn *c = established_after(ms(1), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    expect_tx_in(ms(2), ms(10), "PA seq 13141 len 1460"); /* the loss probe */
    t_run(ms(250));
    uint32_t got = 1;
    for (unsigned i = 0; i < 20 && got < 14601; i++) {
        uint32_t len;
        const uint8_t *p;
        while ((p = next_tx(&len)) != NULL) {
            struct wire_seg s;
            wire_parse_tcp(p, len, false, &s);
            check_eq(s.seq - cur()->iss, got);
            got += s.len;
        }
        char spec[32];
        snprintf(spec, sizeof(spec), "A ack %u", got);
        inject(spec);
    }
    check_eq(got, 14601);
    expect_none(sec(5));
    check_eq(counter(COUNT_RTOS), 1);
}

/* ---- fast retransmit ---- */

TEST(fast_three_dupacks, "RFC 5681 3.2: the third duplicate ACK")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    inject("A ack 1");
    expect_none(0);
    inject("A ack 1");
    expect_none(0);
    inject("A ack 1");
    expect_tx("A seq 1 len 1460");
    expect_none(0);
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.ca_state, 3);
}

TEST(fast_not_by_window_updates,
     "RFC 5681 2: an ACK with a new window or with text is no duplicate")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    inject("A ack 1 win 60000");
    inject("A ack 1 win 60001");
    inject("A ack 1 win 60002");
    inject("A ack 1 win 60003");
    inject("PA ack 1 len 10 win 60003");
    check_eq(drain_text(), 0);
}

TEST(fast_newreno_partial, "RFC 6582 3.2: a partial ACK: the next hole is sent at once")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    for (unsigned i = 0; i < 3; i++)
        inject("A ack 1");
    expect_tx("A seq 1 len 1460");
    inject("A ack 4381"); /* segments 1 to 3; the fourth is lost too */
    expect_tx("A seq 4381 len 1460");
    inject("A ack 14601");
    expect_none(0);
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.ca_state, 0);
    check(v.cwnd < 14600 && v.cwnd >= 4 * 1460);
}

TEST(fast_newreno_new_data, "RFC 6582 3.2 step 3: further duplicates let new data go")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    check_eq(call_send(c, 40000), 40000);
    check_eq(drain_text(), 14600);
    for (unsigned i = 0; i < 3; i++)
        inject("A ack 1");
    expect_tx("A seq 14601 len 1460"); /* RFC 3042: limited transmit */
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 1 len 1460");
    for (unsigned i = 0; i < 8; i++)
        inject("A ack 1");
    check(drain_text() >= 1460);
}

TEST(fast_no_false_after_rto, "RFC 6582 3.2 step 2: duplicates caused by the retransmissions of a "
                              "time-out do not begin recovery")
{
    struct tcp_conn *c = established_after(ms(1), "<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    t_run(ms(230));
    drain_tx();
    inject("A ack 2921");
    drain_tx();
    for (unsigned i = 0; i < 4; i++)
        inject("A ack 2921");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check(v.ca_state != 3);
    drain_tx();
}

TEST(sack_recovery, "RFC 6675 5: the hole is sent when three segments above it are sacked")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    inject("A ack 1 <nop,nop,sack 1461:4381>");
    expect_none(0);
    inject("A ack 1 <nop,nop,sack 1461:5841>");
    expect_tx("A seq 1 len 1460");
    expect_none(0);
    inject("A ack 5841");
    expect_none(0);
    inject("A ack 14601");
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.ca_state, 0);
}

TEST(sack_two_holes, "RFC 6675 4 NextSeg: both holes, nothing that was sacked")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    check_eq(drain_text(), 14600);
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:5841 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:7301 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:8761 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:10221 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:11681 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:13141 1461:2921>");
    inject("A ack 1 <nop,nop,sack 4381:14601 1461:2921>");
    expect_tx("A seq 1 len 1460");
    expect_tx("A seq 2921 len 1460");
    expect_none(0);
    inject("A ack 14601");
    expect_none(sec(3));
}

TEST(sack_new_data, "RFC 6675 5: when nothing is lost any more new data goes as the pipe allows")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 40000), 40000);
    check_eq(drain_text(), 14600);
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    inject("A ack 1 <nop,nop,sack 1461:4381>");
    inject("A ack 1 <nop,nop,sack 1461:5841>");
    expect_tx("A seq 14601 len 1460"); /* RFC 3042, RFC 6675 5: limited transmit */
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 1 len 1460");
    for (unsigned e = 7301; e <= 14601; e += 1460) {
        char spec[64];
        snprintf(spec, sizeof(spec), "A ack 1 <nop,nop,sack 1461:%u>", e);
        inject(spec);
    }
    uint32_t n = drain_text();
    check(n >= 2 * 1460 && n <= 8 * 1460);
}

TEST(sack_retransmission_lost,
     "RFC 6675: a lost retransmission is found by the timer at the latest")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    inject("A ack 1 <nop,nop,sack 1461:14601>");
    expect_tx("A seq 1 len 1460");
    expect_tx_in(0, ms(500), "A seq 1 len 1460");
    inject("A ack 14601");
    expect_none(sec(3));
}

TEST(sack_reneging, "RFC 2018 8: the receiver takes its word back: all comes again in the end")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    inject("A ack 1 <nop,nop,sack 1461:14601>");
    expect_tx("A seq 1 len 1460");
    inject("A ack 1461"); /* and not a word of the rest */
    uint32_t got = 1461;
    for (unsigned i = 0; i < 200 && got < 14601; i++) {
        t_run(ms(100));
        uint32_t len;
        const uint8_t *p;
        while ((p = next_tx(&len)) != NULL) {
            struct wire_seg s;
            wire_parse_tcp(p, len, false, &s);
            if (s.len && s.seq - cur()->iss == got)
                got += s.len;
        }
        char spec[32];
        snprintf(spec, sizeof(spec), "A ack %u", got);
        inject(spec);
    }
    check_eq(got, 14601);
}

TEST(sack_malformed, "SACK blocks that make no sense: empty, reversed, outside, acknowledged")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    static const char *const bad[] = {
        "A ack 1 <nop,nop,sack 1461:1461>",      "A ack 1 <nop,nop,sack 4381:1461>",
        "A ack 1 <nop,nop,sack 20001:30001>",    "A ack 1 <nop,nop,sack 14601:16061>",
        "A ack 1 <nop,nop,sack -5000:-100>",     "A ack 1 <nop,nop,sack -5000:14601>",
        "A ack 1 <nop,nop,sack 1:1461>",         "A ack 1 <nop,nop,sack 13141:14602>",
        "A ack 1 <nop,nop,sack 5:7 9:11 13:15>", "A ack 1 <nop,nop,hex 0506aabbccdd,nop,nop>",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        inject(bad[i]);
    drain_tx();
    inject("A ack 14601");
    expect_none(sec(3));
    check_eq(tcp_outq(c), 0);
}

TEST(sack_splits_bounded, "a peer that sacks every second byte does not cost memory without bound")
{
    struct tcp_conn *c = established_after(ms(10), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    for (unsigned i = 2; i < 14600; i += 6) {
        char spec[80];
        snprintf(spec, sizeof(spec), "A ack 1 <nop,nop,sack %u:%u %u:%u %u:%u>", i, i + 1, i + 2,
                 i + 3, i + 4, i + 5);
        inject(spec);
    }
    drain_tx();
    check(the_stack()->tcp.records.live < 10000);
    inject("A ack 14601");
    check_eq(the_stack()->tcp.records.live, 0);
}

TEST(dsack_undo, "RFC 2883, 3708: a D-SACK for a spurious retransmission does no harm")
{
    struct tcp_conn *c = established_after(ms(1), SACK_OPTS);
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    t_run(ms(230));
    drain_tx();
    inject("A ack 14601 <nop,nop,sack 1:1461>");
    expect_none(sec(1));
    check_eq(call_send(c, 1000), 1000);
    expect_tx("PA seq 14601 len 1000");
}

TEST(loss_cwnd_limited, "RFC 7661, Linux: cwnd does not grow while the program does not use it")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    struct tcp_view v;
    for (unsigned i = 0; i < 200; i++) {
        check_eq(call_send(c, 100), 100);
        drain_tx();
        t_run(ms(10));
        inject("A");
    }
    tcp_view(the_cx(), c, &v);
    check(v.cwnd <= 20 * 1460);
}

TEST(loss_idle_restart, "RFC 5681 4.1: after idling longer than the RTO the window restarts")
{
    struct tcp_conn *c = established_after(ms(10), "<mss 1460>");
    for (unsigned i = 0; i < 6; i++) {
        call_send(c, 100000);
        drain_tx();
        t_run(ms(10));
        inject("A");
        drain_tx();
        t_run(ms(10));
        inject("A");
    }
    while (tcp_outq(c)) {
        drain_tx();
        t_run(ms(10));
        inject("A");
    }
    t_run(sec(20));
    call_send(c, 200000);
    check(drain_text() <= 15 * 1460);
}

TEST(loss_ecn_ignored, "RFC 9293 3.1: CWR and ECE on what was not negotiated do nothing")
{
    struct tcp_conn *c = established(NULL);
    inject("PAEW seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 10), 10);
}

TEST(loss_reserved_bits, "RFC 9293 3.1: reserved bits are ignored on receipt")
{
    established(NULL);
    uint8_t f[2000];
    size_t n = build_frame("PA seq 1 ack 1 len 10", f);
    f[L2_LEN + IP4_LEN + 12] |= 0x0e;
    wire_fix_csums(f, n);
    inject_raw(f, n);
    expect_tx("A ack 11");
}

/* ---- PAWS (RFC 7323 5) ---- */

#define WITH_TS "<mss 1460,nop,nop,ts 5000>"

TEST(paws_old_dropped, "RFC 7323 5.3 R1: an older timestamp: ACK, drop")
{
    struct tcp_conn *c = established(WITH_TS);
    inject("PA seq 1 ack 1 len 10 <nop,nop,ts 4000>");
    expect_tx("A seq 1 ack 1 len 0");
    check_eq(counter(COUNT_PAWS), 1);
    inject("PA seq 1 ack 1 len 10 <nop,nop,ts 5001>");
    expect_tx("A ack 11 <ts * 5001>");
    check_eq(call_recv(c, 100), 10);
}

TEST(paws_wrap, "RFC 7323 5.3: timestamps wrap")
{
    call_connect();
    expect_tx("S");
    inject("SA seq 0 ack 1 <mss 1460,nop,nop,ts 4294967290>");
    expect_tx("A");
    inject("PA seq 1 ack 1 len 10 <nop,nop,ts 5>");
    expect_tx("A ack 11 <ts * 5>");
}

TEST(paws_rst, "RFC 7323 5.2: a RST is not subject to PAWS")
{
    struct tcp_conn *c = established(WITH_TS);
    inject("R seq 1 <nop,nop,ts 1>");
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNRESET);
}

TEST(paws_24_days, "RFC 7323 5.5: after 24 days a timestamp says nothing")
{
    struct tcp_conn *c = established(WITH_TS);
    t_run(sec(25 * 86400));
    drain_tx();
    inject("PA seq 1 ack 1 len 10 <nop,nop,ts 4000>");
    drain_tx();
    check_eq(call_recv(c, 100), 10);
}

TEST(ts_recent_only_in_order,
     "RFC 7323 4.3: TS.Recent follows the segment that is next to be acknowledged")
{
    established(WITH_TS);
    inject("A seq 1001 ack 1 len 100 <nop,nop,ts 6000>");
    expect_tx("A ack 1 <ts * 5000>");
    inject("A seq 1 ack 1 len 1000 <nop,nop,ts 5500>");
    expect_tx("A ack 1101 <ts * 5500>");
}

TEST(ts_missing, "Linux: a segment without the option that was agreed is taken")
{
    struct tcp_conn *c = established(WITH_TS);
    inject("PA seq 1 ack 1 len 10 <none>");
    drain_tx();
    check_eq(call_recv(c, 100), 10);
}
