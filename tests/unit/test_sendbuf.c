/* stack/tcp/sendbuf.c, also against a naive model: one flat array */
#include "stack/tcp/sendbuf.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

static struct test_pools pools;
static struct pool chunks;

static void setup(void)
{
    test_pools_open(&pools, 64);
    pool_init(pools.arena, &chunks, sizeof(struct chunk));
}

static void teardown(void)
{
    test_pools_close(&pools);
}

/* The bytes of [off, off+len) as gather points at them, at most 20 slices at a time. */
static void check_bytes(struct sendbuf *sb, uint32_t off, uint32_t len, const uint8_t *want)
{
    uint32_t done = 0;
    while (done < len) {
        struct slice s[20];
        uint32_t got;
        const unsigned n = sendbuf_gather(sb, off + done, len - done, s, 20, &got);
        ck_assert_uint_gt(n, 0);
        uint32_t sum = 0;
        for (unsigned i = 0; i < n; i++) {
            ck_assert_uint_gt(s[i].len, 0);
            ck_assert_mem_eq(s[i].base, want + done + sum, s[i].len);
            sum += (uint32_t)s[i].len;
        }
        ck_assert_uint_eq(sum, got);
        done += got;
    }
    ck_assert_uint_eq(done, len);
}

/* Bytes that tell their place. */
static void fill(uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
}

static uint32_t objects_of(const struct sendbuf *sb)
{
    uint32_t n = 0;
    for (const struct chunk *c = sb->head; c != NULL; c = c->next)
        n += c->objects;
    return n;
}

START_TEST(test_append_slices)
{
    struct sendbuf sb = {0};
    char a[] = "hello ", b[] = "", c[] = "world";
    const struct slice from[] = {{a, 6}, {b, 0}, {c, 5}};
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 3, 0, 100, false), 11);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 3, 8, 100, false), 3);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 3, 2, 5, false), 5);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 3, 11, 100, false), 0);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 3, 500, 100, false), 0);
    ck_assert_uint_eq(sb.len, 19);
    ck_assert_uint_eq(sb.chunks, 1);
    check_bytes(&sb, 0, 19, (const uint8_t *)"hello worldrldllo w");
    sendbuf_release(&chunks, &sb, 6);
    check_bytes(&sb, 0, 13, (const uint8_t *)"worldrldllo w");
    sendbuf_release(&chunks, &sb, 1000); /* more than is held: all */
    ck_assert_uint_eq(sb.len, 0);
    ck_assert_uint_eq(chunks.live, 0); /* an idle connection holds no chunk */
    sendbuf_clear(&chunks, &sb);
}
END_TEST

START_TEST(test_gather_limits)
{
    struct sendbuf sb = {0};
    static uint8_t data[3 * CHUNK_DATA];
    const struct slice from = {data, sizeof(data)};
    struct slice out[4];
    uint32_t got;
    ck_assert_uint_eq(sendbuf_gather(&sb, 0, 10, out, 4, &got), 0);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, UINT32_MAX, false), sizeof(data));
    ck_assert_uint_eq(sendbuf_gather(&sb, sizeof(data), 1, out, 4, &got), 0);
    ck_assert_uint_eq(sendbuf_gather(&sb, 0, 0, out, 4, &got), 0);
    ck_assert_uint_eq(sendbuf_gather(&sb, 0, UINT32_MAX, out, 2, &got), 2);
    ck_assert_uint_eq(got, 2 * CHUNK_DATA);
    ck_assert_uint_eq(sendbuf_gather(&sb, 10, UINT32_MAX, out, 4, &got), 3);
    ck_assert_uint_eq(got, sizeof(data) - 10);
    sendbuf_clear(&chunks, &sb);
    ck_assert_uint_eq(chunks.live, 0);
}
END_TEST

START_TEST(test_text_begins_at_lines)
{
    struct sendbuf sb = {0};
    static uint8_t data[40 * CHUNK_DATA]; /* of more than two spans */
    const struct slice from = {data, sizeof(data)};
    struct slice out[40];
    uint32_t got;
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, UINT32_MAX, false), sizeof(data));
    ck_assert_uint_eq(sendbuf_gather(&sb, 0, UINT32_MAX, out, 40, &got), 40);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_uint_eq((uintptr_t)out[i].base % CHUNK_LINE, 0);
        ck_assert_uint_eq(out[i].len % CHUNK_LINE, 0);
    }
    sendbuf_clear(&chunks, &sb);
}
END_TEST

/* Text that is there at once lies in few pieces, which are given back as a whole. */
START_TEST(test_runs)
{
    struct sendbuf sb = {0};
    static uint8_t data[128 << 10];
    fill(data, sizeof(data));
    const struct slice from = {data, sizeof(data)};
    const uint32_t run = chunk_room(CHUNK_OBJECTS_MAX);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, UINT32_MAX, true), sizeof(data));
    ck_assert_uint_eq(sb.chunks, 5); /* four of 32,192 bytes, and a rest of 2,304 */
    ck_assert_uint_eq(objects_of(&sb), 4 * CHUNK_OBJECTS_MAX + 1);
    check_bytes(&sb, 0, sizeof(data), data);
    ck_assert_ptr_null(sendbuf_take(&sb, UINT32_MAX));
    sendbuf_release(&chunks, &sb, run - 1);
    ck_assert_uint_eq(chunks.live, 4 * CHUNK_OBJECTS_MAX + 1);
    sendbuf_release(&chunks, &sb, 1);
    ck_assert_uint_eq(chunks.live, 3 * CHUNK_OBJECTS_MAX + 1);
    /* less than fills two objects takes one after the other */
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, 8191, true), 8191);
    ck_assert_uint_eq(sb.chunks, 4 + 2);
    check_bytes(&sb, 0, sizeof(data) - run, data + run);
    check_bytes(&sb, sizeof(data) - run, 8191, data);
    sendbuf_clear(&chunks, &sb);
    ck_assert_uint_eq(chunks.live, 0);
    ck_assert_uint_eq(arena_bad_frees(pools.arena), 0);
}
END_TEST

START_TEST(test_arena_full)
{
    struct sendbuf sb = {0};
    static uint8_t data[8 << 20];
    const struct slice from = {data, sizeof(data)};
    const uint32_t took = sendbuf_append(&chunks, &sb, &from, 1, 0, sizeof(data), false);
    ck_assert_uint_gt(took, 3 << 20);
    ck_assert_uint_lt(took, sizeof(data));
    ck_assert_uint_eq(sb.len, took);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, 100, false), 0);
    sendbuf_release(&chunks, &sb, CHUNK_DATA);
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, 100, false), 100);
    sendbuf_clear(&chunks, &sb);
    ck_assert_uint_eq(chunks.live, 0);
}
END_TEST

/* Gathers of new bytes and of old ones in turns: each goes on where it ended. */
START_TEST(test_cursors)
{
    struct sendbuf sb = {0};
    static uint8_t data[1 << 20];
    fill(data, sizeof(data));
    const struct slice from = {data, sizeof(data)};
    ck_assert_uint_eq(sendbuf_append(&chunks, &sb, &from, 1, 0, sizeof(data), false), sizeof(data));
    check_bytes(&sb, 0, 600000, data);
    for (uint32_t i = 0; i < 200; i++) {
        check_bytes(&sb, 600000 + i * 1448, 1448, data + 600000 + i * 1448);
        ck_assert_uint_ge(sb.cursor_off + CHUNK_DATA, 600000 + i * 1448);
        check_bytes(&sb, i * 2896, 1448, data + i * 2896);
        ck_assert_uint_ge(sb.cursor_off + CHUNK_DATA, 600000 + i * 1448);
        ck_assert_uint_ge(sb.old_cursor_off + CHUNK_DATA, i * 2896);
    }
    sendbuf_clear(&chunks, &sb);
}
END_TEST

static void model_run(uint64_t seed)
{
    enum { CAP = 600000 };
    struct test_random r = {seed};
    struct sendbuf sb = {0};
    uint8_t *model = malloc(CAP);
    uint8_t *input = malloc(CAP);
    uint32_t len = 0, next = 0;
    const bool runs = seed % 2 == 0;
    for (int op = 0; op < 3000; op++) {
        const uint32_t kind = test_random_below(&r, 10);
        if (kind < 4) {
            struct slice from[4];
            uint32_t total = 0;
            for (int i = 0; i < 4; i++) {
                const uint32_t most = test_random_one_in(&r, 8) ? 60000 : 9000;
                const uint32_t n = test_random_below(&r, test_random_one_in(&r, 4) ? most : 300);
                for (uint32_t k = 0; k < n; k++)
                    input[total + k] = (uint8_t)test_random_u64(&r);
                from[i] = (struct slice){input + total, n};
                total += n;
            }
            const uint32_t skip = test_random_below(&r, total + 1);
            const uint32_t limit = min_u32(test_random_below(&r, total + 2), CAP - len);
            const uint32_t want = min_u32(total - skip, limit);
            ck_assert_uint_eq(sendbuf_append(&chunks, &sb, from, 4, skip, limit, runs), want);
            memcpy(model + len, input + skip, want);
            len += want;
        } else if (kind < 7) {
            const uint32_t n = min_u32(test_random_below(&r, 20000), len - next);
            check_bytes(&sb, next, n, model + next);
            next += n;
        } else if (kind < 8 && len > 0) {
            const uint32_t off = test_random_below(&r, len);
            const uint32_t n = min_u32(test_random_below(&r, 3000), len - off);
            check_bytes(&sb, off, n, model + off);
        } else if (kind < 9 || test_random_one_in(&r, 2)) {
            const uint32_t n = test_random_below(&r, min_u32(len, 40000) + 1);
            sendbuf_release(&chunks, &sb, n);
            memmove(model, model + n, len - n);
            len -= n;
            next -= min_u32(n, next);
        } else if (test_random_one_in(&r, 20)) {
            sendbuf_clear(&chunks, &sb);
            len = next = 0;
        }
        ck_assert_uint_eq(sb.len, len);
        ck_assert_uint_eq(objects_of(&sb), chunks.live);
        /* the first and the last one are not full; nor is what such a run was added to */
        ck_assert_uint_le(sb.chunks, len / CHUNK_DATA + 2);
        ck_assert_uint_le(chunks.live, len / CHUNK_DATA + (runs ? CHUNK_OBJECTS_MAX + 1 : 2));
        if (len == 0)
            ck_assert_uint_eq(sb.chunks, 0);
    }
    check_bytes(&sb, 0, len, model);
    sendbuf_clear(&chunks, &sb);
    ck_assert_uint_eq(chunks.live, 0);
    free(model);
    free(input);
}

START_TEST(test_model)
{
    model_run((uint64_t)_i + 1);
}
END_TEST

Suite *suite_sendbuf(void)
{
    Suite *s = suite_create("sendbuf");
    TCase *tc = tcase_create("sendbuf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_append_slices);
    tcase_add_test(tc, test_gather_limits);
    tcase_add_test(tc, test_text_begins_at_lines);
    tcase_add_test(tc, test_runs);
    tcase_add_test(tc, test_arena_full);
    tcase_add_test(tc, test_cursors);
    tcase_add_loop_test(tc, test_model, 0, 8);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(s, tc);
    return s;
}
