/*
 * Connections out of events. A flow is one connection as seen from one side or from both: the
 * traces of client and server meet by their 4-tuple. Segments sent are matched with their
 * arrivals, so that lost ones are known where both sides were watched.
 */
#pragma once

#include "shim/command/view/event.h"

enum { CLIENT, SERVER };
#define NO_MATCH SIZE_MAX

struct flow_event {
    struct event *e;
    uint8_t side; /* where it happened; of a segment on the wire: its sender's */
    bool again;   /* sends what was sent before */
    bool lost;    /* sent, and never seen by the other side, which was still watched */
    bool unseen;  /* sent, and the other side was watched no more */
    size_t match; /* of a segment sent: its arrival; of an arrival: its sending; index in `items` */
};

struct flow_side {
    const char *addr;
    bool traced; /* has events of its own */
    bool has_isn;
    uint32_t isn;
    struct options_seen syn; /* the options of its SYN */
    bool syn_seen;
    int pid; /* first process seen here */
};

struct flow {
    unsigned number; /* from 1, in the order of their beginnings */
    struct flow_side side[2];
    int64_t begin, end; /* first and last event */
    int64_t zero;       /* first segment, or begin: what times are counted from */
    struct flow_event *items;
    size_t n, room;
    uint64_t bytes[2];    /* payload that each side sent, repeats included */
    uint64_t segments[2]; /* that each side sent */
    uint64_t again[2], lost[2];
};

struct flow_list {
    struct flow **items;
    size_t n, room;
};

/* The list must be sorted by time, and outlive the flows. */
void flows_build(struct flow_list *flows, const struct event_list *events);
void flows_free(struct flow_list *flows);
/* Name of a state at the beginning: "LISTEN" of a server, else "CLOSED"; NULL where nothing is
 * known of states. */
const char *flow_first_state(const struct flow *f, int side);
/* Relative numbers: the SYN is 0. */
uint32_t flow_seq(const struct flow *f, const struct flow_event *i);
uint32_t flow_ack(const struct flow *f, const struct flow_event *i);
/* The side that sent a segment. */
int flow_sender(const struct flow_event *i);
/* Pure ACK: no text, no SYN, FIN, RST. */
bool flow_pure_ack(const struct event *e);
/* Sequence space that a segment takes. */
uint32_t segment_space(const struct event *e);
