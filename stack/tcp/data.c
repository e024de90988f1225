/* Segment text, the urgent pointer, FIN, and when to acknowledge (RFC 9293 3.10.7.4, 3.8.6.3). */
#include "stack/tcp/conn.h"

/* Linux's tcp_incr_quickack(): so many ACKs go without delay. */
static void more_quickacks(struct tcp_conn *c)
{
    const uint32_t n = c->rcv_limit / (2u * max_u32(c->rcv_mss, 1));
    c->quickacks = (uint8_t)max_u32(c->quickacks, min_u32(max_u32(n, 2), TCP_QUICKACKS_MAX));
}

/* Linux's tcp_event_data_recv(): adapts the delayed-ACK time to the gaps between segments. */
static void note_arrival(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->ato == 0) {
        more_quickacks(c);
        c->ato = TCP_DELACK_MIN;
    } else {
        const nsec_t gap = cx->now - c->last_recv;
        if (gap <= TCP_DELACK_MIN / 2)
            c->ato = c->ato / 2 + TCP_DELACK_MIN / 2;
        else if (gap < c->ato)
            c->ato = tcp_ato(c, c->ato / 2 + gap);
        else if (gap > c->rtt.rto)
            more_quickacks(c); /* the sender restarts after idling: it is in slow start */
    }
    c->last_recv = cx->now;
}

static void measure_mss(struct tcp_conn *c, uint32_t len, uint16_t gso_size)
{
    const uint32_t seg = gso_size ? gso_size : len;
    if (seg >= c->rcv_mss)
        c->rcv_mss = (uint16_t)min_u32(seg, c->advmss);
}

void tcp_schedule_ack(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    c->ack_now = true;
    c->ack_why = (uint8_t)why;
    tcp_want_output(cx, c);
}

/* What a reader was woken for is unread, and takes from the window that the peer was told last. */
static bool reader_is_behind(const struct stack_cx *cx, const struct tcp_conn *c)
{
    return recvbuf_ready(&c->recvbuf) >= c->opts.rcvlowat &&
           tcp_receive_window(cx, c) < (uint32_t)seq_diff(c->rcv_adv, c->rcv_wup);
}

/* New text in order arrived: now, or in company? */
static void consider_ack(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->ack_now) {
        tcp_want_output(cx, c); /* one that was held back may be due with this */
        return;
    }
    const uint32_t owed = (uint32_t)seq_diff(c->rcv_nxt, c->rcv_wup);
    /*
     * RFC 9293 MUST-58: at least every second full segment. Linux differs: not while the program is
     * yet to read, for it would close the window only to open it again; its recv() acknowledges
     * then (tcp_window_consumed()), one time for all that it takes.
     */
    if (owed > c->rcv_mss && !reader_is_behind(cx, c)) {
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_NOW);
        return;
    }
    if (tcp_acks_quickly(c)) {
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_QUICK);
        return;
    }
    tcp_delay_ack(cx, c);
}

void tcp_delay_ack(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->ack_delayed)
        return;
    /* Never so late that the sender's RTO (200 ms at least) might be over: TCP_DELACK_MAX. */
    const nsec_t most = min_u64(TCP_DELACK_MAX, max_u64(c->rtt.srtt, TCP_DELACK_MIN));
    const nsec_t delay = min_u64(c->ato, most);
    c->ack_delayed = true;
    TRACE(cx, SEGMENT, &c->flow, ACK_HELD, TCP_WHY_HELD_NO_ACK_YET, delay,
          (uint32_t)seq_diff(c->rcv_nxt, c->rcv_wup));
    tcp_timer_set(cx, c, TCP_TIMER_DELAYED_ACK, cx->now + delay);
}

/* RFC 9293 3.10.7.4 sixth; the pointer names the byte after the urgent one, as BSD and Linux read
 * it. */
static void process_urgent(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    const tcp_seq at = seq_add(s->seq, (uint32_t)(s->urg ? s->urg - 1 : 0));
    if (seq_lt(at, c->copied_seq) || seq_lt(at, c->rcv_nxt))
        return;
    if (c->urg_state != URG_NONE && seq_leq(at, c->urg_seq))
        return;
    /* Linux: an older urgent byte that is next to be read leaves the stream */
    if (c->urg_state != URG_NONE && !c->opts.oobinline && seq_eq(c->urg_seq, c->copied_seq) &&
        recvbuf_ready(&c->recvbuf) > 0) {
        recvbuf_read(&cx->st->tcp.chunks, &c->recvbuf, NULL, 0, 1);
        c->copied_seq = seq_add(c->copied_seq, 1);
    }
    c->urg_seq = at;
    c->urg_state = URG_NOT_YET;
}

static void pick_urgent_byte(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start,
                             const uint8_t *text, uint32_t len)
{
    if (c->urg_state != URG_NOT_YET || !seq_in(c->urg_seq, start, len))
        return;
    c->urg_byte = text[(uint32_t)seq_diff(c->urg_seq, start)];
    c->urg_state = URG_VALID;
    tcp_notify(cx, c, TCP_WAKE_DATA);
}

void tcp_process_urgent(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s)
{
    if (s->flags & TCP_URG)
        process_urgent(cx, c, s);
    pick_urgent_byte(cx, c, s->seq, s->text, s->len);
}

static void process_fin(struct stack_cx *cx, struct tcp_conn *c)
{
    c->rcv_nxt = seq_add(c->rcv_nxt, 1);
    c->fin_received = true;
    c->fin_ahead = false;
    c->rcv_shut = true;
    /* What is due at once for another reason, as that of a hole, stays so. */
    if (c->ack_now && !tcp_ack_has_time(c))
        tcp_want_output(cx, c);
    else
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_FIN);
    switch (c->state) {
    case TCP_SYN_RECEIVED:
    case TCP_ESTABLISHED:
        tcp_set_state(cx, c, TCP_CLOSE_WAIT, TCP_WHY_RX_FIN);
        break;
    case TCP_FIN_WAIT_1: /* our FIN is not acknowledged: simultaneous close */
        tcp_set_state(cx, c, TCP_CLOSING, TCP_WHY_RX_FIN);
        break;
    case TCP_FIN_WAIT_2:
        tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_FIN);
        tcp_time_wait_enter(cx, c, TCP_WHY_RX_FIN);
        return;
    default:
        break;
    }
    tcp_notify(cx, c, TCP_WAKE_ALL);
}

void tcp_note_duplicate(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start, tcp_seq end)
{
    if (unlikely(c->accecn != NULL))
        tcp_accecn_duplicate(cx, c, start);
    if (c->sack_ok) { /* RFC 2883: say which bytes came twice */
        c->dsack_due = true;
        c->dsack = (struct tcp_sack_block){start, end};
    }
}

static void answer_duplicate(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start, tcp_seq end)
{
    tcp_note_duplicate(cx, c, start, end);
    more_quickacks(c);
    tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
}

/* RFC 2883 4.2: text that covers what was held out of order already: the first part of it that came
 * twice. */
static void report_overlap(struct tcp_conn *c, tcp_seq start, uint32_t len)
{
    const tcp_seq end = seq_add(start, len);
    for (const struct recv_range *r = c->recvbuf.ranges; r != NULL && seq_lt(r->start, end);
         r = r->next) {
        const tcp_seq from = seq_lt(r->start, start) ? start : r->start;
        const tcp_seq to = seq_min(r->end, end);
        if (seq_geq(from, to))
            continue;
        c->dsack_due = true;
        c->dsack = (struct tcp_sack_block){from, to};
        return;
    }
}

void tcp_tell_reader(struct stack_cx *cx, struct tcp_conn *c, uint32_t direct)
{
    const uint32_t ready = recvbuf_ready(&c->recvbuf);
    /* a low-water mark above the buffer must not hang */
    if (ready + direct >= c->opts.rcvlowat || ready >= c->rcv_limit / 2)
        tcp_notify(cx, c, TCP_WAKE_DATA);
}

static void store_text(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                       uint16_t gso_size)
{
    struct tcp_stack *t = &cx->st->tcp;
    tcp_seq start = s->seq;
    const uint8_t *text = s->text;
    uint32_t len = s->len;
    const int32_t old = seq_diff(c->rcv_nxt, start);
    if (old > 0) {
        const uint32_t cut = min_u32((uint32_t)old, len);
        answer_duplicate(cx, c, start, seq_add(start, cut));
        start = seq_add(start, cut);
        text += cut;
        len -= cut;
    }
    const int32_t room = seq_diff(c->rcv_adv, start);
    if (room < (int32_t)len) { /* beyond the window */
        len = room > 0 ? (uint32_t)room : 0;
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
    }
    if (len == 0)
        return;
    if (unlikely(s->place != NULL && (old != 0 || len != s->len || c->recvbuf.nranges)))
        return;
    note_arrival(cx, c);
    measure_mss(c, s->len, gso_size);
    c->data_segs_in++;
    pick_urgent_byte(cx, c, start, text, len);
    const uint32_t off = (uint32_t)seq_diff(start, c->rcv_nxt);
    const bool holes = off || c->recvbuf.nranges;
    if (unlikely(c->recvbuf.nranges && c->sack_ok))
        report_overlap(c, start, len);
    uint32_t stored = len, advance = len;
    if (s->place != NULL)
        tcp_take_place(c, s->place);
    else
        advance = recvbuf_insert(&t->chunks, &t->ranges, &c->recvbuf, c->rcv_nxt, off, text, len,
                                 &stored);
    c->rcv_nxt = seq_add(c->rcv_nxt, advance);
    c->bytes_received += advance;
    if (s->place != NULL && s->place->direct != 0)
        tcp_window_consumed(cx, c);
    if (stack_traces(cx, TRACE_BUFFER)) {
        const struct recv_range *r = c->recvbuf.nranges ? c->recvbuf.ranges : NULL;
        TRACE(cx, BUFFER, &c->flow, BUFFER_RX, stored, recvbuf_ready(&c->recvbuf),
              c->recvbuf.ooo_bytes, r ? (uint32_t)seq_diff(r->start, c->rcv_nxt) : 0);
        tcp_report_arrival(cx, c, start, len, gso_size);
    }
    if (holes || stored < len) {
        /* RFC 5681 4.2: a hole opened, or was filled or narrowed: the sender must hear at once */
        if (off && stored == 0 && c->sack_ok && len) {
            c->dsack_due = true;
            c->dsack = (struct tcp_sack_block){start, seq_add(start, len)};
        }
        more_quickacks(c);
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_OOO);
    } else {
        consider_ack(cx, c);
    }
    if (stored < len)
        stack_count(cx->st, COUNT_NO_MEMORY);
    if (advance)
        tcp_tell_reader(cx, c, s->place != NULL ? s->place->direct : 0);
}

void tcp_process_text(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      uint16_t gso_size)
{
    if (c->fin_received) { /* nothing follows a FIN; a repeated one is acknowledged again */
        if (tcp_segment_len(s))
            tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
        return;
    }
    if (s->flags & TCP_URG)
        process_urgent(cx, c, s);
    if (s->len)
        store_text(cx, c, s, gso_size);
    if (s->flags & TCP_FIN) {
        const tcp_seq at = seq_add(s->seq, s->len);
        if (seq_leq(at, c->rcv_adv) &&
            seq_geq(at, c->rcv_nxt)) { /* a FIN takes no room: it may stand right at the edge */
            c->fin_ahead = true;
            c->fin_seq = at;
        }
    }
    if (c->fin_ahead && seq_eq(c->fin_seq, c->rcv_nxt))
        process_fin(cx, c);
    else if (c->fin_ahead && s->flags & TCP_FIN)
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_OOO);
}
