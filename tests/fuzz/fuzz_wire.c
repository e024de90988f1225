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

static void expect_same(const struct tcp_options *a, const struct tcp_options *b)
{
    expect(a->has_mss == b->has_mss && a->mss == b->mss);
    expect(a->has_wscale == b->has_wscale && a->wscale == b->wscale);
    expect(a->sack_permitted == b->sack_permitted);
    expect(a->has_ts == b->has_ts && a->ts_val == b->ts_val && a->ts_ecr == b->ts_ecr);
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

    uint8_t *out = malloc(TCP_HEADER_MAX);
    const uint32_t n = tcp_build(out, &seg);
    expect(n <= TCP_HEADER_MAX && n == 20 + tcp_options_size(&seg.opt));
    expect(tcp_parse(out, n, &again));
    expect(seq_eq(seg.seq, again.seq) && seq_eq(seg.ack, again.ack));
    expect(seg.src_port == again.src_port && seg.dst_port == again.dst_port);
    expect(seg.flags == again.flags && seg.wnd == again.wnd && seg.urg == again.urg);
    expect_same(&seg.opt, &again.opt);
    free(out);
    return 0;
}
