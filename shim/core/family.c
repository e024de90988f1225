#define _GNU_SOURCE
#include "shim/core/family.h"

#include <errno.h>

#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/lock.h"
#include "shim/core/raw.h"
#include "shim/core/thread.h"
#include "shim/core/usock.h"
#include "shim/life/births.h"
#include "shim/life/keeper.h"
#include "shim/link/aside.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"

/* Process-local. */
static uint32_t own;                   /* index + 1 */
static uint32_t heir, heir_generation; /* of the fork in progress; 0: none */
static int lifeline = -1;              /* the heir's */
static int own_lifeline = -1;          /* where there was no room for the pidfd */

struct process *process_self(void)
{
    return own != 0 ? process_at(engine.sh, own) : NULL;
}

uint32_t process_number(void)
{
    return own;
}

uint32_t engine_processes(void)
{
    return __atomic_load_n(&engine.sh->processes_live, __ATOMIC_RELAXED);
}

static void count(struct shared *sh, int n)
{
    __atomic_store_n(&sh->processes_live, sh->processes_live + (uint32_t)n, __ATOMIC_RELAXED);
}

/* A free entry, or NULL. */
static struct process *process_new(struct shared *sh, enum process_state state, int32_t pid)
{
    struct process *p = NULL;
    for (uint32_t i = 0; i < sh->processes_high && p == NULL; i++)
        if (sh->processes[i].state == PROCESS_FREE)
            p = &sh->processes[i];
    if (p == NULL && sh->processes_high < PROCESSES_MAX)
        p = &sh->processes[sh->processes_high++];
    if (p == NULL)
        return NULL;
    p->generation++;
    p->pid = pid;
    p->service = SERVICE_NONE;
    p->ring = false;
    list_init(&p->relay);
    list_init(&p->holds);
    p->parent = own;
    p->fds = NULL;
    memset(&p->life, 0, sizeof(p->life));
    p->state = (uint8_t)state;
    count(sh, 1);
    return p;
}

/* It is this process. */
static void settle_in(struct process *p)
{
    p->state = PROCESS_LIVE;
    p->pid = raw_getpid();
    p->fds = fd_entries;
    p->fds_high = fd_high_at();
}

static uint32_t number_of(const struct shared *sh, const struct process *p)
{
    return (uint32_t)(p - sh->processes) + 1;
}

void process_life_begin(void)
{
    struct process *p = process_self();
    lock_init_robust(&p->life);
    pthread_mutex_lock(&p->life);
}

void process_life_end(void)
{
    pthread_mutex_unlock(&process_self()->life);
}

/* ---- coming and leaving ---- */

void engine_attach(void)
{
    struct shared *sh = engine.sh;
    struct stack_cx cx;
    waiter_prepare();
    engine_enter(&cx);
    struct process *p = process_self();
    if (p != NULL && p->state == PROCESS_LEFT) { /* exec failed */
        p->state = PROCESS_LIVE;
        count(sh, 1);
    } else {
        p = process_new(sh, PROCESS_LIVE, raw_getpid());
        own = p != NULL ? number_of(sh, p) : 0;
        if (p != NULL)
            settle_in(p);
    }
    engine_leave(&cx);
    if (p != NULL)
        births_announce(number_of(sh, p), p->generation, p->pid);
}

void engine_resume(void)
{
    struct shared *sh = engine.sh;
    struct stack_cx cx;
    const int32_t pid = raw_getpid();
    for (uint32_t i = 0; i < sh->processes_high; i++)
        if (sh->processes[i].state == PROCESS_LIVE && sh->processes[i].pid == pid)
            own = i + 1;
    if (own == 0) {
        engine_attach();
        return;
    }
    waiter_prepare();
    engine_enter(&cx);
    waiter_free_all(own);
    tcp_parcels_drop(cx.st, own); /* of threads that exec ended */
    list_init(&process_self()->relay);
    process_self()->service = SERVICE_NONE;
    settle_in(process_self());
    engine_leave(&cx);
}

void engine_detach(void)
{
    struct shared *sh = engine.sh;
    if (!engine_running() || own == 0)
        return;
    struct process *p = process_self();
    struct stack_cx cx;
    engine_enter(&cx);
    /* The slots stay taken until the process is gone: its other threads may still use them. */
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++)
        if (waiter_at(sh, slot)->process == own)
            sleep_forget(waiter_at(sh, slot));
    p->service = SERVICE_NONE;
    aside_flush();
    p->state = PROCESS_LEFT;
    count(sh, -1);
    sleep_hand_over_to_others(sh);
    engine_leave(&cx);
}

uint8_t engine_step_aside(void)
{
    struct shared *sh = engine.sh;
    struct process *p = process_self();
    if (p == NULL)
        return SERVICE_NONE;
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++) {
        struct waiter *w = waiter_at(sh, slot);
        if (w->process != own)
            continue;
        const bool asleep = w->asleep;
        sleep_forget(w);
        w->asleep = asleep; /* woken if exec fails */
    }
    const uint8_t service = p->service;
    p->service = SERVICE_NONE;
    aside_flush();
    sleep_hand_over_to_others(sh);
    return service;
}

void engine_step_back(uint8_t service)
{
    struct shared *sh = engine.sh;
    struct process *p = process_self();
    if (p == NULL)
        return;
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++)
        if (waiter_at(sh, slot)->process == own)
            waiter_wake(waiter_at(sh, slot));
    if (service != SERVICE_NONE) {
        p->service = service;
        waiter_ring(sh, p);
    }
}

/* ---- fork ---- */

bool family_has_room(void)
{
    const struct shared *sh = engine.sh;
    return sh->processes_high < PROCESSES_MAX || engine_processes() < PROCESSES_MAX;
}

static void let_go(void)
{
    if (lifeline >= 0)
        raw_close(lifeline);
    lifeline = -1;
}

bool family_before_fork(void)
{
    struct shared *sh = engine.sh;
    struct process *p = process_new(sh, PROCESS_MEANT, 0);
    heir = 0;
    if (p == NULL)
        return false;
    heir = number_of(sh, p);
    heir_generation = p->generation;
    lifeline = births_lifeline(heir, heir_generation);
    __atomic_store_n(&p->state, PROCESS_BORN, __ATOMIC_RELEASE);
    if (own != 0 && hold_fork(heir))
        return true;
    family_fork_failed();
    return false;
}

void family_fork_failed(void)
{
    let_go();
    if (heir == 0)
        return;
    hold_fork_failed(heir);
    process_at(engine.sh, heir)->state = PROCESS_FREE;
    count(engine.sh, -1);
    heir = 0;
}

void family_forked(int32_t pid)
{
    let_go();
    if (heir != 0 && pid > 0)
        process_at(engine.sh, heir)->pid = pid;
    heir = 0;
}

void family_after_fork_child(void)
{
    struct shared *sh = engine.sh;
    struct stack_cx cx;
    if (own_lifeline >= 0) /* the parent's */
        fd_release_internal(own_lifeline);
    own_lifeline = -1;
    own = heir;
    heir = 0;
    engine_enter(&cx);
    struct process *p = process_self();
    const bool lost = p == NULL || p->state != PROCESS_BORN || p->generation != heir_generation;
    hold_forked(lost);
    if (lost) {
        p = process_new(sh, PROCESS_LIVE, 0);
        own = p != NULL ? number_of(sh, p) : 0;
    }
    if (p != NULL)
        settle_in(p);
    engine_leave(&cx);
    if (p != NULL && !births_announce(own, p->generation, p->pid) && lifeline >= 0 && !lost) {
        own_lifeline = fd_make_internal(lifeline);
        lifeline = -1;
    }
    let_go();
}

/* ---- death ---- */

static bool marked_dead(const struct process *p)
{
    return p->state != PROCESS_FREE && __atomic_load_n(&p->dead, __ATOMIC_ACQUIRE) == p->generation;
}

/* The parent was killed before the keeper knew of the child that it meant to have. */
static void forget_meant(struct shared *sh, uint32_t parent)
{
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        if (p->state != PROCESS_MEANT || p->parent != parent)
            continue;
        p->state = PROCESS_FREE;
        count(sh, -1);
    }
}

static void bury(struct stack_cx *cx, struct process *p)
{
    struct shared *sh = engine.sh;
    const uint32_t number = number_of(sh, p);
    waiter_free_all(number);
    tcp_parcels_drop(cx->st, number);
    while (!list_empty(&p->holds))
        hold_end(cx, list_first(&p->holds, struct hold, of_process));
    if (process_counts(p))
        count(sh, -1);
    list_init(&p->relay);
    p->state = PROCESS_FREE;
    forget_meant(sh, number);
    if (p->pid > 0)
        keeper_inherit(p->pid);
}

/* What the dead had decided to send and did not: wake-ups are taken off the list before. */
static void ring_again(struct shared *sh)
{
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        if (p->state == PROCESS_LIVE && !list_empty(&p->relay))
            bell_ring(&p->doorbell);
    }
    waiter_wake_again(sh);
    births_ring();
}

void family_bury(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    const uint32_t deaths = __atomic_load_n(&sh->deaths, __ATOMIC_ACQUIRE);
    bool any = false;
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        if (!marked_dead(p) || i + 1 == own)
            continue;
        bury(cx, p);
        any = true;
    }
    sh->buried = deaths;
    if (any)
        ring_again(sh);
}

/* A process that waits to be waited for is gone, too: kill() would find it. */
static bool gone(int32_t pid)
{
    const int fd = (int)raw_syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0);
    if (fd == -ESRCH)
        return true;
    if (fd < 0)
        return raw_syscall(SYS_kill, pid, 0, 0, 0, 0, 0) == -ESRCH;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timespec none = {0};
    const bool ended = raw_ppoll(&p, 1, &none) == 1;
    raw_close(fd);
    return ended;
}

void family_look(void)
{
    struct shared *sh = engine.sh;
    bool any = false;
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        const uint32_t generation = p->generation;
        const int32_t pid = p->pid;
        if (i + 1 == own || p->state == PROCESS_FREE || pid <= 0 || !gone(pid))
            continue;
        __atomic_store_n(&p->dead, generation, __ATOMIC_RELEASE);
        any = true;
    }
    if (any)
        __atomic_add_fetch(&sh->deaths, 1, __ATOMIC_RELEASE);
}

void family_introduce(void)
{
    struct shared *sh = engine.sh;
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        const struct process *p = &sh->processes[i];
        if (process_counts(p) && p->pid > 0)
            births_announce(i + 1, p->generation, p->pid);
    }
    family_look(); /* after that: who died before is found here, who dies from now on by the keeper
                    */
}

bool family_unattended(void)
{
    return engine_processes() > 1 && !keeper_watches();
}
