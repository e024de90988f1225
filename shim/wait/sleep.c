/*
 * How threads sleep, and who drives the engine meanwhile.
 *
 * A thread that finds nothing to return registers with what it waits for (waiter.h), still under
 * the lock, and goes into one ppoll() over the kernel descriptors of its call and its own eventfd.
 * If nobody drives yet, it adds the packet socket and the engine's next timer: it is the driver
 * then, and runs the engine on what arrives. What that does to others' sockets marks them woken;
 * their eventfds are written when the lock is gone. So a single-threaded program receives without
 * any hand-over.
 *
 * The driver keeps the role between two sleeps of one call. When it returns to the program it
 * gives it up, in sleep_settle(): another sleeper is woken and takes it ("heir"), or, when nobody
 * sleeps, the service thread looks after the engine (shim/life/service.c). A thread that wants to
 * sleep while the service thread drives takes the role from it.
 * (To wait a little for the driver to come back, instead of waking an heir at once, was measured:
 * it saved nothing at the median and cost up to 100 ms at the worst.)
 *
 * Nothing is lost in between: conditions are checked and watches registered under one hold of the
 * lock, `asleep` is set under it, eventfds are level-triggered, and a signal handler that runs
 * between the check and the ppoll() makes the eventfd readable.
 */
#include "shim/wait/sleep.h"

#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#include "shim/core/config.h"
#include "shim/core/family.h"
#include "shim/core/raw.h"
#include "shim/core/thread.h"
#include "shim/libc/real.h"
#include "shim/life/births.h"
#include "shim/life/service.h"
#include "shim/link/aside.h"
#include "shim/link/link.h"
#include "shim/wait/herd.h"
#include "shim/wait/spin.h"
#include "shim/wait/waiter.h"
#include "shim/wait/word.h"

/* A timer may be late by this before the driver is woken for it. */
#define TIMER_SLACK NSEC_PER_MSEC
/* How long an heir may take to come up before another is asked. */
#define HEIR_PATIENCE (20 * NSEC_PER_MSEC)
/* Without an eventfd nobody can wake us: look again after this. */
#define BLIND_SLEEP (5 * NSEC_PER_MSEC)
/* In a sandbox, where nobody else looks whether other processes live. */
#define SANDBOX_SLEEP (100 * NSEC_PER_MSEC)
/* The driver is another process: look after this whether it still lives. */
#define FOREIGN_DRIVER_CHECK NSEC_PER_SEC
/* Callers that always find something look at the packet socket this often. */
#define DRAIN_CHECK (20 * NSEC_PER_USEC)
/* Looks before a sleep, where the clock does not say when it is enough. */
#define LOOKS_MAX 200
/* Looks in vain for so long: a stream has paused, its ACK leaves (stack_flush_to_look()). */
#define STREAM_PAUSE (20 * NSEC_PER_USEC)
/* A sleep that ends within this found its packet waiting: the next one looks before it sleeps. */
#define SLEPT_NOT (3 * NSEC_PER_USEC)

/* ---- the role ---- */

/*
 * A service thread of this process gives the role up to a caller at once. One of another process is
 * woken first, and passes it on: two of different processes never sleep as drivers, so that the
 * bell wakes the right one.
 */
static bool driver_stays(struct shared *sh, const struct waiter *w)
{
    if (sh->driver == 0 || sh->driver == waiter_slot(sh, w))
        return false;
    const struct waiter *d = waiter_at(sh, sh->driver);
    return !d->service || (d->process != w->process && d->asleep);
}

void sleep_check_driver(struct shared *sh)
{
    if (sh->driver == 0)
        return;
    struct waiter *w = waiter_at(sh, sh->driver);
    if (w->process == 0 || w->process == process_number())
        return;
    const struct process *p = process_at(sh, w->process);
    if (!process_counts(p))
        sleep_forget(w);
    else if (process_died(p)) /* it is not buried yet; the role alone passes on */
        sh->driver = 0;
}

nsec_t sleep_deadline(const struct stack_cx *cx)
{
    return min_u64(engine_deadline(cx->st), herd_deadline(engine.sh));
}

static bool driver_take(struct shared *sh, struct waiter *w)
{
    uint32_t slot = waiter_slot(sh, w);
    if (driver_stays(sh, w)) {
        struct waiter *d = waiter_at(sh, sh->driver);
        if (d->service)
            waiter_wake(d);
        return false;
    }
    if (sh->driver != 0 && sh->driver != slot) {
        /* From a service thread: it notices when it wakes. In its mode it cannot relay, so it must.
         */
        if (engine_processes() > 1)
            waiter_wake(waiter_at(sh, sh->driver));
    }
    sh->driver = slot;
    if (sh->heir == slot)
        sh->heir = 0;
    return true;
}

/* Some other sleeper is woken to take the role; one of this process for preference. */
static bool driver_bequeath(struct shared *sh, nsec_t now)
{
    if (sh->heir != 0 && now - sh->heir_since < HEIR_PATIENCE)
        return true;
    struct waiter *heir = NULL;
    unsigned looked = 0;
    list_for_each (n, &sh->sleepers) {
        struct waiter *w = list_entry(n, struct waiter, on_sleepers);
        bool ours = w->process == process_number();
        if (heir == NULL || ours)
            heir = w;
        if (ours || ++looked == 16)
            break;
    }
    if (heir == NULL)
        return false;
    sh->heir = waiter_slot(sh, heir);
    sh->heir_since = now;
    list_remove(&heir->on_sleepers);
    if (!list_linked(&heir->on_queue))
        list_push_back(&sh->wakeups, &heir->on_queue);
    return true;
}

void sleep_settle(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    if (sh->driver != 0) {
        struct waiter *d = waiter_at(sh, sh->driver);
        if (d->spins) {
            return;
        } else if (likely(!d->asleep)) { /* ourselves (or one that was killed under the lock) */
            sh->driver = 0;
        } else {
            /* A timer was set that ends before the driver's sleep does. */
            const nsec_t deadline = sleep_deadline(cx);
            if (unlikely(deadline < sh->driver_until &&
                         sh->driver_until - deadline > TIMER_SLACK) &&
                !list_linked(&d->on_queue)) {
                sh->driver_until = deadline;
                list_push_back(&sh->wakeups, &d->on_queue);
            }
            return;
        }
    }
    if (!list_empty(&sh->sleepers) && driver_bequeath(sh, cx->now))
        return;
    if (unlikely(engine.sandboxed))
        sleep_hand_over_to_others(sh);
    service_left_alone(cx);
}

void sleep_hand_over_to_others(struct shared *sh)
{
    if (sh->driver != 0 || !list_empty(&sh->sleepers))
        return; /* engine_leave() bequeaths */
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        if (p->state == PROCESS_LIVE && p->service == SERVICE_DEEP) {
            waiter_ring(sh, p);
            return;
        }
    }
}

void sleep_forget(struct waiter *w)
{
    struct shared *sh = engine.sh;
    uint32_t slot = waiter_slot(sh, w);
    waiter_unwatch(w, true);
    list_remove(&w->on_sleepers);
    w->asleep = w->spins = false;
    if (sh->driver == slot)
        sh->driver = 0;
    if (sh->heir == slot)
        sh->heir = 0;
}

bool sleep_drain_due(const struct stack_cx *cx)
{
    const struct shared *sh = engine.sh;
    if (cx->now - sh->drained_at < DRAIN_CHECK)
        return false;
    if (sh->driver == 0)
        return true;
    /* Our service thread drives because we always found something: it stops when it sees us drain.
     * Both at once would take the lock from each other for each frame. */
    const struct process *self = process_self();
    return self != NULL && __atomic_load_n(&self->service, __ATOMIC_RELAXED) == SERVICE_DRIVE;
}

/* ---- signals ---- */

struct sleep_signals sleep_signals_now(void)
{
    const struct thread_state *t = &thread_state;
    return (struct sleep_signals){t->handlers, t->handlers_end};
}

int sleep_interrupted(const struct sleep_signals *since, bool restart)
{
    const struct thread_state *t = &thread_state;
    if (likely(t->handlers == since->handlers))
        return 0;
    return restart && t->handlers_end == since->handlers_end ? 1 : -EINTR;
}

bool sleep_abandon(void)
{
    struct thread_state *t = &thread_state;
    if (!t->asleep)
        return false;
    if (t->cancel_async) { /* the handler is none of the sleep's */
        t->cancel_async = false;
        pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
    }
    struct stack_cx cx;
    engine_enter(&cx);
    t->asleep = false;
    if (t->slot != 0)
        sleep_forget(waiter_at(engine.sh, t->slot));
    engine_leave(&cx);
    return true;
}

void sleep_end_now(void)
{
    const uint64_t one = 1;
    if (thread_state.slot != 0)
        word_end(waiter_at(engine.sh, thread_state.slot));
    if (thread_state.wake_fd > 0)
        raw_write(thread_state.wake_fd, &one, sizeof(one));
}

/* ---- sleeping ---- */

/* Process-local: what such a wait is for tends to be there already. */
static bool drain_first[SPIN_KINDS];

static void sleep_cancelled(void *unused)
{
    (void)unused;
    sleep_abandon();
}

static int ppoll_for(struct pollfd *fds, unsigned n, nsec_t span, const sigset_t *mask)
{
    struct timespec ts = {.tv_sec = (time_t)(span / NSEC_PER_SEC),
                          .tv_nsec = (long)(span % NSEC_PER_SEC)};
    int result;
    pthread_cleanup_push(sleep_cancelled, NULL);
    int saved = errno;
    result = real.ppoll(fds, n, span == NSEC_NEVER ? NULL : &ts, mask);
    if (result < 0) {
        result = -errno;
        errno = saved;
    }
    pthread_cleanup_pop(0);
    return result;
}

/* TCPSHIM_SPIN=USEC: looks again and again before it sleeps. */
static int ppoll_spin(struct pollfd *fds, unsigned n, nsec_t span, nsec_t now)
{
    struct stack_cx clock = {.now = now};
    nsec_t spin = min_u64(span, config.spin_usec * NSEC_PER_USEC);
    int r = 0;
    while (r == 0 && clock.now - now < spin) {
        r = ppoll_for(fds, n, 0, NULL);
        engine_clock(&clock);
    }
    return r;
}

/* Between two looks: whoever waits for this processor runs. */
static void yield(void)
{
    pthread_cleanup_push(sleep_cancelled, NULL);
    pthread_testcancel();
    raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    pthread_cleanup_pop(0);
}

/*
 * Text may stay in the packet socket until the program reads it where nobody else would find that
 * readable, and take it.
 */
static unsigned drain_as_driver(struct stack_cx *cx, const struct waiter *w, struct reader *reader)
{
    const struct drain d = {.reader = reader,
                            .woken = &w->woken,
                            .single = w->single,
                            .stays = list_empty(&engine.sh->sleepers)};
    return engine_drain_for(cx, &d);
}

static bool wait_over(const struct waiter *w, const struct reader *reader)
{
    return w->woken || reader_served(reader);
}

/*
 * Who waits holds nothing back, but what may come with a look or two (to_look). That may set
 * timers, and on the loopback change anything.
 */
static bool flush_unless_over(struct stack_cx *cx, const struct waiter *w,
                              const struct reader *reader, bool to_look)
{
    if (wait_over(w, reader))
        return true;
    if (to_look)
        stack_flush_to_look(cx);
    else
        stack_flush(cx);
    return wait_over(w, reader);
}

/*
 * Entered, as the driver: looks for frames instead of sleeping (spin.h), keeping the role. True:
 * the wait is over, or something happened that the caller must see.
 */
static bool look_around(struct stack_cx *cx, struct waiter *w, struct reader *reader, nsec_t until)
{
    struct shared *sh = engine.sh;
    struct thread_state *t = &thread_state;
    const struct sleep_signals since = sleep_signals_now();
    const nsec_t end = min_u64(until, cx->now + SPIN_MAX);
    bool over = false, yields = true, flushed = false;
    engine_clock(cx); /* what was flushed took its time */
    const nsec_t began = cx->now;
    waiter_thread_hook();
    for (unsigned i = 0; !over && yields && cx->now < end && i < LOOKS_MAX; i++) {
        const nsec_t before = cx->now;
        w->spins = t->asleep = true;
        engine_leave(cx);
        yield();
        engine_enter(cx);
        w->spins = false;
        over =
            !t->asleep || sh->driver != waiter_slot(sh, w) || sleep_interrupted(&since, false) != 0;
        t->asleep = false;
        if (over)
            break;
        const nsec_t took = cx->now - before;
        yields = spin_yielded(cx->now, took);
        drain_as_driver(cx, w, reader);
        over = wait_over(w, reader);
        drain_first[w->kind] |= over && i == 0 && took < SLEPT_NOT;
        if (!over && !flushed && cx->now - began >= STREAM_PAUSE) {
            flushed = true;
            stack_flush(cx);
            over = wait_over(w, reader);
        }
    }
    spin_ended(w->kind, over);
    return over;
}

/* The part of wait_sleep() without the lock. */
static int sleep_outside(struct stack_cx *cx, struct pollfd *fds, unsigned n, nsec_t until,
                         const sigset_t *mask)
{
    nsec_t before = cx->now;
    nsec_t span = until == NSEC_NEVER ? NSEC_NEVER : until > before ? until - before : 0;
    waiter_thread_hook();
    int r = 0;
    if (config.spin_usec != 0 && mask == NULL)
        r = ppoll_spin(fds, n, span, before);
    if (r == 0)
        r = ppoll_for(fds, n, span, mask);
    if (unlikely(r == -EINVAL)) {
        /* RLIMIT_NOFILE allows the caller's descriptors, not ours on top (sandboxes set it to 1).
         */
        r = ppoll_for(fds, n - SLEEP_FDS, min_u64(span, BLIND_SLEEP), mask);
        fds[n - 2].revents = POLLIN;
        return r < 0 ? r : r + 1;
    }
    if (r > 0 && fds[n - SLEEP_FDS].revents != 0) {
        uint64_t count;
        raw_read(fds[n - SLEEP_FDS].fd, &count, sizeof(count));
    }
    if (r > 0 && fds[n - 1].revents != 0) {
        uint64_t count;
        raw_read(fds[n - 1].fd, &count, sizeof(count));
    }
    return r;
}

/*
 * The process is in a sandbox (shim/life/sandbox.c) and asks the kernel for descriptors of the
 * program's (kernel), or for another mask of signals: neither goes together with a word.
 */
static int sleep_in_sandbox(struct stack_cx *cx, struct pollfd *fds, unsigned n, bool kernel,
                            nsec_t until, const sigset_t *mask)
{
    for (unsigned i = n; i < n + SLEEP_FDS; i++)
        fds[i].revents = 0;
    const nsec_t span = until > cx->now ? min_u64(until - cx->now, BLIND_SLEEP) : 0;
    return ppoll_for(fds, kernel ? n : 0, span, mask); /* RLIMIT_NOFILE may be 1 */
}

/* No slot is free: a short sleep that nobody can end. */
static int sleep_blind(struct stack_cx *cx, struct pollfd *fds, unsigned n, nsec_t deadline,
                       const sigset_t *mask)
{
    nsec_t span = deadline > cx->now ? min_u64(deadline - cx->now, BLIND_SLEEP) : 0;
    stack_flush(cx);
    engine_leave(cx);
    int r = ppoll_for(fds, n, span, mask);
    engine_enter(cx);
    engine_drain(cx);
    return r == -EINTR ? 0 : r;
}

/* Whether the thread leaves driving to others: nothing that it waits for comes from outside. */
static bool waits_inside(const struct shared *sh, const struct waiter *w)
{
    const struct process *self = process_self();
    return w->inside && sh->driver != waiter_slot(sh, w) && self != NULL &&
           self->service != SERVICE_NONE;
}

/* The part of wait_sleep() without the lock, for who sleeps on the word. */
static void sleep_on_word(const struct stack_cx *cx, struct waiter *w, nsec_t until)
{
    waiter_thread_hook();
    nsec_t span = until == NSEC_NEVER ? NSEC_NEVER : until > cx->now ? until - cx->now : 0;
    if (unlikely(engine.sandboxed))
        span = min_u64(span, SANDBOX_SLEEP);
    word_sleep(w, cx->now, span, sleep_cancelled);
}

/* What our own descriptors behind the caller's are asked for. */
static void add_own_fds(struct pollfd *fds, bool drives)
{
    const struct thread_state *t = &thread_state;
    fds[0] = (struct pollfd){.fd = t->wake_fd > 0 ? t->wake_fd : -1, .events = POLLIN};
    const bool packets = drives && engine.link != NULL;
    fds[1] = (struct pollfd){.fd = packets ? engine.link->fd : -1, .events = POLLIN};
    /* Only a driver can be rung: it is alone in that (driver_stays()). */
    const bool rung = drives && engine_processes() > 1;
    fds[2] = (struct pollfd){.fd = rung ? births_bell() : -1, .events = POLLIN};
}

/*
 * Entered again, after a sleep that began at `before`: what is to be done first. packets: the entry
 * of the packet socket; idle: no descriptor is ready. Whether there was what a look would have
 * found.
 */
static bool awake(struct stack_cx *cx, struct waiter *w, const struct pollfd *packets,
                  nsec_t before, bool idle, struct reader *reader)
{
    struct shared *sh = engine.sh;
    if (sh->driver != waiter_slot(sh, w)) {
        if (idle && !engine.sandboxed)
            sleep_check_driver(sh);
        return w->by_word && w->woken;
    }
    if (packets->revents != 0) {
        drain_as_driver(cx, w, reader);
        drain_first[w->kind] |= cx->now - before < SLEPT_NOT;
        return true;
    }
    if (sleep_deadline(cx) <= cx->now) {
        link_release(engine.link, cx);
        stack_run_timers(cx);
        herd_release(cx);
    }
    return false;
}

int wait_sleep(struct stack_cx *cx, struct waiter *w, struct pollfd *fds, unsigned n,
               nsec_t deadline, const sigset_t *mask, struct reader *reader)
{
    struct shared *sh = engine.sh;
    struct thread_state *t = &thread_state;
    bool kernel = false;
    for (unsigned i = 0; i < n; i++) {
        fds[i].revents = 0;
        kernel |= fds[i].fd >= 0;
    }
    if (unlikely(w == NULL))
        return sleep_blind(cx, fds, n, deadline, mask);

    const bool inside = waits_inside(sh, w);
    const bool drives = !engine.sandboxed && !inside && driver_take(sh, w);
    if (drives && (drain_first[w->kind] || tcp_any_foreseen(cx->st)))
        drain_first[w->kind] = drain_as_driver(cx, w, reader) != 0;
    const nsec_t began = cx->now;
    const bool looks = drives && config.spin_auto && mask == NULL && list_empty(&sh->sleepers) &&
                       spin_due(w->kind, cx->now, kernel);
    bool over = flush_unless_over(cx, w, reader, looks);
    if (looks && !over)
        over = look_around(cx, w, reader, min_u64(deadline, sleep_deadline(cx))) ||
               flush_unless_over(cx, w, reader, false);
    if (over) {
        waiter_unwatch(w, false);
        return 0;
    }
    aside_flush(); /* nobody waits for the ACKs of who sleeps */
    w->by_word = !drives && !kernel && mask == NULL;
    nsec_t until = deadline;
    if (drives)
        until = sh->driver_until = min_u64(deadline, sleep_deadline(cx));
    else if (sh->driver == 0 || waiter_at(sh, sh->driver)->process != w->process)
        until = min_u64(deadline, cx->now + FOREIGN_DRIVER_CHECK);
    if (unlikely(t->wake_fd <= 0) && !w->by_word)
        until = min_u64(until, cx->now + BLIND_SLEEP);
    add_own_fds(fds + n, drives);
    word_begin(w);
    w->asleep = true;
    if (!drives && !inside && !engine.sandboxed)
        list_push_front(&sh->sleepers, &w->on_sleepers);
    t->asleep = true;
    nsec_t before = cx->now;
    engine_leave(cx);
    int r = 0;
    if (w->by_word)
        sleep_on_word(cx, w, until);
    else
        r = unlikely(engine.sandboxed) ? sleep_in_sandbox(cx, fds, n, kernel, until, mask)
                                       : sleep_outside(cx, fds, n + SLEEP_FDS, until, mask);
    engine_enter(cx);
    if (unlikely(engine.sandboxed))
        list_remove(&w->on_queue);
    if (r < 0)
        for (unsigned i = 0; i < n + SLEEP_FDS; i++)
            fds[i].revents = 0;
    if (likely(t->asleep)) {
        t->asleep = false;
        w->asleep = false;
        list_remove(&w->on_sleepers);
        if (sh->heir == waiter_slot(sh, w))
            sh->heir = 0;
    }
    const nsec_t woke = cx->now;
    const bool found = awake(cx, w, &fds[n + 1], before, r == 0, reader);
    spin_slept(w->kind, woke, woke - began, found, kernel);
    waiter_unwatch(w, false);
    if (r < 0)
        return r == -EINTR ? 0 : r;
    return r - (fds[n].revents != 0) - (fds[n + 1].revents != 0) - (fds[n + 2].revents != 0);
}
