/*
 * Standing guards (shim/link/guard.h): of ephemeral ports, bound to 0.0.0.0:port behind a filter
 * that drops all. A port may serve one connection to each remote end at a time, so a standing guard
 * makes most connections free of any system call.
 *
 * A guard that is in custody (shim/life/custody.h) outlives the process that made it, so each
 * process of the family may use it. Only a look that finds its maker dead and its port unused takes
 * it down.
 */
#pragma once

#include "stack/stack.h"

#define STANDING_MAX 16384

struct standing {
    uint16_t port;   /* host order */
    uint32_t remote; /* hash of the remote end that it last served */
    uint32_t used;   /* when, in units of 2^20 ns */
};

struct standing_set {
    uint32_t n;
    struct standing of[STANDING_MAX];
    uint16_t at[65536]; /* by port: index + 1 in `of` */
};

/*
 * A guarded ephemeral port for a connection: of a standing guard when one fits, else of a new one,
 * whose block of ports is let through the link's filter. Entered; the port is the caller's until it
 * leaves. Returns the port (host order) or negative errno (EADDRNOTAVAIL).
 */
int standing_port(struct stack_cx *cx, const struct ip_addr *local, const struct endpoint *remote);
/* Entered. The guard of this port is about to be closed, and the last who had it. */
void standing_gone(struct standing_set *s, uint16_t port);
/* Who had the lock died. Not sound: maybe with guards in its hands, and all are forgotten. */
void standing_repair(struct standing_set *s, bool sound);
/* The kernel's range of ephemeral ports (net.ipv4.ip_local_port_range), inclusive. */
void standing_port_range(uint16_t *min, uint16_t *max);
/* The child must not choose the parent's ports. */
void standing_after_fork_child(void);
