/* Buffers for packets that the network layer keeps for a while. */
#include "stack/ip/layer.h"

uint32_t packet_cost(uint32_t len)
{
    return len <= PACKET_SMALL_DATA ? PACKET_SMALL_SIZE : PACKET_LARGE_SIZE;
}

struct packet_buf *packet_alloc(struct stack *st, uint32_t len)
{
    const bool large = len > PACKET_SMALL_DATA;
    if (len > PACKET_LARGE_DATA)
        return NULL;
    struct packet_buf *b = pool_alloc_raw(large ? &st->ip.large : &st->ip.small);
    if (b == NULL) {
        stack_count(st, COUNT_NO_MEMORY);
        return NULL;
    }
    *b = (struct packet_buf){.len = len, .large = large};
    list_init(&b->link);
    return b;
}

void packet_free(struct stack *st, struct packet_buf *b)
{
    list_remove(&b->link);
    pool_free(b->large ? &st->ip.large : &st->ip.small, b);
}

void packet_fill(struct packet_buf *b, const struct frame_out *frame)
{
    uint32_t at = (uint32_t)(frame->head_end - frame->head_start);
    memcpy(b->data, frame->head + frame->head_start, at);
    for (unsigned i = 0; i < frame->nslices; i++) {
        memcpy(b->data + at, frame->slices[i].base, frame->slices[i].len);
        at += (uint32_t)frame->slices[i].len;
    }
}
