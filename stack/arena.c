#include "stack/arena.h"

#define ARENA_MAGIC 0x616e657261706374u

/*
 * At the head of every span that a pool has. The bitmap is the truth; which list the span is on is
 * derived from it.
 */
struct span {
    struct span *next, *prev; /* among the pool's partial or full spans, or the arena's free ones */
    struct pool *pool;        /* NULL: free */
    uint32_t used;            /* bits set in the bitmap */
    uint32_t hint;            /* no word of the bitmap before this one has a free bit */
    uint64_t live[];          /* one bit an object; bits past the last object are set for good */
};

struct arena {
    uint64_t magic;
    uint64_t tag;      /* these two stay where they are: readers of any build look at them */
    uint8_t *spans;    /* the first span */
    uint32_t nspans;   /* spans there are */
    uint32_t fresh;    /* spans[fresh..) were never used */
    uint32_t owned;    /* spans that pools have */
    uint32_t peak;     /* the most that `owned` has been */
    struct span *free; /* given back */
    uint64_t bad_frees;
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static struct span *span_at(const struct arena *a, uint32_t index)
{
    return (struct span *)(a->spans + (size_t)index * ARENA_SPAN_SIZE);
}

static struct span *span_of(const void *object)
{
    return (struct span *)((uintptr_t)object & ~(uintptr_t)(ARENA_SPAN_SIZE - 1));
}

struct arena *arena_init(void *base, size_t size, size_t reserve)
{
    const size_t head = round_up(sizeof(struct arena), 64);
    if (size < head || reserve > size - head)
        return NULL;
    const size_t first = round_up(head + reserve, ARENA_SPAN_SIZE);
    if (first > size || size - first < ARENA_SPAN_SIZE)
        return NULL;
    struct arena *a = base;
    a->magic = ARENA_MAGIC;
    a->tag = 0;
    a->spans = (uint8_t *)base + first;
    a->nspans = (uint32_t)((size - first) / ARENA_SPAN_SIZE);
    a->fresh = 0;
    a->owned = 0;
    a->peak = 0;
    a->free = NULL;
    a->bad_frees = 0;
    return a;
}

void *arena_reserved(struct arena *a)
{
    return (uint8_t *)a + round_up(sizeof(struct arena), 64);
}

size_t arena_used(const struct arena *a)
{
    return (size_t)a->owned * ARENA_SPAN_SIZE;
}

size_t arena_peak(const struct arena *a)
{
    return (size_t)a->peak * ARENA_SPAN_SIZE;
}

size_t arena_limit(const struct arena *a)
{
    return (size_t)a->nspans * ARENA_SPAN_SIZE;
}

bool arena_pressure(const struct arena *a)
{
    return a->nspans - a->owned < a->nspans / 4;
}

bool arena_low(const struct arena *a)
{
    return a->nspans - a->owned < a->nspans / 16;
}

bool arena_reserve_only(const struct arena *a)
{
    return a->nspans - a->owned < a->nspans / 32;
}

uint64_t arena_bad_frees(const struct arena *a)
{
    return a->bad_frees;
}

/* ---- spans ---- */

static void span_push(void **head, struct span *s)
{
    s->prev = NULL;
    s->next = *head;
    if (s->next != NULL)
        s->next->prev = s;
    *head = s;
}

static void span_remove(void **head, struct span *s)
{
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        *head = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
}

static uint32_t words_of(const struct pool *p)
{
    return (p->objects_per_span + 63) / 64;
}

/* A free span made ready for the pool, on its partial list; NULL when the arena is full. */
static struct span *span_take(struct pool *p)
{
    struct arena *a = p->arena;
    struct span *s = a->free;
    if (s != NULL)
        a->free = s->next;
    else if (a->fresh < a->nspans)
        s = span_at(a, a->fresh++);
    else
        return NULL;
    if (++a->owned > a->peak)
        a->peak = a->owned;
    const uint32_t words = words_of(p);
    memset(s->live, 0, words * sizeof(s->live[0]));
    if (p->objects_per_span % 64 != 0)
        s->live[words - 1] = ~(uint64_t)0 << (p->objects_per_span % 64);
    s->used = 0;
    s->hint = 0;
    s->pool = p;
    p->spans++;
    span_push(&p->partial, s);
    return s;
}

static void span_give_back(struct pool *p, struct span *s)
{
    struct arena *a = p->arena;
    s->pool = NULL;
    s->next = a->free;
    a->free = s;
    a->owned--;
    p->spans--;
}

/* ---- pools ---- */

void pool_init(struct arena *a, struct pool *p, size_t object_size)
{
    const size_t size = round_up(object_size < 8 ? 8 : object_size, 8);
    const size_t align = size % 64 == 0 ? 64 : 16;
    /* each object takes its bytes and a bit; then fewer until the rounding fits, too */
    uint32_t n = (uint32_t)((ARENA_SPAN_SIZE - sizeof(struct span)) / size);
    size_t offset;
    for (;; n--) {
        offset = round_up(sizeof(struct span) + (n + 63) / 64 * sizeof(uint64_t), align);
        if (offset + n * size <= ARENA_SPAN_SIZE)
            break;
    }
    *p = (struct pool){
        .arena = a,
        .object_size = (uint32_t)size,
        .objects_per_span = n,
        .data_offset = (uint32_t)offset,
        .reciprocal = (uint32_t)(((uint64_t)1 << 32) / size + 1),
    };
}

/* The objects of these bits, of which `first` is the lowest, are the caller's now. */
static inline void *hand_out(struct pool *p, struct span *s, uint32_t first, uint64_t bits,
                             uint32_t n)
{
    s->live[first / 64] |= bits;
    p->live += n;
    s->used += n;
    if (unlikely(s->used == p->objects_per_span)) {
        span_remove(&p->partial, s);
        span_push(&p->full, s);
    }
    return (uint8_t *)s + p->data_offset + (size_t)first * p->object_size;
}

void *pool_alloc_raw(struct pool *p)
{
    struct span *s = p->partial;
    if (unlikely(s == NULL)) {
        s = span_take(p);
        if (s == NULL)
            return NULL;
    }
    uint32_t w = s->hint;
    while (s->live[w] == ~(uint64_t)0)
        w++;
    const uint32_t bit = (uint32_t)__builtin_ctzll(~s->live[w]);
    s->hint = w;
    return hand_out(p, s, w * 64 + bit, (uint64_t)1 << bit, 1);
}

/* Spans that are looked at for a run, before a new one is taken. */
#define RUN_LOOKS 4

/* The bits of n objects in the word of the first one. */
static uint64_t run_bits(uint32_t first, uint32_t n)
{
    return (((uint64_t)1 << n) - 1) << (first % 64);
}

/* The first bit of n free ones in a row of the span, at a multiple of n; -1: there are none. */
static int find_run(const struct pool *p, const struct span *s, uint32_t n)
{
    const uint64_t first_of_each = ~(uint64_t)0 / run_bits(0, n);
    for (uint32_t w = s->hint; w < words_of(p); w++) {
        uint64_t runs = ~s->live[w];
        for (uint32_t step = 1; step < n; step *= 2)
            runs &= runs >> step;
        runs &= first_of_each;
        if (runs != 0)
            return (int)(w * 64) + __builtin_ctzll(runs);
    }
    return -1;
}

void *pool_alloc_run(struct pool *p, uint32_t n)
{
    struct span *s = p->partial;
    int first = -1;
    for (unsigned looks = 0; s != NULL && looks < RUN_LOOKS; looks++, s = s->next)
        if ((first = find_run(p, s, n)) >= 0)
            break;
    if (first < 0) {
        s = span_take(p);
        if (s == NULL)
            return NULL;
        first = find_run(p, s, n);
    }
    return hand_out(p, s, (uint32_t)first, run_bits((uint32_t)first, n), n);
}

void *pool_alloc(struct pool *p)
{
    void *object = pool_alloc_raw(p);
    if (likely(object != NULL))
        memset(object, 0, p->object_size);
    return object;
}

/* Whether object is where an object of the pool may be; its number in the span. */
static inline bool find_place(const struct pool *p, const void *object, struct span **span,
                              uint32_t *index)
{
    const struct arena *a = p->arena;
    const uintptr_t off = (uintptr_t)object - (uintptr_t)a->spans;
    if (unlikely(off >= (uintptr_t)a->fresh * ARENA_SPAN_SIZE))
        return false;
    struct span *s = span_of(object);
    const uint32_t at = (uint32_t)((uintptr_t)object - (uintptr_t)s) - p->data_offset;
    /* a division by multiplication, exact for numbers below 65,536 */
    const uint32_t i = (uint32_t)((uint64_t)at * p->reciprocal >> 32);
    if (unlikely(s->pool != p || at >= ARENA_SPAN_SIZE || i * p->object_size != at ||
                 i >= p->objects_per_span))
        return false;
    *span = s;
    *index = i;
    return true;
}

static inline bool find_live(const struct pool *p, const void *object, struct span **span,
                             uint32_t *index)
{
    return find_place(p, object, span, index) &&
           ((*span)->live[*index / 64] >> (*index % 64) & 1) != 0;
}

/* The objects of these bits of word w are no more. */
static inline void give_back(struct pool *p, struct span *s, uint32_t w, uint64_t bits, uint32_t n)
{
    s->live[w] &= ~bits;
    if (w < s->hint)
        s->hint = w;
    p->live -= n;
    const bool was_full = s->used == p->objects_per_span;
    s->used -= n;
    if (unlikely(s->used == 0)) {
        span_remove(was_full ? &p->full : &p->partial, s);
        span_give_back(p, s);
    } else if (unlikely(was_full)) {
        span_remove(&p->full, s);
        span_push(&p->partial, s);
    }
}

void pool_free(struct pool *p, void *object)
{
    if (unlikely(object == NULL))
        return;
    struct span *s;
    uint32_t i;
    if (unlikely(!find_live(p, object, &s, &i))) {
        p->arena->bad_frees++;
        return;
    }
    give_back(p, s, i / 64, (uint64_t)1 << (i % 64), 1);
}

void pool_free_run(struct pool *p, void *first, uint32_t n)
{
    struct span *s;
    uint32_t i;
    if (unlikely(!find_live(p, first, &s, &i) || i % n != 0 ||
                 (~s->live[i / 64] & run_bits(i, n)) != 0)) {
        p->arena->bad_frees++;
        return;
    }
    give_back(p, s, i / 64, run_bits(i, n), n);
}

bool pool_has_run(const struct pool *p, const void *first, uint32_t n)
{
    struct span *s;
    uint32_t i;
    return n > 0 && n <= POOL_RUN_MAX && (n & (n - 1)) == 0 && find_place(p, first, &s, &i) &&
           i % n == 0 && i + n <= p->objects_per_span;
}

bool pool_owns(const struct pool *p, const void *object)
{
    struct span *s;
    uint32_t i;
    return find_live(p, object, &s, &i);
}

bool pool_has_place(const struct pool *p, const void *object)
{
    struct span *s;
    uint32_t i;
    return find_place(p, object, &s, &i);
}

/* The word of the bitmap without the bits that stand for no object. */
static uint64_t live_word(const struct pool *p, const struct span *s, uint32_t w)
{
    const uint32_t left = p->objects_per_span - w * 64;
    const uint64_t objects = left >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << left) - 1;
    return s->live[w] & objects;
}

void pool_each(struct pool *p, void (*visit)(void *object, void *arg), void *arg)
{
    const struct arena *a = p->arena;
    for (uint32_t n = 0; n < a->fresh; n++) {
        struct span *s = span_at(a, n);
        /* the span is looked at again after each visit: the visitor may have freed its last object
         */
        for (uint32_t w = 0; w < words_of(p) && s->pool == p; w++) {
            for (uint64_t bits = live_word(p, s, w); bits != 0; bits &= bits - 1) {
                const uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
                if (s->pool == p && (s->live[w] >> (i % 64) & 1) != 0)
                    visit((uint8_t *)s + p->data_offset + (size_t)i * p->object_size, arg);
            }
        }
    }
}

/* ---- repair ---- */

void pool_repair(struct pool *p)
{
    const struct arena *a = p->arena;
    p->partial = NULL;
    p->full = NULL;
    p->live = 0;
    p->spans = 0;
    for (uint32_t n = 0; n < a->fresh; n++) {
        struct span *s = span_at(a, n);
        if (s->pool != p)
            continue;
        s->used = 0;
        s->hint = 0;
        for (uint32_t w = 0; w < words_of(p); w++)
            s->used += (uint32_t)__builtin_popcountll(live_word(p, s, w));
        if (s->used == 0) {
            s->pool = NULL; /* arena_repair() puts it on the free list */
            continue;
        }
        p->live += s->used;
        p->spans++;
        span_push(s->used == p->objects_per_span ? &p->full : &p->partial, s);
    }
}

void pool_forget(struct pool *p)
{
    const struct arena *a = p->arena;
    for (uint32_t n = 0; n < a->fresh; n++) {
        struct span *s = span_at(a, n);
        if (s->pool != p)
            continue;
        for (uint32_t w = 0; w < words_of(p); w++)
            s->live[w] &= ~live_word(p, s, w);
    }
}

bool pool_claim(struct pool *p, const void *object)
{
    struct span *s;
    uint32_t i;
    if (!find_place(p, object, &s, &i) || (s->live[i / 64] >> (i % 64) & 1) != 0)
        return false;
    s->live[i / 64] |= (uint64_t)1 << (i % 64);
    return true;
}

void arena_repair(struct arena *a)
{
    a->free = NULL;
    a->owned = 0;
    for (uint32_t n = a->fresh; n-- > 0;) {
        struct span *s = span_at(a, n);
        if (s->pool != NULL) {
            a->owned++;
            continue;
        }
        s->next = a->free;
        a->free = s;
    }
    if (a->owned > a->peak)
        a->peak = a->owned;
}

/* ---- reading from outside ---- */

void arena_set_tag(struct arena *a, uint64_t tag)
{
    a->tag = tag;
}

uint64_t arena_tag(const struct arena *a)
{
    return a->tag;
}

uint64_t arena_read_tag(const struct arena_reader *r)
{
    uint64_t head[2]; /* magic, tag */
    return r->read(r, r->base, head, sizeof(head)) && head[0] == ARENA_MAGIC ? head[1] : 0;
}

/* The span's copy lies in room. */
static void visit_copy(const struct pool_wish *w, uintptr_t span, const void *room, void *arg)
{
    const struct span *s = room;
    struct pool p;
    pool_init(NULL, &p, w->object_size); /* our own idea of where objects lie */
    for (uint32_t word = 0; word < words_of(&p); word++) {
        for (uint64_t bits = live_word(&p, s, word); bits != 0; bits &= bits - 1) {
            const uint32_t i = word * 64 + (uint32_t)__builtin_ctzll(bits);
            const size_t at = p.data_offset + (size_t)i * p.object_size;
            w->visit(span + at, (const uint8_t *)room + at, arg);
        }
    }
}

void arena_read_pools(const struct arena_reader *r, const struct pool_wish *wishes, unsigned n,
                      void *room, void *arg)
{
    struct arena a;
    if (!r->read(r, r->base, &a, sizeof(a)) || a.magic != ARENA_MAGIC)
        return;
    const uint32_t spans = (uint32_t)min_u64(a.fresh, r->size / ARENA_SPAN_SIZE);
    for (uint32_t i = 0; i < spans; i++) {
        const uintptr_t at = (uintptr_t)a.spans + (uintptr_t)i * ARENA_SPAN_SIZE;
        struct span head;
        if (!r->read(r, at, &head, sizeof(head)))
            return;
        for (unsigned w = 0; w < n; w++)
            if ((uintptr_t)head.pool == wishes[w].pool && r->read(r, at, room, ARENA_SPAN_SIZE))
                visit_copy(&wishes[w], at, room, arg);
    }
}
