/*
 * Reassembly (RFC 791 3.2, RFC 1122 3.3.2). A datagram whose pieces overlap is dropped whole, as
 * RFC 5722 asks of IPv6 and Linux does for IPv4: nothing honest makes them. Exact duplicates are
 * honest. Memory is bounded by FRAG_BYTES_MAX; for new pieces the oldest datagram makes room.
 */
#include "stack/ip/layer.h"

/* Linux's ip_frag_time. */
#define FRAG_TIME (30 * NSEC_PER_SEC)

void frag_init(struct stack *st)
{
    pool_init(st->arena, &st->ip.datagrams, sizeof(struct frag_datagram));
    list_init(&st->ip.frag_age);
}

static void free_pieces(struct stack *st, struct frag_datagram *d)
{
    for (struct list *n; (n = list_pop_front(&d->pieces)) != NULL;)
        packet_free(st, list_entry(n, struct packet_buf, link));
    st->ip.frag_bytes -= d->bytes;
    d->bytes = 0;
    d->have = 0;
}

static void free_datagram(struct stack *st, struct frag_datagram *d)
{
    free_pieces(st, d);
    wheel_cancel(&st->wheel, &d->timer);
    list_remove(&d->link);
    st->ip.nfrags--;
    pool_free(&st->ip.datagrams, d);
}

void frag_timer(struct stack_cx *cx, struct frag_datagram *d)
{
    if (!d->dead)
        ip_drop(cx, COUNT_FRAG_DROPPED, d->have);
    free_datagram(cx->st, d);
}

static struct frag_datagram *oldest(struct stack *st)
{
    return list_first(&st->ip.frag_age, struct frag_datagram, link);
}

/* The datagram that the piece belongs to, made if it is the first; NULL: no memory. */
static struct frag_datagram *find_datagram(struct stack_cx *cx, const struct ip_packet *p,
                                           uint8_t proto, uint16_t id)
{
    struct stack *st = cx->st;
    const uint32_t src4 = ip_addr_v4(&p->src), dst4 = ip_addr_v4(&p->dst);
    list_for_each (n, &st->ip.frag_age) {
        struct frag_datagram *d = list_entry(n, struct frag_datagram, link);
        if (d->id == id && d->src4 == src4 && d->dst4 == dst4 && d->proto == proto)
            return d;
    }
    if (st->ip.nfrags >= FRAG_DATAGRAMS_MAX) {
        ip_drop(cx, COUNT_FRAG_DROPPED, oldest(st)->have);
        free_datagram(st, oldest(st));
    }
    struct frag_datagram *d = pool_alloc(&st->ip.datagrams);
    if (d == NULL) {
        stack_count(st, COUNT_NO_MEMORY);
        return NULL;
    }
    d->src4 = src4;
    d->dst4 = dst4;
    d->id = id;
    d->proto = proto;
    list_init(&d->pieces);
    wheel_timer_init(&d->timer, IP_TIMER_FRAG);
    wheel_arm(&st->wheel, &d->timer, cx->now + FRAG_TIME);
    list_push_back(&st->ip.frag_age, &d->link);
    st->ip.nfrags++;
    return d;
}

enum fit { FIT_NEW, FIT_DUPLICATE, FIT_OVERLAP };

/* How [offset, end) fits the pieces there are; *before is the node that it goes in front of. */
static enum fit find_place(struct frag_datagram *d, uint32_t offset, uint32_t end,
                           struct list **before)
{
    struct list *pos = &d->pieces;
    /* from the back: pieces mostly come in order */
    for (; pos->prev != &d->pieces; pos = pos->prev) {
        const struct packet_buf *b = list_entry(pos->prev, struct packet_buf, link);
        if (b->offset == offset && b->offset + b->len == end)
            return FIT_DUPLICATE;
        if (b->offset + b->len <= offset)
            break;
        if (b->offset < end)
            return FIT_OVERLAP;
    }
    *before = pos;
    return FIT_NEW;
}

/* Whether the piece agrees with what is known of the datagram's length. */
static bool length_agrees(const struct frag_datagram *d, uint32_t end, bool more)
{
    if (d->total != 0)
        return more ? end < d->total : end == d->total;
    if (more || list_empty(&d->pieces))
        return true;
    const struct packet_buf *last = list_last(&d->pieces, struct packet_buf, link);
    return last->offset + last->len <= end;
}

/* Keeps a copy of the piece; false: no memory. Other datagrams, oldest first, make room for it. */
static bool keep_piece(struct stack_cx *cx, struct frag_datagram *d, const struct ip_packet *p,
                       uint32_t offset, struct list *before)
{
    struct stack *st = cx->st;
    const uint32_t cost = packet_cost(p->len);
    while (st->ip.frag_bytes + cost > FRAG_BYTES_MAX) {
        struct frag_datagram *victim = oldest(st);
        if (victim == d && d->link.next != &st->ip.frag_age)
            victim = list_entry(d->link.next, struct frag_datagram, link);
        if (victim == d)
            return false;
        ip_drop(cx, COUNT_FRAG_DROPPED, victim->have);
        free_datagram(st, victim);
    }
    struct packet_buf *b = packet_alloc(st, p->len);
    if (b == NULL)
        return false;
    b->offset = offset;
    memcpy(b->data, p->payload, p->len);
    list_insert_before(before, &b->link);
    st->ip.frag_bytes += cost;
    d->bytes += cost;
    d->have += p->len;
    return true;
}

/* All pieces are there: joins them and hands the datagram up. */
static void deliver_joined(struct stack_cx *cx, struct frag_datagram *d, const struct ip_packet *p)
{
    struct stack *st = cx->st;
    struct packet_buf *whole = packet_alloc(st, d->total);
    if (whole == NULL) {
        ip_drop(cx, COUNT_FRAG_DROPPED, d->total);
        free_datagram(st, d);
        return;
    }
    list_for_each (n, &d->pieces) {
        const struct packet_buf *b = list_entry(n, struct packet_buf, link);
        memcpy(whole->data + b->offset, b->data, b->len);
    }
    struct ip_packet joined = *p;
    joined.payload = whole->data;
    joined.len = d->total;
    joined.tos = d->tos;
    joined.ttl = d->ttl;
    joined.csum_trusted = p->csum_trusted && p->netif == NETIF_LOOP;
    joined.gso_size = 0;
    const uint8_t proto = d->proto;
    free_datagram(st, d);
    stack_count(st, COUNT_FRAG_OK);
    ip_deliver(cx, &joined, proto);
    packet_free(st, whole);
}

void frag_input(struct stack_cx *cx, const struct ip_packet *p, uint8_t proto, uint16_t id,
                uint32_t offset, bool more)
{
    struct stack *st = cx->st;
    const uint32_t end = offset + p->len;
    stack_count(st, COUNT_FRAG_IN);
    if (p->len == 0 || (more && p->len % 8 != 0) || end > IP4_BYTES_MAX - IP4_HEADER ||
        end > PACKET_LARGE_DATA) {
        ip_drop(cx, COUNT_FRAG_DROPPED, p->len);
        return;
    }
    struct frag_datagram *d = find_datagram(cx, p, proto, id);
    if (d == NULL || d->dead) {
        ip_drop(cx, COUNT_FRAG_DROPPED, p->len);
        return;
    }
    struct list *before = NULL;
    enum fit fit = find_place(d, offset, end, &before);
    if (fit == FIT_NEW && !length_agrees(d, end, more))
        fit = FIT_OVERLAP;
    if (fit == FIT_OVERLAP) {
        d->dead = true;
        free_pieces(st, d);
    }
    if (fit != FIT_NEW || !keep_piece(cx, d, p, offset, before)) {
        ip_drop(cx, COUNT_FRAG_DROPPED, p->len);
        return;
    }
    if (offset == 0) {
        d->tos = p->tos;
        d->ttl = p->ttl;
    }
    if (!more)
        d->total = end;
    if (d->total != 0 && d->have == d->total)
        deliver_joined(cx, d, p);
}
