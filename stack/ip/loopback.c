/*
 * The loopback inside the stack: ip_send() leaves a copy in a queue, stack_flush() delivers it
 * through ip_input() like any frame. So no segment is processed inside the sending of another.
 */
#include <errno.h>

#include "stack/ip/layer.h"

int loopback_send(struct stack_cx *cx, const struct frame_out *frame)
{
    struct ip_stack *ip = &cx->st->ip;
    const uint32_t len = (uint32_t)(frame->head_end - frame->head_start) + frame->payload_len;
    const uint32_t cost = packet_cost(len);
    if (ip->loopback_packets >= LOOPBACK_PACKETS_MAX ||
        ip->loopback_bytes + cost > LOOPBACK_BYTES_MAX) {
        stack_count(cx->st, COUNT_TX_FAILED);
        return -ENOBUFS;
    }
    struct packet_buf *b = packet_alloc(cx->st, len);
    if (b == NULL) {
        stack_count(cx->st, COUNT_TX_FAILED);
        return -ENOBUFS;
    }
    packet_fill(b, frame);
    b->gso_size = frame->gso_size;
    list_push_back(&ip->loopback, &b->link);
    ip->loopback_packets++;
    ip->loopback_bytes += cost;
    return 0;
}

bool ip_loopback_pending(const struct stack *st)
{
    return st->ip.loopback_packets != 0;
}

void ip_loopback_run(struct stack_cx *cx)
{
    struct ip_stack *ip = &cx->st->ip;
    /* those that are there now: what they cause is for the next round, after tcp_flush() */
    for (uint32_t n = ip->loopback_packets; n > 0; n--) {
        struct list *first = list_pop_front(&ip->loopback);
        if (first == NULL)
            break;
        struct packet_buf *b = list_entry(first, struct packet_buf, link);
        ip->loopback_packets--;
        ip->loopback_bytes -= packet_cost(b->len);
        const struct frame_in frame = {
            .data = b->data,
            .len = b->len,
            .netif = NETIF_LOOP,
            .csum_trusted = true,
            .gso_size = b->gso_size,
        };
        if (cx->ops->looped != NULL)
            cx->ops->looped(cx, &frame);
        ip_input(cx, &frame);
        packet_free(cx->st, b);
    }
}
