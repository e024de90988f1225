/* Connections out of events (flow.h). */
#define _GNU_SOURCE
#include "shim/command/view/flow.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS 4096
/* Clocks of two captures may differ by so much. */
#define CLOCK_SLACK 2000000
/* A capture may show segments in another order; what comes so late was sent again. */
#define OVERTAKEN_WITHIN 3000000
#define GAPS_MAX         32

/* Newest flow of each 4-tuple, and listeners. */
struct builder {
    struct flow_list *flows;
    struct entry {
        struct flow *flow;
        const char *a, *b;
        struct entry *next;
    } * table[SLOTS];
    struct event **listening;
    size_t nlistening, listening_room;
    const struct event *accepted; /* the last one that left an accept queue */
};

int flow_sender(const struct flow_event *i)
{
    return i->e->kind == EV_RX ? !i->side : i->side;
}

bool flow_pure_ack(const struct event *e)
{
    return e->len == 0 && !(e->flags & (FLAG_SYN | FLAG_FIN | FLAG_RST)) && e->flags & FLAG_ACK;
}

uint32_t segment_space(const struct event *e)
{
    return e->len + (e->flags & FLAG_SYN ? 1 : 0) + (e->flags & FLAG_FIN ? 1 : 0);
}

uint32_t flow_seq(const struct flow *f, const struct flow_event *i)
{
    return i->e->seq - f->side[flow_sender(i)].isn;
}

uint32_t flow_ack(const struct flow *f, const struct flow_event *i)
{
    return i->e->ack - f->side[!flow_sender(i)].isn;
}

static struct entry *lookup(struct builder *b, const char *x, const char *y)
{
    const char *lo = x < y ? x : y, *hi = x < y ? y : x;
    size_t slot = ((uintptr_t)lo * 31 + (uintptr_t)hi) / 16 % SLOTS;
    for (struct entry *e = b->table[slot]; e; e = e->next)
        if (e->a == lo && e->b == hi)
            return e;
    struct entry *e = must_alloc(NULL, sizeof(*e));
    *e = (struct entry){.a = lo, .b = hi, .next = b->table[slot]};
    b->table[slot] = e;
    return e;
}

static struct flow *flow_new(struct builder *b, const struct event *e)
{
    struct flow_list *l = b->flows;
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 64;
        l->items = must_alloc(l->items, l->room * sizeof(struct flow *));
    }
    struct flow *f = must_alloc(NULL, sizeof(*f));
    *f = (struct flow){.number = (unsigned)l->n + 1, .begin = e->t, .zero = TIME_NONE};
    f->side[0].addr = e->local;
    f->side[1].addr = e->peer;
    l->items[l->n++] = f;
    return f;
}

/* Whether an event begins another connection of a 4-tuple that was used before. */
static bool begins_anew(const struct flow *f, const struct event *e, int side)
{
    if (e->kind == EV_STATE && e->to && strcmp(e->to, "SYN_SENT") == 0)
        return f->side[side].traced;
    if (!event_is_segment(e) || (e->flags & (FLAG_SYN | FLAG_ACK)) != FLAG_SYN)
        return false;
    const struct flow_side *sender = &f->side[e->kind == EV_RX ? !side : side];
    return sender->syn_seen && sender->isn != e->seq;
}

static void learn_numbers(struct flow *f, const struct event *e, int sender)
{
    struct flow_side *s = &f->side[sender], *o = &f->side[!sender];
    if (e->flags & FLAG_SYN) {
        if (!s->syn_seen)
            s->syn = e->opt;
        s->syn_seen = s->has_isn = true;
        s->isn = e->seq;
    } else if (!s->has_isn && !(e->flags & FLAG_RST)) {
        s->has_isn = true;
        s->isn = e->seq - 1;
    }
    if (!o->has_isn && e->flags & FLAG_ACK) {
        o->has_isn = true;
        o->isn = e->ack - 1;
    }
}

static void append(struct flow *f, struct event *e, int side)
{
    if (f->n == f->room) {
        f->room = f->room ? f->room * 2 : 64;
        f->items = must_alloc(f->items, f->room * sizeof(*f->items));
    }
    f->items[f->n++] = (struct flow_event){.e = e, .side = (uint8_t)side, .match = NO_MATCH};
    if (!e->wire)
        f->side[side].traced = true;
    if (f->side[side].pid == 0)
        f->side[side].pid = e->pid;
    if (e->t > f->end)
        f->end = e->t;
    if (event_is_segment(e)) {
        learn_numbers(f, e, e->kind == EV_RX ? !side : side);
        if (f->zero == TIME_NONE)
            f->zero = e->t;
    }
}

static void remember_listener(struct builder *b, struct event *e)
{
    if (b->nlistening == b->listening_room) {
        b->listening_room = b->listening_room ? b->listening_room * 2 : 16;
        b->listening = must_alloc(b->listening, b->listening_room * sizeof(struct event *));
    }
    b->listening[b->nlistening++] = e;
}

static bool is_call(const struct event *e, const char *name)
{
    return e->kind == EV_CALL && e->call && strcmp(e->call, name) == 0;
}

/* An address with its port chosen. */
static bool complete(const char *addr)
{
    size_t n = addr ? strlen(addr) : 0;
    return n > 2 && addr[n - 1] != '*' && strcmp(addr + n - 2, ":0") != 0;
}

static void place(struct builder *b, struct event *e)
{
    const char *local = e->local, *peer = e->peer;
    if (!peer && b->accepted && b->accepted->pid == e->pid && e->result >= 0 &&
        (is_call(e, "accept") || is_call(e, "accept4"))) {
        local = b->accepted->local;
        peer = b->accepted->peer;
        b->accepted = NULL;
    }
    if (!complete(local) || !complete(peer)) {
        if ((e->kind == EV_STATE && e->to && strcmp(e->to, "LISTEN") == 0) || is_call(e, "listen"))
            remember_listener(b, e);
        return;
    }
    if (e->kind == EV_ACCEPTED)
        b->accepted = e;
    struct entry *at = lookup(b, local, peer);
    int side = at->flow && at->flow->side[1].addr == local;
    if (!at->flow || begins_anew(at->flow, e, side)) {
        struct event seen = *e;
        seen.local = local;
        seen.peer = peer;
        at->flow = flow_new(b, &seen);
        side = 0;
    }
    append(at->flow, e, side);
}

/* ---- when all events are placed ---- */

static uint16_t port_of(const char *addr)
{
    const char *colon = strrchr(addr, ':');
    return colon ? (uint16_t)atoi(colon + 1) : 0;
}

/* The client is who sent a SYN without ACK, or was in SYN_SENT; else who has the higher port. */
static void find_client(struct flow *f)
{
    int client = -1;
    for (size_t i = 0; i < f->n && client < 0; i++) {
        const struct event *e = f->items[i].e;
        if (event_is_segment(e) && (e->flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN)
            client = flow_sender(&f->items[i]);
        else if (event_is_segment(e) && (e->flags & FLAG_SYN))
            client = !flow_sender(&f->items[i]);
        else if (e->kind == EV_STATE && e->to && strcmp(e->to, "SYN_SENT") == 0)
            client = f->items[i].side;
    }
    if (client < 0)
        client = port_of(f->side[0].addr) < port_of(f->side[1].addr);
    if (client == 0)
        return;
    struct flow_side s = f->side[0];
    f->side[0] = f->side[1];
    f->side[1] = s;
    for (size_t i = 0; i < f->n; i++)
        f->items[i].side = !f->items[i].side;
}

/* The windows of a capture are as on the wire. */
static void scale_windows(struct flow *f)
{
    bool scaled = f->side[0].syn.has_wscale && f->side[1].syn.has_wscale;
    for (size_t i = 0; i < f->n; i++) {
        struct event *e = f->items[i].e;
        if (scaled && e->raw_wnd && !(e->flags & FLAG_SYN))
            e->wnd <<= f->side[flow_sender(&f->items[i])].syn.wscale & 15;
        e->raw_wnd = false;
    }
}

/* A listener's address takes connections for `addr`. */
static bool listens_for(const char *listener, const char *addr)
{
    if (port_of(listener) != port_of(addr))
        return false;
    return listener == addr || strncmp(listener, "0.0.0.0:", 8) == 0 || *listener == '*' ||
           strncmp(listener, "[::]:", 5) == 0;
}

/* What made the listener of a connection goes before it. */
static void add_listener(struct builder *b, struct flow *f)
{
    const struct flow_side *s = &f->side[SERVER];
    if (!s->traced)
        return;
    struct event *found[2] = {NULL, NULL}; /* the state, the call */
    for (size_t i = 0; i < b->nlistening; i++) {
        struct event *e = b->listening[i];
        bool fits = e->local ? listens_for(e->local, s->addr)
                             : found[0] && e->pid == found[0]->pid && e->source == found[0]->source;
        if (fits && e->t <= f->begin)
            found[e->kind == EV_CALL] = e;
    }
    for (int i = 1; i >= 0; i--) {
        if (!found[i])
            continue;
        append(f, found[i], SERVER);
        struct flow_event last = f->items[f->n - 1];
        memmove(f->items + 1, f->items, (f->n - 1) * sizeof(last));
        f->items[0] = last;
    }
}

/* What is sent again later has another timestamp. */
static bool same_clock(const struct event *x, const struct event *y)
{
    return !x->opt.has_ts || !y->opt.has_ts || x->opt.tsval == y->opt.tsval;
}

static bool same_segment(const struct event *x, const struct event *y)
{
    return x->seq == y->seq && x->len == y->len && x->flags == y->flags && x->ack == y->ack &&
           x->wnd == y->wnd && same_clock(x, y);
}

/* Bytes that two segments have in common. */
static uint32_t overlap(const struct event *x, const struct event *y)
{
    uint32_t base = x->seq - (1U << 30);
    uint32_t xb = x->seq - base, xe = xb + x->len, yb = y->seq - base, ye = yb + y->len;
    uint32_t begin = xb > yb ? xb : yb, end = xe < ye ? xe : ye;
    return end > begin ? end - begin : 0;
}

/* Segments of one sender that are under way. */
struct pending {
    size_t *at;
    uint32_t *covered;
    size_t n, room;
};

static void pending_add(struct pending *p, size_t index)
{
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 64;
        p->at = must_alloc(p->at, p->room * sizeof(*p->at));
        p->covered = must_alloc(p->covered, p->room * sizeof(*p->covered));
    }
    p->at[p->n] = index;
    p->covered[p->n++] = 0;
}

static void pending_remove(struct pending *p, size_t i)
{
    memmove(p->at + i, p->at + i + 1, (p->n - i - 1) * sizeof(*p->at));
    memmove(p->covered + i, p->covered + i + 1, (p->n - i - 1) * sizeof(*p->covered));
    p->n--;
}

static void arrive(struct flow *f, struct pending *p, size_t rx)
{
    const struct event *e = f->items[rx].e;
    for (size_t i = 0; i < p->n; i++) {
        struct flow_event *tx = &f->items[p->at[i]];
        if (p->covered[i] > 0 || !same_segment(tx->e, e))
            continue;
        tx->match = rx;
        f->items[rx].match = p->at[i];
        pending_remove(p, i);
        return;
    }
    /* cut or joined on the way (offloads): by the bytes, each from one sending */
    uint32_t rest = e->len;
    for (size_t i = 0; rest > 0 && i < p->n;) {
        struct flow_event *tx = &f->items[p->at[i]];
        bool other = tx->match != NO_MATCH && !p->covered[i];
        uint32_t common = other || !same_clock(tx->e, e) ? 0 : overlap(tx->e, e);
        if (common == 0) {
            i++;
            continue;
        }
        rest -= common < rest ? common : rest;
        p->covered[i] += common;
        if (tx->match == NO_MATCH)
            tx->match = rx;
        if (f->items[rx].match == NO_MATCH)
            f->items[rx].match = p->at[i];
        if (p->covered[i] >= tx->e->len)
            pending_remove(p, i);
        else
            i++;
    }
}

/* Arrivals may carry an earlier time than their sending where clocks differ: sendings go first. */
static void match_segments(struct flow *f)
{
    bool both = f->side[0].traced && f->side[1].traced;
    struct pending under_way[2] = {{0}};
    int64_t last[2] = {INT64_MIN, INT64_MIN};
    size_t sent = 0;
    for (size_t i = 0; both && i < f->n; i++) {
        struct flow_event *x = &f->items[i];
        if (x->e->kind == EV_RX) {
            for (; sent < f->n && f->items[sent].e->t <= x->e->t + CLOCK_SLACK; sent++)
                if (f->items[sent].e->kind == EV_TX && !f->items[sent].e->wire)
                    pending_add(&under_way[f->items[sent].side], sent);
            arrive(f, &under_way[!x->side], i);
            last[x->side] = x->e->t;
        } else if (last[x->side] < x->e->t && !event_is_segment(x->e)) {
            last[x->side] = x->e->t;
        }
    }
    for (size_t i = 0; both && i < f->n; i++) {
        struct flow_event *x = &f->items[i];
        if (x->e->kind != EV_TX || x->e->wire || x->match != NO_MATCH)
            continue;
        x->lost = x->e->t < last[!x->side];
        x->unseen = !x->lost;
    }
    for (int i = 0; i < 2; i++) {
        free(under_way[i].at);
        free(under_way[i].covered);
    }
}

/* Numbers that were passed over, and when. */
struct gaps {
    struct gap {
        uint32_t begin, end;
        int64_t t;
    } items[GAPS_MAX];
    unsigned n;
};

/* Whether a segment below others is one that they overtook just now, and so none that is sent
 * again. */
static bool was_overtaken(const struct gaps *g, uint32_t begin, uint32_t end, int64_t t)
{
    for (unsigned i = 0; i < g->n && i < GAPS_MAX; i++)
        if (begin >= g->items[i].begin && end <= g->items[i].end &&
            t - g->items[i].t < OVERTAKEN_WITHIN)
            return true;
    return false;
}

static void count_segments(struct flow *f)
{
    uint32_t top[2] = {0, 0};
    struct gaps gaps[2] = {{.n = 0}, {.n = 0}};
    for (size_t i = 0; i < f->n; i++) {
        struct flow_event *x = &f->items[i];
        /* what a side sent is counted where it was sent, or where it arrived if only that was
         * watched */
        if (!event_is_segment(x->e) || (x->e->kind == EV_RX && f->side[!x->side].traced))
            continue;
        int s = flow_sender(x);
        uint32_t space = segment_space(x->e), begin = flow_seq(f, x), end = begin + space;
        x->again = space > 0 && end <= top[s] && !was_overtaken(&gaps[s], begin, end, x->e->t);
        if (end > top[s] && end - top[s] < 1U << 31) {
            if (begin > top[s])
                gaps[s].items[gaps[s].n++ % GAPS_MAX] = (struct gap){top[s], begin, x->e->t};
            top[s] = end;
        }
        f->bytes[s] += x->e->len;
        f->segments[s]++;
        f->again[s] += x->again;
        f->lost[s] += x->lost;
    }
}

void flows_build(struct flow_list *flows, const struct event_list *events)
{
    struct builder *b = must_alloc(NULL, sizeof(*b));
    *b = (struct builder){.flows = flows};
    for (size_t i = 0; i < events->n; i++)
        place(b, &events->items[i]);
    for (size_t i = 0; i < flows->n; i++) {
        struct flow *f = flows->items[i];
        find_client(f);
        scale_windows(f);
        add_listener(b, f);
        match_segments(f);
        count_segments(f);
        if (f->zero == TIME_NONE)
            f->zero = f->begin;
    }
    for (size_t i = 0; i < SLOTS; i++)
        for (struct entry *e = b->table[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    free(b->listening);
    free(b);
}

void flows_free(struct flow_list *flows)
{
    for (size_t i = 0; i < flows->n; i++) {
        free(flows->items[i]->items);
        free(flows->items[i]);
    }
    free(flows->items);
    *flows = (struct flow_list){0};
}

const char *flow_first_state(const struct flow *f, int side)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct event *e = f->items[i].e;
        if (e->kind == EV_STATE && f->items[i].side == side)
            return e->from;
    }
    return NULL;
}
