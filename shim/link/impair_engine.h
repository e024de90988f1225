/*
 * What the rules of TCPSHIM_IMPAIR make of a segment. The state is the family's: it lies in the
 * shared part of the arena, so that counts go on when another process moves the frames. Chance is a
 * hash of the seed, the rule, the connection's number, the direction and the segment's place in its
 * stream (its number where it is a pure ACK or sent again): it does not depend on timing or on
 * other segments.
 */
#pragma once

#include "shim/link/impair_rules.h"
#include "shim/link/segment.h"
#include "stack/arena.h"
#include "stack/util/list.h"

/* Connections that are told apart at a time: sets of IMPAIR_WAYS, the oldest makes room. */
#define IMPAIR_SETS 64
#define IMPAIR_WAYS 8
/* What a rate holds back at most, and what it takes in any case. */
#define IMPAIR_QUEUE_TIME  (200 * NSEC_PER_MSEC)
#define IMPAIR_QUEUE_BYTES 49152

/* One direction of a connection. */
struct impair_half {
    bool begun;        /* something passed */
    uint32_t isn;      /* of its SYN; else the first that was seen */
    uint32_t seq_max;  /* after the highest sequence number that passed */
    uint64_t bytes;    /* of text, each counted once */
    nsec_t zero_until; /* the window is shown as closed; 0: not yet */
    uint32_t count[IMPAIR_KINDS], again[IMPAIR_KINDS]; /* seen; of those, sent before */
};

struct impair_flow {
    struct ip_addr local, remote;
    uint16_t lport, rport;
    uint32_t number; /* order of their beginning; 0: empty */
    nsec_t seen;
    uint32_t reset; /* rules (bits) that have reset it */
    struct impair_half half[IMPAIR_DIRS];
};

struct impair_state {
    uint32_t flows_begun;
    nsec_t last_due[IMPAIR_DIRS];                     /* frames that keep their order */
    nsec_t busy_until[IMPAIR_RULES_MAX][IMPAIR_DIRS]; /* of a rate */
    /* frames that are held back (impair_store.h) */
    struct list held; /* by due time */
    struct pool heads, pieces;
    uint32_t held_pieces, held_pieces_max;
    struct impair_flow flow[IMPAIR_SETS][IMPAIR_WAYS];
};

/* What is to be done with a segment; each names the rule, or is NULL. */
struct impair_verdict {
    const struct impair_rule *drop, *dup, *corrupt, *reorder, *delay, *reset, *zero_window;
    nsec_t due;   /* when it may go on; at most `now`: at once */
    uint32_t bit; /* to be turned over, from the start of the TCP header; for corrupt */
};

/*
 * Counts the segment s, which travels in direction `dir`, and decides. size: bytes of its frame.
 * Never fails: a connection that finds no room takes the place of the one that was silent longest.
 */
void impair_decide(const struct impair_rules *rules, struct impair_state *state,
                   enum impair_dir dir, const struct segment *s, uint32_t size, nsec_t now,
                   struct impair_verdict *verdict);
