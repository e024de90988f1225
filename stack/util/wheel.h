/*
 * A hierarchical timing wheel: arm, cancel and find-next in O(1), whatever the number of timers.
 * Ticks are 2^16 ns (65.5 us); a timer never fires before its deadline and at most one tick after.
 */
#pragma once

#include "stack/base.h"
#include "stack/util/list.h"

#define WHEEL_TICK_SHIFT 16
#define WHEEL_SLOTS      64
#define WHEEL_LEVELS     8 /* 2^48 ticks: every nsec_t */

struct wheel_timer {
    struct list link;
    nsec_t deadline; /* NSEC_NEVER: not armed */
    uint8_t level;   /* where it hangs; the wheel's own business */
    uint8_t slot;
    uint8_t kind; /* the owner's, to tell what object holds the timer */
};

struct wheel {
    uint64_t tick; /* the last tick that was run */
    uint64_t occupied[WHEEL_LEVELS];
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, nsec_t now);
void wheel_timer_init(struct wheel_timer *t, uint8_t kind);
/* Arms or moves a timer. A deadline that is a tick or more past fires at the next wheel_expire().
 */
void wheel_arm(struct wheel *w, struct wheel_timer *t, nsec_t deadline);
void wheel_cancel(struct wheel *w, struct wheel_timer *t);
/* Takes off one timer that is due, or returns NULL. Call it until it returns NULL. */
struct wheel_timer *wheel_expire(struct wheel *w, nsec_t now);
/*
 * When to call wheel_expire() next: at most a tick after the earliest deadline. It may come before
 * it (timers far away only move to a finer level then), but every call makes progress: the time
 * returned is always later than the last one run, unless a timer is due already. NSEC_NEVER when no
 * timer is armed.
 */
nsec_t wheel_next(const struct wheel *w);
