/* The network layer's start, and its timers. */
#include "stack/ip/layer.h"

void ip_init(struct stack *st, nsec_t now)
{
    struct ip_stack *ip = &st->ip;
    arp_init(st);
    for (unsigned n = 0; n < NETIFS_MAX; n++) {
        for (unsigned i = 0; i < NETIF_ADDRS_MAX; i++)
            wheel_timer_init(&ip->own[n][i].timer, IP_TIMER_OWN);
    }
    pool_init(st->arena, &ip->small, PACKET_SMALL_SIZE);
    pool_init(st->arena, &ip->large, PACKET_LARGE_SIZE);
    frag_init(st);
    list_init(&ip->loopback);
    ip->next_id = (uint16_t)rng_u64(&st->rng);
    icmp_init(st, now);
}

void ip_timer(struct stack_cx *cx, struct wheel_timer *t)
{
    switch ((enum ip_timer_kind)t->kind) {
    case IP_TIMER_ARP:
        arp_entry_timer(cx, container_of(t, struct arp_entry, timer));
        break;
    case IP_TIMER_OWN:
        arp_own_timer(cx, container_of(t, struct ip_own, timer));
        break;
    case IP_TIMER_FRAG:
        frag_timer(cx, container_of(t, struct frag_datagram, timer));
        break;
    }
}
