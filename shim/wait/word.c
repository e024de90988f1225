#define _GNU_SOURCE
#include "shim/wait/word.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>

#include "shim/core/config.h"
#include "shim/core/lock.h"
#include "shim/core/raw.h"
#include "shim/core/thread.h"
#include "shim/wait/spin.h"

/* Looks between two readings of the clock, which take longer than a look. */
#define LOOKS 16

/* The processor that runs us, + 1; 0: not known. */
static uint16_t this_processor(void)
{
    const int cpu = engine.sandboxed ? -1 : sched_getcpu(); /* it might be a system call */
    return (uint16_t)(cpu + 1);
}

/* How long the word is looked at before the sleep; 0: not at all. */
static nsec_t looking_time(const struct waiter *w, nsec_t now)
{
    if (config.spin_usec != 0)
        return config.spin_usec * NSEC_PER_USEC;
    if (!config.spin_auto || !spin_due((enum spin_kind)w->kind, now, false))
        return 0;
    /* Who wakes us shares this processor: it does not run while we look. */
    const uint16_t other = __atomic_load_n(&w->woken_on, __ATOMIC_RELAXED);
    return other == 0 || other == this_processor() ? 0 : SPIN_MAX;
}

/* Whether it was woken meanwhile. No system call: the other side runs on another processor. */
static bool look(const struct waiter *w, nsec_t now, nsec_t span)
{
    struct stack_cx clock = {.now = now};
    while (clock.now - now < span) {
        for (unsigned i = 0; i < LOOKS; i++) {
            if (__atomic_load_n(&w->word, __ATOMIC_ACQUIRE) != WORD_LOOKING)
                return true;
            cpu_relax();
        }
        engine_clock(&clock);
    }
    return false;
}

/*
 * The kernel compares the word again. Handlers that ran before it does have changed it, by
 * word_end(), so that neither they nor a restarted call are slept over.
 */
static void sleep_in_kernel(struct waiter *w, nsec_t span, void (*cancelled)(void *))
{
    struct thread_state *t = &thread_state;
    const struct timespec ts = {.tv_sec = (time_t)(span / NSEC_PER_SEC),
                                .tv_nsec = (long)(span % NSEC_PER_SEC)};
    int type;
    pthread_cleanup_push(cancelled, NULL);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    t->cancel_async = type != PTHREAD_CANCEL_ASYNCHRONOUS;
    raw_syscall(SYS_futex, (long)&w->word, FUTEX_WAIT, WORD_ASLEEP,
                (long)(span == NSEC_NEVER ? NULL : &ts), 0, 0);
    t->cancel_async = false;
    pthread_setcanceltype(type, NULL);
    pthread_cleanup_pop(0);
}

void word_sleep(struct waiter *w, nsec_t now, nsec_t span, void (*cancelled)(void *))
{
    const nsec_t looking = min_u64(looking_time(w, now), span);
    if (looking > 0) {
        const bool found = look(w, now, looking);
        spin_ended((enum spin_kind)w->kind, found);
        if (found)
            return;
    }
    uint32_t seen = WORD_LOOKING;
    if (__atomic_compare_exchange_n(&w->word, &seen, WORD_ASLEEP, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        sleep_in_kernel(w, span, cancelled);
}

void word_wake_again(struct waiter *w)
{
    __atomic_store_n(&w->word, WORD_WOKEN, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&w->word, FUTEX_WAKE, 1, 0, 0, 0);
}

void word_wake(struct waiter *w)
{
    __atomic_store_n(&w->woken_on, this_processor(), __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&w->word, WORD_WOKEN, __ATOMIC_ACQ_REL) == WORD_ASLEEP)
        raw_syscall(SYS_futex, (long)&w->word, FUTEX_WAKE, 1, 0, 0, 0);
}
