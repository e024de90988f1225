/* Events in words (words.h). */
#define _GNU_SOURCE
#include "shim/command/view/words.h"

#include <inttypes.h>
#include <string.h>

enum call_family call_family(const struct event *e)
{
    static const struct {
        const char *name;
        enum call_family family;
    } calls[] = {
        {"connect", CALL_CONNECT}, {"listen", CALL_LISTEN}, {"accept", CALL_ACCEPT},
        {"accept4", CALL_ACCEPT},  {"send", CALL_SEND},     {"sendto", CALL_SEND},
        {"sendmsg", CALL_SEND},    {"sendmmsg", CALL_SEND}, {"write", CALL_SEND},
        {"writev", CALL_SEND},     {"pwrite", CALL_SEND},   {"sendfile", CALL_SEND},
        {"splice", CALL_SEND},     {"recv", CALL_RECV},     {"recvfrom", CALL_RECV},
        {"recvmsg", CALL_RECV},    {"recvmmsg", CALL_RECV}, {"read", CALL_RECV},
        {"readv", CALL_RECV},      {"close", CALL_CLOSE},   {"shutdown", CALL_CLOSE},
    };
    if (e->kind != EV_CALL || !e->call)
        return CALL_OTHER;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (strcmp(e->call, calls[i].name) == 0)
            return calls[i].family;
    return CALL_OTHER;
}

bool call_matters(const struct event *e)
{
    bool nothing_there = e->error && strcmp(e->error, "EAGAIN") == 0;
    return call_family(e) != CALL_OTHER && !nothing_there;
}

void words_call(struct text *to, const struct event *e, bool args)
{
    text_add(to, "%s(", e->call ? e->call : "?");
    const char *between = "";
    if (e->fd >= 0) {
        text_add(to, "%d", e->fd);
        between = ", ";
    }
    if (args && e->args && *e->args)
        text_add(to, "%s%s", between, e->args);
    text_add(to, ") = %" PRId64, e->result);
    if (e->error)
        text_add(to, " %s", e->error);
}

/* " (1 of 511)" */
static void add_accept_queue(struct text *to, const struct event *e)
{
    if (e->accept_queue >= 0 && e->backlog >= 0)
        text_add(to, " (%d/%d)", e->accept_queue, e->backlog);
    else if (e->accept_queue >= 0)
        text_add(to, " (%d)", e->accept_queue);
}

bool words_queue(struct text *to, const struct event *e)
{
    switch (e->kind) {
    case EV_SYN_QUEUED:
        text_add(to, "into SYN queue (%d)", e->syn_queue);
        return true;
    case EV_ACCEPT_QUEUED:
        text_add(to, "SYN queue → accept queue");
        add_accept_queue(to, e);
        return true;
    case EV_ACCEPTED:
        text_add(to, "accept queue → program");
        add_accept_queue(to, e);
        return true;
    case EV_REFUSED:
        text_add(to, "refused: %s", e->why ? e->why : "?");
        return true;
    case EV_SYN_DROPPED:
        text_add(to, "out of SYN queue: %s", e->why ? e->why : "?");
        return true;
    case EV_COOKIE_SENT:
        text_add(to, "SYN queue full: SYN cookie");
        return true;
    default:
        return false;
    }
}

bool words_buffer(struct text *to, const struct event *e)
{
    switch (e->kind) {
    case EV_TO_SNDBUF:
        text_add(to, "send buffer +%" PRIu64 " = %" PRIu64, e->bytes, e->queued);
        return true;
    case EV_ACKED:
        text_add(to, "send buffer -%" PRIu64 " = %" PRIu64, e->bytes, e->queued);
        return true;
    case EV_TO_RCVBUF:
        text_add(to, "receive buffer +%" PRIu64 " = %" PRIu64, e->bytes, e->queued);
        return true;
    case EV_FROM_RCVBUF:
        text_add(to, "receive buffer -%" PRIu64 " = %" PRIu64, e->bytes, e->queued);
        return true;
    default:
        return false;
    }
}
