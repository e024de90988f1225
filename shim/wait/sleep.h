/*
 * One sleep of a thread, and the role of the driver. Theory of operation in sleep.c.
 */
#pragma once

#include <poll.h>
#include <signal.h>

#include "shim/core/shared.h"

/* Entries of a pollfd array that wait_sleep() needs behind the caller's. */
#define SLEEP_FDS 3

/*
 * Entered, with the waiter's watches registered (w may be NULL: no slot; then it sleeps for a
 * moment). Leaves, sleeps until w is woken, one of fds[0..n) is ready, the deadline passes or a
 * signal handler ran; enters again, drains if it drives, takes the watches back. fds has room for
 * SLEEP_FDS more. mask as in ppoll(2), or NULL. reader: a recv() that waits, or NULL. Returns how
 * many of fds[0..n) are ready (revents are set; all 0 when it did not sleep), or a negative errno
 * of ppoll(2), never -EINTR: see sleep_interrupted(). Keeps the role of the driver, if it got it,
 * until engine_leave(). Is a cancellation point: then nothing of the sleep is left behind, and it
 * is not entered.
 */
int wait_sleep(struct stack_cx *cx, struct waiter *w, struct pollfd *fds, unsigned n,
               nsec_t deadline, const sigset_t *mask, struct reader *reader);

/* How many signal handlers this thread ran: taken before a call waits, compared after it slept. */
struct sleep_signals {
    uint32_t handlers, handlers_end;
};
struct sleep_signals sleep_signals_now(void);
/* -EINTR, 0 (none ran), or 1: handlers ran, all with SA_RESTART, and restart is allowed. */
int sleep_interrupted(const struct sleep_signals *since, bool restart);

/*
 * For the trampoline, before and after it runs a handler: the thread gets out of the sleep that the
 * signal found it in (the handler may do anything, also never return), and the sleep, if control
 * comes back to it, ends at once. sleep_abandon() says whether there was one.
 */
bool sleep_abandon(void);
void sleep_end_now(void);

/*
 * Entered. A call found something at once and will not sleep: whether it should look at the packet
 * socket all the same (engine_drain()), because nobody drives and nobody did for a little while.
 */
bool sleep_drain_due(const struct stack_cx *cx);
/* Entered: the waiter sleeps no more, watches nothing and does not drive. */
void sleep_forget(struct waiter *w);
/* Entered: when a driver wakes although nothing arrives. */
nsec_t sleep_deadline(const struct stack_cx *cx);
/* Entered, by engine_leave(): somebody drives, or will. */
void sleep_settle(struct stack_cx *cx);
/* Entered: this process ends; somebody else is to drive. */
void sleep_hand_over_to_others(struct shared *sh);
/* Entered: a driver that was killed with its process drives no more. */
void sleep_check_driver(struct shared *sh);
