/* Sequence numbers: modular 32-bit arithmetic (RFC 9293 3.4). A struct, so that a raw `<` cannot be
 * written. */
#pragma once

#include "stack/base.h"

typedef struct {
    uint32_t v;
} tcp_seq;

static inline tcp_seq seq(uint32_t v)
{
    return (tcp_seq){v};
}

static inline tcp_seq seq_add(tcp_seq a, uint32_t n)
{
    return (tcp_seq){a.v + n};
}

static inline tcp_seq seq_sub(tcp_seq a, uint32_t n)
{
    return (tcp_seq){a.v - n};
}

/* a - b as a signed distance. */
static inline int32_t seq_diff(tcp_seq a, tcp_seq b)
{
    return (int32_t)(a.v - b.v);
}

static inline bool seq_eq(tcp_seq a, tcp_seq b)
{
    return a.v == b.v;
}

static inline bool seq_lt(tcp_seq a, tcp_seq b)
{
    return seq_diff(a, b) < 0;
}

static inline bool seq_leq(tcp_seq a, tcp_seq b)
{
    return seq_diff(a, b) <= 0;
}

static inline bool seq_gt(tcp_seq a, tcp_seq b)
{
    return seq_diff(a, b) > 0;
}

static inline bool seq_geq(tcp_seq a, tcp_seq b)
{
    return seq_diff(a, b) >= 0;
}

static inline tcp_seq seq_max(tcp_seq a, tcp_seq b)
{
    return seq_gt(a, b) ? a : b;
}

static inline tcp_seq seq_min(tcp_seq a, tcp_seq b)
{
    return seq_lt(a, b) ? a : b;
}

/* a in [low, low+n) */
static inline bool seq_in(tcp_seq a, tcp_seq low, uint32_t n)
{
    return a.v - low.v < n;
}
