#include "tests/unit/suites.h"

#include "tests/unit/ip_harness.h"

static uint8_t buf[FRAME_KEPT];

/* Bytes [offset, offset + len) of the patterned datagram `id` from src. */
static void piece_of(uint32_t src, uint16_t id, uint32_t offset, uint32_t len, bool more)
{
    for (uint32_t i = 0; i < len; i++)
        buf[34 + i] = pattern(offset + i);
    const uint16_t fragment = (uint16_t)(offset / 8 | (more ? 0x2000 : 0));
    world_frame(buf, make_ip4(buf, src, OUR_ADDR, IPPROTO_TCP_, fragment, id, len));
}

static void piece(uint32_t offset, uint32_t len, bool more)
{
    piece_of(PEER_ADDR, 7, offset, len, more);
}

static bool joined(uint32_t len)
{
    if (world.nin != 1 || world.in.packet.len != len)
        return false;
    for (uint32_t i = 0; i < len; i++) {
        if (world.in.payload[i] != pattern(i))
            return false;
    }
    return true;
}

START_TEST(in_order)
{
    piece(0, 1480, true);
    piece(1480, 1480, true);
    ck_assert_uint_eq(world.nin, 0);
    piece(2960, 33, false);
    ck_assert(joined(2993));
    ck_assert_uint_eq(world.in.packet.ttl, 63);
    ck_assert_mem_eq(world.in.packet.src_mac, peer_mac, 6);
    ck_assert(!world.in.packet.csum_trusted);
    ck_assert_uint_eq(count_of(COUNT_FRAG_IN), 3);
    ck_assert_uint_eq(count_of(COUNT_FRAG_OK), 1);
    ck_assert(world_clean());
    ck_assert_uint_eq(stack_deadline(world.st), NSEC_NEVER);
}
END_TEST

START_TEST(any_order_with_duplicates)
{
    struct rng r;
    const uint8_t seed[16] = {(uint8_t)_i};
    rng_init(&r, seed);
    enum { N = 20 };
    unsigned order[N];
    for (unsigned i = 0; i < N; i++)
        order[i] = i;
    for (unsigned i = N - 1; i > 0; i--) {
        const unsigned k = rng_below(&r, i + 1), tmp = order[i];
        order[i] = order[k];
        order[k] = tmp;
    }
    for (unsigned i = 0; i < N; i++) {
        ck_assert_uint_eq(world.nin, 0);
        piece(order[i] * 800, order[i] == N - 1 ? 123 : 800, order[i] != N - 1);
        const unsigned again = order[rng_below(&r, i + 1)];
        if (i < N - 1)
            piece(again * 800, again == N - 1 ? 123 : 800, again != N - 1);
    }
    ck_assert(joined((N - 1) * 800 + 123));
    ck_assert(world_clean());
}
END_TEST

START_TEST(overlaps_kill_the_datagram)
{
    static const struct {
        uint32_t offset, len;
    } bad[] = {{0, 16}, {8, 808}, {792, 16}, {0, 1600}, {800, 8}, {1592, 16}};
    const unsigned i = (unsigned)_i;
    piece(0, 800, true);
    piece(800, 800, true);
    piece(bad[i].offset, bad[i].len, true);
    piece(1600, 100, false);
    piece(0, 800, true);
    piece(800, 800, true);
    ck_assert_uint_eq(world.nin, 0);
    ck_assert_uint_eq(world.st->ip.small.live, 0); /* its pieces are gone */
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
    piece(0, 800, true);
    piece(800, 100, false);
    ck_assert(joined(900));
}
END_TEST

START_TEST(lengths_that_disagree)
{
    piece(800, 100, false);
    piece(1600, 100, false); /* two ends */
    piece(0, 800, true);
    ck_assert_uint_eq(world.nin, 0);
    piece_of(PEER_ADDR, 8, 1600, 800, true);
    piece_of(PEER_ADDR, 8, 800, 100, false); /* an end before what is there */
    piece_of(PEER_ADDR, 8, 0, 800, true);
    ck_assert_uint_eq(world.nin, 0);
    piece_of(PEER_ADDR, 9, 800, 96, false);
    piece_of(PEER_ADDR, 9, 896, 800, true); /* more after the end */
    piece_of(PEER_ADDR, 9, 0, 800, true);
    ck_assert_uint_eq(world.nin, 0);
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

START_TEST(malformed_pieces)
{
    piece(0, 0, true);
    piece(0, 801, true);      /* not a multiple of 8 */
    piece(65528, 800, false); /* the "ping of death" */
    piece(65528, 7, false);
    ck_assert_uint_eq(count_of(COUNT_FRAG_DROPPED), 4);
    ck_assert(world_clean());
}
END_TEST

START_TEST(the_largest)
{
    uint32_t at = 0;
    for (; at + 1480 < 65280; at += 1480)
        piece(at, 1480, true);
    piece(at, 65280 - at, false);
    ck_assert(joined(65280));
    ck_assert(world_clean());
    /* more than a buffer holds is not even begun */
    piece(65400, 8, false);
    ck_assert(world_clean());
}
END_TEST

START_TEST(large_pieces)
{
    piece(0, 8960, true);
    piece(8960, 8960, true);
    piece(17920, 10, false);
    ck_assert(joined(17930));
    ck_assert(world_clean());
}
END_TEST

START_TEST(different_datagrams_do_not_mix)
{
    piece_of(PEER_ADDR, 1, 0, 800, true);
    piece_of(PEER_ADDR, 2, 800, 100, false);
    piece_of(FAR_ADDR, 1, 800, 100, false);
    ck_assert_uint_eq(world.nin, 0);
    ck_assert_uint_eq(world.st->ip.nfrags, 3);
    piece_of(PEER_ADDR, 1, 800, 50, false);
    ck_assert(joined(850));
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

START_TEST(given_up_after_thirty_seconds)
{
    piece(0, 800, true);
    world_run(29 * NSEC_PER_SEC);
    ck_assert_uint_eq(world.st->ip.nfrags, 1);
    world_run(2 * NSEC_PER_SEC);
    ck_assert(world_clean());
    piece(800, 100, false);
    ck_assert_uint_eq(world.nin, 0);
}
END_TEST

START_TEST(number_of_datagrams_is_bounded)
{
    for (unsigned i = 0; i < 1000; i++)
        piece_of(PEER_ADDR, (uint16_t)i, 0, 800, true);
    ck_assert_uint_eq(world.st->ip.nfrags, FRAG_DATAGRAMS_MAX);
    piece_of(PEER_ADDR, 999, 800, 100, false); /* the newest is there still */
    ck_assert(joined(900));
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

START_TEST(memory_is_bounded)
{
    /* many small pieces that take a buffer each */
    for (unsigned id = 0; id < 8; id++) {
        for (uint32_t i = 0; i < 200; i++)
            piece_of(PEER_ADDR, (uint16_t)id, i * 16, 8, true);
    }
    ck_assert_uint_le(world.st->ip.frag_bytes, FRAG_BYTES_MAX);
    ck_assert_uint_gt(world.st->ip.frag_bytes, FRAG_BYTES_MAX / 2);
    /* one datagram that alone would take more */
    for (uint32_t i = 0; i < 4000; i++)
        piece_of(FAR_ADDR, 1, i * 16, 8, true);
    ck_assert_uint_le(world.st->ip.frag_bytes, FRAG_BYTES_MAX);
    /* others still come through */
    piece_of(PEER_ADDR, 999, 0, 800, true);
    piece_of(PEER_ADDR, 999, 800, 100, false);
    ck_assert(joined(900));
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

START_TEST(no_memory_left)
{
    struct pool hog;
    pool_init(world.st->arena, &hog, ARENA_OBJECT_MAX);
    void *first = pool_alloc(&hog), *second = pool_alloc(&hog), *third = pool_alloc(&hog);
    while (pool_alloc(&hog) != NULL)
        continue;
    piece(0, 800, true);
    ck_assert_uint_eq(count_of(COUNT_NO_MEMORY), 1);
    pool_free(&hog, first); /* room for the datagram's record alone */
    piece(0, 800, true);
    ck_assert_uint_eq(count_of(COUNT_NO_MEMORY), 2);
    pool_free(&hog, second); /* for the pieces, not for the whole */
    piece(0, 800, true);
    piece(800, 1600, false);
    ck_assert_uint_eq(world.nin, 0);
    pool_free(&hog, third);
    world_run(31 * NSEC_PER_SEC);
    ck_assert(world_clean());
}
END_TEST

Suite *suite_fragment(void)
{
    Suite *s = suite_create("fragment");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, world_up, world_down);
    tcase_add_test(t, in_order);
    tcase_add_loop_test(t, any_order_with_duplicates, 0, 20);
    tcase_add_loop_test(t, overlaps_kill_the_datagram, 0, 6);
    tcase_add_test(t, lengths_that_disagree);
    tcase_add_test(t, malformed_pieces);
    tcase_add_test(t, the_largest);
    tcase_add_test(t, large_pieces);
    tcase_add_test(t, different_datagrams_do_not_mix);
    tcase_add_test(t, given_up_after_thirty_seconds);
    tcase_add_test(t, number_of_datagrams_is_bounded);
    tcase_add_test(t, memory_is_bounded);
    tcase_add_test(t, no_memory_left);
    suite_add_tcase(s, t);
    return s;
}
