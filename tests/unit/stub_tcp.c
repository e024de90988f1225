/* Stands in for stack/tcp under the network layer's unit tests: writes down what it is given. */
#include "tests/unit/ip_harness.h"

void tcp_stack_init(struct stack *st, nsec_t now)
{
    (void)now;
    ck_assert_ptr_nonnull(st->tcp.flows.buckets);
    /* the memory is there */
    for (unsigned i = 0; i < FLOW_BUCKETS; i++)
        list_init(&st->tcp.flows.buckets[i]);
    for (unsigned i = 0; i < FLOW_PORT_BUCKETS; i++)
        list_init(&st->tcp.flows.port_buckets[i]);
}

void tcp_input(struct stack_cx *cx, const struct ip_packet *p)
{
    (void)cx;
    ck_assert_uint_le(p->len, FRAME_KEPT);
    world.in.packet = *p;
    memcpy(world.in.payload, p->payload, p->len);
    world.in.packet.payload = world.in.payload;
    world.nin++;
    if (world.on_tcp != NULL)
        world.on_tcp(&world, p);
}

void tcp_icmp_error(struct stack_cx *cx, const struct ip_addr *src, const struct ip_addr *dst,
                    const uint8_t *header, uint32_t len, int err, bool hard, uint32_t mtu)
{
    (void)cx;
    ck_assert_uint_ge(len, 8);
    world.error = (struct tcp_error){
        .src = *src, .dst = *dst, .len = len, .err = err, .hard = hard, .mtu = mtu};
    memcpy(world.error.header, header, min_u32(len, sizeof(world.error.header)));
    world.nerrors++;
}

void tcp_timer(struct stack_cx *cx, struct wheel_timer *t)
{
    (void)cx;
    ck_assert_uint_lt(t->kind, STACK_TIMER_IP);
    world.ntimers++;
}

void tcp_finish(struct stack_cx *cx, bool patiently)
{
    (void)cx, (void)patiently;
}

void tcp_release_held(struct stack_cx *cx, enum tcp_release which)
{
    (void)cx, (void)which;
}

bool tcp_flush_pending(const struct stack *st)
{
    (void)st;
    return world.flushes_pending > 0;
}

void tcp_flush(struct stack_cx *cx)
{
    (void)cx;
    world.nflushes++;
    world.flushes_pending--;
}

void tcp_repair(struct stack_cx *cx)
{
    (void)cx;
}

void tcp_repair_end(struct stack_cx *cx)
{
    (void)cx;
}
