/*
 * A TCP segment inside a frame that lies in one piece: for the links that wrap others (capture,
 * impairment). No system call, no state.
 */
#pragma once

#include "stack/base.h"
#include "stack/tcp/wire.h"

/* Where the parts of a frame begin, and what its TCP header says, in host order. */
struct segment {
    uint32_t ip, l4, text; /* offsets in the frame */
    uint32_t end;          /* after the last byte of the packet; padding may follow */
    struct ip_addr src, dst;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint16_t wnd; /* as it stands in the header */
    uint8_t flags;
    uint32_t len; /* of the text */
};

/*
 * Reads the first `len` bytes of a frame whose packet may go on behind them (`whole` bytes in all).
 * l2: bytes in front of the IP header. False: no TCP segment, a fragment, or malformed. All of the
 * headers must lie within len.
 */
bool segment_parse(const uint8_t *frame, uint32_t len, uint32_t whole, uint32_t l2,
                   struct segment *s);
/* Puts the right TCP checksum into a whole segment. */
void segment_checksum(uint8_t *frame, const struct segment *s);
/* Whether the TCP checksum of a whole segment is right. */
bool segment_checksum_ok(const uint8_t *frame, const struct segment *s);
/*
 * Writes the segment of the text's bytes [at, at + size) as a frame of its own, as the card that
 * cuts a large frame would; checksums right. Returns its length. out has room for the headers and
 * size bytes.
 */
uint32_t segment_cut(const uint8_t *frame, const struct segment *s, uint32_t at, uint32_t size,
                     uint8_t *out);
/* Sets the window; the checksum stays as right or wrong as it was (RFC 1624). */
void segment_set_window(uint8_t *frame, struct segment *s, uint16_t wnd);
/*
 * Makes a RST without text of it: to_sender turns it round, as if its receiver had answered.
 * Returns the length of the frame; *s is read again.
 */
uint32_t segment_make_rst(uint8_t *frame, uint32_t l2, struct segment *s, bool to_sender);
