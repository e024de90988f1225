#include "shim/command/lab_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SECOND     UINT64_C(1000000000)
#define MILLION    1000000u
#define QUEUE_TIME (SECOND / 10)
#define QUEUE_MIN  30000u
#define HELD_MAX   ((size_t)64 << 20)
/* A frame that is overtaken waits half the delay longer, and at least this. */
#define REORDER_MIN  (2 * SECOND / 1000)
#define ETHER_HEADER 14
#define FRAME_EXTRA  24 /* what Ethernet adds on the wire: preamble, FCS, gap */

struct link_frame {
    uint64_t due, number;
    size_t len;
    uint8_t bytes[];
};

/* ---- values ---- */

/* A number with a unit out of "a=factor" pairs; the first is the one without unit. */
struct unit {
    const char *name;
    double factor;
};

static bool parse_unit(const char *value, const struct unit *units, double *out)
{
    char *end;
    const double v = strtod(value, &end);
    if (end == value || !(v >= 0) || v > 1e15)
        return false;
    for (const struct unit *u = units; u->name != NULL; u++) {
        if (strcasecmp(end, u->name) == 0) {
            *out = v * u->factor;
            return *out < 1e18;
        }
    }
    return false;
}

static const char *parse_time(const char *value, uint64_t *out)
{
    static const struct unit units[] = {{"ms", 1e6}, {"us", 1e3}, {"s", 1e9}, {"", 1e6}, {NULL, 0}};
    double v;
    if (!parse_unit(value, units, &v) || v > 60e9)
        return "a time up to 60s, as 20ms or 150us";
    *out = (uint64_t)v;
    return NULL;
}

static const char *parse_share(const char *value, uint32_t *out)
{
    static const struct unit units[] = {{"%", 1e4}, {"", 1e4}, {NULL, 0}};
    double v;
    if (!parse_unit(value, units, &v) || v > MILLION)
        return "a share in percent, as 1% or 0.5%";
    *out = (uint32_t)(v + 0.5);
    return NULL;
}

static const char *parse_rate(const char *value, uint64_t *out)
{
    static const struct unit units[] = {{"bit", 1},    {"kbit", 1e3}, {"mbit", 1e6},
                                        {"gbit", 1e9}, {"k", 1e3},    {"m", 1e6},
                                        {"g", 1e9},    {"", 1},       {NULL, 0}};
    double v;
    if (!parse_unit(value, units, &v) || (v > 0 && v < 1000))
        return "bits a second from 1kbit on, as 10mbit; 0: no limit";
    *out = (uint64_t)v;
    return NULL;
}

static const char *parse_bytes(const char *value, uint64_t *out)
{
    static const struct unit units[] = {{"", 1},      {"b", 1},        {"k", 1024}, {"m", 1048576},
                                        {"kb", 1024}, {"mb", 1048576}, {NULL, 0}};
    double v;
    if (!parse_unit(value, units, &v) || v < 1 || v > (double)HELD_MAX)
        return "bytes up to 64m, as 100k";
    *out = (uint64_t)v;
    return NULL;
}

const char *link_parse(enum link_property which, const char *value, struct link_settings *out)
{
    char *end;
    switch (which) {
    case LINK_DELAY:
        return parse_time(value, &out->delay);
    case LINK_JITTER:
        return parse_time(value, &out->jitter);
    case LINK_LOSS:
        return parse_share(value, &out->loss);
    case LINK_RATE:
        return parse_rate(value, &out->rate);
    case LINK_QUEUE:
        return parse_bytes(value, &out->queue);
    case LINK_REORDER:
        return parse_share(value, &out->reorder);
    case LINK_DUP:
        return parse_share(value, &out->dup);
    case LINK_CORRUPT:
        return parse_share(value, &out->corrupt);
    case LINK_SEED:
        out->seed = strtoull(value, &end, 10);
        return *value >= '0' && *value <= '9' && *end == '\0' ? NULL : "a number";
    case LINK_CABLE:
        out->out = strcmp(value, "out") == 0;
        return out->out || strcmp(value, "in") == 0 ? NULL : "in or out";
    case LINK_PROPERTY_COUNT:
        break;
    }
    return "";
}

void link_take(struct link_settings *to, const struct link_settings *from, unsigned mask)
{
    to->delay = mask >> LINK_DELAY & 1 ? from->delay : to->delay;
    to->jitter = mask >> LINK_JITTER & 1 ? from->jitter : to->jitter;
    to->loss = mask >> LINK_LOSS & 1 ? from->loss : to->loss;
    to->rate = mask >> LINK_RATE & 1 ? from->rate : to->rate;
    to->queue = mask >> LINK_QUEUE & 1 ? from->queue : to->queue;
    to->reorder = mask >> LINK_REORDER & 1 ? from->reorder : to->reorder;
    to->dup = mask >> LINK_DUP & 1 ? from->dup : to->dup;
    to->corrupt = mask >> LINK_CORRUPT & 1 ? from->corrupt : to->corrupt;
    to->seed = mask >> LINK_SEED & 1 ? from->seed : to->seed;
    to->out = mask >> LINK_CABLE & 1 ? from->out : to->out;
}

/* Appends ", NAME VALUE" with a value of few digits. */
static void append(char *out, size_t size, const char *name, double value, const char *unit)
{
    const size_t used = strlen(out);
    if (value > 0)
        snprintf(out + used, size - used, "%s%s %.4g%s", used > 0 ? ", " : "", name, value, unit);
}

void link_describe(const struct link_settings *s, char *out, size_t size)
{
    const double rate = (double)s->rate;
    out[0] = '\0';
    append(out, size, "delay", (double)s->delay / 1e6, "ms");
    append(out, size, "jitter", (double)s->jitter / 1e6, "ms");
    append(out, size, "loss", s->loss / 1e4, "%");
    append(out, size, "rate", rate >= 1e6 ? rate / 1e6 : rate / 1e3, rate >= 1e6 ? "mbit" : "kbit");
    append(out, size, "queue", (double)s->queue / 1024, "k");
    append(out, size, "reorder", s->reorder / 1e4, "%");
    append(out, size, "dup", s->dup / 1e4, "%");
    append(out, size, "corrupt", s->corrupt / 1e4, "%");
    if (s->out)
        snprintf(out + strlen(out), size - strlen(out), "%scable out", out[0] ? ", " : "");
    if (out[0] == '\0')
        snprintf(out, size, "plain");
}

/* ---- chance ---- */

/* splitmix64: seeds the generator. */
static uint64_t mix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void reseed(struct link_way *l, unsigned way)
{
    uint64_t x = l->settings.seed * 64 + way;
    l->random[0] = mix(&x);
    l->random[1] = mix(&x) | 1;
}

static uint64_t draw(struct link_way *l)
{
    uint64_t a = l->random[0];
    const uint64_t b = l->random[1];
    l->random[0] = b;
    a ^= a << 23;
    l->random[1] = a ^ b ^ a >> 18 ^ b >> 5;
    return l->random[1] + b;
}

static bool hit(struct link_way *l, uint32_t share)
{
    return (draw(l) >> 16) % MILLION < share;
}

/* ---- the heap of what is under way ---- */

static bool earlier(const struct link_frame *a, const struct link_frame *b)
{
    return a->due != b->due ? a->due < b->due : a->number < b->number;
}

static void push(struct link_way *l, struct link_frame *f)
{
    if (l->nheap == l->room) {
        const unsigned room = l->room ? 2 * l->room : 64;
        struct link_frame **more = realloc(l->heap, room * sizeof(*more));
        if (more == NULL) {
            free(f);
            return;
        }
        l->heap = more;
        l->room = room;
    }
    unsigned i = l->nheap++;
    while (i > 0 && earlier(f, l->heap[(i - 1) / 2])) {
        l->heap[i] = l->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    l->heap[i] = f;
    l->held += f->len;
}

static struct link_frame *pop(struct link_way *l)
{
    struct link_frame *first = l->heap[0], *last = l->heap[--l->nheap];
    unsigned i = 0;
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= l->nheap)
            break;
        if (child + 1 < l->nheap && earlier(l->heap[child + 1], l->heap[child]))
            child++;
        if (!earlier(l->heap[child], last))
            break;
        l->heap[i] = l->heap[child];
        i = child;
    }
    if (l->nheap > 0)
        l->heap[i] = last;
    l->held -= first->len;
    return first;
}

/* ---- frames ---- */

void link_init(struct link_way *l, const struct link_settings *s, unsigned way)
{
    *l = (struct link_way){.settings = *s};
    reseed(l, way);
}

void link_set(struct link_way *l, const struct link_settings *s, unsigned mask, unsigned way)
{
    link_take(&l->settings, s, mask);
    if ((mask >> LINK_SEED & 1) != 0)
        reseed(l, way);
}

/* When the last bit has left the sender's queue; UINT64_MAX: it did not fit in. */
static uint64_t through_queue(struct link_way *l, uint64_t now, size_t len)
{
    const uint64_t rate = l->settings.rate;
    if (rate == 0)
        return now;
    const uint64_t start = l->free_at > now ? l->free_at : now;
    const double waiting = (double)(start - now) / 1e9 * (double)rate / 8;
    double room = (double)l->settings.queue;
    if (l->settings.queue == 0)
        room = (double)rate / 8 * (double)QUEUE_TIME / 1e9;
    if (l->settings.queue == 0 && room < QUEUE_MIN)
        room = QUEUE_MIN;
    if (waiting > 0 && waiting + (double)len > room)
        return UINT64_MAX;
    l->free_at = start + (uint64_t)((double)(len + FRAME_EXTRA) * 8e9 / (double)rate);
    return l->free_at;
}

static struct link_frame *copy(const void *head, size_t hlen, const void *data, size_t len)
{
    struct link_frame *f = malloc(sizeof(*f) + hlen + len);
    if (f == NULL)
        return NULL;
    f->len = hlen + len;
    memcpy(f->bytes, head, hlen);
    memcpy(f->bytes + hlen, data, len);
    return f;
}

void link_offer(struct link_way *l, uint64_t now, const void *head, size_t hlen, const void *data,
                size_t len, bool chance)
{
    const struct link_settings *s = &l->settings;
    bool lost = false, twice = false, late = false, broken = false;
    uint64_t where = 0, jitter = 0;
    l->counts.frames++;
    l->counts.bytes += len;
    if (chance) { /* each frame draws the same numbers, whatever is set */
        lost = hit(l, s->loss);
        twice = hit(l, s->dup);
        late = hit(l, s->reorder);
        broken = hit(l, s->corrupt);
        where = draw(l);
        jitter = s->jitter ? draw(l) % (s->jitter + 1) : (draw(l), 0);
    }
    if (s->out || lost) {
        l->counts.lost++;
        return;
    }
    const uint64_t left = through_queue(l, now, len);
    if (left == UINT64_MAX || l->held + len > HELD_MAX) {
        l->counts.overflowed++;
        return;
    }
    uint64_t due = left + s->delay + jitter;
    if (due < l->last_due)
        due = l->last_due;
    l->last_due = due;
    if (late) {
        l->counts.reordered++;
        due += s->delay / 2 > REORDER_MIN ? s->delay / 2 : REORDER_MIN;
    }
    for (unsigned n = 0; n < 1 + (unsigned)twice; n++) {
        struct link_frame *f = copy(head, hlen, data, len);
        if (f == NULL)
            return;
        f->due = due;
        f->number = l->number++;
        if (broken && n == 0 && len > ETHER_HEADER) {
            l->counts.corrupted++;
            where %= (len - ETHER_HEADER) * 8;
            f->bytes[hlen + ETHER_HEADER + where / 8] ^= (uint8_t)(1u << (where & 7));
        }
        l->counts.duplicated += n;
        push(l, f);
    }
}

struct link_frame *link_due(struct link_way *l, uint64_t now)
{
    return l->nheap > 0 && l->heap[0]->due <= now ? pop(l) : NULL;
}

const void *link_bytes(const struct link_frame *f, size_t *len)
{
    *len = f->len;
    return f->bytes;
}

uint64_t link_next(const struct link_way *l)
{
    return l->nheap > 0 ? l->heap[0]->due : UINT64_MAX;
}
