/* The beginning of the library in a process. */
#pragma once

#include <stdbool.h>

/*
 * What the constructor does: binds libc's functions, reads the variables, registers the handlers of
 * fork. Idempotent: a hook that another library's constructor calls before ours may call it first.
 */
void shim_init(void);
/* Joins the family of another process, which passed a socket of its own: if this one has no engine
 * yet. */
bool engine_join(int pid);
/* As engine_start(), but what is wrong is said only when TCP is used (before privileges are
 * dropped). */
int engine_start_quietly(void);
