/* The TCP header between wire and struct: see wire.h. */
#include "stack/tcp/wire.h"

#define HEADER_MIN 20u

enum option_kind {
    OPT_EOL = 0,
    OPT_NOP = 1,
    OPT_MSS = 2,            /* RFC 9293 3.7.1 */
    OPT_WSCALE = 3,         /* RFC 7323 2.2 */
    OPT_SACK_PERMITTED = 4, /* RFC 2018 2 */
    OPT_SACK = 5,           /* RFC 2018 3 */
    OPT_TS = 8,             /* RFC 7323 3.2 */
    OPT_FAST_OPEN = 34,     /* RFC 7413 4.1.1 */
    OPT_EXPERIMENT = 254,   /* RFC 6994 */
};

enum option_len {
    LEN_MSS = 4,
    LEN_WSCALE = 3,
    LEN_SACK_PERMITTED = 2,
    LEN_SACK_BASE = 2,
    LEN_SACK_BLOCK = 8,
    LEN_TS = 10,
    LEN_FAST_OPEN_BASE = 2,
    LEN_FAST_OPEN_EXP_BASE = 4,
};

/* RFC 7413 appendix A.2: what Fast Open was before it had a number. */
#define FAST_OPEN_EXPERIMENT 0xf989u

/* What nearly every segment after the handshake carries: NOP NOP TS (RFC 7323 appendix A). */
#define ALIGNED_TS_SIZE 12u
#define ALIGNED_TS_WORD ((uint32_t)OPT_NOP << 24 | (uint32_t)OPT_NOP << 16 | OPT_TS << 8 | LEN_TS)

static void parse_sack(const uint8_t *body, unsigned len, struct tcp_options *opt)
{
    if (len == 0 || len % LEN_SACK_BLOCK != 0)
        return;
    unsigned n = len / LEN_SACK_BLOCK;
    if (n > TCP_SACK_BLOCKS_MAX)
        n = TCP_SACK_BLOCKS_MAX;
    opt->sack_count = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        opt->sack[i].start = seq(get_be32(body + i * LEN_SACK_BLOCK));
        opt->sack[i].end = seq(get_be32(body + i * LEN_SACK_BLOCK + 4));
    }
}

/* RFC 7413 4.1.1: a length that no cookie has says nothing, as in Linux. */
static void parse_fast_open(const uint8_t *cookie, unsigned len, bool exp, struct tcp_options *opt)
{
    if (len & 1 || len > TCP_COOKIE_MAX || (len && len < TCP_COOKIE_MIN))
        return;
    opt->fast_open = true;
    opt->fast_open_exp = exp;
    opt->cookie_len = (uint8_t)len;
    opt->cookie = cookie;
}

/*
 * One option of a known kind, p at its kind byte, len its whole length. An option whose length is
 * not that of its kind is skipped, as one of an unknown kind is. MSS, window scale and
 * SACK-permitted mean something in a SYN only (RFC 9293 3.7.1, 7323 2.2, 2018 2).
 */
static void parse_option(const uint8_t *p, unsigned len, bool syn, struct tcp_options *opt)
{
    switch (p[0]) {
    case OPT_MSS:
        /* Linux ignores an MSS of zero. */
        if (syn && len == LEN_MSS && get_be16(p + 2) != 0) {
            opt->has_mss = true;
            opt->mss = get_be16(p + 2);
        }
        break;
    case OPT_WSCALE:
        if (syn && len == LEN_WSCALE) {
            opt->has_wscale = true;
            /* RFC 7323 2.3: more than 14 is taken for 14. */
            opt->wscale = p[2] > TCP_WSCALE_MAX ? TCP_WSCALE_MAX : p[2];
        }
        break;
    case OPT_SACK_PERMITTED:
        if (syn && len == LEN_SACK_PERMITTED)
            opt->sack_permitted = true;
        break;
    case OPT_SACK:
        parse_sack(p + LEN_SACK_BASE, len - LEN_SACK_BASE, opt);
        break;
    case OPT_TS:
        if (len == LEN_TS) {
            opt->has_ts = true;
            opt->ts_val = get_be32(p + 2);
            opt->ts_ecr = get_be32(p + 6);
        }
        break;
    case OPT_FAST_OPEN:
        if (syn)
            parse_fast_open(p + LEN_FAST_OPEN_BASE, len - LEN_FAST_OPEN_BASE, false, opt);
        break;
    case OPT_EXPERIMENT:
        if (syn && len >= LEN_FAST_OPEN_EXP_BASE && get_be16(p + 2) == FAST_OPEN_EXPERIMENT)
            parse_fast_open(p + LEN_FAST_OPEN_EXP_BASE, len - LEN_FAST_OPEN_EXP_BASE, true, opt);
        break;
    case TCP_ACCECN_0:
    case TCP_ACCECN_1:
        opt->accecn = p;
        break;
    default:
        break;
    }
}

static void parse_options(const uint8_t *p, unsigned len, bool syn, struct tcp_options *opt)
{
    if (likely(len == ALIGNED_TS_SIZE && get_be32(p) == ALIGNED_TS_WORD)) {
        opt->has_ts = true;
        opt->ts_val = get_be32(p + 4);
        opt->ts_ecr = get_be32(p + 8);
        return;
    }
    while (len > 0) {
        if (p[0] == OPT_EOL)
            return;
        if (p[0] == OPT_NOP) {
            p++;
            len--;
            continue;
        }
        if (len < 2 || p[1] < 2 || p[1] > len)
            return;
        const unsigned step = p[1];
        parse_option(p, step, syn, opt);
        p += step;
        len -= step;
    }
}

bool tcp_parse(const uint8_t *p, uint32_t len, struct tcp_segment *seg)
{
    if (len < HEADER_MIN)
        return false;
    const uint32_t header = (uint32_t)(p[12] >> 4) * 4;
    if (header < HEADER_MIN || header > len)
        return false;
    memset(&seg->opt, 0, sizeof(seg->opt));
    seg->src_port = get_be16(p);
    seg->dst_port = get_be16(p + 2);
    seg->seq = seq(get_be32(p + 4));
    seg->ack = seq(get_be32(p + 8));
    seg->flags = p[13];
    seg->ae = p[12] & 1;
    seg->wnd = get_be16(p + 14);
    seg->urg = get_be16(p + 18);
    seg->text = p + header;
    seg->len = len - header;
    parse_options(p + HEADER_MIN, header - HEADER_MIN, (p[13] & TCP_SYN) != 0, &seg->opt);
    return true;
}

static unsigned fast_open_base(const struct tcp_options *opt)
{
    return opt->fast_open_exp ? LEN_FAST_OPEN_EXP_BASE : LEN_FAST_OPEN_BASE;
}

/* Bytes of all options but SACK, padding included. Never more than 40. */
static uint32_t fixed_options_size(const struct tcp_options *opt)
{
    uint32_t n = 0;
    if (opt->has_mss)
        n += LEN_MSS;
    /* SACK-permitted takes the place of the two NOPs in front of a timestamp. */
    if (opt->has_ts)
        n += ALIGNED_TS_SIZE;
    else if (opt->sack_permitted)
        n += 4;
    if (opt->has_wscale)
        n += 4;
    if (opt->accecn != NULL)
        n += tcp_accecn_size(opt->accecn[1], opt->sack_count > 0);
    if (opt->fast_open)
        n += (fast_open_base(opt) + opt->cookie_len + 3u) & ~3u;
    return n;
}

/* How many of the SACK blocks fit behind the other options. */
static unsigned sack_blocks(const struct tcp_options *opt)
{
    if (opt->sack_count == 0)
        return 0;
    const uint32_t room = TCP_OPTIONS_MAX - fixed_options_size(opt) - 4;
    return min_u32(min_u32(opt->sack_count, TCP_SACK_BLOCKS_MAX), room / LEN_SACK_BLOCK);
}

uint32_t tcp_options_size(const struct tcp_options *opt)
{
    const unsigned blocks = sack_blocks(opt);
    return fixed_options_size(opt) + (blocks == 0 ? 0 : 4 + blocks * LEN_SACK_BLOCK);
}

/* Four bytes at p; returns what follows. */
static uint8_t *put4(uint8_t *p, unsigned a, unsigned b, unsigned c, unsigned d)
{
    put_be32(p, (uint32_t)a << 24 | (uint32_t)b << 16 | (uint32_t)c << 8 | d);
    return p + 4;
}

/* The option, padded. What SACK has room for goes to tail, which is what it is padded with. */
static uint8_t *put_accecn(uint8_t *p, const uint8_t *option, bool sack, uint8_t tail[2])
{
    const uint32_t size = tcp_accecn_size(option[1], sack);
    const uint32_t here = min_u32(option[1], size);
    memset(p, OPT_NOP, size);
    memcpy(p, option, here);
    memcpy(tail, option + here, option[1] - here);
    return p + size;
}

/* In Linux's order and with its padding, so that each option lies aligned. */
static uint8_t *build_options(uint8_t *p, const struct tcp_options *opt)
{
    uint8_t tail[2] = {OPT_NOP, OPT_NOP};
    if (opt->has_mss)
        p = put4(p, OPT_MSS, LEN_MSS, opt->mss >> 8, opt->mss & 0xff);
    if (opt->has_ts) {
        p = opt->sack_permitted ? put4(p, OPT_SACK_PERMITTED, LEN_SACK_PERMITTED, OPT_TS, LEN_TS)
                                : put4(p, OPT_NOP, OPT_NOP, OPT_TS, LEN_TS);
        put_be32(p, opt->ts_val);
        put_be32(p + 4, opt->ts_ecr);
        p += 8;
    }
    if (unlikely(opt->accecn != NULL))
        p = put_accecn(p, opt->accecn, opt->sack_count > 0, tail);
    if (opt->sack_permitted && !opt->has_ts)
        p = put4(p, OPT_NOP, OPT_NOP, OPT_SACK_PERMITTED, LEN_SACK_PERMITTED);
    if (opt->has_wscale)
        p = put4(p, OPT_NOP, OPT_WSCALE, LEN_WSCALE, min_u32(opt->wscale, TCP_WSCALE_MAX));
    if (unlikely(opt->fast_open)) {
        const unsigned base = fast_open_base(opt);
        uint8_t *end = p + ((base + opt->cookie_len + 3u) & ~3u);
        p[0] = opt->fast_open_exp ? OPT_EXPERIMENT : OPT_FAST_OPEN;
        p[1] = (uint8_t)(base + opt->cookie_len);
        if (opt->fast_open_exp)
            put_be16(p + 2, FAST_OPEN_EXPERIMENT);
        p += base;
        if (opt->cookie_len)
            memcpy(p, opt->cookie, opt->cookie_len);
        for (p += opt->cookie_len; p < end; p++)
            *p = OPT_NOP;
    }
    const unsigned blocks = sack_blocks(opt);
    if (blocks > 0) {
        p = put4(p, tail[0], tail[1], OPT_SACK, LEN_SACK_BASE + blocks * LEN_SACK_BLOCK);
        for (unsigned i = 0; i < blocks; i++) {
            put_be32(p, opt->sack[i].start.v);
            put_be32(p + 4, opt->sack[i].end.v);
            p += LEN_SACK_BLOCK;
        }
    }
    return p;
}

uint32_t tcp_build(uint8_t *p, const struct tcp_segment *seg)
{
    const uint32_t header = (uint32_t)(build_options(p + HEADER_MIN, &seg->opt) - p);
    put_be16(p, seg->src_port);
    put_be16(p + 2, seg->dst_port);
    put_be32(p + 4, seg->seq.v);
    put_be32(p + 8, seg->ack.v);
    p[12] = (uint8_t)(header / 4 << 4 | seg->ae);
    p[13] = seg->flags;
    put_be16(p + 14, seg->wnd);
    put_be16(p + 16, 0);
    put_be16(p + 18, seg->urg);
    return header;
}
