/* Which events are wanted. */
#pragma once

#include "shim/command/view/event.h"

struct filter {
    const char *classes, *events, *conns, *ports, *addrs, *pids; /* lists with commas; NULL: all */
    int64_t from, to; /* ns from `zero`; TIME_NONE: no bound */
    int64_t zero;     /* time of the first event */
};

bool filter_takes(const struct filter *f, const struct event *e);
/* "1.5", "20ms", "150us" in ns; without a unit: seconds. False: makes no sense. */
bool parse_duration(const char *s, int64_t *ns);
/* Whether an address of a trace ("10.0.0.1:80") has this port (digits), or this address (with or
 * without port). */
bool addr_has_port(const char *addr, const char *port, size_t n);
bool addr_is(const char *addr, const char *wanted, size_t n);
