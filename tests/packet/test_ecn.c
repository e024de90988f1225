/* Congestion marks: RFC 3168 as Linux reads it, DCTCP's echo (RFC 8257), and pacing. */
#include "tests/packet/harness.h"

#include <stdio.h>

#define OPTS "<mss 1460,sackOK,nop,nop>"

static struct tcp_view view(struct tcp_conn *c)
{
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    return v;
}

static struct tcp_conn *ecn_established(uint8_t cc)
{
    world((struct world_opts){.ecn = STACK_ECN_ASK, .cc = cc});
    struct tcp_conn *c = call_connect();
    expect_tx("SEW seq 0 tos 0");
    t_run(ms(100));
    inject("SAE seq 0 ack 1 " OPTS);
    expect_tx(cc == TCP_CC_DCTCP ? "A seq 1 ack 1 tos 2" : "A seq 1 ack 1 tos 0");
    check(view(c).ecn);
    return c;
}

TEST(ecn_asked_for,
     "RFC 3168 6.1.1: SYN with ECE and CWR, SYN-ACK with ECE: data is ECT, ACKs are not")
{
    struct tcp_conn *c = ecn_established(TCP_CC_CUBIC);
    call_send(c, 1000);
    expect_tx("A seq 1 len 1000 tos 2");
    inject("A ack 1001 seq 1 len 1460");
    expect_tx("A ack 1461 tos 0");
}

TEST(ecn_not_granted, "RFC 3168 6.1.1: a SYN-ACK without ECE, or with both flags: no ECN")
{
    static const char *const answers[] = {"SA seq 0 ack 1 " OPTS, "SAEW seq 0 ack 1 " OPTS};
    for (unsigned i = 0; i < 2; i++) {
        world((struct world_opts){.ecn = STACK_ECN_ASK});
        struct tcp_conn *c = call_connect();
        expect_tx("SEW seq 0");
        inject(answers[i]);
        expect_tx("A seq 1 ack 1");
        call_send(c, 1000);
        expect_tx("A seq 1 len 1000 tos 0");
        check(!view(c).ecn);
    }
}

TEST(ecn_syn_fallback, "RFC 3168 6.1.1.1, Linux: the SYN that is sent again does not ask")
{
    world((struct world_opts){.ecn = STACK_ECN_ASK});
    call_connect();
    expect_tx("SEW seq 0");
    expect_tx_in(ms(990), ms(1010), "S seq 0");
}

TEST(ecn_accepted, "RFC 3168 6.1.1: a SYN that asks is answered with ECE alone")
{
    world((struct world_opts){.ecn = STACK_ECN_ACCEPT});
    struct tcp_listener *l = call_listen(5);
    inject("SEW seq 0 " OPTS);
    expect_tx("SAE seq 0 ack 1 tos 0");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check(view(c).ecn);
    call_send(c, 500);
    expect_tx("A seq 1 len 500 tos 2");
}

TEST(ecn_refused, "RFC 3168 6.1.1: off, or a SYN that is itself marked (not a router's to trust)")
{
    world((struct world_opts){.ecn = STACK_ECN_OFF});
    call_listen(5);
    inject("SEW seq 0 " OPTS);
    expect_tx("SA seq 0 ack 1");
    world((struct world_opts){.ecn = STACK_ECN_ACCEPT});
    call_listen(5);
    inject("SEW seq 0 tos 2 " OPTS);
    expect_tx("SA seq 0 ack 1");
}

TEST(ecn_echo, "RFC 3168 6.1.3: each ACK carries ECE from a mark until CWR")
{
    struct tcp_conn *c = ecn_established(TCP_CC_CUBIC);
    inject("A seq 1 ack 1 len 1460 tos 2");
    expect_tx("A ack 1461");
    inject("A len 1460 tos 3");
    expect_tx("AE ack 2921");
    inject("A len 1460 tos 2");
    expect_tx("AE ack 4381");
    inject("AW len 1460 tos 2");
    expect_tx("A ack 5841");
    check(view(c).ecn_seen);
}

TEST(ecn_echo_waits_not, "RFC 3168 6.1.3: a program that goes on holds back no ACK with ECE")
{
    ecn_established(TCP_CC_CUBIC);
    program_goes_on(true);
    inject("PA seq 1 ack 1 len 100 tos 2");
    expect_none(us(100));
    inject("PA len 100 tos 3");
    expect_tx("AE ack 201");
    inject("PA len 100 tos 2");
    expect_tx("AE ack 301");
}

TEST(ecn_reduces_once,
     "RFC 3168 6.1.2: ECE halves once a round trip (CUBIC: 0.7), CWR says so once")
{
    struct tcp_conn *c = ecn_established(TCP_CC_CUBIC);
    check_eq(call_send(c, 60000), 60000);
    check_eq(drain_tx(), 10);
    t_run(ms(100));
    inject("AE ack 1461");
    check_eq(view(c).ca_state, 2);
    check_eq(view(c).ssthresh, 14600 * 7 / 10);
    inject("AE ack 2921");
    inject("AE ack 4381");
    check_eq(view(c).ssthresh, 14600 * 7 / 10);
    check_eq(counter(COUNT_ECN_REDUCED), 1);
    uint32_t len;
    unsigned cwr = 0;
    for (const uint8_t *f; (f = next_tx(&len));)
        cwr += (f[L2_LEN + IP4_LEN + 13] & TCP_CWR) != 0;
    check_eq(cwr, 1);
    /* the window's end, and a byte more: Open again at ssthresh */
    inject("A ack 14601");
    drain_tx();
    inject("A ack 20441");
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= 14600 * 7 / 10);
    drain_tx();
}

TEST(ecn_not_on_retransmissions, "RFC 3168 6.1.5: what is sent again is not ECN-capable")
{
    struct tcp_conn *c = ecn_established(TCP_CC_CUBIC);
    call_send(c, 1000);
    expect_tx("A seq 1 len 1000 tos 2");
    expect_tx_in(ms(200), ms(500), "A seq 1 len 1000 tos 0");
}

TEST(ecn_dctcp_echo,
     "RFC 8257 3.2: a change of the marks is acknowledged at once, each with its own")
{
    struct tcp_conn *c = ecn_established(TCP_CC_DCTCP);
    call_send(c, 100);
    expect_tx("A seq 1 len 100 tos 2");
    inject("A seq 1 ack 101 len 1460 tos 3");
    expect_tx("AE ack 1461 tos 2");
    inject("A len 1460 tos 2");
    expect_tx("A ack 2921");
    inject("A len 1460 tos 3");
    expect_tx("AE ack 4381");
}

TEST(pacing_limits, "SO_MAX_PACING_RATE: after the first ten segments data leaves at that rate")
{
    struct tcp_conn *c = established(OPTS);
    tcp_opts(c)->max_pacing = 146000 / 64; /* one hundred segments a second */
    call_opts_changed(c);
    check_eq(call_send(c, 80000), 80000);
    uint32_t got = 0;
    const nsec_t begun = t_now();
    for (unsigned i = 0; i < 40; i++) {
        t_run(ms(10));
        uint32_t len;
        while (next_tx(&len) != NULL)
            got += len - L2_LEN - IP4_LEN - 20;
        char ack[40];
        snprintf(ack, sizeof(ack), "A ack %u", got + 1);
        inject(ack);
    }
    drain_tx();
    const uint64_t most = 14600 + (t_now() - begun) * 146000 / NSEC_PER_SEC;
    check(got <= most + 4 * 1460 && got >= most * 7 / 10);
    check_eq(view(c).max_pacing_rate, 145984);
}
