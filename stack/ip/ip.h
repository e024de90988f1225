/* The network layer: Ethernet, ARP, IPv4, ICMP, fragments. Theory of operation:
 * docs/architecture.md. */
#pragma once

#include "stack/stack.h"

#define IPPROTO_ICMP_ 1
#define IPPROTO_TCP_  6

/* An IP packet handed up to a transport: one contiguous payload, addresses normalised. */
struct ip_packet {
    struct ip_addr src, dst;
    const uint8_t *payload;
    uint32_t len;
    uint8_t tos, ttl;
    bool csum_trusted;
    uint16_t gso_size;
    uint8_t netif;
    uint8_t src_mac[6];        /* zero where the link has none */
    struct stack_place *place; /* as frame_in.place */
};

/* Where a fragment stands in its datagram (RFC 791 3.2). */
struct ip_fragment {
    uint16_t id;
    uint16_t field; /* offset in units of 8 bytes, and the MF flag */
};

struct ip_out {
    const struct ip_path *path;
    const struct ip_addr *src, *dst;
    uint8_t tos, ttl;
    bool df; /* don't fragment: path MTU discovery */
    const struct ip_fragment
        *fragment; /* NULL: a whole packet; else its transport checksum is already made */
};

/*
 * Sends frame (transport header at frame->l4, payload slices set, transport checksum left to this
 * call): writes the IP and L2 headers in front, the checksum partial or complete as the interface
 * can, and transmits, or queues a copy while ARP resolves. 0 or negative errno:
 * -EHOSTUNREACH when resolution failed a moment ago.
 */
int ip_send(struct stack_cx *cx, const struct ip_out *how, struct frame_out *frame);

/* Own address mode and loopback: finds the path to dst and the source address. 0 or -ENETUNREACH.
 */
int ip_route(struct stack *st, const struct ip_addr *dst, struct ip_path *path,
             struct ip_addr *src);
/* The path back to the sender of a packet, without any look-up: its interface and MAC. */
void ip_path_reply(const struct ip_packet *p, struct ip_path *path);
/* Bytes of an IP packet that the path carries. */
uint32_t ip_path_mtu(const struct stack *st, const struct ip_path *path);
/* Whether addr belongs to an interface of the stack (loopback 127/8 included when it is enabled).
 */
bool ip_is_local(const struct stack *st, const struct ip_addr *addr);

/* Called by stack_input(), the wheel and stack_flush(). */
void ip_input(struct stack_cx *cx, const struct frame_in *frame);
void ip_timer(struct stack_cx *cx, struct wheel_timer *t);
/* After a process died inside: see stack_repair(). */
void ip_repair(struct stack_cx *cx);
void ip_loopback_run(struct stack_cx *cx);
bool ip_loopback_pending(const struct stack *st);
void ip_init(struct stack *st, nsec_t now);
/* An interface was added: its own addresses are announced at the next flush (RFC 5227 2.3). */
void ip_netif_added(struct stack *st, unsigned index);
void ip_announce(struct stack_cx *cx);

/* Seeds or refreshes the neighbour cache (from the kernel's table, or from a frame). */
void arp_learn(struct stack_cx *cx, uint8_t netif, uint32_t addr4, const uint8_t mac[6]);
/*
 * Sends an ARP probe for an own address (RFC 5227 2.1.1): used before the address is taken, after
 * stack_add_netif(). Call it again to probe again. Until a second has passed since the last call
 * the address is neither announced nor answered for; netif.addrs[].conflict tells whether another
 * station has it, and then it never is.
 */
void arp_probe(struct stack_cx *cx, uint8_t netif, const struct ip_addr *addr);

/* The transport's entries, in stack/tcp: */
void tcp_input(struct stack_cx *cx, const struct ip_packet *p);
/*
 * An error about a packet of ours: `header` is the quoted transport header (8 bytes at least).
 * err: positive errno as Linux maps it; hard: RFC 1122 4.2.3.9 (as Linux's fatal table).
 * mtu: next-hop MTU when err is EMSGSIZE (0: unknown).
 */
void tcp_icmp_error(struct stack_cx *cx, const struct ip_addr *src, const struct ip_addr *dst,
                    const uint8_t *header, uint32_t len, int err, bool hard, uint32_t mtu);
