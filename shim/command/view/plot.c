/* Plots of a connection (plot.h). */
#define _GNU_SOURCE
#include "shim/command/view/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values of ssthresh from here on mean "none yet". */
#define SSTHRESH_NONE (1U << 30)

enum unit { UNIT_BYTES, UNIT_TIME };

struct point {
    double x, y;
};

struct series {
    struct point *points;
    size_t n, room;
    const char *name, *class;
    bool dots, steps;
};

/* One set of axes. */
struct axes {
    struct svg *svg;
    double left, top, width, height, size;
    double x_max, y_max; /* s; bytes or s */
    enum unit unit;
};

static void series_add(struct series *s, double x, double y)
{
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 256;
        s->points = must_alloc(s->points, s->room * sizeof(*s->points));
    }
    s->points[s->n++] = (struct point){x, y};
}

static double series_max(const struct series *s)
{
    double max = 0;
    for (size_t i = 0; i < s->n; i++)
        max = fmax(max, s->points[i].y);
    return max;
}

/* ---- axes ---- */

/* 1, 2 or 5 times a power of ten, so that about `count` steps make `span`. */
static double nice_step(double span, double count)
{
    double raw = span > 0 ? span / count : 1, power = pow(10, floor(log10(raw)));
    double digit = raw / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static double to_x(const struct axes *a, double x)
{
    return a->left + (a->x_max > 0 ? x / a->x_max * a->width : 0);
}

static double to_y(const struct axes *a, double y)
{
    return a->top + a->height - (a->y_max > 0 ? y / a->y_max * a->height : 0);
}

/* In the unit that suits the largest value of the axis. */
static void time_label(char *out, size_t size, double v, double max)
{
    if (v == 0)
        snprintf(out, size, "0");
    else if (max < 1e-3)
        snprintf(out, size, "%.6g us", v * 1e6);
    else if (max < 1)
        snprintf(out, size, "%.6g ms", v * 1e3);
    else
        snprintf(out, size, "%.6g s", v);
}

static void byte_label(char *out, size_t size, double v, double max)
{
    if (max < 1e4 || v == 0)
        snprintf(out, size, "%.6g", v);
    else if (max < 1e7)
        snprintf(out, size, "%.6g KB", v / 1e3);
    else
        snprintf(out, size, "%.6g MB", v / 1e6);
}

static void draw_axes(const struct axes *a, bool x_labels)
{
    char text[40];
    double step = nice_step(a->x_max, a->width / 110);
    for (int i = 0; i * step <= a->x_max * 1.0001; i++) {
        double v = i * step;
        double x = to_x(a, v);
        svg_line(a->svg, x, a->top, x, a->top + a->height, "n");
        time_label(text, sizeof(text), v, a->x_max);
        if (x_labels && x + svg_text_width(text, a->size) / 2 < a->svg->width)
            svg_text(a->svg, x, a->top + a->height + a->size + 6, a->size, ANCHOR_MIDDLE, "d",
                     false, text);
    }
    step = nice_step(a->y_max, a->height / 44);
    for (int i = 0; i * step <= a->y_max * 1.0001; i++) {
        double v = i * step;
        double y = to_y(a, v);
        svg_line(a->svg, a->left, y, a->left + a->width, y, "n");
        (a->unit == UNIT_TIME ? time_label : byte_label)(text, sizeof(text), v, a->y_max);
        svg_text(a->svg, a->left - 6, y + a->size * 0.35, a->size, ANCHOR_END, "d", false, text);
    }
    svg_line(a->svg, a->left, a->top, a->left, a->top + a->height, "l");
    svg_line(a->svg, a->left, a->top + a->height, a->left + a->width, a->top + a->height, "l");
}

/* Names of the series, in their colours, above the axes; more lines where they do not fit into one.
 */
static void draw_legend(const struct axes *a, const struct series *series, unsigned n)
{
    double x = a->left, y = a->top - 10;
    unsigned shown = 0;
    for (unsigned i = 0; i < n; i++)
        shown += series[i].n > 0;
    for (unsigned i = 0; i < n && shown > 0; i++) {
        if (series[i].n == 0)
            continue;
        if (series[i].dots) {
            char d[100];
            for (int k = 0; k < 3; k++) {
                snprintf(d, sizeof(d), "M%.1f %.1fh3", x + 2 + 6 * k, y - 3.5);
                svg_path(a->svg, d, series[i].class);
            }
        } else {
            svg_line(a->svg, x, y - 3.5, x + 18, y - 3.5, series[i].class);
        }
        svg_text(a->svg, x + 23, y, a->size, ANCHOR_START, "x", false, series[i].name);
        x += 23 + svg_text_width(series[i].name, a->size) + 18;
    }
}

/* ---- series ---- */

/* What is above the axes is left out; points that fall on the last one drawn are, too. */
static void draw_series(const struct axes *a, const struct series *s)
{
    struct text d = {0};
    bool down = false;
    double last_x = -9, last_y = -9;
    for (size_t i = 0; i < s->n; i++) {
        double x = to_x(a, s->points[i].x), y = to_y(a, s->points[i].y);
        if (y < a->top - 0.5 || x > a->left + a->width + 0.5) {
            if (s->steps && down && x <= a->left + a->width)
                text_add(&d, "H%.1f", x);
            down = false;
            continue;
        }
        if (fabs(x - last_x) < 0.4 && fabs(y - last_y) < 0.4 && down)
            continue;
        if (s->dots)
            text_add(&d, "M%.1f %.1fh3", x - 1.5, y);
        else if (!down)
            text_add(&d, "M%.1f %.1f", x, y);
        else if (s->steps)
            text_add(&d, "H%.1fV%.1f", x, y);
        else
            text_add(&d, "L%.1f %.1f", x, y);
        down = true;
        last_x = x;
        last_y = y;
    }
    if (s->steps && down)
        text_add(&d, "H%.1f", to_x(a, a->x_max));
    if (d.n > 0)
        svg_path(a->svg, d.s, s->class);
    text_free(&d);
}

static void add_bar(struct text *d, double x, double low, double high, double least)
{
    if (low - high < least)
        high = low - least;
    text_add(d, "M%.1f %.1fV%.1f", x, low, high);
}

/* Bars from seq to seq + len, at least so high; those that continue each other on one spot are one.
 */
static void draw_bars(const struct axes *a, const struct series *s, double least)
{
    struct text d = {0};
    double x = -9, low = 0, high = 0;
    for (size_t i = 0; i + 1 < s->n; i += 2) {
        double at = to_x(a, s->points[i].x), y1 = to_y(a, s->points[i].y);
        double y2 = to_y(a, s->points[i + 1].y);
        if (fabs(at - x) < 0.15 && fabs(y1 - high) < 0.1) {
            high = y2;
            continue;
        }
        if (x > 0)
            add_bar(&d, x, low, high, least);
        x = at;
        low = y1;
        high = y2;
        if (x > a->left + a->width + 0.5)
            x = -9;
    }
    if (x > 0)
        add_bar(&d, x, low, high, least);
    if (d.n > 0)
        svg_path(a->svg, d.s, s->class);
    text_free(&d);
}

/* ---- from the flow ---- */

/* Whether the item is the place where what `sender` sent is seen: where it left, if that was
 * watched. */
static bool seen_here(const struct flow *f, const struct flow_event *x, int sender)
{
    if (!event_is_segment(x->e) || flow_sender(x) != sender)
        return false;
    return x->e->wire || (x->e->kind == EV_TX) == f->side[sender].traced;
}

/* Where the sender sees what the other one answers. */
static bool answer_here(const struct flow *f, const struct flow_event *x, int sender)
{
    if (!event_is_segment(x->e) || flow_sender(x) == sender)
        return false;
    return x->e->wire || (x->e->kind == EV_RX) == f->side[sender].traced;
}

static int choose_sender(const struct flow *f, int wanted)
{
    return wanted >= 0 ? wanted : f->bytes[SERVER] > f->bytes[CLIENT] ? SERVER : CLIENT;
}

static double seconds(const struct flow *f, const struct event *e)
{
    return (double)(e->t - f->zero) / 1e9;
}

/* Time of the last segment: states may outlast it by a minute. */
static double span_of(const struct flow *f, const struct plot_options *o)
{
    double last = 0;
    for (size_t i = 0; i < f->n; i++)
        if (event_is_segment(f->items[i].e))
            last = fmax(last, seconds(f, f->items[i].e));
    if (o->span > 0)
        last = (double)o->span / 1e9;
    return last > 0 ? last * 1.02 : 1e-3;
}

static void draw_title(struct svg *g, const struct flow *f, const struct plot_options *o,
                       int sender, const char *what)
{
    char text[240];
    if (o->title)
        snprintf(text, sizeof(text), "%s: %s", o->title, what);
    else
        snprintf(text, sizeof(text), "%s, from %s to %s", what, f->side[sender].addr,
                 f->side[!sender].addr);
    double size = o->narrow ? 11 : 13;
    while (svg_text_width(text, size) > g->width - 8 && size > 8)
        size -= 0.5;
    svg_text(g, g->width / 2, 18, size, ANCHOR_MIDDLE, "x b", false, text);
}

enum { SEQ_DATA, SEQ_AGAIN, SEQ_SACK, SEQ_ACK, SEQ_WINDOW, SEQ_COUNT };

static void collect_sequence(const struct flow *f, int sender, struct series *s)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct flow_event *x = &f->items[i];
        const struct event *e = x->e;
        if (seen_here(f, x, sender) && segment_space(e) > 0) {
            double t = seconds(f, e), seq = flow_seq(f, x);
            struct series *to = &s[x->again ? SEQ_AGAIN : SEQ_DATA];
            series_add(to, t, seq);
            series_add(to, t, seq + segment_space(e));
        } else if (answer_here(f, x, sender) && e->flags & FLAG_ACK) {
            double t = seconds(f, e), ack = flow_ack(f, x);
            series_add(&s[SEQ_ACK], t, ack);
            series_add(&s[SEQ_WINDOW], t, ack + (double)e->wnd);
            for (unsigned k = 0; k < e->opt.nsack; k++) {
                series_add(&s[SEQ_SACK], t, e->opt.sack[k][0] - f->side[sender].isn);
                series_add(&s[SEQ_SACK], t, e->opt.sack[k][1] - f->side[sender].isn);
            }
        }
    }
}

void plot_sequence(struct text *to, const struct flow *f, const struct plot_options *o)
{
    int sender = choose_sender(f, o->sender);
    struct series s[SEQ_COUNT] = {
        [SEQ_DATA] = {.name = "sent", .class = "l0"},
        [SEQ_AGAIN] = {.name = "sent again", .class = "lr"},
        [SEQ_SACK] = {.name = "SACK", .class = "lp"},
        [SEQ_ACK] = {.name = "acknowledged", .class = "lg", .steps = true},
        [SEQ_WINDOW] = {.name = "window", .class = "l1", .steps = true},
    };
    collect_sequence(f, sender, s);
    double top = fmax(series_max(&s[SEQ_DATA]), series_max(&s[SEQ_AGAIN]));
    struct svg g = {.width = o->narrow ? 610 : 1240, .height = o->narrow ? 330 : 560};
    struct axes a = {.svg = &g,
                     .left = o->narrow ? 62 : 84,
                     .top = 56,
                     .size = o->narrow ? 9.5 : 11,
                     .x_max = span_of(f, o),
                     .y_max = top > 0 ? top * 1.15 : 1};
    a.width = g.width - a.left - 24;
    a.height = g.height - a.top - 34;
    draw_title(&g, f, o, sender, "sequence numbers over time");
    draw_axes(&a, true);
    draw_legend(&a, s, SEQ_COUNT);
    draw_series(&a, &s[SEQ_WINDOW]);
    draw_series(&a, &s[SEQ_ACK]);
    draw_bars(&a, &s[SEQ_DATA], 1.5);
    draw_bars(&a, &s[SEQ_SACK], 1.5);
    draw_bars(&a, &s[SEQ_AGAIN], 5);
    svg_finish(&g, to, o->own_style, "Sequence numbers over time");
    for (int i = 0; i < SEQ_COUNT; i++)
        free(s[i].points);
}

enum { CC_CWND, CC_SSTHRESH, CC_FLIGHT, CC_SAMPLE, CC_SRTT, CC_RTO, CC_COUNT };

/* Segments whose ACK gives a round-trip time. */
struct sample {
    uint32_t end;
    int64_t t;
};

static void collect_congestion(const struct flow *f, int sender, struct series *s)
{
    struct sample *waiting = must_alloc(NULL, (f->n + 1) * sizeof(*waiting));
    size_t first = 0, n = 0;
    uint32_t top = 0, una = 0;
    for (size_t i = 0; i < f->n; i++) {
        const struct flow_event *x = &f->items[i];
        const struct event *e = x->e;
        double t = seconds(f, e);
        if (x->side == sender && (e->kind == EV_CWND || e->kind == EV_RECOVERY)) {
            series_add(&s[CC_CWND], t, (double)e->cwnd);
            if (e->ssthresh < SSTHRESH_NONE)
                series_add(&s[CC_SSTHRESH], t, (double)e->ssthresh);
        }
        if (x->side == sender && (e->kind == EV_CWND || e->kind == EV_RTT)) {
            if (e->srtt > 0)
                series_add(&s[CC_SRTT], t, (double)e->srtt / 1e9);
            if (e->rto > 0)
                series_add(&s[CC_RTO], t, (double)e->rto / 1e9);
        }
        if (seen_here(f, x, sender) && segment_space(e) > 0) {
            uint32_t end = flow_seq(f, x) + segment_space(e);
            if (x->again)
                first = n; /* Karn: no samples from what may be repeats */
            else
                waiting[n++] = (struct sample){end, e->t};
            top = end > top ? end : top;
            series_add(&s[CC_FLIGHT], t, top - una);
        } else if (answer_here(f, x, sender) && e->flags & FLAG_ACK && flow_ack(f, x) <= top) {
            uint32_t ack = flow_ack(f, x);
            int64_t sent = TIME_NONE;
            for (; first < n && waiting[first].end <= ack; first++)
                sent = waiting[first].t;
            if (sent != TIME_NONE)
                series_add(&s[CC_SAMPLE], t, (double)(e->t - sent) / 1e9);
            una = ack > una ? ack : una;
            series_add(&s[CC_FLIGHT], t, top - una);
        }
    }
    free(waiting);
}

void plot_congestion(struct text *to, const struct flow *f, const struct plot_options *o)
{
    int sender = choose_sender(f, o->sender);
    struct series s[CC_COUNT] = {
        [CC_CWND] = {.name = "cwnd", .class = "l0", .steps = true},
        [CC_SSTHRESH] = {.name = "ssthresh", .class = "lp dash", .steps = true},
        [CC_FLIGHT] = {.name = "sent, not yet acknowledged", .class = "l1 thin", .steps = true},
        [CC_SAMPLE] = {.name = "round trips", .class = "lg dot", .dots = true},
        [CC_SRTT] = {.name = "smoothed RTT", .class = "l0", .steps = true},
        [CC_RTO] = {.name = "RTO", .class = "lr", .steps = true},
    };
    collect_congestion(f, sender, s);
    struct svg g = {.width = o->narrow ? 610 : 1240, .height = o->narrow ? 470 : 740};
    double size = o->narrow ? 9.5 : 11, left = o->narrow ? 62 : 84, bottom = 34, gap = 44;
    double whole = g.height - 56 - bottom - gap;
    struct axes a = {.svg = &g,
                     .left = left,
                     .top = 56,
                     .size = size,
                     .width = g.width - left - 24,
                     .height = whole * 0.6,
                     .x_max = span_of(f, o)};
    double y = fmax(series_max(&s[CC_CWND]), series_max(&s[CC_FLIGHT]));
    a.y_max = y > 0 ? y * 1.1 : 1;
    draw_title(&g, f, o, sender,
               s[CC_CWND].n > 0 ? "congestion control" : "bytes in flight, round trips");
    draw_axes(&a, false);
    draw_legend(&a, s, CC_SAMPLE);
    for (int i = CC_FLIGHT; i >= 0; i--)
        draw_series(&a, &s[i]);
    a.top += a.height + gap;
    a.height = whole * 0.4;
    a.unit = UNIT_TIME;
    y = fmax(series_max(&s[CC_SAMPLE]), series_max(&s[CC_SRTT]));
    /* an RTO of 200 ms over round trips of 100 us would flatten these */
    double rto = series_max(&s[CC_RTO]);
    if (rto > 0 && (rto < 8 * y || y == 0))
        y = fmax(y, rto);
    else if (rto > 0)
        s[CC_RTO].name = "RTO (above)";
    a.y_max = y > 0 ? y * 1.1 : 1e-3;
    draw_axes(&a, true);
    draw_legend(&a, s + CC_SAMPLE, CC_COUNT - CC_SAMPLE);
    for (int i = CC_COUNT - 1; i >= CC_SAMPLE; i--)
        draw_series(&a, &s[i]);
    svg_finish(&g, to, o->own_style, "Congestion control over time");
    for (int i = 0; i < CC_COUNT; i++)
        free(s[i].points);
}
