/* Numbers that a stranger must not guess: see isn.h. */
#include "stack/tcp/isn.h"

#include "stack/util/siphash.h"

/* The tuple without the padding behind it. */
#define TUPLE_BYTES (offsetof(struct flow_tuple, rport) + sizeof(uint16_t))
_Static_assert(TUPLE_BYTES == 36, "the tuple is hashed as one run of bytes");

/*
 * RFC 6528's clock of 4 us keeps ahead of 2 Mbit/s. As Linux's this one keeps ahead of 125: who
 * connects again from a port that it bound, 100 us later, is a new connection to a peer that has
 * the last one in TIME_WAIT. It comes round after 275 s, more than the 2 MSL of any segment.
 */
#define ISN_TICK 64 /* ns */

tcp_seq isn_generate(const struct siphash_key *secret, const struct flow_tuple *t, nsec_t now)
{
    const uint32_t m = (uint32_t)(now / ISN_TICK);
    return seq(m + (uint32_t)siphash24(secret, t, TUPLE_BYTES));
}

uint32_t ts_offset(const struct siphash_key *secret, const struct flow_tuple *t)
{
    return (uint32_t)siphash24(secret, t, TUPLE_BYTES);
}

uint32_t port_offset(const struct siphash_key *secret, const struct flow_tuple *t, uint32_t range)
{
    /* RFC 6056 3.3.3: F(local address, remote address, remote port); the local port is yet to be.
     */
    struct flow_tuple key = *t;
    key.lport = 0;
    const uint32_t hash = (uint32_t)siphash24(secret, &key, TUPLE_BYTES);
    return (uint32_t)((uint64_t)hash * range >> 32);
}

/*
 * SYN cookies (RFC 4987 3.6, after Bernstein and Linux):
 *
 *     cookie = A + count * 2^24 + (B(count) + mss class) mod 2^24
 *
 * A is a hash of the tuple and the peer's ISN, B of these and the period. Of the 2^32 values at
 * most sixteen are good at any moment.
 */
#define COOKIE_PERIOD  (64 * NSEC_PER_SEC)
#define COOKIE_PERIODS 2 /* the current one and the one before */
#define COOKIE_LOW     0xffffffu

/* Common segment sizes; three bits. A SYN without the option means 536 (RFC 9293 3.7.1). */
static const uint16_t cookie_mss[8] = {536, 1220, 1300, 1440, 1452, 1460, 4312, 8960};

/* phase 0: A, without the period; phase 1: B. */
static uint32_t cookie_hash(const struct siphash_key *secret, const struct flow_tuple *t,
                            tcp_seq irs, uint32_t count, uint32_t phase)
{
    struct {
        uint8_t tuple[TUPLE_BYTES];
        uint32_t irs, count, phase;
    } input;
    _Static_assert(sizeof(input) == TUPLE_BYTES + 12, "no padding is hashed");
    memcpy(input.tuple, t, TUPLE_BYTES);
    input.irs = irs.v;
    input.count = count;
    input.phase = phase;
    return (uint32_t)siphash24(secret, &input, sizeof(input));
}

tcp_seq cookie_make(const struct siphash_key *secret, const struct flow_tuple *t, tcp_seq irs,
                    uint16_t mss, nsec_t now)
{
    const uint32_t count = (uint32_t)(now / COOKIE_PERIOD);
    uint32_t index = ARRAY_LEN(cookie_mss) - 1;
    while (index > 0 && cookie_mss[index] > mss)
        index--;
    const uint32_t low = (cookie_hash(secret, t, irs, count, 1) + index) & COOKIE_LOW;
    return seq(cookie_hash(secret, t, irs, 0, 0) + (count << 24) + low);
}

uint16_t cookie_check(const struct siphash_key *secret, const struct flow_tuple *t, tcp_seq irs,
                      tcp_seq cookie, nsec_t now)
{
    const uint32_t v = cookie.v - cookie_hash(secret, t, irs, 0, 0);
    const uint32_t now_count = (uint32_t)(now / COOKIE_PERIOD);
    const uint32_t age = (now_count - (v >> 24)) & 0xff;
    if (age >= COOKIE_PERIODS)
        return 0;
    const uint32_t index = (v - cookie_hash(secret, t, irs, now_count - age, 1)) & COOKIE_LOW;
    return index < ARRAY_LEN(cookie_mss) ? cookie_mss[index] : 0;
}

#define TS_BITS       0x3fu
#define TS_WSCALE     0x0fu
#define TS_SACK       0x10u
#define TS_RESERVED   0x20u
#define TS_NO_WSCALE  0x0fu
#define TS_WSCALE_MAX 14u

uint32_t cookie_ts_encode(uint32_t ts_val, bool wscale_ok, uint8_t wscale, bool sack)
{
    const uint32_t low =
        (wscale_ok ? min_u32(wscale, TS_WSCALE_MAX) : TS_NO_WSCALE) | (sack ? TS_SACK : 0);
    const uint32_t coded = (ts_val & ~TS_BITS) | low;
    /* The timestamp clock may not run ahead: the next segment would look old (PAWS). */
    return low > (ts_val & TS_BITS) ? coded - (TS_BITS + 1) : coded;
}

bool cookie_ts_decode(uint32_t ts_ecr, bool *wscale_ok, uint8_t *wscale, bool *sack)
{
    if ((ts_ecr & TS_RESERVED) != 0)
        return false;
    const uint32_t scale = ts_ecr & TS_WSCALE;
    *wscale_ok = scale != TS_NO_WSCALE;
    *wscale = *wscale_ok ? (uint8_t)scale : 0;
    *sack = (ts_ecr & TS_SACK) != 0;
    return true;
}
