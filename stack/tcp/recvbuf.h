/*
 * The receive buffer: bytes in order that recv() may take, and behind them bytes that arrived out
 * of order, each at its place in a chain of chunks; a short list of ranges says which are there.
 * Offsets count from RCV.NXT (0 is the next byte expected).
 */
#pragma once

#include "stack/arena.h"
#include "stack/tcp/chunk.h"
#include "stack/tcp/wire.h"

/* A run of out-of-order bytes [start, end), absolute; kept sorted. */
struct recv_range {
    struct recv_range *next;
    tcp_seq start, end;
    uint32_t recency; /* of the last arrival in it: SACK lists the newest first (RFC 2018 4) */
};

/* More holes than this and further out-of-order text is dropped (and will be sent again). */
#define RECV_RANGES_MAX 256
_Static_assert(RECV_RANGES_MAX < 1 << 10, "a count of them fits recvbuf.nranges");

struct recvbuf {
    struct chunk *head, *tail; /* chunk->start/end: stream positions, aligned to multiples of
                                  CHUNK_DATA from the origin */
    struct chunk *hint;        /* where the last out-of-order insert landed */
    struct chunk *fill;        /* where the last in-order insert landed; at or before RCV.NXT */
    uint32_t read_pos;         /* stream position (free-running) of the first unread byte */
    uint32_t next_pos;         /* stream position of RCV.NXT */
    uint32_t chunks : 22;      /* 2^30 bytes of text are no more than 2^19 */
    uint32_t nranges : 10;
    uint32_t ooo_bytes;
    uint32_t recency;
    uint32_t
        seq_base; /* sequence number - stream position, the same for all bytes; valid with ranges */
    struct recv_range *ranges;
};

static inline uint32_t recvbuf_ready(const struct recvbuf *rb)
{
    return rb->next_pos - rb->read_pos;
}

/*
 * Text [rcv_nxt+off, +len) arrived. Returns by how many bytes RCV.NXT advances (0: out of order or
 * nothing new); *stored is the number of bytes newly held. Text that finds no memory is dropped.
 * Bytes already held are never overwritten.
 */
uint32_t recvbuf_insert(struct pool *chunks, struct pool *ranges, struct recvbuf *rb,
                        tcp_seq rcv_nxt, uint32_t off, const uint8_t *text, uint32_t len,
                        uint32_t *stored);
/*
 * Where the len bytes of text from rcv_nxt+from on belong, so that they can be put there without
 * recvbuf_insert(). Returns the number of slices; 0: out of memory or slices, or bytes are held out
 * of order. recvbuf_commit() makes them count.
 */
unsigned recvbuf_prepare(struct pool *chunks, struct recvbuf *rb, uint32_t from, uint32_t len,
                         struct slice *out, unsigned max);
/*
 * `passed` bytes of text came and went past the buffer (which has nothing unread if there are any),
 * and behind them `len` bytes came that recvbuf_prepare() gave room.
 */
void recvbuf_commit(struct recvbuf *rb, uint32_t passed, uint32_t len);
/*
 * Copies up to len ready bytes out, starting `from` bytes into them, without taking them.
 */
uint32_t recvbuf_peek(const struct recvbuf *rb, uint32_t from, const struct slice *to, unsigned n,
                      uint32_t len);
/* Copies and takes. NULL slices (n == 0) discard (MSG_TRUNC). */
uint32_t recvbuf_read(struct pool *chunks, struct recvbuf *rb, const struct slice *to, unsigned n,
                      uint32_t len);
/*
 * Takes the first chunk out, with all that it has to be read; it is the caller's from now on: its
 * text is its bytes [start, end). NULL: nothing is ready, that is more than `most`, or bytes are
 * held out of order.
 */
struct chunk *recvbuf_take(struct recvbuf *rb, uint32_t most);
/* Whether such a chunk can become the last one, its text being what comes next; and that. */
bool recvbuf_adopts(const struct recvbuf *rb, const struct chunk *c);
void recvbuf_adopt(struct recvbuf *rb, struct chunk *c);
/* Up to max SACK blocks, the one with the newest arrival first (RFC 2018 section 4). */
unsigned recvbuf_sack(const struct recvbuf *rb, struct tcp_sack_block *out, unsigned max);
/*
 * Gives up the range farthest from RCV.NXT and the chunks behind what remains (memory pressure; the
 * peer keeps what was only SACKed, RFC 2018 8). Returns the bytes given up; 0: none are out of
 * order.
 */
uint32_t recvbuf_prune(struct pool *chunks, struct pool *ranges, struct recvbuf *rb);
void recvbuf_clear(struct pool *chunks, struct pool *ranges, struct recvbuf *rb);
static inline uint32_t recvbuf_memory(const struct recvbuf *rb)
{
    return rb->chunks * (uint32_t)sizeof(struct chunk);
}
