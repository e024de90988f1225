#define _GNU_SOURCE
#include "shim/command/snapshot.h"

#include <stdlib.h>
#include <time.h>

#include "shim/core/fdtable.h"
#include "shim/core/layout.h"
#include "shim/core/shared.h"
#include "stack/tcp/wire.h"

/* An object that its owner is writing is read again, so often. */
#define LOOKS 4
/* Descriptors looked at in one process. */
#define FDS_MAX (1u << 20)

struct taking {
    struct snapshot *s;
    const struct family *f;
    struct stack *st; /* a copy */
    nsec_t now;
};

static nsec_t clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* ---- objects ---- */

/* The copy of an object as it was at one moment, where that can be had. */
static void steady(const struct taking *t, uintptr_t address, const void *first, void *out,
                   size_t size)
{
    char again[sizeof(struct tcp_conn)];
    memcpy(out, first, size);
    for (unsigned i = 0; i < LOOKS && size <= sizeof(again); i++) {
        if (!family_read(t->f, address, again, size) || memcmp(again, out, size) == 0)
            return;
        memcpy(out, again, size);
    }
}

static struct snapshot_socket *add(struct taking *t, const struct flow *flow, uint8_t kind)
{
    struct snapshot *s = t->s;
    if (s->n == s->room) {
        const unsigned room = s->room != 0 ? 2 * s->room : 64;
        struct snapshot_socket *more = realloc(s->sockets, room * sizeof(*more));
        if (more == NULL)
            return NULL;
        s->sockets = more;
        s->room = room;
    }
    struct snapshot_socket *k = &s->sockets[s->n++];
    *k = (struct snapshot_socket){
        .kind = kind,
        .number = flow->number,
        .local = {flow->tuple.local, flow->tuple.lport},
        .remote = {flow->tuple.remote, flow->tuple.rport},
        .age = NSEC_NEVER,
    };
    return k;
}

static void add_timer(struct snapshot_socket *k, enum tcp_timer which, nsec_t at, nsec_t now)
{
    if (at != NSEC_NEVER && at != 0)
        k->timers[k->ntimers++] = (struct snapshot_timer){which, (int64_t)(at - now)};
}

static nsec_t since(nsec_t then, nsec_t now)
{
    return then != 0 && then <= now ? now - then : 0;
}

static void visit_conn(uintptr_t address, const void *copy, void *arg)
{
    struct taking *t = arg;
    struct tcp_conn c;
    steady(t, address, copy, &c, sizeof(c));
    struct snapshot_socket *k = add(t, &c.flow, FLOW_CONN);
    if (k == NULL)
        return;
    const struct stack_cx cx = {.st = t->st, .now = max_u64(t->now, c.created)};
    if (c.mss == 0)
        c.mss = TCP_MSS_DEFAULT; /* half-written */
    tcp_view(&cx, &c, &k->view);
    k->state = c.state <= TCP_STATE_MAX ? c.state : TCP_CLOSED;
    k->ready = tcp_unread(&c);
    k->recvq = tcp_inq(&c);
    k->sendq = tcp_outq(&c);
    k->unsent = tcp_outq_unsent(&c);
    k->in_flight = tcp_in_flight(&c);
    k->ooo = c.recvbuf.ooo_bytes;
    k->opts = c.opts;
    k->cc = c.cc.id < TCP_CC_COUNT ? c.cc.id : 0;
    k->held = c.held < TCP_REASON_COUNT && k->unsent > 0 ? c.held : TCP_WHY_NONE;
    k->orphan = !c.app_held && c.listener == NULL;
    k->unaccepted = !c.app_held && c.listener != NULL;
    k->owner = (uintptr_t)c.owner;
    k->snd_una = c.snd_una;
    k->snd_nxt = c.snd_nxt;
    k->rcv_nxt = c.rcv_nxt;
    k->error = c.err;
    k->soft_error = c.soft_err;
    k->age = since(c.created, t->now);
    tcp_flow_isns(&c.flow, &k->isn);
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        add_timer(k, i, c.deadline[i], t->now);
}

static void visit_half_open(uintptr_t address, const void *copy, void *arg)
{
    struct taking *t = arg;
    struct tcp_half_open h;
    steady(t, address, copy, &h, sizeof(h));
    struct snapshot_socket *k = add(t, &h.flow, FLOW_HALF_OPEN);
    if (k == NULL)
        return;
    k->state = TCP_SYN_RECEIVED;
    k->retransmits = h.retransmits;
    k->age = since(h.created, t->now);
    tcp_flow_isns(&h.flow, &k->isn);
    add_timer(k, TCP_TIMER_SYN_ACK, h.timer.deadline, t->now);
}

static void visit_time_wait(uintptr_t address, const void *copy, void *arg)
{
    struct taking *t = arg;
    struct tcp_time_wait w;
    steady(t, address, copy, &w, sizeof(w));
    struct snapshot_socket *k = add(t, &w.flow, FLOW_TIME_WAIT);
    if (k == NULL)
        return;
    k->state = TCP_TIME_WAIT;
    k->snd_nxt = w.snd_nxt;
    k->rcv_nxt = w.rcv_nxt;
    add_timer(k, TCP_TIMER_TIME_WAIT, w.timer.deadline, t->now);
}

static void visit_listener(uintptr_t address, const void *copy, void *arg)
{
    struct taking *t = arg;
    struct tcp_listener l;
    steady(t, address, copy, &l, sizeof(l));
    struct snapshot_socket *k = add(t, &l.flow, FLOW_LISTENER);
    if (k == NULL)
        return;
    struct usock us;
    k->state = TCP_LISTEN;
    k->opts = l.opts;
    tcp_listener_queues(&l, &k->syn_queue, &k->accept_queue, &k->backlog);
    k->recvq = k->accept_queue;
    k->sendq = k->backlog;
    k->owner = (uintptr_t)l.owner;
    k->kernel_too = family_read(t->f, k->owner, &us, sizeof(us)) && us.kernel_listen;
}

/* ---- descriptors ---- */

struct held {
    uintptr_t usock;
    struct snapshot_owner by;
};

struct held_list {
    struct held *at;
    size_t n, room;
};

static void hold(struct held_list *l, uintptr_t usock, const struct family_member *m, int fd)
{
    if (l->n == l->room) {
        const size_t room = l->room != 0 ? 2 * l->room : 64;
        struct held *more = realloc(l->at, room * sizeof(*more));
        if (more == NULL)
            return;
        l->at = more;
        l->room = room;
    }
    l->at[l->n++] = (struct held){usock, {m, fd}};
}

static void read_fds(struct held_list *l, const struct family_member *m, const struct process *p)
{
    uintptr_t part[512];
    unsigned high = 0;
    if (p->fds == NULL || !member_read(m, (uintptr_t)p->fds_high, &high, sizeof(high)))
        return;
    high = min_u32(high, FDS_MAX);
    for (unsigned from = 0; from < high; from += ARRAY_LEN(part)) {
        const unsigned n = min_u32(high - from, ARRAY_LEN(part));
        if (!member_read(m, (uintptr_t)p->fds + from * sizeof(part[0]), part, n * sizeof(part[0])))
            return;
        for (unsigned i = 0; i < n; i++)
            if ((part[i] & 3) == FD_SOCKET)
                hold(l, part[i] & ~(uintptr_t)3, m, (int)(from + i));
    }
}

static int by_usock(const void *a, const void *b)
{
    const struct held *x = a, *y = b;
    if (x->usock != y->usock)
        return x->usock < y->usock ? -1 : 1;
    if (x->by.member->pid != y->by.member->pid)
        return x->by.member->pid < y->by.member->pid ? -1 : 1;
    return x->by.fd - y->by.fd;
}

static void give_owners(struct snapshot *s, const struct held_list *l)
{
    for (unsigned i = 0; i < s->n; i++) {
        struct snapshot_socket *k = &s->sockets[i];
        size_t low = 0, high = l->n;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (l->at[middle].usock < k->owner)
                low = middle + 1;
            else
                high = middle;
        }
        for (; k->owner != 0 && low < l->n && l->at[low].usock == k->owner; low++)
            if (k->nowners < SNAPSHOT_OWNERS_MAX)
                k->owners[k->nowners++] = l->at[low].by;
    }
}

/* Whose descriptor is what: each process of the family has a table of them in its own memory. */
static void take_owners(struct taking *t, const struct shared *sh)
{
    struct held_list l = {NULL, 0, 0};
    for (unsigned i = 0; i < PROCESSES_MAX; i++) {
        const struct process *p = &sh->processes[i];
        for (unsigned m = 0; p->pid > 0 && m < t->f->nmembers; m++)
            if (t->f->members[m].inner_pid == p->pid && t->f->members[m].mapped)
                read_fds(&l, &t->f->members[m], p);
    }
    if (l.n > 0)
        qsort(l.at, l.n, sizeof(l.at[0]), by_usock);
    give_owners(t->s, &l);
    free(l.at);
}

/* ---- last events ---- */

static void keep_event(const struct ring_event *e, void *arg)
{
    struct snapshot *s = arg;
    if (e->event < TRACE_EVENT_COUNT)
        s->events[s->nevents++] = *e;
}

/* For qsort_r(3), of places in the array, which it must not rearrange meanwhile. */
static int by_connection(const void *a, const void *b, void *events)
{
    const struct ring_event *all = events;
    const uint16_t x = *(const uint16_t *)a, y = *(const uint16_t *)b;
    if (all[x].number != all[y].number)
        return all[x].number < all[y].number ? -1 : 1;
    return x - y;
}

static bool sort_events(struct snapshot *s)
{
    uint16_t order[RING_EVENTS];
    struct ring_event *sorted = calloc(s->nevents + 1, sizeof(*sorted));
    if (sorted == NULL)
        return false;
    for (unsigned i = 0; i < s->nevents; i++)
        order[i] = (uint16_t)i;
    qsort_r(order, s->nevents, sizeof(order[0]), by_connection, s->events);
    for (unsigned i = 0; i < s->nevents; i++)
        sorted[i] = s->events[order[i]];
    free(s->events);
    s->events = sorted;
    return true;
}

/* Where nothing else remembers the first sequence numbers (TIME_WAIT), the SYNs may be there. */
static void isns_of_events(struct snapshot_socket *k)
{
    for (unsigned i = 0; i < k->nevents; i++) {
        const struct ring_event *e = &k->events[i];
        if (e->event == TRACE_EV_SEGMENT_OUT && e->small[0] & TCP_SYN) {
            k->isn.has_iss = true;
            k->isn.iss = e->values[0];
        } else if (e->event == TRACE_EV_SEGMENT_IN && e->small[0] & TCP_SYN) {
            k->isn.has_irs = true;
            k->isn.irs = e->values[0];
        }
    }
}

static void give_events(struct snapshot *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        struct snapshot_socket *k = &s->sockets[i];
        unsigned low = 0, high = s->nevents;
        while (low < high) {
            const unsigned middle = (low + high) / 2;
            if (s->events[middle].number < k->number)
                low = middle + 1;
            else
                high = middle;
        }
        k->events = s->events + low;
        while (low + k->nevents < s->nevents && k->events[k->nevents].number == k->number)
            k->nevents++;
        if (!k->isn.has_iss && !k->isn.has_irs)
            isns_of_events(k);
    }
}

/* What was written over while the copy was made is taken out of it. */
static void take_events(struct taking *t, uintptr_t stack)
{
    struct snapshot *s = t->s;
    struct ring *r = &t->st->ring;
    uint64_t after = 0;
    const uintptr_t at = stack + offsetof(struct stack, ring) + offsetof(struct ring, next);
    s->events = calloc(RING_EVENTS, sizeof(*s->events));
    if (s->events == NULL || !family_read(t->f, at, &after, sizeof(after)))
        return;
    const uint64_t written = after - r->next;
    for (uint64_t i = 0; i < min_u64(written, RING_EVENTS); i++)
        r->events[(r->next + i) % RING_EVENTS].number = 0;
    ring_walk(r, 0, RING_EVENTS, keep_event, s);
    if (sort_events(s))
        give_events(s);
}

/* ---- */

static const char *const not_readable = "its memory cannot be read any more";

static const char other_build[] =
    "it runs another build of libtcpshim.so than this command's; the tcpshim beside that one can "
    "show it";

static const char *check(const struct family *f)
{
    if (f->reader.base == 0)
        return "its memory cannot be read (another user's program? try as root)";
    const uint64_t tag = arena_read_tag(&f->reader);
    if (tag == 0)
        return "it has no arena that this tcpshim knows";
    if (tag != layout_tag())
        return other_build;
    return NULL;
}

static void take_pools(struct taking *t, uintptr_t stack, void *room)
{
    const uintptr_t tcp = stack + offsetof(struct stack, tcp);
    const struct pool_wish wishes[] = {
        {tcp + offsetof(struct tcp_stack, conns), sizeof(struct tcp_conn), visit_conn},
        {tcp + offsetof(struct tcp_stack, listeners), sizeof(struct tcp_listener), visit_listener},
        {tcp + offsetof(struct tcp_stack, half_opens), sizeof(struct tcp_half_open),
         visit_half_open},
        {tcp + offsetof(struct tcp_stack, time_waits), sizeof(struct tcp_time_wait),
         visit_time_wait},
    };
    arena_read_pools(&t->f->reader, wishes, ARRAY_LEN(wishes), room, t);
}

/* In the order of the kernel's ss: listeners first, then by age of the number. */
static int by_number(const void *a, const void *b)
{
    const struct snapshot_socket *x = a, *y = b;
    const bool lx = x->kind == FLOW_LISTENER, ly = y->kind == FLOW_LISTENER;
    if (lx != ly)
        return lx ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static const char *take(struct taking *t, struct stack *st, struct shared *sh, void *room)
{
    const uintptr_t base = t->f->reader.base;
    /* the first member of the arena's header that is not its business: see arena_reserved() */
    const uintptr_t at =
        base + (uintptr_t)((char *)arena_reserved((struct arena *)room) - (char *)room);
    if (!family_read(t->f, at, st, sizeof(*st)))
        return not_readable;
    if (st->arena != (struct arena *)base || st->extra_offset != stack_size())
        return "its memory makes no sense (it may be starting just now)";
    if (!family_read(t->f, at + st->extra_offset, sh, sizeof(*sh)))
        return not_readable;
    st->nnetifs = min_u32(st->nnetifs, NETIFS_MAX);
    t->st = st;
    t->now = clock_now();
    memcpy(t->s->counters, st->counters, sizeof(t->s->counters));
    t->s->keeper = sh->keeper > 0 ? (uint32_t)sh->keeper : 0;
    t->s->own_address = st->config.own_address;
    take_pools(t, at, room);
    take_owners(t, sh);
    t->s->now = t->now;
    take_events(t, at);
    return NULL;
}

void snapshot_take(const struct family *f, struct snapshot *out)
{
    struct taking t = {.s = out, .f = f};
    struct stack *st = malloc(sizeof(*st));
    struct shared *sh = malloc(sizeof(*sh));
    void *room = aligned_alloc(64, ARENA_SPAN_SIZE);
    *out = (struct snapshot){.family = f, .problem = check(f)};
    out->other_build = out->problem == other_build;
    if (st == NULL || sh == NULL || room == NULL)
        out->problem = "no memory";
    if (out->problem == NULL)
        out->problem = take(&t, st, sh, room);
    if (out->n > 0)
        qsort(out->sockets, out->n, sizeof(out->sockets[0]), by_number);
    free(room);
    free(sh);
    free(st);
}

void snapshot_free(struct snapshot *s)
{
    free(s->sockets);
    free(s->events);
    s->sockets = NULL;
    s->events = NULL;
}
