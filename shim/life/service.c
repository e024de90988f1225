/*
 * A program that computes, or sleeps in a call that is not ours, must still acknowledge, retransmit
 * and answer SYNs. That is the service thread's work, and it must not be felt otherwise: a wake-up
 * of it costs a switch, and may take the processor from the program's own thread.
 *
 *   DEEP   a caller drives and sleeps: nothing to do. A futex without time-out. Whoever gives up
 *          the role with nobody to take it rings (sleep_settle()).
 *   TICK   looks every 5 ms whether callers still drive (shared.drains moves), without the lock;
 *          every 20 ms once they have for a while: each look makes a round trip of the program's
 *          slow. A driver that sleeps through four ticks: DEEP; one of another process through
 *          twenty, for if that is killed this thread passes the role on. Nobody for 5 ms: DRIVE.
 *   DRIVE  has the role: sleeps on the packet socket and the engine's timers like any driver. As
 *          soon as callers drain again or take the role: TICK.
 *
 * So an idle process makes no wake-ups, and a busy one is looked at every 5 ms.
 *
 * libc ends the process when its last thread returns, the kernel when the last has ended, and both
 * would count this one. It matters only when the main thread is gone (leader.h): from then on this
 * thread looks now and then whether it is alone.
 */
#define _GNU_SOURCE
#include "shim/life/service.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/prctl.h>

#include "shim/core/family.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/births.h"
#include "shim/life/keeper.h"
#include "shim/life/leader.h"
#include "shim/life/transit.h"
#include "shim/link/aside.h"
#include "shim/link/link.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"

#define TICK        (5 * NSEC_PER_MSEC)
#define QUIET_TICKS 4
/* While another process drives: that it may be killed, and what that takes the kernel when busy. */
#define QUIET_TICKS_FOREIGN 20
/* After so many ticks through which callers drove, they are longer. */
#define BUSY_TICKS 16
#define BUSY_TICK  (20 * NSEC_PER_MSEC)
/* Two wake-ups by packets in DRIVE are at least this far apart: frames gather. */
#define DRIVE_PACE (200 * NSEC_PER_USEC)
/* The driver is another process: whether it still lives. */
#define FOREIGN_LOOK NSEC_PER_SEC
/* Without a keeper that notices deaths: whether the other processes live. */
#define DEATH_LOOK  (80 * NSEC_PER_MSEC)
#define KEEPER_LOOK NSEC_PER_SEC
/* After the main thread left: whether others are left. */
#define ALONE_LOOK  (100 * NSEC_PER_MSEC)
#define RETRY       NSEC_PER_SEC
#define STACK_BYTES (128 * 1024)

static struct {
    bool started; /* (atomic) */
    nsec_t retry_at;
    nsec_t looked;   /* for deaths */
    nsec_t asked;    /* for the keeper */
    bool stop;       /* (atomic) */
    uint32_t coming; /* the thread was made and does not run yet (atomic) */
    uint32_t slot;
    nsec_t until; /* in DRIVE: how long it sleeps, also when the role was taken from it meanwhile */
} service;
static __thread uint32_t put_off __attribute__((tls_model("initial-exec")));

static bool stopped(void)
{
    return unlikely(__atomic_load_n(&service.stop, __ATOMIC_ACQUIRE));
}

bool service_wanted(struct stack_cx *cx)
{
    if (likely(__atomic_load_n(&service.started, __ATOMIC_RELAXED)))
        return false;
    if (cx->now < service.retry_at || process_self() == NULL || put_off != 0 || stopped())
        return false;
    return engine.sh->listened || engine_deadline(cx->st) != NSEC_NEVER || engine_processes() > 1 ||
           transit_due() != NSEC_NEVER;
}

static nsec_t now(void)
{
    struct stack_cx cx;
    engine_clock(&cx);
    return cx.now;
}

/* Until the bell rings (its value is no longer `seen`) or the time is over. */
static void bell_wait(const struct process *self, uint32_t seen, nsec_t span)
{
    if (leader_left()) {
        span = min_u64(span, ALONE_LOOK);
        leader_end_if_alone();
    }
    struct timespec ts = {.tv_sec = (time_t)(span / NSEC_PER_SEC),
                          .tv_nsec = (long)(span % NSEC_PER_SEC)};
    raw_syscall(SYS_futex, (long)&self->doorbell, FUTEX_WAIT, seen,
                (long)(span == NSEC_NEVER ? NULL : &ts), 0, 0);
}

/* Sleepers wait for a driver that did not come back: leaving the engine gives them another. */
static void settle(void)
{
    struct stack_cx cx;
    engine_enter(&cx);
    sleep_check_driver(engine.sh);
    engine_leave(&cx);
}

/* Whether the keeper still lives: where the process does something, not where it sleeps. */
static void look_for_keeper(void)
{
    const nsec_t at = now();
    if (at - service.asked < KEEPER_LOOK || engine.sandboxed)
        return;
    service.asked = at;
    keeper_start();
}

/* Not entered. Deaths that were noticed, here or by the keeper, are seen to by who enters. */
static void look_for_deaths(void)
{
    look_for_keeper();
    if (family_unattended()) {
        const nsec_t at = now();
        if (at - service.looked >= DEATH_LOOK) {
            service.looked = at;
            family_look();
        }
    }
    if (unlikely(family_deaths(engine.sh)))
        settle();
    if (unlikely(transit_due() != NSEC_NEVER))
        transit_look(now());
}

static uint32_t bell(const struct process *self)
{
    return __atomic_load_n(&self->doorbell, __ATOMIC_ACQUIRE);
}

static uint64_t drains(void)
{
    return __atomic_load_n(&engine.sh->drains, __ATOMIC_RELAXED);
}

static bool drained_lately(void)
{
    return now() - __atomic_load_n(&engine.sh->drained_at, __ATOMIC_RELAXED) < TICK;
}

static uint32_t driver(void)
{
    return __atomic_load_n(&engine.sh->driver, __ATOMIC_RELAXED);
}

/* The process that drives, if it is another; looked at without the lock. */
static const struct process *foreign_driver(const struct process *self)
{
    struct shared *sh = engine.sh;
    const uint32_t slot = driver();
    const uint32_t number = slot != 0 ? waiter_at(sh, slot)->process : 0;
    const struct process *p = number != 0 ? process_at(sh, number) : self;
    return p != self ? p : NULL;
}

/* ---- what goes aside (shim/link/aside.h) ---- */

static bool listens(void)
{
    const struct process *self = process_self();
    return self != NULL && self->state == PROCESS_LIVE && self->service == SERVICE_TICK &&
           !stopped();
}

static void call(void)
{
    bell_ring(&process_self()->doorbell);
}

static const struct aside_helper helper = {listens, call};

/* As bell_wait(), from `start` on; who rings for what lies aside is served meanwhile. */
static void help_or_wait(const struct process *self, uint32_t seen, nsec_t start, nsec_t span)
{
    for (nsec_t at = start; at - start < span; at = now()) {
        if (!aside_listen())
            bell_wait(self, seen, start + span - at);
        if (!aside_awake())
            break;
        aside_help();
        seen = bell(self);
        waiter_relay();
    }
}

/* ---- the three modes; each returns the next ---- */

static enum service_mode deep(struct process *self)
{
    struct shared *sh = engine.sh;
    struct stack_cx cx;
    const uint32_t seen = bell(self);
    nsec_t span = NSEC_NEVER;
    if (stopped()) /* after the bell was looked at: who stops rings it */
        return SERVICE_TICK;
    engine_enter(&cx);
    sleep_check_driver(sh);
    const bool driven = sh->driver != 0 && sh->driver != service.slot;
    const bool quiet = driven && list_empty(&self->relay);
    if (driven && foreign_driver(self) != NULL)
        span = FOREIGN_LOOK;
    self->service = quiet ? SERVICE_DEEP : SERVICE_TICK;
    aside_flush();
    engine_leave(&cx);
    if (!quiet)
        return SERVICE_TICK;
    if (family_unattended())
        span = min_u64(span, DEATH_LOOK);
    if (transit_due() != NSEC_NEVER)
        span = min_u64(span, transit_due() > cx.now ? transit_due() - cx.now : 0);
    bell_wait(self, seen, span);
    look_for_deaths();
    waiter_relay();
    /* Rung for a relay only, or not at all: still somebody drives. */
    return __atomic_load_n(&self->service, __ATOMIC_RELAXED);
}

static enum service_mode tick(struct process *self)
{
    unsigned quiet = 0, busy = 0;
    for (;;) {
        const nsec_t span = busy < BUSY_TICKS ? TICK : BUSY_TICK;
        const uint64_t before = drains();
        const uint32_t seen = bell(self);
        waiter_relay();
        const nsec_t start = now();
        if (stopped())
            return SERVICE_TICK;
        help_or_wait(self, seen, start, span);
        look_for_deaths();
        waiter_relay();
        const struct process *other = foreign_driver(self);
        if ((driver() == 0 && !list_empty(&engine.sh->sleepers)) ||
            unlikely(other != NULL && process_died(other)))
            settle();
        const bool drained = drains() != before;
        busy = drained ? busy + 1 : 0;
        if (drained && (span == TICK || driver() != 0 || drained_lately())) {
            quiet = 0;
        } else if (driver() == 0) {
            if (now() - start >= TICK)
                return SERVICE_DRIVE;
        } else if (++quiet >= (other != NULL ? QUIET_TICKS_FOREIGN : QUIET_TICKS)) {
            return SERVICE_DEEP;
        }
    }
}

/* Entered: takes the role if it is free. */
static bool drive_begin(struct process *self, struct waiter *w)
{
    struct shared *sh = engine.sh;
    if ((sh->driver != 0 && sh->driver != service.slot) || !list_empty(&sh->sleepers))
        return false;
    sh->driver = service.slot;
    w->asleep = true; /* engine_leave() leaves the role with it, and may wake it */
    self->service = SERVICE_DRIVE;
    aside_flush();
    return true;
}

static int drive_sleep(nsec_t until, nsec_t at)
{
    if (leader_left())
        until = min_u64(until, at + ALONE_LOOK);
    if (family_unattended())
        until = min_u64(until, at + DEATH_LOOK);
    until = min_u64(until, transit_due());
    const nsec_t span = until > at ? until - at : 0;
    struct timespec ts = {.tv_sec = (time_t)(span / NSEC_PER_SEC),
                          .tv_nsec = (long)(span % NSEC_PER_SEC)};
    struct pollfd fds[3] = {
        {.fd = waiter_fd(service.slot) > 0 ? waiter_fd(service.slot) : -1, .events = POLLIN},
        {.fd = births_bell(), .events = POLLIN},
        {.fd = engine.link != NULL ? engine.link->fd : -1, .events = POLLIN},
    };
    const int r = raw_ppoll(fds, 3, until == NSEC_NEVER ? NULL : &ts);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t count;
        if (fds[i].revents != 0)
            raw_read(fds[i].fd, &count, sizeof(count));
    }
    return r;
}

/*
 * A thread that is inside most of the time, as one that sends without a pause, would wake us each
 * time it leaves, and be inside again before we are there.
 */
static void enter_between(struct stack_cx *cx, const struct process *self)
{
    for (nsec_t waited = 0; waited < TICK; waited += DRIVE_PACE) {
        if (engine_try_enter(cx))
            return;
        bell_wait(self, bell(self), DRIVE_PACE);
    }
    engine_enter(cx);
}

static enum service_mode drive(struct process *self)
{
    struct shared *sh = engine.sh;
    struct waiter *w = waiter_at(sh, service.slot);
    struct stack_cx cx;
    engine_enter(&cx);
    bool mine = drive_begin(self, w);
    uint64_t seen = drains();
    while (mine) {
        w->asleep = true;
        stack_flush(&cx);
        const nsec_t until = service.until = sh->driver_until = sleep_deadline(&cx);
        const nsec_t slept_at = cx.now;
        engine_leave(&cx);
        const int r = drive_sleep(until, slept_at);
        look_for_deaths();
        waiter_relay();
        if (r < 0 || (r > 0 && now() - slept_at < DRIVE_PACE) || leader_left())
            bell_wait(self, bell(self), r < 0 ? TICK : DRIVE_PACE);
        enter_between(&cx, self);
        w->asleep = false;
        /* a caller of another process that would rather drive waits among the sleepers */
        mine = sh->driver == service.slot && drains() == seen && list_empty(&sh->sleepers) &&
               !stopped();
        if (!mine)
            break;
        engine_drain(&cx);
        seen = drains();
    }
    if (sh->driver == service.slot)
        sh->driver = 0;
    self->service = SERVICE_TICK;
    engine_leave(&cx);
    waiter_relay();
    return SERVICE_TICK;
}

static void *service_main(void *arg)
{
    struct process *self = arg;
    enum service_mode mode = SERVICE_TICK;
    __atomic_store_n(&service.coming, 0, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&service.coming, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
    prctl(PR_SET_NAME, "tcpshim");
    process_life_begin();
    keeper_start();
    while (__atomic_load_n(&self->state, __ATOMIC_RELAXED) == PROCESS_LIVE && !stopped()) {
        switch (mode) {
        case SERVICE_DEEP:
            mode = deep(self);
            break;
        case SERVICE_DRIVE:
            mode = drive(self);
            break;
        default:
            mode = tick(self);
            break;
        }
    }
    while (!stopped())
        bell_wait(self, bell(self), NSEC_NEVER);
    process_life_end();
    return NULL;
}

/* ---- starting ---- */

/* All signals are blocked but for the two that libc keeps to itself (cancellation, setuid). */
static const uint64_t all_signals = ~(1ull << 31 | 1ull << 32);

static bool thread_start(struct process *self)
{
    pthread_attr_t attr;
    pthread_t thread;
    uint64_t mask;
    if (pthread_attr_init(&attr) != 0)
        return false;
    __atomic_store_n(&service.coming, 1, __ATOMIC_RELEASE);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    raw_sigprocmask(SIG_BLOCK, &all_signals, &mask);
    int err = pthread_create(&thread, &attr, service_main, self);
    if (err == EINVAL) { /* thread-local storage of the program is larger than that */
        pthread_attr_setstacksize(&attr, (size_t)8 << 20);
        err = pthread_create(&thread, &attr, service_main, self);
    }
    raw_sigprocmask(SIG_SETMASK, &mask, NULL);
    pthread_attr_destroy(&attr);
    if (err != 0)
        __atomic_store_n(&service.coming, 0, __ATOMIC_RELEASE);
    return err == 0;
}

void service_start(void)
{
    if (__atomic_exchange_n(&service.started, true, __ATOMIC_ACQ_REL))
        return;
    struct stack_cx cx;
    const int saved = errno;
    struct process *self = process_self();
    keeper_begin();
    leader_know();
    engine_enter(&cx);
    if (self != NULL && service.slot == 0)
        service.slot = waiter_claim();
    if (self != NULL && service.slot != 0) {
        struct waiter *w = waiter_at(engine.sh, service.slot);
        w->service = true;
        self->service = SERVICE_TICK;
        aside_use(&helper);
    }
    engine_leave(&cx);
    if (self == NULL || service.slot == 0 || !thread_start(self)) {
        if (self != NULL)
            self->service = SERVICE_NONE;
        service.retry_at = cx.now + RETRY;
        __atomic_store_n(&service.started, false, __ATOMIC_RELEASE);
    }
    errno = saved;
}

void service_forked(void)
{
    if (service.slot != 0)
        waiter_wake(waiter_at(engine.sh, service.slot));
    /* who drives sleeps on the bell as well from now on */
    if (engine.sh->driver != 0)
        waiter_wake(waiter_at(engine.sh, engine.sh->driver));
}

/*
 * Wakes the thread unless it ticks. cx: while it drives, only if something is due before its sleep
 * ends; NULL: in any case.
 */
static void ring(const struct stack_cx *cx)
{
    struct process *self = process_self();
    if (self == NULL)
        return;
    if (self->service == SERVICE_DEEP) {
        waiter_ring(engine.sh, self);
    } else if (unlikely(self->service == SERVICE_DRIVE)) {
        const nsec_t deadline = cx != NULL ? sleep_deadline(cx) : 0;
        if (deadline < service.until) {
            service.until = deadline; /* it is woken once */
            waiter_wake(waiter_at(engine.sh, service.slot));
        }
    }
}

void service_look_again(void)
{
    ring(NULL);
}

void service_left_alone(const struct stack_cx *cx)
{
    ring(cx);
}

void service_await_start(void)
{
    while (unlikely(__atomic_load_n(&service.coming, __ATOMIC_ACQUIRE) != 0))
        raw_syscall(SYS_futex, (long)&service.coming, FUTEX_WAIT, 1, 0, 0, 0);
}

void service_put_off(bool on)
{
    put_off += on ? 1 : UINT32_MAX;
}

void service_stop(void)
{
    struct process *self = process_self();
    if (self == NULL || !__atomic_load_n(&service.started, __ATOMIC_ACQUIRE))
        return;
    __atomic_store_n(&service.stop, true, __ATOMIC_RELEASE);
    struct stack_cx cx;
    engine_enter(&cx);
    if (service.slot != 0)
        waiter_wake(waiter_at(engine.sh, service.slot)); /* it may drive */
    engine_leave(&cx);
    __atomic_add_fetch(&self->doorbell, 1, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&self->doorbell, FUTEX_WAKE, 1, 0, 0, 0);
}

void service_after_fork_child(void)
{
    service.started = service.stop = false;
    service.coming = 0;
    service.slot = 0;
    service.retry_at = 0;
    leader_after_fork_child();
}

void service_main_left(void)
{
    leader_leaves();
    struct process *self = engine_running() ? process_self() : NULL;
    if (self == NULL)
        return;
    __atomic_add_fetch(&self->doorbell, 1, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&self->doorbell, FUTEX_WAKE, 1, 0, 0, 0);
}
