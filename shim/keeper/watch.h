/* While the family lives: the keeper notices deaths in it. */
#pragma once

#include "stack/stack.h"

/*
 * Returns when the last of the family is gone. Until then, marks processes that died in the arena
 * and rings survivors, who do the rest (shim/core/family.h). The engine itself is not touched.
 */
void watch_family(struct stack *st);
