/* What compare found, on the terminal and as JSON (compare.h). */
#define _GNU_SOURCE
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "shim/command/compare/compare.h"
#include "shim/command/term.h"

#define NAME_WIDTH 28

const char *pair_title(const struct run *r)
{
    static char titles[4][4];
    static unsigned next;
    char *title = titles[next++ % 4];
    snprintf(title, sizeof(titles[0]), "%c-%c", toupper((unsigned char)r->name[0]),
             toupper((unsigned char)r->name[1]));
    return title;
}

const char *watch_text(enum watch watch)
{
    switch (watch) {
    case WATCH_TRACEPOINT:
        return "tracepoint sock:inet_sock_set_state (TIME_WAIT: sock_diag)";
    case WATCH_SOCK_DIAG:
        return "sock_diag, each millisecond: shorter ones are missed";
    default:
        return "not watched";
    }
}

static bool all_same(const struct table_row *r, unsigned pairs)
{
    for (unsigned i = 1; i < pairs; i++)
        if (strcmp(r->text[0], r->text[i]) != 0)
            return false;
    return true;
}

/* "1.32x" of the second number to the first. */
static void ratio(char *out, size_t size, const struct table_row *r, unsigned pairs)
{
    *out = '\0';
    if (pairs == 2 && r->class >= ROW_COUNT && r->number[0] > 0 && r->number[1] >= 0)
        snprintf(out, size, r->number[1] / r->number[0] < 99.5 ? "%.2fx" : "%.0fx",
                 r->number[1] / r->number[0]);
}

/* A value that is too long for a column has lines of its own. */
static void print_long(const struct run *runs, const struct table_row *r, unsigned pairs,
                       unsigned width)
{
    bool same = all_same(r, pairs);
    putchar('\n');
    for (unsigned i = 0; i < (same ? 1 : pairs); i++) {
        const char *s = r->text[i];
        unsigned at = (unsigned)printf("      %-5s", same ? "all" : pair_title(&runs[i]));
        const unsigned indent = at;
        while (*s) {
            size_t n = strcspn(s + (*s == ' '), " ") + (*s == ' ');
            char word[80];
            snprintf(word, sizeof(word), "%.*s", (int)n, s);
            if (at + text_columns(word) > width && at > indent) {
                printf("\n%*s", (int)indent + 2, "");
                at = indent + 2;
                memmove(word, word + (*word == ' '), strlen(word + (*word == ' ')) + 1);
            }
            at += (unsigned)text_columns(word);
            fputs(word, stdout);
            s += n;
        }
        putchar('\n');
    }
}

static void print_row(const struct run *runs, const struct table_row *r, unsigned pairs,
                      unsigned width)
{
    unsigned column = (width - NAME_WIDTH - 2 - (pairs == 2 ? 7 : 0)) / pairs;
    bool fits = true;
    char times[16];
    column = column > 22 ? 22 : column;
    for (unsigned i = 0; i < pairs; i++)
        fits &= text_columns(r->text[i]) < column;
    printf("%s%s %-*s%s", r->differs ? term_style(stdout, STYLE_RED) : "", r->differs ? "≠" : " ",
           NAME_WIDTH, r->name, r->differs ? term_style(stdout, STYLE_PLAIN) : "");
    if (!fits) {
        print_long(runs, r, pairs, width);
        return;
    }
    for (unsigned i = 0; i < pairs; i++)
        printf("%*s%s", (int)(column - text_columns(r->text[i])), "", r->text[i]);
    ratio(times, sizeof(times), r, pairs);
    if (times[0])
        printf("%s%7s%s", term_style(stdout, STYLE_DIM), times, term_style(stdout, STYLE_PLAIN));
    putchar('\n');
}

void report_table(const struct settings *s, const struct run *runs, const struct table *t)
{
    unsigned width = term_width(stdout);
    const char *bold = term_style(stdout, STYLE_BOLD), *plain = term_style(stdout, STYLE_PLAIN);
    width = width > 110 ? 110 : width < 60 ? 60 : width;
    unsigned column = (width - NAME_WIDTH - 2 - (t->pairs == 2 ? 7 : 0)) / t->pairs;
    column = column > 22 ? 22 : column;
    printf("server  %s\nclient  %s\nlink    %s\n", s->server ? s->server : "(none)", s->client,
           s->link ? s->link : "plain");
    for (size_t i = 0; i < t->n; i++) {
        const struct table_row *r = &t->rows[i];
        if (r->section) {
            printf("\n%s  %-*s", bold, NAME_WIDTH, r->section);
            for (unsigned k = 0; k < t->pairs; k++)
                printf("%*s", (int)column, pair_title(&runs[k]));
            printf("%s\n", plain);
        }
        print_row(runs, r, t->pairs, width);
    }
    enum watch watch = WATCH_NONE;
    for (unsigned i = 0; i < t->pairs; i++)
        watch = runs[i].watch > watch ? runs[i].watch : watch;
    printf("\nClient first: K-U is a client on the kernel and a server on the user stack.\n");
    if (watch != WATCH_NONE)
        printf("Kernel states: %s.\n", watch_text(watch));
    for (unsigned i = 0; i < t->pairs; i++)
        if (runs[i].capture_lost > 0)
            printf("%s: the capture missed %llu segments.\n", pair_title(&runs[i]),
                   (unsigned long long)runs[i].capture_lost);
    printf("%s%s%s\n", bold,
           table_differs(t) ? "Behaviour differs (≠), beyond timing."
                            : "Same behaviour; what differs is timing.",
           plain);
}

void report_json(const struct settings *s, const struct run *runs, const struct table *t)
{
    json_t *root = json_object(), *rows = json_array(), *watched = json_object();
    static const char *const classes[] = {"result", "protocol", "count", "time"};
    json_object_set_new(root, "v", json_integer(1));
    json_object_set_new(root, "server", s->server ? json_string(s->server) : json_null());
    json_object_set_new(root, "client", json_string(s->client));
    json_object_set_new(root, "link", json_string(s->link ? s->link : "plain"));
    json_object_set_new(root, "differs", json_boolean(table_differs(t)));
    for (unsigned i = 0; i < t->pairs; i++)
        if (runs[i].watch != WATCH_NONE)
            json_object_set_new(
                watched, runs[i].name,
                json_string(runs[i].watch == WATCH_TRACEPOINT ? "tracepoint" : "sock_diag"));
    json_object_set_new(root, "kernel_states", watched);
    for (size_t i = 0; i < t->n; i++) {
        const struct table_row *r = &t->rows[i];
        json_t *o = json_object(), *values = json_object();
        json_object_set_new(o, "id", json_string(r->id));
        json_object_set_new(o, "name", json_string(r->name));
        json_object_set_new(o, "class", json_string(classes[r->class]));
        json_object_set_new(o, "differs", json_boolean(r->differs));
        for (unsigned k = 0; k < t->pairs; k++)
            json_object_set_new(values, runs[k].name,
                                isnan(r->number[k]) ? json_string(r->text[k])
                                                    : json_real(r->number[k]));
        json_object_set_new(o, "values", values);
        json_array_append_new(rows, o);
    }
    json_object_set_new(root, "rows", rows);
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}
