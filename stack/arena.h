/*
 * The arena: one flat mapping that holds every object of a stack, so that plain pointers work in
 * every process of a family. It is cut into 64 KiB spans; a pool takes whole spans and cuts them
 * into objects of one size. A bitmap in the span header says which objects live, so that all live
 * objects can be enumerated and free lists need no repair after a crash. A span whose last object
 * is freed goes back to the arena and may serve another pool.
 *
 * Nothing here locks: the caller holds the engine lock.
 */
#pragma once

#include "stack/base.h"

#define ARENA_SPAN_SIZE ((size_t)65536)
/* An object of this size or less fits a span; larger ones do not exist. */
#define ARENA_OBJECT_MAX (ARENA_SPAN_SIZE - 64 - 128)

struct arena;

/* One kind of object. Lives inside the arena (or beside it) and is set up by pool_init(). */
struct pool {
    struct arena *arena;
    uint32_t object_size;
    uint32_t objects_per_span;
    uint32_t live;        /* objects handed out */
    uint32_t spans;       /* spans owned */
    void *partial;        /* list of spans with room */
    void *full;           /* list of spans without */
    uint32_t data_offset; /* of the first object in a span */
    uint32_t reciprocal;  /* 2^32 / object_size, rounded up */
};

/*
 * Lays an arena over [base, base+size). base must be aligned to ARENA_SPAN_SIZE and zero-filled;
 * untouched spans cost no memory. The first `reserve` bytes after the arena's own header are set
 * aside for the caller (arena_reserved()). Returns NULL when size is too small.
 */
struct arena *arena_init(void *base, size_t size, size_t reserve);
void *arena_reserved(struct arena *a);

/* Bytes in spans handed to pools, the highest they have been, and the most they may become. */
size_t arena_used(const struct arena *a);
size_t arena_peak(const struct arena *a);
size_t arena_limit(const struct arena *a);

/* True when less than a quarter (pressure) of the limit is left: windows stop growing and shrink.
 */
bool arena_pressure(const struct arena *a);
/* Less than a sixteenth: senders take no more, so that what they have can still be sent. */
bool arena_low(const struct arena *a);
/* Less than a thirty-second: no new connections. */
bool arena_reserve_only(const struct arena *a);

void pool_init(struct arena *a, struct pool *p, size_t object_size);
/* A zeroed object, aligned to 64 bytes when its size is a multiple of that (else to 16, or 8), or
 * NULL: the arena is full. */
void *pool_alloc(struct pool *p);
/* The same without zeroing, for payload buffers: what the object holds is undefined. */
void *pool_alloc_raw(struct pool *p);
/* object must come from the same pool (NULL is ignored); freeing twice is caught, ignored and
 * counted. */
void pool_free(struct pool *p, void *object);
/*
 * n objects one behind the other, likewise not zeroed: n is a power of two up to POOL_RUN_MAX, and
 * a span holds as many beginning at any multiple of it. NULL: there are none near at hand, and the
 * arena is full.
 */
#define POOL_RUN_MAX 32
void *pool_alloc_run(struct pool *p, uint32_t n);
/* Gives back all n of them. */
void pool_free_run(struct pool *p, void *first, uint32_t n);
/* How often pool_free() was given what was not a live object of its pool: a defect of ours. */
uint64_t arena_bad_frees(const struct arena *a);
/* Calls visit for each live object. visit may free the object it is given. */
void pool_each(struct pool *p, void (*visit)(void *object, void *arg), void *arg);
/* Whether object is where an object of this pool may be, live or not. */
bool pool_has_place(const struct pool *p, const void *object);
/* The same for all n objects of a run. */
bool pool_has_run(const struct pool *p, const void *first, uint32_t n);
/* Whether object is a live object of this pool: for checks and for repair. */
bool pool_owns(const struct pool *p, const void *object);
/*
 * Makes counts and lists of the pool anew from the bitmaps of its spans, after a process died in
 * the middle of pool_alloc() or pool_free(). Repair every pool, then call arena_repair().
 */
void pool_repair(struct pool *p);
/*
 * When only those objects are to live that others refer to: all are forgotten, those that are
 * found are claimed again (false: not an object's place, or claimed already), then pool_repair().
 */
void pool_forget(struct pool *p);
bool pool_claim(struct pool *p, const void *object);
/* Makes the list of free spans anew. */
void arena_repair(struct arena *a);

/* ---- reading from outside ---- */

/*
 * Which build laid the arena out (shim/core/layout.h): a reader of another build must not read on.
 * 0: not said. The tag stands where every build finds it.
 */
void arena_set_tag(struct arena *a, uint64_t tag);
uint64_t arena_tag(const struct arena *a);

/* Copies from an arena that its owners go on using. False: not there (any more). Addresses are the
 * owners'; whoever implements it checks them. */
struct arena_reader {
    bool (*read)(const struct arena_reader *r, uintptr_t address, void *to, size_t len);
    uintptr_t base; /* of the arena */
    size_t size;
};
/* The tag of such an arena, 0 when it is none. */
uint64_t arena_read_tag(const struct arena_reader *r);

/* A pool whose live objects are wanted. The copy is a moment's: parts may be older than others. */
struct pool_wish {
    uintptr_t pool; /* its address */
    size_t object_size;
    void (*visit)(uintptr_t address, const void *copy, void *arg);
};
/*
 * Copies the spans of those pools one by one into `room` (ARENA_SPAN_SIZE bytes, aligned to 16) and
 * visits their objects. What it finds is not trusted: nothing there leads out of the copy.
 */
void arena_read_pools(const struct arena_reader *r, const struct pool_wish *wishes, unsigned n,
                      void *room, void *arg);
