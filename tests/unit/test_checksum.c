#include "tests/unit/suites.h"

#include "stack/util/checksum.h"
#include "stack/util/random.h"

/* RFC 1071 as it is written: 16-bit words in network order, carries folded, no tricks. */
static uint16_t naive(const uint8_t *p, size_t len)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* The folded sum as it would be read from the wire. */
static uint16_t wire(uint64_t sum)
{
    const uint16_t folded = csum_fold(sum);
    return get_be16(&folded);
}

/* 0 and 0xffff are the same number in one's complement. */
static uint16_t canonical(uint16_t v)
{
    return v == 0xffff ? 0 : v;
}

START_TEST(rfc1071_example)
{
    const uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    ck_assert_uint_eq(wire(csum_add(0, data, sizeof(data), false)), 0xddf2);
}
END_TEST

START_TEST(any_length_any_alignment_any_split)
{
    static uint8_t buf[4200];
    const uint8_t seed[16] = {7};
    struct rng r;
    rng_init(&r, seed);
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)rng_u64(&r);
    bool good = true;
    for (int round = 0; round < 5000; round++) {
        const uint8_t *p = buf + rng_below(&r, 64);
        const size_t len = rng_below(&r, round % 2 ? 100 : 4100);
        /* in up to four parts, of odd lengths too */
        uint64_t sum = 0;
        size_t at = 0;
        for (int part = 0; part < 4; part++) {
            const size_t n = part == 3 ? len - at : rng_below(&r, (uint32_t)(len - at) + 1);
            sum = csum_add(sum, p + at, n, at % 2 != 0);
            at += n;
        }
        good &= canonical(wire(sum)) == canonical(naive(p, len));
    }
    ck_assert(good);
}
END_TEST

START_TEST(all_ones_do_not_overflow)
{
    static uint8_t ones[65535];
    memset(ones, 0xff, sizeof(ones));
    uint64_t sum = UINT64_MAX;
    for (int i = 0; i < 10; i++)
        sum = csum_add(sum, ones, sizeof(ones) - 1, false);
    ck_assert_uint_eq(csum_fold(sum), 0xffff);
}
END_TEST

START_TEST(pseudo_header_v4)
{
    const uint8_t header[12] = {10, 9, 0, 1, 192, 168, 255, 254, 0, 6, 0xab, 0xcd};
    uint32_t src, dst;
    memcpy(&src, header, 4);
    memcpy(&dst, header + 4, 4);
    const struct ip_addr s = ip_addr_from_v4(src), d = ip_addr_from_v4(dst);
    ck_assert_uint_eq(wire(csum_pseudo(&s, &d, 6, 0xabcd)), naive(header, sizeof(header)));
}
END_TEST

START_TEST(pseudo_header_v6)
{
    uint8_t header[40] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1, [16] = 0xfe, 0x80, [31] = 0x77};
    put_be32(header + 32, 0x12345);
    header[39] = 6;
    struct ip_addr s, d;
    memcpy(s.b, header, 16);
    memcpy(d.b, header + 16, 16);
    ck_assert_uint_eq(wire(csum_pseudo(&s, &d, 6, 0x12345)), naive(header, sizeof(header)));
}
END_TEST

Suite *suite_checksum(void)
{
    Suite *s = suite_create("checksum");
    TCase *t = tcase_create("all");
    tcase_add_test(t, rfc1071_example);
    tcase_add_test(t, any_length_any_alignment_any_split);
    tcase_add_test(t, all_ones_do_not_overflow);
    tcase_add_test(t, pseudo_header_v4);
    tcase_add_test(t, pseudo_header_v6);
    suite_add_tcase(s, t);
    return s;
}
