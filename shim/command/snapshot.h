/* What the engine of a family holds at this moment: connections, listeners, queues, counters. */
#pragma once

#include "shim/command/family.h"
#include "stack/ring.h"
#include "stack/tcp/conn.h"

#define SNAPSHOT_OWNERS_MAX 8

/* A descriptor of a socket. */
struct snapshot_owner {
    const struct family_member *member;
    int fd;
};

struct snapshot_timer {
    enum tcp_timer which;
    int64_t left; /* ns; negative: overdue */
};

struct snapshot_socket {
    uint8_t kind; /* enum flow_kind */
    enum tcp_state state;
    uint32_t number;
    struct endpoint local, remote;
    uint32_t recvq, sendq; /* as ss(8): of listeners the accept queue and its limit */
    struct tcp_opts opts;  /* not of half-open and TIME_WAIT entries */
    nsec_t age;            /* NSEC_NEVER: not known (listeners) */
    unsigned ntimers;
    struct snapshot_timer timers[TCP_TIMER_COUNT];
    unsigned nowners;
    struct snapshot_owner owners[SNAPSHOT_OWNERS_MAX];
    uintptr_t owner; /* address of its struct usock; 0: none */
    /* what happened to it last, the oldest first, as far as the ring still has it; in
     * snapshot.events
     */
    const struct ring_event *events;
    unsigned nevents;
    struct tcp_isns isn; /* as far as they are known */

    /* connections */
    struct tcp_view view;
    uint8_t cc;
    bool orphan;     /* the program has closed it */
    bool unaccepted; /* waits in an accept queue */
    uint32_t in_flight, ooo, unsent, ready;
    uint8_t held; /* enum tcp_reason: why data waits */
    tcp_seq snd_una, snd_nxt, rcv_nxt;
    int error, soft_error;

    /* listeners */
    uint32_t syn_queue, accept_queue, backlog;
    bool kernel_too; /* local clients are served by its kernel socket */

    /* half-open */
    unsigned retransmits;
};

struct snapshot {
    const struct family *family;
    const char *problem; /* NULL: all is there */
    bool other_build;    /* the problem: it runs another build of the library */
    unsigned n, room;
    struct snapshot_socket *sockets;
    struct ring_event *events; /* of all connections, by number and then in their order */
    unsigned nevents;
    nsec_t now; /* the moment of the look: CLOCK_MONOTONIC */
    uint64_t counters[STACK_COUNTER_COUNT];
    uint32_t keeper; /* its pid as the family knows it; 0: none */
    uint32_t spans_used;
    bool own_address;
};

/* Freed by snapshot_free(). */
void snapshot_take(const struct family *f, struct snapshot *out);
void snapshot_free(struct snapshot *s);
