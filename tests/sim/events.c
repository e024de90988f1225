/* The queue of what will happen: a binary heap, ordered by time and then by order of entry. */
#include "tests/sim/sim.h"

#include <stdlib.h>

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

struct event *event_new(struct sim *s, enum event_kind kind, nsec_t at, struct host *h,
                        uint32_t len)
{
    struct event *e = malloc(sizeof(*e) + len);
    if (!e)
        abort();
    memset(e, 0, sizeof(*e));
    e->kind = kind;
    e->at = at < s->now ? s->now : at;
    e->host = h;
    e->len = len;
    return e;
}

void event_push(struct sim *s, struct event *e)
{
    if (s->nevents == s->heap_room) {
        s->heap_room = s->heap_room ? 2 * s->heap_room : 256;
        s->heap = realloc(s->heap, s->heap_room * sizeof(*s->heap));
        if (!s->heap)
            abort();
    }
    e->order = s->order++;
    size_t i = s->nevents++;
    for (; i > 0 && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
}

struct event *event_pop(struct sim *s)
{
    struct event *top = s->heap[0];
    struct event *last = s->heap[--s->nevents];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->nevents)
            break;
        if (child + 1 < s->nevents && before(s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s->heap[child], last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

void event_free_all(struct sim *s)
{
    for (size_t i = 0; i < s->nevents; i++)
        free(s->heap[i]);
    free(s->heap);
    for (unsigned k = 0; k < s->nhosts; k++)
        for (struct event *e = s->hosts[k].rx_head, *next; e; e = next) {
            next = e->next;
            free(e);
        }
    s->heap = NULL;
    s->nevents = s->heap_room = 0;
}
