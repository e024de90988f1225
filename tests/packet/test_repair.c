/* stack_repair(): after a death at a quiet moment everything that was there is there, and goes on.
 */
#include "tests/packet/harness.h"

#include <errno.h>

#include "stack/stack.h"
#include "stack/tcp/timewait.h"

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

static void copy_time_wait(const struct tcp_time_wait_image *tw, void *arg)
{
    struct tcp_time_wait_image *image = arg;
    *image = *tw;
}

TEST(time_wait_moves, "another stack takes TIME_WAIT over, answers for it and ends it in time")
{
    struct tcp_time_wait_image image = {.snd_nxt = 0};
    bring(TCP_TIME_WAIT);
    drain_tx();
    tcp_each_time_wait(the_stack(), copy_time_wait, &image);
    check_eq(tcp_time_wait_adopt(the_cx(), &image), -EEXIST);
    t_run(sec(61));
    check_eq(tcp_time_waits(the_stack()), 0);
    image.ends_at = the_cx()->now + sec(30);
    check_eq(tcp_time_wait_adopt(the_cx(), &image), 0);
    inject("FA seq 1 ack 2");
    expect_tx("A seq 2 ack 2 len 0");
    t_run(sec(59));
    check_eq(tcp_time_waits(the_stack()), 1);
    t_run(sec(2));
    check_eq(tcp_time_waits(the_stack()), 0);
    image.ends_at = the_cx()->now + sec(30);
    check_eq(tcp_time_wait_adopt(the_cx(), &image), 0);
    t_run(sec(31));
    check_eq(tcp_time_waits(the_stack()), 0);
}

TEST(time_wait_of_a_stranger, "a stack that ignores strangers makes way for a new connection")
{
    bring(TCP_TIME_WAIT);
    drain_tx();
    stack_ignore_strangers(the_stack());
    inject("S seq 100000");
    check_eq(tcp_time_waits(the_stack()), 0);
}
