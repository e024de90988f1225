/* Where a transfer that takes several steps stands in the program's vector. */
#pragma once

#include "stack/base.h"

struct cursor {
    const struct slice *v;
    unsigned n;
    size_t off;         /* bytes of v[0] that are done */
    struct slice first; /* the rest of v[0], when off is not 0 */
};

static inline void cursor_init(struct cursor *k, const struct slice *v, unsigned n)
{
    k->v = v;
    k->n = n;
    k->off = 0;
}

static inline void cursor_advance(struct cursor *k, size_t bytes)
{
    while (k->n > 0 && bytes >= k->v->len - k->off) {
        bytes -= k->v->len - k->off;
        k->v++;
        k->n--;
        k->off = 0;
    }
    k->off += bytes;
}

/*
 * The next slices to transfer: the rest of a slice that was begun by itself, otherwise all that
 * are left. The program's vector is neither copied nor changed.
 */
static inline unsigned cursor_window(struct cursor *k, const struct slice **out)
{
    if (k->off == 0 || k->n == 0) {
        *out = k->v;
        return k->n;
    }
    k->first = (struct slice){.base = (char *)k->v->base + k->off, .len = k->v->len - k->off};
    *out = &k->first;
    return 1;
}
