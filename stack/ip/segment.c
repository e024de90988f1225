/*
 * Segmentation in software, for a link that takes no frame above its MTU: what the kernel's or the
 * card's TSO would do.
 */
#include "stack/ip/layer.h"
#include "stack/tcp/wire.h"

/* Offsets in the TCP header (RFC 9293 3.1). */
#define TCP_OFF_SEQ   4
#define TCP_OFF_FLAGS 13
#define TCP_OFF_URG   18

/* Sets the slices of `to` to bytes [skip, skip + len) of the payload of `from`. */
static void take_slices(struct frame_out *to, const struct frame_out *from, uint32_t skip,
                        uint32_t len)
{
    to->nslices = 0;
    to->payload_len = len;
    for (unsigned i = 0; i < from->nslices && len > 0; i++) {
        const struct slice *s = &from->slices[i];
        if (skip >= s->len) {
            skip -= (uint32_t)s->len;
            continue;
        }
        const uint32_t n = (uint32_t)min_u64(s->len - skip, len);
        to->slices[to->nslices++] = (struct slice){(uint8_t *)s->base + skip, n};
        skip = 0;
        len -= n;
    }
}

/* Makes the copied TCP header that of the segment `at` bytes into the payload. */
static void adapt_header(uint8_t *tcp, uint32_t at, bool last)
{
    put_be32(tcp + TCP_OFF_SEQ, get_be32(tcp + TCP_OFF_SEQ) + at);
    uint8_t flags = tcp[TCP_OFF_FLAGS];
    if (!last)
        flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (at > 0)
        flags &= (uint8_t)~TCP_CWR; /* RFC 3168 6.1.2: said once */
    /* the urgent pointer counts from the segment's own sequence number (RFC 9293 3.8.5) */
    if ((flags & TCP_URG) != 0) {
        const uint16_t urg = get_be16(tcp + TCP_OFF_URG);
        if (urg >= at) {
            put_be16(tcp + TCP_OFF_URG, (uint16_t)(urg - at));
        } else {
            flags &= (uint8_t)~TCP_URG;
            put_be16(tcp + TCP_OFF_URG, 0);
        }
    }
    tcp[TCP_OFF_FLAGS] = flags;
}

int ip_send_segments(struct stack_cx *cx, const struct ip_out *how, const struct frame_out *frame)
{
    const uint32_t size = frame->gso_size;
    for (uint32_t at = 0; at < frame->payload_len; at += size) {
        const bool last = frame->payload_len - at <= size;
        struct frame_out piece;
        piece.l4_proto = frame->l4_proto;
        piece.l4 = frame->l4;
        piece.head_end = frame->head_end;
        piece.gso_size = 0;
        piece.lasting = false;
        memcpy(piece.head + frame->l4, frame->head + frame->l4,
               (size_t)(frame->head_end - frame->l4));
        take_slices(&piece, frame, at, last ? frame->payload_len - at : size);
        adapt_header(piece.head + piece.l4, at, last);
        /* what follows a segment that could not be sent would only be a hole for the peer */
        const int err = ip_send_whole(cx, how, &piece);
        if (err < 0)
            return err;
    }
    return 0;
}
