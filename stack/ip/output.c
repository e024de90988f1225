/* Packets on their way out: headers, checksums, the neighbour's MAC. */
#include <errno.h>

#include "stack/ip/layer.h"
#include "stack/util/checksum.h"

/* Hands the frame to the link. */
static int transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    /* the link may take a while, and a process that is killed is mostly found here */
    cx->st->transmitting = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    const int err = cx->ops->transmit(cx, frame);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    cx->st->transmitting = false;
    stack_count(cx->st, err < 0 ? COUNT_TX_FAILED : COUNT_FRAMES_OUT);
    return err < 0 ? err : 0;
}

int eth_send(struct stack_cx *cx, struct frame_out *frame, const uint8_t dst[6], uint16_t type)
{
    frame->head_start -= ETH_HEADER;
    uint8_t *eth = frame->head + frame->head_start;
    memcpy(eth, dst, 6);
    memcpy(eth + 6, cx->st->netifs[frame->netif].mac, 6);
    put_be16(eth + 12, type);
    return transmit(cx, frame);
}

/* Where a transport's checksum lies in its header; and whether it covers a pseudo header. */
static void transport_checksum(const struct ip_out *how, struct frame_out *frame, bool partial)
{
    uint8_t *l4 = frame->head + frame->l4;
    const uint32_t header = (uint32_t)(frame->head_end - frame->l4);
    const bool tcp = frame->l4_proto == IPPROTO_TCP_;
    frame->csum_offset = tcp ? 16 : 2; /* RFC 9293 3.1, RFC 792 */
    frame->csum_partial = partial && tcp;

    uint64_t sum = 0;
    if (tcp)
        sum = csum_pseudo(how->src, how->dst, IPPROTO_TCP_, header + frame->payload_len);
    uint16_t check;
    if (frame->csum_partial) {
        check = csum_fold(sum);
    } else {
        memset(l4 + frame->csum_offset, 0, 2);
        sum = csum_add(sum, l4, header, false);
        bool odd = (header & 1) != 0;
        for (unsigned i = 0; i < frame->nslices; i++) {
            sum = csum_add(sum, frame->slices[i].base, frame->slices[i].len, odd);
            odd ^= (frame->slices[i].len & 1) != 0;
        }
        check = (uint16_t)~csum_fold(sum);
    }
    memcpy(l4 + frame->csum_offset, &check, sizeof(check));
}

/* Writes the IPv4 header (RFC 791 3.1) in front of the transport header. */
static void ip4_header(struct stack *st, const struct ip_out *how, struct frame_out *frame,
                       uint32_t total)
{
    frame->head_start = (uint16_t)(frame->l4 - IP4_HEADER);
    uint8_t *ip = frame->head + frame->head_start;
    const uint32_t src = ip_addr_v4(how->src), dst = ip_addr_v4(how->dst);
    /*
     * RFC 6864 4.1: the identification means nothing with DF set; a counter, as Linux has it, that
     * GSO continues. Without DF it must not be guessed from other packets of ours.
     */
    uint16_t id;
    if (how->fragment != NULL) {
        id = how->fragment->id;
    } else if (how->df) {
        id = st->ip.next_id++;
        if (frame->gso_size != 0)
            st->ip.next_id += (uint16_t)((frame->payload_len - 1) / frame->gso_size);
    } else {
        id = (uint16_t)rng_u64(&st->rng);
    }
    ip[0] = 0x45;
    ip[1] = how->tos;
    put_be16(ip + 2, (uint16_t)total);
    put_be16(ip + 4, id);
    put_be16(ip + 6, how->fragment != NULL ? how->fragment->field : how->df ? IP4_DF : 0);
    ip[8] = how->ttl;
    ip[9] = frame->l4_proto;
    memset(ip + 10, 0, 2);
    memcpy(ip + 12, &src, 4);
    memcpy(ip + 16, &dst, 4);
    const uint16_t check = (uint16_t)~csum_fold(csum_add(0, ip, IP4_HEADER, false));
    memcpy(ip + 10, &check, 2);
}

static uint32_t ip4_total(const struct frame_out *frame)
{
    return IP4_HEADER + (uint32_t)(frame->head_end - frame->l4) + frame->payload_len;
}

int ip_send_whole(struct stack_cx *cx, const struct ip_out *how, struct frame_out *frame)
{
    struct stack *st = cx->st;
    const struct netif *nif = &st->netifs[how->path->netif];
    const uint32_t total = ip4_total(frame);
    if (frame->gso_size == 0 && total > nif->mtu)
        return -EMSGSIZE;

    frame->netif = how->path->netif;
    /* a link that cuts a frame into segments makes each one's checksum */
    if (how->fragment == NULL)
        transport_checksum(how, frame, nif->csum_offload || frame->gso_size != 0);
    else
        frame->csum_partial = false;
    ip4_header(st, how, frame, total);

    if (nif->kind == NETIF_LOOPBACK)
        return loopback_send(cx, frame);
    if (nif->kind == NETIF_RAW_IP)
        return transmit(cx, frame);
    if (how->path->mac_known)
        return eth_send(cx, frame, how->path->mac, ETH_TYPE_IP4);
    uint8_t mac[6];
    const int known = arp_resolve(cx, frame, ip_addr_v4(&how->path->next_hop), mac);
    if (known <= 0)
        return known;
    return eth_send(cx, frame, mac, ETH_TYPE_IP4);
}

int ip_send(struct stack_cx *cx, const struct ip_out *how, struct frame_out *frame)
{
    const struct stack *st = cx->st;
    if (how->path->netif >= st->nnetifs || !st->netifs[how->path->netif].up)
        return -ENETDOWN;
    const struct netif *nif = &st->netifs[how->path->netif];
    if (!ip_addr_is_v4(how->dst) || !ip_addr_is_v4(how->src))
        return -EAFNOSUPPORT;

    if (frame->payload_len <= frame->gso_size)
        frame->gso_size = 0;
    const uint32_t total = ip4_total(frame);
    const uint32_t l2 = nif->kind == NETIF_ETHERNET ? ETH_HEADER : 0;
    const uint32_t most = nif->kind == NETIF_LOOPBACK ? PACKET_LARGE_DATA : FRAME_BYTES_MAX - l2;
    if (frame->gso_size != 0 && (!nif->gso || total > most))
        return ip_send_segments(cx, how, frame);
    return ip_send_whole(cx, how, frame);
}
