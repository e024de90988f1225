#include "stack/util/random.h"

void rng_init(struct rng *r, const uint8_t seed[16])
{
    memcpy(&r->key.k0, seed, 8);
    memcpy(&r->key.k1, seed + 8, 8);
    r->counter = 0;
}

/* SipHash in counter mode. */
uint64_t rng_u64(struct rng *r)
{
    const uint64_t n = r->counter++;
    return siphash24(&r->key, &n, sizeof(n));
}

uint32_t rng_below(struct rng *r, uint32_t n)
{
    /* Lemire 2019: multiply, and reject the few values that would make some results likelier. */
    uint64_t m = (uint64_t)(uint32_t)rng_u64(r) * n;
    if ((uint32_t)m < n) {
        const uint32_t threshold = -n % n;
        while ((uint32_t)m < threshold)
            m = (uint64_t)(uint32_t)rng_u64(r) * n;
    }
    return (uint32_t)(m >> 32);
}
