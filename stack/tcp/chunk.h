/* A chunk of payload: sixteen fit in an arena span. */
#pragma once

#include "stack/base.h"

/*
 * Text lies in whole cache lines: copies by `rep movsb`, the kernel's, take up to a fifth less time
 * where source and destination begin at lines.
 */
#define CHUNK_LINE 64
#define CHUNK_DATA (62 * CHUNK_LINE)

struct chunk {
    struct chunk *next;
    uint32_t start; /* the owner's: stream offset or fill mark */
    uint32_t end;
    uint8_t data[CHUNK_DATA]; /* begins at a line: a span's first object lies 16 bytes before one */
    uint8_t unused[CHUNK_LINE - 16];
};
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

_Static_assert(sizeof(struct chunk) % CHUNK_LINE == 0, "the next one's text begins at a line, too");
