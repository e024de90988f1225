/*
 * What is in flight: see sentmap.h. The sums in struct sentmap always agree with the records; every
 * change of a record's marks goes through the few functions that follow.
 */
#include "stack/tcp/sentmap.h"

/* With this many records a SACK may no longer split one: a peer cannot buy memory with odd blocks.
 */
#define SPLIT_RECORDS_MAX 4096

static struct sent_record *record_of(const struct list *n)
{
    return list_entry(n, struct sent_record, link);
}

/* The record behind r, or NULL. */
static struct sent_record *next_of(const struct sentmap *m, const struct sent_record *r)
{
    return r->link.next == &m->records ? NULL : record_of(r->link.next);
}

static tcp_seq end_of(const struct sent_record *r)
{
    return seq_add(r->seq, r->len);
}

void sentmap_init(struct sentmap *m)
{
    memset(m, 0, sizeof(*m));
    list_init(&m->records);
}

struct sent_record *sentmap_first(const struct sentmap *m)
{
    return list_empty(&m->records) ? NULL : record_of(m->records.next);
}

/* Takes n bytes of r out of the sums of its marks (not out of the total). */
static void uncount(struct sentmap *m, const struct sent_record *r, uint32_t n)
{
    if (r->sacked)
        m->sacked -= n;
    if (r->lost)
        m->lost -= n;
    if (r->retrans)
        m->retrans -= n;
}

static void mark_sacked(struct sentmap *m, struct sent_record *r)
{
    uncount(m, r, r->len);
    r->lost = r->retrans = false;
    r->sacked = true;
    m->sacked += r->len;
}

static void mark_lost(struct sentmap *m, struct sent_record *r)
{
    uncount(m, r, r->len);
    r->sacked = r->retrans = false;
    r->lost = true;
    m->lost += r->len;
    if (m->lost_hint != NULL && seq_lt(r->seq, m->lost_hint->seq))
        m->lost_hint = r;
}

static void free_record(struct pool *pool, struct sentmap *m, struct sent_record *r)
{
    if (m->lost_hint == r)
        m->lost_hint = next_of(m, r);
    list_remove(&r->link);
    m->count--;
    pool_free(pool, r);
}

/* A record for [start, start+len) at the end of the list; NULL: no memory. */
static struct sent_record *append(struct pool *pool, struct sentmap *m, tcp_seq start, uint32_t len,
                                  uint8_t flags, nsec_t now)
{
    struct sent_record *r = pool_alloc_raw(pool);
    if (r == NULL)
        return NULL;
    *r = (struct sent_record){
        .seq = start,
        .len = len,
        .sent = now,
        .flags = flags & (TCP_SYN | TCP_FIN | TCP_PSH),
        .transmissions = 1,
        .delivered = m->delivered,
        .delivered_at = m->delivered_at,
        .burst = m->burst,
        .app_limited = m->app_limited != 0,
    };
    list_push_back(&m->records, &r->link);
    m->count++;
    return r;
}

/* The tail of r from offset `at` on becomes a record of its own, with the same marks. */
static bool split(struct pool *pool, struct sentmap *m, struct sent_record *r, uint32_t at)
{
    struct sent_record *tail = pool_alloc_raw(pool);
    if (tail == NULL)
        return false;
    *tail = *r;
    tail->seq = seq_add(r->seq, at);
    tail->len = r->len - at;
    tail->flags &= (uint8_t)~TCP_SYN;
    tail->mtu_probe = r->mtu_probe = false;
    r->len = at;
    r->flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    list_insert_before(r->link.next, &tail->link);
    m->count++;
    return true;
}

/* r swallows its successor, which carries the same marks. */
static void join(struct pool *pool, struct sentmap *m, struct sent_record *r,
                 struct sent_record *next)
{
    r->len += next->len;
    r->mtu_probe = false;
    r->flags |= next->flags;
    r->sent = min_u64(r->sent, next->sent); /* a sample too long is harmless, too short is not */
    if (next->transmissions > r->transmissions)
        r->transmissions = next->transmissions;
    if (m->lost_hint == next)
        m->lost_hint = r;
    free_record(pool, m, next);
}

/* No memory: the newest record covers what follows it, in the state that cannot lose bytes. */
static void grow_last(struct sentmap *m, uint32_t len, uint8_t flags)
{
    struct sent_record *r = record_of(m->records.prev);
    if (r->sacked) {
        uncount(m, r, r->len);
        r->sacked = false;
    }
    r->len += len;
    r->mtu_probe = false;
    r->flags |= flags & (TCP_SYN | TCP_FIN);
    if (r->transmissions == 1)
        r->transmissions = 2; /* no RTT sample: its parts left at different times */
    if (r->lost)
        m->lost += len;
    if (r->retrans)
        m->retrans += len;
}

/* Turns what is owed into a record, if memory allows. */
static void settle(struct pool *pool, struct sentmap *m, nsec_t now)
{
    struct sent_record *r = append(pool, m, m->owed_seq, m->owed, m->owed_flags, now);
    if (r == NULL)
        return;
    r->transmissions = 2;   /* its time of sending is not known: no RTT sample */
    r->lost = m->owed_lost; /* in the sum already */
    m->owed = 0;
    m->owed_flags = 0;
    m->owed_lost = false;
}

bool sentmap_sent(struct pool *pool, struct sentmap *m, tcp_seq seq, uint32_t len, uint8_t flags,
                  nsec_t now)
{
    if (len == 0)
        return true;
    if (unlikely(m->owed > 0))
        settle(pool, m, now);
    /* An idle period ended: a delivery rate counts from here (the draft's 3.3). */
    if (m->total == 0)
        m->delivered_at = m->burst = now;
    m->total += len;
    if (likely(m->owed == 0 && append(pool, m, seq, len, flags, now) != NULL))
        return true;
    if (!list_empty(&m->records)) {
        grow_last(m, len, flags);
        return false;
    }
    if (m->owed == 0)
        m->owed_seq = seq;
    m->owed += len;
    m->owed_flags |= flags & (TCP_SYN | TCP_FIN);
    if (m->owed_lost)
        m->lost += len;
    return false;
}

bool sent_after(nsec_t sent1, tcp_seq end1, nsec_t sent2, tcp_seq end2)
{
    return sent1 > sent2 || (sent1 == sent2 && seq_gt(end1, end2));
}

/* r arrived, as far as `end`: RACK's part of it (RFC 8985 6.2 steps 2 and 3). */
static void note_arrived(struct sentmap *m, const struct sent_record *r, tcp_seq end,
                         struct sent_ack *out)
{
    struct sent_mark *k = r->transmissions == 1 ? &out->once : &out->again;
    if (!k->valid || sent_after(r->sent, end, k->sent, k->end))
        *k = (struct sent_mark){true, r->transmissions > 1, r->sent, end};
    if (seq_gt(end, m->fack))
        m->fack = end;
    else if (seq_lt(end, m->fack) && r->transmissions == 1) {
        out->reordered = true;
        out->late = max_u32(out->late, (uint32_t)seq_diff(m->fack, r->seq));
    }
}

/* The newest transmission among records sent once that an ACK is about. */
struct rtt_pick {
    bool valid;
    nsec_t sent;
};

/*
 * r arrived: is it the newest of those that this ACK delivers? The rate is what was delivered since
 * it left over the longer of two times: how long the sending took, how long the arriving
 * (draft-cheng-iccrg-delivery-rate-estimation 3.3; the latter is added in sentmap_ack()).
 */
static void sample_rate(struct sentmap *m, const struct sent_record *r, struct sent_ack *out)
{
    if (out->rate_interval && r->delivered < out->rate_prior)
        return;
    out->rate_prior = r->delivered;
    out->rate_interval = max_u64(r->sent - min_u64(r->burst, r->sent), 1);
    out->rate_since = r->delivered_at;
    out->rate_app_limited = r->app_limited;
    m->burst = r->sent;
}

static void pick(struct rtt_pick *p, const struct sent_record *r)
{
    if (r->transmissions != 1 || (p->valid && p->sent >= r->sent))
        return;
    p->valid = true;
    p->sent = r->sent;
}

/* A probe of the path's MTU arrived, as far as n bytes. */
static void note_probe(struct sent_record *r, uint32_t n, struct sent_ack *out)
{
    if (likely(!r->mtu_probe))
        return;
    r->mtu_probe = false;
    if (n == r->len)
        out->mtu_probe = n;
}

/* The first n bytes of r (all of it, or its front) are acknowledged. */
static void ack_bytes(struct sentmap *m, struct sent_record *r, uint32_t n, struct sent_ack *out,
                      struct rtt_pick *rtt)
{
    if (r->transmissions > 1)
        out->acked_retransmitted = true;
    if (!r->sacked) {
        out->delivered += n;
        pick(rtt, r);
        sample_rate(m, r, out);
        note_arrived(m, r, seq_add(r->seq, n), out);
    }
    note_probe(r, n, out);
    uncount(m, r, n);
    m->total -= n;
    out->flags |= r->flags & TCP_SYN;
    r->flags &= (uint8_t)~TCP_SYN;
    if (n == r->len)
        out->flags |= r->flags;
    r->seq = seq_add(r->seq, n);
    r->len -= n;
}

/* What an ACK says about bytes that have no record. */
static void ack_owed(struct sentmap *m, tcp_seq ack, struct sent_ack *out)
{
    if (seq_leq(ack, m->owed_seq))
        return;
    const uint32_t n = min_u32(m->owed, (uint32_t)seq_diff(ack, m->owed_seq));
    out->delivered += n;
    out->acked_retransmitted = true; /* for all we know */
    m->total -= n;
    if (m->owed_lost)
        m->lost -= n;
    out->flags |= m->owed_flags & TCP_SYN;
    m->owed_flags &= (uint8_t)~TCP_SYN;
    m->owed_seq = seq_add(m->owed_seq, n);
    m->owed -= n;
    if (m->owed == 0) {
        out->flags |= m->owed_flags;
        m->owed_flags = 0;
        m->owed_lost = false;
    }
}

static void ack_cumulative(struct pool *pool, struct sentmap *m, tcp_seq ack, struct sent_ack *out,
                           struct rtt_pick *rtt)
{
    struct sent_record *r;
    while ((r = sentmap_first(m)) != NULL && seq_lt(r->seq, ack)) {
        const uint32_t n = min_u32(r->len, (uint32_t)seq_diff(ack, r->seq));
        ack_bytes(m, r, n, out, rtt);
        if (r->len > 0)
            break;
        free_record(pool, m, r);
    }
    if (unlikely(m->owed > 0))
        ack_owed(m, ack, out);
    /*
     * Once a hole is filled the ACK also covers what arrived long ago behind it: no sample then,
     * although those records were sent once (Linux: FLAG_RETRANS_DATA_ACKED).
     */
    if (out->acked_retransmitted)
        rtt->valid = false;
}

/* Whether the first block reports a duplicate (RFC 2883 4). */
static bool is_dsack(const struct tcp_options *opt, tcp_seq ack)
{
    const struct tcp_sack_block *b = opt->sack;
    if (opt->sack_count == 0 || seq_geq(b[0].start, b[0].end))
        return false;
    if (seq_leq(b[0].end, ack))
        return true;
    return opt->sack_count > 1 && seq_geq(b[0].start, b[1].start) && seq_leq(b[0].end, b[1].end);
}

/* The valid blocks, ascending; returns how many. */
static unsigned sort_blocks(const struct tcp_options *opt, unsigned first, tcp_seq low,
                            tcp_seq high, struct tcp_sack_block *out)
{
    const unsigned count = min_u32(opt->sack_count, TCP_SACK_BLOCKS_MAX);
    unsigned n = 0;
    for (unsigned i = first; i < count; i++) {
        const struct tcp_sack_block b = opt->sack[i];
        if (!seq_lt(b.start, b.end) || !seq_gt(b.start, low) || !seq_leq(b.end, high))
            continue;
        unsigned at = n++;
        for (; at > 0 && seq_lt(b.start, out[at - 1].start); at--)
            out[at] = out[at - 1];
        out[at] = b;
    }
    return n;
}

/* A SACK may split r here. */
static bool sack_split(struct pool *pool, struct sentmap *m, struct sent_record *r, tcp_seq at)
{
    return m->count < SPLIT_RECORDS_MAX && split(pool, m, r, (uint32_t)seq_diff(at, r->seq));
}

/* Marks r, which overlaps the block, as far as it lies inside; r is split at the block's edges. */
static void sack_record(struct pool *pool, struct sentmap *m, struct sent_record *r,
                        const struct tcp_sack_block *b, struct sent_ack *out, struct rtt_pick *rtt)
{
    if (r->sacked)
        return;
    if (seq_lt(r->seq, b->start)) {
        /* The part behind the cut is the walk's next record. */
        sack_split(pool, m, r, b->start);
        return;
    }
    if (seq_gt(end_of(r), b->end) && !sack_split(pool, m, r, b->end))
        return;
    mark_sacked(m, r);
    note_probe(r, r->len, out);
    out->newly_sacked += r->len;
    out->delivered += r->len;
    pick(rtt, r);
    sample_rate(m, r, out);
    note_arrived(m, r, end_of(r), out);
}

/* Neighbours that are both sacked need one record only. Returns the one that remains. */
static struct sent_record *join_sacked(struct pool *pool, struct sentmap *m, struct sent_record *r)
{
    if (!r->sacked)
        return r;
    struct sent_record *after = next_of(m, r);
    if (after != NULL && after->sacked)
        join(pool, m, r, after);
    if (r->link.prev == &m->records)
        return r;
    struct sent_record *before = record_of(r->link.prev);
    if (!before->sacked)
        return r;
    join(pool, m, before, r);
    return before;
}

/* One walk over the records up to the highest block. */
static void ack_selective(struct pool *pool, struct sentmap *m, const struct tcp_sack_block *blocks,
                          unsigned n, struct sent_ack *out, struct rtt_pick *rtt)
{
    unsigned i = 0;
    struct sent_record *r = sentmap_first(m);
    while (r != NULL && i < n) {
        if (seq_leq(blocks[i].end, r->seq)) {
            i++;
            continue;
        }
        if (seq_lt(blocks[i].start, end_of(r))) {
            sack_record(pool, m, r, &blocks[i], out, rtt);
            r = join_sacked(pool, m, r);
        }
        r = next_of(m, r);
    }
}

void sentmap_ack(struct pool *pool, struct sentmap *m, tcp_seq snd_una, tcp_seq ack,
                 tcp_seq snd_nxt, const struct tcp_options *opt, nsec_t now, struct sent_ack *out)
{
    struct rtt_pick cumulative = {0}, selective = {0};
    memset(out, 0, sizeof(*out));
    if (seq_gt(ack, snd_nxt))
        return;
    if (seq_lt(m->fack, snd_una) || seq_gt(m->fack, snd_nxt))
        m->fack = snd_una; /* long idle, or the first ACK */
    if (seq_gt(ack, snd_una)) {
        out->acked = (uint32_t)seq_diff(ack, snd_una);
        ack_cumulative(pool, m, ack, out, &cumulative);
    }
    if (opt != NULL && opt->sack_count > 0) {
        out->dsack = is_dsack(opt, ack);
        struct tcp_sack_block blocks[TCP_SACK_BLOCKS_MAX];
        const unsigned n = sort_blocks(opt, out->dsack, seq_max(snd_una, ack), snd_nxt, blocks);
        ack_selective(pool, m, blocks, n, out, &selective);
    }
    const struct sent_record *first = sentmap_first(m);
    out->reneged = first != NULL && first->sacked;
    /* What is sacked was sent after what is acknowledged. */
    const struct rtt_pick *rtt = selective.valid ? &selective : &cumulative;
    out->rtt_valid = rtt->valid && now > rtt->sent;
    if (out->rtt_valid)
        out->rtt = now - rtt->sent;
    if (out->delivered > 0) {
        m->delivered += out->delivered;
        m->delivered_at = now;
        if (m->app_limited && (int32_t)((uint32_t)m->delivered - m->app_limited) > 0)
            m->app_limited = 0;
    }
    if (out->rate_interval && now > out->rate_since)
        out->rate_interval = max_u64(out->rate_interval, now - out->rate_since);
}

void sentmap_app_limited(struct sentmap *m)
{
    m->app_limited = max_u32((uint32_t)m->delivered + sentmap_pipe(m), 1);
}

uint32_t sentmap_mark_older(struct sentmap *m, const struct sent_mark *newest, nsec_t window,
                            nsec_t now, nsec_t *wait)
{
    uint32_t newly = 0;
    *wait = 0;
    for (struct sent_record *r = sentmap_first(m); r != NULL; r = next_of(m, r)) {
        if (r->sacked || r->lost)
            continue;
        /* What is sent again goes after what is sent first in the same instant. */
        const bool after = r->transmissions > 1 && !newest->again && r->sent == newest->sent;
        if (after || !sent_after(newest->sent, newest->end, r->sent, end_of(r))) {
            if (r->transmissions == 1)
                break; /* sent for the first time after `newest`: so was all that follows */
            continue;
        }
        if (r->sent + window <= now) {
            mark_lost(m, r);
            newly += r->len;
        } else {
            *wait = max_u64(*wait, r->sent + window - now);
        }
    }
    return newly;
}

void sentmap_mark_probe(struct sentmap *m)
{
    if (!list_empty(&m->records))
        record_of(m->records.prev)->mtu_probe = true;
}

bool sentmap_lost_is_probe(const struct sentmap *m)
{
    const struct sent_record *r = sentmap_first(m);
    while (r != NULL && !r->lost)
        r = next_of(m, r);
    return r != NULL && r->mtu_probe && r->len == m->lost;
}

void sentmap_unmark_lost(struct sentmap *m)
{
    for (struct sent_record *r = sentmap_first(m); r != NULL && m->lost > 0; r = next_of(m, r)) {
        if (!r->lost)
            continue;
        uncount(m, r, r->len);
        r->lost = false;
        r->retrans = r->transmissions > 1;
        if (r->retrans)
            m->retrans += r->len;
    }
    if (m->owed_lost) {
        m->owed_lost = false;
        m->lost -= m->owed;
    }
    m->lost_hint = NULL;
}

struct sent_record *sentmap_last(struct pool *pool, struct sentmap *m, uint32_t mss)
{
    if (list_empty(&m->records))
        return NULL;
    struct sent_record *r = record_of(m->records.prev);
    const uint32_t fin = (r->flags & TCP_FIN) != 0;
    const uint32_t text = r->len - fin;
    const uint32_t tail = text % mss ? text % mss : mss;
    if (text > tail && split(pool, m, r, text - tail))
        r = next_of(m, r);
    return r;
}

uint32_t sentmap_mark_head_lost(struct pool *pool, struct sentmap *m, uint32_t mss)
{
    struct sent_record *r = sentmap_first(m);
    while (r != NULL && r->sacked)
        r = next_of(m, r);
    if (r == NULL || r->lost)
        return 0;
    if (mss > 0 && r->len > mss && !r->mtu_probe)
        split(pool, m, r, mss); /* without memory all of it is marked */
    mark_lost(m, r);
    return r->len;
}

uint32_t sentmap_mark_all_lost(struct sentmap *m, bool forget_sack)
{
    uint32_t newly = 0;
    for (struct sent_record *r = sentmap_first(m); r != NULL; r = next_of(m, r)) {
        if (r->lost || (r->sacked && !forget_sack))
            continue;
        mark_lost(m, r);
        newly += r->len;
    }
    if (m->owed > 0 && !m->owed_lost) {
        m->owed_lost = true;
        m->lost += m->owed;
        newly += m->owed;
    }
    return newly;
}

struct sent_record *sentmap_next_lost(struct pool *pool, struct sentmap *m, uint32_t max)
{
    if (m->lost == 0 || max == 0)
        return NULL;
    if (unlikely(m->owed > 0))
        settle(pool, m, 0);
    struct sent_record *r = m->lost_hint != NULL ? m->lost_hint : sentmap_first(m);
    while (r != NULL && !r->lost)
        r = next_of(m, r);
    m->lost_hint = r;
    if (r == NULL)
        return NULL;
    if (r->len > max) {
        split(pool, m, r, max);
        return r;
    }
    struct sent_record *next;
    while ((next = next_of(m, r)) != NULL && next->lost && next->len <= max - r->len &&
           (r->flags & (TCP_SYN | TCP_PSH)) == 0)
        join(pool, m, r, next);
    return r;
}

void sentmap_retransmitted(struct sentmap *m, struct sent_record *rec, nsec_t now)
{
    uncount(m, rec, rec->len);
    rec->lost = rec->sacked = false;
    rec->told = false;
    rec->mtu_probe = false;
    rec->retrans = true;
    m->retrans += rec->len;
    rec->sent = now;
    if (rec->transmissions < UINT8_MAX)
        rec->transmissions++;
    rec->delivered = m->delivered;
    rec->delivered_at = m->delivered_at;
    rec->burst = m->burst;
    rec->app_limited = m->app_limited != 0;
}

void sentmap_clear(struct pool *pool, struct sentmap *m)
{
    struct sent_record *r;
    while ((r = sentmap_first(m)) != NULL)
        free_record(pool, m, r);
    sentmap_init(m);
}
