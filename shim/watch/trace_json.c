/*
 * Traces as JSON, an object a line (docs/trace.md, docs/trace.schema.json). Names and types come
 * from the tables of stack/trace.h; nothing here knows an event by itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>

#include "shim/core/config.h"
#include "shim/watch/format.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/names.h"
#include "stack/tcp/wire.h"

/* Of strings of the program: its name, arguments of calls. */
#define STRING_MAX 200

static void key(struct line *l, const char *name)
{
    put(l, ",\"");
    put(l, name);
    put(l, "\":");
}

/* Bytes of the UTF-8 character at s (RFC 3629 4); 0: it is none. */
static unsigned utf8_len(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    const unsigned len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (unsigned k = 1; k < len; k++)
        if ((s[k] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    const bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || beyond ? 0 : len;
}

/* A string in quotes. What is no UTF-8 becomes U+FFFD, a byte each. */
static void put_string(struct line *l, const char *s)
{
    put_char(l, '"');
    for (unsigned n = 0; s && s[n] && n < STRING_MAX;) {
        const unsigned char c = (unsigned char)s[n];
        const unsigned len = utf8_len((const unsigned char *)s + n);
        if (len == 0) {
            put(l, "\\ufffd");
        } else if (c == '"' || c == '\\') {
            put_char(l, '\\');
            put_char(l, (char)c);
        } else if (c < ' ' || c == 0x7f) {
            put(l, "\\u00");
            put_char(l, "0123456789abcdef"[c >> 4]);
            put_char(l, "0123456789abcdef"[c & 15]);
        } else {
            put_n(l, s + n, len);
        }
        n += len ? len : 1;
    }
    put_char(l, '"');
}

static void put_number_pair(struct line *l, uint64_t a, uint64_t b)
{
    put_char(l, '[');
    put_u64(l, a);
    put_char(l, ',');
    put_u64(l, b);
    put_char(l, ']');
}

static void put_options(struct line *l, const struct tcp_options *o)
{
    const char *between = "";
    put_char(l, '{');
    if (o->has_mss) {
        put(l, "\"mss\":");
        put_u64(l, o->mss);
        between = ",";
    }
    if (o->has_wscale) {
        put(l, between);
        put(l, "\"wscale\":");
        put_u64(l, o->wscale);
        between = ",";
    }
    if (o->sack_permitted) {
        put(l, between);
        put(l, "\"sack_ok\":true");
        between = ",";
    }
    if (o->has_ts) {
        put(l, between);
        put(l, "\"ts\":");
        put_number_pair(l, o->ts_val, o->ts_ecr);
        between = ",";
    }
    for (unsigned i = 0; i < o->sack_count; i++) {
        put(l, i ? "," : between);
        put(l, i ? "" : "\"sack\":[");
        put_number_pair(l, o->sack[i].start.v, o->sack[i].end.v);
    }
    put(l, o->sack_count ? "]}" : "}");
}

/* "seq":N and, where the connection's first number is known, "seq_rel":M. */
static void put_seq(struct line *l, const struct shown *s, const struct shown_arg *a)
{
    const bool ours = *a->type == 's';
    put_u64(l, a->value);
    if (!(ours ? s->isn.has_iss : s->isn.has_irs))
        return;
    put(l, ",\"");
    put_n(l, a->name, a->name_len);
    put(l, "_rel\":");
    put_u64(l, (uint32_t)(a->value - (ours ? s->isn.iss : s->isn.irs)));
}

/* The list and, where there is more, how many bytes are not in it. */
static void put_ranges(struct line *l, const struct shown *s, const struct trace_ranges *ranges)
{
    put_char(l, '[');
    for (unsigned i = 0; i < ranges->count; i++) {
        const struct trace_range *r = &ranges->ranges[i];
        put(l, i ? ",{\"seq\":" : "{\"seq\":");
        put_u64(l, r->seq);
        if (s->isn.has_irs) {
            key(l, "seq_rel");
            put_u64(l, r->seq - s->isn.irs);
        }
        key(l, "len");
        put_u64(l, r->len);
        key(l, "of");
        put_u64(l, r->of);
        key(l, "segment");
        put_u64(l, r->segment);
        key(l, "t");
        put_seconds(l, r->arrived);
        put_char(l, '}');
    }
    put_char(l, ']');
    if (ranges->more) {
        key(l, "more");
        put_u64(l, ranges->more);
    }
}

static void put_error(struct line *l, uint64_t err)
{
    put_u64(l, err);
    key(l, "error");
    put_char(l, '"');
    put_errno(l, err);
    put_char(l, '"');
}

static void quoted(struct line *l, const char *word)
{
    put_char(l, '"');
    put(l, word);
    put_char(l, '"');
}

static void put_reason(struct line *l, uint64_t reason)
{
    quoted(l, tcp_reason_text((unsigned)reason));
    key(l, "why_id");
    put_char(l, '"');
    for (const char *p = tcp_reason_name((unsigned)reason); *p; p++)
        put_char(l, *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p);
    put_char(l, '"');
}

/* Whether the argument says nothing in this event and is left out. */
static bool is_absent(const struct shown *s, const struct shown_arg *a)
{
    if (arg_is(a, "err") || arg_is(a, "time"))
        return a->value == 0;
    if (arg_is(a, "reason"))
        return a->value == TCP_WHY_NONE;
    if (arg_is(a, "str"))
        return a->value == 0 || *(const char *)(uintptr_t)a->value == '\0';
    if (arg_is(a, "opt"))
        return a->value == 0;
    if (a->name_len == 3 && memcmp(a->name, "ack", 3) == 0)
        return !(shown_value(s, 0) & TCP_ACK);
    return false;
}

static void put_value(struct line *l, const struct shown *s, const struct shown_arg *a)
{
    const uint64_t v = a->value;
    const char *const text = (const char *)(uintptr_t)v;
    if (arg_is(a, "ns") || arg_is(a, "time")) {
        put_seconds(l, v);
    } else if (arg_is(a, "seq") || arg_is(a, "pseq")) {
        put_seq(l, s, a);
    } else if (arg_is(a, "state")) {
        quoted(l, tcp_state_name((unsigned)v));
    } else if (arg_is(a, "reason")) {
        put_reason(l, v);
    } else if (arg_is(a, "timer")) {
        quoted(l, tcp_timer_name((unsigned)v));
    } else if (arg_is(a, "flags")) {
        put_char(l, '"');
        put_flags(l, v);
        put_char(l, '"');
    } else if (arg_is(a, "err")) {
        put_error(l, v);
    } else if (arg_is(a, "addr4")) {
        struct ip_addr addr = ip_addr_from_v4((uint32_t)v);
        put_char(l, '"');
        put_addr(l, &addr);
        put_char(l, '"');
    } else if (arg_is(a, "str") || arg_is(a, "call")) {
        put_string(l, text);
    } else if (arg_is(a, "opt")) {
        put_options(l, (const struct tcp_options *)(uintptr_t)v);
    } else if (arg_is(a, "ranges")) {
        put_ranges(l, s, (const struct trace_ranges *)(uintptr_t)v);
    } else if (arg_is(a, "i")) {
        put_signed(l, (int64_t)v);
    } else if (arg_is(a, "bool")) {
        put(l, v ? "true" : "false");
    } else {
        put_u64(l, v);
    }
}

static void put_start(struct line *l, nsec_t now, int pid)
{
    put(l, "{\"t\":");
    put_seconds(l, now);
    key(l, "pid");
    put_u64(l, (uint64_t)pid);
}

static void put_end_point(struct line *l, const char *name, const struct ip_addr *addr,
                          uint16_t port)
{
    if (port == 0)
        return;
    key(l, name);
    put_char(l, '"');
    put_endpoint(l, addr, port);
    put_char(l, '"');
}

static void put_name(struct line *l, const struct shown *s)
{
    key(l, "class");
    quoted(l, trace_class_words[__builtin_ctz(s->info->class)]);
    key(l, "ev");
    quoted(l, s->info->name);
}

static void put_args(struct line *l, const struct shown *s)
{
    const char *spec = s->info->args;
    unsigned i = 0;
    struct shown_arg a;
    while (next_arg(s->r, &spec, &i, &a)) {
        if (is_absent(s, &a))
            continue;
        put(l, ",\"");
        put_n(l, a.name, a.name_len);
        put(l, "\":");
        put_value(l, s, &a);
    }
    put_char(l, '}');
}

void trace_json_event(struct line *l, const struct shown *s)
{
    put(l, "{\"t\":");
    put_seconds(l, s->now);
    put_name(l, s);
    put_args(l, s);
}

void trace_json(struct line *l, const struct shown *s)
{
    const struct flow *f = s->r->flow;
    put_start(l, s->now, s->pid);
    put_name(l, s);
    if (f && f->number) {
        key(l, "conn");
        put_u64(l, f->number);
    }
    if (f) {
        put_end_point(l, "local", &f->tuple.local, f->tuple.lport);
        put_end_point(l, "peer", &f->tuple.remote, f->tuple.rport);
    }
    put(l, s->past ? ",\"past\":true" : "");
    put_args(l, s);
}

void trace_json_header(struct line *l, int pid, nsec_t now)
{
    struct timespec real;
    const char *between = "";
    clock_gettime(CLOCK_REALTIME, &real);
    put(l, "{\"ev\":\"trace\",\"v\":1,\"t\":");
    put_seconds(l, now);
    key(l, "pid");
    put_u64(l, (uint64_t)pid);
    key(l, "cmd");
    put_string(l, program_invocation_short_name);
    key(l, "realtime");
    put_char(l, '"');
    put_date(l, (uint64_t)real.tv_sec, (uint64_t)real.tv_nsec);
    put_char(l, '"');
    key(l, "classes");
    put_char(l, '"');
    for (unsigned i = 0; i < TRACE_CLASS_COUNT; i++) {
        if (!(config.trace >> i & 1))
            continue;
        put(l, between);
        put(l, trace_class_words[i]);
        between = ",";
    }
    put(l, "\"}");
}

void trace_json_lost(struct line *l, int pid, nsec_t now, uint64_t count)
{
    put_start(l, now, pid);
    key(l, "ev");
    quoted(l, "lost");
    key(l, "count");
    put_u64(l, count);
    put_char(l, '}');
}
