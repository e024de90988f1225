#include "tests/unit/suites.h"

#include "stack/util/siphash.h"

/* Key 00 01 .. 0f, input 00 01 .. of length n: the first and some later vectors of the reference
 * code. */
START_TEST(reference_vectors)
{
    const struct siphash_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    uint8_t in[64];
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    static const struct {
        unsigned len;
        uint64_t sum;
    } vectors[] = {
        {0, 0x726fdb47dd0e0e31u},  {1, 0x74f839c593dc67fdu},  {2, 0x0d6c8009d9a94f5au},
        {3, 0x85676696d7fb7e2du},  {4, 0xcf2794e0277187b7u},  {5, 0x18765564cd99a68du},
        {6, 0xcbc9466e58fee3ceu},  {7, 0xab0200f58b01d137u},  {8, 0x93f5f5799a932462u},
        {9, 0x9e0082df0ba9e4b0u},  {10, 0x7a5dbbc594ddb9f3u}, {11, 0xf4b32f46226bada7u},
        {12, 0x751e8fbc860ee5fbu}, {13, 0x14ea5627c0843d90u}, {14, 0xf723ca908e7af2eeu},
        {15, 0xa129ca6149be45e5u}, {63, 0x958a324ceb064572u},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        ck_assert_uint_eq(siphash24(&key, in, vectors[i].len), vectors[i].sum);
}
END_TEST

/* The reference algorithm with c = 1, d = 3, computed apart. */
START_TEST(siphash13_vectors)
{
    const struct siphash_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    uint8_t in[64];
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    ck_assert_uint_eq(siphash13(&key, in, 0), 0xabac0158050fc4dcu);
    ck_assert_uint_eq(siphash13(&key, in, 1), 0xc9f49bf37d57ca93u);
    ck_assert_uint_eq(siphash13(&key, in, 8), 0x369095118d299a8eu);
    ck_assert_uint_eq(siphash13(&key, in, 15), 0xd320d86d2a519956u);
    ck_assert_uint_eq(siphash13(&key, in, 63), 0x9d199062b7bbb3a8u);
}
END_TEST

START_TEST(keys_and_inputs_differ)
{
    const struct siphash_key a = {1, 2}, b = {1, 3};
    const char in[] = "abcdefgh";
    ck_assert_uint_ne(siphash13(&a, in, 8), siphash13(&b, in, 8));
    ck_assert_uint_ne(siphash13(&a, in, 8), siphash13(&a, in, 7));
    ck_assert_uint_ne(siphash13(&a, in, 8), siphash24(&a, in, 8));
}
END_TEST

Suite *suite_siphash(void)
{
    Suite *s = suite_create("siphash");
    TCase *t = tcase_create("all");
    tcase_add_test(t, reference_vectors);
    tcase_add_test(t, siphash13_vectors);
    tcase_add_test(t, keys_and_inputs_differ);
    suite_add_tcase(s, t);
    return s;
}
