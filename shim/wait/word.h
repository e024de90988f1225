/*
 * Sleeping on a word in the arena (futex(2)): for threads that wait for user sockets alone and do
 * not drive. Any process of the family wakes such a thread itself; one that sleeps on its eventfd
 * is woken by the service thread of its own process, which is another hop.
 *
 *     LOOKING ──nothing came──► ASLEEP, in futex(2)
 *        └───────► WOKEN ◄────────┘  by word_wake(), which calls the kernel in the second case
 * alone
 */
#pragma once

#include "shim/core/shared.h"

enum word { WORD_LOOKING, WORD_ASLEEP, WORD_WOKEN };

/* Entered: wake-ups from now on end the sleep that begins. */
static inline void word_begin(struct waiter *w)
{
    __atomic_store_n(&w->word, WORD_LOOKING, __ATOMIC_RELAXED);
}
/*
 * Not entered, after word_begin(): until the waiter is woken, `span` is over (NSEC_NEVER: never) or
 * a signal handler ran. A cancellation point; `cancelled` cleans up then.
 */
void word_sleep(struct waiter *w, nsec_t now, nsec_t span, void (*cancelled)(void *));
/* Not entered: ends the sleep of a waiter of any process. */
void word_wake(struct waiter *w);
/* Entered, after a death: the word may say woken although who wrote that did not get to wake it. */
void word_wake_again(struct waiter *w);
/* By the thread itself, in a signal handler: the sleep that it interrupted ends at once. */
static inline void word_end(struct waiter *w)
{
    __atomic_store_n(&w->word, WORD_WOKEN, __ATOMIC_RELAXED);
}
