/* stack_repair(): after a death at a quiet moment everything that was there is there, and goes on.
 */
#include "tests/packet/harness.h"

#include <errno.h>

#include "stack/stack.h"
#include "stack/tcp/conn.h"
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

TEST(repair_keeps_held_ack, "an ACK that waited for what the program sends next is still due")
{
    established(NULL);
    program_goes_on(true);
    inject("PA len 100");
    expect_none(us(100));
    stack_repair(the_cx());
    program_goes_on(false);
    flush();
    expect_tx("A seq 1 ack 101");
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

/* A process was killed while it changed c; sending: in the system call that transmits. */
static void die_inside(struct tcp_conn *c, bool sending)
{
    struct stack *st = the_stack();
    st->working = flow_find(&st->tcp.flows, &tcp_flow(c)->tuple);
    st->transmitting = sending;
    stack_repair(the_cx());
    flush();
}

TEST(repair_ends_what_was_changed, "a connection that was being changed is reset")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 2000), 2000);
    drain_tx();
    inject("A ack 1 len 100");
    drain_tx();
    die_inside(c, false);
    expect_tx("RA");
    expect_state(TCP_CLOSED);
    check_eq(tcp_take_error(c), ECONNRESET);
}

TEST(repair_goes_on, "a connection whose frame was being transmitted goes on")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 2000), 2000);
    drain_tx();
    die_inside(c, true);
    drain_tx();
    expect_state(TCP_ESTABLISHED);
    inject("A ack 2001 len 500");
    drain_tx();
    check_eq(call_recv(c, 500), 500);
    check_eq(tcp_outq(c), 0);
}

/* What does not fit together is not believed, wherever the process died. */
enum damage { DAMAGE_SENT_BYTES, DAMAGE_SENT_CHAIN, DAMAGE_MAP, DAMAGE_RECEIVED, DAMAGES };

static void damage(struct tcp_conn *c, enum damage how)
{
    switch (how) {
    case DAMAGE_SENT_BYTES:
        c->sendbuf.len++;
        break;
    case DAMAGE_SENT_CHAIN:
        c->sendbuf.head->next = (struct chunk *)c;
        break;
    case DAMAGE_MAP:
        c->sent.count++;
        break;
    default:
        c->recvbuf.chunks++;
    }
}

TEST(repair_believes_nothing, "a connection whose parts do not fit together is reset")
{
    for (enum damage how = 0; how < DAMAGES; how++) {
        struct tcp_conn *c = established(NULL);
        check_eq(call_send(c, 2000), 2000);
        drain_tx();
        inject("A ack 1 len 100");
        drain_tx();
        damage(c, how);
        stack_repair(the_cx());
        flush();
        expect_tx("RA");
        check_eq(tcp_state(c), TCP_CLOSED);
        world((struct world_opts){.mtu = 1500});
    }
}
