/* The mapping that holds the arena. */
#pragma once

#include <stddef.h>

/* Of the memfd: by this a process that wants to join finds it (shim/life/handover.c). */
#define ARENA_FILE_NAME "tcpshim"

/*
 * Maps size zeroed bytes, shared with the processes that fork from this one, at one of a few fixed
 * high addresses that a later image can map again. No memory is used before it is touched. *file:
 * its memfd, the caller's to close; -1: it has none. 0 or negative errno.
 */
int arena_map(size_t size, void **base, int *file);
/* The same arena in a new image: the file at its address. 0 or negative errno. */
int arena_map_again(void *base, size_t size, int file);
void arena_unmap(void *base, size_t size);
