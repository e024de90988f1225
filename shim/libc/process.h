/* Forks that pass libc's handlers by (shim/libc/fork.c). */
#pragma once

#include <sys/types.h>

/* Calls how(arg), which forks without pthread_atfork()'s handlers, with what ours would do around
 * it. Returns its result. */
pid_t process_fork(long (*how)(void *), void *arg);
