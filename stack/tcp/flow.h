/* The connection table: the truth about which 4-tuples exist, and O(1) demultiplexing. */
#pragma once

#include "stack/base.h"
#include "stack/stack.h"
#include "stack/tcp/isn.h"

enum flow_kind {
    FLOW_CONN = 1,  /* struct tcp_conn */
    FLOW_HALF_OPEN, /* struct tcp_half_open */
    FLOW_TIME_WAIT, /* struct tcp_time_wait */
    FLOW_LISTENER,  /* struct tcp_listener; remote is zero */
};

/* First member of everything that owns a 4-tuple. */
struct flow {
    struct list hash_link;
    struct list port_link; /* among the flows of one local port */
    struct flow_tuple tuple;
    uint32_t number; /* for traces */
    uint8_t kind;    /* enum flow_kind */
};

#define FLOW_BUCKETS      65536u
#define FLOW_PORT_BUCKETS 65536u /* one a port: a busy server port does not slow another */

struct flow_table {
    struct siphash_key key;
    uint32_t count;
    struct flow *last;    /* what the last segment was for, while it is in the table; or NULL */
    struct list *buckets; /* by 4-tuple */
    struct list *port_buckets; /* by local port: listeners, and whether a port is in use */
};

/* The caller has pointed buckets and port_buckets at FLOW_BUCKETS and FLOW_PORT_BUCKETS zeroed
 * lists. */
void flow_table_init(struct flow_table *t, const struct siphash_key *key);
/* Buckets begin as zeroes, so that a table costs no memory until it is used. */
static inline struct list *flow_bucket_ready(struct list *l)
{
    if (unlikely(l->next == NULL))
        list_init(l);
    return l;
}
/* The flows of this local port (port_link), listeners in front. */
static inline struct list *flow_port_list(const struct flow_table *t, uint16_t port)
{
    return flow_bucket_ready(&t->port_buckets[port]);
}
/* The flow of exactly this tuple, or NULL. */
struct flow *flow_find(const struct flow_table *t, const struct flow_tuple *tuple);
/* The same for segments that arrive: the next is mostly for the flow that the last was for. */
struct flow *flow_find_arriving(struct flow_table *t, const struct flow_tuple *tuple);
void flow_insert(struct flow_table *t, struct flow *f);
void flow_remove(struct flow_table *t, struct flow *f);
bool flow_port_used(const struct flow_table *t, uint16_t port);
