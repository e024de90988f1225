/* ACKs that wait for what the program sends next (stack_flush_patiently()). */
#include "tests/packet/harness.h"

TEST(ack_waits_for_the_answer, "a program that goes on may answer: its text carries the ACK")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    expect_none(us(100));
    check_eq(call_recv(c, 200), 100);
    expect_none(us(100));
    check_eq(call_send(c, 50), 50);
    expect_tx("PA seq 1 ack 101 len 50");
    inject("A ack 51");
    expect_none(ms(100));
}

TEST(ack_waits_until_sleep, "a program that goes to sleep has nothing to say")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    check_eq(call_recv(c, 200), 100);
    program_goes_on(false);
    flush();
    expect_tx("A seq 1 ack 101");
}

TEST(ack_waits_not_long,
     "nor has one that neither sends nor sleeps; at most the delayed ACK's time")
{
    established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    t_run(ms(6));
    flush();
    expect_tx("A seq 1 ack 101");
    inject("PA len 100");
    expect_tx_in(ms(30), ms(45), "A seq 1 ack 201");
}

TEST(ack_waits_since_the_first, "what arrives meanwhile prolongs no wait")
{
    established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    t_run(ms(3));
    inject("PA len 100");
    expect_none(0);
    t_run(ms(3));
    flush();
    expect_tx("A seq 1 ack 201");
}

TEST(acks_wait_in_order, "ACKs that waited leave in the order in which they were due")
{
    established(NULL);
    call_connect_from(call_open(), HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx("A seq 1 ack 1 len 0");
    program_goes_on(true);
    flow(HOST_PORT, PEER_PORT);
    inject("PA len 100");
    flow(HOST_PORT + 1, PEER_PORT);
    inject("PA len 200");
    program_goes_on(false);
    flush();
    flow(HOST_PORT, PEER_PORT);
    expect_tx("A seq 1 ack 101");
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("A seq 1 ack 201");
}

/* So many segments are read while text of another connection is next in the device. */
static void read_beside_other(unsigned segments)
{
    struct tcp_conn *c = established("<mss 1460>");
    struct tcp_conn *other = call_open();
    tcp_quickack(the_cx(), c, false);
    call_connect_from(other, HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx("A seq 1 ack 1 len 0");
    flow(HOST_PORT, PEER_PORT);
    for (unsigned i = 0; i < segments; i++)
        inject("A len 1460");
    expect_none(0);
    program_goes_on(true);
    check(tcp_announce(the_cx(), other, 1000));
    check_eq(call_recv(c, 20000), segments * 1460);
}

TEST(ack_waits_for_others_text, "one ACK does for what is read in turn with another's text")
{
    read_beside_other(10);
    expect_none(us(100));
    tcp_unannounce(the_stack()); /* the link takes it */
    program_goes_on(false);
    flush();
    expect_tx("A seq 1 ack 14601");
}

TEST(ack_waits_for_others_not_long, "but the sender has it after 5 ms")
{
    read_beside_other(10);
    t_run(ms(6));
    flush();
    expect_tx("A seq 1 ack 14601");
}

TEST(ack_waits_for_others_bound, "and a quarter of the window is acknowledged whatever waits")
{
    read_beside_other(12);
    expect_tx("A seq 1 ack 17521");
}

TEST(ack_waits_for_one_segment, "RFC 9293 MUST-58: two are acknowledged at once")
{
    established(NULL);
    program_goes_on(true);
    inject("A len 1460");
    expect_none(us(100));
    inject("A len 1460");
    expect_tx("A seq 1 ack 2921");
}

TEST(ack_waits_not_in_disorder, "RFC 5681 4.2: a hole is told at once")
{
    established(NULL);
    program_goes_on(true);
    inject("A len 100");
    expect_none(us(100));
    inject("A seq 201 len 100");
    expect_tx("A seq 1 ack 101");
}

TEST(ack_of_fin_waits_for_close, "close() carries the ACK of the peer's FIN")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("FA");
    expect_none(us(100));
    call_close(c);
    expect_tx("FA seq 1 ack 2");
    inject("A ack 2");
}

TEST(ack_of_fin_and_text_waits_for_close, "who has sent all needs no ACK to send more")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    frames_together(true);
    inject("PA len 200");
    inject("FPA len 1400");
    frames_together(false);
    expect_none(us(100));
    check_eq(call_recv(c, 2000), 1600);
    call_close(c);
    expect_tx("FA seq 1 ack 1602");
    inject("A ack 2");
}

/* A connection whose handshake's ACK waits. */
static struct tcp_conn *connect_held(uint16_t hport)
{
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, hport, PEER_PORT), 0);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_none(us(100));
    return c;
}

TEST(ack_of_handshake_waits, "the request carries it; an earlier connection's waits on for its own")
{
    program_goes_on(true);
    struct tcp_conn *first = call_connect();
    expect_tx("S seq 0");
    struct tcp_conn *second = call_open();
    call_connect_from(second, HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    t_run(us(50));
    flow(HOST_PORT, PEER_PORT);
    inject("SA seq 0 ack 1");
    flow(HOST_PORT + 1, PEER_PORT);
    inject("SA seq 0 ack 1");
    expect_none(us(100));
    check_eq(call_send(second, 10), 10);
    expect_tx("PA seq 1 ack 1 len 10");
    inject("A ack 11");
    check_eq(call_send(first, 20), 20);
    flow(HOST_PORT, PEER_PORT);
    expect_tx("PA seq 1 ack 1 len 20");
    inject("A ack 21");
    expect_none(ms(100));
}

TEST(ack_of_handshake_waits_at_syn, "by the SYN of another connection no program hears anything")
{
    program_goes_on(true);
    struct tcp_conn *first = connect_held(HOST_PORT);
    connect_held(HOST_PORT + 1);
    check_eq(call_send(first, 10), 10);
    flow(HOST_PORT, PEER_PORT);
    expect_tx("PA seq 1 ack 1 len 10");
    expect_none(us(100));
}

TEST(ack_of_handshake_keeps_order,
     "accepted in the order in which they were made, where one was up before the next connect()")
{
    program_goes_on(true);
    connect_held(HOST_PORT);
    struct tcp_conn *second = call_open(), *third = call_open();
    call_connect_from(second, HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    expect_none(us(100));
    call_connect_from(third, HOST_PORT + 2, PEER_PORT);
    flow(HOST_PORT + 2, PEER_PORT);
    expect_tx("S seq 0");
    t_run(us(50));
    flow(HOST_PORT + 1, PEER_PORT);
    inject("SA seq 0 ack 1");
    flow(HOST_PORT + 2, PEER_PORT);
    inject("SA seq 0 ack 1");
    check_eq(call_send(third, 10), 10);
    flow(HOST_PORT, PEER_PORT);
    expect_tx("A seq 1 ack 1 len 0");
    flow(HOST_PORT + 2, PEER_PORT);
    expect_tx("PA seq 1 ack 1 len 10"); /* the second came up after connect() of the third */
    expect_none(us(100));
}

TEST(ack_of_handshake_waits_not_for_others,
     "the peer hears of an older connection what the program said after connect(): accepted first")
{
    struct tcp_conn *old = established(NULL);
    inject("PA len 10"); /* as an FTP server's banner */
    check_eq(call_recv(old, 100), 10);
    flush();
    expect_tx("A seq 1 ack 11");
    program_goes_on(true);
    connect_held(HOST_PORT + 1);
    check_eq(call_send(old, 5), 5);
    expect_tx("A seq 1 ack 1 len 0");
    flow(HOST_PORT, PEER_PORT);
    expect_tx("PA seq 1 ack 11 len 5");
}

TEST(ack_of_fin_waits_where_handshakes_do_not, "that of a FIN has nothing to tell by being first")
{
    struct tcp_conn *old = established(NULL);
    struct tcp_conn *other = call_open();
    call_connect_from(other, HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx("A seq 1 ack 1 len 0");
    program_goes_on(true);
    flow(HOST_PORT, PEER_PORT);
    inject("FA");
    connect_held(HOST_PORT + 2);
    check_eq(call_send(other, 10), 10);
    expect_tx("A seq 1 ack 1 len 0");
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("PA seq 1 ack 1 len 10");
    expect_none(us(100));
    call_close(old);
    flow(HOST_PORT, PEER_PORT);
    expect_tx("FA seq 1 ack 2");
}

TEST(ack_of_handshake_waits_not_long, "a server that speaks first hears of connect() in time")
{
    program_goes_on(true);
    call_connect();
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx_in(ms(35), ms(45), "A seq 1 ack 1 len 0");
    inject("PA len 20");
    expect_tx_in(us(100), ms(45), "A seq 1 ack 21");
}

TEST(ack_of_handshake_waits_until_sleep, "a program that waits for the server's greeting")
{
    program_goes_on(true);
    connect_held(HOST_PORT);
    program_goes_on(false);
    flush();
    expect_tx("A seq 1 ack 1 len 0");
}

TEST(ack_of_a_filled_hole_waits_for_no_fin, "RFC 5681 4.2: at once, also when a FIN is with it")
{
    established(NULL);
    program_goes_on(true);
    inject("A seq 101 len 100");
    expect_tx("A seq 1 ack 1");
    frames_together(true);
    inject("A seq 1 len 100");
    inject("FA seq 201");
    frames_together(false);
    expect_tx("A seq 1 ack 202");
}

TEST(ack_of_close_waits_not, "what close() and reset leave behind waits for nobody")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    call_close(c);
    expect_tx("FA seq 1 ack 1");
    inject("A ack 2");
    inject("FA ack 2");
    expect_tx("A seq 2 ack 2");
}

TEST(ack_after_shutdown_waits_not, "who has shut down has nothing more to say that could carry it")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    call_shutdown(c, TCP_SHUT_WR);
    expect_tx("FA seq 1 ack 1");
    inject("A ack 2");
    inject("PA len 100 ack 2");
    expect_tx("A seq 2 ack 101");
}

TEST(ack_of_repeated_part_waits_not,
     "RFC 2883 4.1: text of which a part came twice is told at once")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    inject("PA len 100");
    expect_tx("A ack 101");
    check_eq(call_recv(c, 200), 100);
    program_goes_on(true);
    inject("PA seq 51 len 100");
    expect_tx("A ack 151 <sack 51:101>");
}

TEST(ack_held_and_reset, "RFC 2525 2.17: close() with unread text; the ACK that waited is no more")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    expect_none(us(100));
    call_close(c);
    expect_tx("RA seq 1 ack 101");
    expect_none(ms(100));
}

TEST(ack_held_comes_with_window_of_next, "an ACK that waits is sent by what is due with it")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    expect_none(us(100));
    inject("PA seq 1 len 100"); /* repeated: the sender missed the ACK */
    expect_tx("A seq 1 ack 101");
    check_eq(call_recv(c, 200), 100);
    expect_none(ms(100));
}

TEST(quickack_asked_for, "TCP_QUICKACK sends what waits")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    expect_none(us(100));
    tcp_quickack(the_cx(), c, true);
    flush();
    expect_tx("A seq 1 ack 101");
}

/* A connection that the peer ends: up to where the program has seen that. */
static struct tcp_conn *ended_by_peer(uint16_t port)
{
    struct tcp_conn *c = call_open();
    program_goes_on(false);
    call_connect_from(c, port, PEER_PORT);
    flow(port, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx("A seq 1 ack 1 len 0");
    program_goes_on(true);
    inject("FA seq 1");
    check_eq(call_recv(c, 10), 0);
    expect_none(0);
    return c;
}

/* So many times a connection is closed, and the next one opened after so long. */
static struct tcp_conn *after_returns(unsigned times, nsec_t later)
{
    struct tcp_conn *c = ended_by_peer(HOST_PORT);
    for (unsigned i = 1; i <= times; i++) {
        call_close(c);
        expect_tx("FA seq 1 ack 2");
        t_run(later);
        c = ended_by_peer((uint16_t)(HOST_PORT + i));
    }
    return c;
}

TEST(fin_waits_for_return, "who connects again at once after each close() hears of that first")
{
    struct tcp_conn *c = after_returns(4, us(20));
    call_close(c);
    expect_none(0);
    call_connect_from(call_open(), HOST_PORT + 5, PEER_PORT);
    flow(HOST_PORT + 5, PEER_PORT);
    expect_tx("S seq 0");
    program_goes_on(false);
    flush();
    flow(HOST_PORT + 4, PEER_PORT);
    expect_tx("FA seq 1 ack 2");
}

TEST(fin_waits_not_long, "nor does it stay if the program neither connects nor sleeps")
{
    struct tcp_conn *c = after_returns(4, us(20));
    call_close(c);
    expect_tx_in(ms(30), ms(45), "FA seq 1 ack 2");
}

TEST(fin_waits_for_no_other, "after fewer returns it leaves at once")
{
    struct tcp_conn *c = after_returns(3, us(20));
    call_close(c);
    expect_tx("FA seq 1 ack 2");
}

TEST(fin_waits_for_no_slow_one, "and where the program took its time")
{
    struct tcp_conn *c = after_returns(6, us(200));
    call_close(c);
    expect_tx("FA seq 1 ack 2");
}
