/* SipHash (Aumasson, Bernstein 2012): keyed, so that a peer cannot steer buckets or guess ISNs. */
#pragma once

#include "stack/base.h"

struct siphash_key {
    uint64_t k0, k1;
};

/* The key that 16 bytes are: two little-endian words. */
struct siphash_key siphash_key_of(const uint8_t bytes[16]);
/* SipHash-2-4 of len bytes: for initial sequence numbers, cookies and port offsets. */
uint64_t siphash24(const struct siphash_key *key, const void *data, size_t len);
/* SipHash-1-3: for hash tables. */
uint64_t siphash13(const struct siphash_key *key, const void *data, size_t len);
