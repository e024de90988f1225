/*
 * The ring of last events, always on: short records of all connections of a stack in a fixed piece
 * of the arena, for what went wrong when nobody was tracing. A record costs a few stores. With many
 * busy connections a quiet one's events are overwritten by the others': RING_EVENTS is for all of
 * them.
 *
 * It is read without the lock, too: by other processes, and by a handler of a crash amid
 * ring_put(). A record whose number is 0 is being written; one that was overwritten while it was
 * copied shows by `next`, which moves before the record does.
 */
#pragma once

#include "stack/trace.h"

#define RING_EVENTS 8192u /* 256 KB */

/* What an event's values are, by its id: ring_expand(). */
struct ring_event {
    nsec_t when;
    uint32_t number; /* of the connection; 0: empty, or of none */
    uint8_t event;   /* enum trace_event_id */
    uint8_t small[3];
    uint32_t values[4];
};

struct ring {
    uint64_t next; /* ever written */
    struct ring_event events[RING_EVENTS];
};

/* What stands before it is done before what stands behind it, seen from another processor. */
static inline void ring_fence(void)
{
#ifndef __SANITIZE_THREAD__ /* gcc refuses it there */
    __atomic_thread_fence(__ATOMIC_ACQ_REL);
#endif
}

/* Events that are kept: state, rx, tx, timer, recovery, held. The others of a call go to no ring.
 */
static inline void ring_put(struct ring *r, nsec_t now, uint32_t number, enum trace_event_id id,
                            const uint8_t small[3], uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint64_t at = r->next;
    struct ring_event *e = &r->events[at % RING_EVENTS];
    __atomic_store_n(&e->number, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&r->next, at + 1, __ATOMIC_RELEASE);
    ring_fence();
    e->when = now;
    e->event = (uint8_t)id;
    e->small[0] = small[0];
    e->small[1] = small[1];
    e->small[2] = small[2];
    e->values[0] = a;
    e->values[1] = b;
    e->values[2] = c;
    e->values[3] = d;
    __atomic_store_n(&e->number, number, __ATOMIC_RELEASE);
}

struct stack;
/* The ring lies within struct stack: also in a mapping of the arena at another address. */
const struct ring *stack_ring(const struct stack *st);
/*
 * The arguments of the event in the order of its schema (trace_events[e->event].args), without
 * those that are not kept (options): their number.
 */
unsigned ring_expand(const struct ring_event *e, uint64_t argv[TRACE_ARGS_MAX]);
/*
 * Calls visit for the events of connection `number` (0: of all) that are still there, the oldest
 * first; *e is a copy. At most `most` of them, the latest.
 */
void ring_walk(const struct ring *r, uint32_t number, unsigned most,
               void (*visit)(const struct ring_event *e, void *arg), void *arg);
