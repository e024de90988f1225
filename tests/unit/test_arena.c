#include "tests/unit/suites.h"

#include <stdlib.h>

#include "stack/arena.h"
#include "stack/util/random.h"

#define SIZE (64 * ARENA_SPAN_SIZE)

static void *memory;
static struct arena *arena;

static void setup(void)
{
    memory = aligned_alloc(ARENA_SPAN_SIZE, SIZE);
    memset(memory, 0, SIZE);
    arena = arena_init(memory, SIZE, 1000);
    ck_assert_ptr_nonnull(arena);
}

static void teardown(void)
{
    free(memory);
}

START_TEST(too_small)
{
    ck_assert_ptr_null(arena_init(memory, 10, 0));
    ck_assert_ptr_null(arena_init(memory, ARENA_SPAN_SIZE, 1000));
    ck_assert_ptr_null(arena_init(memory, SIZE, SIZE));
    ck_assert_ptr_null(arena_init(memory, SIZE, SIZE_MAX - 10));
    ck_assert_ptr_nonnull(arena_init(memory, 2 * ARENA_SPAN_SIZE, 1000));
}
END_TEST

START_TEST(reserved_part_is_apart)
{
    struct pool p;
    pool_init(arena, &p, 64);
    uint8_t *r = arena_reserved(arena);
    memset(r, 0xee, 1000);
    uint8_t *o = pool_alloc(&p);
    ck_assert(o >= r + 1000);
    ck_assert_uint_eq(arena_limit(arena), 63 * ARENA_SPAN_SIZE);
}
END_TEST

static bool filled(const void *object, size_t size, uint8_t with)
{
    const uint8_t *p = object;
    return p != NULL && p[0] == with && memcmp(p, p + 1, size - 1) == 0;
}

static const size_t sizes[] = {
    1, 8, 16, 24, 40, 48, 100, 248, 1000, 2048, 4088, 8192, 30000, 33000, ARENA_OBJECT_MAX};

/* Every object of a pool lies in its span, is aligned, zeroed, and overlaps no other. */
START_TEST(layout_of_each_size)
{
    const size_t size = sizes[_i];
    struct pool p;
    pool_init(arena, &p, size);
    ck_assert_uint_ge(p.objects_per_span, 1);
    uint8_t *last = NULL;
    bool good = true;
    for (uint32_t i = 0; i < p.objects_per_span; i++) {
        uint8_t *o = pool_alloc(&p);
        good &= o != NULL && (uintptr_t)o % (p.object_size % 16 == 0 ? 16 : 8) == 0;
        good &= filled(o, size, 0) && (last == NULL || o == last + p.object_size) &&
                ((uintptr_t)o & (ARENA_SPAN_SIZE - 1)) + size <= ARENA_SPAN_SIZE;
        if (o == NULL)
            break;
        memset(o, 0xff, size);
        last = o;
    }
    ck_assert(good);
    ck_assert_uint_eq(p.spans, 1);
    ck_assert_uint_eq(arena_used(arena), ARENA_SPAN_SIZE);
    pool_free(&p, last);
    uint8_t *again = pool_alloc(&p);
    ck_assert_ptr_eq(again, last);
    ck_assert(filled(again, size, 0));
    ck_assert_uint_eq(p.spans, 1);
    ck_assert_ptr_nonnull(pool_alloc(&p));
    ck_assert_uint_eq(p.spans, 2);
}
END_TEST

START_TEST(sixteen_chunks_a_span)
{
    struct pool p;
    pool_init(arena, &p, 4088);
    ck_assert_uint_eq(p.objects_per_span, 16);
}
END_TEST

START_TEST(full_and_pressure)
{
    struct pool p;
    pool_init(arena, &p, ARENA_OBJECT_MAX);
    void *o[64];
    unsigned n = 0;
    while ((o[n] = pool_alloc(&p)) != NULL) {
        n++;
        ck_assert_uint_eq(arena_pressure(arena), 63 - n < 63 / 4);
    }
    ck_assert_uint_eq(n, 63);
    ck_assert_uint_eq(arena_used(arena), arena_limit(arena));
    for (unsigned i = 0; i < n; i++)
        pool_free(&p, o[i]);
    ck_assert_uint_eq(arena_used(arena), 0);
    ck_assert_uint_eq(arena_peak(arena), arena_limit(arena));
    ck_assert_uint_eq(p.live, 0);
    /* the spans serve another pool */
    struct pool q;
    pool_init(arena, &q, 24);
    ck_assert_ptr_nonnull(pool_alloc(&q));
}
END_TEST

START_TEST(wrong_frees_are_caught)
{
    struct pool p, q;
    pool_init(arena, &p, 100);
    pool_init(arena, &q, 100);
    uint8_t *a = pool_alloc(&p), *b = pool_alloc(&p), *c = pool_alloc(&q);
    int outside = 0;
    pool_free(&p, a);
    pool_free(&p, a);
    pool_free(&p, b + 8);
    pool_free(&p, c);
    pool_free(&p, &outside);
    pool_free(&p, arena_reserved(arena));
    ck_assert_uint_eq(arena_bad_frees(arena), 5);
    pool_free(&p, NULL);
    ck_assert_uint_eq(arena_bad_frees(arena), 5);
    ck_assert_uint_eq(p.live, 1);
    ck_assert(pool_owns(&p, b));
    ck_assert(!pool_owns(&p, a));
    ck_assert(!pool_owns(&q, b));
    ck_assert(!pool_owns(&p, NULL));
    ck_assert(!pool_owns(&p, b + 1));
    pool_free(&p, b);
    ck_assert(!pool_owns(&p, b)); /* its span is free now */
    pool_free(&p, b);
    ck_assert_uint_eq(arena_bad_frees(arena), 6);
}
END_TEST

struct visits {
    struct pool *pool;
    unsigned seen;
    bool free_all;
};

static void visit(void *object, void *arg)
{
    struct visits *v = arg;
    v->seen++;
    ck_assert(pool_owns(v->pool, object));
    if (v->free_all)
        pool_free(v->pool, object);
}

START_TEST(runs_lie_in_one_piece)
{
    struct pool p;
    pool_init(arena, &p, 4032);
    ck_assert_uint_eq(p.objects_per_span, 16);
    uint8_t *one = pool_alloc_raw(&p);
    ck_assert_uint_eq((uintptr_t)one % 64, 0);
    uint8_t *eight = pool_alloc_run(&p, 8); /* 8 to 15 of the same span */
    ck_assert_ptr_eq(eight, one + 8 * 4032);
    uint8_t *four = pool_alloc_run(&p, 4);
    ck_assert_ptr_eq(four, one + 4 * 4032);
    ck_assert_ptr_eq(pool_alloc_run(&p, 2), one + 2 * 4032);
    ck_assert_uint_eq(p.live, 15);
    uint8_t *other = pool_alloc_run(&p, 4); /* only one is free there: another span */
    ck_assert_uint_eq(p.spans, 2);
    ck_assert_ptr_eq(pool_alloc_run(&p, 8), other + 8 * 4032);
    ck_assert(pool_has_run(&p, four, 4));
    ck_assert(!pool_has_run(&p, four, 8));
    ck_assert(!pool_has_run(&p, four, 3));
    ck_assert(!pool_has_run(&p, four, 0));
    ck_assert(!pool_has_run(&p, four + 4032, 4));
    ck_assert(!pool_has_run(&p, one, 32));
    pool_free_run(&p, four + 4032, 4); /* not where a run begins */
    pool_free_run(&p, one, 4);         /* not all live */
    ck_assert_uint_eq(arena_bad_frees(arena), 2);
    ck_assert_uint_eq(p.live, 27);
    pool_free_run(&p, eight, 8);
    ck_assert_uint_eq(p.live, 19);
    pool_free_run(&p, eight, 8);
    ck_assert_uint_eq(arena_bad_frees(arena), 3);
    ck_assert_ptr_eq(pool_alloc_run(&p, 8), eight);
    pool_free_run(&p, four, 4);
    ck_assert_ptr_eq(pool_alloc_run(&p, 4), other + 4 * 4032); /* the span used last comes first */
    ck_assert_ptr_eq(pool_alloc_run(&p, 4), four);
}
END_TEST

/* As long as there is any room a run or single objects are found. */
START_TEST(runs_until_it_is_full)
{
    struct pool p;
    pool_init(arena, &p, 4032);
    uint32_t n = 0;
    while (pool_alloc_run(&p, 8) != NULL)
        n += 8;
    ck_assert_uint_eq(n, 63 * 16);
    ck_assert_ptr_null(pool_alloc_raw(&p));
    ck_assert_uint_eq(p.live, n);
    pool_repair(&p);
    ck_assert_uint_eq(p.live, n);
}
END_TEST

START_TEST(each_live_object_is_visited)
{
    struct pool p, q;
    pool_init(arena, &p, 1000);
    pool_init(arena, &q, 48);
    void *o[500];
    for (unsigned i = 0; i < 500; i++) {
        o[i] = pool_alloc(&p);
        pool_alloc(&q);
    }
    for (unsigned i = 0; i < 500; i += 3)
        pool_free(&p, o[i]);
    struct visits v = {.pool = &p};
    pool_each(&p, visit, &v);
    ck_assert_uint_eq(v.seen, p.live);
    ck_assert_uint_eq(v.seen, 500 - 167);
    v = (struct visits){.pool = &p, .free_all = true};
    pool_each(&p, visit, &v);
    ck_assert_uint_eq(v.seen, 500 - 167);
    ck_assert_uint_eq(p.live, 0);
    ck_assert_uint_eq(p.spans, 0);
}
END_TEST

#define OBJECTS 1000

static void check_pool(struct pool *p, void **objects, unsigned n, uint32_t size, uint8_t mark)
{
    unsigned live = 0;
    bool good = true;
    for (unsigned i = 0; i < n; i++) {
        if (objects[i] == NULL)
            continue;
        live++;
        good &= pool_owns(p, objects[i]) && filled(objects[i], size, mark);
    }
    ck_assert(good);
    ck_assert_uint_eq(p->live, live);
}

/* Pools of three sizes, random allocations and frees, contents intact; then repair after a "crash".
 */
START_TEST(random_operations_and_repair)
{
    static void *objects[3][OBJECTS];
    static const uint32_t size[3] = {24, 248, 4088};
    struct pool pools[3];
    const uint8_t seed[16] = {(uint8_t)_i};
    struct rng r;
    rng_init(&r, seed);
    memset(objects, 0, sizeof(objects));
    for (unsigned k = 0; k < 3; k++)
        pool_init(arena, &pools[k], size[k]);
    for (int op = 0; op < 10000; op++) {
        const unsigned k = rng_below(&r, 3), i = rng_below(&r, OBJECTS);
        if (objects[k][i] != NULL) {
            pool_free(&pools[k], objects[k][i]);
            objects[k][i] = NULL;
        } else if ((objects[k][i] = pool_alloc(&pools[k])) != NULL) {
            memset(objects[k][i], (int)k + 1, size[k]);
        }
    }
    const size_t used = arena_used(arena);
    for (unsigned k = 0; k < 3; k++)
        check_pool(&pools[k], objects[k], OBJECTS, size[k], (uint8_t)(k + 1));
    /* a process died in the middle: lists and counts are not to be trusted */
    for (unsigned k = 0; k < 3; k++) {
        pools[k].partial = (void *)16;
        pools[k].full = NULL;
        pools[k].live = 12345;
    }
    for (unsigned k = 0; k < 3; k++)
        pool_repair(&pools[k]);
    arena_repair(arena);
    ck_assert_uint_eq(arena_used(arena), used);
    for (unsigned k = 0; k < 3; k++) {
        check_pool(&pools[k], objects[k], OBJECTS, size[k], (uint8_t)(k + 1));
        for (unsigned i = 0; i < OBJECTS; i++)
            pool_free(&pools[k], objects[k][i]);
        ck_assert_uint_eq(pools[k].live, 0);
    }
    ck_assert_uint_eq(arena_used(arena), 0);
    ck_assert_uint_eq(arena_bad_frees(arena), 0);
    pool_init(arena, &pools[0], ARENA_OBJECT_MAX);
    unsigned n = 0;
    while (pool_alloc(&pools[0]) != NULL)
        n++;
    ck_assert_uint_eq(n, 63);
}
END_TEST

static bool read_memory(const struct arena_reader *r, uintptr_t address, void *to, size_t len)
{
    if (address < r->base || address - r->base > r->size || len > r->size - (address - r->base))
        return false;
    memcpy(to, (const void *)address, len);
    return true;
}

static void sum(uintptr_t address, const void *copy, void *arg)
{
    ck_assert_int_eq(memcmp((const void *)address, copy, sizeof(uint64_t)), 0);
    *(uint64_t *)arg += *(const uint64_t *)copy;
}

/* A reader outside finds what lives and nothing else, also where the memory holds nonsense. */
START_TEST(read_from_outside)
{
    struct pool p, other;
    uint64_t *objects[3000], found = 0, expected = 0;
    static _Alignas(16) uint8_t room[ARENA_SPAN_SIZE];
    const struct arena_reader r = {read_memory, (uintptr_t)memory, SIZE};
    const struct pool_wish wish = {(uintptr_t)&p, 104, sum};
    pool_init(arena, &p, 104);
    pool_init(arena, &other, 104);
    ck_assert_uint_eq(arena_read_tag(&r), 0);
    arena_set_tag(arena, 77);
    ck_assert_uint_eq(arena_read_tag(&r), 77);
    for (unsigned i = 0; i < ARRAY_LEN(objects); i++) {
        objects[i] = pool_alloc(&p);
        *objects[i] = i;
        *(uint64_t *)pool_alloc(&other) = 1u << 30;
    }
    for (unsigned i = 0; i < ARRAY_LEN(objects); i++) {
        if (i % 7 == 0)
            pool_free(&p, objects[i]);
        else
            expected += i;
    }
    arena_read_pools(&r, &wish, 1, room, &found);
    ck_assert_uint_eq(found, expected);

    struct rng rng;
    rng_init(&rng, (const uint8_t[16]){3});
    struct pool_wish wild = {0, 104, sum};
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < 64; i++)
            ((uint32_t *)memory)[2 + rng_below(&rng, 14)] = (uint32_t)rng_u64(&rng);
        for (unsigned i = 0; i < 100; i++)
            ((uint8_t *)memory)[ARENA_SPAN_SIZE + rng_below(&rng, SIZE - ARENA_SPAN_SIZE)] ^= 0xff;
        arena_read_pools(&r, &wild, 1, room, &found);
    }
}
END_TEST

Suite *suite_arena(void)
{
    Suite *s = suite_create("arena");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, read_from_outside);
    tcase_add_test(t, too_small);
    tcase_add_test(t, reserved_part_is_apart);
    tcase_add_loop_test(t, layout_of_each_size, 0, ARRAY_LEN(sizes));
    tcase_add_test(t, sixteen_chunks_a_span);
    tcase_add_test(t, full_and_pressure);
    tcase_add_test(t, wrong_frees_are_caught);
    tcase_add_test(t, runs_lie_in_one_piece);
    tcase_add_test(t, runs_until_it_is_full);
    tcase_add_test(t, each_live_object_is_visited);
    tcase_add_loop_test(t, random_operations_and_repair, 0, 5);
    suite_add_tcase(s, t);
    return s;
}
