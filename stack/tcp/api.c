/* The program's calls on a connection: send, recv, shutdown, close (RFC 9293 3.10.2 to 3.10.5). */
#include <errno.h>

#include "stack/tcp/conn.h"
#include "stack/tcp/inside.h"

/* What a send() may take when little memory is left, bytes. */
#define LOW_SEND_MAX 16384

void tcp_set_owner(struct tcp_conn *c, void *owner)
{
    c->owner = owner;
}

void *tcp_owner(const struct tcp_conn *c)
{
    return c->owner;
}

struct tcp_opts *tcp_opts(struct tcp_conn *c)
{
    return &c->opts;
}

static void do_opts_changed(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->state == TCP_CLOSED)
        return;
    if (c->opts.rcvbuf_locked && c->opts.rcvbuf / 2 != c->rcv_limit)
        c->rcv_limit = c->opts.rcvbuf / 2;
    if (!c->opts.cork)
        tcp_timer_stop(cx, c, TCP_TIMER_CORK);
    tcp_keepalive_arm(cx, c);
    if (tcp_synchronized(c) && tcp_unsent(c))
        tcp_output(cx, c);
}

void tcp_opts_changed(struct stack_cx *cx, struct tcp_conn *c)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    do_opts_changed(cx, c);
    work_end(cx->st, outer);
}

void tcp_push(struct stack_cx *cx, struct tcp_conn *c)
{
    if (!tcp_synchronized(c) || tcp_unsent(c) == 0)
        return;
    struct flow *outer = work_begin(cx->st, &c->flow);
    c->cork_expired = true;
    tcp_output(cx, c);
    c->cork_expired = false;
    work_end(cx->st, outer);
}

int tcp_set_cc(struct stack_cx *cx, struct tcp_conn *c, uint8_t id)
{
    if (id >= TCP_CC_COUNT)
        return -ENOENT;
    struct flow *outer = work_begin(cx->st, &c->flow);
    c->opts.cc = id;
    if (c->cc.mss)
        cc_switch(&c->cc, id, cx->now);
    work_end(cx->st, outer);
    return 0;
}

int tcp_take_error(struct tcp_conn *c)
{
    const int err = c->err;
    c->err = 0;
    return err;
}

int tcp_peek_error(const struct tcp_conn *c)
{
    return c->err;
}

/* ---- send ---- */

static int64_t may_send(struct tcp_conn *c)
{
    if (c->err)
        return -tcp_take_error(c);
    switch (c->state) {
    case TCP_ESTABLISHED:
    case TCP_CLOSE_WAIT:
        return c->snd_shut ? -EPIPE : 0;
    case TCP_SYN_SENT:
    case TCP_SYN_RECEIVED:
        return c->fast_open ? c->snd_shut ? -EPIPE : 0 : -EAGAIN;
    default: /* Linux: EPIPE also for a socket that was never connected */
        return -EPIPE;
    }
}

/* Little memory is left: what may be taken now. Linux: sk_stream_moderate_sndbuf(). */
static uint32_t moderate(struct tcp_conn *c)
{
    if (c->sendbuf.len == 0 || c->opts.sndbuf_locked)
        return LOW_SEND_MAX;
    c->opts.sndbuf = max_u32(c->sendbuf.len / 2, TCP_BUF_MIN);
    return c->sendbuf.len < c->opts.sndbuf ? LOW_SEND_MAX : 0;
}

/* All that was written since the peer acknowledged the rest is less than a segment. */
static bool may_wait(const struct tcp_conn *c)
{
    return tcp_synchronized(c) && c->sent.total == 0 && c->sendbuf.len < c->mss && !c->no_room &&
           !c->opts.cork && c->extra == NULL && c->path.netif != NETIF_LOOP;
}

static void wait_for_more(struct stack_cx *cx, struct tcp_conn *c)
{
    cx->st->tcp.unfinished = c;
    cx->st->tcp.unfinished_now = true;
    tcp_timer_set(cx, c, TCP_TIMER_CORK, cx->now + TCP_CORK_MAX); /* should all else fail */
}

void tcp_finish(struct stack_cx *cx, bool patiently)
{
    struct tcp_stack *t = &cx->st->tcp;
    struct tcp_conn *c = t->unfinished;
    if (patiently && t->unfinished_now) {
        t->unfinished_now = false;
        return;
    }
    t->unfinished = NULL;
    struct flow *outer = work_begin(cx->st, &c->flow);
    tcp_output(cx, c);
    work_end(cx->st, outer);
}

bool tcp_unfinished(const struct stack *st, const struct tcp_conn *c)
{
    return st->tcp.unfinished == c;
}

void tcp_unfinished_yet(struct stack *st, const struct tcp_conn *c)
{
    if (st->tcp.unfinished == c)
        st->tcp.unfinished_now = true;
}

static int64_t do_send(struct stack_cx *cx, struct tcp_conn *c, const struct slice *from,
                       unsigned n, uint32_t flags)
{
    int64_t r = may_send(c);
    if (r < 0)
        return r;
    uint64_t want = 0;
    for (unsigned i = 0; i < n; i++)
        want += from[i].len;
    if (want == 0)
        return 0;
    uint32_t passed = 0;
    if (c->path.netif == NETIF_LOOP && (flags & ~TCP_SEND_ONCE) == 0)
        passed = tcp_inside_send(cx, c, from, n, (uint32_t)min_u64(want, INT32_MAX));
    if (passed == want)
        return passed;
    uint32_t took = 0;
    uint32_t room = tcp_send_room(c);
    if (unlikely(arena_low(cx->st->arena)))
        room = min_u32(room, moderate(c));
    if (room && (c->sendbuf.len == 0 || tcp_unsent(c) < c->opts.notsent_lowat))
        took = sendbuf_append(&cx->st->tcp.chunks, &c->sendbuf, from, n, passed,
                              (uint32_t)min_u64(want - passed, room), c->path.netif != NETIF_LOOP);
    c->no_room = passed + took < want;
    if (took == 0)
        return passed > 0 ? (int64_t)passed : -EAGAIN;
    if (c->limit == TCP_LIMIT_NONE)
        tcp_note_limit(cx, c, TCP_LIMIT_BUSY);
    const tcp_seq end = tcp_data_end(c);
    c->more = (flags & TCP_SEND_MORE) != 0;
    if (!c->more) /* RFC 9293 MUST-61; Linux: what is to go on is not pushed */
        c->push_seq = end;
    if (unlikely(c->extra != NULL || (flags & TCP_SEND_EOR) != 0) && (flags & TCP_SEND_PART) == 0 &&
        (took == want || (flags & TCP_SEND_ONCE) != 0))
        tcp_extra_mark(cx, c, end, (flags & TCP_SEND_EOR) != 0 && took == want);
    if (flags & TCP_SEND_OOB && took == want) {
        c->snd_up = end;
        c->urgent_out = true;
        tcp_inside_release(cx, c);
    }
    TRACE(cx, BUFFER, &c->flow, BUFFER_IN, took, c->sendbuf.len, c->opts.sndbuf, tcp_unsent(c));
    if (unlikely((flags & TCP_SEND_UNFINISHED) != 0) && may_wait(c)) {
        wait_for_more(cx, c);
    } else {
        if (unlikely(cx->st->tcp.unfinished == c))
            cx->st->tcp.unfinished = NULL;
        tcp_output(cx, c);
    }
    return passed + took;
}

/* What others wrote before goes first. */
static void keep_order(struct stack_cx *cx, struct tcp_conn *c)
{
    tcp_release_handshakes(cx, c);
    if (unlikely(cx->st->tcp.unfinished != NULL) && cx->st->tcp.unfinished != c)
        tcp_finish(cx, false);
}

int64_t tcp_send(struct stack_cx *cx, struct tcp_conn *c, const struct slice *from, unsigned n,
                 uint32_t flags)
{
    keep_order(cx, c);
    struct flow *outer = work_begin(cx->st, &c->flow);
    const int64_t r = do_send(cx, c, from, n, flags);
    work_end(cx->st, outer);
    return r;
}

static int64_t do_send_parcel(struct stack_cx *cx, struct tcp_conn *c, struct tcp_parcel *p)
{
    const int64_t r = may_send(c);
    if (r < 0) {
        tcp_parcel_free(cx, p);
        return r;
    }
    const uint32_t took = tcp_unpack(cx, c, p);
    c->no_room = c->more = false;
    if (c->limit == TCP_LIMIT_NONE)
        tcp_note_limit(cx, c, TCP_LIMIT_BUSY);
    c->push_seq = tcp_data_end(c);
    TRACE(cx, BUFFER, &c->flow, BUFFER_IN, took, c->sendbuf.len, c->opts.sndbuf, tcp_unsent(c));
    if (!tcp_inside_pass(cx, c)) /* not any more */
        tcp_output(cx, c);
    return took;
}

int64_t tcp_send_parcel(struct stack_cx *cx, struct tcp_conn *c, struct tcp_parcel *p)
{
    keep_order(cx, c);
    struct flow *outer = work_begin(cx->st, &c->flow);
    const int64_t r = do_send_parcel(cx, c, p);
    work_end(cx->st, outer);
    return r;
}

int64_t tcp_send_ahead(struct stack_cx *cx, struct tcp_conn *c, const struct ip_addr *server,
                       const struct ip_path *path, const struct slice *from, unsigned n)
{
    uint64_t want = 0;
    for (unsigned i = 0; i < n; i++)
        want += from[i].len;
    const uint16_t mss = tcp_local_mss(cx->st, path, &c->opts, server);
    const uint32_t room = min_u32(tcp_send_room(c), tcp_fastopen_room(cx->st, c, server, mss));
    const uint32_t took = sendbuf_append(&cx->st->tcp.chunks, &c->sendbuf, from, n, 0,
                                         (uint32_t)min_u64(want, room), false);
    if (took > 0)
        tcp_note_limit(cx, c, TCP_LIMIT_BUSY);
    TRACE(cx, BUFFER, &c->flow, BUFFER_IN, took, c->sendbuf.len, c->opts.sndbuf, c->sendbuf.len);
    return took || want == 0 ? (int64_t)took : -ENOBUFS;
}

void tcp_expect_send(struct tcp_conn *c, bool expected)
{
    c->send_expected = expected;
}

void tcp_defer(struct tcp_conn *c, bool deferred)
{
    c->deferred = deferred;
}

bool tcp_deferred(const struct tcp_conn *c)
{
    return c->deferred;
}

/* ---- recv ---- */

/* Bytes that may be read before the urgent mark stops the call. */
static uint32_t until_mark(const struct tcp_conn *c, uint32_t from)
{
    const uint32_t ready = recvbuf_ready(&c->recvbuf) - from;
    if (likely(c->urg_state == URG_NONE))
        return ready;
    const int32_t ahead = seq_diff(c->urg_seq, seq_add(c->copied_seq, from));
    return ahead > 0 ? min_u32(ready, (uint32_t)ahead) : ready;
}

static int64_t recv_urgent(struct tcp_conn *c, const struct slice *to, unsigned n, uint32_t flags)
{
    if (c->opts.oobinline || c->urg_state == URG_NONE || c->urg_state == URG_READ)
        return -EINVAL;
    if (c->state == TCP_CLOSED && !c->fin_received)
        return -ENOTCONN;
    if (c->urg_state == URG_NOT_YET)
        return c->rcv_shut ? 0 : -EAGAIN;
    if (!(flags & TCP_RECV_PEEK))
        c->urg_state = URG_READ; /* Linux: by a call that has no room for it, too */
    for (unsigned i = 0; i < n; i++) {
        if (to[i].len == 0)
            continue;
        if (!(flags & TCP_RECV_TRUNC))
            *(uint8_t *)to[i].base = c->urg_byte;
        return 1;
    }
    return 0;
}

/* Nothing is ready: end of stream, error, or not yet. */
static int64_t nothing_ready(struct tcp_conn *c)
{
    if (c->fin_received) /* Linux: the end of the stream comes before an error that came later */
        return 0;
    if (c->err)
        return -tcp_take_error(c);
    if (c->rcv_shut)
        return 0;
    switch (c->state) {
    case TCP_CLOSED:
    case TCP_LISTEN:
        return c->connected ? 0 : c->deferred ? -EAGAIN : -ENOTCONN;
    default:
        return -EAGAIN;
    }
}

/* The urgent byte stands at the head of what is unread and is not inline: it is passed over. */
static void skip_urgent(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->urg_state == URG_NONE || !seq_eq(c->urg_seq, c->copied_seq) ||
        recvbuf_ready(&c->recvbuf) == 0)
        return;
    if (!c->opts.oobinline) {
        recvbuf_read(&cx->st->tcp.chunks, &c->recvbuf, NULL, 0, 1);
        c->copied_seq = seq_add(c->copied_seq, 1);
    }
    c->urg_state = URG_NONE;
}

static int64_t do_recv(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to, unsigned n,
                       uint32_t flags, uint32_t peek_from)
{
    if (unlikely(flags & TCP_RECV_OOB))
        return recv_urgent(c, to, n, flags);
    if (tcp_handshaking(c))
        return nothing_ready(c);
    uint64_t want = 0;
    for (unsigned i = 0; i < n; i++)
        want += to[i].len;
    if (unlikely(c->urg_state != URG_NONE) && !(flags & TCP_RECV_PEEK) && want != 0)
        skip_urgent(cx, c);
    const uint32_t ready = recvbuf_ready(&c->recvbuf);
    if (ready <= peek_from)
        return nothing_ready(c);
    if (flags & TCP_RECV_PEEK) {
        if (unlikely(c->urg_state != URG_NONE) && !c->opts.oobinline && want != 0 &&
            seq_eq(c->urg_seq, seq_add(c->copied_seq, peek_from))) {
            peek_from++; /* the urgent byte is passed over here too */
            if (ready <= peek_from)
                return nothing_ready(c);
        }
        const uint32_t len = (uint32_t)min_u64(until_mark(c, peek_from), want);
        if (flags & TCP_RECV_TRUNC) /* Linux: counted, not copied */
            return len;
        return recvbuf_peek(&c->recvbuf, peek_from, to, n, len);
    }
    const uint32_t len = (uint32_t)min_u64(until_mark(c, 0), want);
    const bool discard = flags & TCP_RECV_TRUNC;
    uint32_t got =
        recvbuf_read(&cx->st->tcp.chunks, &c->recvbuf, discard ? NULL : to, discard ? 0 : n, len);
    c->copied_seq = seq_add(c->copied_seq, got);
    if (c->sender_waits)
        got += tcp_inside_recv(cx, c, to, discard ? 0 : n, got, (uint32_t)min_u64(want, INT32_MAX),
                               NULL);
    if (stack_traces(cx, TRACE_BUFFER)) {
        TRACE(cx, BUFFER, &c->flow, BUFFER_OUT, got, recvbuf_ready(&c->recvbuf));
        tcp_report_recv(cx, c, got);
    }
    tcp_window_consumed(cx, c);
    return got;
}

int64_t tcp_recv(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to, unsigned n,
                 uint32_t flags, uint32_t peek_from)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    const int64_t r = do_recv(cx, c, to, n, flags, peek_from);
    work_end(cx->st, outer);
    return r;
}

/* ---- shutdown and close ---- */

/* A program that did so many times connects again. */
#define RETURNS_MIN 4

/* The peer has said all, so have we, and the ACK of its FIN waits for company. */
static bool nothing_left_but_fin(const struct tcp_conn *c)
{
    return c->state == TCP_LAST_ACK && c->ack_held && c->sendbuf.len == 0;
}

/* The program writes no more: FIN after what is queued (RFC 9293 3.10.4). */
static void close_sending(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    c->snd_shut = true;
    if (c->fin_queued && c->state != TCP_SYN_RECEIVED)
        return;
    switch (c->state) {
    case TCP_SYN_RECEIVED: /* Linux: shutdown() waits for ESTABLISHED; so does a FIN after text */
        if (why != TCP_WHY_CALL_CLOSE || c->fast_open)
            break;
        tcp_ready_for_data(cx, c);
        tcp_set_state(cx, c, TCP_FIN_WAIT_1, why);
        break;
    case TCP_ESTABLISHED:
        tcp_set_state(cx, c, TCP_FIN_WAIT_1, why);
        break;
    case TCP_CLOSE_WAIT:
        tcp_set_state(cx, c, TCP_LAST_ACK, why);
        break;
    default:
        return;
    }
    c->fin_queued = true;
    c->more = false;
    tcp_inside_release(cx, c);
    if (why == TCP_WHY_CALL_CLOSE && nothing_left_but_fin(c)) {
        /*
         * Who connects again at once after each close() is to wait for what the peer's programs
         * answer, and has time for the FIN then; here it would come in front. It leaves with that
         * ACK.
         */
        cx->st->tcp.closed_at = cx->now;
        if (cx->st->tcp.returns >= RETURNS_MIN)
            return;
    }
    tcp_output(cx, c);
}

static int do_shutdown(struct stack_cx *cx, struct tcp_conn *c, enum tcp_how how)
{
    const bool closed = c->state == TCP_CLOSED;
    if (c->state == TCP_SYN_SENT) { /* Linux: gives the attempt up */
        tcp_disconnect(cx, c);
        tcp_notify(cx, c, TCP_WAKE_ALL);
        return 0;
    }
    if (how != TCP_SHUT_WR)
        c->rcv_shut = true;
    if (how != TCP_SHUT_RD)
        close_sending(cx, c, TCP_WHY_CALL_SHUTDOWN);
    tcp_notify(cx, c, TCP_WAKE_ALL);
    return closed ? -ENOTCONN : 0; /* Linux: an error, but the mark is set */
}

int tcp_shutdown(struct stack_cx *cx, struct tcp_conn *c, enum tcp_how how)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    const int r = do_shutdown(cx, c, how);
    work_end(cx->st, outer);
    return r;
}

/* RFC 9293 3.10.5, Linux's tcp_need_reset(): not where all is said and only an ACK is missing. */
static bool needs_rst(const struct tcp_conn *c)
{
    const bool said = (c->state == TCP_CLOSING || c->state == TCP_LAST_ACK) && tcp_fin_sent(c);
    return (tcp_synchronized(c) || c->state == TCP_SYN_RECEIVED) && !said;
}

static void abort_connection(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    if (unlikely(cx->st->tcp.unfinished == c)) /* it was written, and is not lost */
        tcp_finish(cx, false);
    if (needs_rst(c))
        tcp_emit_rst(cx, c, why);
    tcp_done(cx, c, 0, why);
}

static void do_disconnect(struct stack_cx *cx, struct tcp_conn *c)
{
    /* Linux's tcp_disconnect() leaves an error where it broke a connection (or an attempt) off */
    const bool broken = c->state == TCP_SYN_SENT || needs_rst(c);
    if (c->state != TCP_CLOSED)
        abort_connection(cx, c, TCP_WHY_CALL_DISCONNECT);
    recvbuf_clear(&cx->st->tcp.chunks, &cx->st->tcp.ranges, &c->recvbuf);
    if (broken)
        c->err = ECONNRESET;
    c->connected = false;
    c->rcv_shut = c->snd_shut = c->fin_received = false;
    c->urg_state = URG_NONE;
    c->copied_seq = c->rcv_nxt;
    c->iss = c->snd_una = c->snd_nxt = (tcp_seq){0}; /* as new: see renew() */
}

void tcp_disconnect(struct stack_cx *cx, struct tcp_conn *c)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    do_disconnect(cx, c);
    work_end(cx->st, outer);
}

/* Linux's tcp_fin_time(), and what TCP_LINGER2 below zero means. */
static void orphan_in_fin_wait_2(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->opts.linger2 < 0) {
        abort_connection(cx, c, TCP_WHY_CALL_CLOSE);
        return;
    }
    const nsec_t secs = c->opts.linger2 ? (nsec_t)c->opts.linger2 : TCP_FIN_TIMEOUT;
    tcp_timer_set(cx, c, TCP_TIMER_FIN_WAIT_2, cx->now + secs * NSEC_PER_SEC);
}

static void do_close(struct stack_cx *cx, struct tcp_conn *c)
{
    const bool unread = recvbuf_ready(&c->recvbuf) > 0;
    tcp_orphan(cx, c);
    switch (c->state) {
    case TCP_CLOSED:
        break;
    case TCP_SYN_SENT:
        tcp_done(cx, c, 0, TCP_WHY_CALL_CLOSE);
        break;
    default:
        if (c->opts.linger && c->opts.linger_secs == 0) {
            abort_connection(cx, c, TCP_WHY_CALL_ABORT);
        } else if (unread) { /* RFC 2525 2.17: the peer must know that data was lost */
            abort_connection(cx, c, TCP_WHY_CALL_CLOSE_UNREAD);
        } else {
            c->rcv_shut = true;
            close_sending(cx, c, TCP_WHY_CALL_CLOSE);
            if (c->state == TCP_FIN_WAIT_2)
                orphan_in_fin_wait_2(cx, c);
        }
    }
    tcp_reap(cx, c);
}

void tcp_close(struct stack_cx *cx, struct tcp_conn *c)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    do_close(cx, c);
    work_end(cx->st, outer);
}

bool tcp_sent_all(const struct tcp_conn *c)
{
    switch (c->state) {
    case TCP_FIN_WAIT_1:
    case TCP_CLOSING:
    case TCP_LAST_ACK:
        return false;
    case TCP_ESTABLISHED:
    case TCP_CLOSE_WAIT:
        return c->sendbuf.len == 0;
    default:
        return true;
    }
}

static void do_quickack(struct stack_cx *cx, struct tcp_conn *c, bool on)
{
    c->opts.quickack_off = !on;
    if (!on) {
        c->interactive = true;
        return;
    }
    c->interactive = false;
    if (c->ack_delayed)
        tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_QUICK);
}

void tcp_quickack(struct stack_cx *cx, struct tcp_conn *c, bool on)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    do_quickack(cx, c, on);
    work_end(cx->st, outer);
}
