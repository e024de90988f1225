/* The guards that the keeper took over from a dead family. */
#pragma once

#include "stack/stack.h"

/* Takes them out of custody (shim/life/custody.h) and decides what is to stand. */
void guards_take(struct stack *st, int custody);
/* Lets go of those whose connections are over. */
void guards_sweep(struct stack *st);
