/*
 * The receive buffer: see recvbuf.h.
 *
 * Bytes have stream positions, free-running 32-bit numbers of their own; `next_pos` is RCV.NXT's. A
 * chunk holds the positions [start, start + CHUNK_DATA). All starts differ by multiples of
 * CHUNK_DATA, so chunks never overlap; where nothing has arrived yet there is no chunk, and the
 * chain skips ahead. Positions wrap, so they are compared by their distance, as sequence numbers
 * are. Everything held lies within 2^30 of next_pos.
 */
#include "stack/tcp/recvbuf.h"

#define REACH (1u << 30)

/* a - b of two positions. */
static inline int32_t pos_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

static inline bool chunk_holds(const struct chunk *c, uint32_t pos)
{
    return pos - c->start < CHUNK_DATA;
}

/* A new chunk behind `prev` (NULL: in front of all). NULL when the arena is full. */
static struct chunk *add_chunk(struct pool *chunks, struct recvbuf *rb, struct chunk *prev,
                               uint32_t start)
{
    struct chunk *c = chunk_new(chunks);
    if (c == NULL)
        return NULL;
    c->start = start;
    c->end = start + CHUNK_DATA;
    if (prev == NULL) {
        c->next = rb->head;
        rb->head = c;
    } else {
        c->next = prev->next;
        prev->next = c;
    }
    if (rb->tail == prev)
        rb->tail = c;
    rb->chunks++;
    return c;
}

/* c is off the chain. */
static void forget_chunk(struct recvbuf *rb, const struct chunk *c)
{
    if (rb->hint == c)
        rb->hint = NULL;
    if (rb->fill == c)
        rb->fill = NULL;
    rb->chunks--;
}

static void free_chunk(struct pool *chunks, struct recvbuf *rb, struct chunk *c)
{
    forget_chunk(rb, c);
    pool_free(chunks, c);
}

/* Frees all chunks behind `last` (NULL: all). */
static void truncate_chunks(struct pool *chunks, struct recvbuf *rb, struct chunk *last)
{
    struct chunk *c = last != NULL ? last->next : rb->head;
    if (last != NULL)
        last->next = NULL;
    else
        rb->head = NULL;
    rb->tail = last;
    while (c != NULL) {
        struct chunk *next = c->next;
        free_chunk(chunks, rb, c);
        c = next;
    }
}

/* The known chunk nearest to pos among those that begin at or before it; NULL: none does. */
static struct chunk *walk_start(const struct recvbuf *rb, uint32_t pos)
{
    if (rb->head == NULL || pos_diff(pos, rb->head->start) < 0)
        return NULL;
    if (pos_diff(pos, rb->tail->start) >= 0)
        return rb->tail;
    struct chunk *best = rb->head;
    if (rb->fill != NULL && pos_diff(pos, rb->fill->start) >= 0)
        best = rb->fill;
    if (rb->hint != NULL && pos_diff(pos, rb->hint->start) >= 0 &&
        pos_diff(rb->hint->start, best->start) > 0)
        best = rb->hint;
    return best;
}

/* The chunk of position pos, made when it is missing. NULL when the arena is full. */
static struct chunk *chunk_for(struct pool *chunks, struct recvbuf *rb, uint32_t pos)
{
    if (rb->head == NULL) {
        const uint32_t ahead = pos - rb->next_pos;
        return add_chunk(chunks, rb, NULL, pos - ahead % CHUNK_DATA);
    }
    struct chunk *c = walk_start(rb, pos);
    if (c == NULL) {
        const uint32_t before = rb->head->start - pos;
        const uint32_t steps = (before + CHUNK_DATA - 1) / CHUNK_DATA;
        return add_chunk(chunks, rb, NULL, rb->head->start - steps * CHUNK_DATA);
    }
    while (c->next != NULL && pos_diff(pos, c->next->start) >= 0)
        c = c->next;
    if (chunk_holds(c, pos))
        return c;
    return add_chunk(chunks, rb, c, pos - (pos - c->start) % CHUNK_DATA);
}

/* The chunk of position pos; prev: of the position in front of it, or NULL. */
static struct chunk *chunk_behind(struct pool *chunks, struct recvbuf *rb, struct chunk *prev,
                                  uint32_t pos)
{
    if (prev == NULL)
        return chunk_for(chunks, rb, pos);
    const uint32_t start = prev->start + CHUNK_DATA;
    struct chunk *next = prev->next;
    return next != NULL && next->start == start ? next : add_chunk(chunks, rb, prev, start);
}

/*
 * Copies len bytes to position pos on; returns how many found room. *landed is the chunk of the
 * last.
 */
static uint32_t write_run(struct pool *chunks, struct recvbuf *rb, uint32_t pos,
                          const uint8_t *text, uint32_t len, struct chunk **landed)
{
    uint32_t done = 0;
    struct chunk *c = NULL;
    while (done < len) {
        c = chunk_behind(chunks, rb, c, pos);
        if (c == NULL)
            break;
        const uint32_t within = pos - c->start;
        const uint32_t step = min_u32(len - done, CHUNK_DATA - within);
        memcpy(c->data + within, text + done, step);
        *landed = c;
        done += step;
        pos += step;
    }
    return done;
}

/*
 * Writes those bytes of [start, start+len) that no range holds; `r` is the first range that ends
 * behind start. Returns how far the bytes reach without a gap (less than len when memory ran out)
 * and through *stored how many of them are new.
 */
static uint32_t write_gaps(struct pool *chunks, struct recvbuf *rb, const struct recv_range *r,
                           tcp_seq start, uint32_t pos, const uint8_t *text, uint32_t len,
                           uint32_t *stored, struct chunk **landed)
{
    uint32_t at = 0;
    while (at < len) {
        uint32_t gap = len - at;
        if (r != NULL) {
            const int32_t ahead = seq_diff(r->start, seq_add(start, at));
            if (ahead <= 0) {
                at = min_u32(len, (uint32_t)seq_diff(r->end, start));
                r = r->next;
                continue;
            }
            gap = min_u32(gap, (uint32_t)ahead);
        }
        const uint32_t done = write_run(chunks, rb, pos + at, text + at, gap, landed);
        *stored += done;
        at += done;
        if (done < gap)
            break;
    }
    return at;
}

static void remove_range(struct pool *ranges, struct recvbuf *rb, struct recv_range **link)
{
    struct recv_range *r = *link;
    *link = r->next;
    rb->nranges--;
    pool_free(ranges, r);
}

/* In-order text: [rcv_nxt, rcv_nxt+len). */
static uint32_t insert_in_order(struct pool *chunks, struct pool *ranges, struct recvbuf *rb,
                                tcp_seq rcv_nxt, const uint8_t *text, uint32_t len,
                                uint32_t *stored)
{
    struct chunk *landed = rb->fill;
    if (likely(rb->ranges == NULL)) {
        *stored = write_run(chunks, rb, rb->next_pos, text, len, &landed);
        rb->fill = landed;
        rb->next_pos += *stored;
        return *stored;
    }
    uint32_t advance =
        write_gaps(chunks, rb, rb->ranges, rcv_nxt, rb->next_pos, text, len, stored, &landed);
    rb->fill = landed;
    /* Ranges that the text reaches are in order now. */
    while (rb->ranges != NULL && seq_leq(rb->ranges->start, seq_add(rcv_nxt, advance))) {
        const struct recv_range *r = rb->ranges;
        advance = max_u32(advance, (uint32_t)seq_diff(r->end, rcv_nxt));
        rb->ooo_bytes -= (uint32_t)seq_diff(r->end, r->start);
        remove_range(ranges, rb, &rb->ranges);
    }
    rb->next_pos += advance;
    return advance;
}

/* Text behind a hole: it joins the ranges that it touches, or makes a new one. */
static void insert_out_of_order(struct pool *chunks, struct pool *ranges, struct recvbuf *rb,
                                tcp_seq rcv_nxt, uint32_t off, const uint8_t *text, uint32_t len,
                                uint32_t *stored)
{
    const tcp_seq start = seq_add(rcv_nxt, off);
    struct recv_range **link = &rb->ranges;
    while (*link != NULL && seq_lt((*link)->end, start))
        link = &(*link)->next;
    const bool touches = *link != NULL && seq_leq((*link)->start, seq_add(start, len));
    struct recv_range *r = *link;
    if (!touches) {
        r = rb->nranges < RECV_RANGES_MAX ? pool_alloc(ranges) : NULL;
        if (r == NULL)
            return;
    }

    rb->seq_base = rcv_nxt.v - rb->next_pos;
    struct chunk *landed = rb->hint;
    const uint32_t reach =
        write_gaps(chunks, rb, *link, start, rb->next_pos + off, text, len, stored, &landed);
    const tcp_seq end = seq_add(start, reach);
    rb->hint = landed;
    if (touches) {
        if (seq_lt(end, r->start)) {
            /* Memory ran out before the text met the range: what was written is not counted. */
            *stored = 0;
            return;
        }
        r->start = seq_min(r->start, start);
        r->end = seq_max(r->end, end);
    } else {
        if (reach == 0) {
            pool_free(ranges, r);
            return;
        }
        *r = (struct recv_range){.next = *link, .start = start, .end = end};
        *link = r;
        rb->nranges++;
    }
    rb->ooo_bytes += *stored;
    r->recency = ++rb->recency;
    while (r->next != NULL && seq_leq(r->next->start, r->end)) {
        r->end = seq_max(r->end, r->next->end);
        remove_range(ranges, rb, &r->next);
    }
}

uint32_t recvbuf_insert(struct pool *chunks, struct pool *ranges, struct recvbuf *rb,
                        tcp_seq rcv_nxt, uint32_t off, const uint8_t *text, uint32_t len,
                        uint32_t *stored)
{
    *stored = 0;
    if (len == 0 || off >= REACH || len > REACH - off)
        return 0;
    if (off == 0)
        return insert_in_order(chunks, ranges, rb, rcv_nxt, text, len, stored);
    insert_out_of_order(chunks, ranges, rb, rcv_nxt, off, text, len, stored);
    return 0;
}

unsigned recvbuf_prepare(struct pool *chunks, struct recvbuf *rb, uint32_t from, uint32_t len,
                         struct slice *out, unsigned max)
{
    uint32_t pos = rb->next_pos + from;
    struct chunk *c = NULL;
    unsigned n = 0;
    if (rb->ranges != NULL)
        return 0;
    while (len > 0) {
        /* what was added stays where memory ends: it is in nobody's way */
        c = n < max ? chunk_behind(chunks, rb, c, pos) : NULL;
        if (c == NULL)
            return 0;
        const uint32_t within = pos - c->start;
        const uint32_t step = min_u32(len, CHUNK_DATA - within);
        out[n++] = (struct slice){c->data + within, step};
        pos += step;
        len -= step;
    }
    return n;
}

void recvbuf_commit(struct recvbuf *rb, uint32_t passed, uint32_t len)
{
    rb->read_pos += passed;
    rb->next_pos += passed + len;
    if (len > 0 && pos_diff(rb->next_pos, rb->tail->start) >= 0)
        rb->fill = rb->tail;
}

uint32_t recvbuf_peek(const struct recvbuf *rb, uint32_t from, const struct slice *to, unsigned n,
                      uint32_t len)
{
    const uint32_t ready = recvbuf_ready(rb);
    if (from >= ready)
        return 0;
    len = min_u32(len, ready - from);
    uint32_t pos = rb->read_pos + from;
    const struct chunk *c = rb->head;
    uint32_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        uint8_t *out = to[i].base;
        uint32_t want = (uint32_t)min_u64(to[i].len, len - done);
        while (want > 0) {
            while (!chunk_holds(c, pos))
                c = c->next;
            const uint32_t within = pos - c->start;
            const uint32_t step = min_u32(want, CHUNK_DATA - within);
            memcpy(out, c->data + within, step);
            out += step;
            pos += step;
            done += step;
            want -= step;
        }
    }
    return done;
}

/* The first n ready bytes are taken: chunks that hold nothing more go back. */
static void consume(struct pool *chunks, struct recvbuf *rb, uint32_t n)
{
    rb->read_pos += n;
    if (recvbuf_ready(rb) == 0 && rb->ranges == NULL) {
        truncate_chunks(chunks, rb, NULL);
        return;
    }
    while (rb->head != NULL && pos_diff(rb->read_pos, rb->head->end) >= 0) {
        struct chunk *c = rb->head;
        rb->head = c->next;
        if (rb->head == NULL)
            rb->tail = NULL;
        free_chunk(chunks, rb, c);
    }
}

uint32_t recvbuf_read(struct pool *chunks, struct recvbuf *rb, const struct slice *to, unsigned n,
                      uint32_t len)
{
    const uint32_t got = n == 0 ? min_u32(len, recvbuf_ready(rb)) : recvbuf_peek(rb, 0, to, n, len);
    if (got > 0)
        consume(chunks, rb, got);
    return got;
}

struct chunk *recvbuf_take(struct recvbuf *rb, uint32_t most)
{
    struct chunk *c = rb->head;
    const uint32_t ready = recvbuf_ready(rb);
    if (ready == 0 || rb->ranges != NULL || !chunk_holds(c, rb->read_pos))
        return NULL;
    const uint32_t held = min_u32((uint32_t)pos_diff(c->end, rb->read_pos), ready);
    if (held > most)
        return NULL;
    rb->head = c->next;
    if (rb->head == NULL)
        rb->tail = NULL;
    forget_chunk(rb, c);
    c->start = rb->read_pos - c->start;
    c->end = c->start + held;
    rb->read_pos += held;
    return c;
}

bool recvbuf_adopts(const struct recvbuf *rb, const struct chunk *c)
{
    if (rb->ranges != NULL)
        return false;
    return rb->tail == NULL || (c->start == 0 && pos_diff(rb->next_pos, rb->tail->end) == 0);
}

void recvbuf_adopt(struct recvbuf *rb, struct chunk *c)
{
    const uint32_t held = c->end - c->start;
    c->next = NULL;
    c->start = rb->next_pos - c->start;
    c->end = c->start + CHUNK_DATA;
    chunks_append(&rb->head, &rb->tail, c, c);
    rb->fill = c;
    rb->chunks++;
    rb->next_pos += held;
}

unsigned recvbuf_sack(const struct recvbuf *rb, struct tcp_sack_block *out, unsigned max)
{
    const struct recv_range *chosen[TCP_SACK_BLOCKS_MAX];
    unsigned n = 0;
    max = min_u32(max, TCP_SACK_BLOCKS_MAX);
    if (max == 0)
        return 0;
    for (const struct recv_range *r = rb->ranges; r != NULL; r = r->next) {
        /* Keep the newest `max`, newest first. */
        unsigned i = n < max ? n : max;
        while (i > 0 && (int32_t)(r->recency - chosen[i - 1]->recency) > 0)
            i--;
        if (i == max)
            continue;
        if (n < max)
            n++;
        memmove(&chosen[i + 1], &chosen[i], (n - i - 1) * sizeof(chosen[0]));
        chosen[i] = r;
    }
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct tcp_sack_block){chosen[i]->start, chosen[i]->end};
    return n;
}

uint32_t recvbuf_prune(struct pool *chunks, struct pool *ranges, struct recvbuf *rb)
{
    if (rb->ranges == NULL)
        return 0;
    struct recv_range **link = &rb->ranges;
    uint32_t kept_end = rb->next_pos;
    while ((*link)->next != NULL) {
        kept_end = (*link)->end.v - rb->seq_base;
        link = &(*link)->next;
    }
    const uint32_t given = (uint32_t)seq_diff((*link)->end, (*link)->start);
    rb->ooo_bytes -= given;
    remove_range(ranges, rb, link);

    struct chunk *last = NULL;
    for (struct chunk *c = rb->head; c != NULL && pos_diff(kept_end, c->start) > 0; c = c->next)
        last = c;
    truncate_chunks(chunks, rb, last);
    return given;
}

void recvbuf_clear(struct pool *chunks, struct pool *ranges, struct recvbuf *rb)
{
    while (rb->ranges != NULL)
        remove_range(ranges, rb, &rb->ranges);
    truncate_chunks(chunks, rb, NULL);
    rb->ooo_bytes = 0;
    rb->read_pos = rb->next_pos;
}
