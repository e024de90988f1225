/*
 * The send buffer: see sendbuf.h. In each chunk the bytes [start, end) are held. Text is added to
 * the tail chunk alone; start moves in the head chunk alone.
 */
#include "stack/tcp/sendbuf.h"

/* A run for so many bytes, chunk_room(2) at least, which are there to fill it; NULL: none is to be
 * had. */
static struct chunk *run_for(struct pool *chunks, uint32_t bytes)
{
    uint32_t objects = CHUNK_OBJECTS_MAX;
    while (bytes < chunk_room(objects))
        objects /= 2;
    struct chunk *c = pool_alloc_run(chunks, objects);
    if (c != NULL)
        c->objects = objects;
    return c;
}

/* A new, empty tail; NULL when the arena is full. */
static struct chunk *grow(struct pool *chunks, struct sendbuf *sb, uint32_t bytes)
{
    struct chunk *c = bytes >= chunk_room(2) ? run_for(chunks, bytes) : NULL;
    if (c == NULL)
        c = chunk_new(chunks);
    if (c == NULL)
        return NULL;
    c->next = NULL;
    c->start = c->end = 0;
    chunks_append(&sb->head, &sb->tail, c, c);
    sb->chunks++;
    return c;
}

/* Copies n bytes to the tail, as far as memory reaches. */
static uint32_t append_piece(struct pool *chunks, struct sendbuf *sb, const uint8_t *p, uint32_t n,
                             bool runs)
{
    uint32_t done = 0;
    while (done < n) {
        struct chunk *c = sb->tail;
        if (c == NULL || c->end == chunk_room(c->objects)) {
            c = grow(chunks, sb, runs ? n - done : 0);
            if (c == NULL)
                break;
        }
        const uint32_t step = min_u32(n - done, chunk_room(c->objects) - c->end);
        memcpy(chunk_text(c) + c->end, p + done, step);
        c->end += step;
        done += step;
    }
    sb->len += done;
    return done;
}

uint32_t sendbuf_append(struct pool *chunks, struct sendbuf *sb, const struct slice *from,
                        unsigned n, size_t skip, uint32_t limit, bool runs)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < n && done < limit; i++) {
        if (skip >= from[i].len) {
            skip -= from[i].len;
            continue;
        }
        const uint32_t want = (uint32_t)min_u64(from[i].len - skip, limit - done);
        const uint32_t took =
            append_piece(chunks, sb, (const uint8_t *)from[i].base + skip, want, runs);
        skip = 0;
        done += took;
        if (took < want)
            break;
    }
    return done;
}

/* The chunk nearest before off from which a walk may begin; *at is the offset of its first byte. */
static struct chunk *walk_start(const struct sendbuf *sb, uint32_t off, uint32_t *at)
{
    if (sb->cursor != NULL && off >= sb->cursor_off) {
        *at = sb->cursor_off;
        return sb->cursor;
    }
    if (sb->old_cursor != NULL && off >= sb->old_cursor_off) {
        *at = sb->old_cursor_off;
        return sb->old_cursor;
    }
    *at = 0;
    return sb->head;
}

static void remember(struct sendbuf *sb, struct chunk *c, uint32_t at)
{
    if (sb->cursor == NULL || at >= sb->cursor_off) {
        sb->cursor = c;
        sb->cursor_off = at;
    } else {
        sb->old_cursor = c;
        sb->old_cursor_off = at;
    }
}

unsigned sendbuf_gather(struct sendbuf *sb, uint32_t off, uint32_t len, struct slice *out,
                        unsigned max, uint32_t *got)
{
    *got = 0;
    if (off >= sb->len || max == 0)
        return 0;
    len = min_u32(len, sb->len - off);
    if (len == 0)
        return 0;

    uint32_t at;
    struct chunk *c = walk_start(sb, off, &at);
    while (off - at >= c->end - c->start) {
        at += c->end - c->start;
        c = c->next;
    }
    unsigned n = 0;
    for (;;) {
        const uint32_t held = c->end - c->start;
        const uint32_t within = off - at;
        const uint32_t step = min_u32(len, held - within);
        out[n++] = (struct slice){chunk_text(c) + c->start + within, step};
        *got += step;
        off += step;
        len -= step;
        if (len == 0 || n == max)
            break;
        at += held;
        c = c->next;
    }
    remember(sb, c, at);
    return n;
}

static void unlink_head(struct sendbuf *sb)
{
    struct chunk *c = sb->head;
    sb->head = c->next;
    if (sb->head == NULL)
        sb->tail = NULL;
    if (sb->cursor == c)
        sb->cursor = NULL;
    if (sb->old_cursor == c)
        sb->old_cursor = NULL;
    sb->chunks--;
}

/* The head chunk is empty: gives it back. */
static void drop_head(struct pool *chunks, struct sendbuf *sb)
{
    struct chunk *c = sb->head;
    unlink_head(sb);
    chunk_free(chunks, c);
}

void sendbuf_release(struct pool *chunks, struct sendbuf *sb, uint32_t n)
{
    n = min_u32(n, sb->len);
    sb->len -= n;
    /* A cursor that survives points at or behind the new first byte. */
    sb->cursor_off -= min_u32(n, sb->cursor_off);
    sb->old_cursor_off -= min_u32(n, sb->old_cursor_off);
    while (n > 0) {
        struct chunk *c = sb->head;
        const uint32_t held = c->end - c->start;
        if (n < held) {
            c->start += n;
            break;
        }
        n -= held;
        drop_head(chunks, sb);
    }
}

void sendbuf_link(struct sendbuf *sb, struct chunk *head, struct chunk *tail, uint32_t chunks,
                  uint32_t len)
{
    chunks_append(&sb->head, &sb->tail, head, tail);
    sb->chunks += chunks;
    sb->len += len;
}

struct chunk *sendbuf_take(struct sendbuf *sb, uint32_t most)
{
    struct chunk *c = sb->head;
    if (c == NULL || c->objects > 1 || c->end - c->start > most)
        return NULL;
    const uint32_t held = c->end - c->start;
    unlink_head(sb);
    sb->len -= held;
    sb->cursor_off -= min_u32(held, sb->cursor_off);
    sb->old_cursor_off -= min_u32(held, sb->old_cursor_off);
    return c;
}

void sendbuf_clear(struct pool *chunks, struct sendbuf *sb)
{
    while (sb->head != NULL)
        drop_head(chunks, sb);
    memset(sb, 0, sizeof(*sb));
}
