/*
 * TCP Fast Open (RFC 7413): data in the SYN, for peers that have shown by a cookie that they can be
 * reached at their address. Cookies are made of the addresses and a secret; those that servers gave
 * us are kept for the next connection.
 */
#include "stack/tcp/conn.h"

/* What is kept free for options in a SYN that carries data (Linux: MAX_TCP_OPTION_SPACE). */
#define SYN_OPTIONS 40u
/* Linux: keeps data in SYNs to what any path carries when nothing is known of it. */
#define SYN_DATA_MIN_MSS 536u

void tcp_fastopen_cookie(const struct stack *st, const struct ip_addr *client,
                         const struct ip_addr *server, uint8_t cookie[TCP_COOKIE_LEN])
{
    const struct ip_addr both[2] = {*client, *server};
    const uint64_t word = siphash13(&st->tcp.fastopen_secret, both, sizeof(both));
    memcpy(cookie, &word, TCP_COOKIE_LEN);
}

bool tcp_fastopen_valid(const struct stack *st, const struct flow_tuple *t,
                        const struct tcp_options *o)
{
    uint8_t ours[TCP_COOKIE_LEN];
    if (o->cookie_len != TCP_COOKIE_LEN)
        return false;
    tcp_fastopen_cookie(st, &t->remote, &t->local, ours);
    return memcmp(ours, o->cookie, TCP_COOKIE_LEN) == 0;
}

/* ---- the client's memory ---- */

/* Where the cookie of a server is kept, or would be. */
static unsigned place(const struct stack *st, const struct ip_addr *server)
{
    return siphash13(&st->tcp.port_secret, server, sizeof(*server)) % TCP_FASTOPEN_ENTRIES;
}

static const struct tcp_fastopen_entry *find(const struct stack *st, const struct ip_addr *server)
{
    const struct tcp_fastopen_entry *e = &st->tcp.fastopen[place(st, server)];
    return e->len && ip_addr_eq(&e->server, server) ? e : NULL;
}

/* Whether this connection asks for cookies and uses them. */
static bool enabled(const struct stack *st, const struct tcp_conn *c)
{
    return c->opts.fastopen && (st->config.fastopen & STACK_FASTOPEN_CLIENT);
}

bool tcp_fastopen_known(const struct stack *st, const struct ip_addr *server)
{
    return (st->config.fastopen & STACK_FASTOPEN_CLIENT) && find(st, server) != NULL;
}

void tcp_fastopen_learn(struct stack *st, const struct tcp_conn *c, const struct tcp_options *o)
{
    const struct ip_addr *server = &c->flow.tuple.remote;
    if (!o->fast_open || o->cookie_len < TCP_COOKIE_MIN || o->cookie_len > TCP_COOKIE_MAX)
        return;
    struct tcp_fastopen_entry *e = &st->tcp.fastopen[place(st, server)];
    *e = (struct tcp_fastopen_entry){.server = *server, .len = o->cookie_len, .mss = c->peer_mss};
    memcpy(e->cookie, o->cookie, o->cookie_len);
}

/* A path that swallows such SYNs must not cost each connection a time-out. */
void tcp_fastopen_forget(struct stack *st, const struct ip_addr *server)
{
    if (find(st, server))
        st->tcp.fastopen[place(st, server)].len = 0;
}

void tcp_fastopen_offer(const struct stack *st, const struct tcp_conn *c, struct tcp_options *o)
{
    if (!enabled(st, c) || c->retries)
        return;
    const struct tcp_fastopen_entry *e = find(st, &c->flow.tuple.remote);
    o->fast_open = true;
    o->cookie_len = e ? e->len : 0;
    o->cookie = e ? e->cookie : NULL;
}

uint32_t tcp_fastopen_room(const struct stack *st, const struct tcp_conn *c)
{
    const struct tcp_fastopen_entry *e = enabled(st, c) ? find(st, &c->flow.tuple.remote) : NULL;
    if (!e)
        return 0;
    const uint32_t mss = max_u32(min_u32(e->mss, c->advmss), SYN_DATA_MIN_MSS);
    return mss - SYN_OPTIONS;
}

/* ---- the server ---- */

void tcp_fastopen_done(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->fast_open)
        return;
    c->fast_open = false;
    struct tcp_listener *l = tcp_listener_find(cx->st, &c->flow.tuple);
    if (l && l->fastopen_pending)
        l->fastopen_pending--;
}
