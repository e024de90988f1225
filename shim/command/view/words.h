/* Events in words, for people: what a note in a diagram, or a line of `tcpshim trace`, says. */
#pragma once

#include "shim/command/view/event.h"

/* Adds "connect(5, 10.0.0.1:80) = -1 EINPROGRESS"; args: with its arguments. */
void words_call(struct text *to, const struct event *e, bool args);
/* Adds what a queue event says: "SYN queue -> accept queue (1/511)". False: not a queue event. */
bool words_queue(struct text *to, const struct event *e);
/* Adds what a buffer event says: "+83 to send buffer (83)". False: not a buffer event. */
bool words_buffer(struct text *to, const struct event *e);
/* Calls that a diagram shows: those that move the connection or its bytes. */
bool call_matters(const struct event *e);

enum call_family {
    CALL_OTHER,
    CALL_CONNECT,
    CALL_LISTEN,
    CALL_ACCEPT,
    CALL_SEND,
    CALL_RECV,
    CALL_CLOSE, /* and shutdown() */
};
enum call_family call_family(const struct event *e);
