/* Marks in the send stream and the error queue: see extra.h. */
#include "stack/tcp/extra.h"

#include <errno.h>

#include "stack/tcp/conn.h"

#define STAMP_SCHED (1u << TCP_REPORT_SCHED)
#define STAMP_SENT  (1u << TCP_REPORT_SENT)
#define STAMP_ACKED (1u << TCP_REPORT_ACKED)

static struct tcp_extra *extra_of(struct stack_cx *cx, struct tcp_conn *c)
{
    if (c->extra == NULL)
        c->extra = pool_alloc(&cx->st->tcp.extras);
    if (c->extra == NULL)
        stack_count(cx->st, COUNT_NO_MEMORY);
    return c->extra;
}

static unsigned mark_at(const struct tcp_extra *x, unsigned i)
{
    return (x->first_mark + i) % TCP_MARKS_MAX;
}

static struct tcp_report *report_at(struct tcp_extra *x, unsigned i)
{
    return &x->queue[(x->first_report + i) % TCP_REPORTS_MAX];
}

/* Linux's sk_error_report(): wakes whoever waits, whatever for. */
static void report(struct stack_cx *cx, struct tcp_conn *c, enum tcp_report_kind kind, uint32_t key)
{
    struct tcp_extra *x = c->extra;
    if (x->reports == TCP_REPORTS_MAX)
        return;
    *report_at(x, x->reports++) =
        (struct tcp_report){.at = cx->now, .first = key, .last = key, .kind = (uint8_t)kind};
    tcp_notify(cx, c, TCP_WAKE_ALL);
}

static void report_stamp(struct stack_cx *cx, struct tcp_conn *c, enum tcp_report_kind kind,
                         unsigned mark)
{
    const tcp_seq byte = seq_sub(c->extra->mark_ends[mark], 1);
    report(cx, c, kind, (uint32_t)seq_diff(byte, c->extra->stamp_base));
}

/* ---- marks ---- */

void tcp_extra_mark(struct stack_cx *cx, struct tcp_conn *c, tcp_seq end, bool record)
{
    const uint8_t stamps = c->extra != NULL ? c->extra->stamps : 0;
    if (!record && stamps == 0)
        return;
    struct tcp_extra *x = extra_of(cx, c);
    if (x == NULL || x->marks == TCP_MARKS_MAX)
        return;
    const unsigned i = mark_at(x, x->marks++);
    x->mark_ends[i] = end;
    x->mark_kinds[i] = (uint8_t)(stamps | (record ? TCP_MARK_RECORD : 0));
}

uint32_t tcp_extra_record(const struct tcp_conn *c, uint32_t unsent)
{
    const struct tcp_extra *x = c->extra;
    for (unsigned i = x->unsent; i < x->marks; i++) {
        const unsigned at = mark_at(x, i);
        if ((x->mark_kinds[at] & TCP_MARK_RECORD) != 0)
            return min_u32(unsent, (uint32_t)seq_diff(x->mark_ends[at], c->snd_nxt));
    }
    return unsent;
}

bool tcp_extra_ends(const struct tcp_conn *c, uint32_t len)
{
    return tcp_extra_record(c, UINT32_MAX) == len;
}

/* Marks that nothing more will be heard of. */
static void drop_done(struct tcp_extra *x, tcp_seq una)
{
    while (x->marks > 0 && x->unsent > 0) {
        const unsigned at = x->first_mark;
        if ((x->mark_kinds[at] & STAMP_ACKED) != 0 && seq_gt(x->mark_ends[at], una))
            return;
        x->first_mark = (uint16_t)((x->first_mark + 1) % TCP_MARKS_MAX);
        x->marks--;
        x->unsent--;
    }
}

static void report_sent(struct stack_cx *cx, struct tcp_conn *c)
{
    struct tcp_extra *x = c->extra;
    for (; x->unsent < x->marks; x->unsent++) {
        const unsigned at = mark_at(x, x->unsent);
        if (seq_gt(x->mark_ends[at], c->snd_nxt))
            break;
        if ((x->mark_kinds[at] & STAMP_SCHED) != 0)
            report_stamp(cx, c, TCP_REPORT_SCHED, at);
        if ((x->mark_kinds[at] & STAMP_SENT) != 0)
            report_stamp(cx, c, TCP_REPORT_SENT, at);
    }
}

void tcp_extra_sent(struct stack_cx *cx, struct tcp_conn *c)
{
    report_sent(cx, c);
    drop_done(c->extra, c->snd_una);
}

void tcp_extra_acked(struct stack_cx *cx, struct tcp_conn *c)
{
    struct tcp_extra *x = c->extra;
    report_sent(cx, c); /* what went with a SYN */
    for (unsigned i = 0; i < x->unsent; i++) {
        const unsigned at = mark_at(x, i);
        if (seq_gt(x->mark_ends[at], c->snd_una))
            break;
        if ((x->mark_kinds[at] & STAMP_ACKED) != 0)
            report_stamp(cx, c, TCP_REPORT_ACKED, at);
    }
    drop_done(x, c->snd_una);
}

void tcp_extra_forget(struct tcp_conn *c)
{
    c->extra->marks = c->extra->unsent = 0;
}

/* ---- the program's side ---- */

int tcp_set_stamps(struct stack_cx *cx, struct tcp_conn *c, uint8_t kinds, uint32_t stamping,
                   enum tcp_stamp_base base)
{
    if (c->extra == NULL && kinds == 0 && stamping == 0)
        return 0;
    struct flow *outer = work_begin(cx->st, &c->flow);
    struct tcp_extra *x = extra_of(cx, c);
    if (x != NULL) {
        x->stamps = kinds;
        x->stamping = stamping;
        if (base != TCP_STAMP_BASE_KEPT)
            x->stamp_base = base == TCP_STAMP_BASE_UNACKED ? c->snd_una : tcp_data_end(c);
    }
    work_end(cx->st, outer);
    return x != NULL ? 0 : -ENOBUFS;
}

uint32_t tcp_stamping(const struct tcp_conn *c)
{
    return c->extra != NULL ? c->extra->stamping : 0;
}

/* Linux joins what follows without a gap into one report (skb_zerocopy_notify_extend()). */
void tcp_zerocopy_done(struct stack_cx *cx, struct tcp_conn *c)
{
    struct flow *outer = work_begin(cx->st, &c->flow);
    struct tcp_extra *x = extra_of(cx, c);
    if (x != NULL) {
        struct tcp_report *last = x->reports > 0 ? report_at(x, x->reports - 1u) : NULL;
        const uint32_t id = x->zerocopies++;
        if (last != NULL && last->kind == TCP_REPORT_ZEROCOPY && last->last + 1 == id) {
            last->last = id;
            tcp_notify(cx, c, TCP_WAKE_ALL);
        } else {
            report(cx, c, TCP_REPORT_ZEROCOPY, id);
        }
    }
    work_end(cx->st, outer);
}

bool tcp_take_report(struct stack_cx *cx, struct tcp_conn *c, struct tcp_report *out)
{
    struct tcp_extra *x = c->extra;
    if (x == NULL || x->reports == 0)
        return false;
    struct flow *outer = work_begin(cx->st, &c->flow);
    *out = *report_at(x, 0);
    x->first_report = (uint16_t)((x->first_report + 1) % TCP_REPORTS_MAX);
    if (--x->reports > 0) /* Linux's sock_dequeue_err_skb() */
        tcp_notify(cx, c, TCP_WAKE_ALL);
    work_end(cx->st, outer);
    return true;
}
