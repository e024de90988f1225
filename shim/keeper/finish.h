/* The work that a dead family left behind. */
#pragma once

#include <signal.h>

#include "stack/stack.h"

/* Somebody wants the keeper to end (SIGTERM): it delivers what is not delivered, in short time. */
extern volatile sig_atomic_t finish_soon;

/* Bounds the time and the processor time from now on, whatever a dead process left in the arena. */
void bound_life(void);
/*
 * Closes what the dead held, as the kernel closes a dead process's sockets, and drives the engine
 * until nothing is left to do, or a bound is reached. The arena is mapped.
 */
void finish(struct stack *st);
