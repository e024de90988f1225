/* The path's MTU by probes: RFC 4821, RFC 8899. */
#include "stack/tcp/conn.h"
#include "tests/packet/harness.h"

#include <stdio.h>

/* Established with segments of 1,024 bytes over an interface of 1,500. */
static struct tcp_conn *small_at_first(const char *synack)
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_ALWAYS});
    struct tcp_conn *c = established(synack);
    check_eq(tcp_mss(c), 1024);
    return c;
}

/* The probe of 1,460 bytes and the rest of the first window; nothing more is to be sent. */
static void first_window(struct tcp_conn *c)
{
    check_eq(call_send(c, 1460 + 8 * 1024), 1460 + 8 * 1024);
    expect_tx("A seq 1 len 1460");
    for (unsigned i = 0; i < 8; i++)
        expect_tx("A len 1024");
    expect_none(0);
}

/* All that is sent arrives, and what follows it. */
static void ack_all(void)
{
    do {
        drain_text();
        inject("A");
    } while (pending_tx());
}

TEST(mtu_probe_raises, "RFC 4821 7.5: a larger segment of the data itself; its ACK raises the MTU")
{
    struct tcp_conn *c = small_at_first("<mss 1460>");
    first_window(c);
    const uint32_t cwnd = c->cc.cwnd;
    inject("A ack 1461");
    check_eq(tcp_mss(c), 1460);
    check_eq(tcp_path_mtu(the_stack(), c), 1500);
    check_eq(counter(COUNT_MTU_RAISED), 1);
    check(c->cc.cwnd >= cwnd);
    check_eq(call_send(c, 20000), 20000);
    expect_tx("A seq 9653 len 1460");
    drain_text();
}

TEST(mtu_probe_not_without_data, "RFC 4821 7.4: a probe needs data behind it, which shows its loss")
{
    struct tcp_conn *c = small_at_first("<mss 1460>");
    check_eq(call_send(c, 1460 + 4 * 1024 - 1), 1460 + 4 * 1024 - 1);
    expect_tx("A seq 1 len 1024");
    drain_text();
    check_eq(c->path.mtu_probe, 0);
}

TEST(mtu_probe_lost, "RFC 4821 7.6.2: the loss of the probe alone is no congestion; with SACK")
{
    struct tcp_conn *c = small_at_first("<mss 1460,sackOK>");
    first_window(c);
    const uint32_t cwnd = c->cc.cwnd;
    t_run(ms(50));
    inject("A ack 1 <sack 1461:2485>");
    inject("A ack 1 <sack 1461:3509>");
    inject("A ack 1 <sack 1461:4533>");
    expect_tx_in(0, ms(100), "A seq 1 len 1024");
    expect_tx("PA seq 1025 len 436");
    check_eq(tcp_mss(c), 1024);
    check_eq(c->cc.cwnd, cwnd);
    check_eq(c->cc.ssthresh, CC_SSTHRESH_INFINITE);
    check(c->ca_state != TCP_CA_RECOVERY);
    inject("A ack 9653");
    check_eq(call_send(c, 20000), 20000);
    /* the search goes on between what fits and what does not */
    expect_tx("A seq 9653 len 1242");
    check_eq(c->path.mtu_high, 1499);
    drain_text();
}

TEST(mtu_probe_lost_no_sack, "RFC 4821 7.6.2: the same by three duplicate ACKs")
{
    struct tcp_conn *c = small_at_first("<mss 1460>");
    first_window(c);
    const uint32_t cwnd = c->cc.cwnd;
    for (unsigned i = 0; i < 8; i++)
        inject("A ack 1");
    expect_tx("A seq 1 len 1024");
    expect_tx("PA seq 1025 len 436");
    expect_none(0);
    check_eq(c->cc.ssthresh, CC_SSTHRESH_INFINITE);
    check_eq(counter(COUNT_RTOS), 0);
    inject("A ack 9653");
    check_eq(tcp_mss(c), 1024);
    check(c->cc.cwnd >= cwnd);
    check_eq(c->ca_state, TCP_CA_OPEN);
}

TEST(mtu_probe_lost_with_others, "RFC 4821 7.6.2: losses besides the probe are congestion")
{
    struct tcp_conn *c = small_at_first("<mss 1460,sackOK>");
    first_window(c);
    t_run(ms(50));
    inject("A ack 1 <sack 2485:9653>");
    expect_tx_in(0, ms(100), "A seq 1 len 1024");
    check_eq(c->ca_state, TCP_CA_RECOVERY);
    check(c->cc.ssthresh < 10240);
    check_eq(c->path.mtu_probe, 0);
    check_eq(c->path.mtu_high, 1500); /* the size is not ruled out */
    drain_text();
    inject("A ack 9653");
    check_eq(call_send(c, 20480), 20480);
    expect_tx("A seq 9653 len 1024");
    check_eq(drain_text() % 1024, 0); /* but not tried at once */
    check_eq(tcp_mss(c), 1024);
}

TEST(mtu_probe_sacked, "a probe that is sacked behind a late segment has arrived")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_ALWAYS});
    struct tcp_conn *c = established("<mss 1460,sackOK>");
    check_eq(call_send(c, 1024), 1024);
    expect_tx("PA seq 1 len 1024");
    check_eq(call_send(c, 30000), 30000);
    expect_tx("A seq 1025 len 1460");
    drain_text();
    t_run(ms(50));
    inject("A ack 1 <sack 1025:2485>");
    check_eq(tcp_mss(c), 1460);
    drain_text();
}

TEST(mtu_probe_time_out, "RFC 4821 7.6.3: after a time-out nobody knows; the next try waits")
{
    struct tcp_conn *c = small_at_first("<mss 1460>");
    first_window(c);
    t_run(sec(2));
    check(counter(COUNT_RTOS) > 0);
    check_eq(c->path.mtu_probe, 0);
    drain_tx();
    ack_all();
    check_eq(call_send(c, 20480), 20480);
    expect_tx("A seq 9653 len 1024");
    drain_text();
    check_eq(c->path.mtu_high, 1500);
}

TEST(mtu_search,
     "RFC 8899 5.3: halves the interval until little is left, then rests for ten minutes")
{
    struct tcp_conn *c = small_at_first("<mss 1460,sackOK>");
    const uint32_t carries = 1400;
    uint32_t probes = 0, una = 1, nxt = 1, len;
    for (unsigned round = 0; round < 40; round++) {
        if (tcp_unsent(c) < 20000)
            call_send(c, 40000);
        struct wire_seg g;
        uint32_t hole = 0, hole_end = 0, top = 0;
        const uint8_t *frame;
        while ((frame = next_tx(&len)) != NULL) {
            check(wire_parse_tcp(frame, len, true, &g) == NULL);
            const uint32_t start = g.seq - cur()->iss;
            top = max_u32(top, start + g.len);
            nxt = max_u32(nxt, start + g.len);
            if (g.len + 40 <= carries)
                continue;
            probes++;
            hole = start;
            hole_end = start + g.len;
        }
        t_run(ms(20));
        char spec[80];
        if (hole && top > hole_end) {
            snprintf(spec, sizeof(spec), "A ack %u <sack %u:%u>", hole, hole_end, top);
            inject(spec);
            t_run(ms(20));
            drain_text();
        }
        una = nxt;
        snprintf(spec, sizeof(spec), "A ack %u", una);
        inject(spec);
    }
    const uint32_t found = tcp_path_mtu(the_stack(), c);
    check(found <= carries && found + 8 > carries);
    check(probes >= 3 && probes <= 6);
    check_eq(c->cc.ssthresh, CC_SSTHRESH_INFINITE);
    check_eq(c->path.mtu_high, 1500);
    drain_text();
    check_eq(c->path.mtu_probe, 0);
}

TEST(mtu_raised_after_black_hole, "RFC 8899 4.3: the MTU of a path that was only silent comes back")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_BLACK_HOLE});
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 60000), 60000);
    t_run(sec(10));
    check_eq(counter(COUNT_BLACK_HOLES), 1);
    check_eq(tcp_mss(c), 1024);
    for (uint32_t i = 0; i < 60 && tcp_mss(c) < 1440; i++) {
        if (tcp_unsent(c) < 20000)
            call_send(c, 40000);
        drain_text();
        t_run(ms(20));
        inject("A");
    }
    drain_text();
    check(tcp_mss(c) >= 1440); /* 1,500 was seen to fail */
    check(counter(COUNT_MTU_RAISED) >= 3);
}

TEST(mtu_raised_after_icmp,
     "RFC 1191 6.3: ten minutes after a router's word larger packets are tried")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_BLACK_HOLE});
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 14600), 14600);
    drain_tx();
    inject_icmp(ip4(10, 0, 0, 9), 3, 4, 1200, 1);
    check_eq(tcp_mss(c), 1160);
    ack_all();
    t_run(sec(590));
    check_eq(call_send(c, 14600), 14600);
    expect_tx("A seq 14601 len 1160");
    ack_all();
    t_run(sec(20));
    check_eq(call_send(c, 14600), 14600);
    expect_tx("A seq 29201 len 1460");
    drain_text();
    /* the router is still there: no new search */
    inject_icmp(ip4(10, 0, 0, 9), 3, 4, 1200, 29201);
    check_eq(tcp_mss(c), 1160);
    inject("A ack 29201");
    inject("A ack 29201");
    drain_text(); /* limited transmit */
    inject("A ack 29201");
    expect_tx("A seq 29201 len 1160");
    ack_all();
    check_eq(tcp_mss(c), 1160);
    check_eq(call_send(c, 14600), 14600);
    expect_tx("A seq 43801 len 1160");
    drain_text();
}

TEST(mtu_probe_waits_for_cwnd,
     "Linux: where a probe is due, cwnd is not filled with small segments")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_ALWAYS, .mtu = 9000});
    struct tcp_conn *c = established("<mss 8960>");
    check_eq(tcp_mss(c), 1024);
    check_eq(call_send(c, 60000), 60000);
    check_eq(drain_text(), 10240); /* too little for a probe of 8,960 */
    inject("A ack 3073");
    expect_none(0); /* now it is enough, but for what is in flight */
    inject("A ack 10241");
    expect_tx("A seq 10241 len 8960");
    drain_text();
    inject("A ack 19201");
    check_eq(tcp_mss(c), 8960);
    drain_text();
}

TEST(mtu_probe_dont, "IP_PMTUDISC_DONT: packets that may be cut are not probes")
{
    world((struct world_opts){.mtu_probing = STACK_MTU_PROBING_ALWAYS});
    struct tcp_conn *c = call_open();
    tcp_opts(c)->pmtu_dont = true;
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), 0);
    drain_tx();
    inject("SA seq 0 ack 1 win 65535 <mss 1460>");
    drain_tx();
    check_eq(tcp_mss(c), 1460);
}

/* A further connection to the same peer. */
static struct tcp_conn *another(uint16_t port)
{
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, port, PEER_PORT), 0);
    expect_tx("S seq 0 <mss 1460>");
    inject("SA seq 0 ack 1 win 65535 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    return c;
}

TEST(mtu_remembered,
     "RFC 1191 3: a router's word is about the path: later connections to that host "
     "heed it, for ten minutes, and offer their own MSS all the same")
{
    struct tcp_conn *c = established("<mss 1460>");
    check_eq(call_send(c, 1460), 1460);
    expect_tx("PA seq 1 len 1460");
    inject_icmp(ip4(10, 0, 0, 9), 3, 4, 1200, 1);
    expect_tx("A seq 1 len 1160");
    drain_tx();
    inject("A ack 1461");
    check_eq(tcp_mss(another(HOST_PORT + 1)), 1160);
    t_run(sec(590));
    check_eq(tcp_mss(another(HOST_PORT + 2)), 1160);
    t_run(sec(11));
    check_eq(tcp_mss(another(HOST_PORT + 3)), 1460);
}
