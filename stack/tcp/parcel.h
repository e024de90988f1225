/*
 * Text in the hands of a thread that copies it while others use the stack: chunks that belong to no
 * connection. For large transfers between two ends in the same stack (inside.h), so that the
 * program that sends and the program that reads copy at the same time.
 *
 *     send:  tcp_pack() ──► tcp_parcel_fill() ──► tcp_send_parcel()
 *     recv:  tcp_recv_parcel() ──► tcp_parcel_empty() ──► tcp_parcel_free()
 *
 * The calls in the middle need no lock. What a parcel was taken from has forgotten it, and what it
 * is meant for does not know it yet: whatever happens to the connection meanwhile, the text stands
 * before or after that as a whole. A send() that is overtaken by the end of its connection fails,
 * or its text goes the way of all text.
 *
 * A process that is killed leaves its parcels behind: `holder` says whose they are.
 */
#pragma once

#include "stack/tcp/conn.h"

struct tcp_parcel {
    struct chunk *head, *tail; /* the text of each: its bytes [start, end) */
    uint32_t len;              /* bytes */
    uint32_t chunks;
    uint32_t holder; /* 0: not begun */
};

/* The chunk is the parcel's last. Returns the bytes of its text. */
uint32_t tcp_parcel_add(struct tcp_parcel *p, struct chunk *c);
/* The parcel's text is the last of the send buffer, the parcel ends. Returns its bytes. */
uint32_t tcp_unpack(struct stack_cx *cx, struct tcp_conn *c, struct tcp_parcel *p);
/* After a process died inside (repair.c): its chunks live; those that are not whole are emptied. */
void tcp_repair_parcels(struct tcp_stack *t);
