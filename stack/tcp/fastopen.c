/*
 * TCP Fast Open (RFC 7413): data in the SYN, for peers that have shown by a cookie that they can be
 * reached at their address. Cookies are made of the addresses and a key, as Linux makes them, so
 * that hosts with one key believe each other's; those that servers gave us are kept for the next
 * connection.
 */
#include "stack/tcp/conn.h"
#include "stack/util/siphash.h"

/* What is kept free for options in a SYN that carries data (Linux: MAX_TCP_OPTION_SPACE). */
#define SYN_OPTIONS 40u
/* Linux: keeps data in SYNs to what any path carries when nothing is known of it. */
#define SYN_DATA_MIN_MSS 536u

struct siphash_key tcp_fastopen_key(const struct stack *st)
{
    static const uint8_t none[TCP_FASTOPEN_KEY_LEN];
    return memcmp(st->config.fastopen_key, none, sizeof(none)) == 0
               ? st->tcp.fastopen_secret
               : siphash_key_of(st->config.fastopen_key);
}

void tcp_fastopen_cookie(const struct tcp_listener *l, const struct ip_addr *client,
                         const struct ip_addr *server, uint8_t cookie[TCP_COOKIE_LEN])
{
    const struct ip_addr both[2] = {*client, *server};
    uint64_t word;
    if (ip_addr_is_v4(client)) {
        const uint32_t pair[2] = {ip_addr_v4(client), ip_addr_v4(server)};
        word = siphash24(&l->fastopen_key, pair, sizeof(pair));
    } else {
        word = siphash24(&l->fastopen_key, both, sizeof(both));
    }
    memcpy(cookie, &word, TCP_COOKIE_LEN);
}

static bool valid(const struct tcp_listener *l, const struct flow_tuple *t,
                  const struct tcp_options *o)
{
    uint8_t ours[TCP_COOKIE_LEN];
    if (o->cookie_len != TCP_COOKIE_LEN)
        return false;
    tcp_fastopen_cookie(l, &t->remote, &t->local, ours);
    return memcmp(ours, o->cookie, TCP_COOKIE_LEN) == 0;
}

/* Linux's tcp_try_fastopen(). */
enum tcp_fastopen_verdict tcp_fastopen_judge(struct stack *st, const struct tcp_listener *l,
                                             const struct flow_tuple *t,
                                             const struct tcp_segment *s)
{
    const bool asked = s->opt.fast_open;
    if (!(st->config.fastopen & STACK_FASTOPEN_SERVER) || (!asked && !s->len))
        return TCP_FASTOPEN_NO;
    if (l->fastopen_pending >= l->opts.fastopen)
        return TCP_FASTOPEN_NO;
    if (l->opts.fastopen_no_cookie || st->config.fastopen & STACK_FASTOPEN_SERVER_NO_COOKIE)
        return TCP_FASTOPEN_YES;
    if (!asked)
        return TCP_FASTOPEN_NO;
    if (s->opt.cookie_len == 0)
        return TCP_FASTOPEN_GIVE;
    if (valid(l, t, &s->opt))
        return TCP_FASTOPEN_YES;
    stack_count(st, COUNT_FASTOPEN_BAD);
    return TCP_FASTOPEN_GIVE;
}

/* ---- the client's memory ---- */

/* Where what is known of a server is kept, or would be. */
static unsigned place(const struct stack *st, const struct ip_addr *server)
{
    return siphash13(&st->tcp.port_secret, server, sizeof(*server)) % TCP_FASTOPEN_ENTRIES;
}

static const struct tcp_fastopen_entry *find(const struct stack *st, const struct ip_addr *server)
{
    const struct tcp_fastopen_entry *e = &st->tcp.fastopen[place(st, server)];
    return e->known && ip_addr_eq(&e->server, server) ? e : NULL;
}

bool tcp_fastopen_client(const struct stack *st)
{
    return st->config.fastopen & STACK_FASTOPEN_CLIENT;
}

/* Whether this connection asks for cookies and uses them. */
static bool enabled(const struct stack *st, const struct tcp_conn *c)
{
    return c->opts.fastopen_connect && tcp_fastopen_client(st);
}

static bool needs_no_cookie(const struct stack *st, const struct tcp_conn *c)
{
    return c->opts.fastopen_no_cookie || st->config.fastopen & STACK_FASTOPEN_CLIENT_NO_COOKIE;
}

bool tcp_fastopen_known(const struct stack *st, const struct tcp_conn *c,
                        const struct ip_addr *server)
{
    if (!enabled(st, c))
        return false;
    const struct tcp_fastopen_entry *e = find(st, server);
    return needs_no_cookie(st, c) || (e && e->len);
}

/* Linux's tcp_fastopen_cache_set() */
void tcp_fastopen_learn(struct stack *st, const struct tcp_conn *c, const struct tcp_options *o)
{
    const struct ip_addr *server = &c->flow.tuple.remote;
    if (!enabled(st, c))
        return;
    struct tcp_fastopen_entry *e = &st->tcp.fastopen[place(st, server)];
    if (!find(st, server))
        *e = (struct tcp_fastopen_entry){.server = *server, .known = true};
    e->mss = o->has_mss ? o->mss : e->mss;
    if (needs_no_cookie(st, c))
        return; /* one that was not asked for */
    if (o->fast_open && o->cookie_len) {
        e->len = o->cookie_len;
        e->exp = o->fast_open_exp;
        e->try_exp = 0;
        memcpy(e->cookie, o->cookie, o->cookie_len);
    } else if (!e->len && !c->retries && e->try_exp < 2) {
        e->try_exp++;
    }
}

/* A path that swallows such SYNs must not cost each connection a time-out. */
void tcp_fastopen_forget(struct stack *st, const struct ip_addr *server)
{
    if (find(st, server))
        st->tcp.fastopen[place(st, server)].len = 0;
}

void tcp_fastopen_offer(const struct stack *st, const struct tcp_conn *c, struct tcp_options *o)
{
    if (!enabled(st, c) || c->retries || needs_no_cookie(st, c))
        return;
    const struct tcp_fastopen_entry *e = find(st, &c->flow.tuple.remote);
    o->fast_open = true;
    if (!e)
        return;
    o->fast_open_exp = e->len ? e->exp : e->try_exp == 1;
    o->cookie_len = e->len;
    o->cookie = e->cookie;
}

uint32_t tcp_fastopen_room(const struct stack *st, const struct tcp_conn *c,
                           const struct ip_addr *server, uint16_t advmss)
{
    if (!tcp_fastopen_known(st, c, server))
        return 0;
    const struct tcp_fastopen_entry *e = find(st, server);
    const uint32_t theirs = e && e->mss ? e->mss : advmss;
    return max_u32(min_u32(theirs, advmss), SYN_DATA_MIN_MSS) - SYN_OPTIONS;
}

/* ---- the server ---- */

void tcp_fastopen_done(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!c->fast_open)
        return;
    c->fast_open = false;
    tcp_listener_fastopen_done(cx->st, &c->flow.tuple);
}
