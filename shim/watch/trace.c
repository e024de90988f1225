#define _GNU_SOURCE
#include "shim/watch/trace.h"

#include <errno.h>
#include <time.h>

#include "shim/core/config.h"
#include "shim/core/raw.h"
#include "shim/watch/filter.h"
#include "shim/watch/format.h"
#include "shim/watch/sink.h"
#include "shim/watch/usdt.h"
#include "stack/ring.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/wire.h"

/* Connections whose initial sequence numbers are remembered beyond their control block. */
#define ISN_NOTES 1024

static struct isn_note {
    uint32_t number; /* of the flow; 0: empty */
    struct tcp_isns isn;
} isn_notes[ISN_NOTES];

/* How much of the ring is told when a connection ends badly, and when the program crashes. */
#define TROUBLE_EVENTS 64
#define CRASH_EVENTS   200

static uint64_t lost; /* events that found no room since that was last said (atomic) */

/*
 * The connection knows its initial sequence numbers while it lives; what is left of it in TIME_WAIT
 * does not, and before the first SYN is taken the segment itself says.
 */
static void find_isns(const struct trace_record *r, struct tcp_isns *out)
{
    const struct flow *f = r->flow;
    *out = (struct tcp_isns){0};
    if (f == NULL)
        return;
    struct isn_note *note = f->number ? &isn_notes[f->number % ISN_NOTES] : NULL;
    if (tcp_flow_isns(f, out) && note)
        *note = (struct isn_note){f->number, *out};
    else if (note && note->number == f->number)
        *out = note->isn;
    if (r->id == TRACE_EV_SEGMENT_IN && r->argv[0] & TCP_SYN) {
        out->has_irs = true;
        out->irs = (uint32_t)r->argv[1];
    } else if (r->id == TRACE_EV_SEGMENT_OUT && r->argv[0] & TCP_SYN) {
        out->has_iss = true;
        out->iss = (uint32_t)r->argv[1];
        if (r->argv[0] & TCP_ACK) { /* a SYN cookie: nothing is kept of the handshake */
            out->has_irs = true;
            out->irs = (uint32_t)r->argv[2] - 1;
        }
    }
}

/* Into the buffer; false: no room, or it was too long to be whole. */
static bool finish(struct line *l)
{
    return !l->cut && sink_put(l);
}

static void count_lost(uint64_t n)
{
    __atomic_fetch_add(&lost, n, __ATOMIC_RELAXED);
}

/* Events were lost and there is room again. */
static bool say_lost(struct line *l, nsec_t now)
{
    const uint64_t n = __atomic_exchange_n(&lost, 0, __ATOMIC_RELAXED);
    l->n = 0;
    l->cut = false;
    (config.trace_json ? trace_json_lost : trace_text_lost)(l, sink_pid(), now, n);
    if (finish(l))
        return true;
    count_lost(n);
    return false;
}

/* Between sink_begin() and sink_end(). */
static void put_record(const struct trace_record *record, bool fresh, bool past)
{
    static struct line l; /* not on the stack of a thread of the program */
    if (fresh) {
        lost = 0; /* what was lost before a fork, the parent says */
        l.n = 0;
        l.cut = false;
        if (config.trace_json) {
            trace_json_header(&l, sink_pid(), record->now);
            finish(&l);
        }
    }
    /* the engine's clock stands still while it works: what others said meanwhile is ahead of it */
    static nsec_t last;
    if (!past)
        last = max_u64(last, record->now);
    if (unlikely(__atomic_load_n(&lost, __ATOMIC_RELAXED) != 0) &&
        !say_lost(&l, past ? record->now : last)) {
        count_lost(1);
        return;
    }
    struct shown s = {.r = record,
                      .info = &trace_events[record->id],
                      .pid = sink_pid(),
                      .now = past ? record->now : last,
                      .past = past};
    find_isns(record, &s.isn);
    l.n = 0;
    l.cut = false;
    (config.trace_json ? trace_json : trace_text)(&l, &s);
    if (!finish(&l))
        count_lost(1);
}

static void tell(const struct trace_record *record, bool past)
{
    const int saved = errno;
    bool fresh;
    if (sink_begin(&fresh)) {
        put_record(record, fresh, past);
        sink_end();
    } else {
        count_lost(1);
    }
    errno = saved;
}

void trace_record(struct stack_cx *cx, const struct trace_record *record)
{
    (void)cx;
    if (usdt_wanted())
        usdt_fire(record);
    if ((config.trace & trace_events[record->id].class) && filter_passes(record->flow))
        tell(record, false);
}

/* ---- the ring of last events ---- */

static void tell_past(const struct ring_event *e, void *arg)
{
    uint64_t argv[TRACE_ARGS_MAX];
    const struct flow *of = arg, nameless = {.number = e->number};
    const struct trace_record record = {.id = e->event,
                                        .now = e->when,
                                        .flow = of ? of : &nameless,
                                        .argc = ring_expand(e, argv),
                                        .argv = argv};
    tell(&record, true);
}

void trace_trouble(struct stack_cx *cx, const struct flow *flow)
{
    if (filter_passes(flow))
        ring_walk(stack_ring(cx->st), flow->number, TROUBLE_EVENTS, tell_past, (void *)flow);
}

void trace_crash(const struct stack *st)
{
    ring_walk(stack_ring(st), 0, CRASH_EVENTS, tell_past, NULL);
    sink_flush();
}

void trace_now(const struct flow *flow, enum trace_event_id id, const uint64_t *argv, unsigned argc)
{
    if (!(config.trace & trace_events[id].class))
        return;
    const uint64_t all = UINT64_MAX;
    uint64_t before;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    const struct trace_record record = {
        .id = id,
        .now = (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec,
        .flow = flow,
        .argc = argc,
        .argv = argv,
    };
    /* outside the engine nothing keeps a handler from running, and from leaving by longjmp() */
    raw_sigprocmask(SIG_SETMASK, &all, &before);
    trace_record(NULL, &record);
    sink_flush();
    raw_sigprocmask(SIG_SETMASK, &before, NULL);
}

void trace_open(void)
{
    sink_open();
}

void trace_ready(void)
{
    sink_ready();
}

void trace_give(uint32_t uid)
{
    sink_give(uid);
}

void trace_flush(void)
{
    if (sink_pending())
        sink_flush();
}

void trace_close(void)
{
    if (config.trace != 0)
        sink_flush_patiently();
}
