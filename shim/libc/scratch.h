/* Buffers for transfers that pass through user space: sendfile(), splice(). Not from malloc, not on
 * small stacks. */
#pragma once

#include "stack/base.h"

#define SCRATCH_SIZE ((size_t)65536)

/* SCRATCH_SIZE bytes, or NULL when there is no memory. */
void *scratch_take(void);
void scratch_give(void *buffer);
