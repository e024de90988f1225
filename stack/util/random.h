/* The engine's own random numbers, from a seed that the shim takes from the kernel and a test
 * fixes. */
#pragma once

#include "stack/util/siphash.h"

struct rng {
    struct siphash_key key;
    uint64_t counter;
};

/* seed: 16 bytes. */
void rng_init(struct rng *r, const uint8_t seed[16]);
uint64_t rng_u64(struct rng *r);
/* Uniform in [0, n), n > 0. */
uint32_t rng_below(struct rng *r, uint32_t n);
