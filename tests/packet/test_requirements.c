/* Requirements of the RFCs that no other test shows: see tests/conformance/requirements.txt. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

TEST(req_window_unsigned, "RFC 9293 MUST-1: a window above 32767 is no negative number")
{
    struct tcp_conn *c = established(NULL);
    inject("A seq 1 ack 1 win 65535");
    tcp_opts(c)->sndbuf = 200000;
    tcp_opts(c)->sndbuf_locked = true;
    uint32_t sent = 0;
    for (unsigned round = 0; round < 6; round++) {
        call_send(c, 65535);
        sent += drain_text();
        char ack[40];
        snprintf(ack, sizeof(ack), "A ack %u win 65535", sent + 1);
        if (round < 5)
            inject(ack);
    }
    check(tcp_outq(c) > 32768 && tcp_outq(c) - tcp_outq_unsent(c) > 32768);
}

TEST(req_rst_with_text, "RFC 9293 SHLD-2: a RST may say why in its text")
{
    struct tcp_conn *c = bring(TCP_ESTABLISHED);
    cur()->other_text = true;
    inject("R seq 1 len 20");
    expect_none(0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNRESET);
}

TEST(req_time_wait_length, "RFC 9293 MUST-13; Linux: 60 s")
{
    bring(TCP_TIME_WAIT);
    t_run(sec(59));
    expect_state(TCP_TIME_WAIT);
    t_run(sec(2));
    expect_state(TCP_CLOSED);
    expect_none(0);
}

TEST(req_listen_beside_connection, "RFC 9293 MUST-42: a port listens beside connections of its own")
{
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, LISTEN_PORT, PEER_PORT), 0);
    expect_tx("S seq 0");
    expect_state(TCP_SYN_SENT);
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    inject("A seq 1 ack 1");
    check(call_accept(l) != NULL);
    flow(LISTEN_PORT, PEER_PORT);
    expect_state(TCP_SYN_SENT);
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    expect_state(TCP_ESTABLISHED);
}

TEST(req_tos, "RFC 9293 MUST-48, SHLD-21, SHLD-22: DiffServ, also changed later")
{
    struct tcp_conn *c = established(NULL);
    const uint8_t values[] = {0, 0x10, 0xb8};
    for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
        uint32_t len;
        tcp_opts(c)->tos = values[i];
        call_opts_changed(c);
        call_send(c, 10);
        const uint8_t *frame = next_tx(&len);
        check(frame != NULL && frame[L2_LEN + 1] == values[i]);
        char ack[20];
        snprintf(ack, sizeof(ack), "A ack %u", 11 + 10 * i);
        inject(ack);
    }
}

TEST(req_ttl, "RFC 9293 MUST-49: the TTL can be set")
{
    struct tcp_conn *c = established(NULL);
    uint32_t len;
    call_send(c, 10);
    const uint8_t *frame = next_tx(&len);
    check(frame != NULL && frame[L2_LEN + 8] == 64);
    inject("A ack 11");
    tcp_opts(c)->ttl = 7;
    call_opts_changed(c);
    call_send(c, 10);
    frame = next_tx(&len);
    check(frame != NULL && frame[L2_LEN + 8] == 7);
    inject("A ack 21");
}

/* Builds a segment and hands it to the engine without the flush that inject() ends with. */
static void inject_in_batch(const char *spec)
{
    static uint8_t frame[FRAME_MAX];
    const struct frame_in in = {
        .data = frame, .len = (uint32_t)build_frame(spec, frame), .netif = 1};
    stack_input(the_cx(), &in);
}

TEST(req_one_ack_for_a_batch,
     "RFC 9293 MUST-58, MUST-59: what waits is processed, then one ACK goes")
{
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < 6; i++) {
        char spec[40];
        snprintf(spec, sizeof(spec), "A seq %u ack 1 len 1460", 1 + 1460 * i);
        inject_in_batch(spec);
    }
    flush();
    expect_tx("A seq 1 ack 8761 len 0");
    expect_none(0);
    check_eq(call_recv(c, 8760), 8760);
    drain_tx();
}

TEST(req_push_collapses, "RFC 9293 SHLD-27: writes that waited leave in one segment, with one PSH")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 len 10");
    for (unsigned i = 0; i < 5; i++)
        check_eq(call_send(c, 10), 10);
    expect_none(0);
    inject("A ack 11");
    expect_tx("PA seq 11 len 50");
}

TEST(req_options_unaligned, "RFC 9293 MUST-64: an option may begin at any byte")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <nop,mss 1000,nop,nop,nop>");
    expect_tx("SA seq 0 ack 1");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check_eq(tcp_mss(c), 1000);
}

TEST(req_mss_in_syn_only, "RFC 9293 MUST-65: no MSS option but in SYNs")
{
    struct tcp_conn *c = call_connect();
    expect_tx("S seq 0 <mss 1460>");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1 <none>");
    call_send(c, 10);
    expect_tx("PA seq 1 len 10 <none>");
    inject("A ack 11");
    call_close(c);
    expect_tx("FA seq 11 <none>");
}

TEST(req_timestamp_of_bad_ack,
     "RFC 7323 4.3: a segment whose ACK is not acceptable sets no TS.Recent")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,ts>");
    cur()->sends_ts = true;
    t_run(ms(10));
    inject("A seq 1 ack 99999 <nop,nop,ts 500000>");
    drain_tx();
    inject("A seq 1 ack 1 len 1000");
    expect_tx("A seq 1 ack 1001 len 0");
    check_eq(call_recv(c, 1000), 1000);
}

TEST(req_limited_transmit,
     "RFC 5681 3.2 step 1, RFC 3042: the first two duplicates let a segment go each")
{
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 14600 + 2920), 14600 + 2920);
    check_eq(drain_text(), 14600);
    inject("A ack 1");
    expect_tx("A seq 14601 len 1460");
    inject("A ack 1");
    expect_tx("PA seq 16061 len 1460");
    expect_none(0);
    inject("A ack 17521");
}

TEST(req_dsack_of_overlap, "RFC 2883 4.2: text that covers what was held already reports that part")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    inject("A seq 1001 ack 1 len 1000");
    expect_tx("A ack 1 <sack 1001:2001>");
    inject("A seq 1 ack 1 len 1500");
    expect_tx("A ack 2001 <sack 1001:1501>");
    check_eq(call_recv(c, 2000), 2000);
    drain_tx();
}

/* ECN is agreed upon. */
static struct tcp_conn *marked_path(void)
{
    world((struct world_opts){.ecn = STACK_ECN_ASK});
    struct tcp_conn *c = call_connect();
    expect_tx("SEW seq 0 tos 0");
    inject("SAE seq 0 ack 1 <mss 1460,sackOK,nop,nop>");
    expect_tx("A seq 1 ack 1 tos 0");
    return c;
}

TEST(req_ecn_not_on_probes, "RFC 3168 6.1.6: probes of a closed window are not ECN-capable")
{
    struct tcp_conn *c = marked_path();
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 1000), 1000);
    for (unsigned i = 0; i < 3; i++)
        expect_tx_in(ms(150), sec(10), "A tos 0");
    inject("A seq 1 ack 1 win 65535");
    expect_tx("A seq 1 len 1000 tos 2");
}

TEST(req_ecn_mark_outside_window, "RFC 3168 6.1.5: a mark on text outside the window is not echoed")
{
    struct tcp_conn *c = marked_path();
    inject("A seq 1 len 1000 tos 2");
    check_eq(call_recv(c, 1000), 1000);
    drain_tx();
    inject("A seq 1 len 1000 tos 3"); /* old */
    expect_tx("A ack 1001");
    inject("A seq 500000 len 1000 tos 3");
    t_run(sec(1));
    drain_tx();
    inject("A seq 1001 len 1460 tos 2");
    const uint8_t *frame;
    uint32_t len;
    t_run(sec(1));
    while ((frame = next_tx(&len)) != NULL)
        check((frame[14 + 20 + 13] & TCP_ECE) == 0);
}

TEST(req_wscale_in_data_ignored,
     "RFC 7323 2.2: a window scale in a segment without SYN means nothing")
{
    struct tcp_conn *c = established("<mss 1460,nop,wscale 1>");
    inject("A seq 1 ack 1 win 1000 <nop,wscale 7>");
    check_eq(call_send(c, 20000), 20000);
    check_eq(drain_text(), 1460); /* 2000: a second segment would be too small */
}

TEST(req_ts_of_first_delayed, "RFC 7323 4.3: a delayed ACK echoes the stamp of what it waited for")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,ts 1000>");
    tcp_quickack(the_cx(), c, false);
    inject("PA seq 1 len 100 <nop,nop,ts 2000>");
    t_run(ms(5));
    inject("PA seq 101 len 100 <nop,nop,ts 2005>");
    expect_tx_in(0, ms(201), "A ack 201 <ts * 2000>");
}

TEST(req_one_loss_probe, "RFC 8985 7.3: no second probe while one is out: the time-out follows")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    check_eq(call_send(c, 1000), 1000);
    expect_tx("PA seq 1 len 1000");
    t_run(ms(20));
    inject("A ack 1001");
    check_eq(call_send(c, 1000), 1000);
    expect_tx("PA seq 1001 len 1000");
    expect_tx_in(ms(20), sec(1), "PA seq 1001 len 1000");
    check_eq(counter(COUNT_LOSS_PROBES), 1);
    expect_tx_in(ms(100), sec(3), "PA seq 1001 len 1000");
    check_eq(counter(COUNT_LOSS_PROBES), 1);
    check_eq(counter(COUNT_RTOS), 1);
}
