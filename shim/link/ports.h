/*
 * The local ports whose segments the packet socket lets through: single ports (listeners, programs
 * that bind before they connect) and blocks of ephemeral ports. Lives in the arena: the processes
 * of a family share one packet socket and so one filter. Used under the engine lock.
 */
#pragma once

#include "stack/stack.h"

#define PORTS_MAX       4096
#define PORT_BLOCKS_MAX 64
/* Ports of a block: many enough for a busy client, few enough to leave others' traffic alone. */
#define PORT_BLOCK_SIZE 512

struct port_range {
    uint16_t low, high; /* inclusive, host order */
};

struct port_set {
    uint32_t nports, nblocks;
    uint32_t overflow; /* ports that found no room: all TCP is let through */
    struct port_range blocks[PORT_BLOCKS_MAX];
    uint16_t ports[PORTS_MAX]; /* sorted */
};

bool ports_in_block(const struct port_set *s, uint16_t port);
bool ports_has(const struct port_set *s, uint16_t port);
/* These return true when the filter must be made anew. */
bool ports_add(struct port_set *s, uint16_t port);
bool ports_add_block(struct port_set *s, struct port_range block);
/*
 * Only what connections and TIME_WAIT entries have now: for a stack that opens nothing more. No
 * blocks then but where there are more single ports than a filter takes (filter.h).
 */
bool ports_narrow(struct port_set *s, struct stack *st);
/* Forgets the single ports that no listener and no flow uses any more. */
bool ports_sweep(struct port_set *s, const struct stack *st);
