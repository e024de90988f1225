/*
 * Signal handlers never run inside the engine. Each handler of the program is installed behind a
 * trampoline; sigaction() and its relatives show the program its own.
 *
 * A signal that finds its thread inside is sent back to the thread (rt_tgsigqueueinfo(2), with its
 * siginfo) and blocked in the interrupted context; engine_leave() unblocks it, and the kernel
 * delivers it again, now with everything as it must be: mask, alternate stack, ucontext.
 *
 * A signal that finds its thread asleep in a wait takes it out of the sleep before the handler
 * runs, since the handler may call anything and may never return (siglongjmp). The counts of
 * handlers tell the wait afterwards whether it was interrupted: EINTR, or SA_RESTART.
 */
#define _GNU_SOURCE
#include "shim/libc/signal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <ucontext.h>

#include "shim/core/raw.h"
#include "shim/core/thread.h"
#include "shim/libc/real.h"
#include "shim/wait/sleep.h"

#define SIGNALS 65

typedef void (*handler3)(int, siginfo_t *, void *);

/*
 * The program's last real handler for each signal. Kept when the disposition becomes SIG_DFL or
 * SIG_IGN: a delivery may be under way. Read by the trampoline without the lock: handlers are
 * called with three arguments in any case, so that a torn pair only miscounts a restart.
 */
static struct entry {
    handler3 handler; /* (atomic) */
    int flags;        /* (atomic) as the program gave them */
} table[SIGNALS];
static bool table_locked;
/* Signals for which siginterrupt(sig, 1) was called: signal() installs without SA_RESTART. */
static uint64_t interrupting;

static uint64_t bit_of(int sig)
{
    return 1ull << (sig - 1);
}

/* ---- the trampoline ---- */

/* Raised by what the thread itself just did, not sent: it cannot be put off. */
static bool is_synchronous(int sig, const siginfo_t *info)
{
    switch (sig) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS:
        return info->si_code > 0;
    default:
        return false;
    }
}

static void defer(struct thread_state *t, int sig, siginfo_t *info, ucontext_t *uc)
{
    const long pid = raw_getpid();
    const long tid = raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
    if (raw_syscall(SYS_rt_tgsigqueueinfo, pid, tid, sig, (long)info, 0, 0) < 0) {
        /* RLIMIT_SIGPENDING: as the kernel then does, the signal comes without its siginfo. */
        siginfo_t bare = {.si_signo = sig, .si_code = SI_USER};
        raw_syscall(SYS_rt_tgsigqueueinfo, pid, tid, sig, (long)&bare, 0, 0);
    }
    sigaddset(&uc->uc_sigmask, sig);
    t->deferred |= bit_of(sig);
}

static void trampoline(int sig, siginfo_t *info, void *context)
{
    struct thread_state *t = &thread_state;
    if (unlikely(__atomic_load_n(&t->inside, __ATOMIC_RELAXED) != 0 || t->copies) &&
        !is_synchronous(sig, info)) {
        defer(t, sig, info, context);
        return;
    }
    const handler3 handler = __atomic_load_n(&table[sig].handler, __ATOMIC_ACQUIRE);
    const int flags = __atomic_load_n(&table[sig].flags, __ATOMIC_RELAXED);
    if (handler == NULL)
        return;
    const int saved = errno;
    const bool asleep = sleep_abandon();
    t->handlers++;
    if ((flags & SA_RESTART) == 0)
        t->handlers_end++;
    if ((flags & (int)SA_RESETHAND) != 0) {
        const struct sigaction none = {.sa_handler = SIG_DFL};
        real.sigaction(sig, &none, NULL);
    }
    errno = saved;
    handler(sig, info, context);
    if (asleep)
        sleep_end_now();
    /* errno is the handler's affair, as it is without us. */
}

/* ---- installing ---- */

static uint64_t table_lock(void)
{
    static const uint64_t all = ~0ull;
    uint64_t mask = 0;
    raw_sigprocmask(SIG_BLOCK, &all, &mask);
    while (__atomic_exchange_n(&table_locked, true, __ATOMIC_ACQUIRE))
        raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    return mask;
}

static void table_unlock(uint64_t mask)
{
    __atomic_store_n(&table_locked, false, __ATOMIC_RELEASE);
    raw_sigprocmask(SIG_SETMASK, &mask, NULL);
}

static bool is_ours(const struct sigaction *act)
{
    return (act->sa_flags & SA_SIGINFO) != 0 && act->sa_sigaction == trampoline;
}

static bool is_handler(const struct sigaction *act)
{
    return act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN && !is_ours(act);
}

/* What the program is told instead of the trampoline. */
static void show(struct sigaction *act, const struct entry *entry)
{
    if (!is_ours(act))
        return;
    act->sa_sigaction = entry->handler;
    act->sa_flags &= ~(SA_SIGINFO | (int)SA_RESETHAND);
    act->sa_flags |= entry->flags & (SA_SIGINFO | (int)SA_RESETHAND);
}

static void entry_set(int sig, const struct entry *e)
{
    __atomic_store_n(&table[sig].flags, e->flags, __ATOMIC_RELAXED);
    __atomic_store_n(&table[sig].handler, e->handler, __ATOMIC_RELEASE);
}

static int install(int sig, const struct sigaction *act, struct sigaction *old)
{
    struct sigaction ours = *act;
    ours.sa_sigaction = trampoline;
    ours.sa_flags = (ours.sa_flags & ~(int)SA_RESETHAND) | SA_SIGINFO;
    const struct entry entry = {act->sa_sigaction, act->sa_flags};
    struct sigaction previous;

    const uint64_t mask = table_lock();
    const struct entry before = table[sig];
    entry_set(sig, &entry);
    const int r = real_ready()->sigaction(sig, &ours, &previous);
    if (r < 0)
        entry_set(sig, &before);
    table_unlock(mask);
    if (r == 0 && old != NULL) {
        show(&previous, &before);
        *old = previous;
    }
    return r;
}

SHIM_EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (sig <= 0 || sig >= SIGNALS || (act != NULL && is_ours(act)))
        return real_ready()->sigaction(sig, act, old);
    if (act != NULL && is_handler(act)) {
        const struct sigaction wanted = *act; /* old may be the same place */
        return install(sig, &wanted, old);
    }
    const struct entry entry = table[sig];
    const int r = real_ready()->sigaction(sig, act, old);
    if (r == 0 && old != NULL)
        show(old, &entry);
    return r;
}

SHIM_EXPORT int __sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    return sigaction(sig, act, old);
}

void signals_after_fork_child(void)
{
    table_locked = false;
}

/* ---- the relatives, as glibc makes them of sigaction() ---- */

static real_handler install_simple(int sig, real_handler handler, int flags, bool mask_self)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    struct sigaction old = {0};
    if (handler == SIG_ERR || sig <= 0 || sig >= SIGNALS) {
        errno = EINVAL;
        return SIG_ERR;
    }
    sigemptyset(&act.sa_mask);
    if (mask_self)
        sigaddset(&act.sa_mask, sig);
    return sigaction(sig, &act, &old) < 0 ? SIG_ERR : old.sa_handler;
}

SHIM_EXPORT real_handler signal(int sig, real_handler handler)
{
    const bool interrupts = sig > 0 && sig < SIGNALS &&
                            (__atomic_load_n(&interrupting, __ATOMIC_RELAXED) & bit_of(sig)) != 0;
    return install_simple(sig, handler, interrupts ? 0 : SA_RESTART, true);
}

SHIM_EXPORT real_handler bsd_signal(int sig, real_handler handler)
{
    return signal(sig, handler);
}

SHIM_EXPORT real_handler ssignal(int sig, real_handler handler)
{
    return signal(sig, handler);
}

SHIM_EXPORT real_handler sysv_signal(int sig, real_handler handler)
{
    return install_simple(sig, handler, (int)SA_RESETHAND | SA_NODEFER, false);
}

SHIM_EXPORT real_handler __sysv_signal(int sig, real_handler handler)
{
    return sysv_signal(sig, handler);
}

SHIM_EXPORT real_handler sigset(int sig, real_handler handler)
{
    sigset_t set, before;
    sigemptyset(&set);
    if (handler == SIG_ERR || sigaddset(&set, sig) < 0) {
        errno = EINVAL;
        return SIG_ERR;
    }
    struct sigaction old = {0};
    if (handler == SIG_HOLD) {
        if (sigprocmask(SIG_BLOCK, &set, &before) < 0 || sigaction(sig, NULL, &old) < 0)
            return SIG_ERR;
        return sigismember(&before, sig) ? SIG_HOLD : old.sa_handler;
    }
    const real_handler previous = install_simple(sig, handler, 0, false);
    if (previous == SIG_ERR || sigprocmask(SIG_UNBLOCK, &set, &before) < 0)
        return SIG_ERR;
    return sigismember(&before, sig) ? SIG_HOLD : previous;
}

SHIM_EXPORT int siginterrupt(int sig, int interrupts)
{
    struct sigaction act;
    if (sigaction(sig, NULL, &act) < 0)
        return -1;
    if (interrupts) {
        __atomic_or_fetch(&interrupting, bit_of(sig), __ATOMIC_RELAXED);
        act.sa_flags &= ~SA_RESTART;
    } else {
        __atomic_and_fetch(&interrupting, ~bit_of(sig), __ATOMIC_RELAXED);
        act.sa_flags |= SA_RESTART;
    }
    return sigaction(sig, &act, NULL);
}
