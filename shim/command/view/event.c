/* Events: from JSON, in words, in lists (event.h). */
#define _GNU_SOURCE
#include "shim/command/view/event.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INTERN_SLOTS 4096

struct interned {
    struct interned *next;
    size_t n;
    char text[];
};

void *must_alloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p) {
        fputs("tcpshim: out of memory\n", stderr);
        exit(3);
    }
    return p;
}

const char *intern_n(const char *text, size_t n)
{
    static struct interned *table[INTERN_SLOTS];
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619U;
    struct interned **slot = &table[hash % INTERN_SLOTS];
    for (struct interned *s = *slot; s; s = s->next)
        if (s->n == n && memcmp(s->text, text, n) == 0)
            return s->text;
    struct interned *s = must_alloc(NULL, sizeof(*s) + n + 1);
    *s = (struct interned){.next = *slot, .n = n};
    memcpy(s->text, text, n);
    s->text[n] = '\0';
    *slot = s;
    return s->text;
}

const char *intern(const char *text)
{
    return text ? intern_n(text, strlen(text)) : NULL;
}

enum event_kind event_kind(const char *name)
{
    static const char *const names[] = {
#define X(id, name) [EV_##id] = name,
        EVENT_KINDS(X)
#undef X
    };
    for (size_t i = EV_TRACE; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return (enum event_kind)i;
    return EV_OTHER;
}

bool event_is_segment(const struct event *e)
{
    return e->kind == EV_TX || e->kind == EV_RX;
}

/* SYN before ACK, ACK before what rides on it: as people say it. */
static const struct {
    uint8_t bit;
    const char *name;
} flag_names[] = {
    {FLAG_SYN, "SYN"}, {FLAG_FIN, "FIN"}, {FLAG_RST, "RST"}, {FLAG_PSH, "PSH"},
    {FLAG_ACK, "ACK"}, {FLAG_URG, "URG"}, {FLAG_ECE, "ECE"}, {FLAG_CWR, "CWR"},
};
#define NFLAGS (sizeof(flag_names) / sizeof(flag_names[0]))

void flags_format(char *text, uint8_t flags)
{
    *text = '\0';
    for (size_t i = 0; i < NFLAGS; i++)
        if (flags & flag_names[i].bit) {
            if (*text)
                strcat(text, ",");
            strcat(text, flag_names[i].name);
        }
    if (!*text)
        strcpy(text, "none");
}

uint8_t flags_parse(const char *text)
{
    uint8_t flags = 0;
    while (*text) {
        size_t n = strcspn(text, ",");
        for (size_t i = 0; i < NFLAGS; i++)
            if (strlen(flag_names[i].name) == n && memcmp(flag_names[i].name, text, n) == 0)
                flags |= flag_names[i].bit;
        text += n;
        text += *text == ',';
    }
    return flags;
}

void options_format(struct text *to, const struct options_seen *opt, uint32_t sack_base,
                    bool timestamps)
{
    size_t begin = to->n;
    if (opt->has_mss)
        text_add(to, ", mss %u", opt->mss);
    if (opt->has_wscale)
        text_add(to, ", wscale %u", opt->wscale);
    if (opt->sack_ok)
        text_add(to, ", SACK");
    if (opt->has_ts && timestamps)
        text_add(to, ", TS %u %u", opt->tsval, opt->tsecr);
    for (unsigned i = 0; i < opt->nsack; i++)
        text_add(to, ", %s%u..%u", i == 0 ? "SACK " : "", opt->sack[i][0] - sack_base,
                 opt->sack[i][1] - sack_base);
    if (to->n == begin)
        return;
    memmove(to->s + begin, to->s + begin + 1, to->n - begin); /* the first comma */
    to->n--;
    to->s[begin] = '<';
    text_add(to, ">");
}

char *bytes_format(char *text, size_t size, uint64_t bytes)
{
    static const char *const units[] = {"KB", "MB", "GB", "TB"};
    double v = (double)bytes;
    int unit = -1;
    while (v >= 999.5 && unit < 3) {
        v /= 1000;
        unit++;
    }
    if (unit < 0)
        snprintf(text, size, "%" PRIu64 " B", bytes);
    else
        snprintf(text, size, "%.*f %s", v < 99.95 ? 1 : 0, v, units[unit]);
    return text;
}

char *duration_format(char *text, size_t size, int64_t ns)
{
    double v = (double)ns;
    double a = fabs(v);
    if (a < 999.5e3)
        snprintf(text, size, "%.0f us", v / 1e3);
    else if (a < 99.95e6)
        snprintf(text, size, "%.2f ms", v / 1e6);
    else if (a < 999.5e6)
        snprintf(text, size, "%.0f ms", v / 1e6);
    else
        snprintf(text, size, "%.2f s", v / 1e9);
    return text;
}

/* ---- from JSON ---- */

void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7F)
            *s = '?';
}

/* Control characters become '?': a name in a trace shall not steer a terminal. */
static const char *get_string(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    if (!v || !json_is_string(v))
        return NULL;
    const char *s = json_string_value(v);
    size_t i = 0;
    while ((unsigned char)s[i] >= ' ' && s[i] != 0x7F)
        i++;
    if (!s[i])
        return intern_n(s, i);
    char *copy = strdup(s);
    if (!copy)
        return NULL;
    make_printable(copy);
    const char *clean = intern(copy);
    free(copy);
    return clean;
}

static int64_t get_int(const json_t *object, const char *key, int64_t absent)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v))
        return json_integer_value(v);
    const double d = json_real_value(v); /* 0 where it is none */
    return json_is_real(v) && d > -9.2e18 && d < 9.2e18 ? (int64_t)d : absent;
}

/* Seconds with decimals, in ns. */
static int64_t get_time(const json_t *object, const char *key, int64_t absent)
{
    const json_t *v = json_object_get(object, key);
    if (!v || !json_is_number(v))
        return absent;
    double s = json_number_value(v);
    /* so near to zero that the distance of any two is a number, too */
    return s > -4.6e9 && s < 4.6e9 ? llround(s * 1e9) : absent;
}

static uint32_t item_u32(const json_t *array, size_t i)
{
    return (uint32_t)json_integer_value(json_array_get(array, i));
}

static void get_options(struct options_seen *opt, const json_t *o)
{
    if (!o)
        return;
    const json_t *v;
    if ((v = json_object_get(o, "mss"))) {
        opt->has_mss = true;
        opt->mss = (uint16_t)json_integer_value(v);
    }
    if ((v = json_object_get(o, "wscale"))) {
        opt->has_wscale = true;
        opt->wscale = (uint8_t)json_integer_value(v);
    }
    opt->sack_ok = json_is_true(json_object_get(o, "sack_ok"));
    if ((v = json_object_get(o, "ts")) && json_is_array(v)) {
        opt->has_ts = true;
        opt->tsval = item_u32(v, 0);
        opt->tsecr = item_u32(v, 1);
    }
    v = json_object_get(o, "sack");
    for (size_t i = 0; i < json_array_size(v) && opt->nsack < 4; i++) {
        const json_t *block = json_array_get(v, i);
        opt->sack[opt->nsack][0] = item_u32(block, 0);
        opt->sack[opt->nsack++][1] = item_u32(block, 1);
    }
}

static void get_segment(struct event *e, const json_t *o)
{
    const char *flags = get_string(o, "flags");
    e->flags = flags ? flags_parse(flags) : 0;
    e->seq = (uint32_t)get_int(o, "seq", 0);
    e->ack = (uint32_t)get_int(o, "ack", 0);
    e->len = (uint32_t)get_int(o, "len", 0);
    e->wnd = (uint64_t)get_int(o, "wnd", 0);
    get_options(&e->opt, json_object_get(o, "opt"));
}

const char *event_from_json(struct event *e, const json_t *o)
{
    event_init(e);
    if (!json_is_object(o))
        return "not an object";
    e->name = get_string(o, "ev");
    if (!e->name)
        return "has no \"ev\"";
    e->class = get_string(o, "class");
    e->kind = event_kind(e->name);
    if (e->kind == EV_LOST && e->class)
        e->kind = EV_TAKEN_FOR_LOST;
    e->t = get_time(o, "t", TIME_NONE);
    if (e->t == TIME_NONE && e->kind != EV_LOST)
        return "has no time \"t\"";
    e->begin = get_time(o, "begin", TIME_NONE);
    e->pid = (int)get_int(o, "pid", 0);
    e->conn = (uint32_t)get_int(o, "conn", 0);
    e->local = get_string(o, "local");
    e->peer = get_string(o, "peer");
    e->why = get_string(o, "why");
    e->why_id = get_string(o, "why_id");
    if (event_is_segment(e) || e->kind == EV_IGNORED || e->kind == EV_TAKEN_FOR_LOST)
        get_segment(e, o);
    e->from = get_string(o, "from");
    e->to = get_string(o, "to");
    e->syn_queue = (int)get_int(o, "syn_queue", -1);
    e->accept_queue = (int)get_int(o, "accept_queue", -1);
    e->backlog = (int)get_int(o, "backlog", -1);
    e->call = get_string(o, "call");
    e->args = get_string(o, "args");
    e->error = get_string(o, "error");
    if (e->kind == EV_TRACE) {
        e->args = get_string(o, "cmd");
        e->error = get_string(o, "realtime");
    }
    e->fd = (int)get_int(o, "fd", -1);
    e->result = get_int(o, "result", 0);
    e->bytes = (uint64_t)get_int(o, e->kind == EV_LOST ? "count" : "bytes", 0);
    e->queued = (uint64_t)get_int(o, "queued", get_int(o, "ready", 0));
    e->cwnd = (uint64_t)get_int(o, "cwnd", 0);
    e->ssthresh = (uint64_t)get_int(o, "ssthresh", 0);
    e->in_flight = (uint64_t)get_int(o, "in_flight", get_int(o, "pipe", 0));
    e->srtt = get_time(o, "srtt", 0);
    e->rto = get_time(o, "rto", 0);
    e->sample = get_time(o, "sample", 0);
    e->timer = get_string(o, "timer");
    return NULL;
}

/* ---- lists ---- */

void event_init(struct event *e)
{
    *e = (struct event){
        .begin = TIME_NONE, .syn_queue = -1, .accept_queue = -1, .backlog = -1, .fd = -1};
}

struct event *event_add(struct event_list *list)
{
    if (list->n == list->room) {
        list->room = list->room ? list->room * 2 : 256;
        list->items = must_alloc(list->items, list->room * sizeof(*list->items));
    }
    struct event *e = &list->items[list->n++];
    event_init(e);
    return e;
}

struct sort_key {
    int64_t t;
    size_t at;
};

static int by_time(const void *a, const void *b)
{
    const struct sort_key *x = a, *y = b;
    if (x->t != y->t)
        return x->t < y->t ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

void event_sort(struct event_list *list)
{
    bool sorted = true;
    for (size_t i = 1; i < list->n && sorted; i++)
        sorted = list->items[i - 1].t <= list->items[i].t;
    if (sorted)
        return;
    struct sort_key *keys = must_alloc(NULL, list->n * sizeof(*keys));
    for (size_t i = 0; i < list->n; i++)
        keys[i] = (struct sort_key){list->items[i].t, i};
    qsort(keys, list->n, sizeof(*keys), by_time);
    struct event *sorted_items = must_alloc(NULL, list->room * sizeof(*sorted_items));
    for (size_t i = 0; i < list->n; i++)
        sorted_items[i] = list->items[keys[i].at];
    free(keys);
    free(list->items);
    list->items = sorted_items;
}

void event_list_free(struct event_list *list)
{
    free(list->items);
    *list = (struct event_list){0};
}
