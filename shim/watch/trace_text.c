/*
 * Traces as text, a line an event:
 *
 *     0.001207 4711 #3 10.0.0.1:43210 -> 10.0.0.2:80  state  SYN_SENT -> ESTABLISHED  rx SYN,ACK
 */
#include "shim/core/config.h"
#include "shim/watch/format.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/names.h"
#include "stack/tcp/wire.h"

/* A call that took longer is shown with the time that it took. */
#define TOLD_WAIT NSEC_PER_MSEC

/* A length of time in milliseconds. */
static void put_ms(struct line *l, uint64_t ns)
{
    put_u64(l, ns / NSEC_PER_MSEC);
    put_char(l, '.');
    put_padded(l, ns % NSEC_PER_MSEC / NSEC_PER_USEC, 3);
    put(l, "ms");
}

/* Counted from the connection's start where that is known, then as it is on the wire. */
static void put_seq(struct line *l, uint32_t seq, bool known, uint32_t first)
{
    if (!known) {
        put_u64(l, seq);
        return;
    }
    put_u64(l, (uint32_t)(seq - first));
    put(l, " (");
    put_u64(l, seq);
    put_char(l, ')');
}

/* " mss 1460 ws 7 sackOK ts 1 2 sack 1-2"; SACK blocks are in the sequence space of `known`. */
static void put_options(struct line *l, const struct tcp_options *o, bool known, uint32_t first)
{
    if (o->has_mss) {
        put(l, " mss ");
        put_u64(l, o->mss);
    }
    if (o->has_wscale) {
        put(l, " ws ");
        put_u64(l, o->wscale);
    }
    put(l, o->sack_permitted ? " sackOK" : "");
    if (o->has_ts) {
        put(l, " ts ");
        put_u64(l, o->ts_val);
        put_char(l, ' ');
        put_u64(l, o->ts_ecr);
    }
    for (unsigned i = 0; i < o->sack_count; i++) {
        put(l, i ? "," : " sack ");
        put_u64(l, known ? (uint32_t)(o->sack[i].start.v - first) : o->sack[i].start.v);
        put_char(l, '-');
        put_u64(l, known ? (uint32_t)(o->sack[i].end.v - first) : o->sack[i].end.v);
    }
}

/* "1-1449,1449-2000/1448": of the last frame's 1448 bytes, these. */
static void put_ranges(struct line *l, const struct shown *s, const struct trace_ranges *ranges)
{
    for (unsigned i = 0; i < ranges->count; i++) {
        const struct trace_range *r = &ranges->ranges[i];
        const uint32_t start = s->isn.has_irs ? r->seq - s->isn.irs : r->seq;
        put(l, i ? "," : "");
        put_u64(l, start);
        put_char(l, '-');
        put_u64(l, (uint32_t)(start + r->len));
        if (r->len != r->of) {
            put_char(l, '/');
            put_u64(l, r->of);
        }
    }
    if (ranges->more) {
        put(l, ranges->count ? ",+" : "+");
        put_u64(l, ranges->more);
    }
}

/* One argument by its type in the schema (stack/trace.h). */
static void put_value(struct line *l, const struct shown *s, const struct shown_arg *a)
{
    const uint64_t v = a->value;
    if (arg_is(a, "ns")) {
        put_ms(l, v);
    } else if (arg_is(a, "seq") || arg_is(a, "pseq")) {
        const bool ours = *a->type == 's';
        put_seq(l, (uint32_t)v, ours ? s->isn.has_iss : s->isn.has_irs,
                ours ? s->isn.iss : s->isn.irs);
    } else if (arg_is(a, "state")) {
        put(l, tcp_state_name((unsigned)v));
    } else if (arg_is(a, "timer")) {
        put(l, tcp_timer_name((unsigned)v));
    } else if (arg_is(a, "flags")) {
        put_flags(l, v);
    } else if (arg_is(a, "err")) {
        put_errno(l, v);
    } else if (arg_is(a, "addr4")) {
        struct ip_addr addr = ip_addr_from_v4((uint32_t)v);
        put_addr(l, &addr);
    } else if (arg_is(a, "ranges")) {
        put_ranges(l, s, (const struct trace_ranges *)(uintptr_t)v);
    } else if (arg_is(a, "i")) {
        put_signed(l, (int64_t)v);
    } else if (arg_is(a, "call")) {
        put(l, (const char *)(uintptr_t)v);
    } else {
        put_u64(l, v);
    }
}

/* "name=value name=value", and the reason, if there is one, last and in words. */
static void put_generic(struct line *l, const struct shown *s)
{
    const char *spec = s->info->args;
    const char *reason = NULL;
    unsigned i = 0;
    struct shown_arg a;
    while (next_arg(s->r, &spec, &i, &a)) {
        if (arg_is(&a, "reason")) {
            reason = tcp_reason_text((unsigned)a.value);
            continue;
        }
        if (arg_is(&a, "str")) {
            reason = (const char *)(uintptr_t)a.value;
            continue;
        }
        put_char(l, ' ');
        put_n(l, a.name, a.name_len);
        put_char(l, '=');
        put_value(l, s, &a);
    }
    if (reason && *reason) {
        put(l, "  ");
        put_plain(l, reason);
    }
}

/* Two spaces and the reason, where there is one. */
static void put_why(struct line *l, uint64_t reason)
{
    const char *text = tcp_reason_text((unsigned)reason);
    if (*text)
        put(l, "  ");
    put(l, text);
}

static void put_state(struct line *l, const struct shown *s)
{
    put(l, "  ");
    put(l, tcp_state_name((unsigned)shown_value(s, 0)));
    put(l, " -> ");
    put(l, tcp_state_name((unsigned)shown_value(s, 1)));
    put_why(l, shown_value(s, 2));
}

/* "  SYN queue 1, accept queue 0/128", behind the reason where there is one. */
static void put_queue(struct line *l, const struct shown *s)
{
    unsigned first = s->r->id == TRACE_EV_REFUSED || s->r->id == TRACE_EV_SYN_DROPPED;
    if (first)
        put_why(l, shown_value(s, 0));
    put(l, "  SYN queue ");
    put_u64(l, shown_value(s, first));
    if (s->r->argc > first + 1) {
        put(l, ", accept queue ");
        put_u64(l, shown_value(s, first + 1));
    }
    if (s->r->argc > first + 2) {
        put_char(l, '/');
        put_u64(l, shown_value(s, first + 2));
    }
}

/* flags seq ack len wnd why opt */
static void put_segment(struct line *l, const struct shown *s)
{
    const bool out = s->r->id == TRACE_EV_SEGMENT_OUT;
    const uint32_t flags = (uint32_t)shown_value(s, 0);
    const struct tcp_isns *n = &s->isn;
    const bool to_known = out ? n->has_irs : n->has_iss;
    const uint32_t to_first = out ? n->irs : n->iss;
    put(l, out ? "  tx " : "  rx ");
    put_flags(l, flags);
    put(l, " seq ");
    put_seq(l, (uint32_t)shown_value(s, 1), out ? n->has_iss : n->has_irs, out ? n->iss : n->irs);
    if (flags & TCP_ACK) {
        put(l, " ack ");
        put_seq(l, (uint32_t)shown_value(s, 2), to_known, to_first);
    }
    put(l, " win ");
    put_u64(l, shown_value(s, 4));
    put(l, " len ");
    put_u64(l, shown_value(s, 3));
    const struct tcp_options *o = (const struct tcp_options *)(uintptr_t)shown_value(s, 6);
    if (o)
        put_options(l, o, to_known, to_first);
    put_why(l, shown_value(s, 5));
}

/* "  recv(7) = -1 EAGAIN" */
static void put_call(struct line *l, const struct shown *s)
{
    const char *const args = (const char *)(uintptr_t)shown_value(s, 4);
    const nsec_t begin = shown_value(s, 5);
    put(l, "  ");
    put(l, (const char *)(uintptr_t)shown_value(s, 0));
    put_char(l, '(');
    put_signed(l, (int32_t)shown_value(s, 1));
    if (args && *args) {
        put(l, ", ");
        put_plain(l, args);
    }
    put(l, ") = ");
    if (shown_value(s, 3) != 0) {
        put(l, "-1 ");
        put_errno(l, shown_value(s, 3));
    } else {
        put_signed(l, (int64_t)shown_value(s, 2));
    }
    if (begin != 0 && s->r->now > begin + TOLD_WAIT) {
        put(l, "  after ");
        put_ms(l, s->r->now - begin);
    }
}

/* "  connect(): user  rule: user connect 10.0.0.0/8" */
static void put_rule(struct line *l, const struct shown *s)
{
    put(l, "  ");
    put(l, (const char *)(uintptr_t)shown_value(s, 0));
    put(l, shown_value(s, 1) ? "(): user  " : "(): kernel  ");
    put_plain(l, (const char *)(uintptr_t)shown_value(s, 2));
}

/* "  impaired  drop out SYN,ACK seq 0 (...) len 0  rule: drop syn-ack 1" */
static void put_impaired(struct line *l, const struct shown *s)
{
    const char *dir = (const char *)(uintptr_t)shown_value(s, 1);
    const bool out = dir && dir[0] == 'o';
    put(l, "  ");
    put_plain(l, (const char *)(uintptr_t)shown_value(s, 0));
    put_char(l, ' ');
    put_plain(l, dir);
    put_char(l, ' ');
    put_flags(l, shown_value(s, 2));
    put(l, " seq ");
    put_seq(l, (uint32_t)shown_value(s, 3), out ? s->isn.has_iss : s->isn.has_irs,
            out ? s->isn.iss : s->isn.irs);
    put(l, " len ");
    put_u64(l, shown_value(s, 4));
    put(l, "  rule: ");
    put_plain(l, (const char *)(uintptr_t)shown_value(s, 5));
}

void trace_text_event(struct line *l, const struct shown *s)
{
    put(l, s->past ? "  past" : "");
    const enum trace_event_id id = s->r->id;
    if (id != TRACE_EV_SEGMENT_IN && id != TRACE_EV_SEGMENT_OUT) {
        put(l, "  ");
        put(l, s->info->name);
    }
    switch (id) {
    case TRACE_EV_STATE:
        put_state(l, s);
        break;
    case TRACE_EV_SEGMENT_IN:
    case TRACE_EV_SEGMENT_OUT:
        put_segment(l, s);
        break;
    case TRACE_EV_CALL:
        put_call(l, s);
        break;
    case TRACE_EV_RULE:
        put_rule(l, s);
        break;
    case TRACE_EV_IMPAIRED:
        put_impaired(l, s);
        break;
    default:
        if (s->info->class == TRACE_QUEUE)
            put_queue(l, s);
        else
            put_generic(l, s);
    }
}

static void put_head(struct line *l, nsec_t now, int pid)
{
    const nsec_t since = now > config.start ? now - config.start : 0;
    put_u64(l, since / NSEC_PER_SEC);
    put_char(l, '.');
    put_padded(l, since % NSEC_PER_SEC / NSEC_PER_USEC, 6);
    put_char(l, ' ');
    put_u64(l, (uint64_t)pid);
}

static void put_flow(struct line *l, const struct flow *flow)
{
    if (flow->number != 0) {
        put(l, " #");
        put_u64(l, flow->number);
    }
    const struct flow_tuple *t = &flow->tuple;
    put_char(l, ' ');
    put_endpoint(l, &t->local, t->lport);
    if (t->rport != 0) {
        put(l, " -> ");
        put_endpoint(l, &t->remote, t->rport);
    }
}

void trace_text(struct line *l, const struct shown *s)
{
    put_head(l, s->now, s->pid);
    if (s->r->flow)
        put_flow(l, s->r->flow);
    trace_text_event(l, s);
}

void trace_text_lost(struct line *l, int pid, nsec_t now, uint64_t count)
{
    put_head(l, now, pid);
    put(l, "  lost  ");
    put_u64(l, count);
    put(l, " events: the reader of the trace is too slow");
}
