/*
 * Marks: the 4-tuples of connections, in memory that a program of the kernel's reads (eBPF at an
 * interface's ingress, shim/link/ingress.h): what arrives for them there is the stack's alone. Each
 * has one place in the table. Of two connections with the same place the one is marked that said so
 * last, new or with traffic; that costs the other time, and nothing else.
 */
#pragma once

#include "stack/tcp/isn.h"

#define MARKS_BITS 11u
#define MARKS      (1u << MARKS_BITS)
/* 2^32 / golden ratio: Knuth's multiplicative hashing. */
#define MARKS_HASH 0x9e3779b1u

/* What the program reads: all but the last in network order, as it arrives. */
struct flow_mark {
    uint32_t local, remote;
    uint32_t ports;   /* the remote's, the local one */
    uint32_t ifindex; /* over which it arrives; 0: the place is nobody's (atomic) */
};
#define MARKS_BYTES (MARKS * sizeof(struct flow_mark))

static inline uint32_t mark_index(uint32_t ports, uint32_t remote)
{
    return ((ports ^ remote) * MARKS_HASH) >> (32 - MARKS_BITS);
}

/* table: MARKS of them. */
void mark_set(struct flow_mark *table, const struct flow_tuple *t, uint32_t ifindex);
/* Nothing happens if the place is another's. */
void mark_clear(struct flow_mark *table, const struct flow_tuple *t);
