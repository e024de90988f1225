/* Text that waits for what the program is expected to write next (TCP_SEND_UNFINISHED). */
#include <errno.h>

#include "tests/packet/harness.h"

/* A connection whose first 100 bytes wait. */
static struct tcp_conn *with_waiting_text(void)
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    check_eq(call_send_flags(c, 100, TCP_SEND_UNFINISHED), 100);
    expect_none(0);
    return c;
}

TEST(unfinished_waits_for_the_rest, "header and body leave as one segment")
{
    struct tcp_conn *c = with_waiting_text();
    check_eq(call_send(c, 50), 50);
    expect_tx("PA seq 1 ack 1 len 150");
    inject("A ack 151");
    expect_none(ms(300));
}

TEST(unfinished_waits_for_close, "and the FIN with them")
{
    struct tcp_conn *c = with_waiting_text();
    call_send_flags(c, 50, TCP_SEND_UNFINISHED);
    expect_none(0);
    call_close(c);
    expect_tx("FPA seq 1 ack 1 len 150");
    inject("FA ack 152");
    expect_tx("A seq 152 ack 2");
}

TEST(unfinished_carries_the_ack, "of the request, which waits with it")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 10");
    check_eq(call_recv(c, 100), 10);
    call_send_flags(c, 100, TCP_SEND_UNFINISHED);
    expect_none(0);
    call_send(c, 50);
    expect_tx("PA seq 1 ack 11 len 150");
    inject("A ack 151");
    expect_none(ms(100));
}

TEST(unfinished_until_the_next_call, "any other call ends the wait, a sleep the same")
{
    struct tcp_conn *c = with_waiting_text();
    check_eq(call_recv(c, 100), -EAGAIN);
    expect_tx("PA seq 1 ack 1 len 100");
    inject("A ack 101");
    call_send_flags(c, 100, TCP_SEND_UNFINISHED);
    program_goes_on(false);
    flush();
    expect_tx("PA seq 101 ack 1 len 100");
    inject("A ack 201");
    call_send_flags(c, 100, TCP_SEND_UNFINISHED);
    expect_tx("PA seq 201 ack 1 len 100");
    inject("A ack 301");
}

TEST(unfinished_and_nothing, "a send() of nothing is another call, too")
{
    struct tcp_conn *c = with_waiting_text();
    check_eq(call_send(c, 0), 0);
    expect_tx("PA seq 1 ack 1 len 100");
    inject("A ack 101");
}

TEST(unfinished_prepared, "a call that only looks what the next will do does not end it")
{
    struct tcp_conn *c = with_waiting_text();
    check_eq(tcp_unfinished(the_stack(), c), true);
    tcp_unfinished_yet(the_stack(), c);
    flush();
    expect_none(0);
    call_send(c, 50);
    check_eq(tcp_unfinished(the_stack(), c), false);
    expect_tx("PA seq 1 len 150");
    inject("A ack 151");
}

TEST(unfinished_waits_not_behind_others, "what is in flight, or a full segment, leaves as it does")
{
    struct tcp_conn *c = established(NULL);
    tcp_opts(c)->nodelay = true;
    program_goes_on(true);
    check_eq(call_send_flags(c, 1460, TCP_SEND_UNFINISHED), 1460);
    expect_tx("PA seq 1 len 1460");
    check_eq(call_send_flags(c, 10, TCP_SEND_UNFINISHED), 10);
    expect_tx("PA seq 1461 len 10");
    inject("A ack 1471");
    expect_none(ms(100));
}

TEST(unfinished_keeps_the_order, "text of another connection leaves behind it")
{
    struct tcp_conn *first = established(NULL), *second = call_open();
    call_connect_from(second, HOST_PORT + 1, PEER_PORT);
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_tx("A seq 1 ack 1 len 0");
    program_goes_on(true);
    call_send_flags(first, 100, TCP_SEND_UNFINISHED);
    expect_none(0);
    call_send_flags(second, 50, TCP_SEND_UNFINISHED);
    flow(HOST_PORT, PEER_PORT);
    expect_tx("PA seq 1 len 100");
    expect_none(0);
    flush();
    flow(HOST_PORT + 1, PEER_PORT);
    expect_tx("PA seq 1 len 50");
}

TEST(unfinished_and_abort,
     "RFC 2525 2.17: close() with unread text resets, behind what was written")
{
    struct tcp_conn *c = established(NULL);
    program_goes_on(true);
    inject("PA len 10");
    call_send_flags(c, 100, TCP_SEND_UNFINISHED);
    expect_none(0);
    call_close(c);
    expect_tx("PA seq 1 ack 11 len 100");
    expect_tx("RA seq 101 ack 11");
    expect_none(ms(300));
}

TEST(unfinished_and_reset, "RFC 9293 3.10.7.4: nothing is left of it when the peer resets")
{
    struct tcp_conn *c = with_waiting_text();
    frames_together(true);
    inject("R");
    call_close(c);
    frames_together(false);
    expect_none(ms(300));
}
