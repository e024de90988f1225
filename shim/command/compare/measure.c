/* Numbers out of the flows of each run, row by row, and which of them differ (compare.h). */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "shim/command/compare/compare.h"

/* What is summed up over all connections of a run. */
struct sums {
    unsigned connections;
    uint64_t segments[2], data[2], acks[2], bytes[2], again[2], lost[2], resets[2], sacks[2],
        zero_windows[2];
    uint32_t largest[2];
};

struct sample_list {
    double *items;
    size_t n, room;
};

static void sample(struct sample_list *l, double v)
{
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 16;
        l->items = must_alloc(l->items, l->room * sizeof(double));
    }
    l->items[l->n++] = v;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median, and the list is empty again; NAN where there was nothing. */
static double median(struct sample_list *l)
{
    double m = NAN;
    if (l->n > 0) {
        qsort(l->items, l->n, sizeof(double), by_value);
        m = l->n % 2 ? l->items[l->n / 2] : (l->items[l->n / 2 - 1] + l->items[l->n / 2]) / 2;
    }
    free(l->items);
    *l = (struct sample_list){0};
    return m;
}

/* ---- rows ---- */

static struct table_row *row(struct table *t, const char *section, enum row_class class,
                             const char *id, const char *name)
{
    if (t->n == t->room) {
        t->room = t->room ? t->room * 2 : 64;
        t->rows = must_alloc(t->rows, t->room * sizeof(*t->rows));
    }
    struct table_row *r = &t->rows[t->n++];
    *r = (struct table_row){.section = section, .class = class};
    snprintf(r->id, sizeof(r->id), "%s", id);
    snprintf(r->name, sizeof(r->name), "%s", name);
    for (int i = 0; i < PAIRS_MAX; i++)
        r->number[i] = NAN;
    return r;
}

static void set_text(struct table_row *r, unsigned pair, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void set_text(struct table_row *r, unsigned pair, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    free(r->text[pair]);
    if (vasprintf(&r->text[pair], format, args) < 0)
        r->text[pair] = NULL;
    va_end(args);
}

static void set_count(struct table_row *r, unsigned pair, uint64_t v)
{
    r->number[pair] = (double)v;
    set_text(r, pair, "%" PRIu64, v);
}

/* Seconds; NAN: nothing to tell. */
static void set_time(struct table_row *r, unsigned pair, double s)
{
    char text[32];
    r->number[pair] = s;
    set_text(r, pair, "%s",
             isnan(s) ? "-" : duration_format(text, sizeof(text), (int64_t)(s * 1e9)));
}

/* ---- the programs ---- */

static void set_status(struct table_row *r, unsigned pair, int status, const char *note)
{
    if (status == -1)
        set_text(r, pair, "-");
    else if (WIFSIGNALED(status))
        set_text(r, pair, "signal %d%s", WTERMSIG(status), note);
    else
        set_text(r, pair, "%d%s", WEXITSTATUS(status), note);
}

static void program_rows(struct table *t, const struct run *runs)
{
    struct table_row *status =
        row(t, "programs", ROW_RESULT, "client_status", "client's exit status");
    for (unsigned i = 0; i < t->pairs; i++)
        set_status(status, i, runs[i].client_status, runs[i].client_late ? " (not in time)" : "");
    struct table_row *output = row(t, NULL, ROW_RESULT, "client_output", "client's output");
    for (unsigned i = 0; i < t->pairs; i++)
        set_text(output, i, "%" PRIu64 " B, %08x", runs[i].output_bytes,
                 (unsigned)(runs[i].output_hash ^ runs[i].output_hash >> 32));
    struct table_row *server = row(t, NULL, ROW_RESULT, "server_status", "server's exit status");
    for (unsigned i = 0; i < t->pairs; i++)
        set_status(server, i, runs[i].server_status, runs[i].server_died ? " (by itself)" : "");
    struct table_row *time = row(t, NULL, ROW_TIME, "client_time", "client ran");
    for (unsigned i = 0; i < t->pairs; i++)
        set_time(time, i, (double)(runs[i].client_end - runs[i].client_begin) / 1e9);
}

/* ---- sums ---- */

/* Where a segment left, or where it arrived when its leaving was not seen. */
static bool counted(const struct flow_event *x)
{
    return event_is_segment(x->e) && (x->e->kind == EV_TX || x->match == NO_MATCH);
}

static void add_flow(struct sums *s, const struct flow *f)
{
    uint32_t text[2] = {0, 0}; /* bytes, each once */
    s->connections++;
    for (size_t i = 0; i < f->n; i++) {
        const struct flow_event *x = &f->items[i];
        const struct event *e = x->e;
        if (!counted(x) || e->kind != EV_TX)
            continue;
        int side = x->side;
        s->segments[side]++;
        s->data[side] += e->len > 0;
        s->acks[side] += flow_pure_ack(e);
        s->again[side] += x->again;
        s->lost[side] += x->lost;
        s->resets[side] += (e->flags & FLAG_RST) != 0;
        s->sacks[side] += e->opt.nsack > 0;
        s->zero_windows[side] += e->wnd == 0 && !(e->flags & FLAG_RST);
        if (e->len > s->largest[side])
            s->largest[side] = e->len;
        uint32_t end = flow_seq(f, x) + e->len - 1; /* the first byte has number 1 */
        if (e->len > 0 && end > text[side] && end - text[side] < 1U << 31)
            text[side] = end;
    }
    s->bytes[CLIENT] += text[CLIENT];
    s->bytes[SERVER] += text[SERVER];
}

/* A row for each side out of an array of the sums. */
static void side_rows(struct table *t, const char *section, enum row_class class, const char *id,
                      const char *name, const struct sums *sums, size_t offset)
{
    for (int side = 0; side < 2; side++) {
        char full_id[40], full_name[64];
        snprintf(full_id, sizeof(full_id), "%s_%s", side == CLIENT ? "client" : "server", id);
        snprintf(full_name, sizeof(full_name), "%s: %s", side == CLIENT ? "client" : "server",
                 name);
        bool any = false;
        for (unsigned i = 0; i < t->pairs; i++)
            any |= *(const uint64_t *)((const char *)&sums[i] + offset + (size_t)side * 8) > 0;
        if (!any && class != ROW_RESULT)
            continue; /* a row of zeros tells nothing */
        struct table_row *r = row(t, side == CLIENT ? section : NULL, class, full_id, full_name);
        for (unsigned i = 0; i < t->pairs; i++)
            set_count(r, i,
                      *(const uint64_t *)((const char *)&sums[i] + offset + (size_t)side * 8));
    }
}

static void traffic_rows(struct table *t, const struct sums *s)
{
    struct table_row *c = row(t, "traffic", ROW_RESULT, "connections", "connections");
    for (unsigned i = 0; i < t->pairs; i++)
        set_count(c, i, s[i].connections);
    side_rows(t, NULL, ROW_RESULT, "bytes", "bytes sent", s, offsetof(struct sums, bytes));
    side_rows(t, NULL, ROW_PROTOCOL, "resets", "resets sent", s, offsetof(struct sums, resets));
    side_rows(t, NULL, ROW_COUNT, "segments", "segments", s, offsetof(struct sums, segments));
    side_rows(t, NULL, ROW_COUNT, "data_segments", "with data", s, offsetof(struct sums, data));
    side_rows(t, NULL, ROW_COUNT, "pure_acks", "pure ACKs", s, offsetof(struct sums, acks));
    for (int side = 0; side < 2; side++) {
        struct table_row *r =
            row(t, NULL, ROW_COUNT, side == CLIENT ? "client_ack_ratio" : "server_ack_ratio",
                side == CLIENT ? "client: segments per ACK" : "server: segments per ACK");
        for (unsigned i = 0; i < t->pairs; i++) {
            r->number[i] =
                s[i].acks[side] > 0 ? (double)s[i].data[!side] / (double)s[i].acks[side] : NAN;
            set_text(r, i, s[i].acks[side] > 0 ? "%.2f" : "-", r->number[i]);
        }
    }
    for (int side = 0; side < 2; side++) {
        struct table_row *r =
            row(t, NULL, ROW_COUNT, side == CLIENT ? "client_mean_size" : "server_mean_size",
                side == CLIENT ? "client: mean, largest size" : "server: mean, largest size");
        for (unsigned i = 0; i < t->pairs; i++) {
            r->number[i] =
                s[i].data[side] > 0 ? (double)s[i].bytes[side] / (double)s[i].data[side] : NAN;
            if (s[i].data[side] > 0)
                set_text(r, i, "%.0f, %u", r->number[i], s[i].largest[side]);
            else
                set_text(r, i, "-");
        }
    }
    side_rows(t, NULL, ROW_COUNT, "sent_again", "sent again", s, offsetof(struct sums, again));
    side_rows(t, NULL, ROW_COUNT, "lost", "lost on the link", s, offsetof(struct sums, lost));
    side_rows(t, NULL, ROW_COUNT, "sacks", "ACKs with SACK", s, offsetof(struct sums, sacks));
    side_rows(t, NULL, ROW_COUNT, "zero_windows", "zero windows", s,
              offsetof(struct sums, zero_windows));
}

/* ---- the handshake ---- */

static const struct flow *first_flow(const struct run *r)
{
    for (size_t i = 0; i < r->flows.n; i++)
        if (r->flows.items[i]->side[CLIENT].syn_seen)
            return r->flows.items[i];
    return NULL;
}

static uint64_t syn_window(const struct flow *f, int side)
{
    for (size_t i = 0; i < f->n; i++)
        if (event_is_segment(f->items[i].e) && f->items[i].e->flags & FLAG_SYN &&
            flow_sender(&f->items[i]) == side)
            return f->items[i].e->wnd;
    return 0;
}

static void set_options(struct table_row *r, unsigned pair, const struct flow_side *s)
{
    struct text text = {0};
    if (s->syn.has_mss)
        text_add(&text, "mss %u, ", s->syn.mss);
    text_add(&text, "%s%s%s", s->syn.has_wscale ? "wscale, " : "", s->syn.sack_ok ? "SACK, " : "",
             s->syn.has_ts ? "TS, " : "");
    if (text.n > 2)
        text.s[text.n - 2] = '\0';
    set_text(r, pair, "%s", !s->syn_seen ? "-" : text.n > 0 ? text.s : "none");
    text_free(&text);
}

/* What a side offers to receive: the window of its SYN, and the shift of those to come. */
static void set_window(struct table_row *r, unsigned pair, const struct flow *f, int side)
{
    const struct options_seen *o = &f->side[side].syn;
    r->number[pair] = (double)syn_window(f, side);
    set_text(r, pair, o->has_wscale ? "%.0f, scale %u" : "%.0f", r->number[pair], o->wscale);
}

static void handshake_rows(struct table *t, const struct run *runs)
{
    for (int side = 0; side < 2; side++) {
        struct table_row *o = row(t, side == CLIENT ? "handshake" : NULL, ROW_PROTOCOL,
                                  side == CLIENT ? "syn_options" : "syn_ack_options",
                                  side == CLIENT ? "options of the SYN" : "options of the SYN,ACK");
        for (unsigned i = 0; i < t->pairs; i++) {
            const struct flow *f = first_flow(&runs[i]);
            if (f)
                set_options(o, i, &f->side[side]);
        }
        struct table_row *w =
            row(t, NULL, ROW_COUNT, side == CLIENT ? "syn_window" : "syn_ack_window",
                side == CLIENT ? "window of the SYN" : "window of the SYN,ACK");
        for (unsigned i = 0; i < t->pairs; i++) {
            const struct flow *f = first_flow(&runs[i]);
            if (f && f->side[side].syn_seen)
                set_window(w, i, f, side);
        }
    }
}

/* ---- states ---- */

#define UNKNOWN "?" /* nobody could see it */

/* sock_diag shows the kernel's states that last a millisecond or more, and no errors. */
static bool glimpsed(const struct run *r, int side)
{
    return !run_user(r, side) && r->watch != WATCH_TRACEPOINT;
}

/* What was seen; where there is nothing: whether nobody could see it, or there was none. Frees it.
 */
static void set_seen(struct table_row *r, unsigned pair, struct text *seen, bool unknown,
                     const char *none)
{
    set_text(r, pair, "%s", seen->n > 0 ? seen->s : unknown ? UNKNOWN : none);
    text_free(seen);
}

static const char *const state_order[] = {"SYN_SENT",   "SYN_RECEIVED", "ESTABLISHED",
                                          "FIN_WAIT_1", "FIN_WAIT_2",   "CLOSE_WAIT",
                                          "CLOSING",    "LAST_ACK",     "TIME_WAIT"};

static bool walks(const struct flow_event *x, int side)
{
    const struct event *e = x->e;
    return e->kind == EV_STATE && x->side == side && e->to && e->to != e->from &&
           strcmp(e->to, "LISTEN") != 0;
}

/* The states of one side, as they were walked. */
static void add_walk(struct text *to, const struct flow *f, int side)
{
    const char *last = NULL;
    for (size_t i = 0; i < f->n; i++) {
        if (!walks(&f->items[i], side))
            continue;
        const struct event *e = f->items[i].e;
        if (!last)
            text_add(to, "%s", e->from);
        text_add(to, " → %s", e->to);
        last = e->to;
    }
}

static void walk_rows(struct table *t, const struct run *runs)
{
    for (int side = 0; side < 2; side++) {
        struct table_row *r = row(t, side == CLIENT ? "states" : NULL, ROW_PROTOCOL,
                                  side == CLIENT ? "client_states" : "server_states",
                                  side == CLIENT ? "client's states" : "server's states");
        for (unsigned i = 0; i < t->pairs; i++) {
            const struct flow *f = first_flow(&runs[i]);
            struct text walk = {0};
            if (f)
                add_walk(&walk, f, side);
            set_seen(r, i, &walk, f && glimpsed(&runs[i], side), "-");
        }
    }
}

/* The time that the side of a run spent in a state. *most: it is not known when it ended, only that
 * it was not later (sock_diag found the next state at some time). */
static double time_in_state(const struct run *r, int side, const char *state, bool *most)
{
    struct sample_list l = {0};
    for (size_t i = 0; i < r->flows.n; i++) {
        const struct flow *f = r->flows.items[i];
        int64_t since = TIME_NONE;
        for (size_t k = 0; k < f->n; k++) {
            if (!walks(&f->items[k], side))
                continue;
            const struct event *e = f->items[k].e;
            if (since != TIME_NONE) {
                sample(&l, (double)(e->t - since) / 1e9);
                *most |= e->why_id && strcmp(e->why_id, "sock_diag") == 0;
            }
            since = strcmp(e->to, state) == 0 ? e->t : TIME_NONE;
        }
    }
    return median(&l);
}

static void state_time_rows(struct table *t, const struct run *runs)
{
    for (int side = 0; side < 2; side++)
        for (size_t s = 0; s < sizeof(state_order) / sizeof(state_order[0]); s++) {
            double times[PAIRS_MAX];
            bool any = false, most[PAIRS_MAX] = {false};
            for (unsigned i = 0; i < t->pairs; i++) {
                times[i] = time_in_state(&runs[i], side, state_order[s], &most[i]);
                any |= !isnan(times[i]);
            }
            if (!any)
                continue;
            char id[40], name[64];
            snprintf(id, sizeof(id), "%s_in_%s", side == CLIENT ? "client" : "server",
                     state_order[s]);
            snprintf(name, sizeof(name), "%s in %s", side == CLIENT ? "client" : "server",
                     state_order[s]);
            struct table_row *r = row(t, NULL, ROW_TIME, id, name);
            for (unsigned i = 0; i < t->pairs; i++) {
                char text[32];
                set_time(r, i, times[i]);
                if (most[i])
                    set_text(r, i, "≤ %s",
                             duration_format(text, sizeof(text), (int64_t)(times[i] * 1e9)));
            }
        }
}

/* ---- errors ---- */

/* Errors that the network caused; a call that would block, or an option that is not there, is none.
 */
static bool network_error(const char *name)
{
    static const char *const names[] = {"ECONNREFUSED", "ECONNRESET",  "ETIMEDOUT",
                                        "EHOSTUNREACH", "ENETUNREACH", "ECONNABORTED"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The error that a transition of the user stack leaves on its socket (as tcp_done() is told). */
static const char *error_of_state(const struct event *e)
{
    if (e->kind != EV_STATE || !e->to || strcmp(e->to, "CLOSED") != 0 || !e->why_id)
        return NULL;
    if (strcmp(e->why_id, "rx_rst") == 0)
        return strcmp(e->from, "SYN_SENT") == 0 ? "ECONNREFUSED" : "ECONNRESET";
    if (strncmp(e->why_id, "timeout_retransmit", 18) == 0 ||
        strncmp(e->why_id, "timeout_keepalive", 17) == 0 || strcmp(e->why_id, "timeout_user") == 0)
        return "ETIMEDOUT";
    return NULL;
}

/* The error that an item tells of, if it is one of this side; else NULL. */
static const char *error_of(const struct run *r, int side, const struct flow_event *x)
{
    const struct event *e = x->e;
    if (x->side != side)
        return NULL;
    const char *of_state = run_user(r, side) ? error_of_state(e) : NULL;
    if (of_state)
        return intern(of_state);
    bool tells = run_user(r, side) ? e->kind == EV_CALL : strcmp(e->name, "socket-error") == 0;
    return tells && e->error && network_error(e->error) ? e->error : NULL;
}

/* The errors of a side, each once, in the order in which they came. */
static void add_errors(struct text *to, const struct run *r, int side)
{
    const char *seen[8];
    unsigned n = 0;
    for (size_t i = 0; i < r->flows.n; i++) {
        const struct flow *f = r->flows.items[i];
        for (size_t k = 0; k < f->n && n < 8; k++) {
            const char *error = error_of(r, side, &f->items[k]);
            bool known = !error;
            for (unsigned m = 0; m < n; m++)
                known |= seen[m] == error;
            if (!known)
                seen[n++] = error;
        }
    }
    for (unsigned i = 0; i < n; i++)
        text_add(to, "%s%s", i > 0 ? ", " : "", seen[i]);
}

static void error_rows(struct table *t, const struct run *runs)
{
    for (int side = 0; side < 2; side++) {
        struct table_row *r =
            row(t, NULL, ROW_PROTOCOL, side == CLIENT ? "client_errors" : "server_errors",
                side == CLIENT ? "client: socket errors" : "server: socket errors");
        for (unsigned i = 0; i < t->pairs; i++) {
            struct text errors = {0};
            add_errors(&errors, &runs[i], side);
            set_seen(r, i, &errors, glimpsed(&runs[i], side), "none");
        }
    }
}

/* ---- times ---- */

enum { TIME_HANDSHAKE, TIME_FIRST_BYTE, TIME_TRANSFER, TIME_TEARDOWN, TIME_WHOLE, TIME_COUNT };

/* Times of one connection as the client's host sees them, in s; NAN where it did not happen. */
static void flow_times(const struct flow *f, double out[TIME_COUNT])
{
    int64_t syn = TIME_NONE, syn_ack = TIME_NONE, first = TIME_NONE, fin = TIME_NONE;
    int64_t data[2] = {TIME_NONE, TIME_NONE}, last = TIME_NONE;
    for (size_t i = 0; i < f->n; i++) {
        const struct flow_event *x = &f->items[i];
        const struct event *e = x->e;
        if (!event_is_segment(e) || x->side != CLIENT)
            continue;
        bool sent = e->kind == EV_TX;
        last = e->t;
        if (e->flags & FLAG_SYN && sent && syn == TIME_NONE)
            syn = e->t;
        if (e->flags & FLAG_SYN && !sent && syn_ack == TIME_NONE)
            syn_ack = e->t;
        if (e->len > 0 && !sent && first == TIME_NONE)
            first = e->t;
        if (e->len > 0) {
            data[0] = data[0] == TIME_NONE ? e->t : data[0];
            data[1] = e->t;
        }
        if (e->flags & FLAG_FIN && fin == TIME_NONE)
            fin = e->t;
    }
    const int64_t spans[TIME_COUNT][2] = {
        [TIME_HANDSHAKE] = {syn, syn_ack},    [TIME_FIRST_BYTE] = {syn, first},
        [TIME_TRANSFER] = {data[0], data[1]}, [TIME_TEARDOWN] = {fin, last},
        [TIME_WHOLE] = {syn, last},
    };
    for (int i = 0; i < TIME_COUNT; i++)
        out[i] = spans[i][0] == TIME_NONE || spans[i][1] == TIME_NONE
                     ? NAN
                     : (double)(spans[i][1] - spans[i][0]) / 1e9;
}

static void time_rows(struct table *t, const struct run *runs)
{
    static const char *const names[TIME_COUNT][2] = {
        {"handshake", "SYN to SYN,ACK"},    {"first_byte", "SYN to first byte"},
        {"transfer", "first to last data"}, {"teardown", "first FIN to last segment"},
        {"whole", "SYN to last segment"},
    };
    for (int k = 0; k < TIME_COUNT; k++) {
        struct table_row *r =
            row(t, k == 0 ? "times, at the client" : NULL, ROW_TIME, names[k][0], names[k][1]);
        for (unsigned i = 0; i < t->pairs; i++) {
            struct sample_list l = {0};
            for (size_t n = 0; n < runs[i].flows.n; n++) {
                double times[TIME_COUNT];
                flow_times(runs[i].flows.items[n], times);
                if (!isnan(times[k]))
                    sample(&l, times[k]);
            }
            set_time(r, i, median(&l));
        }
    }
}

/* Whether two of the values differ. What is unknown says nothing. */
static bool texts_differ(const struct table_row *r, unsigned n)
{
    const char *first = NULL;
    for (unsigned k = 0; k < n; k++) {
        if (strcmp(r->text[k], UNKNOWN) == 0)
            continue;
        if (first != NULL && strcmp(first, r->text[k]) != 0)
            return true;
        first = r->text[k];
    }
    return false;
}

/* ---- all of it ---- */

void table_make(struct table *t, const struct run *runs, unsigned n)
{
    struct sums sums[PAIRS_MAX] = {0};
    *t = (struct table){.pairs = n};
    for (unsigned i = 0; i < n; i++)
        for (size_t k = 0; k < runs[i].flows.n; k++)
            add_flow(&sums[i], runs[i].flows.items[k]);
    program_rows(t, runs);
    handshake_rows(t, runs);
    traffic_rows(t, sums);
    time_rows(t, runs);
    walk_rows(t, runs);
    error_rows(t, runs);
    state_time_rows(t, runs);
    for (size_t i = 0; i < t->n; i++) {
        struct table_row *r = &t->rows[i];
        for (unsigned k = 0; k < n; k++)
            if (!r->text[k])
                set_text(r, k, "-");
        if (r->class == ROW_RESULT || r->class == ROW_PROTOCOL)
            r->differs = texts_differ(r, n);
    }
}

bool table_differs(const struct table *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->rows[i].differs)
            return true;
    return false;
}

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->n; i++)
        for (int k = 0; k < PAIRS_MAX; k++)
            free(t->rows[i].text[k]);
    free(t->rows);
    *t = (struct table){0};
}
