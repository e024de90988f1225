/*
 * After a process died inside (stack_repair()). The neighbour table's entries are the truth; frames
 * that waited for a neighbour and datagrams that were being put together are given up, as the
 * network may lose them too. The loopback's queue is kept as far as it is whole.
 */
#include "stack/ip/layer.h"

static void timer_again(struct stack *st, struct wheel_timer *t)
{
    const nsec_t deadline = t->deadline;
    wheel_timer_init(t, t->kind);
    if (deadline != NSEC_NEVER)
        wheel_arm(&st->wheel, t, deadline);
}

static void repair_arp(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    struct arp_table *t = &st->ip.arp;
    for (unsigned i = 0; i < ARP_BUCKETS; i++)
        list_init(&t->buckets[i]);
    list_init(&t->lru);
    t->nqueued = 0;
    t->used = min_u32(t->used, ARP_ENTRIES_MAX);
    for (uint32_t i = 0; i < t->used; i++) {
        struct arp_entry *e = &t->entries[i];
        const bool asking = e->state == ARP_INCOMPLETE || e->state == ARP_PROBE;
        e->timer.kind = IP_TIMER_ARP; /* it may have died while this one was being made */
        if (!asking)
            e->timer.deadline = NSEC_NEVER;
        else if (e->timer.deadline == NSEC_NEVER)
            e->timer.deadline = cx->now;
        timer_again(st, &e->timer);
        list_init(&e->queue);
        e->nqueued = 0;
        arp_hang(t, e);
    }
}

static bool is_packet(const struct stack *st, const struct packet_buf *b)
{
    return pool_owns(&st->ip.small, b) || pool_owns(&st->ip.large, b);
}

/* How many packets of the loopback's queue, from the first on, can be relied on. */
static uint32_t whole_packets(const struct stack *st)
{
    const struct list *head = &st->ip.loopback;
    const struct list *last = head;
    uint32_t n = 0;
    for (const struct list *at = head->next; at != head && n < LOOPBACK_PACKETS_MAX;
         at = at->next) {
        const struct packet_buf *b = list_entry(at, struct packet_buf, link);
        if (!is_packet(st, b) || at->prev != last || b->large != (b->len > PACKET_SMALL_DATA) ||
            b->len > PACKET_LARGE_DATA)
            break;
        last = at;
        n++;
    }
    return n;
}

static void repair_loopback(struct stack *st)
{
    struct ip_stack *ip = &st->ip;
    struct list *at = ip->loopback.next;
    const uint32_t n = whole_packets(st);
    pool_forget(&ip->small);
    pool_forget(&ip->large);
    list_init(&ip->loopback);
    ip->loopback_packets = ip->loopback_bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct packet_buf *b = list_entry(at, struct packet_buf, link);
        at = at->next;
        if (!pool_claim(b->large ? &ip->large : &ip->small, b))
            break;
        list_push_back(&ip->loopback, &b->link);
        ip->loopback_packets++;
        ip->loopback_bytes += packet_cost(b->len);
    }
    pool_repair(&ip->small);
    pool_repair(&ip->large);
}

void ip_repair(struct stack_cx *cx)
{
    struct stack *st = cx->st;
    repair_arp(cx);
    for (unsigned n = 0; n < NETIFS_MAX; n++)
        for (unsigned i = 0; i < NETIF_ADDRS_MAX; i++)
            timer_again(st, &st->ip.own[n][i].timer);
    pool_forget(&st->ip.datagrams);
    pool_repair(&st->ip.datagrams);
    list_init(&st->ip.frag_age);
    st->ip.nfrags = 0;
    st->ip.frag_bytes = 0;
    repair_loopback(st);
}
