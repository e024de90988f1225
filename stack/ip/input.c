/* Frames that arrive: Ethernet, IPv4, and who gets the payload. */
#include "stack/ip/layer.h"
#include "stack/util/checksum.h"

void ip_drop(struct stack_cx *cx, enum stack_counter why, uint32_t len)
{
    stack_count(cx->st, why);
    TRACE(cx, LINK, NULL, DROPPED, (uintptr_t)stack_counter_names[why], len);
}

void ip_deliver(struct stack_cx *cx, const struct ip_packet *p, uint8_t proto)
{
    switch (proto) {
    case IPPROTO_TCP_:
        tcp_input(cx, p);
        break;
    case IPPROTO_ICMP_:
        icmp_input(cx, p);
        break;
    default:
        ip_drop(cx, COUNT_BAD_PROTO, p->len);
    }
}

/* Whether a packet from this address may arrive by this interface (RFC 1122 3.2.1.3). */
static bool source_sane(const struct stack *st, const struct netif *nif, const struct ip_addr *src)
{
    const uint32_t v4 = ip_addr_v4(src);
    if (ip4_is_this_network(v4) || ip4_is_multicast(v4) || ip4_is_limited_broadcast(v4))
        return false;
    if (nif->kind == NETIF_LOOPBACK)
        return true;
    return !ip4_is_loopback(v4) && !ip_is_subnet_broadcast(nif, src) && !ip_is_own(st, src);
}

static bool destination_ours(const struct stack *st, const struct netif *nif,
                             const struct ip_addr *dst)
{
    if (nif->kind == NETIF_LOOPBACK)
        return ip_is_local(st, dst);
    return ip_own_index(nif, dst) >= 0 || ip_is_own(st, dst);
}

/*
 * Walks the options (RFC 791 3.1). None concerns us; false when they are malformed or ask for
 * source routing, which Linux refuses by default (accept_source_route).
 */
static bool options_ok(const uint8_t *opt, uint32_t len)
{
    enum { END = 0, NOP = 1, LOOSE_ROUTE = 131, STRICT_ROUTE = 137 };
    for (uint32_t i = 0; i < len && opt[i] != END;) {
        if (opt[i] == NOP) {
            i++;
            continue;
        }
        if (opt[i] == LOOSE_ROUTE || opt[i] == STRICT_ROUTE)
            return false;
        if (i + 1 >= len || opt[i + 1] < 2 || opt[i + 1] > len - i)
            return false;
        i += opt[i + 1];
    }
    return true;
}

/* data: from the IP header on, len bytes; src_mac: NULL where the link has none. */
static void ip4_input(struct stack_cx *cx, const struct frame_in *frame, const uint8_t *data,
                      uint32_t len, const uint8_t *src_mac)
{
    const struct stack *st = cx->st;
    const struct netif *nif = &st->netifs[frame->netif];
    if (len < IP4_HEADER) {
        ip_drop(cx, COUNT_SHORT_FRAME, frame->len);
        return;
    }
    const uint32_t header = (data[0] & 0x0fu) * 4u;
    const uint32_t total = get_be16(data + 2);
    if (data[0] >> 4 != 4 || header < IP4_HEADER || total < header) {
        ip_drop(cx, COUNT_BAD_IP, frame->len);
        return;
    }
    if (total > len) {
        ip_drop(cx, COUNT_SHORT_FRAME, frame->len);
        return;
    }
    if (csum_fold(csum_add(0, data, header, false)) != 0xffff) {
        ip_drop(cx, COUNT_BAD_IP_CSUM, frame->len);
        return;
    }

    uint32_t src4, dst4;
    memcpy(&src4, data + 12, 4);
    memcpy(&dst4, data + 16, 4);
    /* what lies between total and len is Ethernet's padding */
    struct ip_packet p = {
        .src = ip_addr_from_v4(src4),
        .dst = ip_addr_from_v4(dst4),
        .payload = data + header,
        .len = total - header,
        .tos = data[1],
        .ttl = data[8],
        .csum_trusted = frame->csum_trusted,
        .gso_size = frame->gso_size,
        .netif = frame->netif,
        .place = frame->place,
    };
    if (src_mac != NULL)
        memcpy(p.src_mac, src_mac, 6);
    if (!destination_ours(st, nif, &p.dst)) {
        stack_count(cx->st, COUNT_NOT_OURS); /* not traced: much of a shared link is */
        return;
    }
    if (!source_sane(st, nif, &p.src)) {
        ip_drop(cx, COUNT_BAD_SOURCE, frame->len);
        return;
    }
    const uint32_t fragment = get_be16(data + 6);
    if (!options_ok(data + IP4_HEADER, header - IP4_HEADER)) {
        ip_drop(cx, COUNT_BAD_IP, frame->len);
        return;
    }
    if ((fragment & (IP4_MF | IP4_OFFSET_MASK)) == 0) {
        ip_deliver(cx, &p, data[9]);
        return;
    }
    frag_input(cx, &p, data[9], get_be16(data + 4), (fragment & IP4_OFFSET_MASK) * 8,
               (fragment & IP4_MF) != 0);
}

static void eth_input(struct stack_cx *cx, const struct frame_in *frame)
{
    const struct netif *nif = &cx->st->netifs[frame->netif];
    if (frame->len < ETH_HEADER) {
        ip_drop(cx, COUNT_SHORT_FRAME, frame->len);
        return;
    }
    const uint8_t *dst = frame->data, *src = frame->data + 6;
    const bool group = mac_is_group(dst);
    if (!group && memcmp(dst, nif->mac, 6) != 0) {
        stack_count(cx->st, COUNT_NOT_OURS); /* promiscuous mode */
        return;
    }
    if (mac_is_group(src)) {
        ip_drop(cx, COUNT_BAD_ETHER, frame->len);
        return;
    }
    const uint8_t *data = frame->data + ETH_HEADER;
    const uint32_t len = frame->len - ETH_HEADER;
    switch (get_be16(frame->data + 12)) {
    case ETH_TYPE_ARP:
        arp_input(cx, frame->netif, data, len);
        break;
    case ETH_TYPE_IP4:
        /*
         * RFC 1122 4.2.3.10 forbids TCP by broadcast, 3.2.2.6 lets echo requests by broadcast go
         * unanswered, and an error about a unicast packet does not come by broadcast.
         */
        if (group)
            ip_drop(cx, COUNT_NOT_OURS, frame->len);
        else
            ip4_input(cx, frame, data, len, src);
        break;
    case ETH_TYPE_IP6:
        ip_drop(cx, COUNT_BAD_PROTO, frame->len);
        break;
    default:
        ip_drop(cx, COUNT_BAD_ETHER, frame->len);
    }
}

void ip_input(struct stack_cx *cx, const struct frame_in *frame)
{
    const struct stack *st = cx->st;
    if (frame->netif >= st->nnetifs || !st->netifs[frame->netif].up) {
        ip_drop(cx, COUNT_NOT_OURS, frame->len);
        return;
    }
    if (st->netifs[frame->netif].kind == NETIF_ETHERNET) {
        eth_input(cx, frame);
        return;
    }
    /* the IP header's version is all that tells the protocol here */
    if (frame->len > 0 && frame->data[0] >> 4 == 6)
        ip_drop(cx, COUNT_BAD_PROTO, frame->len);
    else
        ip4_input(cx, frame, frame->data, frame->len, NULL);
}
