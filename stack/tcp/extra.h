/*
 * What few connections need, and pay for in an object of its own: the ends of records (MSG_EOR),
 * the bytes whose departure and arrival the program asked to hear of (SO_TIMESTAMPING), and the
 * error queue (MSG_ERRQUEUE), where it hears of them and of MSG_ZEROCOPY.
 */
#pragma once

#include "stack/tcp/seq.h"
#include "stack/tcp/tcp.h"

/* Marks that are not done with, and reports that nobody has read. More are dropped, as Linux drops
 * reports for which the receive buffer has no room. */
#define TCP_MARKS_MAX   256u
#define TCP_REPORTS_MAX 64u

/* What a mark is for: enum tcp_report_kind's bits for stamps, and */
#define TCP_MARK_RECORD 0x80u /* the byte ends a record: the next one begins a segment */

struct tcp_extra {
    uint32_t stamping; /* what the program set, for it to be asked */
    uint8_t stamps;    /* which of them: bits 1 << enum tcp_report_kind */
    tcp_seq stamp_base;
    uint32_t zerocopies; /* sends with MSG_ZEROCOPY so far */
    /* Places in the send stream, in order; a ring. Those before `unsent` have left. */
    uint16_t first_mark, marks, unsent;
    uint16_t first_report, reports;
    uint8_t mark_kinds[TCP_MARKS_MAX];
    tcp_seq mark_ends[TCP_MARKS_MAX]; /* one past the byte */
    struct tcp_report queue[TCP_REPORTS_MAX];
};

/* Whether it is what tcp_extra_*() make, and nothing points astray. */
static inline bool tcp_extra_whole(const struct tcp_extra *x)
{
    return x->first_mark < TCP_MARKS_MAX && x->marks <= TCP_MARKS_MAX && x->unsent <= x->marks &&
           x->first_report < TCP_REPORTS_MAX && x->reports <= TCP_REPORTS_MAX;
}

struct tcp_conn;
/* A send() of text up to `end` came to its end; record: it ends a record, too. */
void tcp_extra_mark(struct stack_cx *cx, struct tcp_conn *c, tcp_seq end, bool record);
/* Of `unsent` bytes those up to the end of the record that comes next. */
uint32_t tcp_extra_record(const struct tcp_conn *c, uint32_t unsent);
/* Whether a record ends just before SND.NXT + len. */
bool tcp_extra_ends(const struct tcp_conn *c, uint32_t len);
/* SND.NXT moved, SND.UNA moved. */
void tcp_extra_sent(struct stack_cx *cx, struct tcp_conn *c);
void tcp_extra_acked(struct stack_cx *cx, struct tcp_conn *c);
/* The text is gone: its marks go, reports stay. */
void tcp_extra_forget(struct tcp_conn *c);
