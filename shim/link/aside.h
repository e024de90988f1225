/*
 * ACKs that take long to send are sent aside: by the service thread (shim/life/service.h).
 *
 * Between two ends on one machine a frame is handed over within the system call that sends it. A
 * kernel's TCP there does, for an ACK of a window that several streams share, what it has to do:
 * frees what was acknowledged, and sends what is allowed now. That is 15 to 40 us of another's
 * work in each ACK, on the processor of who reads, while that of who writes is half idle; where
 * both ends are the kernel's, it is done on the latter. So another thread sends such ACKs: the
 * scheduler puts it where there is room (docs/performance.md has what that brings).
 *
 * Whether ACKs are such is measured, and whether the thread comes for them in time. They lie in a
 * ring meanwhile, of which both the thread and whoever is entered can send the next: who has no ACK
 * to send, or goes to sleep, sends what is left in it first. At most one
 * ACK is overtaken, the one that is just being sent: it says nothing new then (RFC 9293 3.10.7.4).
 * A process that ends leaves none behind but by being killed, and an ACK may be lost.
 *
 * Process-local.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "stack/base.h"

/* ---- entered (engine_enter): who has frames ---- */

/* Takes an ACK, to be sent on fd with what else m says. False: the caller is to send it. */
bool aside_take(int fd, const struct msghdr *m, nsec_t now);
/* What the caller sends is to be timed, by this clock (CLOCK_MONOTONIC); and took so long. */
bool aside_timed(void);
nsec_t aside_clock(void);
void aside_took(nsec_t now, nsec_t took);
/* Sends what waits. */
void aside_flush(void);
/* How many the kernel refused since this was last asked, and the errno (negative) of one. */
unsigned aside_refused(int *err);
/* No more from now on: a filter of system calls may not allow it. Sends what waits, and returns
 * when the thread sends nothing any more. */
void aside_forbid(void);
/* The thread is not in the child, nor what it was to send. */
void aside_after_fork_child(void);

/* ---- the thread ---- */

struct aside_helper {
    bool (*listens)(void); /* entered: whether it would hear a call soon */
    void (*call)(void);    /* entered */
};

/* Entered. Without one nothing goes aside. */
void aside_use(const struct aside_helper *h);
/* Not entered. Whether there are any; it is called from now on when there are, */
bool aside_listen(void);
/* and not from here on. */
bool aside_awake(void);
/* Sends what there is, and what comes until there was none for a moment. */
void aside_help(void);
