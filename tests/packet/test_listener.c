/* The passive side: SYN queue, accept queue, cookies, deferral, resets for strangers. */
#include "tests/packet/harness.h"

#include <errno.h>

/* A client of its own: the flow from this port is current afterwards. */
static void client(uint16_t port)
{
    flow(LISTEN_PORT, port);
}

static void handshake(uint16_t port)
{
    client(port);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    inject("A seq 1 ack 1");
}

static void queues(struct tcp_listener *l, uint32_t syns, uint32_t accepts)
{
    uint32_t s, a, b;
    tcp_listener_queues(l, &s, &a, &b);
    check_eq(s, syns);
    check_eq(a, accepts);
}

TEST(listen_queues, "SYN queue and accept queue as a connection passes through them")
{
    struct tcp_listener *l = call_listen(5);
    queues(l, 0, 0);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    queues(l, 1, 0);
    inject("A seq 1 ack 1");
    queues(l, 0, 1);
    check(call_accept(l) != NULL);
    queues(l, 0, 0);
}

TEST(listen_accept_order, "accept() gives connections in the order of their third ACKs")
{
    struct tcp_listener *l = call_listen(5);
    client(41001);
    inject("S seq 0 <mss 1460>");
    client(41002);
    inject("S seq 0 <mss 1460>");
    drain_tx();
    inject("A seq 1 ack 1");
    client(41001);
    inject("A seq 1 ack 1");
    struct endpoint e;
    check(tcp_remote(call_accept(l), &e) && e.port == 41002);
    check(tcp_remote(call_accept(l), &e) && e.port == 41001);
}

TEST(listen_backlog_plus_one, "Linux: the accept queue holds backlog + 1")
{
    struct tcp_listener *l = call_listen(2);
    for (unsigned i = 0; i < 3; i++)
        handshake((uint16_t)(41000 + i));
    queues(l, 0, 3);
    client(41010);
    inject("S seq 0 <mss 1460>");
    expect_none(0); /* Linux: a SYN is dropped while the accept queue is full */
    check(call_accept(l) != NULL);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
}

TEST(listen_third_ack_dropped,
     "Linux: accept queue full at the third ACK: it is ignored, the SYN-ACK comes again")
{
    struct tcp_listener *l = call_listen(0);
    client(41001);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    handshake(41002);
    queues(l, 1, 1);
    client(41001);
    inject("A seq 1 ack 1");
    expect_none(0);
    queues(l, 1, 1);
    check(counter(COUNT_ACCEPT_OVERFLOW) == 1);
    expect_tx_in(ms(900), ms(1200), "SA seq 0 ack 1");
    inject("A seq 1 ack 1");
    queues(l, 1, 1);
    check(call_accept(l) != NULL);
    expect_tx_in(ms(1900), ms(2200), "SA seq 0 ack 1");
    inject("A seq 1 ack 1");
    queues(l, 0, 1);
    check(call_accept(l) != NULL);
}

TEST(listen_third_ack_dropped_data,
     "Linux: text sent into a full accept queue is not acknowledged, and taken when it comes again")
{
    struct tcp_listener *l = call_listen(0);
    client(41001);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    handshake(41002);
    client(41001);
    inject("PA seq 1 ack 1 len 50");
    expect_none(0);
    check(call_accept(l) != NULL);
    inject("PA seq 1 ack 1 len 50");
    expect_tx("A ack 51");
    struct tcp_conn *c = call_accept(l);
    check(c && call_recv(c, 100) == 50);
}

TEST(listen_backlog_changed, "listen() again changes the backlog")
{
    struct tcp_listener *l = call_listen(0);
    handshake(41000);
    client(41001);
    inject("S seq 0 <mss 1460>");
    expect_none(0);
    tcp_listener_set_backlog(l, 3);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
}

TEST(listen_close,
     "Linux: closing a listener drops half-open entries and resets what was not accepted")
{
    struct tcp_listener *l = call_listen(5);
    client(41001);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    handshake(41002);
    call_listener_close(l);
    expect_tx("RA seq 1 ack 1");
    expect_state(TCP_CLOSED);
    client(41001);
    expect_state(TCP_CLOSED);
    inject("A seq 1 ack 1");
    expect_tx("R seq 1");
}

TEST(listen_accepted_survive, "connections that were accepted outlive their listener")
{
    struct tcp_listener *l = call_listen(5);
    handshake(41001);
    struct tcp_conn *c = call_accept(l);
    call_listener_close(l);
    expect_none(0);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 100), 10);
}

TEST(listen_reset_in_queue,
     "Linux: a connection that is reset in the accept queue is still accepted, and says ECONNRESET")
{
    struct tcp_listener *l = call_listen(5);
    handshake(41001);
    inject("R seq 1");
    expect_none(0);
    struct tcp_conn *c = call_accept(l);
    check(c != NULL);
    check_eq(call_recv(c, 10), -ECONNRESET);
}

TEST(listen_fin_in_queue, "data and FIN that arrive before accept() wait for it")
{
    struct tcp_listener *l = call_listen(5);
    handshake(41001);
    inject("FPA seq 1 ack 1 len 100");
    expect_tx("A ack 102");
    struct tcp_conn *c = call_accept(l);
    check_eq(tcp_poll(c), TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP);
    check_eq(call_recv(c, 1000), 100);
    check_eq(call_recv(c, 1000), 0);
}

TEST(listen_any_and_exact,
     "RFC 9293 3.10.1: the listener on the exact address comes before the wildcard")
{
    struct tcp_listener *any = call_listen(5);
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    struct tcp_listen_args a = {
        .local = {ip_addr_from_v4(__builtin_bswap32(HOST_IP)), LISTEN_PORT},
        .backlog = 5,
        .reuseport = false,
        .opts = &o,
    };
    struct tcp_listener *exact = NULL;
    /* Linux refuses this without SO_REUSEADDR on both; the engine is told by the shim */
    check_eq(tcp_listen(the_cx(), &a, &exact), -EADDRINUSE);
    handshake(41001);
    check(call_accept(any) != NULL);
}

TEST(listen_reuseport,
     "socket(7) SO_REUSEPORT: SYNs spread, and one tuple always meets the same listener")
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    struct tcp_listen_args a = {
        .local = {.port = LISTEN_PORT}, .backlog = 200, .reuseport = true, .opts = &o};
    struct tcp_listener *l[3];
    for (unsigned i = 0; i < 3; i++)
        check_eq(tcp_listen(the_cx(), &a, &l[i]), 0);
    for (unsigned i = 0; i < 90; i++) {
        client((uint16_t)(42000 + i));
        inject("S seq 0 <mss 1460>");
        inject("S seq 0 <mss 1460>");
        drain_tx();
        inject("A seq 1 ack 1");
    }
    unsigned total = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint32_t s, n, b;
        tcp_listener_queues(l[i], &s, &n, &b);
        check(n >= 10);
        check_eq(s, 0);
        total += n;
        tcp_listener_close(the_cx(), l[i]);
        flush();
    }
    check_eq(total, 90);
    drain_tx();
}

/* ---- a port that several stacks share ---- */

static struct tcp_listener *call_listen_member(uint64_t member)
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    const struct tcp_listen_args a = {.local = {.port = LISTEN_PORT},
                                      .backlog = 5,
                                      .reuseport = true,
                                      .member = member,
                                      .opts = &o};
    struct tcp_listener *l = NULL;
    check_eq(tcp_listen(the_cx(), &a, &l), 0);
    return l;
}

TEST(shared_port_elected, "SO_REUSEPORT over several stacks: the member that is named answers")
{
    world((struct world_opts){.shared = true});
    struct tcp_listener *one = call_listen_member(71), *two = call_listen_member(72);
    for (unsigned i = 0; i < 8; i++) {
        shares_port(i % 2 == 0 ? 71 : 72);
        client((uint16_t)(43000 + i));
        inject("S seq 0 <mss 1460>");
        expect_tx("SA");
        shares_port(99); /* the group changes: what has begun goes on */
        inject("A seq 1 ack 1");
        struct tcp_conn *c = call_accept(i % 2 == 0 ? one : two);
        check(c != NULL);
        inject("PA seq 1 ack 1 len 10");
        expect_tx("A ack 11");
    }
    check(tcp_listener_poll(one) == 0 && tcp_listener_poll(two) == 0);
    shares_port(0);
    tcp_listener_close(the_cx(), one);
    tcp_listener_close(the_cx(), two);
}

TEST(shared_port_silence, "SO_REUSEPORT over several stacks: not a word to what may be another's")
{
    world((struct world_opts){.shared = true});
    struct tcp_listener *l = call_listen_member(71);
    shares_port(99);
    client(43000);
    inject("S seq 0 <mss 1460>");
    inject("A seq 1 ack 5000");
    inject("PA seq 1 ack 5000 len 10");
    inject("SA seq 1 ack 5000");
    inject("FA seq 11 ack 5000");
    expect_none(0);
    check_eq(counter(COUNT_RSTS_OUT), 0);
    shares_port(71);
    client(43001); /* both stacks felt meant by the SYN, and the other was faster */
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject("A seq 1 ack 5000");
    expect_none(sec(10)); /* nor its SYN-ACK again */
    shares_port(0);
    client(43002); /* nobody else is there */
    inject("A seq 1 ack 5000");
    expect_tx("R seq 5000");
    tcp_listener_close(the_cx(), l);
}

TEST(shared_port_time_wait, "a new incarnation that is another member's ends our TIME_WAIT")
{
    world((struct world_opts){.shared = true});
    struct tcp_listener *l = call_listen_member(71);
    shares_port(71);
    client(43000);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    tcp_close(the_cx(), c);
    flush();
    expect_tx("FA");
    inject("FA seq 1 ack 2");
    expect_tx("A ack 2");
    check_eq(tcp_time_waits(the_stack()), 1);
    shares_port(99);
    inject("S seq 70000 <mss 1460>");
    expect_none(0);
    check_eq(tcp_time_waits(the_stack()), 0);
    tcp_listener_close(the_cx(), l);
}

TEST(shared_port_cookie, "a third ACK is for the member whose cookie it brings back")
{
    world((struct world_opts){.shared = true});
    struct tcp_listener *calm = call_listen_member(71), *flooded = call_listen_member(72);
    tcp_listener_set_backlog(flooded, 0);
    shares_port(72);
    client(43000);
    inject("S seq 0 <mss 1460>"); /* fills its SYN queue */
    drain_tx();
    for (unsigned i = 1; i < 9; i++) {
        client((uint16_t)(43000 + i));
        inject("S seq 0 <mss 1460>");
        expect_tx("SA");
        inject("A seq 1 ack 1");
        check(call_accept(flooded) != NULL);
    }
    check_eq(counter(COUNT_COOKIES_OK), 8);
    tcp_listener_close(the_cx(), calm);
    tcp_listener_close(the_cx(), flooded);
}

/* ---- defer accept ---- */

TEST(listen_defer_accept, "tcp(7) TCP_DEFER_ACCEPT: not accepted before data comes")
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.defer_accept = 10;
    struct tcp_listener *l = call_listen_opts(5, &o);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject("A seq 1 ack 1");
    expect_none(0);
    check(call_accept(l) == NULL);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    struct tcp_conn *c = call_accept(l);
    check(c && call_recv(c, 100) == 10);
}

TEST(listen_defer_accept_expires,
     "Linux: when the time is over a SYN-ACK asks again and the bare ACK is enough")
{
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.defer_accept = 2;
    struct tcp_listener *l = call_listen_opts(5, &o);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    inject("A seq 1 ack 1");
    expect_none(ms(500));
    expect_tx_in(ms(100), sec(8), "SA");
    inject("A seq 1 ack 1");
    drain_tx();
    check(call_accept(l) != NULL);
}

/* ---- floods (RFC 4987) ---- */

static void flood(unsigned n, uint16_t first)
{
    for (unsigned i = 0; i < n; i++) {
        client((uint16_t)(first + i));
        inject("S seq 0 <mss 1460,sackOK,ts,nop,wscale 7>");
    }
}

TEST(cookie_flood, "RFC 4987 3.6: when the SYN queue is full cookies answer, without memory")
{
    struct tcp_listener *l = call_listen(8);
    flood(2000, 20000);
    check(counter(COUNT_COOKIES_SENT) > 1900);
    uint32_t s, a, b;
    tcp_listener_queues(l, &s, &a, &b);
    check(s <= 16);
    check_eq(the_stack()->tcp.half_opens.live, s);
    check_eq(drain_tx(), 2000);
}

TEST(cookie_valid, "RFC 4987 3.6: the third ACK of a cookie makes the connection, with its options")
{
    struct tcp_listener *l = call_listen(4);
    flood(100, 20000);
    drain_tx();
    client(50000);
    inject("S seq 0 <mss 1200,sackOK,ts,nop,wscale 9>");
    expect_tx("SA seq 0 ack 1 <mss 1460,sackOK,ts,wscale>");
    cur()->sends_ts = true;
    t_run(ms(500));
    drain_tx();
    inject("A seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check(c != NULL);
    check_eq(counter(COUNT_COOKIES_OK), 1);
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check(v.ts && v.sack && v.wscale);
    check_eq(v.snd_wscale, 9);
    check(v.snd_mss <= 1200 && v.snd_mss >= 500);
    inject("PA seq 1 ack 1 len 100");
    drain_tx();
    check_eq(call_recv(c, 1000), 100);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 ack 101 len 100");
}

TEST(cookie_valid_with_data, "text with the third ACK of a cookie is taken")
{
    struct tcp_listener *l = call_listen(4);
    flood(100, 20000);
    drain_tx();
    client(50000);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1 <mss,!wscale,!sackOK,!ts>");
    inject("PA seq 1 ack 1 len 100");
    expect_tx("A ack 101");
    struct tcp_conn *c = call_accept(l);
    check(c && call_recv(c, 1000) == 100);
}

TEST(cookie_forged, "RFC 4987: a guessed cookie is answered by RST")
{
    struct tcp_listener *l = call_listen(4);
    flood(100, 20000);
    drain_tx();
    client(50000);
    for (unsigned i = 0; i < 200; i++) {
        inject("A seq 1 ack 12345");
        inject("A seq 777 ack 99");
    }
    check_eq(drain_tx(), 400);
    check_eq(counter(COUNT_COOKIES_OK), 0);
    queues(l, 5, 0);
}

TEST(cookie_other_tuple, "a cookie is good for its own tuple only")
{
    call_listen(4);
    flood(100, 20000);
    drain_tx();
    client(50000);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    uint32_t iss = cur()->iss, irs = cur()->irs;
    client(50001);
    cur()->iss = iss;
    cur()->irs = irs;
    inject("A seq 1 ack 1");
    expect_tx("R");
    check_eq(counter(COUNT_COOKIES_OK), 0);
}

TEST(cookie_old, "RFC 4987 3.6: a cookie is good for about two minutes")
{
    call_listen(4);
    flood(100, 20000);
    drain_tx();
    client(50000);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA");
    uint32_t iss = cur()->iss;
    t_run(sec(300));
    drain_tx();
    flood(100, 21000); /* the flood goes on */
    drain_tx();
    client(50000);
    cur()->iss = iss;
    inject("A seq 1 ack 1");
    expect_tx("R seq 1");
}

TEST(cookie_not_without_flood, "an ACK out of nowhere is not taken for a cookie when none was sent")
{
    struct tcp_listener *l = call_listen(4);
    inject("A seq 1 ack 12345");
    expect_tx("R seq 12345");
    check(call_accept(l) == NULL);
}

TEST(cookie_accept_full, "accept queue full: a valid cookie waits outside")
{
    struct tcp_listener *l = call_listen(1);
    flood(50, 20000);
    drain_tx();
    for (unsigned i = 0; i < 5; i++) {
        client((uint16_t)(50000 + i));
        inject("S seq 0 <mss 1460>");
        drain_tx();
    }
    for (unsigned i = 0; i < 5; i++) {
        client((uint16_t)(50000 + i));
        if (cur()->have_iss)
            inject("A seq 1 ack 1");
    }
    uint32_t s, a, b;
    tcp_listener_queues(l, &s, &a, &b);
    check_eq(a, 2);
    drain_tx();
}

TEST(syn_flood_ends, "when a flood ends the SYN queue empties and service goes on")
{
    struct tcp_listener *l = call_listen(8);
    flood(500, 20000);
    t_run(sec(70));
    drain_tx();
    queues(l, 0, 0);
    handshake(50000);
    check(call_accept(l) != NULL);
}

/* ---- strangers ---- */

TEST(stranger_own_address, "own address mode: RST for ports that nobody has")
{
    flow(1234, 5678);
    inject("S seq 0 <mss 1460>");
    expect_tx("RA seq 0 ack 1");
    inject("A seq 1 ack 55");
    expect_tx("R seq 55");
    inject("R seq 1");
    expect_none(0);
    check_eq(counter(COUNT_NO_CONN), 3);
}

TEST(stranger_shared_address, "shared address mode: silence: the port may be the kernel's")
{
    world((struct world_opts){.shared = true});
    flow(1234, 5678);
    inject("S seq 0 <mss 1460>");
    inject("A seq 1 ack 55");
    inject("FA seq 1 ack 55");
    expect_none(0);
    check_eq(counter(COUNT_RSTS_OUT), 0);
}

TEST(stranger_on_our_port,
     "shared address mode: a stray segment for a port of ours is answered by RST")
{
    world((struct world_opts){.shared = true});
    call_listen(5);
    client(41000);
    inject("A seq 1 ack 55");
    expect_tx("R seq 55");
}

TEST(stranger_rst_reflection, "RFC 9293 3.10.7.1: no RST for a RST")
{
    flow(1234, 5678);
    for (unsigned i = 0; i < 10; i++)
        inject("RA seq 1 ack 1");
    expect_none(0);
}

TEST(challenge_rate_limit, "RFC 5961 7, Linux tcp_invalid_ratelimit: challenge ACKs are limited")
{
    established(NULL);
    for (unsigned i = 0; i < 1000; i++)
        inject("S seq 500");
    unsigned n = drain_tx();
    check(n >= 1 && n <= 10);
    check(counter(COUNT_CHALLENGE_LIMITED) >= 990);
    t_run(sec(2));
    inject("S seq 500");
    expect_tx("A seq 1 ack 1");
}

TEST(ack_war,
     "two ends that disagree do not send ACKs for ever: a bare ACK out of place is limited")
{
    established(NULL);
    for (unsigned i = 0; i < 1000; i++)
        inject("A seq 200000 ack 1");
    check(drain_tx() <= 10);
}
