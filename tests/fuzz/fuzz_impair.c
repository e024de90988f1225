/*
 * libFuzzer target: rules of TCPSHIM_IMPAIR (the input up to a zero byte), and frames of which the
 * rest of it is made: taken apart, judged, cut, changed and held back as the link does.
 */
#include "shim/link/impair_store.h"
#include "tests/fuzz/world.h"

#include <stdlib.h>

static struct impair_rules rules;
static struct impair_state state;

static void pass_on(struct fuzz_input *in, nsec_t now)
{
    static uint8_t out[FRAME_BYTES_MAX + 64];
    const uint32_t how = fuzz_take(in, 1), l2 = how & 1 ? L2_LEN : 0;
    uint32_t len = fuzz_take(in, 2) % 1500;
    if (len > (size_t)(in->end - in->p))
        len = (uint32_t)(in->end - in->p);
    uint8_t *frame = malloc(len + 54); /* room for the RST that it may become */
    memcpy(frame, in->p, len);
    in->p += len;
    struct segment s;
    struct impair_verdict v;
    if (len && segment_parse(frame, len, how & 2 ? len + 1000 : len, l2, &s)) {
        const bool whole = s.end <= len;
        impair_decide(&rules, &state, how >> 2 & 1 ? IMPAIR_IN : IMPAIR_OUT, &s, s.end, now, &v);
        if (v.zero_window)
            segment_set_window(frame, &s, 0);
        if (whole) {
            segment_checksum(frame, &s);
            if (!segment_checksum_ok(frame, &s))
                abort();
            for (uint32_t at = 0; at < s.len; at += 500)
                (void)segment_cut(frame, &s, at, min_u32(500, s.len - at), out);
            if (v.corrupt && v.bit / 8 >= s.end - s.l4)
                abort();
        }
        impair_store_put(&state, v.due, IMPAIR_OUT, 1, frame, len);
        if (whole)
            segment_make_rst(frame, l2, &s, how & 8);
    }
    free(frame);
    enum impair_dir dir;
    uint8_t netif;
    while (impair_store_take(&state, now, &dir, &netif, out))
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const size_t text = zero ? (size_t)(zero - data) : size;
    char *copy = malloc(text + 1);
    memcpy(copy, data, text);
    copy[text] = 0;
    const char *wrong = impair_rules_parse(&rules, copy);
    free(copy);
    if (wrong && !*wrong)
        abort();
    if (rules.n > IMPAIR_RULES_MAX)
        abort();
    for (unsigned i = 0; i < rules.n; i++)
        if (!memchr(rules.rule[i].text, 0, sizeof(rules.rule[i].text)))
            abort();
    if (wrong || !zero)
        return 0;
    fuzz_start(false, false);
    memset(&state, 0, sizeof(state));
    impair_store_init(&state, stack_arena(F.cx.st));
    struct fuzz_input in = {zero + 1, data + size};
    nsec_t now = NSEC_PER_SEC;
    for (unsigned n = 0; in.p < in.end && n < 100; n++, now += NSEC_PER_MSEC * 30)
        pass_on(&in, now);
    return 0;
}
