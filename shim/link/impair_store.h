/*
 * Frames that TCPSHIM_IMPAIR holds back, in the arena, by the time when they may go on: whichever
 * process of the family drives then lets them go. Bounded to an eighth of the arena.
 */
#pragma once

#include "shim/link/impair_engine.h"

/* Sets a zeroed state up. */
void impair_store_init(struct impair_state *state, struct arena *arena);
/* Whether it was set up. */
static inline bool impair_store_ready(const struct impair_state *state)
{
    return state->held.next != NULL;
}
/* After a process died inside: everything that is held is lost. */
void impair_store_repair(struct impair_state *state);
/* Keeps a copy of a frame until `due`. False: there is no room. Frames of one due time keep order.
 */
bool impair_store_put(struct impair_state *state, nsec_t due, enum impair_dir dir, uint8_t netif,
                      const uint8_t *frame, uint32_t len);
/* When the next is due; NSEC_NEVER: none is held. */
nsec_t impair_store_due(const struct impair_state *state);
/*
 * Takes the first that is due at `now` out into frame (FRAME_BYTES_MAX bytes of room). Its length;
 * 0: none is due.
 */
uint32_t impair_store_take(struct impair_state *state, nsec_t now, enum impair_dir *dir,
                           uint8_t *netif, uint8_t *frame);
