#define _GNU_SOURCE
#include "shim/keeper/finish.h"

#include "shim/core/config.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/core/usock.h"
#include "shim/keeper/guards.h"
#include "shim/keeper/ingress.h"
#include "shim/keeper/merge.h"
#include "shim/keeper/netns.h"
#include "shim/life/keeper.h"
#include "shim/link/impair_store.h"
#include "shim/link/link.h"
#include "shim/watch/trace.h"

/* From the death of the family to the end of the keeper, at most; again from each one taken over.
 */
#define LIFE_MAX (130 * NSEC_PER_SEC)
/* Another family wants the own address: data that is not acknowledged by then is given up. */
#define YIELD_MAX (5 * NSEC_PER_SEC)
/* After SIGTERM. */
#define SOON_MAX (2 * NSEC_PER_SEC)
/* Guards are let go and the end is looked for this often. */
#define LOOK  (250 * NSEC_PER_MSEC)
#define BATCH 64

struct engine engine;
volatile sig_atomic_t finish_soon;

static struct {
    nsec_t end;
    bool hurried;
    nsec_t looked;
    uint32_t flows; /* when it was looked: connections and TIME_WAIT entries */
    bool may_merge;
    nsec_t asked_netns, ask_netns_after;
    int rival; /* a process that waits for the own address; -1: none */
} work = {.rival = -1, .ask_netns_after = NSEC_PER_SEC};

static int transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    return engine.link->ops->transmit(engine.link, cx, frame);
}

static void flush(struct stack_cx *cx)
{
    link_flush(engine.link, cx);
}

static void notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx;
    (void)owner;
    (void)events;
}

static const struct stack_ops ops = {.transmit = transmit,
                                     .flush = flush,
                                     .notify = notify,
                                     .trace = trace_record,
                                     .trouble = trace_trouble};

static void read_clock(struct stack_cx *cx)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    cx->now = (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

static void drain(struct stack_cx *cx)
{
    while (engine.link->ops->receive(engine.link, cx, BATCH, NULL) == BATCH) {
        stack_flush(cx);
        read_clock(cx);
    }
    link_release(engine.link, cx);
    stack_run_timers(cx);
    stack_flush(cx);
    trace_flush();
}

/* The lock of the family: whoever had it is dead. */
static bool died_inside(const struct shared *sh)
{
    return __atomic_load_n(&sh->lock.__data.__lock, __ATOMIC_RELAXED) != 0;
}

static void close_socket(void *object, void *arg)
{
    struct usock *us = object;
    struct stack_cx *cx = arg;
    if (us->conn != NULL && tcp_is_conn(cx->st, us->conn) && tcp_is_held(us->conn)) {
        tcp_set_owner(us->conn, NULL);
        tcp_close(cx, us->conn);
    }
    if (us->listener != NULL && tcp_is_listener(cx->st, us->listener))
        tcp_listener_close(cx, us->listener);
    us->conn = NULL;
    us->listener = NULL;
}

/* Sockets only: sleepers, epoll sets and the objects themselves interest nobody any more. */
static void release(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    if (died_inside(sh) || sh->broken) {
        pool_repair(&sh->holds);
        pool_repair(&sh->usocks);
        pool_repair(&sh->watches);
        pool_repair(&sh->epsets);
        pool_repair(&sh->epitems);
        impair_store_repair(&sh->impair);
        stack_repair(cx);
    }
    drain(cx);
    pool_each(&sh->usocks, close_socket, cx);
    stack_flush(cx);
}

static void end_by(nsec_t when)
{
    work.end = min_u64(work.end, when);
}

/* ---- the own address ---- */

/* Who asks for the address connects to its lock (shim/life/own_address.c) and waits there. */
static void look_for_rival(struct stack_cx *cx)
{
    struct pollfd door = {.fd = KEEPER_FD_ADDRESS, .events = POLLIN};
    struct timespec zero = {0};
    while (work.rival < 0 && raw_ppoll(&door, 1, &zero) == 1) {
        const int fd = raw_accept4(KEEPER_FD_ADDRESS, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct pollfd p = {.fd = fd};
        if (raw_ppoll(&p, 1, &zero) != 0) { /* gave up, perhaps long ago */
            raw_close(fd);
            continue;
        }
        work.rival = fd;
        end_by(cx->now + YIELD_MAX);
    }
}

/* ---- */

static bool done(struct stack_cx *cx)
{
    if (cx->now >= work.end)
        return true;
    if (finish_soon && !work.hurried) {
        work.hurried = true;
        end_by(cx->now + SOON_MAX);
    }
    if ((work.rival >= 0 || finish_soon) && tcp_orphans_unsent(cx->st) == 0)
        return true;
    if (tcp_connections(cx->st) != 0 || link_deadline(engine.link) != NSEC_NEVER)
        return false;
    if (tcp_time_waits(cx->st) == 0)
        return true;
    if (cx->now < work.asked_netns + work.ask_netns_after)
        return false;
    work.asked_netns = cx->now;
    work.ask_netns_after *= 2;
    return netns_deserted();
}

static void give_up_one(struct tcp_conn *c, void *arg)
{
    tcp_disconnect(arg, c);
}

static uint32_t flows(const struct stack *st)
{
    return tcp_connections(st) + tcp_time_waits(st);
}

/* Guards and filter let go of what is over. */
static void sweep(struct stack_cx *cx)
{
    if (cx->now < work.looked + LOOK && flows(cx->st) >= work.flows)
        return;
    work.looked = cx->now;
    work.flows = flows(cx->st);
    guards_sweep(cx->st);
    link_filter_narrow(engine.link);
}

/*
 * Whether other keepers may finish this one's work, and the other way round: not where somebody
 * watches it (traces, captures), and not with what belongs to a single family.
 */
static bool may_merge(void)
{
    return !config.own_address && (config.trace & TRACE_ALL) == 0 && engine.link->lower == NULL;
}

/* Returns when something happened, or it is time. */
static void sleep_until(struct stack_cx *cx, nsec_t until)
{
    const nsec_t span = until > cx->now ? until - cx->now : 0;
    struct timespec ts = {.tv_sec = (time_t)(span / NSEC_PER_SEC),
                          .tv_nsec = (long)(span % NSEC_PER_SEC)};
    struct pollfd fds[2 + MERGE_FDS] = {
        {.fd = engine.link->fd, .events = POLLIN},
        {.fd = config.own_address && work.rival < 0 ? KEEPER_FD_ADDRESS : -1, .events = POLLIN}};
    merge_poll(fds + 2);
    if (raw_ppoll(fds, ARRAY_LEN(fds), &ts) <= 0)
        return;
    read_clock(cx);
    if (merge_serve(cx, fds + 2)) {
        work.end = cx->now + LIFE_MAX;
        work.flows = flows(cx->st);
        bound_life();
    }
}

void finish(struct stack *st)
{
    struct stack_cx cx = {.st = st, .ops = &ops, .trace = config.trace};
    engine.st = st;
    engine.sh = stack_extra(st);
    ingress_end(st);
    if (link_af_packet_attach(st, KEEPER_FD_PACKET, &config, &engine.link) < 0)
        return;
    link_wrap(st, &config, KEEPER_FD_CAPTURE, &engine.link);
    if (!config.own_address)
        stack_ignore_strangers(st);
    read_clock(&cx);
    work.end = cx.now + LIFE_MAX;
    work.may_merge = may_merge();
    release(&cx);
    guards_take(st, KEEPER_FD_CUSTODY);
    link_filter_narrow(engine.link);
    for (;;) {
        read_clock(&cx);
        drain(&cx);
        if (config.own_address)
            look_for_rival(&cx);
        if (done(&cx))
            break;
        if (work.may_merge && tcp_connections(st) == 0 && merge_offer(&cx))
            break;
        sweep(&cx);
        nsec_t until = engine_deadline(st);
        if (tcp_connections(st) != 0)
            until = min_u64(until, work.looked + LOOK);
        else
            until = min_u64(until, work.asked_netns + work.ask_netns_after);
        sleep_until(&cx, min_u64(until, work.end));
    }
    if (cx.now >= work.end) {
        tcp_each_conn(st, give_up_one, &cx);
        stack_flush(&cx);
    }
    trace_close();
}
