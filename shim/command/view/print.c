/* Events as lines for a terminal (print.h). */
#define _GNU_SOURCE
#include "shim/command/view/print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shim/command/term.h"
#include "shim/command/view/words.h"

#define SECOND INT64_C(1000000000)
/* Times of day that are believed: up to 2100. */
#define WALL_MAX   INT64_C(4102444800)
#define WORD_WIDTH 6 /* of "state", "call", "buffer" */
#define WHO_MIN    7
/* How long a call took is said from here on. */
#define LONG_CALL 100000
#define TEXT_MIN  24 /* columns left for the text, also on a narrow terminal */

static const char *style(const struct printer *p, enum style s)
{
    return p->colored ? term_style(p->to, s) : "";
}

/* A connection whose addresses were printed. */
struct introduced {
    int pid;
    uint32_t conn;
    const char *local, *peer;
};

/* ---- times ---- */

static void put_wall(char *out, size_t size, int64_t t)
{
    time_t s = (time_t)(t / SECOND);
    struct tm tm;
    localtime_r(&s, &tm);
    snprintf(out, size, "%02d:%02d:%02d.%06d", tm.tm_hour, tm.tm_min, tm.tm_sec,
             (int)(t % SECOND / 1000));
}

static void put_time(struct printer *p, char *out, size_t size, int64_t t)
{
    int64_t from = p->time == PRINT_RELATIVE ? p->zero : p->time == PRINT_DELTA ? p->last : 0;
    int64_t wall;
    if (p->time == PRINT_WALL && p->wall_offset != 0 &&
        !__builtin_add_overflow(t, p->wall_offset, &wall))
        put_wall(out, size, wall);
    else
        snprintf(out, size, "%.6f", (double)(t - from) / 1e9);
    p->last = t;
}

/* The time of day in a trace's first line gives the distance of the two clocks. */
static void learn_wall(struct printer *p, const struct event *e)
{
    struct tm tm = {0};
    const char *rest = e->error ? strptime(e->error, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!rest)
        return;
    double fraction = *rest == '.' ? strtod(rest, NULL) : 0;
    const int64_t seconds = timegm(&tm);
    if (seconds < 0 || seconds > WALL_MAX || !(fraction >= 0 && fraction < 1))
        return;
    p->wall_offset = seconds * SECOND + (int64_t)(fraction * 1e9) - e->t;
}

/* ---- text ---- */

/* A member's value: strings bare, times of the schema in their own unit. */
static void add_value(struct text *to, const json_t *v)
{
    if (json_is_string(v)) {
        text_add(to, "%s", json_string_value(v));
    } else if (json_is_real(v)) {
        char d[32];
        const double ns = json_real_value(v) * 1e9;
        text_add(to, "%s",
                 duration_format(d, sizeof(d), (int64_t)(ns > -9e18 && ns < 9e18 ? ns : 0)));
    } else {
        char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        text_add(to, "%s", s ? s : "?");
        free(s);
    }
}

static bool is_common(const char *key)
{
    static const char *const common[] = {"t",    "pid", "class", "ev",     "conn", "local",
                                         "peer", "why", "v",     "why_id", "err",  "begin"};
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        if (strcmp(key, common[i]) == 0)
            return true;
    return false;
}

static void add_members(struct text *to, const json_t *object)
{
    const char *between = "";
    for (void *i = json_object_iter((json_t *)object); i;
         i = json_object_iter_next((json_t *)object, i)) {
        const char *key = json_object_iter_key(i);
        if (is_common(key))
            continue;
        text_add(to, "%s%s=", between, key);
        add_value(to, json_object_iter_value(i));
        between = " ";
    }
}

static void add_number(struct text *to, const json_t *o, const char *word, const char *relative,
                       const char *absolute)
{
    const json_t *v = json_object_get(o, relative);
    if (!v)
        v = json_object_get(o, absolute);
    if (v)
        text_add(to, " %s %" JSON_INTEGER_FORMAT, word, json_integer_value(v));
}

static void add_segment(struct text *to, const struct event *e, const json_t *o)
{
    char flags[40];
    flags_format(flags, e->flags);
    text_add(to, "%s", flags);
    add_number(to, o, "seq", "seq_rel", "seq");
    if (e->flags & FLAG_ACK)
        add_number(to, o, "ack", "ack_rel", "ack");
    if (e->len > 0)
        text_add(to, " len %u", e->len);
    text_add(to, " win %" PRIu64, e->wnd);
    /* SACK blocks count as the ACK does */
    uint32_t base = e->ack - (uint32_t)json_integer_value(json_object_get(o, "ack_rel"));
    struct text options = {0};
    options_format(&options, &e->opt, json_object_get(o, "ack_rel") ? base : 0,
                   e->flags & FLAG_SYN);
    if (options.n > 0)
        text_add(to, " %s", options.s);
    text_free(&options);
}

static json_int_t member(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* "2000 bytes out of 2 segments: 203 (1448), 1651 (552 of 700)": where a recv()'s bytes came from.
 */
static void add_origins(struct text *to, const struct event *e, const json_t *o)
{
    const json_t *from = json_object_get(o, "from"), *run;
    size_t i;
    text_add(to, "%" PRIu64 " bytes out of %" JSON_INTEGER_FORMAT " segment%s:", e->bytes,
             member(o, "segments"), member(o, "segments") == 1 ? "" : "s");
    json_array_foreach((json_t *)from, i, run)
    {
        json_int_t len = member(run, "len"), of = member(run, "of");
        const char *key = json_object_get(run, "seq_rel") ? "seq_rel" : "seq";
        text_add(to, "%s %" JSON_INTEGER_FORMAT " (%" JSON_INTEGER_FORMAT, i > 0 ? "," : "",
                 member(run, key), len);
        if (of > len)
            text_add(to, " of %" JSON_INTEGER_FORMAT, of);
        text_add(to, ")");
    }
}

/* "loss-probe: set, in 203 ms" */
static void add_timer(struct text *to, const struct event *e, const json_t *o)
{
    char d[32];
    const json_t *in = json_object_get(o, "in");
    text_add(to, "%s: ", e->timer);
    if (in)
        text_add(to, "set, in %s",
                 duration_format(d, sizeof(d), (int64_t)(json_number_value(in) * 1e9)));
    else
        text_add(to, "%s", e->kind == EV_TIMER ? "fires" : "cancelled");
}

/* What happened; *why is set to what stands behind it, NULL where there is nothing. */
static void add_text(struct text *to, const struct event *e, const json_t *o, const char **why)
{
    *why = e->why && *e->why ? e->why : NULL;
    if (event_is_segment(e)) {
        add_segment(to, e, o);
    } else if (e->kind == EV_STATE && e->from && e->to) {
        text_add(to, "%s → %s", e->from, e->to);
    } else if (e->kind == EV_CALL) {
        words_call(to, e, true);
        char d[32];
        if (e->begin != TIME_NONE && e->t - e->begin >= LONG_CALL)
            text_add(to, ", after %s", duration_format(d, sizeof(d), e->t - e->begin));
    } else if (words_queue(to, e)) {
        if (e->kind == EV_REFUSED || e->kind == EV_SYN_DROPPED)
            *why = NULL; /* is in the words */
    } else if (strcmp(e->name, "recv-from") == 0) {
        add_origins(to, e, o);
    } else if (e->timer && strncmp(e->name, "timer", 5) == 0) {
        add_timer(to, e, o);
    } else if (!words_buffer(to, e)) {
        if (e->class && strcmp(e->name, e->class) != 0)
            text_add(to, "%s ", e->name);
        add_members(to, o);
    }
}

static enum style style_of(const struct event *e)
{
    if (e->error || e->kind == EV_REFUSED || e->kind == EV_SYN_DROPPED || e->kind == EV_TIMER ||
        (event_is_segment(e) && e->flags & FLAG_RST))
        return STYLE_RED;
    if (e->kind == EV_STATE)
        return STYLE_BOLD;
    if (e->kind == EV_TX)
        return STYLE_CYAN;
    if (e->kind == EV_RX)
        return STYLE_GREEN;
    if (e->class && strcmp(e->class, "queue") == 0)
        return STYLE_YELLOW;
    return e->kind == EV_CALL ? STYLE_PLAIN : STYLE_DIM;
}

/* ---- lines ---- */

/* Bytes of s that fit into `columns`, broken at a blank where there is one. */
static size_t line_bytes(const char *s, unsigned columns)
{
    size_t blank = 0, n = 0;
    for (unsigned used = 0; s[n]; n++) {
        if (((unsigned char)s[n] & 0xC0) != 0x80 && used++ == columns)
            return blank > 0 ? blank : n;
        if (s[n] == ' ')
            blank = n;
    }
    return n;
}

/* Text from column `at` on, folded there. Ends without the end of line; returns the column reached.
 */
static unsigned put_folded(struct printer *p, const char *s, unsigned indent, unsigned at,
                           const char *style, const char *plain)
{
    while (*s) {
        unsigned room = p->width == 0 ? UINT32_MAX : p->width > at ? p->width - at : 0;
        size_t n = line_bytes(s, room);
        size_t whole = text_columns(s);
        if (n == 0 ||
            (n < strlen(s) && whole > room && at > indent && whole + indent <= p->width)) {
            fprintf(p->to, "\n%*s", (int)indent, "");
            at = indent;
            continue;
        }
        fprintf(p->to, "%s%.*s%s", style, (int)n, s, plain);
        at += (unsigned)text_columns(s) - (unsigned)text_columns(s + n);
        s += n;
        while (*s == ' ')
            s++;
        if (*s) {
            fprintf(p->to, "\n%*s", (int)indent, "");
            at = indent;
        }
    }
    return at;
}

/* A word for the column before the text. */
static const char *word_of(const struct event *e)
{
    if (event_is_segment(e) || e->kind == EV_HELD)
        return e->name;
    return e->class ? e->class : e->name;
}

/* The addresses of a connection are printed once, before its first event. */
static void introduce(struct printer *p, const struct event *e, const char *who)
{
    for (size_t i = p->nintroduced; i-- > 0;) {
        struct introduced *k = &p->introduced[i];
        if (k->pid != e->pid || k->conn != e->conn)
            continue;
        if (k->local == e->local && k->peer == e->peer)
            return;
        break;
    }
    p->introduced = must_alloc(p->introduced, (p->nintroduced + 1) * sizeof(*p->introduced));
    p->introduced[p->nintroduced++] =
        (struct introduced){.pid = e->pid, .conn = e->conn, .local = e->local, .peer = e->peer};
    fprintf(p->to, "%s-- %s is %s%s%s%s\n", style(p, STYLE_DIM), who, e->local,
            e->peer ? " → " : "", e->peer ? e->peer : "", style(p, STYLE_PLAIN));
}

static void print_process(struct printer *p, const struct event *e)
{
    learn_wall(p, e);
    const char *bold = style(p, STYLE_BOLD), *plain = style(p, STYLE_PLAIN);
    fprintf(p->to, "%s== %s, process %d%s%s%s\n", bold, e->args ? e->args : "?", e->pid,
            e->error ? ", " : "", e->error ? e->error : "", plain);
}

void print_event(struct printer *p, const struct event *e, const json_t *object)
{
    const char *plain = style(p, STYLE_PLAIN);
    if (e->kind == EV_TRACE) {
        print_process(p, e);
        return;
    }
    if (e->kind == EV_LOST) {
        fprintf(p->to,
                "%s== %" PRIu64 " events were lost here: the program was faster than the file%s\n",
                style(p, STYLE_RED), e->bytes, plain);
        return;
    }
    char time[40], who[32];
    put_time(p, time, sizeof(time), e->t);
    int n = e->conn ? snprintf(who, sizeof(who), "%d#%u", e->pid, e->conn)
                    : snprintf(who, sizeof(who), "%d", e->pid);
    if (e->conn && e->local)
        introduce(p, e, who);
    if (p->who_width < WHO_MIN)
        p->who_width = WHO_MIN;
    if (n > 0 && (unsigned)n > p->who_width)
        p->who_width = (unsigned)n;
    unsigned time_width = p->time == PRINT_WALL ? 15 : 10;
    int used = fprintf(p->to, "%*s %-*s %-*s ", (int)time_width, time, (int)p->who_width, who,
                       WORD_WIDTH, word_of(e));
    unsigned indent = used > 0 ? (unsigned)used : 0;
    if (p->width > 0 && indent + TEXT_MIN > p->width) {
        fputs("\n    ", p->to);
        indent = 4;
    }
    struct text text = {0};
    const char *why, *set = style(p, style_of(e));
    add_text(&text, e, object, &why);
    if (text.s)
        make_printable(text.s);
    if (style_of(e) == STYLE_PLAIN)
        set = plain = "";
    unsigned at = put_folded(p, text.s ? text.s : "", indent, indent, set, plain);
    if (why) {
        bool fits = p->width == 0 || at + 2 + text_columns(why) <= p->width;
        if (fits)
            fputs("  ", p->to);
        else
            fprintf(p->to, "\n%*s", (int)indent, "");
        at = fits ? at + 2 : indent;
        put_folded(p, why, indent, at, style(p, STYLE_DIM), style(p, STYLE_PLAIN));
    }
    fputc('\n', p->to);
    text_free(&text);
}

void printer_free(struct printer *p)
{
    free(p->introduced);
    p->introduced = NULL;
    p->nintroduced = 0;
}
