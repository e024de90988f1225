/* stack/tcp/recvbuf.c, also against a naive model: an array of bytes and whether each is held */
#include "stack/tcp/recvbuf.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

static struct test_pools pools;
static struct pool chunks, ranges;

static void open_pools(size_t spans)
{
    test_pools_open(&pools, spans);
    pool_init(pools.arena, &chunks, sizeof(struct chunk));
    pool_init(pools.arena, &ranges, sizeof(struct recv_range));
}

static void setup(void)
{
    open_pools(64);
}

static void teardown(void)
{
    test_pools_close(&pools);
}

static uint32_t insert(struct recvbuf *rb, tcp_seq rcv_nxt, uint32_t off, const void *text,
                       uint32_t len, uint32_t *stored)
{
    return recvbuf_insert(&chunks, &ranges, rb, rcv_nxt, off, text, len, stored);
}

static uint32_t read_all(struct recvbuf *rb, void *to, uint32_t len)
{
    const struct slice s = {to, len};
    return recvbuf_read(&chunks, rb, &s, 1, len);
}

START_TEST(test_in_order)
{
    struct recvbuf rb = {0};
    uint32_t stored;
    char out[32] = {0};
    ck_assert_uint_eq(insert(&rb, seq(100), 0, "hello ", 6, &stored), 6);
    ck_assert_uint_eq(stored, 6);
    ck_assert_uint_eq(insert(&rb, seq(106), 0, "world", 5, &stored), 5);
    ck_assert_uint_eq(recvbuf_ready(&rb), 11);
    ck_assert_uint_eq(rb.chunks, 1);
    struct slice s[2] = {{out, 3}, {out + 3, 20}};
    ck_assert_uint_eq(recvbuf_peek(&rb, 6, s, 2, 100), 5);
    ck_assert_mem_eq(out, "world", 5);
    ck_assert_uint_eq(recvbuf_peek(&rb, 11, s, 2, 100), 0);
    ck_assert_uint_eq(recvbuf_read(&chunks, &rb, s, 2, 7), 7);
    ck_assert_mem_eq(out, "hello w", 7);
    ck_assert_uint_eq(recvbuf_read(&chunks, &rb, NULL, 0, 100), 4); /* MSG_TRUNC */
    ck_assert_uint_eq(chunks.live, 0);
    ck_assert_uint_eq(recvbuf_memory(&rb), 0);
}
END_TEST

/* Text that was given room, behind text that never came here. */
START_TEST(test_place)
{
    struct recvbuf rb = {0};
    struct slice to[3];
    uint32_t stored;
    char out[16] = {0};
    static const uint8_t text[2 * CHUNK_DATA];
    ck_assert_uint_eq(recvbuf_prepare(&chunks, &rb, CHUNK_DATA + 5, 6, to, 1), 1);
    memcpy(to[0].base, "hello ", 6);
    ck_assert_uint_eq(recvbuf_ready(&rb), 0);
    recvbuf_commit(&rb, CHUNK_DATA + 5, 6);
    ck_assert_uint_eq(insert(&rb, seq(0), 0, "world", 5, &stored), 5);
    ck_assert_uint_eq(rb.chunks, 1);
    ck_assert_uint_eq(read_all(&rb, out, 16), 11);
    ck_assert_mem_eq(out, "hello world", 11);
    ck_assert_uint_eq(chunks.live, 0);
    /* as much as one chunk holds, and a byte more */
    ck_assert_uint_eq(recvbuf_prepare(&chunks, &rb, 0, CHUNK_DATA, to, 1), 1);
    ck_assert_uint_eq(recvbuf_prepare(&chunks, &rb, 0, CHUNK_DATA + 1, to, 1), 0);
    ck_assert_uint_eq(recvbuf_prepare(&chunks, &rb, 0, CHUNK_DATA + 1, to, 2), 2);
    /* it did not come: other text goes there */
    ck_assert_uint_eq(insert(&rb, seq(0), 0, text, sizeof(text), &stored), sizeof(text));
    ck_assert_uint_eq(rb.chunks, 2);
    /* not around holes */
    insert(&rb, seq(0), 100, "x", 1, &stored);
    ck_assert_uint_eq(recvbuf_prepare(&chunks, &rb, 0, 1, to, 1), 0);
    recvbuf_clear(&chunks, &ranges, &rb);
}
END_TEST

START_TEST(test_hole)
{
    struct recvbuf rb = {0};
    struct tcp_sack_block b[4];
    uint32_t stored;
    char out[32] = {0};
    const tcp_seq nxt = seq(0xfffffffc);
    ck_assert_uint_eq(insert(&rb, nxt, 6, "world", 5, &stored), 0);
    ck_assert_uint_eq(stored, 5);
    ck_assert_uint_eq(rb.ooo_bytes, 5);
    ck_assert_uint_eq(recvbuf_sack(&rb, b, 4), 1);
    ck_assert(seq_eq(b[0].start, seq(2)) && seq_eq(b[0].end, seq(7)));
    ck_assert_uint_eq(insert(&rb, nxt, 6, "WORLD", 5, &stored), 0);
    ck_assert_uint_eq(stored, 0);
    /* the hole closes, and held bytes are not overwritten */
    ck_assert_uint_eq(insert(&rb, nxt, 0, "hello WOR", 9, &stored), 11);
    ck_assert_uint_eq(stored, 6);
    ck_assert_uint_eq(rb.ooo_bytes, 0);
    ck_assert_uint_eq(rb.nranges, 0);
    ck_assert_uint_eq(ranges.live, 0);
    ck_assert_uint_eq(recvbuf_sack(&rb, b, 4), 0);
    ck_assert_uint_eq(read_all(&rb, out, 32), 11);
    ck_assert_mem_eq(out, "hello world", 11);
    ck_assert_uint_eq(chunks.live, 0);
}
END_TEST

/* RFC 2018 4: the block of the newest arrival first, then the others by recency. */
START_TEST(test_sack_order)
{
    struct recvbuf rb = {0};
    struct tcp_sack_block b[4];
    uint32_t stored;
    rb.recency = UINT32_MAX - 3; /* the counter may wrap */
    const uint32_t offs[] = {100, 500, 300, 700, 200, 600};
    for (size_t i = 0; i < ARRAY_LEN(offs); i++)
        insert(&rb, seq(0), offs[i], "abcdefghij", 10, &stored);
    ck_assert_uint_eq(recvbuf_sack(&rb, b, 4), 4);
    const uint32_t want[] = {600, 200, 700, 300};
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(b[i].start.v, want[i]);
    insert(&rb, seq(0), 110, "x", 1, &stored); /* an old block grows: it comes first */
    ck_assert_uint_eq(recvbuf_sack(&rb, b, 2), 2);
    ck_assert_uint_eq(b[0].start.v, 100);
    ck_assert_uint_eq(b[0].end.v, 111);
    ck_assert_uint_eq(b[1].start.v, 600);
    ck_assert_uint_eq(recvbuf_sack(&rb, b, 0), 0);
    recvbuf_clear(&chunks, &ranges, &rb);
    ck_assert_uint_eq(ranges.live + chunks.live, 0);
}
END_TEST

/* A peer that sends every second byte: the list is bounded, and so is memory. */
START_TEST(test_range_bound)
{
    struct recvbuf rb = {0};
    uint32_t stored, total = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        insert(&rb, seq(7), 1 + 2 * i, "x", 1, &stored);
        total += stored;
    }
    ck_assert_uint_eq(total, RECV_RANGES_MAX);
    ck_assert_uint_eq(rb.nranges, RECV_RANGES_MAX);
    ck_assert_uint_eq(ranges.live, RECV_RANGES_MAX);
    /* text that joins ranges is still welcome, and in-order text too */
    insert(&rb, seq(7), 2, "x", 1, &stored);
    ck_assert_uint_eq(stored, 1);
    ck_assert_uint_eq(insert(&rb, seq(7), 0, "x", 1, &stored), 4);
    recvbuf_clear(&chunks, &ranges, &rb);
    ck_assert_uint_eq(ranges.live + chunks.live, 0);
}
END_TEST

/* Chunks exist only where bytes landed. */
START_TEST(test_sparse)
{
    struct recvbuf rb = {0};
    uint32_t stored;
    for (uint32_t i = 1; i <= 20; i++)
        insert(&rb, seq(0), i * 10 * CHUNK_DATA, "x", 1, &stored);
    ck_assert_uint_eq(rb.chunks, 20);
    uint32_t given = 0, n;
    while ((n = recvbuf_prune(&chunks, &ranges, &rb)) > 0) {
        given += n;
        ck_assert_uint_eq(rb.chunks, 20 - given);
    }
    ck_assert_uint_eq(given, 20);
    ck_assert_uint_eq(rb.ooo_bytes, 0);
    ck_assert_uint_eq(ranges.live + chunks.live, 0);
    /* nonsense far away is refused */
    insert(&rb, seq(0), 1u << 31, "x", 1, &stored);
    ck_assert_uint_eq(stored, 0);
}
END_TEST

enum { WINDOW = 30000 };

/* held[i]: byte rcv_nxt + i is there; bytes before it wait in `ready`. */
struct model {
    struct test_random r;
    struct recvbuf rb;
    tcp_seq rcv_nxt;
    uint8_t held[WINDOW + 1], byte[WINDOW + 1];
    uint8_t *ready;
    uint32_t nready;
};

/* The chain is sorted and complete, and the pointers into it are alive. */
static void check_chain(const struct recvbuf *rb)
{
    uint32_t n = 0;
    bool hint = rb->hint == NULL, fill = rb->fill == NULL, sorted = true;
    const struct chunk *last = NULL;
    for (const struct chunk *c = rb->head; c != NULL; c = c->next) {
        sorted &= last == NULL || ((c->start - last->start) % CHUNK_DATA == 0 &&
                                   (int32_t)(c->start - last->start) > 0);
        hint |= rb->hint == c;
        fill |= rb->fill == c;
        last = c;
        n++;
    }
    ck_assert(sorted && hint && fill);
    ck_assert_ptr_eq(rb->tail, last);
    ck_assert_uint_eq(rb->chunks, n);
}

/* Compares ranges, counts and the ready bytes. */
static void model_check(struct model *m)
{
    check_chain(&m->rb);
    ck_assert_uint_eq(recvbuf_ready(&m->rb), m->nready);
    const struct recv_range *g = m->rb.ranges;
    uint32_t ooo = 0, n = 0;
    for (uint32_t i = 0; i < WINDOW;) {
        if (!m->held[i]) {
            i++;
            continue;
        }
        uint32_t e = i;
        while (e < WINDOW && m->held[e])
            e++;
        if (g == NULL || !seq_eq(g->start, seq_add(m->rcv_nxt, i)) ||
            !seq_eq(g->end, seq_add(m->rcv_nxt, e)))
            ck_abort_msg("range %u should be [%u, %u)", n, i, e);
        g = g->next;
        ooo += e - i;
        n++;
        i = e;
    }
    ck_assert_ptr_null(g);
    ck_assert_uint_eq(m->rb.ooo_bytes, ooo);
    ck_assert_uint_eq(m->rb.nranges, n);
    ck_assert_uint_eq(ranges.live, n);
    ck_assert_uint_eq(m->rb.chunks, chunks.live);
    if (m->nready == 0 && n == 0)
        ck_assert_uint_eq(m->rb.chunks, 0);
}

/* Text in order, put where it belongs; sometimes room was made in vain before. */
static bool place(struct model *m, const uint8_t *text, uint32_t len)
{
    struct slice to[4];
    if (test_random_one_in(&m->r, 8))
        recvbuf_prepare(&chunks, &m->rb, 0, 1 + test_random_below(&m->r, 9000), to, 4);
    const unsigned n = recvbuf_prepare(&chunks, &m->rb, 0, len, to, 2);
    if (n == 0)
        return false;
    uint32_t at = 0;
    for (unsigned i = 0; i < n; at += (uint32_t)to[i++].len)
        memcpy(to[i].base, text + at, to[i].len);
    ck_assert_uint_eq(at, len);
    recvbuf_commit(&m->rb, 0, len);
    return true;
}

static void model_insert(struct model *m)
{
    uint8_t text[5000];
    const uint32_t off =
        test_random_one_in(&m->r, 3)
            ? 0
            : test_random_below(&m->r, test_random_one_in(&m->r, 2) ? 4000 : WINDOW);
    uint32_t len = 1 + test_random_below(&m->r, test_random_one_in(&m->r, 3) ? 5000 : 100);
    len = min_u32(len, WINDOW - off);
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < len; i++) {
        text[i] = (uint8_t)test_random_u64(&m->r);
        if (!m->held[off + i]) {
            m->held[off + i] = 1;
            m->byte[off + i] = text[i];
            fresh++;
        }
    }
    uint32_t advance = 0, stored;
    while (m->held[advance])
        advance++;
    if (m->rb.ranges != NULL || off != 0 || !test_random_one_in(&m->r, 2) || !place(m, text, len)) {
        ck_assert_uint_eq(insert(&m->rb, m->rcv_nxt, off, text, len, &stored), advance);
        ck_assert_uint_eq(stored, fresh);
    }
    memcpy(m->ready + m->nready, m->byte, advance);
    m->nready += advance;
    memmove(m->byte, m->byte + advance, WINDOW - advance);
    memmove(m->held, m->held + advance, WINDOW - advance);
    memset(m->held + WINDOW - advance, 0, advance);
    m->rcv_nxt = seq_add(m->rcv_nxt, advance);
}

static void model_read(struct model *m)
{
    static uint8_t out[3 * WINDOW];
    const uint32_t want = test_random_below(&m->r, m->nready + 2);
    const uint32_t from = test_random_below(&m->r, m->nready + 1);
    const uint32_t cut = test_random_below(&m->r, want + 1);
    const struct slice to[3] = {{out, cut}, {NULL, 0}, {out + cut, want - cut}};
    uint32_t got = min_u32(want, m->nready - from);
    ck_assert_uint_eq(recvbuf_peek(&m->rb, from, to, 3, want), got);
    ck_assert_mem_eq(out, m->ready + from, got);
    got = min_u32(want, m->nready);
    if (test_random_one_in(&m->r, 5)) {
        ck_assert_uint_eq(recvbuf_read(&chunks, &m->rb, NULL, 0, want), got);
    } else {
        ck_assert_uint_eq(recvbuf_read(&chunks, &m->rb, to, 3, UINT32_MAX), got);
        ck_assert_mem_eq(out, m->ready, got);
    }
    memmove(m->ready, m->ready + got, m->nready - got);
    m->nready -= got;
}

static void model_prune(struct model *m)
{
    uint32_t e = WINDOW;
    while (e > 0 && !m->held[e - 1])
        e--;
    uint32_t s = e;
    while (s > 0 && m->held[s - 1])
        s--;
    memset(m->held + s, 0, e - s);
    ck_assert_uint_eq(recvbuf_prune(&chunks, &ranges, &m->rb), e - s);
}

/* Sequence numbers and stream positions both wrap on the way. */
START_TEST(test_model)
{
    struct model *m = calloc(1, sizeof(*m));
    m->ready = malloc(3 * WINDOW);
    m->r.state = (uint64_t)_i + 1;
    m->rcv_nxt = seq(0u - test_random_below(&m->r, 200000));
    m->rb.read_pos = m->rb.next_pos = 0u - test_random_below(&m->r, 200000);
    uint64_t total = 0;
    for (int op = 0; op < 2500; op++) {
        const uint32_t before = m->rcv_nxt.v;
        if (m->nready < WINDOW && !test_random_one_in(&m->r, 4))
            model_insert(m);
        else if (!test_random_one_in(&m->r, 30))
            model_read(m);
        else if (!test_random_one_in(&m->r, 10))
            model_prune(m);
        else {
            recvbuf_clear(&chunks, &ranges, &m->rb);
            memset(m->held, 0, sizeof(m->held));
            m->nready = 0;
        }
        total += m->rcv_nxt.v - before;
        model_check(m);
    }
    ck_assert_uint_gt(total, 200000);
    recvbuf_clear(&chunks, &ranges, &m->rb);
    ck_assert_uint_eq(ranges.live + chunks.live, 0);
    free(m->ready);
    free(m);
}
END_TEST

static uint8_t byte_at(uint32_t s)
{
    return (uint8_t)(s * 2654435761u >> 24);
}

/* Hardly any memory: text is dropped, but what is held is right and the stream goes on. */
START_TEST(test_little_memory)
{
    test_pools_close(&pools);
    open_pools(3);
    struct test_random r = {(uint64_t)_i + 100};
    struct recvbuf rb = {.read_pos = 0u - 50000, .next_pos = 0u - 50000};
    tcp_seq rcv_nxt = seq(0u - 80000), read_nxt = rcv_nxt;
    unsigned dropped = 0;
    for (int op = 0; op < 4000; op++) {
        uint8_t text[9000];
        if (!test_random_one_in(&r, 5)) {
            const uint32_t off = test_random_one_in(&r, 3) ? 0 : test_random_below(&r, 300000);
            const uint32_t len = 1 + test_random_below(&r, 9000);
            for (uint32_t i = 0; i < len; i++)
                text[i] = byte_at(rcv_nxt.v + off + i);
            uint32_t stored;
            const uint32_t n = insert(&rb, rcv_nxt, off, text, len, &stored);
            dropped += stored == 0;
            rcv_nxt = seq_add(rcv_nxt, n);
        } else if (!test_random_one_in(&r, 5)) {
            const uint32_t n = read_all(&rb, text, sizeof(text));
            uint32_t good = 0;
            while (good < n && text[good] == byte_at(read_nxt.v + good))
                good++;
            ck_assert_uint_eq(good, n);
            read_nxt = seq_add(read_nxt, n);
        } else {
            recvbuf_prune(&chunks, &ranges, &rb);
        }
        ck_assert_uint_eq(recvbuf_ready(&rb), (uint32_t)seq_diff(rcv_nxt, read_nxt));
        uint32_t ooo = 0;
        bool sorted = true;
        for (const struct recv_range *g = rb.ranges; g != NULL; g = g->next) {
            sorted &= seq_lt(g->start, g->end) && seq_gt(g->start, rcv_nxt);
            sorted &= g->next == NULL || seq_lt(g->end, g->next->start);
            ooo += (uint32_t)seq_diff(g->end, g->start);
        }
        ck_assert(sorted);
        ck_assert_uint_eq(rb.ooo_bytes, ooo);
    }
    ck_assert_uint_gt(dropped, 50);
    recvbuf_clear(&chunks, &ranges, &rb);
    ck_assert_uint_eq(ranges.live + chunks.live, 0);
}
END_TEST

Suite *suite_recvbuf(void)
{
    Suite *s = suite_create("recvbuf");
    TCase *tc = tcase_create("recvbuf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_in_order);
    tcase_add_test(tc, test_place);
    tcase_add_test(tc, test_hole);
    tcase_add_test(tc, test_sack_order);
    tcase_add_test(tc, test_range_bound);
    tcase_add_test(tc, test_sparse);
    tcase_add_loop_test(tc, test_model, 0, 8);
    tcase_add_loop_test(tc, test_little_memory, 0, 3);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(s, tc);
    return s;
}
