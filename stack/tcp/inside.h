/*
 * A connection whose two ends are in one stack: text passes from one to the other without frames,
 * copied once from the program that sends and once to the program that reads. The effect is as if
 * each segment had arrived and been acknowledged at once. Only where nothing is in flight, nothing
 * is held back and nobody watches; everything else takes the way through IP, and the two may
 * alternate.
 *
 *     send():  program ──► the other end's receive buffer; what exceeds the window waits here
 *     recv():  receive buffer ──► program, then what waits in the other end's send buffer
 *
 * Both ends are changed while one of them is marked (work_begin()): stack_repair() takes both for
 * lost (tcp_inside_pair()).
 */
#pragma once

#include "stack/tcp/conn.h"
#include "stack/tcp/parcel.h"

/* Who traces one of these sees segments. */
#define TCP_INSIDE_SEEN (TRACE_SEGMENT | TRACE_BUFFER | TRACE_CC | TRACE_TIMER)

/* Inside tcp_send(): how much of the text has passed. */
uint32_t tcp_inside_send(struct stack_cx *cx, struct tcp_conn *c, const struct slice *from,
                         unsigned n, uint32_t len);
/*
 * Inside tcp_recv(), after it has taken `got` bytes from the receive buffer for a program that
 * wants up to `want`, if tcp_conn.sender_waits: gives it more (the return value, bytes) and tells
 * the other end the window. n == 0: the text is discarded. p (or NULL) is empty, or ends with byte
 * `got`: what it can hold goes there instead.
 */
uint32_t tcp_inside_recv(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                         unsigned n, uint32_t got, uint32_t want, struct tcp_parcel *p);
/* Whether large text may be packed now (tcp_pack()); makes room for it. */
bool tcp_inside_open(struct stack_cx *cx, struct tcp_conn *c);
/* Text was added to the send buffer: passes on what the reader has room for. False: by segments. */
bool tcp_inside_pass(struct stack_cx *cx, struct tcp_conn *c);
/* Whether the program would find at least so much to read that may be taken by a parcel. */
bool tcp_inside_ready(struct stack_cx *cx, const struct tcp_conn *c, uint32_t least);
/*
 * The program takes up to `want` bytes: whole chunks in p, what is left of the last one is copied
 * behind the place of their text. Returns the bytes of both.
 */
uint32_t tcp_inside_take(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                         uint32_t want, struct tcp_parcel *p);
/* What waits for the reader to read goes by segments as far as the window admits. */
void tcp_inside_release(struct stack_cx *cx, struct tcp_conn *c);
/* What has the tuple of c seen from the other side; NULL: nothing in this stack. */
struct flow *tcp_other_end(struct stack_cx *cx, const struct tcp_conn *c);
/* Whether text may pass between the two, or was passing when a process died. */
bool tcp_inside_pair(const struct tcp_conn *a, const struct tcp_conn *b);
