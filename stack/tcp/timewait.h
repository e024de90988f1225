/*
 * TIME_WAIT entries seen from outside: another stack on the same addresses can take them over. They
 * send nothing by themselves, so what arrives for one says which way the answer goes.
 */
#pragma once

#include "stack/stack.h"
#include "stack/tcp/isn.h"

/* All that has to be known; plain data, to be sent from process to process of one machine. */
struct tcp_time_wait_image {
    struct flow_tuple tuple;
    uint32_t snd_nxt, rcv_nxt;
    uint32_t rcv_wnd; /* unscaled, as it is to be sent */
    uint32_t ts_recent, ts_offset;
    nsec_t ts_recent_at, ends_at; /* on the stack's clock */
    bool ts_ok;
    bool accecn; /* and the ACE field of its ACKs (RFC 9768) */
    uint8_t ace;
    uint8_t tos, ttl;
};

/* Visits all entries; `visit` must not change the stack. */
void tcp_each_time_wait(struct stack *st,
                        void (*visit)(const struct tcp_time_wait_image *tw, void *arg), void *arg);
/* Makes an entry of another stack one of this one's. 0, -EEXIST (the tuple is in use), -ENOMEM. */
int tcp_time_wait_adopt(struct stack_cx *cx, const struct tcp_time_wait_image *image);
