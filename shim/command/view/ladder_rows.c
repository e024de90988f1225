/* From events to the rows of a ladder (ladder.h): which are shown, in which order, in which words.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shim/command/view/ladder.h"
#include "shim/command/view/words.h"

/* A plain transfer longer than `max` segments is cut to its first and last ones. */
struct cut {
    unsigned max, head, tail;
};
static const struct cut cut_wide = {16, 7, 4}, cut_narrow = {9, 4, 3};
/* A call that blocked longer has a row where it begins, too. */
#define BLOCKED_NS 50000
/* More rows than this make no readable drawing. */
#define ROWS_MAX 3000

enum part { PART_WHOLE, PART_BEGIN, PART_END };

struct item {
    size_t at; /* in the flow; NO_MATCH: an elided stretch */
    int64_t t;
    enum part part;
    size_t first, last; /* of the elided stretch: items of the flow */
};

struct items {
    struct item *items;
    size_t n, room;
};

static void item_insert(struct items *l, size_t where, struct item item)
{
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 128;
        l->items = must_alloc(l->items, l->room * sizeof(item));
    }
    memmove(l->items + where + 1, l->items + where, (l->n - where) * sizeof(item));
    l->items[where] = item;
    l->n++;
}

/* ---- which ---- */

static bool shown(const struct flow_event *x, unsigned show)
{
    const struct event *e = x->e;
    switch (e->kind) {
    case EV_TX:
    case EV_RX:
        return show & SHOW_SEGMENT;
    case EV_STATE: /* Linux enters FIN_WAIT_1 again at close() after shutdown() */
        return show & SHOW_STATE && e->from != e->to;
    case EV_SYN_QUEUED:
    case EV_ACCEPT_QUEUED:
    case EV_ACCEPTED:
    case EV_REFUSED:
    case EV_SYN_DROPPED:
    case EV_COOKIE_SENT:
        return show & SHOW_QUEUE;
    case EV_HELD:
    case EV_ACK_HELD:
    case EV_IGNORED:
        return show & SHOW_HELD;
    case EV_TO_SNDBUF:
    case EV_ACKED:
    case EV_TO_RCVBUF:
    case EV_FROM_RCVBUF:
        return show & SHOW_BUFFER;
    case EV_TIMER:
        return show & SHOW_TIMER && strcmp(e->name, "timer") == 0;
    case EV_RECOVERY:
    case EV_TAKEN_FOR_LOST:
        return show & SHOW_CC;
    case EV_CALL:
        return show & SHOW_CALL && call_matters(e);
    default:
        return false;
    }
}

/* ---- in which order: a call is traced when it returns, and shown before what it caused ---- */

static bool caused_by(const struct event *e, enum call_family family)
{
    switch (family) {
    case CALL_CONNECT:
        return e->kind == EV_STATE && e->to && strcmp(e->to, "SYN_SENT") == 0;
    case CALL_LISTEN:
        return e->kind == EV_STATE && e->to && strcmp(e->to, "LISTEN") == 0;
    case CALL_ACCEPT:
        return e->kind == EV_ACCEPTED;
    case CALL_SEND:
        return e->kind == EV_TO_SNDBUF;
    case CALL_RECV:
        return e->kind == EV_FROM_RCVBUF;
    case CALL_CLOSE:
        return e->kind == EV_STATE && e->why &&
               (strncmp(e->why, "close()", 7) == 0 || strncmp(e->why, "shutdown()", 10) == 0);
    default:
        return false;
    }
}

/* The first event that the call at `at` caused, after the call before it; NO_MATCH. */
static size_t first_effect(const struct flow *f, size_t at)
{
    const struct flow_event *call = &f->items[at];
    enum call_family family = call_family(call->e);
    size_t found = NO_MATCH;
    for (size_t i = at; i-- > 0;) {
        const struct flow_event *x = &f->items[i];
        if (x->side != call->side)
            continue;
        if (x->e->kind == EV_CALL && x->e->pid == call->e->pid && call_family(x->e) == family)
            break;
        if (caused_by(x->e, family))
            found = i;
    }
    return found;
}

/* Where in the list an event of the flow stands, or would stand. */
static size_t position(const struct items *l, size_t at, int64_t t)
{
    size_t i = l->n;
    while (i > 0 &&
           (at != NO_MATCH ? l->items[i - 1].at == NO_MATCH || l->items[i - 1].at >= at ||
                                 (l->items[i - 1].part == PART_BEGIN && l->items[i - 1].at > at)
                           : l->items[i - 1].t > t))
        i--;
    return i;
}

/* Whether a call waited: something arrived at its side before it returned. */
static bool blocked(const struct flow *f, size_t at)
{
    const struct flow_event *call = &f->items[at];
    if (call->e->begin == TIME_NONE || call->e->t - call->e->begin < BLOCKED_NS)
        return false;
    for (size_t i = at; i-- > 0 && f->items[i].e->t > call->e->begin;)
        if (f->items[i].side == call->side && f->items[i].e->kind == EV_RX)
            return true;
    return false;
}

static void add_call(struct items *l, const struct flow *f, size_t at)
{
    const struct event *e = f->items[at].e;
    enum call_family family = call_family(e);
    size_t effect = first_effect(f, at);
    int64_t t = effect != NO_MATCH      ? f->items[effect].e->t
                : e->begin != TIME_NONE ? e->begin
                                        : e->t;
    bool in_two =
        (family == CALL_CONNECT || family == CALL_SEND || family == CALL_CLOSE) && blocked(f, at);
    if (family == CALL_RECV || family == CALL_ACCEPT) {
        if (effect == NO_MATCH)
            t = e->t;
    }
    if (in_two && e->begin < t)
        t = e->begin;
    size_t where = effect != NO_MATCH ? position(l, effect, t) : position(l, NO_MATCH, t);
    while (effect != NO_MATCH && where > 0 && l->items[where - 1].t > t)
        where--;
    if (in_two && where < l->n) {
        item_insert(l, where, (struct item){.at = at, .t = t, .part = PART_BEGIN});
        item_insert(l, l->n, (struct item){.at = at, .t = e->t, .part = PART_END});
    } else {
        item_insert(l, where, (struct item){.at = at, .t = t, .part = PART_WHOLE});
    }
}

/* An arrival that is not the first of what one sending became (the device or the link cut it). */
static bool is_later_piece(const struct flow *f, size_t at)
{
    const struct flow_event *x = &f->items[at];
    return x->e->kind == EV_RX && x->match != NO_MATCH && f->items[x->match].match != at;
}

/* What of the flow is shown, in order. */
static void collect(struct items *l, const struct flow *f, const struct ladder_options *o)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct flow_event *x = &f->items[i];
        int64_t t = x->e->t - f->zero;
        if (!shown(x, o->show) || is_later_piece(f, i) || (o->from != TIME_NONE && t < o->from) ||
            (o->to != TIME_NONE && t > o->to))
            continue;
        if (x->e->kind == EV_CALL)
            add_call(l, f, i);
        else
            item_insert(l, l->n, (struct item){.at = i, .t = x->e->t});
    }
}

/* ---- long transfers ---- */

/* Part of an undisturbed transfer: text and its ACKs, the calls that move bytes, buffers. */
static bool is_plain(const struct flow_event *x)
{
    const struct event *e = x->e;
    if (event_is_segment(e))
        return !(e->flags & (FLAG_SYN | FLAG_FIN | FLAG_RST | FLAG_URG)) && !x->again &&
               (!x->lost || flow_pure_ack(e)) && e->wnd > 0;
    if (e->kind == EV_CALL)
        return !e->error && (call_family(e) == CALL_SEND || call_family(e) == CALL_RECV);
    if (e->kind == EV_HELD || e->kind == EV_ACK_HELD)
        return true;
    return e->kind == EV_TO_SNDBUF || e->kind == EV_ACKED || e->kind == EV_TO_RCVBUF ||
           e->kind == EV_FROM_RCVBUF;
}

/* A segment is counted where it leaves, or where it arrives if its sender was not watched. */
static bool counts(const struct flow *f, const struct flow_event *x)
{
    return event_is_segment(x->e) && (x->e->kind == EV_TX || !f->side[!x->side].traced);
}

/* Cuts items [begin, end): the first and last segments stay, and one item stands for the rest. */
static size_t elide_run(struct items *l, const struct flow *f, const struct cut *c, size_t begin,
                        size_t end)
{
    size_t segments = 0, head = begin, tail = end;
    for (size_t i = begin; i < end; i++)
        segments += counts(f, &f->items[l->items[i].at]);
    if (segments <= c->max)
        return end;
    for (size_t n = 0; n < c->head; head++)
        n += counts(f, &f->items[l->items[head].at]);
    for (size_t n = 0; n < c->tail;)
        n += counts(f, &f->items[l->items[--tail].at]);
    struct item rest = {.at = NO_MATCH,
                        .t = l->items[head].t,
                        .first = l->items[head].at,
                        .last = l->items[tail - 1].at};
    size_t keep = head, new_end = 0;
    l->items[keep++] = rest;
    for (size_t i = tail; i < l->n; i++) {
        if (i == end)
            new_end = keep;
        /* arrivals of what was left out are left out, too */
        const struct flow_event *x = l->items[i].at == NO_MATCH ? NULL : &f->items[l->items[i].at];
        if (!x || x->e->kind != EV_RX || x->match == NO_MATCH || x->match < rest.first ||
            x->match > rest.last)
            l->items[keep++] = l->items[i];
    }
    if (end == l->n)
        new_end = keep;
    l->n = keep;
    return new_end;
}

static void elide(struct items *l, const struct flow *f, const struct cut *c)
{
    for (size_t i = 0; i < l->n;) {
        size_t end = i;
        while (end < l->n && l->items[end].at != NO_MATCH && is_plain(&f->items[l->items[end].at]))
            end++;
        i = end > i ? elide_run(l, f, c, i, end) : i + 1;
    }
}

/* ---- rows and their words ---- */

/* Adds text to a list of lines, broken at blanks. */
static void add_lines(char **lines, unsigned *n, size_t width, const char *s)
{
    while (*s && *n < ROW_LINES) {
        const char *end = s, *blank = NULL;
        for (size_t columns = 0; *end; end++) {
            if (((unsigned char)*end & 0xC0) != 0x80 && columns++ == width)
                break;
            if (*end == ' ')
                blank = end;
        }
        if (*end && blank && *end != ' ')
            end = blank;
        lines[(*n)++] = strndup(s, (size_t)(end - s));
        s = end;
        while (*s == ' ')
            s++;
    }
}

static struct row *row_add(struct rows *rows, int side, int64_t t)
{
    if (rows->n == rows->room) {
        rows->room = rows->room ? rows->room * 2 : 128;
        rows->items = must_alloc(rows->items, rows->room * sizeof(struct row));
    }
    struct row *r = &rows->items[rows->n++];
    *r = (struct row){.side = (uint8_t)side, .t = t, .segment = NO_MATCH};
    return r;
}

static void note(struct row *r, const struct ladder_columns *c, const char *s, bool bad)
{
    unsigned before = r->nnotes;
    add_lines(r->notes, &r->nnotes, c->note, s);
    for (unsigned i = before; i < r->nnotes; i++)
        r->bad_note[i] = bad;
}

static void add_labels(struct row *r, const struct flow *f, const struct flow_event *x,
                       uint64_t *window, const struct ladder_options *o,
                       const struct ladder_columns *c)
{
    const struct event *e = x->e;
    char flags[40];
    struct text s = {0};
    flags_format(flags, e->flags);
    text_add(&s, "%s%s seq %u", x->lost ? "LOST: " : "", flags, flow_seq(f, x));
    if (e->flags & FLAG_ACK)
        text_add(&s, " ack %u", flow_ack(f, x));
    if (e->len > 0)
        text_add(&s, " len %u", e->len);
    /* only where it is news */
    if (e->wnd != *window || e->flags & FLAG_SYN)
        text_add(&s, " win %" PRIu64, e->wnd);
    *window = e->wnd;
    add_lines(r->labels, &r->nlabels, c->label, s.s);
    text_clear(&s);
    options_format(&s, &e->opt, f->side[!flow_sender(x)].isn, e->flags & FLAG_SYN);
    const char *why = o->show & SHOW_REASON && e->kind == EV_TX ? e->why : NULL;
    if (x->again && !why)
        why = "sent again";
    if (why && *why)
        text_add(&s, "%s%s", s.n > 0 ? " " : "", why);
    add_lines(r->labels, &r->nlabels, c->label, s.s ? s.s : "");
    text_free(&s);
}

static void add_call_note(struct row *r, const struct item *item, const struct event *e,
                          bool waited, const struct ladder_options *o,
                          const struct ladder_columns *c)
{
    struct text s = {0};
    if (item->part == PART_BEGIN) {
        text_add(&s, "%s(%d) …", e->call, e->fd);
    } else {
        words_call(&s, e, !o->narrow);
        if (item->part == PART_WHOLE && waited) {
            char time[32];
            text_add(&s, ", after %s", duration_format(time, sizeof(time), e->t - e->begin));
        }
    }
    note(r, c, s.s, item->part != PART_BEGIN && e->error && strcmp(e->error, "EINPROGRESS") != 0);
    text_free(&s);
}

static void add_note(struct row *r, const struct flow *f, const struct flow_event *x,
                     const struct ladder_columns *c)
{
    const struct event *e = x->e;
    const char *why = e->why ? e->why : "?";
    struct text s = {0};
    if (e->kind == EV_HELD)
        text_add(&s, "held: %s", why);
    else if (e->kind == EV_ACK_HELD)
        text_add(&s, "no ACK yet: %s", why);
    else if (e->kind == EV_IGNORED)
        text_add(&s, "not used: %s", why);
    else if (e->kind == EV_TAKEN_FOR_LOST)
        text_add(&s, "%u.. (%u) taken for lost: %s", e->seq - f->side[x->side].isn, e->len, why);
    else if (e->kind == EV_TIMER)
        text_add(&s, "%s timer fires", e->timer ? e->timer : "a");
    else if (e->kind == EV_RECOVERY)
        text_add(&s, "%s", why);
    else if (!words_queue(&s, e) && !words_buffer(&s, e))
        text_add(&s, "%s", e->name);
    note(r, c, s.s,
         e->kind == EV_REFUSED || e->kind == EV_SYN_DROPPED || e->kind == EV_TIMER ||
             e->kind == EV_TAKEN_FOR_LOST || e->kind == EV_IGNORED);
    text_free(&s);
}

static void add_elided(struct rows *rows, const struct flow *f, const struct item *item,
                       const struct ladder_columns *c)
{
    uint64_t bytes[2] = {0, 0}, segments[2] = {0, 0}, lost = 0;
    for (size_t i = item->first; i <= item->last; i++) {
        const struct flow_event *x = &f->items[i];
        if (!counts(f, x))
            continue;
        bytes[flow_sender(x)] += x->e->len;
        segments[flow_sender(x)]++;
        lost += x->lost;
    }
    struct row *r = row_add(rows, CLIENT, TIME_NONE);
    r->elided = true;
    struct text s = {0};
    char text[2][32];
    char losses[40] = "";
    if (lost > 0)
        snprintf(losses, sizeof(losses), ", %" PRIu64 " ACK%s lost", lost, lost > 1 ? "s" : "");
    text_add(&s, "··· left out: %s%s ···",
             duration_format(text[0], sizeof(text[0]),
                             f->items[item->last].e->t - f->items[item->first].e->t),
             losses);
    add_lines(r->labels, &r->nlabels, c->label, s.s);
    text_clear(&s);
    for (int i = 0; i < 2; i++)
        text_add(&s, "%s %" PRIu64 " segments, %s", i == CLIENT ? "→" : "   ←", segments[i],
                 bytes_format(text[i], sizeof(text[i]), bytes[i]));
    add_lines(r->labels, &r->nlabels, c->label, s.s);
    text_free(&s);
    for (size_t i = item->first; i <= item->last; i++)
        if (rows->row_of[i] == NO_MATCH)
            rows->row_of[i] = rows->n - 1;
}

/* Whether a call is the same again as the row before it tells: a program that reads byte by byte.
 */
static bool is_repeat(const struct row *r, const struct row *last, size_t width)
{
    return last->side == r->side && last->segment == NO_MATCH && !last->state && !last->elided &&
           last->nnotes == 1 && r->nnotes == 1 && strcmp(last->notes[0], r->notes[0]) == 0 &&
           text_columns(r->notes[0]) + 7 <= width;
}

/* Whether an event goes into the row before it: same side, same moment, nothing of its kind there.
 */
static bool joins(const struct row *r, const struct flow_event *x, int64_t t, bool is_segment)
{
    if (r->elided || r->side != x->side || r->t != t)
        return false;
    if (r->nnotes > ROW_LINES - 4)
        return false;
    if (is_segment && (r->segment != NO_MATCH))
        return false;
    return x->e->kind != EV_STATE || !r->state;
}

static void add_item(struct rows *rows, const struct flow *f, const struct item *item,
                     const struct ladder_options *o, const struct ladder_columns *c)
{
    if (item->at == NO_MATCH) {
        add_elided(rows, f, item, c);
        return;
    }
    const struct flow_event *x = &f->items[item->at];
    const struct event *e = x->e;
    bool segment = event_is_segment(e);
    struct row *r = rows->n > 0 ? &rows->items[rows->n - 1] : NULL;
    if (!r || !joins(r, x, item->t, segment))
        r = row_add(rows, x->side, item->t);
    if (item->part != PART_END)
        rows->row_of[item->at] = rows->n - 1;
    if (segment) {
        r->segment = item->at;
        bool label_here = e->kind == EV_TX || x->match == NO_MATCH;
        if (label_here)
            add_labels(r, f, x, &rows->window[flow_sender(x)], o, c);
    } else if (e->kind == EV_STATE) {
        r->state = e->to;
        if (o->narrow)
            return;
    } else if (e->kind == EV_CALL) {
        add_call_note(r, item, e, blocked(f, item->at), o, c);
        if (rows->n > 1 && r->segment == NO_MATCH && !r->state && is_repeat(r, r - 1, c->note)) {
            (r - 1)->repeats++;
            free(r->notes[0]);
            rows->n--;
            if (item->part != PART_END)
                rows->row_of[item->at] = rows->n - 1;
        }
    } else {
        add_note(r, f, x, c);
    }
}

void rows_make(struct rows *rows, const struct flow *f, const struct ladder_options *o,
               const struct ladder_columns *c)
{
    struct items list = {0};
    *rows = (struct rows){.row_of = must_alloc(NULL, (f->n + 1) * sizeof(size_t)),
                          .window = {UINT64_MAX, UINT64_MAX}};
    for (size_t i = 0; i < f->n; i++)
        rows->row_of[i] = NO_MATCH;
    collect(&list, f, o);
    if (!o->full)
        elide(&list, f, o->narrow ? &cut_narrow : &cut_wide);
    for (size_t i = 0; i < list.n && rows->n < ROWS_MAX; i++)
        add_item(rows, f, &list.items[i], o, c);
    if (rows->n >= ROWS_MAX) {
        struct row *r = row_add(rows, CLIENT, TIME_NONE);
        r->elided = true;
        add_lines(r->labels, &r->nlabels, c->label,
                  "··· more follows: choose a part by --from and --to ···");
    }
    free(list.items);
}

void rows_free(struct rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        for (unsigned k = 0; k < rows->items[i].nnotes; k++)
            free(rows->items[i].notes[k]);
        for (unsigned k = 0; k < rows->items[i].nlabels; k++)
            free(rows->items[i].labels[k]);
    }
    free(rows->items);
    free(rows->row_of);
    *rows = (struct rows){0};
}
