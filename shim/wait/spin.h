/*
 * Whether to look for frames for a moment before going to sleep (TCPSHIM_SPIN=auto). To sleep and
 * be woken takes 2 us on the processor of who wakes, and up to 40 us from another one that is idle,
 * in a virtual machine. So a thread whose sleeps turn out to be short looks instead, with
 * sched_yield() between the looks, so that a peer on the same processor runs: as the kernel's
 * haltpoll does for idle processors.
 *
 * What it costs where it does not pay is bounded: a look in vain switches it off until twice as
 * many short sleeps as before were seen; sleeps that are not short (an idle program, a slow one)
 * never switch it on; and when others want the processor it pauses, since it goes to the end of
 * their queue with each yield.
 *
 * Per thread, no locks.
 */
#pragma once

#include "stack/base.h"

/* Looks no longer than this. */
#define SPIN_MAX (100 * NSEC_PER_USEC)

/* What a wait is for: one kind of wait teaches nothing about another. */
enum spin_kind { SPIN_SET, SPIN_CONNECTION, SPIN_ROOM, SPIN_DATA, SPIN_KINDS };

/* Whether a wait that begins now looks first. kernel: it waits for kernel descriptors as well. */
bool spin_due(enum spin_kind kind, nsec_t now, bool kernel);
/* It looked, and found something for this thread, or not. */
void spin_ended(enum spin_kind kind, bool found);
/* A yield between two looks took this long. False: look no more. */
bool spin_yielded(nsec_t now, nsec_t took);
/*
 * A sleep is over. waited: since the wait began, with what was spent looking; frames: that is what
 * ended it. kernel: the kernel was asked for its descriptors.
 */
void spin_slept(enum spin_kind kind, nsec_t now, nsec_t waited, bool frames, bool kernel);
