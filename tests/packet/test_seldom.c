/* What is called, arrives or goes wrong seldom: lines that no other test reaches. */
#include "tests/packet/harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stack/tcp/conn.h"

static uint8_t bytes[4096];

/* recv() of what is not the pattern any more, as an urgent byte is missing in it. */
static int64_t receive(struct tcp_conn *c, uint32_t flags, uint32_t peek_from)
{
    const struct slice s = {bytes, sizeof(bytes)};
    const int64_t r = tcp_recv(the_cx(), c, &s, 1, flags, peek_from);
    flush();
    return r;
}

/* ---- urgent data ---- */

TEST(seldom_urgent_peek, "recv(2) MSG_PEEK: the urgent byte is passed over, as by a read")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 10 urg 6");
    drain_tx();
    check_eq(receive(c, TCP_RECV_PEEK, 0), 5);
    check_eq(receive(c, TCP_RECV_PEEK, 5), 4);
    check_eq(call_recv(c, 5), 5);
    check_eq(receive(c, TCP_RECV_PEEK, 0), 4);
    check_eq(receive(c, TCP_RECV_PEEK | TCP_RECV_TRUNC, 0), 4);
    check_eq(receive(c, 0, 0), 4);
    inject("PAU seq 11 ack 1 len 1 urg 1");
    drain_tx();
    check_eq(receive(c, TCP_RECV_PEEK, 0), -EAGAIN);
    check_eq(receive(c, 0, 0), -EAGAIN);
}

TEST(seldom_urgent_older,
     "Linux tcp_check_urg(): an urgent byte that is next to be read is dropped")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 5 urg 1");
    inject("PAU seq 6 ack 1 len 5 urg 5");
    drain_tx();
    check_eq(receive(c, TCP_RECV_OOB, 0), 1);
    check_eq(receive(c, 0, 0), 8);
    check(tcp_at_mark(c));
}

TEST(seldom_urgent_no_room,
     "recv(2) MSG_OOB without room: the byte is taken; MSG_TRUNC: not copied")
{
    struct tcp_conn *c = established(NULL);
    inject("PAU seq 1 ack 1 len 5 urg 5");
    drain_tx();
    bytes[0] = 0xee;
    check_eq(receive(c, TCP_RECV_OOB | TCP_RECV_PEEK | TCP_RECV_TRUNC, 0), 1);
    check_eq(bytes[0], 0xee);
    const struct slice none = {bytes, 0};
    check_eq(tcp_recv(the_cx(), c, &none, 1, TCP_RECV_OOB, 0), 0);
    check_eq(receive(c, TCP_RECV_OOB, 0), -EINVAL);
}

TEST(seldom_urgent_for_nobody, "Linux: of text that nobody will read the urgent byte is still told")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_shutdown(c, TCP_SHUT_WR), 0);
    check_eq(call_shutdown(c, TCP_SHUT_RD), 0);
    drain_tx();
    inject("PAU seq 1 ack 2 len 5 urg 5");
    expect_tx("R seq 2");
    check(tcp_has_mark(c) && (tcp_poll(c) & TCP_EV_PRI) != 0);
    check_eq(tcp_take_error(c), ECONNRESET);
}

/* ---- opening ---- */

TEST(seldom_foreign_echo, "RFC 7323 3.2: an echo that we never sent: another incarnation's SYN-ACK")
{
    call_connect();
    drain_tx();
    t_run(ms(10));
    char spec[80];
    snprintf(spec, sizeof(spec), "SA seq 0 ack 1 <mss 1460,ts 7 %u>", cur()->host_ts + 5000);
    inject(spec);
    expect_tx("R seq 1");
    expect_state(TCP_SYN_SENT);
    inject("SA seq 0 ack 1 <mss 1460,ts 7>");
    expect_tx("A seq 1 ack 1");
    expect_state(TCP_ESTABLISHED);
}

TEST(seldom_syn_too_big,
     "RFC 7413 4.2.1, 1191: a SYN with data does not fit the path: the SYN goes alone, at once")
{
    static uint8_t text[1200];
    const struct slice from = {text, sizeof(text)};
    for (uint32_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 7 + (i >> 8) * 13);
    world((struct world_opts){.fastopen = STACK_FASTOPEN_CLIENT});
    struct tcp_conn *c = call_open();
    tcp_opts(c)->fastopen_connect = true;
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), 0);
    drain_tx();
    inject("SA seq 0 ack 1 <mss 1460,hex 220a0102030405060708,nop,nop>");
    drain_tx();
    c = call_open();
    tcp_opts(c)->fastopen_connect = true;
    check_eq(call_send_ahead(c, &from), sizeof(text));
    check_eq(call_connect_from(c, 5001, PEER_PORT), 0);
    expect_tx("S seq 0 len 1200 <mss 1460>");
    inject_icmp(ip4(10, 0, 0, 9), 3, 4, 1000, 0);
    expect_tx("S seq 0 len 0 <mss 960>");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1 len 960");
    expect_tx("PA seq 961 ack 1 len 240");
}

TEST(seldom_mtu_not_told,
     "RFC 1191 5: a router that does not say the MTU: the plateau below is taken")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 1460), 1460);
    expect_tx("PA seq 1 len 1460");
    inject_icmp(ip4(10, 0, 0, 9), 3, 4, 0, 1);
    expect_tx("A seq 1 len 1452");
    expect_tx("PA seq 1453 len 8");
}

TEST(seldom_deferred,
     "TCP_FASTOPEN_CONNECT: until data comes it is writable, and has nothing to read")
{
    struct tcp_conn *c = call_open();
    tcp_defer(c, true);
    check(tcp_deferred(c));
    check_eq(tcp_poll(c), TCP_EV_OUT);
    check_eq(receive(c, 0, 0), -EAGAIN);
    tcp_defer(c, false);
    check_eq(receive(c, 0, 0), -ENOTCONN);
}

/* ---- who died in the middle ---- */

static struct tcp_conn *client, *server;

TEST(seldom_died_between_ends,
     "a process died while text passed inside the stack: both ends were being changed, both end")
{
    established_inside(0, &client, &server);
    check_eq(call_send(client, 100), 100);
    the_stack()->working = flow_find(&the_stack()->tcp.flows, &tcp_flow(client)->tuple);
    stack_repair(the_cx());
    check_eq(tcp_state(client), TCP_CLOSED);
    check_eq(tcp_state(server), TCP_CLOSED);
    flush();
    check_eq(tcp_take_error(client), ECONNRESET);
    check_eq(tcp_take_error(server), ECONNRESET);
}

TEST(seldom_died_with_packets, "packets on their way inside the stack outlive who sent them")
{
    static uint8_t text[3000];
    const struct slice from = {text, sizeof(text)};
    established_inside(0, &client, &server);
    check_eq(tcp_send(the_cx(), client, &from, 1, 0), sizeof(text));
    tcp_flush(the_cx());
    check(ip_loopback_pending(the_stack()));
    stack_repair(the_cx());
    check(ip_loopback_pending(the_stack()));
    flush();
    check_eq(tcp_inq(server), sizeof(text));
    check_eq(tcp_outq(client), 0);
    check_eq(receive(server, 0, 0), sizeof(text));
    check_eq(counter(COUNT_RETRANS), 0);
}

TEST(seldom_died_with_packets_torn, "of packets inside the stack those before a torn one are kept")
{
    static uint8_t text[100];
    const struct slice from = {text, sizeof(text)};
    established_inside(0, &client, &server);
    tcp_opts(client)->nodelay = true;
    for (unsigned i = 0; i < 3; i++)
        check_eq(tcp_send(the_cx(), client, &from, 1, 0), sizeof(text));
    tcp_flush(the_cx());
    struct ip_stack *ip = &the_stack()->ip;
    check(ip->loopback_packets >= 2);
    struct packet_buf *last = list_entry(ip->loopback.prev, struct packet_buf, link);
    last->large = !last->large;
    const uint32_t before = ip->loopback_packets;
    stack_repair(the_cx());
    check_eq(ip->loopback_packets, before - 1);
    flush();
    t_run(sec(2));
    check_eq(tcp_inq(server), 300); /* what was lost came again */
    check_eq(receive(server, 0, 0), 300);
}
