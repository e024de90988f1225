/* A chunk of payload: sixteen fit in an arena span. */
#pragma once

#include "stack/arena.h"

/*
 * Text lies in whole cache lines: copies by `rep movsb`, the kernel's, take up to a fifth less time
 * where source and destination begin at lines.
 */
#define CHUNK_LINE 64
#define CHUNK_DATA (62 * CHUNK_LINE)

/*
 * One object of the pool, or in send buffers a run of several, whose text is one piece: the kernel
 * takes 1.5 us more for a large frame that lies in seventeen pieces than for one that lies in
 * three.
 */
struct chunk {
    struct chunk *next;
    uint32_t start; /* the owner's: stream offset or fill mark */
    uint32_t end;
    uint32_t objects; /* 1, 2, 4 or 8 */
    uint8_t unused[CHUNK_LINE - 20];
    uint8_t data[CHUNK_DATA]; /* begins at a line, and goes on over the objects behind */
};
#define CHUNK_OBJECTS_MAX 8

_Static_assert(sizeof(struct chunk) % CHUNK_LINE == 0, "the next one's text begins at a line, too");

/* Bytes of text that a chunk of so many objects has room for. */
static inline uint32_t chunk_room(uint32_t objects)
{
    return objects * (uint32_t)sizeof(struct chunk) - (uint32_t)offsetof(struct chunk, data);
}

/* Its text; an array's bounds would be those of one object. */
static inline uint8_t *chunk_text(struct chunk *c)
{
    return (uint8_t *)c + offsetof(struct chunk, data);
}

/* One object's, with unknown text; NULL when the arena is full. */
static inline struct chunk *chunk_new(struct pool *chunks)
{
    struct chunk *c = pool_alloc_raw(chunks);
    if (c != NULL)
        c->objects = 1;
    return c;
}

static inline void chunk_free(struct pool *chunks, struct chunk *c)
{
    if (c->objects == 1)
        pool_free(chunks, c);
    else
        pool_free_run(chunks, c, c->objects);
}

/* Puts the chain first..last behind the one from *head to *tail (both NULL: there is none). */
static inline void chunks_append(struct chunk **head, struct chunk **tail, struct chunk *first,
                                 struct chunk *last)
{
    if (*tail != NULL)
        (*tail)->next = first;
    else
        *head = first;
    *tail = last;
}
