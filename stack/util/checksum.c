/*
 * The sum is kept in host byte order over the words as they lie in memory, which one's complement
 * addition allows (RFC 1071 section 2B): only the final store must be by memcpy.
 */
#include "stack/util/checksum.h"

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t add_carry(uint64_t a, uint64_t b)
{
    uint64_t s;
    const bool carry = __builtin_add_overflow(a, b, &s);
    return s + carry;
}

/* Sum of len bytes, the first being the first of a 16-bit word. */
static uint64_t sum_even(const uint8_t *p, size_t len)
{
    /* four sums side by side: a chain of dependent additions would take a cycle or two a word */
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (; len >= 32; len -= 32, p += 32) {
        s0 = add_carry(s0, load64(p));
        s1 = add_carry(s1, load64(p + 8));
        s2 = add_carry(s2, load64(p + 16));
        s3 = add_carry(s3, load64(p + 24));
    }
    s0 = add_carry(add_carry(s0, s1), add_carry(s2, s3));
    for (; len >= 8; len -= 8, p += 8)
        s0 = add_carry(s0, load64(p));
    if (len & 4) {
        uint32_t v;
        memcpy(&v, p, sizeof(v));
        s0 = add_carry(s0, v);
        p += 4;
    }
    if (len & 2) {
        uint16_t v;
        memcpy(&v, p, sizeof(v));
        s0 = add_carry(s0, v);
        p += 2;
    }
    if (len & 1)
        s0 = add_carry(s0, *p);
    return s0;
}

uint16_t csum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint64_t csum_add(uint64_t sum, const void *data, size_t len, bool odd)
{
    uint64_t s = sum_even(data, len);
    if (odd) /* every byte is on the other side of its word (RFC 1071 section 2B) */
        s = __builtin_bswap16(csum_fold(s));
    return add_carry(sum, s);
}

uint64_t csum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto,
                     uint32_t len)
{
    uint64_t sum = 0;
    if (ip_addr_is_v4(src)) {
        sum = (uint64_t)ip_addr_v4(src) + ip_addr_v4(dst);
    } else {
        sum = add_carry(add_carry(src->q[0], src->q[1]), add_carry(dst->q[0], dst->q[1]));
    }
    /* zero, protocol, length; the upper half of a length above 65,535 exists in IPv6 only */
    sum = add_carry(sum, __builtin_bswap32(len));
    return add_carry(sum, __builtin_bswap32(proto));
}
