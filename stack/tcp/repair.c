/*
 * After a process died inside (stack_repair()): the pools say which objects live, and each object
 * says what it is a member of. Tables, queues, timers, counts and the ownership of payload are
 * derived from that. Nothing is followed that was not checked: neither links nor pointers of the
 * object that was being changed are believed. It may be interrupted, by another kill, and begin
 * again: so payload is told by its place, not by the bitmaps that are being made.
 */
#include <errno.h>

#include "stack/tcp/conn.h"
#include "stack/tcp/inside.h"
#include "stack/tcp/parcel.h"

/* What is known to be lost, besides what nobody can reach. */
struct repair {
    struct stack_cx *cx;
    struct flow *suspect;           /* was being changed when the process died */
    const struct tcp_conn *changed; /* the same if it is a connection, and not whole; or NULL */
};

/* ---- a connection's chains: counted before they are followed to the end ---- */

static bool sendbuf_whole(const struct tcp_stack *t, const struct sendbuf *sb)
{
    uint64_t bytes = 0;
    uint32_t n = 0;
    const struct chunk *last = NULL;
    for (const struct chunk *c = sb->head; c != NULL; c = c->next) {
        if (n++ == sb->chunks || !pool_has_place(&t->chunks, c) ||
            !pool_has_run(&t->chunks, c, c->objects) || c->start > c->end ||
            c->end > chunk_room(c->objects))
            return false;
        bytes += c->end - c->start;
        last = c;
    }
    return n == sb->chunks && bytes == sb->len && last == sb->tail;
}

static bool recvbuf_whole(const struct tcp_stack *t, const struct recvbuf *rb)
{
    uint32_t n = 0;
    const struct chunk *last = NULL;
    for (const struct chunk *c = rb->head; c != NULL; c = c->next) {
        if (n++ == rb->chunks || !pool_has_place(&t->chunks, c) || c->objects != 1)
            return false;
        last = c;
    }
    if (n != rb->chunks || last != rb->tail)
        return false;
    n = 0;
    for (const struct recv_range *r = rb->ranges; r != NULL; r = r->next)
        if (n++ == rb->nranges || !pool_has_place(&t->ranges, r))
            return false;
    return n == rb->nranges;
}

static bool sentmap_whole(const struct tcp_stack *t, const struct sentmap *m)
{
    uint64_t bytes = 0;
    uint32_t n = 0;
    const struct list *last = &m->records;
    for (const struct list *at = m->records.next; at != &m->records; at = at->next) {
        const struct sent_record *r = list_entry(at, struct sent_record, link);
        if (n++ == m->count || !pool_has_place(&t->records, r) || at->prev != last)
            return false;
        bytes += r->len;
        last = at;
    }
    return n == m->count && m->records.prev == last && bytes + m->owed == m->total;
}

static bool extra_whole(const struct tcp_stack *t, const struct tcp_extra *x)
{
    return x == NULL || (pool_has_place(&t->extras, x) && tcp_extra_whole(x));
}

/* Whether all that the connection says fits together. */
static bool conn_whole(const struct stack *st, const struct tcp_conn *c)
{
    const struct tcp_stack *t = &st->tcp;
    if (!sendbuf_whole(t, &c->sendbuf) || !recvbuf_whole(t, &c->recvbuf) ||
        !sentmap_whole(t, &c->sent) || !extra_whole(t, c->extra) ||
        (c->accecn != NULL && !pool_has_place(&t->accecns, c->accecn)) ||
        c->sent.sacked + c->sent.lost > c->sent.total)
        return false;
    if (c->state == TCP_CLOSED)
        return !c->in_table;
    const bool fin_done = c->fin_queued && c->sent.total == 0 && tcp_fin_sent(c);
    if (!c->in_table || c->state == TCP_TIME_WAIT || c->state == TCP_LISTEN ||
        c->sent.total != (uint32_t)seq_diff(c->snd_nxt, c->snd_una) ||
        (fin_done && c->state != TCP_FIN_WAIT_2))
        return false;
    /* from the third ACK of a handshake until it is on the accept queue; and never orphaned whole
     */
    if (c->half_accepted ? c->state == TCP_SYN_RECEIVED : !c->app_held && !c->snd_shut)
        return false;
    return !tcp_synchronized(c) ||
           (seq_leq(c->copied_seq, c->rcv_nxt) &&
            recvbuf_ready(&c->recvbuf) ==
                (uint32_t)seq_diff(c->rcv_nxt, c->copied_seq) - (c->fin_received ? 1 : 0));
}

static bool claim_chunks(struct tcp_stack *t, const struct chunk *c)
{
    for (; c != NULL; c = c->next)
        for (uint32_t i = 0; i < c->objects; i++)
            if (!pool_claim(&t->chunks, c + i))
                return false;
    return true;
}

static bool claim_all(struct tcp_stack *t, const struct tcp_conn *c)
{
    if (!claim_chunks(t, c->sendbuf.head) || !claim_chunks(t, c->recvbuf.head))
        return false;
    for (const struct recv_range *r = c->recvbuf.ranges; r != NULL; r = r->next)
        if (!pool_claim(&t->ranges, r))
            return false;
    list_for_each (n, &c->sent.records)
        if (!pool_claim(&t->records, list_entry(n, struct sent_record, link)))
            return false;
    return (c->extra == NULL || pool_claim(&t->extras, c->extra)) &&
           (c->accecn == NULL || pool_claim(&t->accecns, c->accecn));
}

/* ---- which connections are lost ---- */

/* Its payload goes with it: nothing is followed. */
static void strip(struct tcp_conn *c)
{
    c->doomed = true;
    c->in_table = c->needs_output = c->ack_held = false;
    memset(&c->sendbuf, 0, sizeof(c->sendbuf));
    memset(&c->recvbuf, 0, sizeof(c->recvbuf));
    sentmap_init(&c->sent);
    c->extra = NULL;
    c->accecn = NULL;
    c->ecn_ok = false;
    c->reno_sacked = 0;
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        c->deadline[i] = NSEC_NEVER;
}

static void judge_conn(void *object, void *arg)
{
    struct tcp_conn *c = object;
    const struct repair *r = arg;
    struct stack *st = r->cx->st;
    if (c->flow.kind != FLOW_CONN) { /* not even begun */
        pool_free(&st->tcp.conns, c);
        return;
    }
    list_init(&c->flow.hash_link);
    list_init(&c->flow.port_link);
    list_init(&c->pending_link);
    list_init(&c->holder_link);
    c->doomed = false;
    c->halfway = false;
    if (c->half_accepted && !pool_owns(&st->tcp.listeners, c->listener)) {
        c->half_accepted = false;
        c->listener = NULL;
    }
    const bool changing =
        &c->flow == r->suspect || (r->changed != NULL && tcp_inside_pair(r->changed, c));
    if ((changing && !st->transmitting) || !conn_whole(st, c))
        strip(c);
    else
        c->halfway = changing;
}

static void claim_conn(void *object, void *arg)
{
    struct tcp_conn *c = object;
    const struct repair *r = arg;
    if (!claim_all(&r->cx->st->tcp, c))
        strip(c);
}

/* ---- the tables ---- */

static void enter_conn(void *object, void *arg)
{
    struct tcp_conn *c = object;
    c->text_waits = false;
    const struct repair *r = arg;
    struct tcp_stack *t = &r->cx->st->tcp;
    wheel_timer_init(&c->timer, STACK_TIMER_CONN);
    if (c->in_table && flow_find(&t->flows, &c->flow.tuple) != NULL)
        strip(c);
    if (c->in_table)
        tcp_conn_insert(r->cx->st, c);
    if (c->half_accepted) {
        list_push_back(&c->listener->accept_queue, &c->holder_link);
        c->listener->accept_queue_len++;
    } else if (!c->app_held) {
        list_push_back(&t->orphans, &c->holder_link);
        t->norphans++;
    }
    c->ack_held = false;
    if (c->needs_output)
        list_push_back(&t->output_pending, &c->pending_link);
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        if (c->deadline[i] < c->timer.deadline)
            wheel_arm(&r->cx->st->wheel, &c->timer, c->deadline[i]);
}

static void enter_listener(void *object, void *arg)
{
    struct tcp_listener *l = object;
    const struct repair *r = arg;
    struct tcp_stack *t = &r->cx->st->tcp;
    if (l->flow.kind != FLOW_LISTENER || l->flow.tuple.lport == 0) {
        pool_free(&t->listeners, l);
        return;
    }
    list_init(&l->flow.hash_link);
    list_init(&l->flow.port_link);
    list_init(&l->syn_queue);
    list_init(&l->accept_queue);
    l->syn_queue_len = l->accept_queue_len = 0;
    flow_insert(&t->flows, &l->flow);
}

static void enter_half_open(void *object, void *arg)
{
    struct tcp_half_open *h = object;
    const struct repair *r = arg;
    struct stack *st = r->cx->st;
    const bool changing = &h->flow == r->suspect && !st->transmitting;
    if (h->flow.kind != FLOW_HALF_OPEN || changing || !pool_owns(&st->tcp.listeners, h->listener) ||
        h->timer.kind != STACK_TIMER_HALF_OPEN ||
        flow_find(&st->tcp.flows, &h->flow.tuple) != NULL) {
        pool_free(&st->tcp.half_opens, h);
        return;
    }
    const nsec_t deadline = h->timer.deadline;
    list_init(&h->flow.hash_link);
    list_init(&h->flow.port_link);
    flow_insert(&st->tcp.flows, &h->flow);
    list_push_back(&h->listener->syn_queue, &h->link);
    h->listener->syn_queue_len++;
    wheel_timer_init(&h->timer, STACK_TIMER_HALF_OPEN);
    wheel_arm(&st->wheel, &h->timer, deadline != NSEC_NEVER ? deadline : r->cx->now);
}

static void enter_time_wait(void *object, void *arg)
{
    struct tcp_time_wait *tw = object;
    const struct repair *r = arg;
    struct stack *st = r->cx->st;
    const nsec_t latest = r->cx->now + TCP_MSL_2;
    if (tw->flow.kind != FLOW_TIME_WAIT || flow_find(&st->tcp.flows, &tw->flow.tuple) != NULL) {
        pool_free(&st->tcp.time_waits, tw);
        return;
    }
    const bool timed = tw->timer.kind == STACK_TIMER_TIME_WAIT;
    const nsec_t deadline = timed ? min_u64(tw->timer.deadline, latest) : latest;
    list_init(&tw->flow.hash_link);
    list_init(&tw->flow.port_link);
    flow_insert(&st->tcp.flows, &tw->flow);
    list_push_back(&st->tcp.time_wait_age, &tw->age_link);
    wheel_timer_init(&tw->timer, STACK_TIMER_TIME_WAIT);
    wheel_arm(&st->wheel, &tw->timer, deadline);
}

static void empty_tables(struct tcp_stack *t)
{
    /* buckets that were never used are zeroes, and cost no memory until they are written */
    for (uint32_t i = 0; i < FLOW_BUCKETS; i++)
        if (t->flows.buckets[i].next != NULL)
            list_init(&t->flows.buckets[i]);
    for (uint32_t i = 0; i < FLOW_PORT_BUCKETS; i++)
        if (t->flows.port_buckets[i].next != NULL)
            list_init(&t->flows.port_buckets[i]);
    t->flows.count = 0;
    t->flows.last = NULL;
    if (t->marks != NULL)
        memset(t->marks, 0, MARKS_BYTES);
    tcp_lists_init(t);
    t->patient = false;
    t->norphans = 0;
    t->foreseen = t->unfinished = NULL;
}

void tcp_repair(struct stack_cx *cx)
{
    struct tcp_stack *t = &cx->st->tcp;
    struct repair r = {.cx = cx, .suspect = cx->st->working};
    struct pool *const payload[] = {&t->chunks, &t->ranges, &t->records, &t->extras, &t->accecns};
    if (r.suspect != NULL && !cx->st->transmitting && pool_owns(&t->conns, conn_of(r.suspect)))
        r.changed = conn_of(r.suspect);
    empty_tables(t);
    pool_each(&t->listeners, enter_listener, &r);
    pool_each(&t->conns, judge_conn, &r);
    for (unsigned i = 0; i < ARRAY_LEN(payload); i++)
        pool_forget(payload[i]);
    tcp_repair_parcels(t);
    pool_each(&t->conns, claim_conn, &r);
    for (unsigned i = 0; i < ARRAY_LEN(payload); i++)
        pool_repair(payload[i]);
    pool_each(&t->conns, enter_conn, &r);
    pool_each(&t->half_opens, enter_half_open, &r);
    pool_each(&t->time_waits, enter_time_wait, &r);
}

/* ---- afterwards ---- */

/* It was found between two changes: what the dead process would have done next is seen to. */
static void go_on(struct stack_cx *cx, struct tcp_conn *c)
{
    const bool waits =
        tcp_timer_armed(c, TCP_TIMER_RETRANSMIT) || tcp_timer_armed(c, TCP_TIMER_LOSS_PROBE);
    c->halfway = false;
    if (c->sent.total != 0 && !waits)
        tcp_arm_retransmit(cx, c);
    if (!tcp_synchronized(c))
        return;
    tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_DUPLICATE);
    tcp_want_output(cx, c);
    tcp_keepalive_arm(cx, c);
    if (c->state == TCP_FIN_WAIT_2 && !c->app_held && !tcp_timer_armed(c, TCP_TIMER_FIN_WAIT_2))
        tcp_timer_set(cx, c, TCP_TIMER_FIN_WAIT_2, cx->now + TCP_FIN_TIMEOUT * NSEC_PER_SEC);
}

static void end_conn(void *object, void *arg)
{
    struct tcp_conn *c = object;
    struct stack_cx *cx = arg;
    if (!c->doomed) {
        if (c->halfway)
            go_on(cx, c);
        tcp_reap(cx, c);
        return;
    }
    c->doomed = false;
    if (tcp_synchronized(c) && c->state != TCP_TIME_WAIT)
        tcp_emit_rst(cx, c, TCP_WHY_DIED_INSIDE);
    if (c->half_accepted) {
        list_remove(&c->holder_link);
        c->listener->accept_queue_len--;
        c->listener = NULL;
        c->half_accepted = false;
    }
    tcp_done(cx, c, c->state == TCP_CLOSED ? 0 : ECONNRESET, TCP_WHY_DIED_INSIDE);
    tcp_reap(cx, c);
}

/*
 * A connection inside the stack whose other end is gone will not hear of that: the reset may have
 * been in the hands of who died.
 */
static void end_widow(void *object, void *arg)
{
    struct tcp_conn *c = object;
    struct stack_cx *cx = arg;
    const bool waits = c->state == TCP_ESTABLISHED || c->state == TCP_FIN_WAIT_1 ||
                       c->state == TCP_FIN_WAIT_2 || c->state == TCP_CLOSE_WAIT;
    if (!waits || c->path.netif != NETIF_LOOP || tcp_other_end(cx, c) != NULL)
        return;
    tcp_done(cx, c, ECONNRESET, TCP_WHY_DIED_INSIDE);
    tcp_reap(cx, c);
}

void tcp_repair_end(struct stack_cx *cx)
{
    pool_each(&cx->st->tcp.conns, end_conn, cx);
    pool_each(&cx->st->tcp.conns, end_widow, cx);
}

bool tcp_is_conn(const struct stack *st, const struct tcp_conn *c)
{
    return pool_owns(&st->tcp.conns, c);
}

bool tcp_is_listener(const struct stack *st, const struct tcp_listener *l)
{
    return pool_owns(&st->tcp.listeners, l);
}

bool tcp_is_held(const struct tcp_conn *c)
{
    return c->app_held;
}

void *tcp_listener_owner(const struct tcp_listener *l)
{
    return l->owner;
}

uint16_t tcp_listener_port(const struct tcp_listener *l)
{
    return l->flow.tuple.lport;
}
