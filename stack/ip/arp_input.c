/*
 * ARP packets (RFC 826), and the defence of our own addresses (RFC 5227): probes before one is
 * taken, announcements when it is, and what is done about a station that claims it as well.
 *
 * Only an interface with answers_arp has addresses of its own; elsewhere the kernel does all this
 * for the same addresses, and the table just listens.
 */
#include "stack/ip/layer.h"

#define ARP_PACKET_LEN 28u
#define ARP_HTYPE_ETH  1u

/* RFC 5227 1.1 */
#define ANNOUNCE_NUM      2
#define ANNOUNCE_INTERVAL (2 * NSEC_PER_SEC)
#define DEFEND_INTERVAL   (10 * NSEC_PER_SEC)
/* How long after a probe an answer is waited for. */
#define PROBE_WAIT NSEC_PER_SEC
/* Humans are told once a minute. */
#define WARN_INTERVAL (60 * NSEC_PER_SEC)

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

void arp_transmit(struct stack_cx *cx, uint8_t netif, const uint8_t dst[6],
                  const struct arp_packet *p)
{
    struct frame_out frame;
    frame.netif = netif;
    frame.l4_proto = 0;
    frame.head_start = FRAME_HEADROOM;
    frame.head_end = FRAME_HEADROOM + ARP_PACKET_LEN;
    frame.l4 = frame.head_end;
    frame.gso_size = 0;
    frame.lasting = false;
    frame.csum_partial = false;
    frame.csum_offset = 0;
    frame.payload_len = 0;
    frame.nslices = 0;
    uint8_t *arp = frame.head + FRAME_HEADROOM;
    put_be16(arp, ARP_HTYPE_ETH);
    put_be16(arp + 2, ETH_TYPE_IP4);
    arp[4] = 6;
    arp[5] = 4;
    put_be16(arp + 6, p->op);
    memcpy(arp + 8, p->sha, 6);
    memcpy(arp + 14, &p->spa, 4);
    memcpy(arp + 18, p->tha, 6);
    memcpy(arp + 24, &p->tpa, 4);
    eth_send(cx, &frame, dst, ETH_TYPE_ARP);
}

/* ---- own addresses ---- */

/* A request for addr that nobody is meant to answer: spa is addr (announcement) or 0 (probe). */
static void ask_for_own(struct stack_cx *cx, uint8_t netif, uint32_t addr4, uint32_t spa)
{
    struct arp_packet p = {.op = ARP_REQUEST, .spa = spa, .tpa = addr4};
    memcpy(p.sha, cx->st->netifs[netif].mac, 6);
    arp_transmit(cx, netif, broadcast, &p);
}

static void announce(struct stack_cx *cx, uint8_t netif, unsigned index)
{
    struct ip_own *own = &cx->st->ip.own[netif][index];
    const uint32_t addr4 = ip_addr_v4(&cx->st->netifs[netif].addrs[index].addr);
    own->claimed = true;
    ask_for_own(cx, netif, addr4, addr4);
    if (own->announces > 0 && --own->announces > 0)
        wheel_arm(&cx->st->wheel, &own->timer, cx->now + ANNOUNCE_INTERVAL);
}

void ip_netif_added(struct stack *st, unsigned index)
{
    const struct netif *nif = &st->netifs[index];
    if (!nif->answers_arp || nif->kind != NETIF_ETHERNET)
        return;
    for (unsigned i = 0; i < nif->naddrs; i++)
        st->ip.own[index][i].announces = ANNOUNCE_NUM;
    st->ip.announce_pending = true;
}

void ip_announce(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    st->ip.announce_pending = false;
    for (unsigned n = 0; n < st->nnetifs; n++) {
        for (unsigned i = 0; i < st->netifs[n].naddrs; i++) {
            const struct ip_own *own = &st->ip.own[n][i];
            if (own->announces == ANNOUNCE_NUM && own->probing_until == 0)
                announce(cx, (uint8_t)n, i);
        }
    }
}

void arp_probe(struct stack_cx *cx, uint8_t netif, const struct ip_addr *addr)
{
    struct stack *st = cx->st;
    if (netif >= st->nnetifs || st->netifs[netif].kind != NETIF_ETHERNET || !ip_addr_is_v4(addr))
        return;
    const int index = ip_own_index(&st->netifs[netif], addr);
    if (index >= 0 && st->netifs[netif].answers_arp) {
        struct ip_own *own = &st->ip.own[netif][index];
        own->claimed = false;
        own->announces = ANNOUNCE_NUM;
        own->probing_until = cx->now + PROBE_WAIT;
        wheel_arm(&st->wheel, &own->timer, own->probing_until);
    }
    ask_for_own(cx, netif, ip_addr_v4(addr), 0);
}

void arp_own_timer(struct stack_cx *cx, struct ip_own *own)
{
    const size_t at = (size_t)(own - &cx->st->ip.own[0][0]);
    const uint8_t netif = (uint8_t)(at / NETIF_ADDRS_MAX);
    const unsigned index = at % NETIF_ADDRS_MAX;
    own->probing_until = 0;
    if (index < cx->st->netifs[netif].naddrs && own->announces > 0)
        announce(cx, netif, index);
}

/* Another station uses or wants an own address (RFC 5227 2.1.1 and 2.4). */
static void conflict(struct stack_cx *cx, uint8_t netif, unsigned index)
{
    struct stack *st = cx->st;
    struct ip_own *own = &st->ip.own[netif][index];
    const struct ip_addr *addr = &st->netifs[netif].addrs[index].addr;
    const nsec_t now = max_u64(cx->now, 1); /* 0 stands for never */

    st->netifs[netif].addrs[index].conflict = true;
    TRACE(cx, LINK, NULL, ARP_CONFLICT, ip_addr_v4(addr));
    if (own->warned == 0 || now - own->warned >= WARN_INTERVAL) {
        own->warned = now;
        if (cx->ops->warn != NULL)
            cx->ops->warn(cx, "another station on the network claims our address", addr);
    }
    if (!own->claimed) {
        own->announces = 0;
        own->probing_until = 0;
        wheel_cancel(&st->wheel, &own->timer);
        return;
    }
    if (own->defended == 0 || now - own->defended >= DEFEND_INTERVAL) {
        own->defended = now;
        ask_for_own(cx, netif, ip_addr_v4(addr), ip_addr_v4(addr));
    }
}

/* Whether the engine answers for the address: not while it is probed for, nor when the probe
 * failed. */
static bool answers_for(const struct stack *st, uint8_t netif, unsigned index)
{
    const struct netif *nif = &st->netifs[netif];
    const struct ip_own *own = &st->ip.own[netif][index];
    return nif->answers_arp && own->probing_until == 0 &&
           (own->claimed || !nif->addrs[index].conflict);
}

/* ---- packets ---- */

/* Every field that RFC 826 and RFC 5227 fix. */
static bool arp_parse(const uint8_t *data, uint32_t len, struct arp_packet *p)
{
    if (len < ARP_PACKET_LEN || get_be16(data) != ARP_HTYPE_ETH ||
        get_be16(data + 2) != ETH_TYPE_IP4 || data[4] != 6 || data[5] != 4)
        return false;
    p->op = get_be16(data + 6);
    memcpy(p->sha, data + 8, 6);
    memcpy(&p->spa, data + 14, 4);
    memcpy(p->tha, data + 18, 6);
    memcpy(&p->tpa, data + 24, 4);
    if (p->op != ARP_REQUEST && p->op != ARP_REPLY)
        return false;
    if (mac_is_group(p->sha) || mac_is_zero(p->sha))
        return false;
    /* 0.0.0.0 asks in a probe, and answers never */
    if (p->spa == 0 ? p->op != ARP_REQUEST : ip4_is_this_network(p->spa))
        return false;
    return !ip4_is_loopback(p->spa) && !ip4_is_multicast(p->spa) &&
           !ip4_is_limited_broadcast(p->spa) && !ip4_is_loopback(p->tpa) &&
           !ip4_is_multicast(p->tpa);
}

/* Enters the sender into the table: when it spoke to us, or was there before. */
static void learn_sender(struct stack_cx *cx, uint8_t netif, const struct arp_packet *p, bool to_us)
{
    struct stack *st = cx->st;
    const struct netif *nif = &st->netifs[netif];
    struct arp_entry *e = arp_find(st, netif, p->spa);
    if (e == NULL && to_us && p->op == ARP_REQUEST)
        e = arp_add_heard(st, netif, p->spa);
    if (e == NULL)
        return;
    const bool answer = p->op == ARP_REPLY && memcmp(p->tha, nif->mac, 6) == 0;
    arp_update(cx, e, p->sha, answer);
}

void arp_input(struct stack_cx *cx, uint8_t netif, const uint8_t *data, uint32_t len)
{
    struct stack *st = cx->st;
    const struct netif *nif = &st->netifs[netif];
    struct arp_packet p;
    if (!arp_parse(data, len, &p)) {
        ip_drop(cx, COUNT_BAD_ARP, len);
        return;
    }
    if (memcmp(p.sha, nif->mac, 6) == 0)
        return; /* our own, come back */

    const struct ip_addr spa = ip_addr_from_v4(p.spa), tpa = ip_addr_from_v4(p.tpa);
    const int sender = ip_own_index(nif, &spa), target = ip_own_index(nif, &tpa);
    if (sender >= 0) {
        if (nif->answers_arp)
            conflict(cx, netif, (unsigned)sender);
        return; /* never an entry for an own address */
    }
    const struct ip_own *own = target >= 0 ? &st->ip.own[netif][target] : NULL;
    if (p.spa == 0 && own != NULL && own->probing_until != 0) {
        conflict(cx, netif, (unsigned)target); /* it probes for what we probe for */
        return;
    }
    if (p.spa != 0 && !ip_is_own(st, &spa))
        learn_sender(cx, netif, &p, target >= 0);
    if (p.op == ARP_REQUEST && target >= 0 && answers_for(st, netif, (unsigned)target)) {
        struct arp_packet reply = {.op = ARP_REPLY, .spa = p.tpa, .tpa = p.spa};
        memcpy(reply.sha, nif->mac, 6);
        memcpy(reply.tha, p.sha, 6);
        arp_transmit(cx, netif, p.sha, &reply);
    }
}
