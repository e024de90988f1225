/* Devices and the switch between them. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define IPPROTO_TCP_NR 6
#define ICMP_UNREACH   3
#define ICMP_FRAG      4

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t router_mac[6] = {2, 0, 0, 0, 0, 0xfe};

void net_say_frame(struct sim *s, const struct host *h, const char *what, const uint8_t *frame,
                   size_t len, uint16_t gso_size)
{
    if (!s->verbose)
        return;
    struct wire_seg g;
    const char *wrong = wire_parse_tcp(frame, len, false, &g);
    if (wrong) {
        sim_say(s, h, "%s %zu bytes, type %04x (%s)", what, len, get_be16(frame + 12), wrong);
        return;
    }
    struct wire_opts o;
    wire_parse_opts(&g, &o);
    char sack[120] = "";
    for (unsigned i = 0, n = 0; i < o.nsack; i++)
        n += (unsigned)snprintf(sack + n, sizeof(sack) - n, " sack %u:%u", o.sack[i].start,
                                o.sack[i].end);
    sim_say(s, h, "%s %u.%u:%u > %u.%u:%u %s%s%s%s seq %u ack %u win %u len %u%s%s gso %u", what,
            g.src >> 8 & 255, g.src & 255, g.sport, g.dst >> 8 & 255, g.dst & 255, g.dport,
            g.flags & TCP_SYN ? "S" : "", g.flags & TCP_FIN ? "F" : "",
            g.flags & TCP_RST ? "R" : "", g.flags & TCP_ACK ? "A" : "", g.seq, g.ack, g.win, g.len,
            o.has_ts ? " ts" : "", sack, gso_size);
}

static bool is_ip(const uint8_t *frame)
{
    return get_be16(frame + 12) == 0x0800;
}

static bool link_down(const struct host *h, nsec_t now)
{
    return now >= h->down_from && now < h->down_to;
}

/* RFC 3168 5: a router that is congested marks what can be marked. */
static void mark(uint8_t *frame)
{
    uint8_t *ip = frame + L2_LEN;
    if ((ip[1] & 3) == 0 || (ip[1] & 3) == 3)
        return;
    ip[1] |= 3;
    put_be16(ip + 10, 0);
    put_be16(ip + 10, wire_csum(0, ip, IP4_LEN));
}

/* One copy of a frame on its way to one host. */
static void fly(struct host *from, struct host *to, const uint8_t *frame, uint32_t len,
                bool trusted, uint16_t gso_size, nsec_t at)
{
    struct sim *s = from->sim;
    struct event *e = event_new(s, EV_FRAME, at, to, len);
    memcpy(e->data, frame, len);
    e->csum_trusted = trusted;
    e->gso_size = gso_size;
    const struct impairment *im = &from->out;
    if (is_ip(frame) && (from->congested || prng_permille(&s->rng, im->mark)))
        mark(e->data);
    /* once for a datagram: two flips in two fragments may cancel out in TCP's checksum */
    const bool first = is_ip(frame) && (get_be16(frame + L2_LEN + 6) & 0x1fff) == 0;
    if (!trusted && first && prng_permille(&s->rng, im->corrupt)) {
        /* one bit: what the checksums are sure to find; Ethernet's own header is under its FCS */
        uint32_t bit = (uint32_t)prng_below(&s->rng, 8ull * (len - L2_LEN));
        e->data[L2_LEN + bit / 8] ^= (uint8_t)(1u << bit % 8);
        net_say_frame(s, from, "corrupted", e->data, len, 0);
    }
    event_push(s, e);
}

/* When a frame given to the link now arrives; NSEC_NEVER: the queue is full. */
static nsec_t travel(struct host *h, uint32_t len)
{
    struct sim *s = h->sim;
    const struct impairment *im = &h->out;
    nsec_t at = s->now;
    if (im->ns_per_byte) {
        if (h->line_free > at)
            at = h->line_free;
        if (at - s->now > im->queue_max)
            return NSEC_NEVER;
        h->congested = im->mark_above && at - s->now > im->mark_above;
        at += im->ns_per_byte * len;
        h->line_free = at;
    }
    at += im->delay + prng_below(&s->rng, im->jitter + 1);
    if (prng_permille(&s->rng, im->reorder))
        at += im->reorder_max ? prng_below(&s->rng, im->reorder_max)
                              : prng_range(&s->rng, 1, 20) * (im->delay / 4 + 50 * NSEC_PER_USEC);
    return at;
}

void net_reroute(struct host *h)
{
    struct sim *s = h->sim;
    struct impairment *im = &h->out;
    im->delay = prng_range(&s->rng, 20, 60000) * NSEC_PER_USEC;
    im->jitter = min_u64(im->jitter, im->delay);
    if (prng_one_in(&s->rng, 2))
        im->pmtu = (uint32_t)prng_range(&s->rng, 600, 1500);
    sim_say(s, h, "another path: %llu us, MTU %u", (unsigned long long)(im->delay / NSEC_PER_USEC),
            im->pmtu);
}

/* RFC 1191: the router that the frame does not fit through says so. */
static void frag_needed(struct host *h, const uint8_t *frame)
{
    struct sim *s = h->sim;
    const uint8_t *ip = frame + L2_LEN;
    uint8_t out[128];
    size_t len = wire_build_icmp(out, ip4(10, 0, 0, 254), h->ip, ICMP_UNREACH, ICMP_FRAG,
                                 h->out.pmtu, ip, IP4_LEN + 8, h->mac, router_mac);
    struct event *e = event_new(s, EV_FRAME, s->now + h->out.delay, h, (uint32_t)len);
    memcpy(e->data, out, len);
    event_push(s, e);
    net_say_frame(s, h, "frag-needed", frame, L2_LEN + IP4_LEN + 20, 0);
}

static void to_switch(struct host *h, const uint8_t *frame, uint32_t len, bool trusted,
                      uint16_t gso_size);

/* RFC 791: the router cuts what may be cut. */
static void cut_packet(struct host *h, const uint8_t *frame, uint32_t len)
{
    uint8_t f[2048];
    uint32_t step = (h->out.pmtu - IP4_LEN) & ~7u, text = len - L2_LEN - IP4_LEN;
    memcpy(f, frame, L2_LEN + IP4_LEN);
    for (uint32_t off = 0; off < text; off += step) {
        uint32_t n = min_u32(step, text - off);
        uint8_t *ip = f + L2_LEN;
        memcpy(ip + IP4_LEN, frame + L2_LEN + IP4_LEN + off, n);
        put_be16(ip + 2, (uint16_t)(IP4_LEN + n));
        put_be16(ip + 6, (uint16_t)(off / 8 | (off + n < text ? 0x2000 : 0)));
        put_be16(ip + 10, 0);
        put_be16(ip + 10, wire_csum(0, ip, IP4_LEN));
        to_switch(h, f, L2_LEN + IP4_LEN + n, false, 0);
    }
}

static void to_switch(struct host *h, const uint8_t *frame, uint32_t len, bool trusted,
                      uint16_t gso_size)
{
    struct sim *s = h->sim;
    const struct impairment *im = &h->out;
    if (++s->frames > s->frames_max)
        sim_fail(s, "%llu frames for %llu bytes: too many", (unsigned long long)s->frames,
                 (unsigned long long)s->bytes_total);
    bool ip = is_ip(frame);
    bool spared = !ip && s->mild; /* ARP gives up after three: no connection may die of that here */
    if (!spared && (link_down(h, s->now) || prng_permille(&s->rng, im->loss) ||
                    (im->loss_ppm && prng_below(&s->rng, 1000000) < im->loss_ppm))) {
        net_say_frame(s, h, "lost", frame, len, gso_size);
        return;
    }
    if (ip && im->pmtu && len - L2_LEN > im->pmtu) {
        if (!(frame[L2_LEN + 6] & 0x40))
            cut_packet(h, frame, len);
        else if (!im->silent)
            frag_needed(h, frame);
        return;
    }
    nsec_t at = travel(h, len);
    if (at == NSEC_NEVER && !spared)
        return;
    if (at == NSEC_NEVER)
        at = s->now + im->delay;
    for (unsigned i = 0; i < s->nhosts; i++) {
        struct host *to = &s->hosts[i];
        bool all = memcmp(frame, broadcast, 6) == 0;
        if (to == h || (!all && memcmp(frame, to->mac, 6) != 0))
            continue;
        fly(h, to, frame, len, trusted, gso_size, at);
        if (ip && prng_permille(&s->rng, im->dup))
            fly(h, to, frame, len, trusted, gso_size,
                at + prng_below(&s->rng, im->delay + im->jitter + 1));
    }
}

/* ---- the device of the sender ---- */

static struct host *host_by_mac(struct sim *s, const uint8_t *mac)
{
    for (unsigned i = 0; i < s->nhosts; i++)
        if (memcmp(s->hosts[i].mac, mac, 6) == 0)
            return &s->hosts[i];
    return NULL;
}

/* Cuts a large segment as a network card does. */
static void cut(struct host *h, uint8_t *frame, uint32_t len, uint16_t gso_size)
{
    static uint8_t seg[FRAME_MAX];
    uint8_t *ip = frame + L2_LEN, *t = ip + IP4_LEN;
    uint32_t headers = L2_LEN + IP4_LEN + (t[12] >> 4) * 4u;
    uint32_t text = len - headers, seq = get_be32(t + 4);
    uint16_t id = get_be16(ip + 4);
    for (uint32_t off = 0; off < text; off += gso_size) {
        uint32_t n = min_u32(gso_size, text - off);
        memcpy(seg, frame, headers);
        memcpy(seg + headers, frame + headers + off, n);
        uint8_t *sip = seg + L2_LEN, *st = sip + IP4_LEN;
        put_be16(sip + 2, (uint16_t)(headers - L2_LEN + n));
        put_be16(sip + 4, id++);
        put_be32(st + 4, seq + off);
        if (off + n < text)
            st[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        if (off)
            st[13] &= (uint8_t)~TCP_CWR;
        wire_fix_csums(seg, headers + n);
        to_switch(h, seg, headers + n, false, 0);
    }
}

static void check_frame(struct host *h, const struct frame_out *f, const uint8_t *frame,
                        uint32_t len)
{
    struct sim *s = h->sim;
    struct wire_seg g;
    if (!is_ip(frame) || len < L2_LEN + IP4_LEN || frame[L2_LEN + 9] != IPPROTO_TCP_NR)
        return;
    if (get_be16(frame + L2_LEN + 6) & 0x3fff) /* a fragment */
        return;
    const char *wrong = wire_parse_tcp(frame, len, !f->csum_partial, &g);
    struct wire_opts o;
    if (!wrong)
        wrong = wire_parse_opts(&g, &o);
    if (!wrong && f->csum_partial && !h->csum_offload)
        wrong = "partial checksum without offload";
    if (!wrong && f->gso_size && !h->gso)
        wrong = "GSO frame without GSO";
    if (!wrong && !f->gso_size && len > h->mtu + L2_LEN)
        wrong = "larger than the MTU";
    if (!wrong && f->gso_size && len - g.len + f->gso_size > h->mtu + L2_LEN)
        wrong = "segments larger than the MTU";
    if (!wrong && f->gso_size && g.flags & TCP_CWR)
        wrong = "CWR that the device's segments will not have";
    if (wrong)
        sim_fail(s, "host %u sent a malformed frame: %s", h->index, wrong);
}

int net_transmit(struct host *h, const struct frame_out *f)
{
    static uint8_t frame[FRAME_MAX];
    struct sim *s = h->sim;
    uint32_t len = f->head_end - f->head_start;
    memcpy(frame, f->head + f->head_start, len);
    for (unsigned i = 0; i < f->nslices; i++) {
        if (len + f->slices[i].len > FRAME_BYTES_MAX)
            sim_fail(s, "host %u sent a frame of more than 65535 bytes", h->index);
        memcpy(frame + len, f->slices[i].base, f->slices[i].len);
        len += (uint32_t)f->slices[i].len;
    }
    check_frame(h, f, frame, len);
    net_say_frame(s, h, "tx", frame, len, f->gso_size);
    const struct host *to = host_by_mac(s, frame);
    if (to && to->virtual_link && h->virtual_link && to->mtu >= h->mtu && !h->out.pmtu &&
        (f->csum_partial || f->gso_size)) {
        to_switch(h, frame, len, f->csum_partial, f->gso_size);
    } else if (f->gso_size) {
        cut(h, frame, len, f->gso_size);
    } else {
        if (f->csum_partial)
            wire_fix_csums(frame, len);
        to_switch(h, frame, len, false, 0);
    }
    return 0;
}

/* ---- the device of the receiver ---- */

void net_arrive(struct sim *s, struct event *e)
{
    struct host *h = e->host;
    if (link_down(h, s->now) && !(s->mild && !is_ip(e->data))) {
        free(e);
        return;
    }
    e->next = NULL;
    if (h->rx_tail)
        h->rx_tail->next = e;
    else
        h->rx_head = e;
    h->rx_tail = e;
    if (!h->rx_wait) {
        net_receive(h);
    } else if (!h->rx_scheduled) {
        h->rx_scheduled = true;
        event_push(s, event_new(s, EV_RX_BATCH, s->now + prng_below(&s->rng, h->rx_wait), h, 0));
    }
}

/* Whether b continues a: what GRO joins. */
static bool continues(const struct event *a, const struct event *b, const struct wire_seg *sa,
                      struct wire_seg *sb)
{
    if (b->gso_size || b->csum_trusted || wire_parse_tcp(b->data, b->len, true, sb))
        return false;
    return sa->src == sb->src && sa->dst == sb->dst && sa->sport == sb->sport &&
           sa->dport == sb->dport && sb->seq == sa->seq + sa->len && sb->ack == sa->ack &&
           sb->win == sa->win && sb->len > 0 && sa->tos == sb->tos && sa->ttl == sb->ttl &&
           ((sb->flags ^ sa->flags) & ~TCP_PSH) == 0 && sa->optlen == sb->optlen &&
           memcmp(sa->opts, sb->opts, sa->optlen) == 0 && a->len + sb->len <= FRAME_BYTES_MAX &&
           memcmp(a->data, b->data, L2_LEN) == 0;
}

/* Joins to the first frame of the queue what continues it. */
static struct event *coalesce(struct host *h, struct event *e)
{
    struct wire_seg first, next;
    if (e->gso_size || e->csum_trusted || !h->rx_head ||
        wire_parse_tcp(e->data, e->len, true, &first) ||
        first.flags & ~(TCP_ACK | TCP_PSH | TCP_ECE | TCP_AE) || first.len == 0)
        return e;
    uint16_t unit = (uint16_t)first.len;
    while (h->rx_head && continues(e, h->rx_head, &first, &next) && next.len <= unit &&
           first.len % unit == 0 && !(first.flags & TCP_PSH)) {
        struct event *b = h->rx_head;
        h->rx_head = b->next;
        struct event *j = event_new(h->sim, EV_FRAME, e->at, h, e->len + next.len);
        memcpy(j->data, e->data, e->len);
        memcpy(j->data + e->len, next.text, next.len);
        put_be16(j->data + L2_LEN + 2, (uint16_t)(j->len - L2_LEN));
        j->data[L2_LEN + IP4_LEN + 13] |= (uint8_t)next.flags;
        wire_fix_csums(j->data, j->len);
        j->csum_trusted = true;
        j->gso_size = unit;
        free(e);
        free(b);
        e = j;
        wire_parse_tcp(e->data, e->len, false, &first);
    }
    if (!h->rx_head)
        h->rx_tail = NULL;
    return e;
}

/*
 * As the packet socket's link does: text that is foreseen goes to the program that reads, or to its
 * place in the receive buffer, and the engine gets the headers alone.
 */
static void input(struct host *h, const struct event *e, const struct frame_in *in)
{
    struct sim *s = h->sim;
    struct stack_place place;
    if (!in->csum_trusted || e->len < FORESEEN_BYTES || !stack_foresee(&h->cx, in, &place) ||
        prng_below(&s->rng, 4) == 0) {
        stack_input(&h->cx, in);
        return;
    }
    struct app *a = tcp_owner(place.conn);
    place.direct = min_u32(app_reads(a), place.len);
    const uint8_t *text = e->data + place.head;
    struct slice to[TCP_PLACE_SLICES];
    const uint32_t rest = place.len - place.direct;
    const unsigned n = rest ? tcp_place_text(&h->cx, place.conn, place.direct, rest, to) : 0;
    if (rest && n == 0) {
        stack_input(&h->cx, in);
        return;
    }
    uint32_t at = place.direct;
    for (unsigned i = 0; i < n; at += (uint32_t)to[i++].len)
        memcpy(to[i].base, text + at, to[i].len);
    if (at != place.len)
        sim_fail(s, "host %u: room for %u of %u bytes", h->index, at, place.len);
    uint8_t head[FORESEEN_BYTES];
    memcpy(head, e->data, place.head);
    struct frame_in bare = *in;
    bare.data = head;
    bare.place = &place;
    stack_input(&h->cx, &bare);
    if (place.taken && place.direct > 0)
        app_took(a, text, place.direct);
}

void net_receive(struct host *h)
{
    struct sim *s = h->sim;
    h->rx_scheduled = false;
    while (h->rx_head) {
        struct event *e = h->rx_head;
        h->rx_head = e->next;
        if (!h->rx_head)
            h->rx_tail = NULL;
        if (h->coalesces)
            e = coalesce(h, e);
        const struct frame_in in = {.data = e->data,
                                    .len = e->len,
                                    .netif = h->netif,
                                    .csum_trusted = e->csum_trusted,
                                    .gso_size = e->gso_size};
        net_say_frame(s, h, "rx", e->data, e->len, e->gso_size);
        h->cx.now = host_clock(h);
        input(h, e, &in);
        free(e);
    }
}
