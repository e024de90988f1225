/* Segments within frames: reading, cutting, checksums, the RST that is made of one. */
#include "shim/link/segment.h"

#include "stack/util/checksum.h"
#include "tests/unit/suites.h"

#define ETH      14u
#define TEXT_MAX 4000u

static uint8_t frame[ETH + 60 + TEXT_MAX], out[sizeof(frame)];
static struct segment seg;

/* An Ethernet frame with len bytes of text; its IP and TCP checksums are right. */
static uint32_t build(uint8_t flags, uint32_t len)
{
    const struct tcp_segment t = {.src_port = 4000,
                                  .dst_port = 80,
                                  .seq = seq(0xfffffff0),
                                  .ack = seq(777),
                                  .flags = flags,
                                  .wnd = 512,
                                  .urg = flags & TCP_URG ? 1500 : 0,
                                  .opt = {.has_ts = true, .ts_val = 1, .ts_ecr = 2}};
    static const uint8_t ip[20] = {0x45, 0, 0,  0, 0x12, 0x34, 0x40, 0, 64, 6,
                                   0,    0, 10, 0, 0,    1,    10,   0, 0,  2};
    memset(frame, 0, sizeof(frame));
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes on a wire */
    memcpy(frame, "\1\2\3\4\5\6\7\x8\x9\xa\xb\xc\x8\0", ETH);
    memcpy(frame + ETH, ip, sizeof(ip));
    const uint32_t header = tcp_build(frame + ETH + 20, &t);
    const uint32_t total = 20 + header + len;
    for (uint32_t i = 0; i < len; i++)
        frame[ETH + 20 + header + i] = (uint8_t)(i * 7 + i / 256);
    put_be16(frame + ETH + 2, (uint16_t)total);
    const uint16_t sum = (uint16_t)~csum_fold(csum_add(0, frame + ETH, 20, false));
    memcpy(frame + ETH + 10, &sum, 2);
    ck_assert(segment_parse(frame, ETH + total, ETH + total, ETH, &seg));
    segment_checksum(frame, &seg);
    return ETH + total;
}

static bool ip_header_ok(const uint8_t *f)
{
    return csum_fold(csum_add(0, f + ETH, 20, false)) == 0xffff;
}

START_TEST(reads)
{
    const uint32_t len = build(TCP_ACK | TCP_PSH, 100);
    ck_assert_uint_eq(seg.sport, 4000);
    ck_assert_uint_eq(seg.dport, 80);
    ck_assert_uint_eq(seg.seq, 0xfffffff0);
    ck_assert_uint_eq(seg.ack, 777);
    ck_assert_uint_eq(seg.len, 100);
    ck_assert_uint_eq(seg.end, len);
    ck_assert(segment_checksum_ok(frame, &seg));
    /* padding behind the packet is not text */
    ck_assert(segment_parse(frame, len + 20, len + 20, ETH, &seg));
    ck_assert_uint_eq(seg.len, 100);
    /* the text may lie elsewhere */
    ck_assert(segment_parse(frame, seg.text, len, ETH, &seg));
    ck_assert_uint_eq(seg.len, 100);
}
END_TEST

START_TEST(refuses)
{
    const uint32_t len = build(TCP_ACK, 10);
    for (uint32_t n = 0; n < seg.text; n++)
        ck_assert(!segment_parse(frame, n, n, ETH, &seg));
    ck_assert(!segment_parse(frame, len - 1, len - 1, ETH, &seg)); /* cut short */
    frame[ETH + 6] = 0x20;
    ck_assert(!segment_parse(frame, len, len, ETH, &seg)); /* a fragment */
    build(TCP_ACK, 10);
    frame[ETH + 9] = 17;
    ck_assert(!segment_parse(frame, len, len, ETH, &seg)); /* UDP */
    build(TCP_ACK, 10);
    frame[ETH] = 0x44;
    ck_assert(!segment_parse(frame, len, len, ETH, &seg)); /* header below 20 */
    build(TCP_ACK, 10);
    frame[ETH + 20 + 12] = 0xf0;
    ck_assert(!segment_parse(frame, len, len, ETH, &seg)); /* options past the end */
    frame[ETH + 20 + 12] = 0x40;
    ck_assert(!segment_parse(frame, len, len, ETH, &seg));
}
END_TEST

START_TEST(cuts)
{
    build(TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR | TCP_URG, 3001);
    const struct segment all = seg;
    uint32_t at = 0, pieces = 0;
    for (; at < all.len; at += 1448, pieces++) {
        struct segment s;
        const uint32_t len = segment_cut(frame, &all, at, 1448, out);
        const bool last = at + 1448 >= all.len;
        ck_assert(segment_parse(out, len, len, ETH, &s));
        ck_assert_uint_eq(s.len, last ? all.len - at : 1448);
        ck_assert_uint_eq(s.seq, all.seq + at);
        ck_assert_uint_eq(s.ack, all.ack);
        ck_assert_int_eq((s.flags & (TCP_FIN | TCP_PSH)) != 0, last);
        ck_assert_int_eq((s.flags & TCP_CWR) != 0, at == 0);
        ck_assert_int_eq((s.flags & TCP_URG) != 0, at <= 1500);
        ck_assert_mem_eq(out + s.text, frame + all.text + at, s.len);
        ck_assert(segment_checksum_ok(out, &s));
        ck_assert(ip_header_ok(out));
        ck_assert_uint_eq(get_be16(out + ETH + 4), 0x1234 + pieces);
    }
    ck_assert_uint_eq(pieces, 3);
}
END_TEST

START_TEST(window)
{
    build(TCP_ACK, 33);
    segment_set_window(frame, &seg, 0);
    ck_assert_uint_eq(get_be16(frame + seg.l4 + 14), 0);
    ck_assert(segment_checksum_ok(frame, &seg));
    frame[seg.l4 + 16] ^= 1; /* what was wrong stays wrong */
    segment_set_window(frame, &seg, 100);
    ck_assert(!segment_checksum_ok(frame, &seg));
}
END_TEST

START_TEST(reset)
{
    const bool to_sender = _i;
    build(TCP_ACK | TCP_PSH, 100);
    const struct segment was = seg;
    const uint32_t len = segment_make_rst(frame, ETH, &seg, to_sender);
    ck_assert_uint_eq(len, ETH + 40);
    ck_assert_uint_eq(seg.flags, TCP_RST | TCP_ACK);
    ck_assert_uint_eq(seg.len, 0);
    ck_assert_uint_eq(seg.seq, to_sender ? was.ack : was.seq);
    ck_assert_uint_eq(seg.ack, to_sender ? was.seq + 100 : was.ack);
    ck_assert_uint_eq(seg.sport, to_sender ? 80 : 4000);
    ck_assert(ip_addr_eq(&seg.src, to_sender ? &was.dst : &was.src));
    ck_assert_uint_eq(frame[0], to_sender ? 7 : 1);
    ck_assert(segment_checksum_ok(frame, &seg));
    ck_assert(ip_header_ok(frame));
}
END_TEST

START_TEST(version_six)
{
    /* the TCP segment of build() behind an IPv6 header, no Ethernet */
    build(TCP_ACK, 3000);
    uint8_t six[40 + 32 + 3000] = {
        0x60, [6] = 6, [7] = 64, [8] = 0xfd, [23] = 1, [24] = 0xfd, [39] = 2};
    put_be16(six + 4, 32 + 3000);
    memcpy(six + 40, frame + seg.l4, 32 + 3000);
    ck_assert(segment_parse(six, sizeof(six), sizeof(six), 0, &seg));
    ck_assert_uint_eq(seg.len, 3000);
    segment_checksum(six, &seg);
    ck_assert(segment_checksum_ok(six, &seg));
    struct segment s;
    const uint32_t len = segment_cut(six, &seg, 1400, 1400, out);
    ck_assert(segment_parse(out, len, len, 0, &s));
    ck_assert_uint_eq(s.len, 1400);
    ck_assert(segment_checksum_ok(out, &s));
    segment_make_rst(six, 0, &seg, true);
    ck_assert(segment_checksum_ok(six, &seg));
    ck_assert_uint_eq(seg.src.b[15], 2);
}
END_TEST

Suite *suite_link_segment(void)
{
    Suite *s = suite_create("link_segment");
    TCase *tc = tcase_create("core");
    tcase_add_test(tc, reads);
    tcase_add_test(tc, refuses);
    tcase_add_test(tc, cuts);
    tcase_add_test(tc, window);
    tcase_add_loop_test(tc, reset, 0, 2);
    tcase_add_test(tc, version_six);
    suite_add_tcase(s, tc);
    return s;
}
