/*
 * Why nothing is sent: each reason of a silence is made to appear, and both the trace and the ring
 * of last events say it, with the numbers that it follows from.
 */
#include "stack/tcp/conn.h"
#include "tests/packet/harness.h"
#include "tests/packet/world.h"

#include <stdio.h>
#include <string.h>

static unsigned since; /* where in the log the silence is looked for */

static bool traced(enum trace_event_id id, uint64_t first_arg)
{
    for (unsigned i = since; i < W.log_n; i++) {
        const struct log_entry *e = &W.log[i % LOG_MAX];
        if (W.log_n - i <= LOG_MAX && e->kind == LOG_TRACE && e->id == id &&
            e->argv[0] == first_arg)
            return true;
    }
    return false;
}

static void find_held(const struct ring_event *e, void *arg)
{
    uint64_t *last = arg;
    if (e->event == TRACE_EV_SEND_HELD)
        ring_expand(e, last);
}

static void count_probes(const struct ring_event *e, void *arg)
{
    unsigned *n = arg;
    *n += e->event == TRACE_EV_SEGMENT_OUT && e->small[1] == TCP_WHY_SEND_PROBE;
}

/* The connection is silent now, for this reason. */
static void expect_held(const struct tcp_conn *c, enum tcp_reason why, uint32_t unsent,
                        uint32_t in_flight, uint32_t snd_wnd)
{
    uint64_t last[TRACE_ARGS_MAX] = {0};
    check(traced(TRACE_EV_SEND_HELD, why));
    ring_walk(stack_ring(the_stack()), c->flow.number, RING_EVENTS, find_held, last);
    check_eq(last[0], why);
    check_eq(last[1], unsent);
    check_eq(last[2], in_flight);
    check_eq(last[3], c->cc.cwnd);
    check_eq(last[4], snd_wnd);
}

static struct tcp_conn *quiet(const char *synack)
{
    struct tcp_conn *c = established(synack);
    since = W.log_n;
    return c;
}

TEST(silence_nagle, "RFC 9293 3.7.4: the reason is traced")
{
    struct tcp_conn *c = quiet(NULL);
    call_send(c, 100);
    check(!traced(TRACE_EV_SEND_HELD, TCP_WHY_HELD_NAGLE));
    call_send(c, 50);
    expect_held(c, TCP_WHY_HELD_NAGLE, 50, 100, 65535);
    inject("A seq 1 ack 101");
    check_eq(drain_text(), 150);
    check_eq(c->held, TCP_WHY_NONE);
}

TEST(silence_cork, "tcp(7) TCP_CORK: the reason is traced")
{
    struct tcp_conn *c = quiet(NULL);
    tcp_opts(c)->cork = true;
    call_opts_changed(c);
    call_send(c, 100);
    expect_held(c, TCP_WHY_HELD_CORK, 100, 0, 65535);
    check(traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_CORK));
    expect_none(ms(100));
}

TEST(silence_cwnd, "RFC 5681 3.1: the reason is traced")
{
    struct tcp_conn *c = quiet(NULL);
    call_send(c, 40000);
    check_eq(drain_text(), 14600);
    expect_held(c, TCP_WHY_HELD_CWND, 40000 - 14600, 14600, 65535);
}

/* Sends and hears ACKs until no more may be in flight than there is. */
static void fill_flight(struct tcp_conn *c)
{
    uint32_t got = 0;
    for (unsigned round = 0;
         round < 14 && (c->held != TCP_WHY_HELD_FLIGHT || tcp_unsent(c) < 44 * 1460); round++) {
        char ack[60];
        call_send(c, 4 << 20);
        got += drain_text();
        t_run(us(1));
        snprintf(ack, sizeof(ack), "A seq 1 ack %u win 65535", got + 1);
        inject(ack);
    }
    check_eq(c->held, TCP_WHY_HELD_FLIGHT);
    check_eq(tcp_in_flight(c) % (44 * 1460), 0); /* whole frames: no small one to fill it up */
    drain_tx();
}

TEST(silence_flight, "a path without delay is given no more than its queues are good for")
{
    struct tcp_conn *c = quiet("<mss 1460,wscale 8> win 65535");
    fill_flight(c);
    check(c->cc.cwnd > 1 << 20);
    check(tcp_in_flight(c) > 1000000 && tcp_in_flight(c) <= 1 << 20);
}

static void ack_all(struct tcp_conn *c)
{
    char ack[60];
    snprintf(ack, sizeof(ack), "A seq 1 ack %u win 65535", (uint32_t)seq_diff(c->snd_nxt, c->iss));
    inject(ack);
}

/* It had more in flight than a path without delay is given; now a frame of 64 KB and 5,000 bytes
 * are written. */
static struct tcp_conn *write_frame_and_rest(bool nodelay)
{
    struct tcp_conn *c = quiet("<mss 1460,wscale 8> win 65535");
    fill_flight(c);
    while (tcp_in_flight(c) > 0) {
        ack_all(c);
        drain_tx();
        t_run(us(1));
    }
    tcp_opts(c)->nodelay = nodelay;
    call_opts_changed(c);
    call_send(c, 44 * 1460 + 5000);
    return c;
}

TEST(silence_rest, "Linux's tcp_tso_should_defer(): what ACKs will make a large frame of waits")
{
    struct tcp_conn *c = write_frame_and_rest(false);
    check_eq(drain_text(), 44 * 1460);
    check_eq(c->held, TCP_WHY_HELD_FLIGHT);
    call_send(c, 44 * 1460 - 5000 + 100);
    check_eq(drain_text(), 44 * 1460);
    ack_all(c);
    check_eq(drain_text(), 100);
}

TEST(silence_rest_nodelay, "with TCP_NODELAY the rest goes at once")
{
    write_frame_and_rest(true);
    check_eq(drain_text(), 44 * 1460 + 5000);
}

TEST(silence_rest_fin, "and where FIN follows, for nothing will make it larger")
{
    struct tcp_conn *c = write_frame_and_rest(false);
    check_eq(drain_text(), 44 * 1460);
    call_shutdown(c, TCP_SHUT_WR);
    check_eq(drain_text(), 5000);
}

static void others_move_much(const struct tcp_conn *c, unsigned n)
{
    for (unsigned i = 1; i <= n; i++)
        tcp_moves_much(the_cx(), &(struct tcp_conn){.flow.number = c->flow.number + i});
}

TEST(silence_flight_shared, "connections that move much at the same time share it, for a while")
{
    struct tcp_conn *c = quiet("<mss 1460,wscale 8> win 65535");
    others_move_much(c, 15);
    fill_flight(c);
    check(c->cc.cwnd > 131072);
    check_eq(tcp_in_flight(c), 4 * 44 * 1460);
    check_eq(tcp_flight_max(the_stack(), c), 1 << 18);
    t_run(ms(9));
    tcp_moves_much(the_cx(), c);
    check_eq(tcp_flight_max(the_stack(), c), 1 << 20);
    others_move_much(c, 1);
    check_eq(tcp_flight_max(the_stack(), c), 1 << 19);
    drain_tx();
}

/* A connection whose round trip took 20 us. */
static struct tcp_conn *near(void)
{
    struct tcp_conn *c = established("<mss 1460,nop,nop,ts,nop,wscale 7>");
    cur()->sends_ts = true;
    check_eq(call_send(c, 100), 100);
    drain_tx();
    t_run(us(20));
    inject("A ack 101");
    return c;
}

/* So many segments are read every 30 us, for 20 ms, while so many others move much; the window
 * after that. */
static uint32_t read_steadily(struct tcp_conn *c, unsigned segments, unsigned others)
{
    struct tcp_view v;
    for (unsigned i = 0; i < 20 * 33; i++) {
        others_move_much(c, others);
        for (unsigned n = 0; n < segments; n++)
            inject("A len 1448");
        call_recv(c, 65000);
        drain_tx();
        t_run(us(30));
    }
    tcp_view(the_cx(), c, &v);
    return v.rcv_wnd;
}

TEST(window_short_path, "Linux: what is read is measured over a millisecond at least; what queues "
                        "are good for is enough")
{
    struct tcp_conn *c = near();
    check(read_steadily(c, 3, 0) > 300000);
    check_eq(read_steadily(c, 30, 0), 1 << 20);
}

TEST(window_beside_others, "several that move much have as large windows as one")
{
    check_eq(read_steadily(near(), 30, 7), 1 << 20);
}

TEST(window_shared, "many share what a device has room for")
{
    check(read_steadily(near(), 30, 15) <= (8 << 20) / 15);
}

/* Ten segments are there; the link has seen that more will follow them. */
static struct tcp_conn *more_to_read(unsigned segments)
{
    struct tcp_conn *c = quiet("<mss 1460> win 65535");
    tcp_quickack(the_cx(), c, false);
    for (unsigned i = 0; i < segments; i++)
        inject("A len 1460");
    check_eq(drain_tx(), 0);
    tcp_foresee_more(the_stack(), c);
    return c;
}

TEST(silence_more_to_read, "what is read and what waits in the device share an ACK")
{
    struct tcp_conn *c = more_to_read(10);
    check_eq(call_recv(c, 20000), 14600);
    check_eq(drain_tx(), 0);
    check(traced(TRACE_EV_ACK_HELD, TCP_WHY_HELD_NO_ACK_YET));
    tcp_unannounce(the_stack()); /* the link takes it */
    inject("A len 1460");
    check_eq(call_recv(c, 20000), 1460);
    expect_tx("A ack 16061");
}

TEST(silence_more_unread,
     "an ACK that waits for what is to be read does not wait longer than others")
{
    struct tcp_conn *c = more_to_read(10);
    check_eq(call_recv(c, 20000), 14600);
    expect_tx_in(ms(35), ms(201), "A ack 14601");
}

TEST(silence_more_bound, "a quarter of the window is acknowledged whatever waits")
{
    struct tcp_conn *c = more_to_read(12);
    check_eq(call_recv(c, 20000), 17520);
    expect_tx("A ack 17521");
}

TEST(silence_rwnd, "RFC 9293 3.8.6: a full window is traced, and the timer that probes it")
{
    unsigned probes = 0;
    struct tcp_conn *c = quiet("<mss 1460> win 1000");
    call_send(c, 2000);
    check_eq(drain_text(), 1000);
    expect_held(c, TCP_WHY_HELD_RWND, 1000, 1000, 1000);
    check(!traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_PERSIST));
    inject("A seq 1 ack 1001 win 0");
    check(traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_PERSIST));
    t_run(sec(3));
    drain_tx();
    check(traced(TRACE_EV_TIMER_FIRED, TCP_TIMER_PERSIST));
    ring_walk(stack_ring(the_stack()), c->flow.number, RING_EVENTS, count_probes, &probes);
    check(probes > 0);
}

TEST(silence_sws, "RFC 9293 3.8.6.2.1: a window too small for a segment is traced")
{
    struct tcp_conn *c = quiet(NULL);
    inject("A seq 1 ack 1 win 100");
    call_send(c, 3000);
    expect_held(c, TCP_WHY_HELD_SWS, 3000, 0, 100);
    check(traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_PERSIST));
}

TEST(silence_pacing, "SO_MAX_PACING_RATE: the reason is traced")
{
    struct tcp_conn *c = quiet(NULL);
    uint32_t got = 0;
    tcp_opts(c)->max_pacing = 146000 / 64; /* one hundred segments a second */
    call_opts_changed(c);
    call_send(c, 60000);
    for (unsigned i = 0; i < 8; i++) {
        char ack[40];
        t_run(ms(10));
        got += drain_text();
        snprintf(ack, sizeof(ack), "A seq 1 ack %u", got + 1);
        inject(ack);
    }
    check(traced(TRACE_EV_SEND_HELD, TCP_WHY_HELD_PACING));
    check(traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_PACE));
    drain_tx();
}

TEST(silence_ack, "RFC 9293 3.8.6.3: an ACK that waits is traced, and for how long")
{
    struct tcp_conn *c = quiet(NULL);
    tcp_opts(c)->quickack_off = true;
    inject("PA len 100");
    check(traced(TRACE_EV_ACK_HELD, TCP_WHY_HELD_NO_ACK_YET));
    check(traced(TRACE_EV_TIMER_ARMED, TCP_TIMER_DELAYED_ACK));
    expect_tx_in(ms(1), ms(201), "A seq 1 ack 101 len 0");
    check(traced(TRACE_EV_TIMER_FIRED, TCP_TIMER_DELAYED_ACK));
}

TEST(silence_all, "each reason of a silence has its test here")
{
    static const enum tcp_reason known[] = {
        TCP_WHY_HELD_NAGLE, TCP_WHY_HELD_CORK, TCP_WHY_HELD_CWND,   TCP_WHY_HELD_FLIGHT,
        TCP_WHY_HELD_RWND,  TCP_WHY_HELD_SWS,  TCP_WHY_HELD_PACING, TCP_WHY_HELD_NO_ACK_YET};
    for (unsigned r = 0; r < TCP_REASON_COUNT; r++) {
        bool found = strncmp(tcp_reason_name(r), "HELD_", 5) != 0;
        for (unsigned i = 0; i < ARRAY_LEN(known); i++)
            found |= known[i] == r;
        if (!found)
            fail("no test for %s", tcp_reason_name(r));
    }
}

/* A program reads a large frame, and the device has no more yet. */
static void read_large(struct tcp_conn *c)
{
    program_goes_on(true);
    inject("A len 43440");
    check_eq(call_recv(c, 65000), 43440);
}

static struct tcp_conn *reads_stream(void)
{
    struct tcp_conn *c = near();
    read_steadily(c, 30, 0);
    return c;
}

TEST(stream_ack_waits, "the ACK of a large frame waits for the next one while the program looks")
{
    struct tcp_conn *c = reads_stream();
    for (unsigned i = 0; i < 6; i++) {
        read_large(c);
        stack_flush_to_look(the_cx());
        expect_none(us(10));
    }
    read_large(c); /* 256 KB and more */
    expect_tx("A");
}

TEST(stream_ack_waits_for_looks, "where there is none it leaves, and the next eight leave at once")
{
    struct tcp_conn *c = reads_stream();
    read_large(c);
    expect_none(us(20));
    program_goes_on(false);
    flush();
    expect_tx("A");
    for (unsigned i = 0; i < 7; i++) {
        read_large(c);
        expect_tx("A");
    }
    read_large(c);
    expect_none(us(20));
}

TEST(stream_ack_waits_not_long, "nor longer than any that waits")
{
    struct tcp_conn *c = reads_stream();
    read_large(c);
    expect_tx_in(ms(10), ms(45), "A");
}

TEST(stream_ack_waits_alone, "with another stream there is less in flight: it leaves")
{
    struct tcp_conn *c = reads_stream();
    others_move_much(c, 1);
    read_large(c);
    expect_tx("A");
}
