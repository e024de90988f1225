/* What the formats share: a record, whose it is, and the walk through the schema's arguments. */
#pragma once

#include "shim/watch/line.h"
#include "stack/tcp/tcp.h"
#include "stack/trace.h"

/* A record as it is to be shown. */
struct shown {
    const struct trace_record *r;
    const struct trace_event_info *info;
    struct tcp_isns isn; /* of its connection, as far as they are known */
    int pid;
    nsec_t now; /* for the reader: times never run back */
    bool past;  /* from the ring of last events: told when it matters */
};

/* One argument: its name and type in the schema (not terminated), and its value. */
struct shown_arg {
    const char *name, *type;
    size_t name_len, type_len;
    uint64_t value;
};

/* Walks: *spec begins as the event's args and *index as 0. False at the end. */
static inline bool next_arg(const struct trace_record *r, const char **spec, unsigned *index,
                            struct shown_arg *out)
{
    const char *p = *spec;
    if (*p == '\0' || *index >= r->argc)
        return false;
    out->name = p;
    out->name_len = strcspn(p, ":");
    out->type = p + out->name_len + 1;
    out->type_len = strcspn(out->type, " ");
    out->value = r->argv[(*index)++];
    p = out->type + out->type_len;
    *spec = *p ? p + 1 : p;
    return true;
}

static inline bool arg_is(const struct shown_arg *a, const char *type)
{
    return strlen(type) == a->type_len && memcmp(a->type, type, a->type_len) == 0;
}

static inline uint64_t shown_value(const struct shown *s, unsigned i)
{
    return i < s->r->argc ? s->r->argv[i] : 0;
}

/* One event; the newline is not theirs. */
void trace_text(struct line *l, const struct shown *s);
void trace_json(struct line *l, const struct shown *s);
/* The event and its arguments alone: "  tx SYN seq 0 ..."; {"t":T,"class":"segment","ev":"tx",...}
 */
void trace_text_event(struct line *l, const struct shown *s);
void trace_json_event(struct line *l, const struct shown *s);
/* What stands in front of the first event of a process, in JSON (text has no such line). */
void trace_json_header(struct line *l, int pid, nsec_t now);
/* Events could not be written: as many as count. */
void trace_text_lost(struct line *l, int pid, nsec_t now, uint64_t count);
void trace_json_lost(struct line *l, int pid, nsec_t now, uint64_t count);
