/*
 * An event of a JSON trace (docs/trace.md), or of a capture, in the form that the readers of the
 * `tcpshim` command share. Strings are interned: equal strings are equal pointers, and live until
 * the process ends.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shim/command/view/text.h"

#define TIME_NONE INT64_MIN

enum {
    FLAG_FIN = 1,
    FLAG_SYN = 2,
    FLAG_RST = 4,
    FLAG_PSH = 8,
    FLAG_ACK = 16,
    FLAG_URG = 32,
    FLAG_ECE = 64,
    FLAG_CWR = 128,
};

/* What the readers treat by name; everything else is EV_OTHER and is printed by its members. */
#define EVENT_KINDS(X)                                                                             \
    X(TRACE, "trace")                                                                              \
    X(LOST, "lost")                                                                                \
    X(STATE, "state")                                                                              \
    X(SYN_QUEUED, "syn-queued")                                                                    \
    X(ACCEPT_QUEUED, "accept-queued")                                                              \
    X(ACCEPTED, "accepted")                                                                        \
    X(REFUSED, "refused")                                                                          \
    X(SYN_DROPPED, "syn-dropped")                                                                  \
    X(COOKIE_SENT, "cookie-sent")                                                                  \
    X(RX, "rx")                                                                                    \
    X(TX, "tx")                                                                                    \
    X(IGNORED, "ignored")                                                                          \
    X(ACK_HELD, "ack-held")                                                                        \
    X(HELD, "held")                                                                                \
    X(TO_SNDBUF, "to-sndbuf")                                                                      \
    X(ACKED, "acked")                                                                              \
    X(TO_RCVBUF, "to-rcvbuf")                                                                      \
    X(FROM_RCVBUF, "from-rcvbuf")                                                                  \
    X(TIMER, "timer")                                                                              \
    X(CALL, "call")                                                                                \
    X(RECOVERY, "recovery")                                                                        \
    X(CWND, "cwnd")                                                                                \
    X(RTT, "rtt")

enum event_kind {
    EV_OTHER,
    EV_TAKEN_FOR_LOST, /* "lost" of class cc: bytes, not events */
#define X(id, name) EV_##id,
    EVENT_KINDS(X)
#undef X
};

struct options_seen {
    bool has_mss, has_wscale, sack_ok, has_ts;
    uint16_t mss;
    uint8_t wscale, nsack;
    uint32_t tsval, tsecr;
    uint32_t sack[4][2];
};

struct event {
    int64_t t;     /* ns, CLOCK_MONOTONIC; of a capture file: since 1970 */
    int64_t begin; /* start of a call that blocked; TIME_NONE */
    enum event_kind kind;
    unsigned source; /* number of the file */
    int pid;
    uint32_t conn; /* 0: none */
    const char *class, *name, *local, *peer;
    const char *why, *why_id;
    /* a segment; wire: seen on the wire, at a place that is neither end; raw_wnd: not scaled yet */
    bool wire, raw_wnd;
    uint8_t flags;
    uint32_t seq, ack, len;
    uint64_t wnd;
    struct options_seen opt;
    /* a state */
    const char *from, *to;
    /* queues, -1: not said */
    int syn_queue, accept_queue, backlog;
    /* a call; of the first line of a process: args is its command, error the time of day */
    const char *call, *args, *error;
    int fd;
    int64_t result;
    /* buffers, congestion control (0: not said), times in ns */
    uint64_t bytes, queued, cwnd, ssthresh, in_flight;
    int64_t srtt, rto, sample;
    const char *timer;
};

/* ---- event.c ---- */

const char *intern(const char *text);
const char *intern_n(const char *text, size_t n);
enum event_kind event_kind(const char *name);
bool event_is_segment(const struct event *e);
/* Replaces control characters. */
void make_printable(char *s);
/* Fills e from one object of a trace. NULL, or what is wrong with it (static text). */
const char *event_from_json(struct event *e, const json_t *object);
/* "SYN,ACK" and back; unknown words are ignored. text needs 40 bytes. */
void flags_format(char *text, uint8_t flags);
uint8_t flags_parse(const char *text);
/* Adds "<mss 1460, wscale 7, SACK>", or nothing. sack_base: what SACK blocks are counted from. */
void options_format(struct text *to, const struct options_seen *opt, uint32_t sack_base,
                    bool timestamps);
/* Bytes as "83 B", "1.4 KB", "600 MB". Returns text. */
char *bytes_format(char *text, size_t size, uint64_t bytes);
/* A length of time as "12.3 us", "1.234 ms", "2.5 s". Returns text. */
char *duration_format(char *text, size_t size, int64_t ns);

/* ---- list of events ---- */

struct event_list {
    struct event *items;
    size_t n, room;
};

/* A new, zeroed event at the end (with the "not said" values set); exits the process when there is
 * no memory. */
struct event *event_add(struct event_list *list);
void event_init(struct event *e);
/* Stable, by time. */
void event_sort(struct event_list *list);
void event_list_free(struct event_list *list);

/* realloc() that never returns NULL. */
void *must_alloc(void *old, size_t size);
