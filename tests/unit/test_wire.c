/* stack/tcp/wire.c */
#include "stack/stack.h"
#include "stack/tcp/wire.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

static const struct tcp_segment plain = {
    .src_port = 49152,
    .dst_port = 80,
    .seq = {0x01020304},
    .ack = {0xfffefdfc},
    .flags = TCP_ACK | TCP_PSH,
    .wnd = 0xabcd,
    .urg = 7,
};

/* A header of plain's with these option bytes, padded with EOL; returns its length. */
static uint32_t with_options(uint8_t *p, uint8_t flags, const uint8_t *opts, size_t n)
{
    struct tcp_segment s = plain;
    s.flags = flags;
    ck_assert_uint_eq(tcp_build(p, &s), 20);
    const size_t padded = (n + 3) / 4 * 4;
    ck_assert_uint_le(padded, 40);
    memset(p + 20, 0, padded);
    memcpy(p + 20, opts, n);
    p[12] = (uint8_t)((20 + padded) / 4 << 4);
    return (uint32_t)(20 + padded);
}

#define PARSE(flags, seg, ...)                                                                     \
    do {                                                                                           \
        const uint8_t bytes[] = {__VA_ARGS__};                                                     \
        const uint32_t n = with_options(buf, flags, bytes, sizeof(bytes));                         \
        ck_assert(tcp_parse(buf, n, &seg));                                                        \
    } while (0)

START_TEST(test_header_bytes)
{
    static const uint8_t want[20] = {0xc0, 0x00, 0x00, 0x50, 1,    2,    3, 4, 0xff, 0xfe,
                                     0xfd, 0xfc, 0x50, 0x18, 0xab, 0xcd, 0, 0, 0,    7};
    uint8_t p[TCP_HEADER_MAX];
    memset(p, 0xee, sizeof(p));
    ck_assert_uint_eq(tcp_build(p, &plain), 20);
    ck_assert_mem_eq(p, want, 20);
    ck_assert_uint_eq(p[20], 0xee);
    ck_assert_uint_eq(tcp_options_size(&plain.opt), 0);
}
END_TEST

START_TEST(test_round_trip)
{
    uint8_t p[TCP_HEADER_MAX + 5] = {0};
    struct tcp_segment s = plain, back;
    s.opt = (struct tcp_options){.has_ts = true, .ts_val = 0x11223344, .ts_ecr = 0x55667788};
    ck_assert_uint_eq(tcp_build(p, &s), 32);
    for (unsigned i = 0; i < 5; i++)
        p[32 + i] = (uint8_t) "hello"[i];
    memset(&back, 0xa5, sizeof(back));
    ck_assert(tcp_parse(p, 37, &back));
    ck_assert_uint_eq(back.src_port, s.src_port);
    ck_assert_uint_eq(back.dst_port, s.dst_port);
    ck_assert(seq_eq(back.seq, s.seq) && seq_eq(back.ack, s.ack));
    ck_assert_uint_eq(back.flags, s.flags);
    ck_assert_uint_eq(back.wnd, s.wnd);
    ck_assert_uint_eq(back.urg, s.urg);
    ck_assert_uint_eq(back.len, 5);
    ck_assert_mem_eq(back.text, "hello", 5);
    ck_assert(back.opt.has_ts && !back.opt.has_mss && !back.opt.sack_permitted);
    ck_assert_uint_eq(back.opt.ts_val, 0x11223344);
    ck_assert_uint_eq(back.opt.ts_ecr, 0x55667788);
    ck_assert_uint_eq(tcp_segment_len(&back), 5);
    back.flags |= TCP_SYN | TCP_FIN;
    ck_assert_uint_eq(tcp_segment_len(&back), 7);
}
END_TEST

/* Linux's layout of a SYN: MSS, SACK-permitted and timestamp in one block, NOP and window scale. */
START_TEST(test_syn_layout)
{
    static const uint8_t want[20] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0,
                                     0, 9, 0, 0,    0, 0, 1, 3,  3, 7};
    uint8_t p[TCP_HEADER_MAX];
    struct tcp_segment s = plain, back;
    s.flags = TCP_SYN;
    s.opt = (struct tcp_options){.has_mss = true,
                                 .mss = 1460,
                                 .sack_permitted = true,
                                 .has_ts = true,
                                 .ts_val = 9,
                                 .has_wscale = true,
                                 .wscale = 7};
    ck_assert_uint_eq(tcp_options_size(&s.opt), 20);
    ck_assert_uint_eq(tcp_build(p, &s), 40);
    ck_assert_mem_eq(p + 20, want, 20);
    ck_assert(tcp_parse(p, 40, &back));
    ck_assert(back.opt.has_mss && back.opt.sack_permitted && back.opt.has_ts &&
              back.opt.has_wscale);
    ck_assert_uint_eq(back.opt.mss, 1460);
    ck_assert_uint_eq(back.opt.wscale, 7);

    s.opt.has_ts = false;
    static const uint8_t no_ts[12] = {2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7};
    ck_assert_uint_eq(tcp_options_size(&s.opt), 12);
    ck_assert_uint_eq(tcp_build(p, &s), 32);
    ck_assert_mem_eq(p + 20, no_ts, 12);
}
END_TEST

/* RFC 2018 3: four blocks fit, three beside a timestamp; never more than 40 bytes of options. */
START_TEST(test_sack_fits)
{
    static const struct {
        bool ts, mss, wscale;
        unsigned blocks, size;
    } rows[] = {
        {false, false, false, 4, 36},
        {true, false, false, 3, 40},
        {true, true, true, 2, 40},
        {false, true, true, 3, 36},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t p[TCP_HEADER_MAX + 1];
        memset(p, 0xee, sizeof(p));
        struct tcp_segment s = plain, back;
        s.opt = (struct tcp_options){
            .has_ts = rows[i].ts, .has_mss = rows[i].mss, .has_wscale = rows[i].wscale};
        s.opt.mss = 1460;
        s.opt.sack_count = 255; /* an overlong count must not overrun */
        for (unsigned b = 0; b < TCP_SACK_BLOCKS_MAX; b++)
            s.opt.sack[b] = (struct tcp_sack_block){seq(b * 1000), seq(b * 1000 + 500)};
        ck_assert_uint_eq(tcp_options_size(&s.opt), rows[i].size);
        ck_assert_uint_eq(tcp_build(p, &s), 20 + rows[i].size);
        ck_assert_uint_eq(p[20 + rows[i].size], 0xee);
        ck_assert(tcp_parse(p, 20 + rows[i].size, &back));
        ck_assert_uint_eq(back.opt.sack_count, rows[i].blocks);
        for (unsigned b = 0; b < rows[i].blocks; b++)
            ck_assert(seq_eq(back.opt.sack[b].start, seq(b * 1000)) &&
                      seq_eq(back.opt.sack[b].end, seq(b * 1000 + 500)));
    }
}
END_TEST

START_TEST(test_bad_headers)
{
    uint8_t p[TCP_HEADER_MAX] = {0};
    struct tcp_segment seg;
    tcp_build(p, &plain);
    for (uint32_t n = 0; n < 20; n++)
        ck_assert(!tcp_parse(p, n, &seg));
    ck_assert(tcp_parse(p, 20, &seg));
    ck_assert_uint_eq(seg.len, 0);
    p[12] = 4 << 4; /* data offset below 5 */
    ck_assert(!tcp_parse(p, 60, &seg));
    p[12] = 6 << 4; /* past the end */
    ck_assert(!tcp_parse(p, 23, &seg));
    ck_assert(tcp_parse(p, 24, &seg));
}
END_TEST

START_TEST(test_option_garbage)
{
    uint8_t buf[TCP_HEADER_MAX];
    struct tcp_segment seg;
    /* an unknown option is skipped */
    PARSE(TCP_SYN, seg, 253, 4, 1, 2, 2, 4, 0x05, 0xb4);
    ck_assert(seg.opt.has_mss && seg.opt.mss == 1460);
    /* EOL ends the options */
    PARSE(TCP_SYN, seg, 0, 2, 4, 5, 0xb4);
    ck_assert(!seg.opt.has_mss);
    /* length 0, length 1 and a length past the end end the options; what was read stands */
    PARSE(TCP_SYN, seg, 2, 4, 5, 0xb4, 8, 0, 3, 3, 7);
    ck_assert(seg.opt.has_mss && !seg.opt.has_wscale);
    PARSE(TCP_SYN, seg, 2, 4, 5, 0xb4, 8, 1, 3, 3, 7);
    ck_assert(seg.opt.has_mss && !seg.opt.has_wscale);
    PARSE(TCP_SYN, seg, 4, 2, 3, 8, 7, 1);
    ck_assert(seg.opt.sack_permitted && !seg.opt.has_wscale);
    /* a kind byte as the very last byte */
    PARSE(TCP_SYN, seg, 1, 1, 1, 2);
    ck_assert(!seg.opt.has_mss);
    /* wrong length for the kind: skipped */
    PARSE(TCP_SYN, seg, 2, 3, 5, 3, 3, 7);
    ck_assert(!seg.opt.has_mss && seg.opt.has_wscale);
    /* an MSS of zero is none */
    PARSE(TCP_SYN, seg, 2, 4, 0, 0);
    ck_assert(!seg.opt.has_mss);
    /* RFC 7323 2.3: a shift above 14 is 14 */
    PARSE(TCP_SYN, seg, 3, 3, 200);
    ck_assert_uint_eq(seg.opt.wscale, 14);
    /* SACK of no whole number of blocks */
    PARSE(TCP_ACK, seg, 5, 2, 1, 1);
    ck_assert_uint_eq(seg.opt.sack_count, 0);
    PARSE(TCP_ACK, seg, 5, 9, 1, 2, 3, 4, 5, 6, 7);
    ck_assert_uint_eq(seg.opt.sack_count, 0);
    /* options of the SYN mean nothing elsewhere */
    PARSE(TCP_ACK, seg, 2, 4, 5, 0xb4, 3, 3, 7, 4, 2);
    ck_assert(!seg.opt.has_mss && !seg.opt.has_wscale && !seg.opt.sack_permitted);
    /* a timestamp that is not in the common place */
    PARSE(TCP_ACK, seg, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2);
    ck_assert(seg.opt.has_ts && seg.opt.ts_val == 1 && seg.opt.ts_ecr == 2);
}
END_TEST

/* Random bytes: parsing stays inside them (the sanitizer watches) and what it says is in bounds. */
START_TEST(test_random_bytes)
{
    struct test_random r = {1};
    for (int i = 0; i < 50000; i++) {
        const uint32_t n = test_random_below(&r, 80);
        uint8_t *p = malloc(n + 1);
        for (uint32_t k = 0; k < n; k++)
            p[k] = (uint8_t)test_random_below(&r, test_random_one_in(&r, 2) ? 12 : 256);
        if (n > 12)
            p[12] = (uint8_t)((5 + test_random_below(&r, 11)) << 4);
        struct tcp_segment seg;
        if (tcp_parse(p, n, &seg)) {
            ck_assert(seg.text >= p + 20 && seg.text + seg.len == p + n);
            ck_assert_uint_le(seg.opt.sack_count, TCP_SACK_BLOCKS_MAX);
            ck_assert_uint_le(seg.opt.wscale, TCP_WSCALE_MAX);
            uint8_t out[TCP_HEADER_MAX];
            ck_assert_uint_eq(tcp_build(out, &seg), 20 + tcp_options_size(&seg.opt));
        }
        free(p);
    }
}
END_TEST

Suite *suite_wire(void)
{
    Suite *s = suite_create("wire");
    TCase *tc = tcase_create("wire");
    tcase_add_test(tc, test_header_bytes);
    tcase_add_test(tc, test_round_trip);
    tcase_add_test(tc, test_syn_layout);
    tcase_add_test(tc, test_sack_fits);
    tcase_add_test(tc, test_bad_headers);
    tcase_add_test(tc, test_option_garbage);
    tcase_add_test(tc, test_random_bytes);
    suite_add_tcase(s, tc);
    return s;
}
