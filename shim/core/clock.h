/* The engine's clock is CLOCK_MONOTONIC; people and packets elsewhere go by the calendar. */
#pragma once

#include <time.h>

#include "stack/base.h"

/* Nanoseconds from a time of the engine's clock to the same time since 1970, as of now. */
static inline int64_t clock_to_calendar(void)
{
    struct timespec mono, day;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &day);
    return (day.tv_sec - mono.tv_sec) * (int64_t)NSEC_PER_SEC + (day.tv_nsec - mono.tv_nsec);
}
