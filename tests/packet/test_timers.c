/* Keepalive, TCP_USER_TIMEOUT, and what ICMP does to a connection. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>

#define ROUTER ip4(10, 0, 0, 254)

static struct tcp_conn *with_keepalive(uint32_t idle, uint32_t intvl, uint8_t cnt)
{
    struct tcp_conn *c = established(NULL);
    struct tcp_opts *o = tcp_opts(c);
    o->keepalive = true;
    o->keepidle = idle;
    o->keepintvl = intvl;
    o->keepcnt = cnt;
    call_opts_changed(c);
    return c;
}

TEST(keepalive_dead_peer, "RFC 9293 3.8.4, tcp(7) TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT")
{
    struct tcp_conn *c = with_keepalive(10, 5, 3);
    expect_tx_in(sec(10) - ms(1), sec(10) + ms(200), "A seq 0 ack 1 len 0");
    expect_tx_in(sec(5) - ms(1), sec(5) + ms(200), "A seq 0 ack 1 len 0");
    expect_tx_in(sec(5) - ms(1), sec(5) + ms(200), "A seq 0 ack 1 len 0");
    expect_tx_in(sec(5) - ms(1), sec(5) + ms(200), "RA");
    expect_state(TCP_CLOSED);
    check(events_of(c) & (TCP_EV_ERR | TCP_EV_HUP));
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(keepalive_live_peer, "RFC 9293 3.8.4: an answer keeps it up")
{
    struct tcp_conn *c = with_keepalive(10, 5, 3);
    for (unsigned i = 0; i < 10; i++) {
        expect_tx_in(sec(9), sec(10) + ms(200), "A seq 0 ack 1 len 0");
        inject("A seq 1 ack 1");
    }
    expect_state(TCP_ESTABLISHED);
    (void)c;
}

TEST(keepalive_defaults, "Linux: 2 hours, 75 s, 9 probes")
{
    struct tcp_conn *c = with_keepalive(0, 0, 0);
    expect_tx_in(sec(7200) - ms(1), sec(7201), "A seq 0 ack 1 len 0");
    for (unsigned i = 0; i < 8; i++)
        expect_tx_in(sec(75) - ms(1), sec(76), "A seq 0 ack 1 len 0");
    t_run(sec(76));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(keepalive_after_traffic, "RFC 9293 3.8.4 MUST-26: only after the line was idle")
{
    struct tcp_conn *c = with_keepalive(10, 5, 3);
    t_run(sec(8));
    inject("PA len 10");
    drain_tx();
    expect_none(sec(9));
    expect_tx_in(0, sec(2), "A seq 0 ack 11");
    (void)c;
}

TEST(keepalive_rst, "RFC 9293 3.8.4: a peer that forgot the connection answers by RST")
{
    struct tcp_conn *c = with_keepalive(10, 5, 3);
    expect_tx_in(sec(9), sec(11), "A seq 0 ack 1");
    inject("R seq 1");
    check_eq(tcp_take_error(c), ECONNRESET);
}

TEST(keepalive_off, "socket(7) SO_KEEPALIVE 0: off again")
{
    struct tcp_conn *c = with_keepalive(10, 5, 3);
    tcp_opts(c)->keepalive = false;
    call_opts_changed(c);
    expect_none(sec(100));
}

TEST(keepalive_off_by_default, "RFC 9293 MUST-25")
{
    established(NULL);
    expect_none(sec(86400));
}

TEST(keepalive_unacked_data, "Linux: data in flight takes the probe's place")
{
    struct tcp_conn *c = with_keepalive(1, 1, 2);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA");
    t_run(sec(30));
    uint32_t len;
    const uint8_t *p;
    while ((p = next_tx(&len)) != NULL) {
        struct wire_seg s;
        wire_parse_tcp(p, len, false, &s);
        check_eq(s.len, 10);
    }
}

TEST(keepalive_inherited, "accept(): the listener's options are the connection's")
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.keepalive = true;
    o.keepidle = 10;
    o.nodelay = true;
    struct tcp_listener *l = call_listen_opts(5, &o);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check(tcp_opts(c)->keepalive && tcp_opts(c)->nodelay && tcp_opts(c)->keepidle == 10);
    expect_tx_in(sec(9), sec(11), "A seq 0 ack 1");
    inject("A seq 1 ack 1");
}

TEST(user_timeout_data, "tcp(7) TCP_USER_TIMEOUT: unacknowledged data")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->user_timeout = 5000;
    call_opts_changed(c);
    check_eq(call_send(c, 10), 10);
    t_run(ms(4900));
    expect_state(TCP_ESTABLISHED);
    t_run(ms(3000));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(user_timeout_idle, "tcp(7) TCP_USER_TIMEOUT does not touch an idle connection")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->user_timeout = 1000;
    call_opts_changed(c);
    expect_none(sec(100));
    check_eq(call_send(c, 10), 10);
    expect_tx("PA");
    inject("A ack 11");
    expect_none(sec(100));
    expect_state(TCP_ESTABLISHED);
}

TEST(user_timeout_keepalive, "tcp(7): with keepalive TCP_USER_TIMEOUT replaces TCP_KEEPCNT")
{
    struct tcp_conn *c = with_keepalive(10, 5, 9);
    tcp_opts(c)->user_timeout = 14000;
    call_opts_changed(c);
    t_run(sec(25));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(user_timeout_zero_window, "tcp(7): also when the peer's window stays closed and it is silent")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->user_timeout = 5000;
    call_opts_changed(c);
    inject("A seq 1 ack 1 win 0");
    check_eq(call_send(c, 10), 10);
    t_run(sec(20));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

TEST(user_timeout_syn, "tcp(7) TCP_USER_TIMEOUT bounds connect() too")
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->user_timeout = 4000;
    call_opts_changed(c);
    call_connect_from(c, HOST_PORT, PEER_PORT);
    t_run(sec(8));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ETIMEDOUT);
}

/* ---- ICMP (RFC 5461, RFC 1122 4.2.3.9; Linux tcp_v4_err()) ---- */

TEST(icmp_port_unreachable_syn, "Linux: port unreachable ends connect(): ECONNREFUSED")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(PEER_IP, 3, 3, 0, 0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNREFUSED);
}

TEST(icmp_host_unreachable_syn, "Linux: host unreachable ends connect(): EHOSTUNREACH")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(ROUTER, 3, 1, 0, 0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), EHOSTUNREACH);
}

TEST(icmp_net_unreachable_syn, "Linux: net unreachable ends connect(): ENETUNREACH")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(ROUTER, 3, 0, 0, 0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ENETUNREACH);
}

TEST(icmp_prohibited_syn, "Linux: administratively prohibited: EHOSTUNREACH")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(ROUTER, 3, 13, 0, 0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), EHOSTUNREACH);
}

TEST(icmp_established_soft, "RFC 1122 4.2.3.9: in ESTABLISHED an error is soft: nothing ends")
{
    static const uint8_t codes[] = {0, 1, 2, 3, 5, 13};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = established(NULL);
        check_eq(call_send(c, 10), 10);
        expect_tx("PA seq 1");
        inject_icmp(ROUTER, 3, codes[i], 0, 1);
        expect_state(TCP_ESTABLISHED);
        check_eq(tcp_peek_error(c), 0);
        inject("A ack 11");
        expect_none(sec(1));
    }
}

TEST(icmp_soft_reported, "Linux: a soft error is what a time-out reports in the end")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1");
    inject_icmp(ROUTER, 3, 1, 0, 1);
    t_run(sec(1100));
    drain_tx();
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), EHOSTUNREACH);
}

TEST(icmp_wrong_seq,
     "RFC 5927 4.1: an error about a sequence number that is not in flight is ignored")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(ROUTER, 3, 1, 0, 5000);
    expect_state(TCP_SYN_SENT);
    check_eq(tcp_peek_error(c), 0);
}

TEST(icmp_wrong_ports, "an error about a connection that does not exist")
{
    bring(TCP_SYN_SENT);
    uint16_t port = cur()->hport;
    cur()->hport = 9;
    inject_icmp(ROUTER, 3, 1, 0, 0);
    cur()->hport = port;
    expect_state(TCP_SYN_SENT);
}

TEST(icmp_source_quench, "RFC 6633: source quench is ignored")
{
    bring(TCP_ESTABLISHED);
    inject_icmp(ROUTER, 4, 0, 0, 1);
    expect_none(0);
    expect_state(TCP_ESTABLISHED);
}

TEST(icmp_time_exceeded, "Linux: time exceeded in SYN_SENT: EHOSTUNREACH")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject_icmp(ROUTER, 11, 0, 0, 0);
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), EHOSTUNREACH);
}

TEST(icmp_frag_needed, "RFC 1191: the MSS falls and the segment is sent again at once")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 2920), 2920);
    expect_tx("A seq 1 len 1460");
    expect_tx("PA seq 1461 len 1460");
    inject_icmp(ROUTER, 3, 4, 1000, 1);
    expect_tx("A seq 1 len 960");
    drain_tx();
    check_eq(tcp_mss(c), 960);
    check_eq(tcp_path_mtu(the_stack(), c), 1000);
    inject("A ack 2921");
    check_eq(call_send(c, 2000), 2000);
    expect_tx("A seq 2921 len 960");
    drain_tx();
}

TEST(icmp_frag_needed_absurd,
     "Linux ip_rt_min_pmtu: a next-hop MTU below 552 is not believed; none grows")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1460), 1460);
    expect_tx("A seq 1 len 1460");
    inject_icmp(ROUTER, 3, 4, 68, 1);
    drain_tx();
    check(tcp_mss(c) >= 300);
    uint32_t mss = tcp_mss(c);
    inject_icmp(ROUTER, 3, 4, 9000, 1);
    drain_tx();
    check(tcp_mss(c) <= mss);
}

TEST(icmp_frag_needed_zero, "RFC 1191 3: an old router says 0: a plateau is tried")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1460), 1460);
    expect_tx("A seq 1 len 1460");
    inject_icmp(ROUTER, 3, 4, 0, 1);
    drain_tx();
    check(tcp_mss(c) < 1460 && tcp_mss(c) >= 300);
}

TEST(icmp_frag_needed_forged, "RFC 5927 7: frag-needed about what is not in flight is ignored")
{
    struct tcp_conn *c = established(NULL);
    inject_icmp(ROUTER, 3, 4, 600, 50000);
    check_eq(tcp_mss(c), 1460);
}

TEST(icmp_half_open, "Linux: an ICMP error about a half-open entry")
{
    call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject_icmp(ROUTER, 3, 1, 0, 0);
    expect_none(0);
    /* dropped, or kept until its retries are over: both are Linux's in its time */
    check(flow_state() == TCP_SYN_RECEIVED || flow_state() == TCP_CLOSED);
}

TEST(icmp_truncated, "ICMP errors whose quotation is cut short")
{
    bring(TCP_SYN_SENT);
    uint8_t f[200];
    uint8_t quoted[28] = {0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6};
    for (size_t n = 0; n <= sizeof(quoted); n++) {
        size_t len = wire_build_icmp(f, ROUTER, HOST_IP, 3, 1, 0, quoted, n, host_mac, peer_mac);
        inject_raw(f, len);
    }
    expect_state(TCP_SYN_SENT);
}

TEST(icmp_echo, "RFC 1122 3.2.2.6: own address mode answers ping, with the same data")
{
    uint8_t f[600], body[100];
    for (unsigned i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)i;
    size_t n = wire_build_icmp(f, PEER_IP, HOST_IP, 8, 0, 0x12340001, body, sizeof(body), host_mac,
                               peer_mac);
    inject_raw(f, n);
    uint32_t len;
    const uint8_t *p = next_tx(&len);
    check(p != NULL);
    check_eq(len, n);
    check_eq(p[L2_LEN + IP4_LEN], 0);
    check(memcmp(p + L2_LEN + IP4_LEN + 8, body, sizeof(body)) == 0);
    check_eq(get_be32(p + L2_LEN + IP4_LEN + 4), 0x12340001);
    check_eq(wire_csum(0, p + L2_LEN + IP4_LEN, 8 + sizeof(body)), 0);
}

TEST(icmp_echo_shared, "shared address mode: the kernel answers ping")
{
    world((struct world_opts){.shared = true});
    uint8_t f[100];
    size_t n = wire_build_icmp(f, PEER_IP, HOST_IP, 8, 0, 1, "x", 1, host_mac, peer_mac);
    inject_raw(f, n);
    expect_none(0);
}

TEST(icmp_echo_limited, "a ping flood is not answered without bound")
{
    uint8_t f[100];
    size_t n = wire_build_icmp(f, PEER_IP, HOST_IP, 8, 0, 1, "x", 1, host_mac, peer_mac);
    for (unsigned i = 0; i < 5000; i++) {
        inject_raw(f, n);
        if (pending_tx() > 4000)
            break;
    }
    check(drain_tx() < 4000);
}
