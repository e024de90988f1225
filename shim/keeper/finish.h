/* The work that a dead family left behind. */
#pragma once

#include "stack/stack.h"

/*
 * Closes what the dead held, as the kernel closes a dead process's sockets, and drives the engine
 * until nothing is left to do, or a bound is reached. The arena is mapped.
 */
void finish(struct stack *st);
