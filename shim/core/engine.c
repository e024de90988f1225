/*
 * Entering and leaving. The lock is the only one of the shim; it is robust, so that a process that
 * is killed inside leaves it to the others.
 *
 * Order on leaving: frames out, role of the driver settled, wake-ups taken off the list, unlock,
 * wake-ups sent, and only then signals: a handler may do anything, also never return.
 */
#include "shim/core/engine.h"

#include <errno.h>
#include <linux/futex.h>
#include <time.h>

#include "shim/core/config.h"
#include "shim/core/family.h"
#include "shim/core/hold.h"
#include "shim/core/lock.h"
#include "shim/core/raw.h"
#include "shim/core/repair.h"
#include "shim/core/shared.h"
#include "shim/core/thread.h"
#include "shim/life/service.h"
#include "shim/link/foreign.h"
#include "shim/link/group.h"
#include "shim/link/guard.h"
#include "shim/link/impair_store.h"
#include "shim/link/ingress.h"
#include "shim/link/link.h"
#include "shim/wait/epset.h"
#include "shim/wait/herd.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"
#include "shim/watch/trace.h"
#include "shim/watch/usdt.h"

struct engine engine;
__thread struct thread_state thread_state __attribute__((tls_model("initial-exec")));

/* One drain: at most this many frames before the caller gets on with its own work. */
#define DRAIN_BATCH   64
#define DRAIN_BATCHES 8
/* A few microseconds. */
#define LOCK_LOOKS 100

static int engine_transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    struct link *l = engine.link;
    return likely(l != NULL) ? l->ops->transmit(l, cx, frame) : -ENETDOWN;
}

static void engine_flush(struct stack_cx *cx)
{
    link_flush(engine.link, cx);
}

static void engine_warn(struct stack_cx *cx, const char *text, const struct ip_addr *addr)
{
    (void)cx;
    if (addr != NULL && ip_addr_is_v4(addr))
        config_complain("%s (%u.%u.%u.%u)", text, addr->b[12], addr->b[13], addr->b[14],
                        addr->b[15]);
    else
        config_complain("%s", text);
}

static void engine_looped(struct stack_cx *cx, const struct frame_in *packet)
{
    engine.link->ops->looped(engine.link, cx, packet);
}

static struct stack_ops engine_ops = {
    .transmit = engine_transmit,
    .flush = engine_flush,
    .notify = wait_notify,
    .trace = trace_record,
    .trouble = trace_trouble,
    .warn = engine_warn,
    .foreign = foreign_flow,
    .elect = group_elect,
};

void engine_use_link(struct link *l)
{
    engine.link = l;
    engine_ops.looped = l->ops->looped != NULL ? engine_looped : NULL;
}

void engine_clock(struct stack_cx *cx)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    cx->now = (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* The lock is ours; err: what the call said that took it. */
static inline void engine_locked(struct shared *sh, int err)
{
    if (likely(err != EOWNERDEAD))
        return;
    sh->broken = true; /* until repaired: whoever does that may be killed, too */
    pthread_mutex_consistent(&sh->lock);
}

/*
 * The lock is held for about a microsecond; to sleep for it and be woken takes many. So a thread
 * that finds it taken looks a while whether it becomes free.
 */
static void engine_lock(struct shared *sh)
{
    int err = pthread_mutex_trylock(&sh->lock);
    for (unsigned i = 0; err == EBUSY && i < LOCK_LOOKS; i++) {
        cpu_relax();
        if (__atomic_load_n(&sh->lock.__data.__lock, __ATOMIC_RELAXED) == 0)
            err = pthread_mutex_trylock(&sh->lock);
    }
    if (unlikely(err == EBUSY))
        err = pthread_mutex_lock(&sh->lock);
    engine_locked(sh, err);
}

enum { GO_ON, HELD, FROZEN };
static uint32_t halted; /* (atomic) */

void engine_freeze(void)
{
    thread_state.ends = true;
    __atomic_store_n(&halted, FROZEN, __ATOMIC_RELEASE);
}

bool engine_frozen(void)
{
    return __atomic_load_n(&halted, __ATOMIC_ACQUIRE) == FROZEN;
}

void engine_hold(void)
{
    thread_state.ends = true;
    __atomic_store_n(&halted, HELD, __ATOMIC_RELEASE);
}

void engine_release(void)
{
    thread_state.ends = false;
    __atomic_store_n(&halted, GO_ON, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&halted, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
}

/* Entered; comes back entered, if at all. */
static void __attribute__((noinline)) halt(struct shared *sh)
{
    uint32_t why;
    while ((why = __atomic_load_n(&halted, __ATOMIC_ACQUIRE)) != GO_ON) {
        pthread_mutex_unlock(&sh->lock);
        raw_syscall(SYS_futex, (long)&halted, FUTEX_WAIT, why, 0, 0, 0);
        engine_lock(sh);
    }
}

static void __attribute__((noinline)) see_to_the_dead(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    if (sh->broken)
        family_repair(cx);
    sh->broken = false;
    if (engine.sandboxed) /* the rest takes system calls that it has not */
        return;
    if (sh->filter_broken)
        family_repair_filter(cx);
    if (family_deaths(sh))
        family_bury(cx);
}

/* The lock is ours, for the first time of this thread. */
static inline void look_for_halt(const struct thread_state *t)
{
    if (unlikely(__atomic_load_n(&halted, __ATOMIC_RELAXED) != GO_ON) && !t->ends)
        halt(engine.sh);
}

static inline __attribute__((always_inline)) void enter_locked(struct stack_cx *cx,
                                                               const struct thread_state *t)
{
    cx->st = engine.st;
    cx->ops = &engine_ops;
    cx->user = NULL;
    cx->trace = config.trace;
    if (usdt_wanted())
        cx->trace |= TRACE_ALL;
    engine_clock(cx);
    if (unlikely(engine.sh->broken || engine.sh->filter_broken || family_deaths(engine.sh)) &&
        t->inside == 1)
        see_to_the_dead(cx);
}

void engine_enter(struct stack_cx *cx)
{
    struct thread_state *t = &thread_state;
    if (likely(t->inside++ == 0)) {
        /* No function of libc that is a cancellation point may act on it while the lock is ours. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &t->cancel_state);
        engine_lock(engine.sh);
        look_for_halt(t);
    }
    enter_locked(cx, t);
}

bool engine_try_enter(struct stack_cx *cx)
{
    struct thread_state *t = &thread_state;
    t->inside++;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &t->cancel_state);
    const int err = pthread_mutex_trylock(&engine.sh->lock);
    if (err == EBUSY) {
        t->inside--;
        pthread_setcancelstate(t->cancel_state, NULL);
        return false;
    }
    engine_locked(engine.sh, err);
    look_for_halt(t);
    enter_locked(cx, t);
    return true;
}

static inline __attribute__((always_inline)) void flush(struct stack_cx *cx)
{
    if (unlikely(engine.sandboxed)) /* others run its timers */
        stack_flush(cx);
    else
        stack_flush_patiently(cx); /* who goes to sleep has flushed before */
}

/* Gives the lock back and sends what was decided. */
static inline __attribute__((always_inline)) void unlock(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    struct wakeups out;
    waiter_collect(sh, &out);
    pthread_mutex_unlock(&sh->lock);
    waiter_send(&out);
    if (unlikely(cx->trace != 0))
        trace_flush(); /* while handlers are still held back: one might never return */
}

bool engine_step_out(struct stack_cx *cx)
{
    struct thread_state *t = &thread_state;
    if (t->inside != 1)
        return false;
    flush(cx);
    sleep_settle(cx);
    unlock(cx);
    t->copy_cancel_state = t->cancel_state;
    t->copies = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&t->inside, 0, __ATOMIC_RELEASE);
    return true;
}

void engine_step_in(struct stack_cx *cx)
{
    struct thread_state *t = &thread_state;
    __atomic_store_n(&t->inside, 1, __ATOMIC_RELEASE);
    engine_thrown_out();
    engine_lock(engine.sh);
    look_for_halt(t);
    enter_locked(cx, t);
}

void engine_thrown_out(void)
{
    struct thread_state *t = &thread_state;
    t->copies = false;
    t->cancel_state = t->copy_cancel_state;
}

void engine_leave(struct stack_cx *cx)
{
    struct thread_state *t = &thread_state;
    flush(cx);
    if (unlikely(t->inside > 1)) {
        t->inside--;
        return;
    }
    sleep_settle(cx);
    bool service = service_wanted(cx);
    unlock(cx);
    __atomic_store_n(&t->inside, 0, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (unlikely(service))
        service_start();
    pthread_setcancelstate(t->cancel_state, NULL);
    if (unlikely(t->deferred != 0)) {
        /* What the trampoline held back is pending in the kernel: it is delivered in this call. */
        uint64_t set = t->deferred;
        t->deferred = 0;
        raw_sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
}

bool engine_inside(void)
{
    return thread_state.inside != 0;
}

unsigned engine_drain_for(struct stack_cx *cx, const struct drain *d)
{
    struct shared *sh = engine.sh;
    struct link *l = engine.link;
    unsigned frames = 0;
    if (unlikely(engine.sandboxed)) /* others of the family do that */
        return 0;
    if (likely(l != NULL)) {
        for (unsigned batch = 0; batch < DRAIN_BATCHES; batch++) {
            unsigned got = l->ops->receive(l, cx, DRAIN_BATCH, d);
            frames += got;
            if (got < DRAIN_BATCH)
                break;
            stack_flush_patiently(cx);
            engine_clock(cx);
        }
        ingress_count(cx, frames, link_lowest(l)->netif);
    }
    link_release(l, cx);
    if (stack_deadline(cx->st) <= cx->now)
        stack_run_timers(cx);
    herd_release(cx);
    guard_sweep(cx);
    __atomic_store_n(&sh->drains, sh->drains + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&sh->drained_at, cx->now, __ATOMIC_RELAXED);
    return frames;
}

unsigned engine_drain(struct stack_cx *cx)
{
    const struct drain anyone = {.reader = NULL};
    return engine_drain_for(cx, &anyone);
}

unsigned engine_drain_passing(struct stack_cx *cx)
{
    const struct drain passing = {.passing = true};
    return engine_drain_for(cx, &passing);
}

void shared_init(struct stack *st)
{
    struct shared *sh = stack_extra(st);
    struct arena *a = stack_arena(st);
    lock_init_robust(&sh->lock);
    pool_init(a, &sh->holds, sizeof(struct hold));
    pool_init(a, &sh->usocks, sizeof(struct usock));
    pool_init(a, &sh->watches, sizeof(struct waiter_watch));
    pool_init(a, &sh->epsets, sizeof(struct epset));
    pool_init(a, &sh->epitems, sizeof(struct epitem));
    impair_store_init(&sh->impair, a);
    list_init(&sh->sleepers);
    list_init(&sh->wakeups);
    list_init(&sh->herd);
}
