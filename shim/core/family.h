/*
 * The processes of a family: who takes part, and what happens when one of them dies.
 *
 *     FREE ──fork()──► BORN ──child attaches──► LIVE ──exit, exec──► LEFT ──it is gone──► FREE
 *                        └──────── killed: noticed, buried by a survivor ────────────────┘
 *
 * A death is noticed by the keeper, which has a pidfd of each process (shim/life/births.h,
 * shim/keeper/watch.c). It marks the dead in the arena and rings survivors; the first that enters
 * the engine buries the dead: closes what it held, frees its waiters, passes its role on. Where
 * there is no keeper the service threads look by themselves (family_look()).
 */
#pragma once

#include <linux/futex.h>

#include "shim/core/shared.h"

/* This process's entry; NULL before engine_attach(). */
struct process *process_self(void);
/* Its index + 1; 0: none. */
uint32_t process_number(void);
static inline struct process *process_at(struct shared *sh, uint32_t number)
{
    return &sh->processes[number - 1];
}
/* Whether the process takes part: live, born or meant to be. */
static inline bool process_counts(const struct process *p)
{
    return p->state == PROCESS_MEANT || p->state == PROCESS_BORN || p->state == PROCESS_LIVE;
}

/*
 * Whether its service thread was killed, and so the process (exec ends threads likewise, but gives
 * up all roles before). False: it lives, or this is not known. The kernel marks robust locks before
 * it takes the process apart, which may last for tens of milliseconds: packet sockets and contexts
 * of asynchronous I/O wait for a grace period of RCU. Any time.
 */
static inline bool process_died(const struct process *p)
{
    const int word = __atomic_load_n(&p->life.__data.__lock, __ATOMIC_RELAXED);
    return (word & FUTEX_OWNER_DIED) != 0;
}
/* The service thread of this process begins and ends in order. Not entered. */
void process_life_begin(void);
void process_life_end(void);

/* ---- entered ---- */

/*
 * Buries whoever was marked dead. By engine_enter() when the arena says so, so nothing else has to
 * call it.
 */
void family_bury(struct stack_cx *cx);
static inline bool family_deaths(const struct shared *sh)
{
    return __atomic_load_n(&sh->deaths, __ATOMIC_RELAXED) != sh->buried;
}
/*
 * Before a fork: the child's entry with all that it will hold. False: there is no room; the child
 * will have no user sockets.
 */
bool family_before_fork(void);
/* In the parent: the fork failed, or pid is the child (0: not known here). */
void family_fork_failed(void);
void family_forked(int32_t pid);

/* ---- not entered ---- */

/* In the child, instead of engine_attach(). */
void family_after_fork_child(void);
/* Whether another fork can be accounted for; else it is to fail with EAGAIN. */
bool family_has_room(void);
/* Asks the kernel about each other process and marks the dead: for families without a keeper. */
void family_look(void);
/* Tells a new keeper of the family: puts all of it among the births, and marks who died meanwhile.
 */
void family_introduce(void);
/* Whether family_look() has to be called now and then. */
bool family_unattended(void);
