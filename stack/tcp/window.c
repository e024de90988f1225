/*
 * Windows and buffers: how much the peer may send, how much the program may write.
 *
 * The window offered is what rcv_limit leaves beside the unread bytes. rcv_limit starts at half of
 * SO_RCVBUF (as Linux's tcp_adv_win_scale does) and follows the program: when it took more in one
 * round trip than ever before, the buffer grows to twice that (dynamic right-sizing, Fisk and Feng
 * 2001), up to tcp_rmem's maximum. Under memory pressure it falls back to a few segments.
 */
#include "stack/tcp/conn.h"

/*
 * What a program takes is counted for a round trip, but for no less than Linux's clock for it ticks
 * (tcp_rcv_rtt_update()): on a path without delay that would be no more than one read.
 */
#define SHORT_ROUND NSEC_PER_MSEC
/* Who read so long ago may wait for something else. */
#define READS_ON (10 * NSEC_PER_MSEC)
/* Linux's initial window never exceeds what fits unscaled. */
#define WINDOW_INITIAL_MAX   65535u
#define WINDOW_PRESSURE_SEGS 4

static uint32_t rcvbuf_max(const struct stack_cx *cx)
{
    const uint32_t most = cx->st->config.tuning.rcvbuf_max;
    return most ? most : TCP_RCVBUF_MAX;
}

void tcp_window_init(const struct stack_cx *cx, const struct tcp_opts *o, uint32_t *wnd,
                     uint8_t *wscale)
{
    uint32_t space = o->rcvbuf / 2;
    if (o->window_clamp)
        space = min_u32(space, o->window_clamp);
    if (arena_pressure(cx->st->arena))
        space = min_u32(space, WINDOW_PRESSURE_SEGS * TCP_MSS_DEFAULT);
    *wnd = min_u32(space, WINDOW_INITIAL_MAX);
    uint32_t most = o->rcvbuf_locked ? o->rcvbuf / 2 : rcvbuf_max(cx);
    if (o->window_clamp)
        most = min_u32(most, o->window_clamp);
    uint8_t scale = 0;
    while (scale < TCP_WSCALE_MAX && most > WINDOW_INITIAL_MAX) {
        most >>= 1;
        scale++;
    }
    *wscale = scale;
}

/*
 * Whether the program has so much to read that the window may wait. Each small read of a full
 * buffer would otherwise open it by as much, and fetch a small frame for an ACK of its own. Only
 * where half a buffer lasts longer than what fills it takes to come, and while the program reads:
 * it might wait for more than half a buffer.
 */
static bool window_may_wait(const struct stack_cx *cx, const struct tcp_conn *c)
{
    const uint32_t unread = recvbuf_ready(&c->recvbuf);
    return unread > c->rcv_limit / 2 && unread >= c->opts.rcvlowat &&
           c->rtt.min_rtt < SHORT_ROUND &&
           tcp_short_clock(cx->now) - c->drs_start < tcp_short_clock(READS_ON);
}

uint32_t tcp_receive_window(const struct stack_cx *cx, const struct tcp_conn *c)
{
    const uint32_t unread = recvbuf_ready(&c->recvbuf);
    uint32_t limit = c->rcv_limit;
    if (c->opts.window_clamp)
        limit = min_u32(limit, c->opts.window_clamp);
    if (unlikely(arena_pressure(cx->st->arena)))
        limit = min_u32(limit, (uint32_t)WINDOW_PRESSURE_SEGS * c->rcv_mss);
    uint32_t wnd = limit > unread ? limit - unread : 0;
    const int32_t offered = seq_diff(c->rcv_adv, c->rcv_nxt);
    const uint32_t current = offered > 0 ? (uint32_t)offered : 0;

    /* RFC 9293 3.8.6.2.2: no opening by less than a segment or half the buffer. */
    if (wnd > current && wnd - current < min_u32(limit / 2, c->rcv_mss) &&
        !(current == 0 && wnd >= c->rcv_mss))
        wnd = current;
    if (wnd > current && window_may_wait(cx, c))
        wnd = current;
    const uint8_t scale = c->wscale_ok ? c->rcv_wscale : 0;
    wnd = min_u32(wnd, 65535u << scale);
    wnd &= ~((1u << scale) - 1);
    /* The right edge never retreats (RFC 9293 3.8.6); round up so that scaling takes nothing back.
     */
    if (wnd < current)
        wnd = min_u32((current + (1u << scale) - 1) & ~((1u << scale) - 1), 65535u << scale);
    return wnd;
}

/*
 * A path without delay keeps in queues what it is given, so more in flight makes nothing faster.
 * It costs: the bytes leave the processor's caches between the copies, and a writer that always
 * finds room never lets acknowledgements clock out frames many at a time (shim/link/batch.h).
 * Measured on one processor: 1 to 2 MB are best; less starves the receiver, 4 MB cost a quarter.
 * Connections that move much at the same time share it.
 * What has delay needs rate times round trip: no rate that this stack reaches is held back.
 */
#define FLIGHT_ALL  (1u << 20)
#define FLIGHT_MIN  (256u << 10) /* four large frames */
#define FLIGHT_RATE 8            /* bytes a nanosecond */
/* Who did not move much for once to twice this long does not share. */
#define MOVERS_SPAN (4 * NSEC_PER_MSEC)

/*
 * What a path may hold at most is enough, and as much for each of several that move much at a time,
 * whose text waits for one another's to be read: then their ACKs need not be many (output.c). All
 * together no more than a device has room for. A peer that is given less than the least sends
 * smaller frames. Who takes so much in a round moves much.
 */
#define DRS_MAX_LEAST (256u << 10)
#define WINDOWS_ALL   (8u << 20)

static uint32_t window_max(const struct stack *st, const struct tcp_conn *c)
{
    const uint32_t share = WINDOWS_ALL / max_u32(st->tcp.movers_count, 1);
    const uint32_t most = max_u32(min_u32(share, FLIGHT_ALL), DRS_MAX_LEAST);
    return max_u32(tcp_flight_max(st, c), most);
}

static void grow_receive_buffer(struct stack_cx *cx, struct tcp_conn *c)
{
    const nsec_t rtt = max_u64(c->rtt.srtt, SHORT_ROUND);
    if (c->rtt.srtt == 0 || tcp_short_clock(cx->now) - c->drs_start < tcp_short_clock(rtt))
        return;
    const uint32_t copied = (uint32_t)seq_diff(c->copied_seq, c->drs_seq);
    if (copied > c->drs_space) {
        if (!c->opts.rcvbuf_locked && !arena_pressure(cx->st->arena)) {
            uint64_t want = 2ull * copied + 16ull * c->advmss;
            /* the sender is speeding up: make room for what it will send next */
            want += want * (copied - c->drs_space) / max_u32(c->drs_space, 1) / 2;
            const uint32_t bytes =
                (uint32_t)min_u64(want, min_u32(window_max(cx->st, c), rcvbuf_max(cx)));
            if (bytes > c->rcv_limit) {
                c->rcv_limit = bytes;
                c->opts.rcvbuf =
                    max_u32(c->opts.rcvbuf, (uint32_t)min_u64(2ull * bytes, rcvbuf_max(cx)));
            }
        }
        c->drs_space = copied;
    }
    if (copied >= DRS_MAX_LEAST)
        tcp_moves_much(cx, c);
    c->drs_seq = c->copied_seq;
    c->drs_start = tcp_short_clock(cx->now);
}

void tcp_window_consumed(struct stack_cx *cx, struct tcp_conn *c)
{
    grow_receive_buffer(cx, c);
    if (!tcp_synchronized(c) || c->fin_received)
        return;
    /* Linux's tcp_cleanup_rbuf(): tell the peer when the window has at least doubled. */
    const int32_t offered = seq_diff(c->rcv_adv, c->rcv_nxt);
    const uint32_t current = offered > 0 ? (uint32_t)offered : 0;
    const uint32_t wnd = tcp_receive_window(cx, c);
    if (wnd >= 2 * current && wnd > current) {
        c->ack_now = true;
        c->ack_why = TCP_WHY_SEND_WINDOW_UPDATE;
        tcp_want_output(cx, c);
    } else if (c->ack_delayed && seq_diff(c->rcv_nxt, c->rcv_wup) > c->rcv_mss) {
        c->ack_now = true;
        c->ack_why = TCP_WHY_SEND_ACK_NOW;
        tcp_want_output(cx, c);
    }
}

void tcp_moves_much(struct stack_cx *cx, const struct tcp_conn *c)
{
    struct tcp_stack *t = &cx->st->tcp;
    const uint64_t bit = 1ull << c->flow.number % 64;
    const nsec_t since = cx->now - t->movers_since;
    if (likely(since < MOVERS_SPAN && (t->movers & bit) != 0))
        return;
    if (since >= MOVERS_SPAN) {
        t->movers_before = since < 2 * MOVERS_SPAN ? t->movers : 0;
        t->movers = 0;
        t->movers_since = cx->now;
    }
    t->movers |= bit;
    t->movers_count = (uint32_t)__builtin_popcountll(t->movers | t->movers_before);
}

uint32_t tcp_flight_max(const struct stack *st, const struct tcp_conn *c)
{
    if (c->rtt.srtt == 0)
        return UINT32_MAX;
    uint32_t share = FLIGHT_ALL;
    if (st->tcp.movers_count > 1)
        share = max_u32(FLIGHT_ALL / st->tcp.movers_count, FLIGHT_MIN);
    return (uint32_t)min_u64(max_u64(share, FLIGHT_RATE * c->rtt.min_rtt), UINT32_MAX);
}

void tcp_sndbuf_grow(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->opts.sndbuf_locked || arena_pressure(cx->st->arena))
        return;
    /* Linux's tcp_sndbuf_expand(): twice the congestion window, so that recovery finds data to
     * send. */
    const uint64_t want =
        2ull * max_u32(min_u32(c->cc.cwnd, tcp_flight_max(cx->st, c)), CC_INITIAL_SEGS * c->mss);
    const uint32_t tuned = cx->st->config.tuning.sndbuf_max;
    const uint32_t most = tuned ? tuned : TCP_SNDBUF_MAX;
    if (want > c->opts.sndbuf)
        c->opts.sndbuf = (uint32_t)min_u64(want, most);
}

/*
 * Linux's tcp_chrono_start() and tcp_chrono_stop(): what the send buffer is too small for is told
 * before what the peer's window is, and that before mere waiting for ACKs.
 */
void tcp_note_limit(struct stack_cx *cx, struct tcp_conn *c, enum tcp_limit limit)
{
    if (limit == c->limit)
        return;
    const uint32_t now = tcp_ms(cx->now);
    if (c->limit != TCP_LIMIT_NONE)
        c->limited_ms[c->limit - 1] += now - c->limit_since;
    c->limit = (uint8_t)limit;
    c->limit_since = now;
}

void tcp_tell_writer(struct stack_cx *cx, struct tcp_conn *c, bool writable_before)
{
    if (unlikely(c->no_room) && tcp_writable(c)) {
        c->no_room = false;
        if (c->limit == TCP_LIMIT_SNDBUF)
            tcp_note_limit(cx, c, TCP_LIMIT_BUSY);
    }
    if (!writable_before && tcp_writable(c) && !c->snd_shut)
        tcp_notify(cx, c, TCP_EV_OUT);
}

uint32_t tcp_send_room(const struct tcp_conn *c)
{
    return c->opts.sndbuf > c->sendbuf.len ? c->opts.sndbuf - c->sendbuf.len : 0;
}

bool tcp_writable(const struct tcp_conn *c)
{
    /* Linux's sk_stream_is_writeable(): a third of the buffer is free, and TCP_NOTSENT_LOWAT
     * allows. */
    return tcp_send_room(c) >= max_u32(c->sendbuf.len / 2, 1) &&
           tcp_unsent(c) < c->opts.notsent_lowat;
}
