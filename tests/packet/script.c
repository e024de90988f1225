/* The wire's side: what the host sends is checked and kept, what the peer sends is built from text.
 */
#include "tests/packet/spec.h"
#include "tests/packet/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAME_PROTO_TCP 6

static void bad_frame(const char *why, uint32_t n)
{
    if (!W.bad_frame[0])
        snprintf(W.bad_frame, sizeof(W.bad_frame), "%s (%u)", why, n);
}

/* ---- frames of the host ---- */

/* The text is the pattern of the stream, and the peer's idea of the host moves on. */
static void note_segment(const struct wire_seg *s)
{
    struct peer *f = world_flow_find(s->sport, s->dport);
    if (!f)
        return;
    if ((s->flags & TCP_SYN) && (!f->have_iss || f->iss != s->seq)) {
        f->have_iss = true;
        f->iss = s->seq;
        f->h_nxt = 0;
    }
    if (s->flags & TCP_RST)
        return;
    uint32_t rel = s->seq - f->iss;
    uint32_t n = s->len + !!(s->flags & TCP_SYN) + !!(s->flags & TCP_FIN);
    if ((int32_t)(rel + n - f->h_nxt) > 0)
        f->h_nxt = rel + n;
    struct wire_opts o;
    wire_parse_opts(s, &o);
    if (o.has_ts)
        f->host_ts = o.ts_val;
    const uint32_t text = rel - 1 + !!(s->flags & TCP_SYN);
    if (!f->other_text)
        for (uint32_t i = 0; i < s->len; i++)
            if (s->text[i] != pattern(text + i)) {
                bad_frame("text differs from what was sent, at offset", text + i);
                return;
            }
}

static void check_tcp(const struct frame_out *f, const uint8_t *bytes, uint32_t len)
{
    struct wire_seg s;
    struct wire_opts o;
    const char *wrong = wire_parse_tcp(bytes, len, !f->csum_partial, &s);
    if (!wrong)
        wrong = wire_parse_opts(&s, &o);
    if (wrong) {
        bad_frame(wrong, len);
        return;
    }
    if (f->csum_partial) {
        if (!W.opts.csum_offload)
            bad_frame("partial checksum to a link that cannot complete it", len);
        uint32_t sum = wire_pseudo(s.src, s.dst, FRAME_PROTO_TCP, 20 + s.optlen + s.len);
        uint16_t folded = (uint16_t)~wire_csum(sum, NULL, 0);
        if (get_be16(bytes + L2_LEN + IP4_LEN + 16) != folded)
            bad_frame("partial checksum is not the pseudo header's", len);
        if (f->csum_offset != 16)
            bad_frame("csum_offset", f->csum_offset);
    }
    if (f->gso_size) {
        if (!W.opts.gso)
            bad_frame("GSO frame to a link without GSO", len);
        if (s.len <= f->gso_size)
            bad_frame("GSO frame of one segment", s.len);
        if (s.flags & (TCP_SYN | TCP_RST | TCP_URG | TCP_CWR))
            bad_frame("GSO frame with flags that must not be repeated", s.flags);
    }
    note_segment(&s);
}

int world_capture(const struct frame_out *f)
{
    uint32_t len = f->head_end - f->head_start;
    uint8_t *bytes = malloc(FRAME_MAX);
    memcpy(bytes, f->head + f->head_start, len);
    uint32_t text = 0;
    for (unsigned i = 0; i < f->nslices; i++) {
        if (len + f->slices[i].len > FRAME_BYTES_MAX) {
            bad_frame("frame larger than FRAME_BYTES_MAX", len);
            break;
        }
        memcpy(bytes + len, f->slices[i].base, f->slices[i].len);
        len += (uint32_t)f->slices[i].len;
        text += (uint32_t)f->slices[i].len;
    }
    uint8_t *fitting = realloc(bytes, len);
    if (fitting)
        bytes = fitting;
    if (text != f->payload_len)
        bad_frame("payload_len is not the slices' sum", f->payload_len);
    uint32_t mtu = W.opts.mtu ? W.opts.mtu : 1500;
    uint32_t largest = f->gso_size ? len - f->payload_len + f->gso_size : len;
    if (largest > mtu + L2_LEN)
        bad_frame("larger than the MTU", largest);
    if (memcmp(bytes + 6, host_mac, 6) != 0)
        bad_frame("source MAC is not ours", 0);
    bool is_ip = get_be16(bytes + 12) == 0x0800;
    if (is_ip && memcmp(bytes, peer_mac, 6) != 0)
        bad_frame("destination MAC is not the peer's", 0);
    world_log_frame(true, bytes, len, f->gso_size);
    if (!is_ip && !W.opts.no_neighbour) {
        /* the peer answers ARP by itself, between the lines of the test */
        W.arp_asked |=
            get_be16(bytes + L2_LEN + 6) == 1 && get_be32(bytes + L2_LEN + 24) == PEER_IP;
        free(bytes);
        return 0;
    }
    if (is_ip && bytes[L2_LEN + 9] == FRAME_PROTO_TCP)
        check_tcp(f, bytes, len);
    if (W.tx_tail - W.tx_head == TX_MAX) {
        bad_frame("the host floods: frames not taken off", TX_MAX);
        free(bytes);
        return 0;
    }
    W.tx[W.tx_tail++ % TX_MAX] = (struct sent_frame){W.now, bytes, len, f->gso_size};
    return 0;
}

unsigned pending_tx(void)
{
    return W.tx_tail - W.tx_head;
}

unsigned drain_tx(void)
{
    unsigned n = pending_tx();
    while (W.tx_head != W.tx_tail)
        free(W.tx[W.tx_head++ % TX_MAX].bytes);
    return n;
}

const uint8_t *next_tx(uint32_t *len)
{
    free(W.last_tx);
    W.last_tx = NULL;
    if (W.tx_head == W.tx_tail)
        return NULL;
    struct sent_frame *f = &W.tx[W.tx_head++ % TX_MAX];
    W.last_tx = f->bytes;
    *len = f->len;
    return f->bytes;
}

uint32_t drain_text(void)
{
    uint32_t n = 0, len;
    const uint8_t *p;
    while ((p = next_tx(&len)) != NULL) {
        struct wire_seg s;
        if (!wire_parse_tcp(p, len, false, &s))
            n += s.len;
    }
    return n;
}

/* ---- expectations ---- */

static const struct spec_opt *find_opt(const struct spec *sp, enum spec_opt_kind kind)
{
    for (unsigned i = 0; i < sp->nopts; i++)
        if (sp->opts[i].kind == kind)
            return &sp->opts[i];
    return NULL;
}

static bool sack_fits(const struct spec_opt *w, const struct wire_opts *o, uint32_t base)
{
    for (unsigned i = 0; i + 1 < w->n; i += 2) {
        if (i / 2 >= o->nsack || !spec_num_fits(&w->v[i], o->sack[i / 2].start - base) ||
            !spec_num_fits(&w->v[i + 1], o->sack[i / 2].end - base))
            return false;
    }
    return w->n == 0 || w->n / 2 == o->nsack;
}

/* With numbers: these counters and no more. */
static bool accecn_fits(const struct spec_opt *w, const struct wire_opts *o)
{
    for (unsigned i = 0; i < w->n; i++)
        if (i >= o->naccecn || !spec_num_fits(&w->v[i], o->accecn[i]))
            return false;
    return w->n == 0 || w->n == o->naccecn;
}

static const char *opts_differ(const struct spec *sp, const struct wire_seg *s,
                               const struct peer *f)
{
    struct wire_opts o;
    wire_parse_opts(s, &o);
    if (find_opt(sp, OPT_NONE))
        return s->optlen ? "options" : NULL;
    const struct {
        enum spec_opt_kind kind;
        bool present;
        uint32_t a, b;
        const char *name;
    } rows[] = {
        {OPT_MSS, o.has_mss, o.mss, 0, "mss"},   {OPT_WSCALE, o.has_wscale, o.wscale, 0, "wscale"},
        {OPT_SACKOK, o.sack_ok, 0, 0, "sackOK"}, {OPT_TS, o.has_ts, o.ts_val, o.ts_ecr, "ts"},
        {OPT_SACK, o.nsack > 0, 0, 0, "sack"},   {OPT_ACCECN, o.has_accecn, 0, 0, "accecn"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct spec_opt *w = find_opt(sp, rows[i].kind);
        if (!w)
            continue;
        if (rows[i].present == w->absent)
            return rows[i].name;
        if (w->absent)
            continue;
        if (w->kind == OPT_ACCECN) {
            if (!accecn_fits(w, &o))
                return rows[i].name;
            continue;
        }
        if (w->kind == OPT_SACK ? !sack_fits(w, &o, f->irs)
                                : (w->n > 0 && !spec_num_fits(&w->v[0], rows[i].a)) ||
                                      (w->n > 1 && !spec_num_fits(&w->v[1], rows[i].b)))
            return rows[i].name;
    }
    return NULL;
}

/* NULL, or the name of the first field that differs. */
static const char *differs(const struct spec *sp, const struct wire_seg *s, uint16_t gso_size)
{
    const struct peer *f = W.cur;
    if (s->src != HOST_IP || s->dst != PEER_IP)
        return "addresses";
    if (s->sport != f->hport || s->dport != f->pport)
        return "ports";
    uint16_t got = s->flags;
    if (!sp->psh_named)
        got &= (uint16_t)~TCP_PSH;
    if (got != sp->flags)
        return "flags";
    if (!spec_num_fits(&sp->seq, s->seq - f->iss))
        return "seq";
    if (!spec_num_fits(&sp->ack, s->ack - (s->flags & TCP_ACK ? f->irs : 0)))
        return "ack";
    if (!spec_num_fits(&sp->win, s->win))
        return "win";
    if (!spec_num_fits(&sp->len, s->len))
        return "len";
    if (!spec_num_fits(&sp->urg, s->urg))
        return "urg";
    if (!spec_num_fits(&sp->gso, gso_size))
        return "gso";
    if (!spec_num_fits(&sp->tos, s->tos))
        return "tos";
    return opts_differ(sp, s, f);
}

void h_expect_tx(const char *file, int line, nsec_t from, nsec_t to, const char *text)
{
    struct spec sp;
    const char *wrong = spec_parse(text, &sp);
    if (wrong)
        h_fail(file, line, "\"%s\": %s", text, wrong);
    nsec_t asked = W.now;
    if (to && W.tx_head == W.tx_tail)
        world_run_to(W.now + to, true);
    if (W.tx_head == W.tx_tail)
        h_fail(file, line, "nothing was sent, want \"%s\"", text);
    struct sent_frame *fr = &W.tx[W.tx_head % TX_MAX];
    if (fr->at < asked + from && from)
        h_fail(file, line, "\"%s\" was sent after %.3f ms, want %.3f at least", text,
               ((double)fr->at - (double)asked) / 1e6, (double)from / 1e6);
    struct wire_seg s;
    wrong = wire_parse_tcp(fr->bytes, fr->len, false, &s);
    if (!wrong)
        wrong = differs(&sp, &s, fr->gso_size);
    if (wrong)
        h_fail(file, line, "want \"%s\": %s differs", text, wrong);
    uint32_t len;
    next_tx(&len);
}

void h_expect_none(const char *file, int line, nsec_t dt)
{
    if (W.tx_head == W.tx_tail && dt)
        world_run_to(W.now + dt, true);
    if (W.tx_head != W.tx_tail)
        h_fail(file, line, "a frame was sent, want silence");
}

/* ---- segments of the peer ---- */

static unsigned put_option(uint8_t *p, const struct spec_opt *w, struct peer *f)
{
    switch (w->kind) {
    case OPT_MSS:
        p[0] = 2, p[1] = 4;
        put_be16(p + 2, (uint16_t)w->v[0].v);
        return 4;
    case OPT_WSCALE:
        p[0] = 3, p[1] = 3, p[2] = (uint8_t)w->v[0].v;
        return 3;
    case OPT_SACKOK:
        p[0] = 4, p[1] = 2;
        return 2;
    case OPT_TS:
        p[0] = 8, p[1] = 10;
        put_be32(p + 2, w->n > 0 ? w->v[0].v : 1000 + (uint32_t)(t_now() / NSEC_PER_MSEC));
        put_be32(p + 6, w->n > 1 ? w->v[1].v : f->host_ts);
        return 10;
    case OPT_SACK:
        p[0] = 5, p[1] = (uint8_t)(2 + 4 * w->n);
        for (unsigned i = 0; i < w->n; i++)
            put_be32(p + 2 + 4 * i, f->iss + w->v[i].v);
        return p[1];
    case OPT_NOP:
        p[0] = 1;
        return 1;
    case OPT_EOL:
        p[0] = 0;
        return 1;
    case OPT_HEX:
        memcpy(p, w->hex, w->n);
        return w->n;
    case OPT_ACCECN:
        p[0] = 174, p[1] = (uint8_t)(2 + 3 * w->n);
        for (unsigned i = 0; i < w->n; i++) {
            p[2 + 3 * i] = (uint8_t)(w->v[i].v >> 16);
            put_be16(p + 3 + 3 * i, (uint16_t)w->v[i].v);
        }
        return p[1];
    case OPT_NONE:
        break;
    }
    return 0;
}

static void put_options(struct wire_seg *s, const struct spec *sp, struct peer *f)
{
    uint8_t room[320]; /* more than any header holds: too many options are the test's mistake */
    unsigned n = 0;
    for (unsigned i = 0; i < sp->nopts; i++)
        n += put_option(room + n, &sp->opts[i], f);
    if (!sp->has_opts && f->sends_ts && !(sp->flags & TCP_RST))
        n += put_option(room, &(struct spec_opt){.kind = OPT_TS}, f);
    while (n % 4)
        room[n++] = 1;
    if (n > sizeof(s->opts))
        fail("more than 40 bytes of options");
    memcpy(s->opts, room, n);
    s->optlen = n;
}

size_t build_frame(const char *text, uint8_t *out)
{
    struct spec sp;
    const char *wrong = spec_parse(text, &sp);
    if (wrong)
        fail("\"%s\": %s", text, wrong);
    static uint8_t body[FRAME_MAX];
    struct peer *f = W.cur;
    uint32_t rel = sp.seq.cmp == SPEC_ABSENT ? f->p_nxt : sp.seq.v;
    uint32_t ack = sp.ack.cmp == SPEC_ABSENT ? f->h_nxt : sp.ack.v;
    struct wire_seg s = {
        .src = PEER_IP,
        .dst = HOST_IP,
        .sport = f->pport,
        .dport = f->hport,
        .seq = f->irs + rel,
        .ack = sp.flags & TCP_ACK || sp.ack.cmp ? f->iss + ack : 0,
        .flags = sp.flags,
        .win = sp.win.cmp == SPEC_ABSENT ? 65535 : (uint16_t)sp.win.v,
        .urg = (uint16_t)sp.urg.v,
        .tos = (uint8_t)sp.tos.v,
        .text = body,
        .len = sp.len.v,
    };
    put_options(&s, &sp, f);
    for (uint32_t i = 0; i < s.len; i++)
        body[i] = pattern(rel - 1 + !!(s.flags & TCP_SYN) + i);
    uint32_t end = rel + s.len + !!(s.flags & TCP_SYN) + !!(s.flags & TCP_FIN);
    if ((int32_t)(end - f->p_nxt) > 0)
        f->p_nxt = end;
    return wire_build_tcp(out, &s, host_mac, peer_mac);
}

static void input(const uint8_t *frame, size_t len, bool trusted, uint16_t gso_size)
{
    /* a copy of exact size: the sanitizer sees each read past the end */
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, frame, len);
    struct frame_in in = {.data = copy,
                          .len = (uint32_t)len,
                          .netif = W.netif,
                          .csum_trusted = trusted,
                          .gso_size = gso_size};
    world_log_frame(false, copy, len, gso_size);
    W.cx.now = W.now;
    stack_input(&W.cx, &in);
    free(copy);
    world_after_step();
}

void world_answer_arp(void)
{
    uint8_t reply[64];
    W.arp_asked = false;
    size_t len = wire_build_arp(reply, 2, peer_mac, PEER_IP, host_mac, HOST_IP, host_mac);
    input(reply, len, false, 0);
}

void inject_raw(const uint8_t *frame, size_t len)
{
    input(frame, len, false, 0);
}

void inject_trusted(const uint8_t *frame, size_t len, uint16_t gso_size)
{
    input(frame, len, true, gso_size);
}

void h_inject(const char *file, int line, const char *text)
{
    static uint8_t frame[FRAME_MAX];
    struct spec sp;
    if (spec_parse(text, &sp))
        h_fail(file, line, "\"%s\": malformed", text);
    size_t len = build_frame(text, frame);
    if (sp.gso.cmp != SPEC_ABSENT)
        input(frame, len, true, (uint16_t)sp.gso.v);
    else
        input(frame, len, false, 0);
}

void inject_icmp(uint32_t from, uint8_t type, uint8_t code, uint32_t rest, uint32_t rel_seq)
{
    uint8_t quoted[FRAME_MAX], frame[FRAME_MAX];
    struct wire_seg s = {
        .src = HOST_IP,
        .dst = PEER_IP,
        .sport = W.cur->hport,
        .dport = W.cur->pport,
        .seq = W.cur->iss + rel_seq,
        .flags = TCP_ACK,
    };
    wire_build_tcp(quoted, &s, peer_mac, host_mac);
    size_t len = wire_build_icmp(frame, from, HOST_IP, type, code, rest, quoted + L2_LEN,
                                 IP4_LEN + 8, host_mac, peer_mac);
    inject_raw(frame, len);
}
