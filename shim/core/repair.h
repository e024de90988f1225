/* After a process died while it held the engine lock. */
#pragma once

#include "stack/stack.h"

/*
 * Entered, with the lock made consistent. Makes everything in the arena anew that is derived from
 * what lives in it, the stack's part (stack_repair()) and the shims'. At most the connection that
 * the dead process was changing is reset. Everybody who sleeps is woken and looks again.
 */
void family_repair(struct stack_cx *cx);
/* Afterwards, by a process that may: the packet socket's filter is made anew. */
void family_repair_filter(struct stack_cx *cx);
