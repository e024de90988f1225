/* What the tests of buffers and scoreboards share: an arena, its pools, seeded random numbers. */
#pragma once

#include "stack/arena.h"
#include "stack/tcp/chunk.h"

#include <check.h>
#include <stdlib.h>

struct test_pools {
    void *memory;
    struct arena *arena;
};

/* An arena of `spans` spans beside its own header. */
static inline void test_pools_open(struct test_pools *t, size_t spans)
{
    const size_t size = (spans + 2) * ARENA_SPAN_SIZE;
    t->memory = aligned_alloc(ARENA_SPAN_SIZE, size);
    ck_assert_ptr_nonnull(t->memory);
    memset(t->memory, 0, size);
    t->arena = arena_init(t->memory, size, 0);
    ck_assert_ptr_nonnull(t->arena);
}

static inline void test_pools_close(struct test_pools *t)
{
    free(t->memory);
}

/* splitmix64: a test's random numbers, the same for a seed on every machine. */
struct test_random {
    uint64_t state;
};

static inline uint64_t test_random_u64(struct test_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [0, n). */
static inline uint32_t test_random_below(struct test_random *r, uint32_t n)
{
    return (uint32_t)(test_random_u64(r) % n);
}

/* True once in n times. */
static inline bool test_random_one_in(struct test_random *r, uint32_t n)
{
    return test_random_below(r, n) == 0;
}
