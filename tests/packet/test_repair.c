/* stack_repair(): after a death at a quiet moment everything that was there is there, and goes on.
 */
#include "tests/packet/harness.h"

#include "stack/stack.h"

TEST(largest_mtu_has_room_for_its_frames,
     "AF_PACKET: a segment of full size on a path of 65,535 bytes fits with its L2 header")
{
    world((struct world_opts){.mtu = 65535});
    call_connect();
    expect_tx("S seq 0 <mss 65481>");
}

TEST(repair_keeps_connections, "a connection with data in both buffers goes on after a repair")
{
    struct tcp_conn *c = established("<mss 1460,sackOK,nop,nop>");
    check_eq(call_send(c, 2000), 2000);
    drain_tx();
    inject("A len 500");
    inject("A seq 1001 len 500"); /* a hole before it */
    drain_tx();
    stack_repair(the_cx());
    flush();
    drain_tx();
    expect_state(TCP_ESTABLISHED);
    check_eq(tcp_inq(c), 500);
    check_eq(call_recv(c, 500), 500);
    inject("A seq 501 ack 2001 len 500");
    drain_tx();
    check_eq(tcp_outq(c), 0);
    check_eq(call_recv(c, 1000), 1000);
}

TEST(repair_keeps_timers, "what was sent and not acknowledged is sent again after a repair")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 700), 700);
    drain_tx();
    stack_repair(the_cx());
    flush();
    drain_tx();
    t_run(sec(3));
    check(counter(COUNT_RETRANS) > 0);
    drain_tx();
    inject("A ack 701");
    check_eq(tcp_outq(c), 0);
}

TEST(repair_keeps_half_open, "a half-open entry becomes a connection after a repair")
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    stack_repair(the_cx());
    flush();
    drain_tx();
    inject("A seq 1 ack 1");
    check(call_accept(l) != NULL);
}

TEST(repair_keeps_time_wait, "TIME_WAIT ends in its time after a repair")
{
    bring(TCP_TIME_WAIT);
    drain_tx();
    const uint32_t before = tcp_time_waits(the_stack());
    stack_repair(the_cx());
    flush();
    drain_tx();
    check_eq(tcp_time_waits(the_stack()), before);
    t_run(sec(61));
    check_eq(tcp_time_waits(the_stack()), 0);
}
