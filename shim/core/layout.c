#include "shim/core/layout.h"

#include "shim/core/shared.h"
#include "shim/core/usock.h"
#include "stack/tcp/conn.h"
#include "stack/trace.h"

static const uint32_t facts[] = {
    sizeof(struct stack),
    offsetof(struct stack, netifs),
    offsetof(struct stack, tcp),
    offsetof(struct stack, counters),
    STACK_COUNTER_COUNT,
    offsetof(struct stack, ring),
    sizeof(struct ring),
    sizeof(struct ring_event),
    sizeof(struct pool),
    sizeof(struct flow),
    sizeof(struct tcp_conn),
    offsetof(struct tcp_conn, state),
    offsetof(struct tcp_conn, opts),
    offsetof(struct tcp_conn, iss),
    offsetof(struct tcp_conn, sendbuf),
    offsetof(struct tcp_conn, rcv_nxt),
    offsetof(struct tcp_conn, rtt),
    offsetof(struct tcp_conn, deadline),
    offsetof(struct tcp_conn, segs_in),
    sizeof(struct tcp_opts),
    sizeof(struct tcp_half_open),
    offsetof(struct tcp_half_open, sent),
    sizeof(struct tcp_time_wait),
    sizeof(struct tcp_listener),
    offsetof(struct tcp_listener, backlog),
    TCP_TIMER_COUNT,
    TCP_REASON_COUNT,
    TRACE_EVENT_COUNT,
    sizeof(struct usock),
    offsetof(struct usock, conn),
    sizeof(struct shared),
    offsetof(struct shared, usocks),
    offsetof(struct shared, keeper),
    offsetof(struct shared, processes),
    sizeof(struct process),
};

uint64_t layout_tag(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, a number at a time */
    for (unsigned i = 0; i < ARRAY_LEN(facts); i++)
        hash = (hash ^ facts[i]) * UINT64_C(0x100000001b3);
    return hash;
}
