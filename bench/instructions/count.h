/*
 * Counting instructions with callgrind: what lies between count_begin() and count_end() counts,
 * and count_done() ends a measurement. Without valgrind around it all of this does nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#define CALLGRIND_TOGGLE_COLLECT
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) ((void)(name))
#endif

/* callgrind is started with --instr-atstart=no --collect-atstart=no. */
static inline void count_start(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

static inline void count_begin(void)
{
    CALLGRIND_TOGGLE_COLLECT;
}

static inline void count_end(void)
{
    CALLGRIND_TOGGLE_COLLECT;
}

/* The sum goes into callgrind's file as "Client Request: NAME"; run.py divides by `operations`. */
static inline void count_done(const char *name, unsigned operations)
{
    CALLGRIND_DUMP_STATS_AT(name);
    printf("%s %u", name, operations);
}

static inline void count_stop(void)
{
    CALLGRIND_STOP_INSTRUMENTATION;
}
