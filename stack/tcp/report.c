/* Events that take more than a line to tell. Called only while they are traced. */
#include "stack/tcp/conn.h"

void tcp_report_lost(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why)
{
    list_for_each (l, &c->sent.records) {
        struct sent_record *r = list_entry(l, struct sent_record, link);
        if (!r->lost || r->told)
            continue;
        r->told = true;
        TRACE(cx, CC, &c->flow, LOST, why, r->seq.v, r->len, r->transmissions, cx->now - r->sent);
    }
}

void tcp_report_arrival(struct stack_cx *cx, const struct tcp_conn *c, tcp_seq start, uint32_t len,
                        uint16_t gso_size)
{
    struct arrivals *a = &cx->st->tcp.arrivals;
    a->ring[a->next++ % ARRIVALS_MAX] = (struct arrival){
        .number = c->flow.number,
        .seq = start.v,
        .len = len,
        .segment = gso_size && gso_size < len ? gso_size : len,
        .when = cx->now,
    };
}

/* The arrival that brought byte `at`; the latest where it came twice. NULL: forgotten. */
static const struct arrival *find_arrival(const struct arrivals *a, uint32_t number, tcp_seq at)
{
    const uint64_t n = min_u64(a->next, ARRIVALS_MAX);
    for (uint64_t back = 1; back <= n; back++) {
        const struct arrival *r = &a->ring[(a->next - back) % ARRIVALS_MAX];
        if (r->number == number && seq_in(at, seq(r->seq), r->len))
            return r;
    }
    return NULL;
}

void tcp_report_recv(struct stack_cx *cx, struct tcp_conn *c, uint32_t len)
{
    struct trace_ranges out = {.more = len};
    tcp_seq at = seq_sub(c->copied_seq, len);
    unsigned segments = 0;
    while (out.more > 0 && out.count < TRACE_RANGES_MAX) {
        const struct arrival *r = find_arrival(&cx->st->tcp.arrivals, c->flow.number, at);
        if (!r)
            break;
        const uint32_t skip = (uint32_t)seq_diff(at, seq(r->seq));
        const uint32_t part = min_u32(out.more, r->len - skip);
        segments += (skip + part - 1) / r->segment - skip / r->segment + 1;
        out.ranges[out.count++] = (struct trace_range){
            .seq = at.v, .len = part, .of = r->len, .segment = r->segment, .arrived = r->when};
        at = seq_add(at, part);
        out.more -= part;
    }
    TRACE(cx, BUFFER, &c->flow, RECV_FROM, len, segments, (uintptr_t)&out);
}
