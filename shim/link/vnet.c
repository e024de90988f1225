#include "shim/link/vnet.h"

#include <errno.h>

#include "stack/tcp/chunk.h"

/* Frames above this have one piece; below it that would come from the processor's lists, too. */
#define ONE_PIECE_MIN (32u << 10)
/* What fits 64 KB with what the kernel puts in front and behind (struct skb_shared_info). */
#define ONE_PIECE_MAX ((64u << 10) - 640)
/* Where memory is in small pieces it stays so for a while; to look for a large one takes time. */
#define PAGES_FOR NSEC_PER_SEC

static nsec_t pages_until;

/* So many bytes of text in front make what lies in pages begin where a line of the chunk does. */
static uint32_t up_to_line(const struct frame_out *f)
{
    const uint32_t before = (uint32_t) - (uintptr_t)f->slices[0].base % CHUNK_LINE;
    return before < f->slices[0].len ? before : 0;
}

void vnet_describe(struct virtio_net_hdr *h, const struct frame_out *f, nsec_t now)
{
    *h = (struct virtio_net_hdr){.gso_type = VIRTIO_NET_HDR_GSO_NONE};
    if (!f->csum_partial)
        return;
    h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    h->csum_start = (uint16_t)(f->l4 - f->head_start);
    h->csum_offset = f->csum_offset;
    if (f->gso_size == 0 || f->payload_len <= f->gso_size)
        return;
    const uint32_t head = (uint32_t)f->head_end - f->head_start, all = head + f->payload_len;
    h->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    h->gso_size = f->gso_size;
    h->hdr_len = (uint16_t)(all > ONE_PIECE_MIN && now >= pages_until ? min_u32(all, ONE_PIECE_MAX)
                                                                      : head + up_to_line(f));
}

bool vnet_to_pages(struct virtio_net_hdr *h, size_t head, int err, nsec_t now)
{
    if (err != -ENOBUFS || h->hdr_len <= ONE_PIECE_MIN)
        return false;
    h->hdr_len = (uint16_t)head;
    pages_until = now + PAGES_FOR;
    return true;
}
