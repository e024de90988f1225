#include "shim/link/group.h"

#include "shim/core/shared.h"
#include "shim/link/diag.h"
#include "stack/tcp/tcp.h"
#include "stack/util/siphash.h"

/* The kernel said that others share a port: good for this long. */
#define SHARED_BELIEF (2 * NSEC_PER_SEC)
#define REMEMBERED    16

void group_note(uint16_t port)
{
    engine.sh->grouped[port / 64] |= UINT64_C(1) << port % 64;
}

bool group_known(uint16_t port)
{
    return (engine.sh->grouped[port / 64] >> port % 64 & 1) != 0;
}

bool group_not_ours(uint16_t port, const struct diag_socket *s)
{
    return (s->kind == DIAG_DOOR || s->kind == DIAG_KERNEL) &&
           tcp_listener_member(engine.st, port, s->cookie) == NULL;
}

static bool same_place(const struct ip_addr *a, const struct ip_addr *b)
{
    return ip_addr_eq(a, b) || (ip_addr_is_any(a) && ip_addr_is_any(b));
}

/* ---- the choice where the kernel's fell on a socket that admits nobody ---- */

struct election {
    const struct flow_tuple *tuple;
    uint64_t member; /* 0: no candidate yet */
    uint64_t most;
    bool exact; /* it listens on the tuple's very address, which comes before any address */
};

/* Who has the highest hash with the tuple: who comes or goes changes its own share alone. */
static void stand(const struct diag_socket *s, void *arg)
{
    struct election *e = arg;
    const bool exact = ip_addr_eq(&s->local, &e->tuple->local);
    if (s->kind != DIAG_DOOR || (!exact && (e->exact || !ip_addr_is_any(&s->local))))
        return;
    const struct flow_tuple *t = e->tuple;
    const uint64_t words[5] = {t->local.q[0], t->local.q[1], t->remote.q[0], t->remote.q[1],
                               (uint64_t)t->lport << 16 | t->rport};
    const struct siphash_key key = {.k0 = s->cookie};
    const uint64_t hash = siphash13(&key, words, sizeof(words));
    if (e->member != 0 && e->exact == exact && hash < e->most)
        return;
    *e = (struct election){.tuple = t, .member = s->cookie, .most = hash, .exact = exact};
}

bool group_elect(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                 uint64_t *member)
{
    (void)cx;
    struct diag_socket s;
    if (!ip_addr_is_v4(&tuple->local) || diag_find(tuple, ifindex, &s) < 0)
        return false;
    if (s.kind == DIAG_DOOR || s.kind == DIAG_KERNEL) {
        *member = s.cookie;
        return true;
    }
    /* a guard of a member that listens no more, or what stands for an old connection of the tuple
     */
    struct election e = {.tuple = tuple};
    if (s.kind == DIAG_NONE || diag_listeners(tuple->lport, stand, &e) < 0 || e.member == 0)
        return false;
    *member = e.member;
    return true;
}

/* ---- whether others share a port ---- */

struct shared_port {
    struct ip_addr local;
    uint16_t port;
    nsec_t until;
};

static struct shared_port remembered[REMEMBERED];

static struct shared_port *place_of(const struct flow_tuple *t)
{
    return &remembered[t->lport % REMEMBERED];
}

struct others {
    const struct flow_tuple *tuple;
    unsigned doors, deaf;
};

static void count_other(const struct diag_socket *s, void *arg)
{
    struct others *o = arg;
    if (!ip_addr_is_any(&s->local) && !ip_addr_eq(&s->local, &o->tuple->local))
        return;
    o->deaf += s->kind == DIAG_DEAF;
    o->doors += group_not_ours(o->tuple->lport, s);
}

/* found: what the kernel has for the tuple. */
static bool has_others(const struct flow_tuple *t, const struct diag_socket *found)
{
    if (group_not_ours(t->lport, found))
        return true;
    struct others o = {.tuple = t};
    if (diag_listeners(t->lport, count_other, &o) < 0)
        return false;
    /* One deaf guard is ours, if no listener is: that of our connections. */
    const bool listens = found->kind != DIAG_DEAF;
    return o.doors > 0 || o.deaf > (listens ? 0 : 1);
}

bool group_shares(struct stack_cx *cx, const struct flow_tuple *t, uint32_t ifindex)
{
    struct diag_socket found;
    struct shared_port *p = place_of(t);
    if (p->port == t->lport && cx->now < p->until && ip_addr_eq(&p->local, &t->local))
        return true;
    if (!diag_may_ask(cx->now, DIAG_LISTENERS))
        return true; /* silence does less harm */
    if (diag_find(t, ifindex, &found) < 0 || found.kind == DIAG_NONE)
        return false;
    if (found.kind == DIAG_FLOW)
        return true;
    if (!has_others(t, &found))
        return false;
    *p =
        (struct shared_port){.local = t->local, .port = t->lport, .until = cx->now + SHARED_BELIEF};
    return true;
}

struct search {
    const struct endpoint *local;
    bool found;
};

static void look_for_kernel(const struct diag_socket *s, void *arg)
{
    struct search *search = arg;
    search->found =
        search->found || (s->kind == DIAG_KERNEL && same_place(&s->local, &search->local->addr));
}

bool group_of_kernel(const struct endpoint *local)
{
    struct search s = {.local = local};
    return diag_listeners(local->port, look_for_kernel, &s) == 0 && s.found;
}
