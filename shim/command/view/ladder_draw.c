/* The drawing of a ladder from its rows (ladder.h). */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "shim/command/view/ladder.h"

/* Where things stand, in units of the drawing, which are pixels at a width of 1240 (or 610). */
struct geometry {
    double width, size, line; /* font, distance of lines */
    double life[2];           /* the life lines */
    double time[2];           /* where times begin (server) and end (client) */
    double band[2], band_width;
    double note[2];
    struct ladder_columns columns;
    bool narrow;
};

/* Bytes of a note, in UTF-8. */
#define ROW_NOTE_MAX 160

static const struct geometry wide = {
    .width = 1240,
    .size = 11,
    .line = 14.5,
    .life = {404, 836},
    .time = {66, 1174},
    .band = {74, 1064},
    .band_width = 102,
    .note = {394, 846},
    .columns = {.note = 32, .label = 55},
};
static const struct geometry narrow = {
    .width = 610,
    .size = 10,
    .line = 13,
    .life = {160, 450},
    .time = {2, 608},
    .band = {152, 452},
    .band_width = 6,
    .note = {147, 463},
    .columns = {.note = 24, .label = 43},
    .narrow = true,
};

struct page {
    const struct geometry *g;
    const struct flow *f;
    const struct ladder_options *o;
    struct rows *rows;
    struct svg svg;
    size_t first, last;   /* rows [first, last) */
    double top, bottom;   /* of the life lines */
    const char *state[2]; /* at the top of the page */
};

static const char *const side_line[2] = {"l0", "l1"};
static const char *const side_fill[2] = {"c0", "c1"};

static const char *state_class(const char *state)
{
    static const struct {
        const char *prefix, *class;
    } classes[] = {
        {"SYN", "s-syn"},      {"ESTAB", "s-est"}, {"FIN", "s-fin"},         {"CLOSING", "s-fin"},
        {"LAST_ACK", "s-fin"}, {"TIME", "s-wait"}, {"CLOSE_WAIT", "s-wait"},
    };
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        if (strncmp(state, classes[i].prefix, strlen(classes[i].prefix)) == 0)
            return classes[i].class;
    return "s-idle";
}

/* ---- heights ---- */

static double row_height(const struct geometry *g, const struct row *r)
{
    double left = (r->nnotes + (g->narrow && r->t != TIME_NONE)) * g->line;
    double middle = r->nlabels > 0 ? r->nlabels * g->line + (r->elided ? 6 : 12) : g->line;
    double h = left > middle ? left : middle;
    return (h > g->line ? h : g->line) + 5;
}

/* Where an arrow leaves or arrives. */
static double anchor_y(const struct geometry *g, const struct row *r)
{
    if (r->elided)
        return r->y + r->h / 2;
    return r->nlabels > 0 ? r->y + r->nlabels * g->line + 3 : r->y + g->line * 0.55;
}

/* ---- pages ---- */

/* Whether an arrow crosses from the rows before `at` to those behind. */
static bool arrow_open(const struct page *p, size_t at)
{
    for (size_t i = at > 80 ? at - 80 : 0; i < at; i++) {
        const struct row *r = &p->rows->items[i];
        if (r->segment == NO_MATCH)
            continue;
        const struct flow_event *x = &p->f->items[r->segment];
        if (x->e->kind != EV_TX || x->match == NO_MATCH)
            continue;
        size_t to = p->rows->row_of[x->match];
        if (to != NO_MATCH && to >= at)
            return true;
    }
    return false;
}

/* The end of the page that begins at `first`. */
static size_t page_end(const struct page *p, size_t first)
{
    double y = 0;
    for (size_t i = first; i < p->rows->n; i++) {
        y += row_height(p->g, &p->rows->items[i]);
        if (p->o->page > 0 && i > first &&
            ((y > p->o->page && !arrow_open(p, i)) || y > p->o->page * 1.45))
            return i;
    }
    return p->rows->n;
}

/* ---- parts ---- */

static void draw_head(struct page *p, double *y)
{
    const struct geometry *g = p->g;
    const struct flow *f = p->f;
    static const char *const roles[2] = {"client", "server"};
    struct svg *s = &p->svg;
    char text[160];
    if (p->o->title && p->first == 0) {
        svg_text(s, g->width / 2, *y + 14, g->size + 2, ANCHOR_MIDDLE, "x b", false, p->o->title);
        *y += 24;
    }
    for (int i = 0; i < 2; i++) {
        double x = g->narrow ? (i == 0 ? 2 : g->width - 2) : g->life[i];
        enum anchor a = !g->narrow ? ANCHOR_MIDDLE : i == 0 ? ANCHOR_START : ANCHOR_END;
        snprintf(text, sizeof(text), "%s%s%s", p->o->name[i] ? p->o->name[i] : "",
                 p->o->name[i] ? ", " : "", roles[i]);
        svg_text(s, x, *y + g->line, g->size + 1, a, i ? "c1 b" : "c0 b", false, text);
        svg_text(s, x, *y + 2 * g->line, g->size, a, side_fill[i], false, f->side[i].addr);
    }
    if (!g->narrow) {
        svg_text(s, g->time[0], *y + g->line, g->size - 1, ANCHOR_END, "d", false, "ms");
        svg_text(s, g->time[1], *y + g->line, g->size - 1, ANCHOR_START, "d", false, "ms");
        for (int i = 0; i < 2; i++)
            svg_text(s, g->band[i] + g->band_width / 2, *y + g->line, g->size - 1, ANCHOR_MIDDLE,
                     "d", false, flow_first_state(f, i) ? "state" : "not watched");
    }
    *y += 2 * g->line + 8;
}

static void draw_state(struct page *p, int side, const char *state, double from, double to)
{
    const struct geometry *g = p->g;
    char class[40];
    snprintf(class, sizeof(class), "%s", state_class(state));
    svg_rect(&p->svg, g->band[side], from, g->band_width, to - from, class);
    if (g->narrow)
        svg_text(&p->svg, g->note[side], from + g->line * 0.8, g->size,
                 side == CLIENT ? ANCHOR_END : ANCHOR_START, "x b", false, state);
    else
        svg_text(&p->svg, g->band[side] + g->band_width / 2, from + g->line * 0.8, g->size,
                 ANCHOR_MIDDLE, "x b", false, state);
}

static void draw_states(struct page *p)
{
    for (int side = 0; side < 2; side++) {
        const char *state = p->state[side];
        double from = p->top;
        for (size_t i = p->first; i < p->last; i++) {
            const struct row *r = &p->rows->items[i];
            if (r->side != side || !r->state)
                continue;
            if (state)
                draw_state(p, side, state, from, r->y - 1);
            state = r->state;
            from = r->y - 1;
        }
        if (state)
            draw_state(p, side, state, from, p->bottom);
        p->state[side] = state;
    }
}

/* Solid, and dotted where something was left out. */
static void draw_life_lines(struct page *p)
{
    for (int side = 0; side < 2; side++) {
        double x = p->g->life[side], from = p->top;
        for (size_t i = p->first; i < p->last; i++) {
            const struct row *r = &p->rows->items[i];
            if (!r->elided)
                continue;
            svg_line(&p->svg, x, from, x, r->y, "l");
            svg_line(&p->svg, x, r->y, x, r->y + r->h, "l dash");
            from = r->y + r->h;
        }
        svg_line(&p->svg, x, from, x, p->bottom, "l");
    }
}

static void draw_notes(struct page *p, const struct row *r)
{
    const struct geometry *g = p->g;
    char text[40];
    double y = r->y + g->line * 0.8;
    if (r->t != TIME_NONE) {
        snprintf(text, sizeof(text), "%.3f", (double)(r->t - p->f->zero) / 1e6);
        bool end = (r->side == CLIENT) != g->narrow;
        svg_text(&p->svg, g->time[r->side], y, g->size - 0.5, end ? ANCHOR_END : ANCHOR_START, "d",
                 false, text);
        y += g->narrow ? g->line : 0;
    }
    for (unsigned i = 0; i < r->nnotes; i++, y += g->line) {
        char note[ROW_NOTE_MAX];
        snprintf(note, sizeof(note), r->repeats > 0 ? "%s  ×%u" : "%s", r->notes[i],
                 r->repeats + 1);
        svg_text(&p->svg, g->note[r->side], y, g->size,
                 r->side == CLIENT ? ANCHOR_END : ANCHOR_START, r->bad_note[i] ? "r" : "x", false,
                 note);
    }
}

/* The width of a row's labels. */
static double label_width(const struct geometry *g, const struct row *r)
{
    double w = 0;
    for (unsigned i = 0; i < r->nlabels; i++)
        w = fmax(w, svg_text_width(r->labels[i], g->size));
    return w;
}

static int label_sender(const struct page *p, const struct row *r)
{
    return r->segment == NO_MATCH ? -1 : flow_sender(&p->f->items[r->segment]);
}

static void draw_labels(struct page *p, const struct row *r)
{
    const struct geometry *g = p->g;
    double y = r->y + g->line * 0.8;
    int sender = label_sender(p, r);
    const struct flow_event *x = sender >= 0 ? &p->f->items[r->segment] : NULL;
    for (unsigned i = 0; i < r->nlabels; i++, y += g->line) {
        if (!x) {
            svg_text(&p->svg, (g->life[0] + g->life[1]) / 2, y + 3, g->size, ANCHOR_MIDDLE, "d",
                     true, r->labels[i]);
            continue;
        }
        const char *class = i > 0 ? (x->again ? "r" : "d") : x->lost ? "r b" : "x";
        svg_text(&p->svg, sender == CLIENT ? g->life[0] + 9 : g->life[1] - 9, y, g->size,
                 sender == CLIENT ? ANCHOR_START : ANCHOR_END, class, true, r->labels[i]);
    }
}

/* An arrow from y1 at the sender's line to y2 at the receiver's; flat up to `knee` (distance from
 * the sender). */
static void draw_flight(struct page *p, int sender, double y1, double y2, double knee, bool bad,
                        bool dashed)
{
    const struct geometry *g = p->g;
    double dir = sender == CLIENT ? 1 : -1;
    double x1 = g->life[sender], x2 = g->life[!sender] - dir * 1;
    double kx = x1 + dir * knee;
    char d[120], class[24];
    snprintf(class, sizeof(class), "%s%s", bad ? "lr" : side_line[sender], dashed ? " dash" : "");
    snprintf(d, sizeof(d), "M%.1f %.1fL%.1f %.1fL%.1f %.1f", x1, y1, kx, y1, x2, y2);
    svg_path(&p->svg, d, class);
    svg_arrow_head(&p->svg, x2, y2, x2 - kx, y2 - y1, bad ? "r" : side_fill[sender]);
}

/* How far an arrow must stay flat so as not to run through labels of its own direction below. */
static double find_knee(const struct page *p, size_t from, size_t to, int sender)
{
    const struct geometry *g = p->g;
    double knee = label_width(g, &p->rows->items[from]);
    bool labels = false;
    for (size_t i = from + 1; i <= to && i < p->last; i++) {
        const struct row *r = &p->rows->items[i];
        if (r->nlabels == 0 || r->elided || label_sender(p, r) != sender)
            continue;
        labels = true;
        knee = fmax(knee, label_width(g, r));
    }
    double most = fabs(g->life[1] - g->life[0]) - 24;
    return labels ? fmin(knee + 14, most) : 0;
}

/* A segment whose other end is on another page: how it leaves, or how it arrives. */
static void draw_stump(struct page *p, int sender, double y, bool leaves)
{
    const struct geometry *g = p->g;
    double dir = sender == CLIENT ? 1 : -1, length = 60 * dir;
    char class[24];
    snprintf(class, sizeof(class), "%s dash", side_line[sender]);
    double x = leaves ? g->life[sender] : g->life[!sender] - length;
    svg_line(&p->svg, x, y, x + length, y, class);
    if (!leaves)
        svg_arrow_head(&p->svg, g->life[!sender] - dir, y, dir, 0, side_fill[sender]);
}

static void draw_segment(struct page *p, size_t at)
{
    const struct geometry *g = p->g;
    const struct row *r = &p->rows->items[at];
    const struct flow_event *x = &p->f->items[r->segment];
    int sender = flow_sender(x);
    double y = anchor_y(g, r);
    if (x->lost) {
        double dir = sender == CLIENT ? 1 : -1;
        double end = g->life[sender] + dir * 0.62 * fabs(g->life[1] - g->life[0]);
        svg_line(&p->svg, g->life[sender], y, end, y + 4, "lr");
        svg_cross(&p->svg, end, y + 4, "lr");
        return;
    }
    size_t other = x->match == NO_MATCH ? NO_MATCH : p->rows->row_of[x->match];
    bool here = other != NO_MATCH && other >= p->first && other < p->last;
    bool off_page = other != NO_MATCH && !here;
    if (x->e->kind == EV_TX && here) {
        size_t to = other;
        double y2 = fmax(anchor_y(g, &p->rows->items[to]), y);
        draw_flight(p, sender, y, y2, find_knee(p, at, to, sender), x->again, false);
    } else if (x->e->kind == EV_TX && off_page) {
        draw_stump(p, sender, y, true);
    } else if (x->e->kind == EV_TX) {
        draw_flight(p, sender, y, y + 5, 0, x->again, x->unseen);
    } else if (x->match == NO_MATCH) {
        draw_flight(p, sender, y, y + 5, 0, x->again, false);
    } else if (here && p->rows->items[other].elided) {
        draw_flight(p, sender, fmin(anchor_y(g, &p->rows->items[other]), y), y, 0, false, false);
    } else if (off_page) {
        draw_stump(p, sender, y, false);
    }
}

static void draw_foot(struct page *p, double *y)
{
    const struct geometry *g = p->g;
    const struct flow *f = p->f;
    for (int i = 0; i < 2; i++) {
        char text[200], bytes[32];
        int n = snprintf(text, sizeof(text), "%s sent %" PRIu64 " segments, %s",
                         i == CLIENT ? "client" : "server", f->segments[i],
                         bytes_format(bytes, sizeof(bytes), f->bytes[i]));
        if (f->again[i] > 0 && n > 0)
            n += snprintf(text + n, sizeof(text) - (size_t)n, ", %" PRIu64 " again", f->again[i]);
        if (f->lost[i] > 0 && n > 0)
            snprintf(text + n, sizeof(text) - (size_t)n, ", %" PRIu64 " lost", f->lost[i]);
        double x = g->narrow ? 2 : g->width / 2;
        svg_text(&p->svg, x, *y + g->line, g->size, g->narrow ? ANCHOR_START : ANCHOR_MIDDLE,
                 side_fill[i], false, text);
        *y += g->line;
    }
    *y += 8;
}

static void draw_page(struct page *p, struct text *to)
{
    const struct geometry *g = p->g;
    double y = 4;
    p->svg.width = g->width;
    draw_head(p, &y);
    p->top = y;
    y += g->line + 5; /* the states at the beginning */
    for (size_t i = p->first; i < p->last; i++) {
        struct row *r = &p->rows->items[i];
        r->h = row_height(g, r);
        r->y = y;
        y += r->h;
    }
    p->bottom = y + 4;
    y = p->bottom;
    draw_states(p);
    draw_life_lines(p);
    for (size_t i = p->first; i < p->last; i++) {
        struct row *r = &p->rows->items[i];
        draw_notes(p, r);
        draw_labels(p, r);
        if (r->segment != NO_MATCH)
            draw_segment(p, i);
    }
    if (p->last == p->rows->n)
        draw_foot(p, &y);
    p->svg.height = y + 4;
    char title[200];
    snprintf(title, sizeof(title), "TCP connection from %s to %s", p->f->side[0].addr,
             p->f->side[1].addr);
    svg_finish(&p->svg, to, p->o->own_style, p->o->title ? p->o->title : title);
}

void ladder_draw(struct text *to, const struct flow *f, const struct ladder_options *o)
{
    struct rows rows;
    struct page p = {.g = o->narrow ? &narrow : &wide, .f = f, .o = o, .rows = &rows};
    rows_make(&rows, f, o, &p.g->columns);
    for (int i = 0; i < 2; i++)
        p.state[i] = flow_first_state(f, i);
    do {
        p.last = page_end(&p, p.first);
        draw_page(&p, to);
        p.first = p.last;
    } while (p.first < rows.n);
    rows_free(&rows);
}
