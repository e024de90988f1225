/*
 * libFuzzer target for the TCP header parser: whatever comes in, parsing stays inside the bytes,
 * what it says is in bounds, and what is built from it says the same again.
 *
 *   clang -std=gnu17 -I. -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_wire.c \
 *       stack/tcp/wire.c -o build/fuzz_wire && build/fuzz_wire -max_len=128 -max_total_time=60
 */
#include "stack/stack.h"
#include "stack/tcp/wire.h"

#include <stdlib.h>

static void expect(bool ok)
{
    if (!ok)
        abort();
}

/* What a sender may say of it: whole counters, which fit; no SACK blocks beside what a SYN says. */
static void own_accecn(struct tcp_options *o, uint8_t own[TCP_ACCECN_MAX])
{
    const uint8_t *theirs = o->accecn;
    if (theirs == NULL)
        return;
    o->accecn = NULL;
    const uint32_t counters = min_u32((theirs[1] - 2u) / 3, 3);
    own[0] = theirs[0];
    own[1] = (uint8_t)(2 + counters * 3);
    memcpy(own + 2, theirs + 2, (size_t)counters * 3);
    const bool syn = o->has_mss || o->has_wscale || o->sack_permitted || o->fast_open;
    const bool sack = o->sack_count > 0;
    if (!(syn && sack) && tcp_options_size(o) + tcp_accecn_size(own[1], sack) <= TCP_OPTIONS_MAX)
        o->accecn = own;
}

static void expect_same(const struct tcp_options *a, const struct tcp_options *b)
{
    expect(a->has_mss == b->has_mss && a->mss == b->mss);
    expect(a->has_wscale == b->has_wscale && a->wscale == b->wscale);
    expect(a->sack_permitted == b->sack_permitted);
    expect(a->has_ts == b->has_ts && a->ts_val == b->ts_val && a->ts_ecr == b->ts_ecr);
    expect((a->accecn == NULL) == (b->accecn == NULL));
    expect(a->accecn == NULL || memcmp(a->accecn, b->accecn, a->accecn[1]) == 0);
    /* fewer SACK blocks may fit behind the padding of the others */
    expect(b->sack_count <= a->sack_count);
    for (unsigned i = 0; i < b->sack_count; i++)
        expect(seq_eq(a->sack[i].start, b->sack[i].start) &&
               seq_eq(a->sack[i].end, b->sack[i].end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tcp_segment seg, again;
    if (!tcp_parse(data, (uint32_t)size, &seg))
        return 0;
    expect(seg.text >= data + 20 && seg.text + seg.len == data + size);
    expect(seg.opt.sack_count <= TCP_SACK_BLOCKS_MAX && seg.opt.wscale <= TCP_WSCALE_MAX);

    uint8_t accecn[TCP_ACCECN_MAX], *out = malloc(TCP_HEADER_MAX);
    own_accecn(&seg.opt, accecn);
    const uint32_t n = tcp_build(out, &seg);
    expect(n <= TCP_HEADER_MAX && n == 20 + tcp_options_size(&seg.opt));
    expect(tcp_parse(out, n, &again));
    expect(seq_eq(seg.seq, again.seq) && seq_eq(seg.ack, again.ack));
    expect(seg.src_port == again.src_port && seg.dst_port == again.dst_port);
    expect(seg.flags == again.flags && seg.ae == again.ae && seg.wnd == again.wnd &&
           seg.urg == again.urg);
    expect_same(&seg.opt, &again.opt);
    free(out);
    return 0;
}
