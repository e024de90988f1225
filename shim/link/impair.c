/*
 * TCPSHIM_IMPAIR: a link over the real one that drops, delays, repeats, reorders and damages
 * segments by rule and by chance (impair_rules.h), as a bad network would. ARP and ICMP pass
 * untouched. Each segment is judged by itself, so frames that hold several are cut here: into what
 * a card would have sent, or had received.
 *
 * What is held back lies in the arena (impair_store.h), and the time of the next is part of
 * engine_deadline(): whoever drives wakes for it. A segment that is damaged carries its whole
 * checksum, made before the damage: no device on the way repairs it, and the receiver finds it
 * wrong.
 */
#include "shim/core/shared.h"
#include "shim/link/impair_store.h"
#include "shim/link/link.h"
#include "shim/link/segment.h"
#include "stack/tcp/flow.h"

#define ETH_HEADER_BYTES 14u
/* Let go in one call; then frames that arrive have their turn. */
#define RELEASE_MAX 256

/* One segment of the real size, in one piece, as it travels. */
struct parcel {
    enum impair_dir dir;
    uint8_t netif;
    uint8_t *frame;
    uint32_t len, l2;
    struct segment s;
};

static struct impairment {
    struct link link;
    struct impair_state *state;
} impairment;

/* Frames on their way out and in: the one may cause the other. */
static uint8_t whole[IMPAIR_DIRS][FRAME_BYTES_MAX + 1], piece[IMPAIR_DIRS][FRAME_BYTES_MAX + 1];
/* What was held: letting it in may send. */
static uint8_t released[FRAME_BYTES_MAX + 1];

static uint32_t l2_header(const struct stack_cx *cx, uint8_t netif)
{
    const struct netif *nif = stack_netif(cx->st, netif);
    return nif && nif->kind == NETIF_ETHERNET ? ETH_HEADER_BYTES : 0;
}

/* ---- going on ---- */

static void send_on(struct stack_cx *cx, uint8_t netif, const uint8_t *frame, uint32_t len)
{
    struct link *lower = impairment.link.lower;
    const uint32_t l2 = l2_header(cx, netif);
    struct frame_out f = {.netif = netif, .l4_proto = 6};
    struct segment s;
    if (!segment_parse(frame, len, len, l2, &s))
        return;
    f.l4 = (uint16_t)min_u32(s.l4, sizeof(f.head));
    f.head_end = (uint16_t)min_u32(s.text, sizeof(f.head));
    memcpy(f.head, frame, f.head_end);
    f.payload_len = len - f.head_end;
    f.slices[0] = (struct slice){(void *)(uintptr_t)(frame + f.head_end), f.payload_len};
    f.nslices = f.payload_len > 0;
    (void)lower->ops->transmit(lower, cx, &f);
}

static void go_on(struct stack_cx *cx, enum impair_dir dir, uint8_t netif, const uint8_t *frame,
                  uint32_t len)
{
    const struct frame_in in = {.data = frame, .len = len, .netif = netif};
    if (dir == IMPAIR_OUT)
        send_on(cx, netif, frame, len);
    else
        link_input(&impairment.link, cx, &in);
}

/* ---- what is done ---- */

/* Says what was done to a segment, and by which rule. */
static void tell(struct stack_cx *cx, const struct parcel *p, const char *what,
                 const struct impair_rule *rule)
{
    if (likely(!(cx->trace & TRACE_LINK)))
        return;
    const struct segment *s = &p->s;
    const bool out = p->dir == IMPAIR_OUT;
    struct flow unknown = {.tuple = {.local = out ? s->src : s->dst,
                                     .remote = out ? s->dst : s->src,
                                     .lport = out ? s->sport : s->dport,
                                     .rport = out ? s->dport : s->sport}};
    const struct flow *flow = tcp_flow_find(cx->st, &unknown.tuple);
    TRACE(cx, LINK, flow ? flow : &unknown, IMPAIRED, (uint64_t)(uintptr_t)what,
          (uint64_t)(uintptr_t)(out ? "out" : "in"), s->flags, s->seq, s->len,
          (uint64_t)(uintptr_t)rule->text);
}

static const struct impair_rule no_room = {.text = "too much is held back"};

/* Now or when it is due. */
static void pass(struct stack_cx *cx, const struct parcel *p, nsec_t due)
{
    if (due <= cx->now)
        go_on(cx, p->dir, p->netif, p->frame, p->len);
    else if (!impair_store_put(impairment.state, due, p->dir, p->netif, p->frame, p->len))
        tell(cx, p, "drop", &no_room);
}

/* Both ends of the connection get a RST, as from a box in between that gave it up. */
static void reset_both(struct stack_cx *cx, struct parcel *p)
{
    static uint8_t back[256];
    struct segment s = p->s;
    if (s.text <= sizeof(back)) {
        memcpy(back, p->frame, s.text);
        const uint32_t len = segment_make_rst(back, p->l2, &s, true);
        pass(cx,
             &(struct parcel){.dir = p->dir == IMPAIR_OUT ? IMPAIR_IN : IMPAIR_OUT,
                              .netif = p->netif,
                              .frame = back,
                              .len = len},
             p->dir == IMPAIR_OUT ? cx->now + 1
                                  : cx->now); /* the stack is not entered from below */
    }
    p->len = segment_make_rst(p->frame, p->l2, &p->s, false);
    pass(cx, p, cx->now);
}

static void treat(struct stack_cx *cx, struct parcel *p)
{
    struct impair_verdict v;
    impair_decide(&impair_rules, impairment.state, p->dir, &p->s, p->len, cx->now, &v);
    if (v.drop) {
        tell(cx, p, "drop", v.drop);
        return;
    }
    if (v.reset) {
        tell(cx, p, "rst", v.reset);
        reset_both(cx, p);
        return;
    }
    if (v.zero_window) {
        tell(cx, p, "zero-window", v.zero_window);
        segment_set_window(p->frame, &p->s, 0);
    }
    if (v.corrupt) {
        tell(cx, p, "corrupt", v.corrupt);
        p->frame[p->s.l4 + v.bit / 8] ^= (uint8_t)(1u << v.bit % 8);
    }
    if (v.delay)
        tell(cx, p, "delay", v.delay);
    if (v.reorder)
        tell(cx, p, "reorder", v.reorder);
    pass(cx, p, v.due);
    if (v.dup) {
        tell(cx, p, "dup", v.dup);
        pass(cx, p, v.due);
    }
}

/* Cuts what holds several segments. The checksum is right, or as it was where it must be verified.
 */
static void cut_and_treat(struct stack_cx *cx, struct parcel *p, uint32_t gso_size)
{
    if (gso_size == 0 || p->s.len <= gso_size) {
        p->len = p->s.end; /* padding is the wire's */
        treat(cx, p);
        return;
    }
    const struct parcel all = *p;
    for (uint32_t at = 0; at < all.s.len; at += gso_size) {
        struct parcel one = all;
        one.frame = piece[all.dir];
        one.len = segment_cut(all.frame, &all.s, at, gso_size, one.frame);
        if (segment_parse(one.frame, one.len, one.len, all.l2, &one.s))
            treat(cx, &one);
    }
}

/* ---- the link ---- */

static int impair_transmit(struct link *l, struct stack_cx *cx, const struct frame_out *f)
{
    uint8_t *to = whole[IMPAIR_OUT];
    const uint32_t head = (uint32_t)(f->head_end - f->head_start), all = head + f->payload_len;
    struct parcel p = {.dir = IMPAIR_OUT, .netif = f->netif, .frame = to, .len = all};
    p.l2 = l2_header(cx, f->netif);
    if (all > FRAME_BYTES_MAX || !segment_parse(f->head + f->head_start, head, all, p.l2, &p.s))
        return l->lower->ops->transmit(l->lower, cx, f);
    memcpy(to, f->head + f->head_start, head);
    uint32_t at = head;
    for (unsigned i = 0; i < f->nslices; at += (uint32_t)f->slices[i++].len)
        memcpy(to + at, f->slices[i].base, f->slices[i].len);
    if (f->csum_partial)
        segment_checksum(to, &p.s);
    cut_and_treat(cx, &p, f->gso_size);
    return 0;
}

static void impair_input(struct link *l, struct stack_cx *cx, const struct frame_in *f)
{
    struct parcel p = {.dir = IMPAIR_IN, .netif = f->netif, .frame = whole[IMPAIR_IN]};
    p.l2 = l2_header(cx, f->netif);
    if (!segment_parse(f->data, f->len, f->len, p.l2, &p.s) || p.s.end > FRAME_BYTES_MAX) {
        link_input(l, cx, f);
        return;
    }
    memcpy(p.frame, f->data, p.s.end);
    if (f->csum_trusted)
        segment_checksum(p.frame, &p.s);
    cut_and_treat(cx, &p, f->gso_size);
}

static unsigned impair_receive(struct link *l, struct stack_cx *cx, unsigned max,
                               const struct drain *d)
{
    return l->lower->ops->receive(l->lower, cx, max, d);
}

static nsec_t impair_deadline(const struct link *l)
{
    (void)l;
    return impair_store_due(impairment.state);
}

static void impair_release(struct link *l, struct stack_cx *cx)
{
    enum impair_dir dir;
    uint8_t netif;
    uint32_t len;
    (void)l;
    for (unsigned i = 0; i < RELEASE_MAX; i++) {
        len = impair_store_take(impairment.state, cx->now, &dir, &netif, released);
        if (len == 0)
            break;
        go_on(cx, dir, netif, released, len);
    }
}

static const struct link_ops impair_ops = {
    .name = "impair",
    .transmit = impair_transmit,
    .receive = impair_receive,
    .input = impair_input,
    .deadline = impair_deadline,
    .release = impair_release,
};

struct link *link_impair(struct stack *st, struct link *lower)
{
    if (impair_rules.n == 0)
        return NULL;
    struct shared *sh = stack_extra(st);
    impairment.link = (struct link){.ops = &impair_ops, .fd = lower->fd, .lower = lower};
    impairment.state = &sh->impair;
    lower->upper = &impairment.link;
    return &impairment.link;
}

void link_wrap(struct stack *st, const struct config *cfg, int capture, struct link **l)
{
    struct link *over = link_impair(st, *l);
    if (over)
        *l = over;
    over = link_capture(st, cfg, capture, *l);
    if (over)
        *l = over;
}
