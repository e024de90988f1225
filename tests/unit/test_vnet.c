#include "tests/unit/suites.h"

#include <errno.h>

#include "shim/link/vnet.h"
#include "stack/tcp/chunk.h"

#define HEAD 66 /* Ethernet, IPv4, TCP with timestamps */

static uint8_t text[2 * CHUNK_LINE] __attribute__((aligned(CHUNK_LINE)));

/* Text begins so many bytes behind the beginning of a line. */
static struct frame_out frame(uint32_t payload, uint16_t gso_size, uint32_t behind)
{
    return (struct frame_out){.head_start = 14,
                              .l4 = 14 + 34,
                              .head_end = 14 + HEAD,
                              .gso_size = gso_size,
                              .csum_partial = true,
                              .csum_offset = 16,
                              .payload_len = payload,
                              .nslices = 1,
                              .slices = {{text + behind, sizeof(text) - behind}}};
}

static struct virtio_net_hdr described(uint32_t payload, uint32_t behind, nsec_t now)
{
    const struct frame_out f = frame(payload, 1448, behind);
    struct virtio_net_hdr h;
    vnet_describe(&h, &f, now);
    ck_assert_int_eq(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    ck_assert_int_eq(h.csum_start, 34);
    ck_assert_int_eq(h.csum_offset, 16);
    return h;
}

START_TEST(a_single_segment_is_not_to_be_cut)
{
    const struct virtio_net_hdr h = described(1448, 0, 1);
    ck_assert_int_eq(h.gso_type, VIRTIO_NET_HDR_GSO_NONE);
    ck_assert_int_eq(h.hdr_len, 0);
}
END_TEST

START_TEST(text_in_pages_begins_at_a_line)
{
    ck_assert_int_eq(described(4 * 1448, 0, 1).hdr_len, HEAD);
    ck_assert_int_eq(described(4 * 1448, 56, 1).hdr_len, HEAD + 8);
    ck_assert_int_eq(described(4 * 1448, 56, 1).gso_size, 1448);
}
END_TEST

START_TEST(a_large_frame_is_one_piece)
{
    ck_assert_int_eq(described(22 * 1448, 0, 1).hdr_len, HEAD); /* 31,922 bytes */
    ck_assert_int_eq(described(23 * 1448, 8, 1).hdr_len, HEAD + 23 * 1448);
    /* with the kernel's parts not more than 64 KB */
    ck_assert_int_eq(described(45 * 1448, 0, 1).hdr_len, 65536 - 640);
}
END_TEST

START_TEST(without_large_pieces_it_lies_in_pages_for_a_while)
{
    const nsec_t now = NSEC_PER_SEC;
    struct virtio_net_hdr h = described(45 * 1448, 0, now);
    ck_assert(!vnet_to_pages(&h, HEAD, -EMSGSIZE, now));
    ck_assert(!vnet_to_pages(&h, HEAD, 100, now));
    ck_assert(vnet_to_pages(&h, HEAD, -ENOBUFS, now));
    ck_assert_int_eq(h.hdr_len, HEAD);
    ck_assert_int_eq(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    ck_assert(!vnet_to_pages(&h, HEAD, -ENOBUFS, now)); /* nothing more can be done */
    ck_assert_int_eq(described(45 * 1448, 0, now + NSEC_PER_SEC - 1).hdr_len, HEAD);
    ck_assert_int_eq(described(45 * 1448, 0, now + NSEC_PER_SEC).hdr_len, 65536 - 640);
}
END_TEST

Suite *suite_vnet(void)
{
    Suite *s = suite_create("vnet");
    TCase *tc = tcase_create("vnet");
    tcase_add_test(tc, a_single_segment_is_not_to_be_cut);
    tcase_add_test(tc, text_in_pages_begins_at_a_line);
    tcase_add_test(tc, a_large_frame_is_one_piece);
    tcase_add_test(tc, without_large_pieces_it_lies_in_pages_for_a_while);
    suite_add_tcase(s, tc);
    return s;
}
