#include "stack/tcp/inside.h"

#include "stack/ip/ip.h"

/* Text that waits for a window is taken in steps of so many slices. */
#define SLICES 16
/*
 * So much unread text goes to the receive buffer at once; more of it waits in the send buffer. With
 * both programs' buffers it stays in a processor's second-level cache.
 */
#define UNREAD_MAX (256u << 10)
/* A program may write so much beyond that, unless it set SO_SNDBUF: Linux's buffers grow likewise.
 */
#define SNDBUF_INSIDE (1u << 20)
/*
 * What a program finds that peeks, asks how much there is, or waits for more. It is taken from what
 * waits in the send buffer: one copy more for each of these bytes.
 */
#define AHEAD 16384u

/* Nothing is in flight or held back, and nobody wants to hear of what is sent. */
static bool quiet(const struct tcp_conn *c)
{
    return c->state == TCP_ESTABLISHED && c->sent.total == 0 && c->ca_state == TCP_CA_OPEN &&
           !c->fast_open && !c->deferred && !c->urgent_out && !c->cwr_due && !c->more &&
           !c->opts.cork && c->extra == NULL && c->opts.max_pacing == 0 && !c->path.mtu_high;
}

static bool takes_text(const struct tcp_conn *c)
{
    return c->state == TCP_ESTABLISHED && (c->app_held || c->half_accepted) && !c->rcv_shut &&
           !c->fin_ahead && !c->deferred && c->urg_state == URG_NONE && c->recvbuf.nranges == 0;
}

bool tcp_inside_pair(const struct tcp_conn *a, const struct tcp_conn *b)
{
    const struct flow_tuple *s = &a->flow.tuple, *t = &b->flow.tuple;
    return a->path.netif == NETIF_LOOP && b->path.netif == NETIF_LOOP &&
           a->state == TCP_ESTABLISHED && b->state == TCP_ESTABLISHED && s->lport == t->rport &&
           s->rport == t->lport && ip_addr_eq(&s->local, &t->remote) &&
           ip_addr_eq(&s->remote, &t->local);
}

struct flow *tcp_other_end(struct stack_cx *cx, const struct tcp_conn *c)
{
    const struct flow_tuple *t = &c->flow.tuple;
    const struct flow_tuple reverse = {t->remote, t->local, t->rport, t->lport};
    return flow_find(&cx->st->tcp.flows, &reverse);
}

static struct tcp_conn *other_conn(struct stack_cx *cx, const struct tcp_conn *c)
{
    struct flow *f = tcp_other_end(cx, c);
    return f != NULL && f->kind == FLOW_CONN && f != &c->flow ? conn_of(f) : NULL;
}

/* Whether text may pass without segments: nobody wants to see any. */
static bool unwatched(const struct stack_cx *cx)
{
    return cx->ops->looped == NULL && !ip_loopback_pending(cx->st) &&
           !arena_pressure(cx->st->arena) && !stack_traces(cx, TCP_INSIDE_SEEN);
}

static bool joined(const struct tcp_conn *from, const struct tcp_conn *to)
{
    return quiet(from) && takes_text(to) && seq_eq(from->snd_nxt, to->rcv_nxt) &&
           to->path.netif == NETIF_LOOP;
}

/* The window that a receiver offers now, as if a segment had told it. */
static uint32_t offer(struct stack_cx *cx, struct tcp_conn *to)
{
    const uint32_t wnd = tcp_receive_window(cx, to);
    const tcp_seq edge = seq_add(to->rcv_nxt, wnd);
    if (seq_gt(edge, to->rcv_adv))
        to->rcv_adv = edge;
    return (uint32_t)seq_diff(to->rcv_adv, to->rcv_nxt);
}

/* As much of it as text may take that does not wait. */
static uint32_t offer_now(struct stack_cx *cx, struct tcp_conn *to)
{
    const uint32_t most = max_u32(UNREAD_MAX, (uint32_t)to->opts.rcvlowat);
    const uint32_t unread = recvbuf_ready(&to->recvbuf);
    return min_u32(offer(cx, to), unread < most ? most - unread : 0);
}

/* What the reader is to find, if there is as much. */
static uint32_t enough_for(const struct tcp_conn *to)
{
    return max_u32(AHEAD, (uint32_t)to->opts.rcvlowat);
}

/* Whether the sender should hear of a larger one than this when the reader has read. */
static bool scarce(const struct tcp_conn *to, uint32_t wnd)
{
    return wnd < min_u32(UNREAD_MAX, to->rcv_limit) / 2;
}

/* ---- what the two ends remember ---- */

static void note_in(struct stack_cx *cx, struct tcp_conn *to, const struct tcp_conn *from,
                    uint32_t len)
{
    stack_note(cx, &to->flow, TRACE_EV_SEGMENT_IN, TCP_ACK | TCP_PSH, TCP_WHY_NONE, 0,
               (uint32_t[4]){to->rcv_nxt.v, from->rcv_nxt.v, len, to->snd_wnd});
    to->rcv_nxt = to->rcv_wup = seq_add(to->rcv_nxt, len);
    to->rcv_mss = (uint16_t)max_u32(to->rcv_mss, min_u32(len, to->advmss));
    to->bytes_received += len;
    to->segs_in++;
    to->data_segs_in++;
    to->last_recv = cx->now;
    stack_count(cx->st, COUNT_SEGS_IN);
}

static void note_out(struct stack_cx *cx, struct tcp_conn *from, uint32_t len, uint32_t wnd)
{
    stack_note(cx, &from->flow, TRACE_EV_SEGMENT_OUT, TCP_ACK | TCP_PSH, TCP_WHY_SEND_PUSH, 0,
               (uint32_t[4]){from->snd_nxt.v, from->rcv_nxt.v, len, wnd});
    from->snd_una = from->snd_nxt = from->push_seq = seq_add(from->snd_nxt, len);
    /* what is compared with SND.NXT later must not fall behind by half of the numbers */
    from->snd_sml = from->round_end = from->high_seq = from->snd_nxt;
    from->bytes_sent += len;
    from->sent.delivered += len;
    from->segs_out++;
    from->data_segs_out++;
    from->last_sent = from->last_ack = cx->now;
    from->persist_backoff = from->probes_out = 0;
    stack_count(cx->st, COUNT_SEGS_OUT);
}

static void note_window(struct tcp_conn *from, uint32_t wnd)
{
    from->snd_wnd = wnd;
    from->snd_wnd_max = max_u32(from->snd_wnd_max, wnd);
    from->snd_wl1 = from->rcv_nxt;
    from->snd_wl2 = from->snd_nxt;
    if (wnd > 0)
        from->persist_backoff = from->probes_out = 0;
}

/* ---- send() ---- */

/* Bytes of the text that the receive buffer took. */
static uint32_t insert(struct stack_cx *cx, struct tcp_conn *to, const struct slice *from,
                       unsigned n, uint32_t len)
{
    struct tcp_stack *t = &cx->st->tcp;
    uint32_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        const uint32_t want = (uint32_t)min_u64(from[i].len, len - done);
        uint32_t stored;
        const uint32_t took =
            recvbuf_insert(&t->chunks, &t->ranges, &to->recvbuf, seq_add(to->rcv_nxt, done), 0,
                           from[i].base, want, &stored);
        done += took;
        if (took < want)
            break;
    }
    return done;
}

uint32_t tcp_inside_send(struct stack_cx *cx, struct tcp_conn *c, const struct slice *from,
                         unsigned n, uint32_t len)
{
    if (c->sendbuf.len != 0 || !quiet(c) || !unwatched(cx))
        return 0;
    struct tcp_conn *to = other_conn(cx, c);
    if (to == NULL || !joined(c, to))
        return 0;
    const uint32_t took = insert(cx, to, from, n, min_u32(len, offer_now(cx, to)));
    if (took > 0)
        note_in(cx, to, c, took);
    const uint32_t wnd = offer_now(cx, to);
    if (took > 0) {
        note_out(cx, c, took, wnd);
        c->bytes_acked += took;
        tcp_tell_reader(cx, to, 0);
    }
    note_window(c, took < len ? 0 : wnd);
    to->sender_waits = scarce(to, c->snd_wnd);
    if (unlikely(c->ack_delayed)) /* a segment would have said it */
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_NOW);
    return took;
}

void tcp_inside_release(struct stack_cx *cx, struct tcp_conn *c)
{
    struct tcp_conn *to = c->path.netif == NETIF_LOOP && c->snd_wnd == 0 ? other_conn(cx, c) : NULL;
    if (to != NULL && c->sent.total == 0 && seq_eq(c->snd_nxt, to->rcv_nxt))
        note_window(c, offer(cx, to));
}

/* ---- recv() ---- */

/* Copies from `in` to the slices, from their byte `skip` on. */
static void copy_out(const struct slice *in, unsigned nin, const struct slice *to, size_t skip)
{
    for (unsigned i = 0; i < nin; i++) {
        const uint8_t *p = in[i].base;
        size_t left = in[i].len;
        while (left > 0) {
            for (; skip >= to->len; to++)
                skip -= to->len;
            const size_t step = min_u64(left, to->len - skip);
            memcpy((uint8_t *)to->base + skip, p, step);
            skip += step;
            p += step;
            left -= step;
        }
    }
}

/* The first len bytes of the send buffer go to the program. */
static uint32_t pass_to_program(struct stack_cx *cx, struct tcp_conn *from, const struct slice *to,
                                uint32_t skip, uint32_t len)
{
    struct slice in[SLICES];
    uint32_t done = 0, got;
    while (done < len) {
        const unsigned n = sendbuf_gather(&from->sendbuf, done, len - done, in, SLICES, &got);
        if (n == 0)
            break;
        copy_out(in, n, to, skip + done);
        done += got;
    }
    sendbuf_release(&cx->st->tcp.chunks, &from->sendbuf, done);
    return done;
}

/* The same to the receive buffer. */
static uint32_t pass_to_buffer(struct stack_cx *cx, struct tcp_conn *to, struct tcp_conn *from,
                               uint32_t len)
{
    struct slice in[SLICES];
    uint32_t done = 0, got;
    while (done < len) {
        const unsigned n = sendbuf_gather(&from->sendbuf, done, len - done, in, SLICES, &got);
        const uint32_t took = n > 0 ? insert(cx, to, in, n, got) : 0;
        done += took;
        if (n == 0 || took < got)
            break;
    }
    sendbuf_release(&cx->st->tcp.chunks, &from->sendbuf, done);
    return done;
}

/* Whole chunks of the send buffer become the receive buffer's, where they fit: no copy. */
static uint32_t pass_chunks(struct tcp_conn *to, struct tcp_conn *from, uint32_t len)
{
    uint32_t done = 0;
    while (from->sendbuf.head != NULL && recvbuf_adopts(&to->recvbuf, from->sendbuf.head)) {
        struct chunk *chunk = sendbuf_take(&from->sendbuf, len - done);
        if (chunk == NULL)
            break;
        done += chunk->end - chunk->start;
        recvbuf_adopt(&to->recvbuf, chunk);
    }
    return done;
}

/*
 * `passed` bytes left the send buffer, which held text (waited) and had room (writable) before.
 * While more waits the sender is told no window: so it waits until there is nothing to read but
 * that, or until a probe finds that the reader has stopped.
 */
static void settle_sender(struct stack_cx *cx, struct tcp_conn *from, struct tcp_conn *to,
                          uint32_t passed, bool waited, bool writable)
{
    const uint32_t wnd = from->sendbuf.len > 0 ? 0 : offer_now(cx, to);
    if (passed > 0) {
        note_out(cx, from, passed, wnd);
        tcp_text_acked(cx, from, passed);
        tcp_tell_writer(cx, from, writable);
    }
    note_window(from, wnd);
    to->sender_waits = scarce(to, wnd);
    if (waited) {
        tcp_timer_stop(cx, from, TCP_TIMER_PERSIST);
        tcp_want_output(cx, from); /* sets it anew, and notes what holds the text */
    }
}

/* The reader took all that was unread and wants up to len bytes more, in p if it has one. */
static uint32_t read_on(struct stack_cx *cx, struct tcp_conn *c, struct tcp_conn *from,
                        const struct slice *to, uint32_t skip, uint32_t len, struct tcp_parcel *p)
{
    uint32_t done = 0;
    struct chunk *chunk;
    while (p != NULL && (chunk = sendbuf_take(&from->sendbuf, len - done)) != NULL)
        done += tcp_parcel_add(p, chunk);
    done += pass_to_program(cx, from, to, skip + done, len - done);
    recvbuf_commit(&c->recvbuf, done, 0);
    note_in(cx, c, from, done);
    c->copied_seq = seq_add(c->copied_seq, done);
    return done;
}

/* More waits than the reader takes now: it is to find something, `enough` at least. */
static uint32_t read_ahead(struct stack_cx *cx, struct tcp_conn *c, struct tcp_conn *from,
                           uint32_t enough)
{
    uint32_t done = pass_chunks(c, from, offer_now(cx, c));
    const uint32_t unread = recvbuf_ready(&c->recvbuf);
    if (unread < enough && from->sendbuf.len > 0)
        done += pass_to_buffer(
            cx, c, from, min_u32(min_u32(enough - unread, offer(cx, c) - done), from->sendbuf.len));
    if (done > 0) {
        note_in(cx, c, from, done);
        tcp_tell_reader(cx, c, 0);
    }
    return done;
}

uint32_t tcp_inside_recv(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                         unsigned n, uint32_t got, uint32_t want, struct tcp_parcel *p)
{
    struct tcp_conn *from = other_conn(cx, c);
    if (from == NULL || from->sent.total != 0 || !seq_eq(from->snd_nxt, c->rcv_nxt)) {
        c->sender_waits = false;
        return 0;
    }
    if (!unwatched(cx) || !joined(from, c)) { /* what waits goes on by segments */
        c->sender_waits = false;
        note_window(from, offer(cx, c));
        tcp_want_output(cx, from);
        return 0;
    }
    const uint32_t waiting = from->sendbuf.len, unread = recvbuf_ready(&c->recvbuf);
    const uint32_t enough = enough_for(c);
    if (unread >= enough && waiting > 0) {
        offer(cx, c); /* so that no segment tells the window */
        return 0;
    }
    const bool writable = tcp_writable(from);
    uint32_t more = 0, ahead = 0;
    if (unread == 0 && n > 0 && got < want && waiting > 0)
        more = read_on(cx, c, from, to, got, min_u32(want - got, waiting), p);
    if (more < waiting)
        ahead = read_ahead(cx, c, from, enough);
    settle_sender(cx, from, c, more + ahead, waiting > 0, writable);
    return more;
}

/* ---- parcels ---- */

bool tcp_inside_open(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->path.netif != NETIF_LOOP || c->err || c->snd_shut || !quiet(c) || !unwatched(cx))
        return false;
    const struct tcp_conn *to = other_conn(cx, c);
    if (to == NULL || !joined(c, to))
        return false;
    const uint32_t tuned = cx->st->config.tuning.sndbuf_max;
    if (!c->opts.sndbuf_locked)
        c->opts.sndbuf =
            max_u32(c->opts.sndbuf, tuned ? min_u32(tuned, SNDBUF_INSIDE) : SNDBUF_INSIDE);
    return true;
}

bool tcp_inside_pass(struct stack_cx *cx, struct tcp_conn *c)
{
    struct tcp_conn *to = other_conn(cx, c);
    if (to == NULL || !unwatched(cx) || !joined(c, to))
        return false;
    const bool writable = tcp_writable(c);
    settle_sender(cx, c, to, read_ahead(cx, to, c, enough_for(to)), true, writable);
    if (unlikely(c->ack_delayed)) /* a segment would have said it */
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_NOW);
    return true;
}

bool tcp_inside_ready(struct stack_cx *cx, const struct tcp_conn *c, uint32_t least)
{
    const uint32_t ready = recvbuf_ready(&c->recvbuf);
    if (c->path.netif != NETIF_LOOP || ready == 0 || c->urg_state != URG_NONE ||
        tcp_handshaking(c) || stack_traces(cx, TRACE_BUFFER))
        return false;
    const struct tcp_conn *from = ready < least && c->sender_waits ? other_conn(cx, c) : NULL;
    return ready + (from != NULL ? from->sendbuf.len : 0) >= least;
}

uint32_t tcp_inside_take(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                         uint32_t want, struct tcp_parcel *p)
{
    uint32_t got = 0, copied = 0;
    struct chunk *chunk;
    while ((chunk = recvbuf_take(&c->recvbuf, want - got)) != NULL)
        got += tcp_parcel_add(p, chunk);
    if (got < want && recvbuf_ready(&c->recvbuf) > 0) {
        const struct slice rest = {(uint8_t *)to->base + got, want - got};
        copied = recvbuf_read(&cx->st->tcp.chunks, &c->recvbuf, &rest, 1, want - got);
    }
    got += copied;
    c->copied_seq = seq_add(c->copied_seq, got);
    if (c->sender_waits) /* nothing goes into the parcel behind what was copied */
        got += tcp_inside_recv(cx, c, to, 1, got, want, copied > 0 ? NULL : p);
    tcp_window_consumed(cx, c);
    return got;
}
