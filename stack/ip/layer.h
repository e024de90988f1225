/* What the files of stack/ip share with each other: nothing else includes this. */
#pragma once

#include "stack/internal.h"
#include "stack/ip/ip.h"

#define ETH_HEADER    14u
#define ETH_TYPE_IP4  0x0800u
#define ETH_TYPE_ARP  0x0806u
#define ETH_TYPE_IP6  0x86ddu
#define IP4_HEADER    20u
#define IP4_BYTES_MAX 65535u

/* Flags and offset of the IPv4 header's fourth half-word (RFC 791 3.1). */
#define IP4_DF          0x4000u
#define IP4_MF          0x2000u
#define IP4_OFFSET_MASK 0x1fffu

enum ip_timer_kind {
    IP_TIMER_ARP = STACK_TIMER_IP, /* arp_entry.timer */
    IP_TIMER_OWN,                  /* ip_own.timer */
    IP_TIMER_FRAG,                 /* frag_datagram.timer */
};

/* ---- input.c ---- */

/* Counts a dropped frame and traces it by the counter's name. */
void ip_drop(struct stack_cx *cx, enum stack_counter why, uint32_t len);
/* Hands a whole datagram to its transport. */
void ip_deliver(struct stack_cx *cx, const struct ip_packet *p, uint8_t proto);

/* ---- output.c ---- */

/* ip_send() for a frame that needs no cutting. */
int ip_send_whole(struct stack_cx *cx, const struct ip_out *how, struct frame_out *frame);
/* Puts an Ethernet header in front of frame->head_start and transmits. */
int eth_send(struct stack_cx *cx, struct frame_out *frame, const uint8_t dst[6], uint16_t type);

/* ---- segment.c ---- */

/* Cuts a TCP frame into segments of frame->gso_size payload bytes and sends each. */
int ip_send_segments(struct stack_cx *cx, const struct ip_out *how, const struct frame_out *frame);

/* ---- packet.c ---- */

/* A buffer for len bytes; NULL (counted) when there is none of that size or no memory. */
struct packet_buf *packet_alloc(struct stack *st, uint32_t len);
void packet_free(struct stack *st, struct packet_buf *b);
/* Arena bytes that a buffer for len bytes takes. */
uint32_t packet_cost(uint32_t len);
/* Copies all of a frame from head_start on into b->data, which has room. */
void packet_fill(struct packet_buf *b, const struct frame_out *frame);

/* ---- arp.c: the table and the asking ---- */

void arp_init(struct stack *st);
/*
 * The MAC of a neighbour. 1: mac is filled. 0: the frame, built from the IP header on, was copied
 * and goes out when the answer comes. -EHOSTUNREACH: it did not answer a moment ago; -ENOBUFS: no
 * room to keep the frame.
 */
int arp_resolve(struct stack_cx *cx, const struct frame_out *frame, uint32_t addr4, uint8_t mac[6]);
void arp_entry_timer(struct stack_cx *cx, struct arp_entry *e);
/* Puts an entry into its bucket, as the last to be replaced. */
void arp_hang(struct arp_table *t, struct arp_entry *e);
struct arp_entry *arp_find(struct stack *st, uint8_t netif, uint32_t addr4);
/* An entry for a neighbour that spoke to us; it is the first to be replaced until we use it. */
struct arp_entry *arp_add_heard(struct stack *st, uint8_t netif, uint32_t addr4);
/* The neighbour named its MAC. confirmed: in a reply to us, so that it hears us as well. */
void arp_update(struct stack_cx *cx, struct arp_entry *e, const uint8_t mac[6], bool confirmed);

/* ---- arp_input.c: packets, and our own addresses (RFC 826, RFC 5227) ---- */

struct arp_packet {
    uint16_t op;
    uint8_t sha[6], tha[6];
    uint32_t spa, tpa; /* network order */
};
#define ARP_REQUEST 1u
#define ARP_REPLY   2u

void arp_input(struct stack_cx *cx, uint8_t netif, const uint8_t *data, uint32_t len);
void arp_transmit(struct stack_cx *cx, uint8_t netif, const uint8_t dst[6],
                  const struct arp_packet *p);
void arp_own_timer(struct stack_cx *cx, struct ip_own *own);

/* ---- icmp.c, fragment.c, loopback.c ---- */

void icmp_init(struct stack *st, nsec_t now);
void icmp_input(struct stack_cx *cx, const struct ip_packet *p);

void frag_init(struct stack *st);
/* One fragment: p holds its payload; offset in bytes; more: the MF flag. */
void frag_input(struct stack_cx *cx, const struct ip_packet *p, uint8_t proto, uint16_t id,
                uint32_t offset, bool more);
void frag_timer(struct stack_cx *cx, struct frag_datagram *d);

int loopback_send(struct stack_cx *cx, const struct frame_out *frame);

/* ---- path.c ---- */

/* The position of addr among the interface's own addresses, or -1. */
int ip_own_index(const struct netif *nif, const struct ip_addr *addr);
/* Whether any interface of the stack has this address. */
bool ip_is_own(const struct stack *st, const struct ip_addr *addr);
/* Whether addr is the broadcast address of one of the interface's subnets. */
bool ip_is_subnet_broadcast(const struct netif *nif, const struct ip_addr *addr);

/* v4 in network order */
static inline bool ip4_is_loopback(uint32_t v4)
{
    uint8_t first;
    memcpy(&first, &v4, 1);
    return first == 127;
}

static inline bool ip4_is_multicast(uint32_t v4)
{
    uint8_t first;
    memcpy(&first, &v4, 1);
    return (first & 0xf0) == 0xe0;
}

static inline bool ip4_is_limited_broadcast(uint32_t v4)
{
    return v4 == UINT32_MAX;
}

/* Network 0: "this host on this network", a source only while it configures itself (RFC
 * 1122 3.2.1.3). */
static inline bool ip4_is_this_network(uint32_t v4)
{
    uint8_t first;
    memcpy(&first, &v4, 1);
    return first == 0;
}

static inline bool mac_is_group(const uint8_t mac[6])
{
    return (mac[0] & 1) != 0;
}

static inline bool mac_is_zero(const uint8_t mac[6])
{
    static const uint8_t zero[6];
    return memcmp(mac, zero, sizeof(zero)) == 0;
}
