/* The TCP header (RFC 9293 3.1) and its options (7323, 2018) between wire and struct. */
#pragma once

#include "stack/base.h"
#include "stack/tcp/seq.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_URG 0x20
#define TCP_ECE 0x40
#define TCP_CWR 0x80

#define TCP_OPTIONS_MAX     40 /* bytes */
#define TCP_SACK_BLOCKS_MAX 4
#define TCP_WSCALE_MAX      14
/* RFC 7413 4.1.1 */
#define TCP_COOKIE_MIN 4
#define TCP_COOKIE_MAX 16
#define TCP_COOKIE_LEN 8 /* of ours */
/* RFC 9768 3.2.3: kind, length and three counters of 24 bits */
#define TCP_ACCECN_0   172 /* order 0: ECT(0), CE, ECT(1) */
#define TCP_ACCECN_1   174 /* order 1: ECT(1), CE, ECT(0) */
#define TCP_ACCECN_MAX 11

struct tcp_sack_block {
    tcp_seq start, end; /* [start, end) */
};

/* What the options of one segment say. */
struct tcp_options {
    bool has_mss, has_wscale, sack_permitted, has_ts;
    uint16_t mss;
    uint8_t wscale;
    uint32_t ts_val, ts_ecr;
    uint8_t sack_count;
    struct tcp_sack_block sack[TCP_SACK_BLOCKS_MAX];
    /* RFC 7413, in a SYN: a cookie, or the wish for one (length 0); points into the segment */
    bool fast_open;
    bool fast_open_exp; /* in the option's experimental form (RFC 6994) */
    uint8_t cookie_len;
    const uint8_t *cookie;
    /* RFC 9768: the option as it is on the wire, of 2 bytes at least; NULL: none. One that is sent
     * has TCP_ACCECN_MAX at most, and either SACK blocks beside it or what only a SYN says. */
    const uint8_t *accecn;
};

/* A segment in host terms. */
struct tcp_segment {
    uint16_t src_port, dst_port;
    tcp_seq seq, ack;
    uint8_t flags;
    bool ae;      /* the flag above CWR: accurate ECN (RFC 9768 3.1) */
    uint16_t wnd; /* unscaled */
    uint16_t urg;
    struct tcp_options opt;
    const uint8_t *text;
    uint32_t len;              /* of text */
    struct stack_place *place; /* not NULL: it is not at `text`, see stack_foresee() */
};

/*
 * Parses the len bytes at p (header, options, text). False when the header is malformed: too short,
 * data offset below 5 or past the end. A malformed option ends the options; what was read stands.
 */
bool tcp_parse(const uint8_t *p, uint32_t len, struct tcp_segment *seg);
/* Writes header and options for seg at p (TCP_HEADER_MAX bytes of room), checksum zero; returns the
 * header length. */
uint32_t tcp_build(uint8_t *p, const struct tcp_segment *seg);
/* Bytes that the options of seg will take, padded to 4. */
uint32_t tcp_options_size(const struct tcp_options *opt);
/* Those of an AccECN option of len bytes. Where SACK follows, up to two bytes of it take the place
 * of the padding there. */
static inline uint32_t tcp_accecn_size(uint32_t len, bool sack)
{
    const uint32_t over = len % 4;
    return sack && over <= 2 ? len - over : (len + 3) & ~3u;
}
/* Segment length in sequence space: text plus SYN plus FIN (RFC 9293 3.4 SEG.LEN). */
static inline uint32_t tcp_segment_len(const struct tcp_segment *s)
{
    return s->len + ((s->flags & TCP_SYN) != 0) + ((s->flags & TCP_FIN) != 0);
}
