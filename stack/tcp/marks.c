/* Marks of connections: see marks.h. */
#include "stack/tcp/marks.h"

static struct flow_mark mark_of(const struct flow_tuple *t)
{
    struct flow_mark m = {.local = ip_addr_v4(&t->local), .remote = ip_addr_v4(&t->remote)};
    put_be16(&m.ports, t->rport);
    put_be16((uint8_t *)&m.ports + 2, t->lport);
    return m;
}

static struct flow_mark *place_of(struct flow_mark *table, const struct flow_mark *m)
{
    return &table[mark_index(m->ports, m->remote)];
}

static bool same_flow(const struct flow_mark *a, const struct flow_mark *b)
{
    return a->local == b->local && a->remote == b->remote && a->ports == b->ports;
}

/* The program may read meanwhile: it sees the old mark, none, or the new one. */
void mark_set(struct flow_mark *table, const struct flow_tuple *t, uint32_t ifindex)
{
    const struct flow_mark m = mark_of(t);
    struct flow_mark *at = place_of(table, &m);
    if (same_flow(at, &m) && at->ifindex == ifindex)
        return;
    __atomic_store_n(&at->ifindex, 0, __ATOMIC_RELAXED);
    /* releases: each comes after that */
    __atomic_store_n(&at->local, m.local, __ATOMIC_RELEASE);
    __atomic_store_n(&at->remote, m.remote, __ATOMIC_RELEASE);
    __atomic_store_n(&at->ports, m.ports, __ATOMIC_RELEASE);
    __atomic_store_n(&at->ifindex, ifindex, __ATOMIC_RELEASE);
}

void mark_clear(struct flow_mark *table, const struct flow_tuple *t)
{
    const struct flow_mark m = mark_of(t);
    struct flow_mark *at = place_of(table, &m);
    if (same_flow(at, &m))
        __atomic_store_n(&at->ifindex, 0, __ATOMIC_RELEASE);
}
