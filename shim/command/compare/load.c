/* The files of a run as flows (compare.h). */
#define _GNU_SOURCE
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/compare/compare.h"
#include "shim/command/view/read.h"

/* A segment is captured so much earlier, or so much later, than the stack says. */
#define SLACK 1000000
#define REACH 100000000

static bool on_host(const char *endpoint, const char *host)
{
    size_t n = strlen(host);
    return endpoint && strncmp(endpoint, host, n) == 0 && endpoint[n] == ':';
}

static int side_of(const char *endpoint)
{
    return on_host(endpoint, NETWORK_B) ? CLIENT : on_host(endpoint, NETWORK_A) ? SERVER : -1;
}

/* A host's capture, in order of time: what it sent, and what arrived there. */
static void load_capture(const struct settings *s, struct run *r, int side, struct event_list *to)
{
    struct event_list list = {0};
    char path[300];
    run_path(path, sizeof(path), s, r, side == CLIENT ? "client.pcap" : "server.pcap");
    if (capture_load(&list, path, 0) < 0)
        return;
    for (size_t i = 0; i < list.n; i++) {
        struct event e = list.items[i];
        if (side_of(e.local) < 0 || side_of(e.peer) < 0 || side_of(e.local) == side_of(e.peer))
            continue;
        e.t -= r->wall_offset;
        e.wire = false;
        if (side_of(e.local) != side) {
            const char *local = e.local;
            e.local = e.peer;
            e.peer = local;
            e.kind = EV_RX;
            e.name = intern("rx");
        }
        *event_add(to) = e;
    }
    event_list_free(&list);
    event_sort(to);
}

/* States and errors of a kernel side, as the tracepoint or sock_diag saw them. */
static void load_kernel(const struct settings *s, struct run *r, const char *what, int only)
{
    struct event_list list = {0};
    char path[300];
    run_path(path, sizeof(path), s, r, what);
    if (access(path, R_OK) != 0 || events_load(&list, path, 0) < 0)
        return;
    for (size_t i = 0; i < list.n; i++) {
        const struct event *e = &list.items[i];
        int side = side_of(e->local);
        if (e->kind == EV_LOST)
            r->capture_lost += e->bytes;
        else if (side >= 0 && (only < 0 || side == only) && !run_user(r, side))
            *event_add(&r->events) = *e;
    }
    event_list_free(&list);
}

/* Whether a captured segment is one, or a piece, of what the stack sent or received. */
static bool is_piece(const struct event *wire, const struct event *whole)
{
    uint32_t offset = wire->seq - whole->seq;
    uint8_t flags = FLAG_SYN | FLAG_RST | (whole->len > 0 ? 0 : FLAG_FIN);
    if (wire->kind != whole->kind || wire->local != whole->local || wire->peer != whole->peer ||
        (wire->flags ^ whole->flags) & flags)
        return false;
    return whole->len > 0 ? wire->len > 0 && offset < whole->len
                          : offset == 0 && wire->len == 0 && wire->ack == whole->ack;
}

/* The first captured segment from time t - SLACK on; an index. */
static size_t first_from(const struct event_list *captured, int64_t t)
{
    size_t low = 0, high = captured->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (captured->items[middle].t < t - SLACK)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * What the stack says of a segment, beside the captured one. One that it sent gives its reason; for
 * one that arrived, the time of its arrival is returned, else TIME_NONE.
 */
static int64_t join_segment(struct event_list *captured, const struct event *e)
{
    for (size_t i = first_from(captured, e->t); i < captured->n; i++) {
        struct event *wire = &captured->items[i];
        if (wire->t > e->t + REACH)
            break;
        if (!is_piece(wire, e) || (e->kind == EV_TX && wire->why))
            continue;
        if (e->kind == EV_RX)
            return wire->t;
        wire->why = e->why;
        if (segment_space(e) <= segment_space(wire))
            break;
    }
    return TIME_NONE;
}

/*
 * Traces of the user stack, all processes of a side. Segments are the capture's. The stack reads
 * its clock once for all that it finds in its socket, so what a segment caused may have a time
 * before the arrival that was captured: it gets that one.
 */
static void load_traces(const struct settings *s, struct run *r, int side,
                        struct event_list *captured)
{
    char pattern[300];
    glob_t found;
    run_path(pattern, sizeof(pattern), s, r,
             side == CLIENT ? "client-trace.*.json" : "server-trace.*.json");
    if (glob(pattern, 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct event_list list = {0};
        int64_t arrived = TIME_NONE;
        events_load(&list, found.gl_pathv[i], (unsigned)i);
        for (size_t k = 0; k < list.n; k++) {
            struct event *e = &list.items[k];
            if (event_is_segment(e)) {
                int64_t at = join_segment(captured, e);
                arrived = at > arrived ? at : arrived;
                continue;
            }
            if (e->t != TIME_NONE && e->t < arrived && arrived - e->t < REACH)
                e->t = arrived;
            *event_add(&r->events) = *e;
        }
        event_list_free(&list);
    }
    globfree(&found);
}

static bool is_state(const struct event *e, const char *id)
{
    return e->kind == EV_STATE && e->why_id && strcmp(e->why_id, id) == 0;
}

/*
 * The tracepoint tells every change of a socket, at its time; but a closing connection that has
 * only to wait becomes a record, which it shows as CLOSED. sock_diag still sees that, as FIN_WAIT_2
 * or TIME_WAIT; and the half-open connection before there is a socket.
 */
static void join_kernel_state(struct event **states, size_t n, size_t at)
{
    struct event *e = states[at], *last = NULL, *next = NULL;
    for (size_t k = 0; k < n; k++) {
        struct event *o = states[k];
        if (o == e || o->local != e->local || o->peer != e->peer || o->kind != EV_STATE)
            continue;
        if (k < at)
            last = o;
        else if (!next)
            next = o;
    }
    bool closed = last && is_state(last, "tracepoint") && strcmp(last->to, "CLOSED") == 0;
    if (strcmp(e->to, "SYN_RECEIVED") == 0 && !last) {
        if (next && is_state(next, "tracepoint") && strcmp(next->to, "SYN_RECEIVED") == 0)
            next->kind = EV_OTHER;
    } else if (strcmp(e->to, "TIME_WAIT") == 0 && last && strcmp(last->to, "TIME_WAIT") != 0) {
        e->from = closed ? last->from : last->to;
        if (closed)
            last->kind = EV_OTHER;
    } else {
        if (closed && strcmp(e->to, "FIN_WAIT_2") == 0)
            last->kind = EV_OTHER; /* it goes on where it was */
        e->kind = EV_OTHER;
    }
}

static void join_kernel_states(struct event_list *l)
{
    struct event **states = must_alloc(NULL, (l->n + 1) * sizeof(*states));
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i].kind == EV_STATE && l->items[i].from && l->items[i].to)
            states[n++] = &l->items[i];
    for (size_t i = 0; i < n; i++)
        if (is_state(states[i], "sock_diag"))
            join_kernel_state(states, n, i);
    free(states);
}

/* The tracepoint shows other laboratories' sockets, too: what has no segments here is none of ours.
 */
static void drop_strangers(struct flow_list *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct flow *f = l->items[i];
        if (f->segments[0] + f->segments[1] > 0) {
            f->number = (unsigned)kept + 1;
            l->items[kept++] = f;
            continue;
        }
        free(f->items);
        free(f);
    }
    l->n = kept;
}

bool run_load(const struct settings *s, struct run *r)
{
    struct timespec mono, real;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &real);
    r->wall_offset =
        (real.tv_sec - mono.tv_sec) * INT64_C(1000000000) + real.tv_nsec - mono.tv_nsec;
    for (int side = 0; side < 2; side++) {
        struct event_list captured = {0};
        load_capture(s, r, side, &captured);
        if (run_user(r, side))
            load_traces(s, r, side, &captured);
        for (size_t i = 0; i < captured.n; i++)
            *event_add(&r->events) = captured.items[i];
        event_list_free(&captured);
    }
    load_kernel(s, r, "client-diag.json", CLIENT);
    load_kernel(s, r, "server-diag.json", SERVER);
    if (r->watch == WATCH_TRACEPOINT)
        load_kernel(s, r, "kernel.json", -1);
    event_sort(&r->events);
    if (r->watch == WATCH_TRACEPOINT)
        join_kernel_states(&r->events);
    flows_build(&r->flows, &r->events);
    drop_strangers(&r->flows);
    return true;
}
