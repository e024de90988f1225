#include "stack/util/siphash.h"

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip_state *s)
{
    s->v0 += s->v1;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v2 = rotl(s->v2, 32);
}

static inline uint64_t get_le64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t get_le32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

struct siphash_key siphash_key_of(const uint8_t bytes[16])
{
    return (struct siphash_key){get_le64(bytes), get_le64(bytes + 8)};
}

/* c rounds for each word, d at the end. */
static inline __attribute__((always_inline)) uint64_t
sip(const struct siphash_key *key, const void *data, size_t len, unsigned c, unsigned d)
{
    struct sip_state s = {
        .v0 = key->k0 ^ 0x736f6d6570736575u,
        .v1 = key->k1 ^ 0x646f72616e646f6du,
        .v2 = key->k0 ^ 0x6c7967656e657261u,
        .v3 = key->k1 ^ 0x7465646279746573u,
    };
    const uint8_t *p = data;
    for (size_t left = len; left >= 8; left -= 8, p += 8) {
        const uint64_t m = get_le64(p);
        s.v3 ^= m;
        for (unsigned i = 0; i < c; i++)
            sip_round(&s);
        s.v0 ^= m;
    }
    /* the rest, with the length in the highest byte */
    uint64_t last = (uint64_t)len << 56;
    unsigned i = 0;
    if (len & 4) {
        last |= get_le32(p);
        i = 4;
    }
    for (; i < (len & 7); i++)
        last |= (uint64_t)p[i] << (8 * i);
    s.v3 ^= last;
    for (unsigned i = 0; i < c; i++)
        sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    for (unsigned i = 0; i < d; i++)
        sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t siphash24(const struct siphash_key *key, const void *data, size_t len)
{
    return sip(key, data, len, 2, 4);
}

uint64_t siphash13(const struct siphash_key *key, const void *data, size_t len)
{
    return sip(key, data, len, 1, 3);
}
