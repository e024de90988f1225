/*
 * TCP, ARP and ICMP over Ethernet and IPv4, built and taken apart by the tests' own code: an oracle
 * that shares nothing with the engine's.
 */
#pragma once

#include "stack/base.h"

#define FRAME_MAX 66000
#define L2_LEN    14
#define IP4_LEN   20

#define TCP_AE 0x100 /* in wire_seg.flags */

/* One TCP segment with the addresses of its packet, in host order and absolute numbers. */
struct wire_seg {
    uint32_t src, dst;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint16_t flags; /* bit 8: AE, the flag above CWR (RFC 9768) */
    uint16_t win, urg;
    uint8_t tos, ttl;
    uint8_t opts[40];
    unsigned optlen; /* a multiple of 4 */
    const uint8_t *text;
    uint32_t len;
};

/* The options of one segment, decoded. */
struct wire_opts {
    bool has_mss, has_wscale, sack_ok, has_ts;
    uint16_t mss;
    uint8_t wscale;
    uint32_t ts_val, ts_ecr;
    /* RFC 9768: the counters as they are on the wire, in the order of kind 174 (ECT(1), CE, ECT(0))
     */
    bool has_accecn;
    unsigned naccecn;
    uint32_t accecn[3];
    unsigned nsack;
    struct {
        uint32_t start, end;
    } sack[4];
};

static inline uint32_t ip4(unsigned a, unsigned b, unsigned c, unsigned d)
{
    return a << 24 | b << 16 | c << 8 | d;
}

/* RFC 1071, inverted: what goes into a header, in host order. */
uint16_t wire_csum(uint32_t sum, const void *data, size_t len);
/* Not inverted and not folded: for a sum over several parts (each but the last of even length). */
uint32_t wire_sum(uint32_t sum, const void *data, size_t len);
uint32_t wire_pseudo(uint32_t src, uint32_t dst, uint8_t proto, uint32_t len);

/* Each writes a whole frame at `out` (FRAME_MAX bytes of room) and returns its length. */
size_t wire_build_tcp(uint8_t *out, const struct wire_seg *s, const uint8_t dmac[6],
                      const uint8_t smac[6]);
/* An IPv4 packet of any protocol. */
size_t wire_build_ip(uint8_t *out, uint32_t src, uint32_t dst, uint8_t proto, const void *payload,
                     size_t len, const uint8_t dmac[6], const uint8_t smac[6]);
/* ICMP of type and code; `rest` is the header's second word; quotes `body`. */
size_t wire_build_icmp(uint8_t *out, uint32_t src, uint32_t dst, uint8_t type, uint8_t code,
                       uint32_t rest, const void *body, size_t len, const uint8_t dmac[6],
                       const uint8_t smac[6]);
size_t wire_build_arp(uint8_t *out, uint16_t op, const uint8_t smac[6], uint32_t sip,
                      const uint8_t tmac[6], uint32_t tip, const uint8_t dmac[6]);

/*
 * Takes a TCP frame apart. NULL, or what is wrong with it. With csum false the transport checksum
 * is not looked at.
 */
const char *wire_parse_tcp(const uint8_t *frame, size_t len, bool csum, struct wire_seg *out);
/* NULL, or what is wrong with the options. */
const char *wire_parse_opts(const struct wire_seg *s, struct wire_opts *out);
/* Puts right the IP header checksum and the TCP or ICMP checksum of a frame, as far as its lengths
 * allow. */
void wire_fix_csums(uint8_t *frame, size_t len);
