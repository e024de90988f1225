/*
 * The passive side: listeners with their two queues (RFC 9293 3.10.7.2, Linux's backlog semantics,
 * RFC 4987 for floods).
 *
 *   SYN -> half-open entry on the SYN queue, SYN-ACK sent and repeated by its timer
 *   third ACK -> a control block is made, the entry goes, the block joins the accept queue
 *   accept() -> the block is the program's
 *
 * The accept queue holds backlog + 1. While it is full SYNs are dropped and third ACKs ignored: the
 * entry stays, its SYN-ACK is repeated, and the client retries. When the SYN queue is full, SYNs
 * are answered by cookies: no state until a third ACK proves that the client exists.
 */
#include <errno.h>

#include "stack/tcp/conn.h"
#include "stack/util/siphash.h"

/* Cookies are believed for this long after the last one was sent (Linux: TCP_SYNCOOKIE_VALID). */
#define COOKIE_BELIEF (120 * NSEC_PER_SEC)

static bool accept_queue_full(const struct tcp_listener *l)
{
    return l->accept_queue_len > l->backlog;
}

static bool syn_queue_full(const struct tcp_listener *l)
{
    return l->syn_queue_len > l->backlog;
}

/* ---- finding ---- */

struct tcp_listener *tcp_listener_find(const struct stack *st, const struct flow_tuple *t)
{
    struct tcp_listener *best = NULL;
    bool best_exact = false;
    uint32_t candidates = 0;
    list_for_each (n, flow_port_list(&st->tcp.flows, t->lport)) {
        struct flow *f = list_entry(n, struct flow, port_link);
        if (f->kind != FLOW_LISTENER) /* listeners stand in front */
            break;
        if (f->tuple.lport != t->lport)
            continue;
        const bool exact = ip_addr_eq(&f->tuple.local, &t->local);
        if (!exact && (best_exact || !ip_addr_is_any(&f->tuple.local)))
            continue;
        if (exact && !best_exact) {
            best_exact = true;
            candidates = 0;
        }
        /* SO_REUSEPORT: reservoir choice by the tuple's hash, the same for every SYN of a tuple */
        candidates++;
        if (candidates == 1 ||
            (siphash13(&st->tcp.port_secret, t, sizeof(*t)) + candidates) % candidates == 0)
            best = container_of(f, struct tcp_listener, flow);
    }
    return best;
}

struct tcp_listener *tcp_listener_member(const struct stack *st, uint16_t port, uint64_t member)
{
    list_for_each (n, flow_port_list(&st->tcp.flows, port)) {
        struct flow *f = list_entry(n, struct flow, port_link);
        if (f->kind != FLOW_LISTENER)
            break;
        struct tcp_listener *l = container_of(f, struct tcp_listener, flow);
        if (l->member == member && member != 0)
            return l;
    }
    return NULL;
}

/*
 * Which member of an SO_REUSEPORT group, where l is one, a connection is for; NULL: one of another
 * stack. On Linux it is the kernel's hash that decides, and the kernel knows all members.
 */
static struct tcp_listener *elect(struct stack_cx *cx, struct tcp_listener *l,
                                  const struct flow_tuple *t, const struct ip_packet *p)
{
    uint64_t member;
    if (likely(!l->reuseport) || p->netif == NETIF_LOOP || cx->st->config.own_address ||
        !cx->ops->elect || !cx->ops->elect(cx, t, stack_netif(cx->st, p->netif)->ifindex, &member))
        return l;
    return tcp_listener_member(cx->st, t->lport, member);
}

void tcp_listener_fastopen_done(const struct stack *st, const struct flow_tuple *t)
{
    struct tcp_listener *l = tcp_listener_find(st, t);
    if (!l || (!l->fastopen_pending && !l->reuseport))
        return;
    if (l->fastopen_pending) {
        l->fastopen_pending--;
        return;
    }
    /* another member of the group was elected: the sum is what is bounded */
    list_for_each (n, flow_port_list(&st->tcp.flows, t->lport)) {
        struct flow *f = list_entry(n, struct flow, port_link);
        if (f->kind != FLOW_LISTENER)
            break;
        l = container_of(f, struct tcp_listener, flow);
        if (l->fastopen_pending) {
            l->fastopen_pending--;
            return;
        }
    }
}

static bool listen_conflict(const struct stack *st, const struct tcp_listen_args *a)
{
    list_for_each (n, flow_port_list(&st->tcp.flows, a->local.port)) {
        struct flow *f = list_entry(n, struct flow, port_link);
        if (f->kind != FLOW_LISTENER)
            break;
        const struct tcp_listener *l = container_of(f, struct tcp_listener, flow);
        if (f->tuple.lport != a->local.port || (l->reuseport && a->reuseport))
            continue;
        if (ip_addr_is_any(&f->tuple.local) || ip_addr_is_any(&a->local.addr) ||
            ip_addr_eq(&f->tuple.local, &a->local.addr))
            return true;
    }
    return false;
}

/* ---- calls ---- */

void tcp_listener_set_backlog(struct tcp_listener *l, int backlog)
{
    /* Linux: a negative backlog is somaxconn, being compared as unsigned */
    l->backlog = backlog < 0 ? TCP_SOMAXCONN : min_u32((uint32_t)backlog, TCP_SOMAXCONN);
}

void tcp_listener_set_fastopen_key(struct tcp_listener *l, const uint8_t *key)
{
    l->fastopen_key = siphash_key_of(key);
}

int tcp_listen(struct stack_cx *cx, const struct tcp_listen_args *args, struct tcp_listener **out)
{
    struct tcp_stack *t = &cx->st->tcp;
    if (listen_conflict(cx->st, args))
        return -EADDRINUSE;
    struct tcp_listener *l = pool_alloc(&t->listeners);
    if (!l)
        return -ENOBUFS;
    l->flow.kind = FLOW_LISTENER;
    l->flow.number = t->next_number++;
    l->flow.tuple = (struct flow_tuple){.local = args->local.addr, .lport = args->local.port};
    l->owner = args->owner;
    l->opts = *args->opts;
    l->reuseport = args->reuseport;
    l->member = args->member;
    tcp_listener_set_backlog(l, args->backlog);
    l->fastopen_key = tcp_fastopen_key(cx->st);
    if (args->fastopen_key)
        tcp_listener_set_fastopen_key(l, args->fastopen_key);
    const uint16_t both = STACK_FASTOPEN_SERVER | STACK_FASTOPEN_ALL_LISTENERS;
    if ((cx->st->config.fastopen & both) == both && !l->opts.fastopen)
        l->opts.fastopen = (uint8_t)min_u32(l->backlog, UINT8_MAX);
    list_init(&l->syn_queue);
    list_init(&l->accept_queue);
    flow_insert(&t->flows, &l->flow);
    TRACE(cx, STATE, &l->flow, STATE, TCP_CLOSED, TCP_LISTEN, TCP_WHY_CALL_LISTEN);
    *out = l;
    return 0;
}

struct tcp_opts *tcp_listener_opts(struct tcp_listener *l)
{
    return &l->opts;
}

uint32_t tcp_listener_number(const struct tcp_listener *l)
{
    return l->flow.number;
}

uint32_t tcp_listener_poll(const struct tcp_listener *l)
{
    return l->accept_queue_len ? TCP_EV_IN : 0;
}

void tcp_listener_queues(const struct tcp_listener *l, uint32_t *syn_queue, uint32_t *accept_queue,
                         uint32_t *backlog)
{
    *syn_queue = l->syn_queue_len;
    *accept_queue = l->accept_queue_len;
    *backlog = l->backlog;
}

/* Takes the first off the queue, which is not empty. */
static void accept_queue_pop(struct tcp_listener *l)
{
    struct tcp_conn *c = list_entry(list_pop_front(&l->accept_queue), struct tcp_conn, holder_link);
    l->accept_queue_len--;
    c->half_accepted = false;
    c->listener = NULL;
}

struct tcp_conn *tcp_accept(struct stack_cx *cx, struct tcp_listener *l)
{
    if (list_empty(&l->accept_queue))
        return NULL;
    struct tcp_conn *c = list_first(&l->accept_queue, struct tcp_conn, holder_link);
    struct flow *outer = work_begin(cx->st, &c->flow);
    accept_queue_pop(l);
    c->app_held = true;
    work_end(cx->st, outer);
    TRACE(cx, QUEUE, &c->flow, ACCEPTED, l->syn_queue_len, l->accept_queue_len, l->backlog);
    return c;
}

void tcp_listener_close(struct stack_cx *cx, struct tcp_listener *l)
{
    while (!list_empty(&l->syn_queue))
        tcp_half_open_drop(cx, list_first(&l->syn_queue, struct tcp_half_open, link),
                           TCP_WHY_LISTENER_CLOSED);
    while (!list_empty(&l->accept_queue)) {
        struct tcp_conn *c = list_first(&l->accept_queue, struct tcp_conn, holder_link);
        struct flow *outer = work_begin(cx->st, &c->flow);
        accept_queue_pop(l);
        if (c->state != TCP_CLOSED) {
            tcp_emit_rst(cx, c, TCP_WHY_LISTENER_CLOSED);
            tcp_done(cx, c, 0, TCP_WHY_LISTENER_CLOSED);
        }
        tcp_reap(cx, c);
        work_end(cx->st, outer);
    }
    TRACE(cx, STATE, &l->flow, STATE, TCP_LISTEN, TCP_CLOSED, TCP_WHY_CALL_CLOSE);
    flow_remove(&cx->st->tcp.flows, &l->flow);
    pool_free(&cx->st->tcp.listeners, l);
}

/* ---- SYN ---- */

/* What a SYN-ACK says, whether an entry stands behind it or a cookie. */
struct syn_ack {
    const struct flow *trace_as;
    const struct flow_tuple *tuple;
    const struct ip_path *path;
    const struct tcp_listener *listener;
    tcp_seq iss, irs;
    uint32_t wnd, ts_val, ts_recent;
    bool wscale_ok, ts_ok, sack_ok;
    uint8_t retransmits;
    struct tcp_ecn_deal *ecn;
    bool gives_cookie, cookie_exp; /* of Fast Open, and by the experimental option */
    uint8_t rcv_wscale;
    enum tcp_reason why;
};

static void send_syn_ack(struct stack_cx *cx, const struct syn_ack *a)
{
    const struct tcp_opts *opts = &a->listener->opts;
    uint8_t cookie[TCP_COOKIE_LEN];
    struct tcp_segment s = {
        .src_port = a->tuple->lport,
        .dst_port = a->tuple->rport,
        .seq = a->iss,
        .ack = seq_add(a->irs, 1),
        .flags = (uint8_t)(TCP_SYN | TCP_ACK | (a->ecn->mode == TCP_ECN_CLASSIC ? TCP_ECE : 0)),
        .wnd = (uint16_t)min_u32(a->wnd, 65535),
        .opt = {.has_mss = true,
                .mss = tcp_local_mss(cx->st, a->path, opts, &a->tuple->remote),
                .has_wscale = a->wscale_ok,
                .wscale = a->rcv_wscale,
                .sack_permitted = a->sack_ok,
                .has_ts = a->ts_ok,
                .ts_val = a->ts_val,
                .ts_ecr = a->ts_recent},
    };
    if (a->gives_cookie) {
        tcp_fastopen_cookie(a->listener, &a->tuple->remote, &a->tuple->local, cookie);
        s.opt.fast_open = true;
        s.opt.fast_open_exp = a->cookie_exp;
        s.opt.cookie_len = sizeof(cookie);
        s.opt.cookie = cookie;
    }
    if (unlikely(a->ecn->mode == TCP_ECN_ACCURATE))
        tcp_accecn_answer(cx->st, a->ecn, a->retransmits, &s);
    tcp_emit_bare(cx, a->trace_as, a->tuple, a->path, opts->tos, opts->ttl, &s, a->why);
}

static void half_open_syn_ack(struct stack_cx *cx, struct tcp_half_open *h, enum tcp_reason why)
{
    const struct syn_ack a = {
        .trace_as = &h->flow,
        .tuple = &h->flow.tuple,
        .path = &h->path,
        .listener = h->listener,
        .iss = h->iss,
        .irs = h->irs,
        .wnd = h->rcv_wnd,
        .ts_val = tcp_ts_now(cx, ts_offset(&cx->st->tcp.ts_secret, &h->flow.tuple)),
        .ts_recent = h->ts_recent,
        .wscale_ok = h->wscale_ok,
        .ts_ok = h->ts_ok,
        .sack_ok = h->sack_ok,
        .retransmits = h->retransmits,
        .ecn = &h->ecn,
        .gives_cookie = h->wants_cookie,
        .cookie_exp = h->cookie_exp,
        .rcv_wscale = h->rcv_wscale,
        .why = why,
    };
    send_syn_ack(cx, &a);
}

static void send_cookie(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                        const struct ip_packet *p, const struct flow_tuple *t)
{
    struct ip_path path;
    ip_path_reply(p, &path);
    uint32_t wnd;
    uint8_t wscale;
    tcp_window_init(cx, &l->opts, &wnd, &wscale);
    const uint32_t clock = tcp_ts_now(cx, ts_offset(&cx->st->tcp.ts_secret, t));
    /* RFC 9768 5.1: the third ACK tells whether this was taken; nothing does so for RFC 3168 */
    struct tcp_ecn_deal ecn = tcp_ecn_accepts(cx->st, &l->opts, s, p->tos);
    if (ecn.mode == TCP_ECN_CLASSIC)
        ecn.mode = TCP_ECN_NONE;
    const struct syn_ack a = {
        .tuple = t,
        .path = &path,
        .listener = l,
        .iss = cookie_make(&cx->st->tcp.cookie_secret, t, s->seq,
                           s->opt.has_mss ? s->opt.mss : TCP_MSS_DEFAULT, cx->now),
        .irs = s->seq,
        .wnd = wnd,
        /* without timestamps there is nowhere to keep window scale and SACK */
        .wscale_ok = s->opt.has_ts && s->opt.has_wscale,
        .sack_ok = s->opt.has_ts && s->opt.sack_permitted,
        .ts_ok = s->opt.has_ts,
        .ts_val = cookie_ts_encode(clock, s->opt.has_wscale, s->opt.wscale, s->opt.sack_permitted),
        .ts_recent = s->opt.ts_val,
        .ecn = &ecn,
        .rcv_wscale = wscale,
        .why = TCP_WHY_SEND_SYN_ACK,
    };
    l->last_overflow = cx->now;
    stack_count(cx->st, COUNT_COOKIES_SENT);
    TRACE(cx, QUEUE, &l->flow, COOKIE_SENT, l->syn_queue_len);
    send_syn_ack(cx, &a);
}

static bool open_by_cookie(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                           const struct ip_packet *p, const struct flow_tuple *t,
                           const tcp_seq *time_wait_iss);

static void syn_arrives(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                        const struct ip_packet *p, const struct flow_tuple *t,
                        const tcp_seq *time_wait_iss)
{
    struct stack *st = cx->st;
    if (accept_queue_full(l)) {
        stack_count(st, COUNT_ACCEPT_OVERFLOW);
        TRACE(cx, QUEUE, &l->flow, REFUSED, TCP_WHY_QUEUE_FULL, l->syn_queue_len,
              l->accept_queue_len, l->backlog);
        return;
    }
    enum tcp_fastopen_verdict fast = TCP_FASTOPEN_NO;
    if (unlikely(l->opts.fastopen))
        fast = tcp_fastopen_judge(st, l, t, s);
    if (fast == TCP_FASTOPEN_YES && open_by_cookie(cx, l, s, p, t, time_wait_iss))
        return;
    struct tcp_half_open *h = NULL;
    if (!syn_queue_full(l) || time_wait_iss)
        h = pool_alloc(&st->tcp.half_opens);
    if (!h) {
        send_cookie(cx, l, s, p, t);
        return;
    }
    struct flow *outer = work_begin(st, &h->flow);
    h->flow.kind = FLOW_HALF_OPEN;
    h->flow.number = st->tcp.next_number++;
    h->flow.tuple = *t;
    h->listener = l;
    ip_path_reply(p, &h->path);
    h->irs = s->seq;
    h->iss = time_wait_iss ? *time_wait_iss : isn_generate(&st->tcp.isn_secret, t, cx->now);
    h->peer_mss = s->opt.has_mss ? s->opt.mss : TCP_MSS_DEFAULT;
    h->window = s->wnd;
    h->wscale_ok = s->opt.has_wscale;
    h->snd_wscale = s->opt.wscale;
    h->ts_ok = s->opt.has_ts;
    h->ts_recent = s->opt.ts_val;
    h->sack_ok = s->opt.sack_permitted;
    h->wants_cookie = fast == TCP_FASTOPEN_GIVE;
    h->cookie_exp = s->opt.fast_open_exp;
    h->ecn = tcp_ecn_accepts(st, &l->opts, s, p->tos);
    h->sent = h->created = cx->now;
    tcp_window_init(cx, &l->opts, &h->rcv_wnd, &h->rcv_wscale);
    flow_insert(&st->tcp.flows, &h->flow);
    list_push_back(&l->syn_queue, &h->link);
    l->syn_queue_len++;
    TRACE(cx, STATE, &h->flow, STATE, TCP_LISTEN, TCP_SYN_RECEIVED, TCP_WHY_RX_SYN);
    TRACE(cx, QUEUE, &h->flow, SYN_QUEUED, l->syn_queue_len, l->accept_queue_len, l->backlog);
    wheel_timer_init(&h->timer, STACK_TIMER_HALF_OPEN);
    wheel_arm(&st->wheel, &h->timer, cx->now + RTO_INITIAL);
    TRACE(cx, TIMER, &h->flow, TIMER_ARMED, TCP_TIMER_SYN_ACK, RTO_INITIAL);
    half_open_syn_ack(cx, h, TCP_WHY_SEND_SYN_ACK);
    work_end(st, outer);
}

static void half_open_free(struct stack_cx *cx, struct tcp_half_open *h)
{
    wheel_cancel(&cx->st->wheel, &h->timer);
    flow_remove(&cx->st->tcp.flows, &h->flow);
    list_remove(&h->link);
    h->listener->syn_queue_len--;
    pool_free(&cx->st->tcp.half_opens, h);
}

void tcp_half_open_drop(struct stack_cx *cx, struct tcp_half_open *h, enum tcp_reason why)
{
    struct tcp_listener *l = h->listener;
    TRACE(cx, STATE, &h->flow, STATE, TCP_SYN_RECEIVED, TCP_CLOSED, why);
    TRACE(cx, QUEUE, &h->flow, SYN_DROPPED, why, l->syn_queue_len - 1, l->accept_queue_len);
    half_open_free(cx, h);
}

void tcp_half_open_timer(struct stack_cx *cx, struct tcp_half_open *h)
{
    if (h->retransmits >= TCP_SYNACK_RETRIES) {
        tcp_half_open_drop(cx, h, TCP_WHY_TIMEOUT_SYN_ACK);
        return;
    }
    h->retransmits++;
    TRACE(cx, TIMER, &h->flow, TIMER_FIRED, TCP_TIMER_SYN_ACK, h->retransmits);
    const nsec_t wait = min_u64(RTO_INITIAL << h->retransmits, tcp_rto_max(&h->listener->opts));
    wheel_arm(&cx->st->wheel, &h->timer, cx->now + wait);
    TRACE(cx, TIMER, &h->flow, TIMER_ARMED, TCP_TIMER_SYN_ACK, wait);
    /* TCP_DEFER_ACCEPT: the handshake is complete, only data is awaited: nothing to repeat yet */
    if (h->acked && h->listener->opts.defer_accept && !accept_queue_full(h->listener) &&
        cx->now - h->created < h->listener->opts.defer_accept * NSEC_PER_SEC)
        return;
    stack_count(cx->st, COUNT_RETRANS);
    half_open_syn_ack(cx, h, TCP_WHY_SEND_RETRANSMIT);
}

/* ---- third ACK ---- */

/* What the control block of an accepted connection begins with. */
struct child {
    const struct flow_tuple *tuple;
    const struct ip_path *path;
    uint32_t number;
    tcp_seq iss, irs;
    uint16_t peer_mss;
    bool wscale_ok, ts_ok, sack_ok;
    struct tcp_ecn_deal ecn;
    bool by_cookie; /* RFC 7413: the SYN itself is what made it */
    uint8_t snd_wscale, rcv_wscale;
    uint32_t rcv_wnd, ts_recent;
    nsec_t rtt; /* 0: not known */
    enum tcp_reason why;
};

static struct tcp_conn *make_child(struct stack_cx *cx, struct tcp_listener *l,
                                   const struct child *k, const struct tcp_segment *s)
{
    struct tcp_accecn *accecn = NULL;
    if (unlikely(k->ecn.mode == TCP_ECN_ACCURATE) &&
        !(accecn = tcp_accecn_new(cx->st, &k->ecn))) /* it was promised */
        return NULL;
    struct tcp_conn *c = tcp_conn_new(cx);
    if (!c) {
        pool_free(&cx->st->tcp.accecns, accecn);
        return NULL;
    }
    struct flow *outer = work_begin(cx->st, &c->flow);
    if (k->number)
        c->flow.number = k->number;
    c->opts = l->opts;
    c->opts.defer_accept = 0;
    c->path = *k->path;
    tcp_conn_enter(cx, c, k->tuple);
    c->iss = k->iss;
    c->snd_una = c->snd_nxt = seq_add(k->iss, 1);
    c->snd_up = c->snd_una;
    c->syn_acked = true;
    c->irs = k->irs;
    c->rcv_nxt = c->rcv_wup = c->copied_seq = seq_add(k->irs, 1);
    c->rcv_limit = k->rcv_wnd;
    c->rcv_adv = seq_add(c->rcv_nxt, min_u32(k->rcv_wnd, 65535));
    c->advmss = tcp_local_mss(cx->st, k->path, &l->opts, &k->tuple->remote);
    c->peer_mss = (uint16_t)max_u32(k->peer_mss, TCP_MSS_MIN);
    c->wscale_ok = k->wscale_ok;
    c->snd_wscale = (uint8_t)min_u32(k->snd_wscale, TCP_WSCALE_MAX);
    c->rcv_wscale = k->wscale_ok ? k->rcv_wscale : 0;
    if (!k->wscale_ok)
        c->snd_wscale = 0;
    c->ts_ok = k->ts_ok;
    c->ts_recent = k->ts_recent;
    c->sack_ok = k->sack_ok;
    c->ecn_ok = k->ecn.mode != TCP_ECN_NONE;
    c->accecn = accecn;
    if (accecn)
        accecn->handshake = true;
    c->snd_wnd = c->snd_wnd_max = (uint32_t)s->wnd << c->snd_wscale;
    c->snd_wl1 = s->seq;
    c->snd_wl2 = s->ack;
    if (k->rtt)
        rtt_sample(&c->rtt, k->rtt, cx->now);
    c->state = TCP_SYN_RECEIVED;
    c->listener = l;
    c->half_accepted = true;
    if (k->by_cookie) {
        c->fast_open = true;
        c->syn_acked = false;
        c->snd_una = k->iss;
        c->snd_wnd = c->snd_wnd_max = s->wnd; /* never scaled in a SYN */
        tcp_ready_for_data(cx, c);
    } else {
        tcp_established(cx, c, k->why);
    }
    list_push_back(&l->accept_queue, &c->holder_link);
    l->accept_queue_len++;
    work_end(cx->st, outer);
    return c;
}

static void child_ready(struct stack_cx *cx, struct tcp_listener *l, struct tcp_conn *c,
                        const struct tcp_segment *s, const struct ip_packet *p)
{
    TRACE(cx, QUEUE, &c->flow, ACCEPT_QUEUED, l->syn_queue_len, l->accept_queue_len, l->backlog);
    struct flow *outer = work_begin(cx->st, &c->flow);
    c->segs_in++;
    tcp_segment_arrives(cx, c, s, p); /* the third ACK may carry data or FIN */
    work_end(cx->st, outer);
    if (l->owner && cx->ops->notify)
        cx->ops->notify(cx, l->owner, TCP_WAKE_DATA);
}

/*
 * RFC 7413 4.2.2: the cookie proves that the client is where it says, so its data is taken at once
 * and may be answered before the third ACK. False: an ordinary handshake it is.
 */
static bool open_by_cookie(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                           const struct ip_packet *p, const struct flow_tuple *t,
                           const tcp_seq *time_wait_iss)
{
    struct stack *st = cx->st;
    struct ip_path path;
    ip_path_reply(p, &path);
    struct child k = {
        .tuple = t,
        .path = &path,
        .iss = time_wait_iss ? *time_wait_iss : isn_generate(&st->tcp.isn_secret, t, cx->now),
        .irs = s->seq,
        .peer_mss = s->opt.has_mss ? s->opt.mss : TCP_MSS_DEFAULT,
        .wscale_ok = s->opt.has_wscale,
        .snd_wscale = s->opt.wscale,
        .ts_ok = s->opt.has_ts,
        .ts_recent = s->opt.ts_val,
        .sack_ok = s->opt.sack_permitted,
        .ecn = tcp_ecn_accepts(st, &l->opts, s, p->tos),
        .by_cookie = true,
        .why = TCP_WHY_RX_SYN,
    };
    tcp_window_init(cx, &l->opts, &k.rcv_wnd, &k.rcv_wscale);
    struct tcp_conn *c = make_child(cx, l, &k, s);
    if (!c)
        return false;
    l->fastopen_pending++;
    stack_count(st, COUNT_FASTOPEN_PASSIVE);
    TRACE(cx, STATE, &c->flow, STATE, TCP_LISTEN, TCP_SYN_RECEIVED, TCP_WHY_RX_SYN);
    TRACE(cx, QUEUE, &c->flow, ACCEPT_QUEUED, l->syn_queue_len, l->accept_queue_len, l->backlog);
    c->segs_in++;
    sentmap_sent(&st->tcp.records, &c->sent, c->iss, 1, TCP_SYN, cx->now);
    struct tcp_segment text = *s;
    text.seq = seq_add(s->seq, 1);
    text.flags &= (uint8_t)~TCP_SYN;
    c->syn_data = text.len != 0;
    if (text.len || text.flags & TCP_FIN)
        tcp_process_text(cx, c, &text, p->gso_size);
    const struct tcp_emit e = {
        .seq = c->iss, .flags = TCP_SYN | TCP_ACK, .why = TCP_WHY_SEND_SYN_ACK};
    tcp_emit(cx, c, &e);
    tcp_arm_retransmit(cx, c);
    if (l->owner && cx->ops->notify)
        cx->ops->notify(cx, l->owner, TCP_WAKE_DATA);
    return true;
}

/* Who of the group of l has sent cookies lately, as a third ACK of one is for; else l. */
static struct tcp_listener *overflowed(const struct stack_cx *cx, struct tcp_listener *l)
{
    if (likely(!l->reuseport))
        return l;
    list_for_each (n, flow_port_list(&cx->st->tcp.flows, l->flow.tuple.lport)) {
        struct flow *f = list_entry(n, struct flow, port_link);
        if (f->kind != FLOW_LISTENER)
            break;
        struct tcp_listener *member = container_of(f, struct tcp_listener, flow);
        if (ip_addr_eq(&member->flow.tuple.local, &l->flow.tuple.local) &&
            member->last_overflow > l->last_overflow)
            l = member;
    }
    return l;
}

static void cookie_arrives(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                           const struct ip_packet *p, const struct flow_tuple *t)
{
    struct stack *st = cx->st;
    const tcp_seq iss = seq_sub(s->ack, 1);
    const tcp_seq irs = seq_sub(s->seq, 1);
    uint16_t mss = 0;
    if (l->last_overflow && cx->now - l->last_overflow < COOKIE_BELIEF)
        mss = cookie_check(&st->tcp.cookie_secret, t, irs, iss, cx->now);
    struct child k = {
        .tuple = t, .iss = iss, .irs = irs, .peer_mss = mss, .why = TCP_WHY_RX_COOKIE};
    bool valid = mss != 0;
    if (valid && s->opt.has_ts && s->opt.ts_ecr) {
        k.ts_ok = true;
        k.ts_recent = s->opt.ts_val;
        const uint32_t ecr = s->opt.ts_ecr;
        valid = cookie_ts_decode(ecr, &k.wscale_ok, &k.snd_wscale, &k.sack_ok);
    }
    if (st->config.ecn >= STACK_ECN_ACCURATE && tcp_ace(s) > 1)
        k.ecn.mode = TCP_ECN_ACCURATE;
    if (!valid) {
        if (mss || l->last_overflow)
            stack_count(st, COUNT_COOKIES_BAD);
        stack_count(st, COUNT_NO_CONN);
        tcp_reset_stranger(cx, p, s, false);
        return;
    }
    if (accept_queue_full(l)) {
        stack_count(st, COUNT_ACCEPT_OVERFLOW);
        TRACE(cx, QUEUE, &l->flow, REFUSED, TCP_WHY_QUEUE_FULL, l->syn_queue_len,
              l->accept_queue_len, l->backlog);
        return;
    }
    struct ip_path path;
    ip_path_reply(p, &path);
    k.path = &path;
    tcp_window_init(cx, &l->opts, &k.rcv_wnd, &k.rcv_wscale);
    struct tcp_conn *c = make_child(cx, l, &k, s);
    if (!c)
        return;
    stack_count(st, COUNT_COOKIES_OK);
    child_ready(cx, l, c, s, p);
}

/* The segment completes the handshake of h, if the accept queue has room. */
static void third_ack(struct stack_cx *cx, struct tcp_half_open *h, const struct tcp_segment *s,
                      const struct ip_packet *p)
{
    struct tcp_listener *l = h->listener;
    const bool bare = s->len == 0 && !(s->flags & TCP_FIN);
    if (l->opts.defer_accept && bare &&
        cx->now - h->created < l->opts.defer_accept * NSEC_PER_SEC) {
        h->acked = true;
        return;
    }
    if (accept_queue_full(l)) {
        h->acked = true;
        stack_count(cx->st, COUNT_ACCEPT_OVERFLOW);
        TRACE(cx, QUEUE, &h->flow, REFUSED, TCP_WHY_QUEUE_FULL, l->syn_queue_len,
              l->accept_queue_len, l->backlog);
        return;
    }
    const struct flow_tuple tuple = h->flow.tuple;
    const struct ip_path path = h->path;
    const struct child k = {.tuple = &tuple,
                            .path = &path,
                            .number = h->flow.number,
                            .iss = h->iss,
                            .irs = h->irs,
                            .peer_mss = h->peer_mss,
                            .wscale_ok = h->wscale_ok,
                            .ts_ok = h->ts_ok,
                            .sack_ok = h->sack_ok,
                            .ecn = h->ecn,
                            .snd_wscale = h->snd_wscale,
                            .rcv_wscale = h->rcv_wscale,
                            .rcv_wnd = h->rcv_wnd,
                            .ts_recent = h->ts_recent,
                            .rtt = h->retransmits ? 0 : max_u64(cx->now - h->sent, 1),
                            .why = TCP_WHY_RX_ACK_OF_SYN};
    /* The entry leaves the table first: the block takes its tuple. */
    flow_remove(&cx->st->tcp.flows, &h->flow);
    struct tcp_conn *c = make_child(cx, l, &k, s);
    if (!c) {
        flow_insert(&cx->st->tcp.flows, &h->flow);
        return;
    }
    half_open_free(cx, h);
    child_ready(cx, l, c, s, p);
}

static void half_open_ack(struct stack_cx *cx, const struct tcp_half_open *h)
{
    struct tcp_segment a = {.src_port = h->flow.tuple.lport,
                            .dst_port = h->flow.tuple.rport,
                            .seq = seq_add(h->iss, 1),
                            .ack = seq_add(h->irs, 1),
                            .flags = TCP_ACK,
                            .wnd = (uint16_t)min_u32(h->rcv_wnd, 65535)};
    if (h->ecn.mode == TCP_ECN_ACCURATE)
        tcp_set_ace(&a, TCP_ACE_BEGIN);
    if (h->wscale_ok)
        a.wnd = (uint16_t)(h->rcv_wnd >> h->rcv_wscale);
    if (h->ts_ok) {
        a.opt.has_ts = true;
        a.opt.ts_val = tcp_ts_now(cx, ts_offset(&cx->st->tcp.ts_secret, &h->flow.tuple));
        a.opt.ts_ecr = h->ts_recent;
    }
    uint32_t none = 0;
    if (tcp_challenge_allowed(cx, &none))
        tcp_emit_bare(cx, &h->flow, &h->flow.tuple, &h->path, h->listener->opts.tos,
                      h->listener->opts.ttl, &a, TCP_WHY_SEND_CHALLENGE);
}

/* SYN_RECEIVED of a passive open: RFC 9293 3.10.7.4 with RFC 5961. */
void tcp_half_open_arrives(struct stack_cx *cx, struct tcp_half_open *h,
                           const struct tcp_segment *s, const struct ip_packet *p)
{
    const tcp_seq rcv_nxt = seq_add(h->irs, 1);
    if ((s->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN && seq_eq(s->seq, h->irs)) {
        if (tcp_accecn_syn_again(cx->st, &h->ecn, s, p->tos)) {
            half_open_syn_ack(cx, h, TCP_WHY_SEND_SYN_ACK); /* again: our answer was lost */
        } else {
            tcp_reset_reply(cx, p, s);
            tcp_half_open_drop(cx, h, TCP_WHY_ECN_MIXED);
        }
        return;
    }
    if (h->ts_ok && s->opt.has_ts && !(s->flags & TCP_RST) &&
        (int32_t)(h->ts_recent - s->opt.ts_val) > 0) {
        stack_count(cx->st, COUNT_PAWS);
        half_open_ack(cx, h);
        return;
    }
    const uint32_t len = tcp_segment_len(s);
    const uint32_t wnd = max_u32(h->rcv_wnd, 1);
    if (!seq_in(s->seq, rcv_nxt, wnd) && !(len && seq_in(seq_add(s->seq, len - 1), rcv_nxt, wnd))) {
        stack_count(cx->st, COUNT_OUT_OF_WINDOW);
        if (!(s->flags & TCP_RST))
            half_open_ack(cx, h);
        return;
    }
    if (s->flags & TCP_RST) {
        if (seq_eq(s->seq, rcv_nxt))
            tcp_half_open_drop(cx, h, TCP_WHY_RX_RST);
        else
            half_open_ack(cx, h);
        return;
    }
    if (s->flags & TCP_SYN) {
        half_open_ack(cx, h);
        return;
    }
    if (!(s->flags & TCP_ACK))
        return;
    if (!seq_eq(s->ack, seq_add(h->iss, 1))) {
        /* the SYN met a group that was changing, and another member has answered it, too */
        if (!tcp_reset_stranger(cx, p, s, false))
            tcp_half_open_drop(cx, h, TCP_WHY_DROP_OTHERS);
        return;
    }
    /* RFC 7323 5.3: an echo that we did not send */
    third_ack(cx, h, s, p);
}

void tcp_listener_arrives(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                          const struct ip_packet *p, const struct flow_tuple *t,
                          const tcp_seq *time_wait_iss)
{
    if (s->flags & TCP_RST)
        return;
    if (s->flags & TCP_ACK) {
        if (s->flags & TCP_SYN)
            tcp_reset_stranger(cx, p, s, false);
        else
            cookie_arrives(cx, overflowed(cx, l), s, p, t);
        return;
    }
    if (!(s->flags & TCP_SYN) || s->flags & TCP_FIN)
        return;
    struct tcp_listener *member = elect(cx, l, t, p);
    if (!member) {
        TRACE(cx, SEGMENT, &l->flow, SEGMENT_IGNORED, s->flags, s->seq.v, s->ack.v, s->len,
              TCP_WHY_DROP_OTHERS);
        return;
    }
    syn_arrives(cx, member, s, p, t, time_wait_iss);
}
