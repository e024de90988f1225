/* Where addresses lie: on this host, on the link, behind the gateway. */
#include <errno.h>

#include "stack/ip/layer.h"

int ip_own_index(const struct netif *nif, const struct ip_addr *addr)
{
    for (unsigned i = 0; i < nif->naddrs; i++) {
        if (ip_addr_eq(&nif->addrs[i].addr, addr))
            return (int)i;
    }
    return -1;
}

bool ip_is_own(const struct stack *st, const struct ip_addr *addr)
{
    for (unsigned n = 0; n < st->nnetifs; n++) {
        if (ip_own_index(&st->netifs[n], addr) >= 0)
            return true;
    }
    return false;
}

bool ip_is_local(const struct stack *st, const struct ip_addr *addr)
{
    if (st->config.loopback && ip_addr_is_v4(addr) && ip4_is_loopback(ip_addr_v4(addr)))
        return true;
    return ip_is_own(st, addr);
}

/* Whether the first `bits` bits are equal. */
static bool prefix_eq(const struct ip_addr *a, const struct ip_addr *b, unsigned bits)
{
    const unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a->b, b->b, whole) != 0)
        return false;
    return rest == 0 || ((a->b[whole] ^ b->b[whole]) & (0xff << (8 - rest))) == 0;
}

bool ip_is_subnet_broadcast(const struct netif *nif, const struct ip_addr *addr)
{
    for (unsigned i = 0; i < nif->naddrs; i++) {
        const unsigned prefix = nif->addrs[i].prefix;
        /* RFC 3021: a /31 has no broadcast address, a /32 neither */
        if (prefix < 96 || prefix > 126 || !prefix_eq(&nif->addrs[i].addr, addr, prefix))
            continue;
        const uint32_t host = UINT32_MAX >> (prefix - 96);
        if ((get_be32(&addr->b[12]) & host) == host)
            return true;
    }
    return false;
}

/* The source address for packets that leave by nif towards next_hop. */
static int source_index(const struct netif *nif, const struct ip_addr *next_hop)
{
    for (unsigned i = 0; i < nif->naddrs; i++) {
        if (prefix_eq(&nif->addrs[i].addr, next_hop, nif->addrs[i].prefix))
            return (int)i;
    }
    return nif->naddrs > 0 ? 0 : -1;
}

/* The on-link interface with the longest prefix that holds dst. */
static bool route_on_link(const struct stack *st, const struct ip_addr *dst, struct ip_path *path,
                          struct ip_addr *src)
{
    int best = -1;
    for (unsigned n = NETIF_LOOP + 1; n < st->nnetifs; n++) {
        const struct netif *nif = &st->netifs[n];
        for (unsigned i = 0; nif->up && i < nif->naddrs; i++) {
            const int prefix = nif->addrs[i].prefix;
            if (prefix <= best || !prefix_eq(&nif->addrs[i].addr, dst, (unsigned)prefix))
                continue;
            best = prefix;
            *path = (struct ip_path){.netif = (uint8_t)n, .next_hop = *dst};
            *src = nif->addrs[i].addr;
        }
    }
    return best >= 0;
}

static bool route_gateway(const struct stack *st, struct ip_path *path, struct ip_addr *src)
{
    for (unsigned n = NETIF_LOOP + 1; n < st->nnetifs; n++) {
        const struct netif *nif = &st->netifs[n];
        if (!nif->up || ip_addr_is_any(&nif->gateway))
            continue;
        const int i = source_index(nif, &nif->gateway);
        if (i < 0)
            continue;
        *path = (struct ip_path){.netif = (uint8_t)n, .next_hop = nif->gateway};
        *src = nif->addrs[i].addr;
        return true;
    }
    return false;
}

int ip_route(struct stack *st, const struct ip_addr *dst, struct ip_path *path, struct ip_addr *src)
{
    if (!ip_addr_is_v4(dst))
        return -ENETUNREACH;
    const uint32_t dst4 = ip_addr_v4(dst);
    const bool loopback = ip4_is_loopback(dst4);
    if (loopback || ip_is_own(st, dst)) {
        if (!st->config.loopback)
            return -ENETUNREACH; /* the kernel's business */
        *path = (struct ip_path){.netif = NETIF_LOOP, .next_hop = *dst};
        /* as Linux: an own address talks to itself, 127/8 is spoken to from 127.0.0.1 */
        *src = loopback ? ip_addr_from_v4(__builtin_bswap32(0x7f000001)) : *dst;
        return 0;
    }
    if (ip4_is_this_network(dst4) || ip4_is_multicast(dst4) || ip4_is_limited_broadcast(dst4))
        return -ENETUNREACH;
    if (route_on_link(st, dst, path, src)) {
        if (ip_is_subnet_broadcast(&st->netifs[path->netif], dst))
            return -ENETUNREACH;
        return 0;
    }
    return route_gateway(st, path, src) ? 0 : -ENETUNREACH;
}

void ip_path_reply(const struct ip_packet *p, struct ip_path *path)
{
    *path = (struct ip_path){.netif = p->netif, .next_hop = p->src};
    if (!mac_is_zero(p->src_mac)) {
        path->mac_known = true;
        memcpy(path->mac, p->src_mac, sizeof(path->mac));
    }
}

uint32_t ip_path_mtu(const struct stack *st, const struct ip_path *path)
{
    const struct netif *nif = path->netif < st->nnetifs ? &st->netifs[path->netif] : NULL;
    uint32_t mtu = nif ? nif->mtu : 0;
    /* no frame is larger than AF_PACKET takes: Linux's 65,535 (veth) with its L2 header would be */
    if (nif && nif->kind == NETIF_ETHERNET)
        mtu = min_u32(mtu, FRAME_BYTES_MAX - ETH_HEADER);
    return path->mtu != 0 && path->mtu < mtu ? path->mtu : mtu;
}
