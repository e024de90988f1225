/* USDT probes, one an event, where <sys/sdt.h> was there at build time (docs/trace.md). */
#pragma once

#include "stack/trace.h"

/* Raised by who attaches to a probe: all share one, so that the engine looks at one word. */
extern unsigned short usdt_semaphore;

static inline bool usdt_wanted(void)
{
    return unlikely(*(volatile unsigned short *)&usdt_semaphore != 0);
}

void usdt_fire(const struct trace_record *r);
