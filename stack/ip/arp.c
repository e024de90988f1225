/*
 * The neighbour table: which MAC an address on the link has (RFC 826), when it is asked for, and
 * the frames that wait for the answer. The states are Linux's for neighbours without DELAY: an
 * entry that was not confirmed for ARP_REACHABLE_TIME goes on being used and is asked again, by
 * unicast first, as soon as it is used (RFC 1122 2.3.2.1, method 2).
 */
#include <errno.h>

#include "stack/ip/layer.h"

#define ARP_REACHABLE_TIME (30 * NSEC_PER_SEC)
#define ARP_RETRANS_TIME   NSEC_PER_SEC
#define ARP_TRIES          3
/* A neighbour that did not answer is not asked again at once: whoever sends to it learns so. */
#define ARP_FAILED_HOLD (200 * NSEC_PER_MSEC)
/* Linux's locktime: of two stations that claim an address, the first that answered stays. */
#define ARP_LOCK_TIME NSEC_PER_SEC

_Static_assert((ARP_BUCKETS & (ARP_BUCKETS - 1)) == 0, "a power of two");

void arp_init(struct stack *st)
{
    struct arp_table *t = &st->ip.arp;
    t->key = (struct siphash_key){rng_u64(&st->rng), rng_u64(&st->rng)};
    for (unsigned i = 0; i < ARP_BUCKETS; i++)
        list_init(&t->buckets[i]);
    list_init(&t->lru);
}

/* ---- the table ---- */

static struct list *bucket_of(struct arp_table *t, uint8_t netif, uint32_t addr4)
{
    const uint64_t name = (uint64_t)netif << 32 | addr4;
    return &t->buckets[siphash13(&t->key, &name, sizeof(name)) & (ARP_BUCKETS - 1)];
}

struct arp_entry *arp_find(struct stack *st, uint8_t netif, uint32_t addr4)
{
    struct list *bucket = bucket_of(&st->ip.arp, netif, addr4);
    list_for_each (n, bucket) {
        struct arp_entry *e = list_entry(n, struct arp_entry, hash_link);
        if (e->addr4 == addr4 && e->netif == netif)
            return e;
    }
    return NULL;
}

/* Moves the frames that wait for e to `to`: sending them may call back into the table. */
static void take_queue(struct stack *st, struct arp_entry *e, struct list *to)
{
    list_init(to);
    for (struct list *n; (n = list_pop_front(&e->queue)) != NULL;)
        list_push_back(to, n);
    st->ip.arp.nqueued -= e->nqueued;
    e->nqueued = 0;
}

static void drop_queue(struct stack *st, struct arp_entry *e)
{
    struct list queue;
    take_queue(st, e, &queue);
    for (struct list *n; (n = list_pop_front(&queue)) != NULL;) {
        packet_free(st, list_entry(n, struct packet_buf, link));
        stack_count(st, COUNT_TX_FAILED);
    }
}

void arp_hang(struct arp_table *t, struct arp_entry *e)
{
    list_push_back(bucket_of(t, e->netif, e->addr4), &e->hash_link);
    list_push_back(&t->lru, &e->lru_link);
}

/* A new entry, last of the table to be replaced; the one least lately used goes when it is full. */
static struct arp_entry *arp_add(struct stack *st, uint8_t netif, uint32_t addr4)
{
    struct arp_table *t = &st->ip.arp;
    struct arp_entry *e;
    if (t->used < ARP_ENTRIES_MAX) {
        e = &t->entries[t->used++];
    } else {
        e = list_first(&t->lru, struct arp_entry, lru_link);
        drop_queue(st, e);
        wheel_cancel(&st->wheel, &e->timer);
        list_remove(&e->hash_link);
        list_remove(&e->lru_link);
    }
    *e = (struct arp_entry){.addr4 = addr4, .netif = netif, .state = ARP_FREE};
    wheel_timer_init(&e->timer, IP_TIMER_ARP);
    list_init(&e->queue);
    arp_hang(t, e);
    return e;
}

struct arp_entry *arp_add_heard(struct stack *st, uint8_t netif, uint32_t addr4)
{
    struct arp_entry *e = arp_add(st, netif, addr4);
    list_remove(&e->lru_link);
    list_push_front(&st->ip.arp.lru, &e->lru_link);
    return e;
}

/* ---- asking ---- */

/* One request. By unicast where a MAC is known that may still be right (RFC 1122 2.3.2.1). */
static void arp_ask(struct stack_cx *cx, struct arp_entry *e)
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct netif *nif = &cx->st->netifs[e->netif];
    const struct ip_addr target = ip_addr_from_v4(e->addr4);
    struct ip_addr src;
    struct ip_path path;
    struct arp_packet request = {.op = ARP_REQUEST, .tpa = e->addr4};

    memcpy(request.sha, nif->mac, 6);
    /* an own address of the same subnet, where there is one */
    if (ip_route(cx->st, &target, &path, &src) == 0 && path.netif == e->netif)
        request.spa = ip_addr_v4(&src);
    else if (nif->naddrs > 0)
        request.spa = ip_addr_v4(&nif->addrs[0].addr);
    e->tries++;
    const bool unicast = e->state == ARP_PROBE && e->tries == 1;
    wheel_arm(&cx->st->wheel, &e->timer, cx->now + ARP_RETRANS_TIME);
    TRACE(cx, LINK, NULL, ARP_RESOLVING, e->addr4, e->tries);
    arp_transmit(cx, e->netif, unicast ? e->mac : broadcast, &request);
}

static void start_asking(struct stack_cx *cx, struct arp_entry *e, enum arp_state state)
{
    e->state = (uint8_t)state;
    e->tries = 0;
    arp_ask(cx, e);
}

/* Keeps a copy of the frame until the answer comes. */
static int enqueue(struct stack *st, struct arp_entry *e, const struct frame_out *frame)
{
    struct arp_table *t = &st->ip.arp;
    const uint32_t head = (uint32_t)(frame->head_end - frame->head_start);
    const uint32_t len = head + frame->payload_len;
    struct packet_buf *b = NULL;
    /* a large frame is a burst of data, and data comes after a handshake, when the MAC is known */
    if (e->nqueued < ARP_QUEUE_ENTRY_MAX && t->nqueued < ARP_QUEUE_MAX && len <= PACKET_SMALL_DATA)
        b = packet_alloc(st, len);
    if (b == NULL) {
        stack_count(st, COUNT_TX_FAILED);
        return -ENOBUFS;
    }
    packet_fill(b, frame);
    b->head_len = (uint16_t)head;
    b->l4 = (uint16_t)(frame->l4 - frame->head_start);
    b->l4_proto = frame->l4_proto;
    b->csum_offset = frame->csum_offset;
    b->csum_partial = frame->csum_partial;
    b->gso_size = frame->gso_size;
    list_push_back(&e->queue, &b->link);
    e->nqueued++;
    t->nqueued++;
    return 0;
}

int arp_resolve(struct stack_cx *cx, const struct frame_out *frame, uint32_t addr4, uint8_t mac[6])
{
    struct stack *st = cx->st;
    struct arp_entry *e = arp_find(st, frame->netif, addr4);
    if (e == NULL) {
        e = arp_add(st, frame->netif, addr4);
    } else if (st->ip.arp.lru.prev != &e->lru_link) {
        list_remove(&e->lru_link);
        list_push_back(&st->ip.arp.lru, &e->lru_link);
    }

    switch ((enum arp_state)e->state) {
    case ARP_REACHABLE:
        if (cx->now - e->changed <= ARP_REACHABLE_TIME)
            break;
        /* fall through */
    case ARP_STALE:
        start_asking(cx, e, ARP_PROBE);
        break;
    case ARP_PROBE:
        break;
    case ARP_FAILED:
        if (cx->now - e->changed < ARP_FAILED_HOLD)
            return -EHOSTUNREACH;
        /* fall through */
    case ARP_FREE:
        start_asking(cx, e, ARP_INCOMPLETE);
        return enqueue(st, e, frame);
    case ARP_INCOMPLETE:
        return enqueue(st, e, frame);
    }
    memcpy(mac, e->mac, 6);
    return 1;
}

/* ---- answers, and none ---- */

/* Sends a frame that has waited. */
static void send_waiting(struct stack_cx *cx, uint8_t netif, const uint8_t mac[6],
                         const struct packet_buf *b)
{
    struct frame_out frame = {
        .netif = netif,
        .l4_proto = b->l4_proto,
        .l4 = FRAME_HEADROOM,
        .head_start = (uint16_t)(FRAME_HEADROOM - b->l4),
        .head_end = (uint16_t)(FRAME_HEADROOM - b->l4 + b->head_len),
        .gso_size = b->gso_size,
        .csum_partial = b->csum_partial,
        .csum_offset = b->csum_offset,
        .payload_len = b->len - b->head_len,
    };
    memcpy(frame.head + frame.head_start, b->data, b->head_len);
    if (frame.payload_len > 0) {
        frame.nslices = 1;
        frame.slices[0] = (struct slice){(void *)(b->data + b->head_len), frame.payload_len};
    }
    eth_send(cx, &frame, mac, ETH_TYPE_IP4);
}

void arp_update(struct stack_cx *cx, struct arp_entry *e, const uint8_t mac[6], bool confirmed)
{
    struct stack *st = cx->st;
    const bool known = e->state == ARP_REACHABLE || e->state == ARP_STALE || e->state == ARP_PROBE;
    const bool same = known && memcmp(e->mac, mac, 6) == 0;
    if (same && !confirmed)
        return;
    if (e->state == ARP_REACHABLE && !same && cx->now - e->changed < ARP_LOCK_TIME)
        return;
    memcpy(e->mac, mac, 6);
    e->state = confirmed ? ARP_REACHABLE : ARP_STALE;
    e->changed = cx->now;
    e->tries = 0;
    wheel_cancel(&st->wheel, &e->timer);
    if (!same)
        TRACE(cx, LINK, NULL, ARP_LEARNED, e->addr4);

    struct list queue;
    take_queue(st, e, &queue);
    const uint8_t netif = e->netif;
    for (struct list *n; (n = list_pop_front(&queue)) != NULL;) {
        struct packet_buf *b = list_entry(n, struct packet_buf, link);
        send_waiting(cx, netif, mac, b);
        packet_free(st, b);
    }
}

/* Tells the transport that a frame which has waited cannot be delivered, as Linux's
 * arp_error_report. */
static void report_unreachable(struct stack_cx *cx, const struct packet_buf *b)
{
    if (b->l4_proto != IPPROTO_TCP_)
        return;
    uint32_t src4, dst4;
    memcpy(&src4, b->data + 12, 4);
    memcpy(&dst4, b->data + 16, 4);
    const struct ip_addr src = ip_addr_from_v4(src4), dst = ip_addr_from_v4(dst4);
    tcp_icmp_error(cx, &src, &dst, b->data + b->l4, b->len - b->l4, EHOSTUNREACH, false, 0);
}

static void give_up(struct stack_cx *cx, struct arp_entry *e)
{
    struct list queue;
    e->state = ARP_FAILED;
    e->changed = cx->now;
    e->tries = 0;
    TRACE(cx, LINK, NULL, ARP_FAILED, e->addr4);
    take_queue(cx->st, e, &queue);
    for (struct list *n; (n = list_pop_front(&queue)) != NULL;) {
        struct packet_buf *b = list_entry(n, struct packet_buf, link);
        stack_count(cx->st, COUNT_TX_FAILED);
        report_unreachable(cx, b);
        packet_free(cx->st, b);
    }
}

void arp_entry_timer(struct stack_cx *cx, struct arp_entry *e)
{
    if (e->state != ARP_INCOMPLETE && e->state != ARP_PROBE)
        return;
    if (e->tries < ARP_TRIES)
        arp_ask(cx, e);
    else
        give_up(cx, e);
}

void arp_learn(struct stack_cx *cx, uint8_t netif, uint32_t addr4, const uint8_t mac[6])
{
    struct stack *st = cx->st;
    const struct ip_addr addr = ip_addr_from_v4(addr4);
    if (netif >= st->nnetifs || st->netifs[netif].kind != NETIF_ETHERNET || mac_is_group(mac) ||
        mac_is_zero(mac) || ip_addr_is_any(&addr) || ip_is_own(st, &addr))
        return;
    struct arp_entry *e = arp_find(st, netif, addr4);
    if (e == NULL)
        e = arp_add(st, netif, addr4);
    arp_update(cx, e, mac, true);
}
