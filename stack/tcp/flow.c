/* The connection table: see flow.h. */
#include "stack/tcp/flow.h"

/* Without the padding behind it. */
#define TUPLE_BYTES (offsetof(struct flow_tuple, rport) + sizeof(uint16_t))
_Static_assert(TUPLE_BYTES == 36, "the tuple is hashed as one run of bytes");

/* A SipHash under a secret key: a peer cannot pile connections up in one bucket. */
static struct list *bucket(const struct flow_table *t, const struct flow_tuple *tuple)
{
    return flow_bucket_ready(
        &t->buckets[siphash13(&t->key, tuple, TUPLE_BYTES) & (FLOW_BUCKETS - 1)]);
}

static bool tuple_eq(const struct flow_tuple *a, const struct flow_tuple *b)
{
    return a->lport == b->lport && a->rport == b->rport && ip_addr_eq(&a->remote, &b->remote) &&
           ip_addr_eq(&a->local, &b->local);
}

void flow_table_init(struct flow_table *t, const struct siphash_key *key)
{
    t->key = *key;
    t->count = 0;
    t->last = NULL;
}

struct flow *flow_find(const struct flow_table *t, const struct flow_tuple *tuple)
{
    const struct list *head = bucket(t, tuple);
    list_for_each (n, head) {
        struct flow *f = list_entry(n, struct flow, hash_link);
        if (tuple_eq(&f->tuple, tuple))
            return f;
    }
    return NULL;
}

struct flow *flow_find_arriving(struct flow_table *t, const struct flow_tuple *tuple)
{
    if (t->last == NULL || !tuple_eq(&t->last->tuple, tuple))
        t->last = flow_find(t, tuple);
    return t->last;
}

void flow_insert(struct flow_table *t, struct flow *f)
{
    list_push_front(bucket(t, &f->tuple), &f->hash_link);
    /* Listeners first: they are what is looked for by port alone. */
    if (f->kind == FLOW_LISTENER)
        list_push_front(flow_port_list(t, f->tuple.lport), &f->port_link);
    else
        list_push_back(flow_port_list(t, f->tuple.lport), &f->port_link);
    t->count++;
    t->last = NULL; /* a tuple may be there twice for a moment: the younger is meant */
}

void flow_remove(struct flow_table *t, struct flow *f)
{
    if (!list_linked(&f->hash_link))
        return;
    list_remove(&f->hash_link);
    list_remove(&f->port_link);
    t->count--;
    if (t->last == f)
        t->last = NULL;
}

bool flow_port_used(const struct flow_table *t, uint16_t port)
{
    return !list_empty(flow_port_list(t, port));
}
