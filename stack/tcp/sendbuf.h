/*
 * The send buffer: the bytes from SND.UNA up to what the program wrote last, in a chain of chunks
 * that are taken on demand and given back as ACKs arrive. Offsets count from the first
 * unacknowledged byte.
 */
#pragma once

#include "stack/arena.h"
#include "stack/tcp/chunk.h"

struct sendbuf {
    struct chunk *head, *tail;
    uint32_t len; /* bytes held */
    uint32_t chunks;
    /* offsets (from the first byte held) of the cursors' first held bytes */
    uint32_t cursor_off, old_cursor_off;
    /* where the gather of the newest bytes ended: the next one usually begins there */
    struct chunk *cursor;
    /* the same for gathers of older bytes (retransmissions), so that the two do not undo each other
     */
    struct chunk *old_cursor;
};

/*
 * Copies up to `limit` bytes from the slices, beginning `skip` bytes into them. Returns the bytes
 * taken, fewer when the arena is full. runs: text that fills several objects may lie in one piece,
 * which sendbuf_take() does not take out.
 */
uint32_t sendbuf_append(struct pool *chunks, struct sendbuf *sb, const struct slice *from,
                        unsigned n, size_t skip, uint32_t limit, bool runs);
/* Points up to `max` slices at [off, off+len); returns how many, and through *got the bytes that
 * they cover. */
unsigned sendbuf_gather(struct sendbuf *sb, uint32_t off, uint32_t len, struct slice *out,
                        unsigned max, uint32_t *got);
/* The first n bytes were acknowledged: their chunks go back. */
void sendbuf_release(struct pool *chunks, struct sendbuf *sb, uint32_t n);
/* A chain of filled chunks, which hold len bytes, goes to the end. */
void sendbuf_link(struct sendbuf *sb, struct chunk *head, struct chunk *tail, uint32_t chunks,
                  uint32_t len);
/*
 * Takes the first chunk out, which is the caller's from now on: its text is its bytes [start, end).
 * NULL: there is none, it holds more than `most`, or is a run.
 */
struct chunk *sendbuf_take(struct sendbuf *sb, uint32_t most);
void sendbuf_clear(struct pool *chunks, struct sendbuf *sb);
