/*
 * The path's MTU, found without ICMP (RFC 4821, RFC 8899): time-outs of large segments lead to
 * smaller ones, and one larger segment of real data now and then tells whether more fits again. A
 * probe that is lost alone is no sign of congestion. As Linux's tcp_mtu_probing, whose values are
 * those of enum stack_mtu_probing.
 */
#include "stack/tcp/conn.h"
#include "stack/util/siphash.h"

/* Linux: tcp_base_mss, tcp_probe_threshold, tcp_probe_interval */
#define BASE_MTU       1064u
#define SEARCH_DONE    8u
#define RAISE_SECONDS  600u /* RFC 8899 5.1.1: PMTU_RAISE_TIMER; RFC 1191 6.3 */
#define RETRY_SECONDS  5u
#define FOLLOWERS      4u /* segments behind a probe, whose ACKs show that it was lost */
#define HEADERS        40u
#define TIMESTAMP_SIZE 12u

/* What one packet of the connection could be at most, whatever the path. */
static uint32_t ceiling(const struct stack *st, const struct tcp_conn *c)
{
    const struct ip_path unknown = {.netif = c->path.netif};
    uint32_t mtu = min_u32(ip_path_mtu(st, &unknown), c->peer_mss + HEADERS);
    if (c->opts.user_mss)
        mtu = min_u32(mtu, c->opts.user_mss + HEADERS);
    return min_u32(mtu, UINT16_MAX);
}

static uint32_t headers_of(const struct tcp_conn *c)
{
    return HEADERS + (c->ts_ok ? TIMESTAMP_SIZE : 0);
}

/* The low bits of a clock in seconds: an idle connection may look too early by hours, once. */
static void wait_for(const struct stack_cx *cx, struct tcp_conn *c, uint32_t seconds)
{
    c->mtu_wait = (uint16_t)(cx->now / NSEC_PER_SEC + seconds);
}

static bool waits(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return (int16_t)(c->mtu_wait - (uint16_t)(cx->now / NSEC_PER_SEC)) > 0;
}

static void trace_probe(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    TRACE(cx, CC, &c->flow, RECOVERY, why, c->cc.cwnd, c->cc.ssthresh, tcp_in_flight(c));
}

static void reduce(struct stack_cx *cx, struct tcp_conn *c, uint32_t mtu)
{
    c->path.mtu_high = (uint16_t)(ip_path_mtu(cx->st, &c->path) - 1);
    c->path.mtu_probe = 0;
    c->path.mtu = mtu;
    wait_for(cx, c, 0);
    tcp_update_mss(cx, c);
}

/* Nothing larger fits now; the path may change. */
static void end_search(const struct stack_cx *cx, struct tcp_conn *c)
{
    c->path.mtu_high = (uint16_t)ceiling(cx->st, c);
    wait_for(cx, c, RAISE_SECONDS);
}

/* RFC 1191 3: what is learned is the path's, not the connection's. */
static struct tcp_mtu_entry *entry_of(struct stack *st, const struct ip_addr *host)
{
    return &st->tcp.mtus[siphash13(&st->tcp.port_secret, host, sizeof(*host)) % TCP_MTU_ENTRIES];
}

static void remember(struct stack_cx *cx, const struct tcp_conn *c, uint32_t mtu)
{
    const struct ip_addr *host = &c->flow.tuple.remote;
    const nsec_t until = cx->now + RAISE_SECONDS * NSEC_PER_SEC;
    *entry_of(cx->st, host) = (struct tcp_mtu_entry){*host, until, mtu};
    cx->st->tcp.mtus_until = until;
}

static void recall(struct stack_cx *cx, struct tcp_conn *c)
{
    if (likely(cx->st->tcp.mtus_until <= cx->now) || c->opts.pmtu_dont)
        return;
    const struct tcp_mtu_entry *e = entry_of(cx->st, &c->flow.tuple.remote);
    if (e->until <= cx->now || !ip_addr_eq(&e->host, &c->flow.tuple.remote) ||
        e->mtu >= ip_path_mtu(cx->st, &c->path))
        return;
    c->path.mtu = e->mtu;
    if (cx->st->config.tuning.mtu_probing)
        end_search(cx, c);
}

void tcp_mtu_begin(struct stack_cx *cx, struct tcp_conn *c)
{
    recall(cx, c);
    if (cx->st->config.tuning.mtu_probing != STACK_MTU_PROBING_ALWAYS || c->opts.pmtu_dont ||
        ip_path_mtu(cx->st, &c->path) <= BASE_MTU)
        return;
    reduce(cx, c, BASE_MTU);
    c->path.mtu_high++;
}

void tcp_suspect_black_hole(struct stack_cx *cx, struct tcp_conn *c)
{
    static const uint16_t mtus[] = {BASE_MTU, TCP_PMTU_MIN};
    const uint32_t current = ip_path_mtu(cx->st, &c->path);
    const struct sent_record *head = sentmap_first(&c->sent);
    if (!tcp_synchronized(c) || c->opts.pmtu_dont || !head)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(mtus); i++) {
        if (mtus[i] >= current || head->len + HEADERS <= mtus[i])
            continue;
        reduce(cx, c, mtus[i]);
        stack_count(cx->st, COUNT_BLACK_HOLES);
        return;
    }
}

void tcp_mtu_learned(struct stack_cx *cx, struct tcp_conn *c, uint32_t mtu)
{
    if (mtu >= ip_path_mtu(cx->st, &c->path)) { /* of a probe */
        c->path.mtu_high = (uint16_t)min_u32(c->path.mtu_high, mtu);
        return;
    }
    c->path.mtu = mtu;
    c->path.mtu_probe = 0;
    remember(cx, c, mtu);
    if (cx->st->config.tuning.mtu_probing)
        end_search(cx, c);
    tcp_update_mss(cx, c);
}

/* The size to try next; 0: none. */
static uint32_t next_size(const struct stack_cx *cx, struct tcp_conn *c)
{
    const uint32_t low = ip_path_mtu(cx->st, &c->path);
    const uint32_t most = ceiling(cx->st, c);
    const uint32_t high = min_u32(c->path.mtu_high, most);
    if (most <= low) {
        c->path.mtu_high = 0;
        return 0;
    }
    if (high == most) /* nothing is known against it */
        return high;
    if (high < low + SEARCH_DONE) {
        end_search(cx, c);
        return 0;
    }
    return (low + high + 1) / 2;
}

/* Whether what follows a probe would show its loss, and nothing else goes on. */
static bool may_probe(const struct tcp_conn *c)
{
    return c->ca_state == TCP_CA_OPEN && c->path.mtu_probe == 0 && c->sent.lost == 0 &&
           c->sent.sacked == 0 && !c->tlp_out && c->recvbuf.nranges == 0 && !c->dsack_due &&
           !c->urgent_out && !c->cwr_due && !c->opts.pmtu_dont;
}

uint32_t tcp_mtu_probe_len(struct stack_cx *cx, struct tcp_conn *c, bool *hold)
{
    *hold = false;
    if (!may_probe(c) || waits(cx, c))
        return 0;
    const uint32_t size = next_size(cx, c);
    if (size <= headers_of(c) + c->mss)
        return 0;
    const uint32_t len = size - headers_of(c);
    const uint32_t needed = len + FOLLOWERS * c->mss;
    const int32_t room = seq_diff(seq_add(c->snd_una, c->snd_wnd), c->snd_nxt);
    if (tcp_within_record(c, tcp_unsent(c)) < needed || room < (int32_t)needed ||
        c->cc.cwnd < needed)
        return 0;
    const uint32_t pipe = tcp_in_flight(c);
    if (c->cc.cwnd < pipe + len) { /* the window would never have room for more than a segment */
        c->cwnd_limited = true;
        *hold = pipe > 0;
        return 0;
    }
    return len;
}

void tcp_mtu_probe_sent(struct tcp_conn *c, uint32_t len)
{
    c->path.mtu_probe = (uint16_t)(len + headers_of(c));
    sentmap_mark_probe(&c->sent);
}

void tcp_mtu_probe_given_up(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->path.mtu_probe == 0)
        return;
    c->path.mtu_probe = 0;
    wait_for(cx, c, RETRY_SECONDS);
}

static void probe_arrived(struct stack_cx *cx, struct tcp_conn *c, uint32_t len)
{
    const uint32_t size = len + headers_of(c);
    c->path.mtu_probe = 0;
    if (size <= ip_path_mtu(cx->st, &c->path))
        return;
    c->path.mtu = size;
    tcp_update_mss(cx, c);
    stack_count(cx->st, COUNT_MTU_RAISED);
    trace_probe(cx, c, TCP_WHY_MTU_RAISED);
}

uint32_t tcp_mtu_probe_lost(struct stack_cx *cx, struct tcp_conn *c, uint32_t lost)
{
    if (c->path.mtu_probe == 0 || lost == 0)
        return lost;
    if (c->ca_state == TCP_CA_RECOVERY || c->ca_state == TCP_CA_LOSS ||
        !sentmap_lost_is_probe(&c->sent)) {
        tcp_mtu_probe_given_up(cx, c); /* RFC 4821 7.6.2: what is lost with others tells nothing */
        return lost;
    }
    c->path.mtu_high = (uint16_t)min_u32(c->path.mtu_high, c->path.mtu_probe - 1u);
    c->path.mtu_probe = 0;
    wait_for(cx, c, 0);
    c->high_seq = c->snd_nxt; /* RFC 6582: further duplicates are about the same loss */
    trace_probe(cx, c, TCP_WHY_MTU_PROBE_LOST);
    return 0;
}

uint32_t tcp_mtu_probe_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct sent_ack *a,
                              uint32_t lost)
{
    if (a->mtu_probe)
        probe_arrived(cx, c, a->mtu_probe);
    else if (c->sent.total == 0)
        tcp_mtu_probe_given_up(cx, c);
    return tcp_mtu_probe_lost(cx, c, lost);
}
