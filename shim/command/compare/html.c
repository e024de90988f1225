/* The page that compare writes: table, ladders side by side, plots (compare.h). */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "shim/command/compare/compare.h"
#include "shim/command/view/ladder.h"
#include "shim/command/view/plot.h"

/* Connections of each run that are drawn. */
#define DRAWN_MAX 3
/* Height of a piece of a ladder. One that is half as long again still fits a page of paper, two
 * side by side, so a piece may end where no segment is under way. */
#define PIECE_HEIGHT 440

static const char page_style[] =
    "body{font-family:system-ui,\"DejaVu Sans\",sans-serif;font-size:15px;line-height:1.4;"
    "max-width:1240px;margin:0 auto;padding:16px;background:#fff;color:#1b1f24}\n"
    "h1{font-size:22px;margin:0 0 8px}h2{font-size:18px;margin:28px 0 8px}h3{font-size:15px;"
    "margin:0 0 4px;text-align:center}\n"
    "code{font-family:\"DejaVu Sans Mono\",\"Liberation Mono\",Menlo,Consolas,monospace;"
    "font-size:13px;overflow-wrap:anywhere}\n"
    "table{border-collapse:collapse;width:100%}td,th{padding:3px 10px;text-align:right;"
    "vertical-align:top;border-bottom:1px solid #d4d9de}\n"
    "th:first-child,td:first-child{text-align:left;width:230px}td.w{text-align:left;"
    "font-size:13px}tr.s th{padding-top:14px;border-bottom:2px solid #59636e}\n"
    "tr.d td{background:#fbe3e6}tr.d td:first-child::before{content:\"≠ \";color:#b80f2a;"
    "font-weight:bold}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:0}dt{color:#59636e}"
    "dd{margin:0}\n"
    ".v{padding:8px 12px;border-left:4px solid #23763a;background:#eef6f0;margin:12px 0}"
    ".v.no{border-color:#b80f2a;background:#fbe3e6}\n"
    ".p{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px 20px}"
    ".p svg{display:block;width:100%;height:auto;break-inside:avoid}\n"
    "small{color:#59636e}\n"
    "@media screen and (prefers-color-scheme:dark){body{background:#15191e;color:#e4e8ec}"
    "td,th{border-color:#343c45}tr.s th{border-color:#9aa5b0}tr.d td{background:#4a1a22}"
    "dt,small{color:#9aa5b0}.v{background:#17301e}.v.no{background:#4a1a22}}\n"
    "@media print{body{font-size:11px;padding:0}code,td.w{font-size:9.5px}tr{break-inside:avoid}"
    "h2,h3{break-after:avoid}tr.s{break-after:avoid}@page{size:A4 landscape;margin:8mm}}\n";

static void add_term(struct text *to, const char *term, const char *value, bool code)
{
    text_add(to, "<dt>%s</dt><dd>%s", term, code ? "<code>" : "");
    text_add_xml(to, value);
    text_add(to, "%s</dd>\n", code ? "</code>" : "");
}

static void add_head(struct text *to, const struct settings *s, const struct run *runs,
                     const struct table *t)
{
    struct utsname u;
    char date[60];
    time_t now = time(NULL);
    struct tm tm;
    enum watch watch = WATCH_NONE;
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S %z", localtime_r(&now, &tm));
    text_add(to, "<h1>Kernel and user stack compared</h1>\n<dl>\n");
    add_term(to, "server", s->server ? s->server : "(none)", true);
    add_term(to, "client", s->client, true);
    add_term(to, "link", s->link ? s->link : "plain", false);
    if (uname(&u) == 0)
        add_term(to, "kernel", u.release, false);
    for (unsigned i = 0; i < t->pairs; i++)
        watch = runs[i].watch > watch ? runs[i].watch : watch;
    if (watch != WATCH_NONE)
        add_term(to, "kernel states", watch_text(watch), false);
    add_term(to, "captured", "on both hosts' interfaces, in the same way for all", false);
    add_term(to, "date", date, false);
    text_add(to, "</dl>\n<p class=\"v%s\">%s</p>\n", table_differs(t) ? " no" : "",
             table_differs(t) ? "Behaviour differs beyond timing, in the rows marked ≠."
                              : "Same behaviour: statuses, outputs, bytes, options, states, resets "
                                "and errors. What differs is timing.");
}

static bool is_long(const struct table_row *r, unsigned pairs)
{
    for (unsigned i = 0; i < pairs; i++)
        if (text_columns(r->text[i]) > 24)
            return true;
    return false;
}

static void add_table(struct text *to, const struct run *runs, const struct table *t)
{
    text_add(to, "<table>\n");
    for (size_t i = 0; i < t->n; i++) {
        const struct table_row *r = &t->rows[i];
        if (r->section) {
            text_add(to, "<tr class=\"s\"><th>%s</th>", r->section);
            for (unsigned k = 0; k < t->pairs; k++)
                text_add(to, "<th>%s</th>", pair_title(&runs[k]));
            text_add(to, "%s</tr>\n", t->pairs == 2 ? "<th></th>" : "");
        }
        text_add(to, "<tr%s><td>%s</td>", r->differs ? " class=\"d\"" : "", r->name);
        for (unsigned k = 0; k < t->pairs; k++) {
            text_add(to, "<td%s>", is_long(r, t->pairs) ? " class=\"w\"" : "");
            text_add_xml(to, r->text[k]);
            text_add(to, "</td>");
        }
        if (t->pairs == 2) {
            bool both = r->class >= ROW_COUNT && r->number[0] > 0 && r->number[1] >= 0;
            text_add(to, "<td>");
            if (both)
                text_add(to, "<small>%.2f×</small>", r->number[1] / r->number[0]);
            text_add(to, "</td>");
        }
        text_add(to, "</tr>\n");
    }
    text_add(to, "</table>\n<p><small>The first letter is the client's stack, the second the "
                 "server's: K the kernel, U the user stack. With several connections, times are "
                 "medians, and options and states the first one's.</small></p>\n");
}

static const struct flow *nth_flow(const struct run *r, unsigned n)
{
    return n < r->flows.n ? r->flows.items[n] : NULL;
}

/* The longest of the runs' transfers, so that plots have one scale. */
static int64_t span_of(const struct run *runs, unsigned pairs, unsigned n)
{
    int64_t span = 0;
    for (unsigned i = 0; i < pairs; i++) {
        const struct flow *f = nth_flow(&runs[i], n);
        for (size_t k = 0; f && k < f->n; k++)
            if (event_is_segment(f->items[k].e) && f->items[k].e->t - f->zero > span)
                span = f->items[k].e->t - f->zero;
    }
    return span;
}

static void add_ladders(struct text *to, const struct run *runs, unsigned pairs, unsigned n)
{
    text_add(to, "<div class=\"p\">\n");
    for (unsigned i = 0; i < pairs; i++) {
        const struct flow *f = nth_flow(&runs[i], n);
        const struct ladder_options o = {.show = SHOW_DEFAULT & ~(unsigned)SHOW_HELD,
                                         .narrow = true,
                                         .from = TIME_NONE,
                                         .to = TIME_NONE,
                                         .page = PIECE_HEIGHT};
        text_add(to, "<div><h3>%s</h3>\n", pair_title(&runs[i]));
        if (f)
            ladder_draw(to, f, &o);
        else
            text_add(to, "<p>no such connection</p>");
        text_add(to, "</div>\n");
    }
    text_add(to, "</div>\n");
}

static void add_plots(struct text *to, const struct run *runs, unsigned pairs, unsigned n)
{
    int64_t span = span_of(runs, pairs, n);
    int sender = CLIENT;
    const struct flow *first = nth_flow(&runs[0], n);
    if (first && first->bytes[SERVER] > first->bytes[CLIENT])
        sender = SERVER;
    text_add(to, "<div class=\"p\">\n");
    for (int kind = 0; kind < 2; kind++)
        for (unsigned i = 0; i < pairs; i++) {
            const struct flow *f = nth_flow(&runs[i], n);
            const struct plot_options o = {
                .sender = sender, .narrow = true, .title = pair_title(&runs[i]), .span = span};
            if (f)
                (kind == 0 ? plot_sequence : plot_congestion)(to, f, &o);
            else
                text_add(to, "<p></p>");
        }
    text_add(to, "</div>\n");
}

void report_html(struct text *to, const struct settings *s, const struct run *runs,
                 const struct table *t)
{
    text_add(to, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                 "<meta name=\"viewport\" content=\"width=device-width\">\n"
                 "<title>tcpshim compare</title>\n<style>\n");
    text_add(to, "%s%s</style></head><body>\n", page_style, svg_style);
    add_head(to, s, runs, t);
    text_add(to, "<h2>What was measured</h2>\n");
    add_table(to, runs, t);
    for (unsigned n = 0; n < DRAWN_MAX; n++) {
        bool any = false;
        for (unsigned i = 0; i < t->pairs; i++)
            any |= nth_flow(&runs[i], n) != NULL;
        if (!any)
            break;
        text_add(to, "<h2>Connection %u: who sent what</h2>\n", n + 1);
        add_ladders(to, runs, t->pairs, n);
        text_add(to, "<h2>Connection %u over time</h2>\n", n + 1);
        add_plots(to, runs, t->pairs, n);
    }
    text_add(to, "</body></html>\n");
}
