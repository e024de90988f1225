/* The engine's vocabulary: time, addresses, byte order, slices. Nothing here does I/O or allocates.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Nanoseconds of a monotonic clock that the caller owns. */
typedef uint64_t nsec_t;

#define NSEC_PER_USEC ((nsec_t)1000)
#define NSEC_PER_MSEC ((nsec_t)1000000)
#define NSEC_PER_SEC  ((nsec_t)1000000000)
#define NSEC_NEVER    UINT64_MAX

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A run of bytes somewhere; laid out as struct iovec so that the shim hands its own arrays through.
 */
struct slice {
    void *base;
    size_t len;
};

/* Unaligned big-endian access to wire formats. */
static inline uint16_t get_be16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap16(v);
}

static inline uint32_t get_be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}

static inline void put_be16(void *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be32(void *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof(v));
}

/* An IP address, 16 bytes in network order. IPv4 is kept mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2).
 */
struct ip_addr {
    union {
        uint8_t b[16];
        uint64_t q[2];
    };
};

static inline bool ip_addr_eq(const struct ip_addr *a, const struct ip_addr *b)
{
    return a->q[0] == b->q[0] && a->q[1] == b->q[1];
}

/* v4 is in network order, as in struct in_addr and in headers. */
static inline struct ip_addr ip_addr_from_v4(uint32_t v4)
{
    struct ip_addr a = {.b = {[10] = 0xff, [11] = 0xff}};
    memcpy(&a.b[12], &v4, sizeof(v4));
    return a;
}

static inline bool ip_addr_is_v4(const struct ip_addr *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

/* Network order; meaningful for mapped addresses only. */
static inline uint32_t ip_addr_v4(const struct ip_addr *a)
{
    uint32_t v4;
    memcpy(&v4, &a->b[12], sizeof(v4));
    return v4;
}

/* True for :: and for 0.0.0.0 (mapped). */
static inline bool ip_addr_is_any(const struct ip_addr *a)
{
    return (a->q[0] == 0 && a->q[1] == 0) || (ip_addr_is_v4(a) && ip_addr_v4(a) == 0);
}

struct endpoint {
    struct ip_addr addr;
    uint16_t port; /* host order */
};
