/*
 * A stack with one Ethernet interface whose frames land in an array, and what stub_tcp.c was given:
 * the ground on which the network layer's unit tests stand. One per process, reset by world_up().
 */
#pragma once

#include <check.h>

#include "stack/internal.h"
#include "stack/ip/ip.h"

#define WORLD_SIZE      ((size_t)64 << 20)
#define FRAMES_MAX      256
#define FRAME_KEPT      65600
#define IP4(a, b, c, d) (__builtin_bswap32((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d)))

/* A frame that was transmitted, flat. */
struct sent {
    uint8_t netif;
    uint32_t len, l4; /* l4: offset of the transport header in data */
    uint16_t gso_size, csum_offset;
    bool csum_partial;
    uint8_t data[FRAME_KEPT];
};

/* What tcp_input() was given. */
struct tcp_in {
    struct ip_packet packet;
    uint8_t payload[FRAME_KEPT];
};

/* What tcp_icmp_error() was given. */
struct tcp_error {
    struct ip_addr src, dst;
    uint8_t header[64];
    uint32_t len;
    int err;
    bool hard;
    uint32_t mtu;
};

struct world {
    void *memory;
    struct stack *st;
    struct stack_cx cx;
    uint8_t wire; /* index of the Ethernet interface */
    unsigned nsent, nwarned, nin, nerrors, ntimers, nflushes;
    uint32_t flushes_pending;
    int transmit_result;
    struct sent *sent;
    struct tcp_in in; /* the last */
    struct tcp_error error;
    struct ip_addr warned;
    /* called by tcp_input() of the stub when set */
    void (*on_tcp)(struct world *w, const struct ip_packet *p);
};
extern struct world world;

extern const uint8_t our_mac[6], peer_mac[6], other_mac[6], broadcast_mac[6];
#define OUR_ADDR  IP4(10, 9, 0, 2)
#define PEER_ADDR IP4(10, 9, 0, 1)
#define GATEWAY   IP4(10, 9, 0, 254)
#define FAR_ADDR  IP4(192, 0, 2, 7)

/* An interface with 10.9.0.2/24, answers_arp and loopback on; announcements are over. */
void world_up(void);
void world_down(void);
/* Moves the clock and runs the timers that become due on the way. */
void world_run(nsec_t by);
/* A frame arrives on the wire. */
void world_frame(const uint8_t *data, uint32_t len);
void world_frame_on(uint8_t netif, const uint8_t *data, uint32_t len, bool trusted);
/* Whether nothing of the network layer is left in the arena. */
bool world_clean(void);
uint64_t count_of(enum stack_counter c);

/* Ethernet + IPv4 header for a payload already at buf + 34; returns the frame's length. */
uint32_t make_ip4(uint8_t *buf, uint32_t src, uint32_t dst, uint8_t proto, uint16_t fragment,
                  uint16_t id, uint32_t payload_len);
void fix_ip4_checksum(uint8_t *buf);
/* A whole ARP frame of 42 bytes. */
void make_arp(uint8_t *buf, const uint8_t eth_dst[6], uint16_t op, const uint8_t sha[6],
              uint32_t spa, const uint8_t tha[6], uint32_t tpa);
/* The address of a sent ARP packet's fields. */
uint16_t sent_arp_op(const struct sent *s);
uint32_t sent_arp_tpa(const struct sent *s);
uint32_t sent_arp_spa(const struct sent *s);
bool is_arp(const struct sent *s);
/* Whether IP and transport checksums of a sent Ethernet frame are complete and right. */
bool sent_checksums_right(const struct sent *s);

/* Sends a TCP segment of payload_len patterned bytes through ip_send() in slices of odd lengths. */
int send_tcp(const struct ip_path *path, uint32_t src, uint32_t dst, uint32_t payload_len,
             uint16_t gso_size, uint8_t flags);
uint8_t pattern(uint32_t at);
