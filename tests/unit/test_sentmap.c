/* stack/tcp/sentmap.c, also against a naive model that keeps the state of every byte */
#include "stack/tcp/sentmap.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

#define MS NSEC_PER_MSEC

static struct test_pools pools;
static struct pool records;

static void setup(void)
{
    test_pools_open(&pools, 16);
    pool_init(pools.arena, &records, sizeof(struct sent_record));
}

static void teardown(void)
{
    test_pools_close(&pools);
}

static struct tcp_options sack(unsigned n, const uint32_t *edges)
{
    struct tcp_options o = {.sack_count = (uint8_t)n};
    for (unsigned i = 0; i < n; i++)
        o.sack[i] = (struct tcp_sack_block){seq(edges[2 * i]), seq(edges[2 * i + 1])};
    return o;
}

#define SACK(...) sack(ARRAY_LEN(((uint32_t[]){__VA_ARGS__})) / 2, (const uint32_t[]){__VA_ARGS__})

/* n records of 1000 bytes from 1000 on, a millisecond apart from 1 ms on. */
static void send_n(struct sentmap *m, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ck_assert(sentmap_sent(&records, m, seq(1000 + i * 1000), 1000, 0, (i + 1) * MS));
}

static struct sent_ack ack(struct sentmap *m, uint32_t una, uint32_t to, uint32_t nxt,
                           const struct tcp_options *o, nsec_t now)
{
    struct sent_ack out;
    sentmap_ack(&records, m, seq(una), seq(to), seq(nxt), o, now, &out);
    return out;
}

START_TEST(test_cumulative)
{
    struct sentmap m;
    sentmap_init(&m);
    ck_assert_ptr_null(sentmap_first(&m));
    send_n(&m, 4);
    ck_assert_uint_eq(m.total, 4000);
    ck_assert_uint_eq(sentmap_pipe(&m), 4000);
    struct sent_ack a = ack(&m, 1000, 3000, 5000, NULL, 100 * MS);
    ck_assert_uint_eq(a.acked, 2000);
    ck_assert_uint_eq(a.delivered, 2000);
    ck_assert(a.rtt_valid && a.rtt == 98 * MS); /* of the newest */
    ck_assert(!a.acked_retransmitted && !a.reneged && !a.dsack);
    ck_assert_uint_eq(m.count, 2);
    /* in the middle of a record: the front is gone, RTT is valid */
    a = ack(&m, 3000, 3500, 5000, NULL, 100 * MS);
    ck_assert_uint_eq(a.acked, 500);
    ck_assert(a.rtt_valid && a.rtt == 97 * MS);
    ck_assert_uint_eq(sentmap_first(&m)->seq.v, 3500);
    ck_assert_uint_eq(sentmap_first(&m)->len, 500);
    /* an old one and one of the future change nothing */
    a = ack(&m, 3500, 2000, 5000, NULL, 100 * MS);
    ck_assert_uint_eq(a.acked + a.delivered, 0);
    a = ack(&m, 3500, 6000, 5000, NULL, 100 * MS);
    ck_assert_uint_eq(a.acked + a.delivered, 0);
    a = ack(&m, 3500, 5000, 5000, NULL, 100 * MS);
    ck_assert_uint_eq(a.acked, 1500);
    ck_assert_uint_eq(m.total + m.count + records.live, 0);
    ck_assert_uint_eq(m.delivered, 4000);
}
END_TEST

START_TEST(test_flags)
{
    struct sentmap m;
    sentmap_init(&m);
    sentmap_sent(&records, &m, seq(UINT32_MAX), 1, TCP_SYN, 1);
    struct sent_ack a = ack(&m, UINT32_MAX, 0, 0, NULL, 2);
    ck_assert_uint_eq(a.flags, TCP_SYN);
    sentmap_sent(&records, &m, seq(0), 101, TCP_FIN | TCP_ACK, 3);
    a = ack(&m, 0, 100, 101, NULL, 4);
    ck_assert_uint_eq(a.flags, 0);
    ck_assert_uint_eq(sentmap_first(&m)->flags, TCP_FIN);
    a = ack(&m, 100, 101, 101, NULL, 5);
    ck_assert_uint_eq(a.flags, TCP_FIN);
    ck_assert_uint_eq(records.live, 0);
}
END_TEST

/* RFC 2018, 6675: blocks split records, pipe falls, neighbours join. */
START_TEST(test_sack)
{
    struct sentmap m;
    sentmap_init(&m);
    send_n(&m, 5);
    struct tcp_options o = SACK(2500, 3500);
    struct sent_ack a = ack(&m, 1000, 1000, 6000, &o, 10 * MS);
    ck_assert_uint_eq(a.newly_sacked, 1000);
    ck_assert_uint_eq(a.delivered, 1000);
    ck_assert(a.rtt_valid && a.rtt == 7 * MS);
    ck_assert_uint_eq(m.sacked, 1000);
    ck_assert_uint_eq(sentmap_pipe(&m), 4000);
    ck_assert_uint_eq(m.count, 6); /* two were split, two halves joined */
    a = ack(&m, 1000, 1000, 6000, &o, 11 * MS);
    ck_assert_uint_eq(a.newly_sacked, 0);
    ck_assert(!a.rtt_valid);
    /* unsorted, overlapping and invalid blocks */
    o = SACK(5000, 6000, 2000, 2600, 900, 1500, 5500, 6001);
    a = ack(&m, 1000, 1000, 6000, &o, 12 * MS);
    ck_assert_uint_eq(a.newly_sacked, 1500);
    ck_assert_uint_eq(m.sacked, 2500);
    /* bytes sacked before are delivered once */
    a = ack(&m, 1000, 3500, 6000, NULL, 13 * MS);
    ck_assert_uint_eq(a.acked, 2500);
    ck_assert_uint_eq(a.delivered, 1000);
    ck_assert(!a.reneged);
    ck_assert_uint_eq(m.sacked, 1000);
    sentmap_clear(&records, &m);
    ck_assert_uint_eq(records.live, 0);
}
END_TEST

/* RFC 2883 4: at or below the ACK, or inside the second block; reported, not applied. */
START_TEST(test_dsack)
{
    struct sentmap m;
    sentmap_init(&m);
    send_n(&m, 5);
    struct tcp_options o = SACK(1500, 2000);
    struct sent_ack a = ack(&m, 1000, 2000, 6000, &o, 10 * MS);
    ck_assert(a.dsack);
    ck_assert_uint_eq(a.newly_sacked, 0);
    o = SACK(4000, 4500, 4000, 6000);
    a = ack(&m, 2000, 2000, 6000, &o, 11 * MS);
    ck_assert(a.dsack);
    ck_assert_uint_eq(a.newly_sacked, 2000);
    o = SACK(3000, 3500, 4000, 6000);
    a = ack(&m, 2000, 2000, 6000, &o, 12 * MS);
    ck_assert(!a.dsack);
    ck_assert_uint_eq(a.newly_sacked, 500);
    sentmap_clear(&records, &m);
}
END_TEST

/* RFC 2018 8: the receiver took back what it had reported. */
START_TEST(test_reneging)
{
    struct sentmap m;
    sentmap_init(&m);
    send_n(&m, 5);
    struct tcp_options o = SACK(3000, 4000);
    ack(&m, 1000, 1000, 6000, &o, 10 * MS);
    struct sent_ack a = ack(&m, 1000, 3000, 6000, NULL, 11 * MS);
    ck_assert(a.reneged);
    ck_assert_uint_eq(sentmap_mark_all_lost(&m, true), 3000);
    ck_assert_uint_eq(m.sacked, 0);
    ck_assert_uint_eq(m.lost, 3000);
    sentmap_clear(&records, &m);
}
END_TEST

/* Karn: once a hole is filled, what waited behind it gives no sample either. */
START_TEST(test_karn)
{
    struct sentmap m;
    sentmap_init(&m);
    send_n(&m, 4);
    ck_assert_uint_eq(sentmap_mark_head_lost(&records, &m, 1000), 1000);
    sentmap_retransmitted(&m, sentmap_next_lost(&records, &m, 1000), 50 * MS);
    struct sent_ack a = ack(&m, 1000, 5000, 5000, NULL, 60 * MS);
    ck_assert(a.acked_retransmitted && !a.rtt_valid);
    ck_assert_uint_eq(m.lost + m.retrans + m.total, 0);
}
END_TEST

START_TEST(test_head_lost)
{
    struct sentmap m;
    sentmap_init(&m);
    ck_assert_uint_eq(sentmap_mark_head_lost(&records, &m, 1000), 0);
    sentmap_sent(&records, &m, seq(1000), 64000, 0, MS);
    ck_assert_uint_eq(sentmap_mark_head_lost(&records, &m, 1448), 1448);
    ck_assert_uint_eq(sentmap_mark_head_lost(&records, &m, 1448), 0);
    ck_assert_uint_eq(m.count, 2);
    ck_assert_uint_eq(sentmap_pipe(&m), 64000 - 1448);
    /* a retransmission that is lost again (the timer says so) */
    struct sent_record *r = sentmap_next_lost(&records, &m, 5000);
    ck_assert_uint_eq(r->len, 1448);
    sentmap_retransmitted(&m, r, 2 * MS);
    ck_assert_uint_eq(sentmap_mark_head_lost(&records, &m, 1448), 1448);
    ck_assert_uint_eq(m.retrans, 0);
    ck_assert_uint_eq(m.lost, 1448);
    sentmap_clear(&records, &m);
}
END_TEST

/* After a time-out small records go out again together, large ones in parts. */
START_TEST(test_all_lost)
{
    struct sentmap m;
    sentmap_init(&m);
    send_n(&m, 6);
    struct tcp_options o = SACK(4000, 5000);
    ack(&m, 1000, 1000, 7000, &o, 10 * MS);
    ck_assert_uint_eq(sentmap_mark_all_lost(&m, false), 5000);
    ck_assert_uint_eq(sentmap_pipe(&m), 0);
    struct sent_record *r = sentmap_next_lost(&records, &m, 2500);
    ck_assert(r->seq.v == 1000 && r->len == 2000);
    sentmap_retransmitted(&m, r, 20 * MS);
    r = sentmap_next_lost(&records, &m, 2500);
    ck_assert(r->seq.v == 3000 && r->len == 1000);
    sentmap_retransmitted(&m, r, 20 * MS);
    r = sentmap_next_lost(&records, &m, 2500);
    ck_assert(r->seq.v == 5000 && r->len == 2000);
    sentmap_retransmitted(&m, r, 20 * MS);
    ck_assert_ptr_null(sentmap_next_lost(&records, &m, 2500));
    ck_assert_uint_eq(m.retrans, 5000);
    ck_assert_uint_eq(sentmap_pipe(&m), 5000);
    /* and all of it again */
    ck_assert_uint_eq(sentmap_mark_all_lost(&m, false), 5000);
    ck_assert_uint_eq(m.retrans, 0);
    sentmap_clear(&records, &m);
    ck_assert_uint_eq(records.live, 0);
}
END_TEST

/* A peer that SACKs every second byte cannot buy records without bound. */
START_TEST(test_split_bound)
{
    struct sentmap m;
    sentmap_init(&m);
    sentmap_sent(&records, &m, seq(0), 60000, 0, MS);
    uint32_t sacked = 0;
    for (uint32_t i = 1; i < 59000; i += 2) {
        struct tcp_options o = SACK(i, i + 1);
        sacked += ack(&m, 0, 0, 60000, &o, 2 * MS).newly_sacked;
    }
    ck_assert_uint_le(m.count, 4097);
    ck_assert_uint_eq(m.sacked, sacked);
    ck_assert_uint_gt(sacked, 2000);
    struct tcp_options o = SACK(1, 60000);
    ack(&m, 0, 0, 60000, &o, 3 * MS);
    ck_assert_uint_eq(m.sacked, 59999);
    ck_assert_uint_eq(m.count, 2);
    sentmap_clear(&records, &m);
}
END_TEST

/* No memory for records: nothing that was sent is forgotten. */
START_TEST(test_no_memory)
{
    struct sentmap m;
    struct list taken;
    struct sent_record *r;
    list_init(&taken);
    sentmap_init(&m);
    while ((r = pool_alloc(&records)) != NULL)
        list_push_back(&taken, &r->link);
    /* nothing at all is tracked yet */
    ck_assert(!sentmap_sent(&records, &m, seq(0), 1000, 0, MS));
    ck_assert(!sentmap_sent(&records, &m, seq(1000), 501, TCP_FIN, 2 * MS));
    ck_assert_uint_eq(sentmap_pipe(&m), 1501);
    struct sent_ack a = ack(&m, 0, 200, 1501, NULL, 3 * MS);
    ck_assert_uint_eq(a.acked, 200);
    ck_assert(!a.rtt_valid);
    ck_assert_uint_eq(sentmap_mark_all_lost(&m, false), 1301);
    ck_assert_ptr_null(sentmap_next_lost(&records, &m, 500));
    /* one record is free again: what is owed comes back as a record, too long to be split */
    pool_free(&records, list_entry(list_pop_front(&taken), struct sent_record, link));
    r = sentmap_next_lost(&records, &m, 500);
    ck_assert(r != NULL && r->seq.v == 200 && r->len == 1301 && r->flags == TCP_FIN);
    sentmap_retransmitted(&m, r, 4 * MS);
    /* further frames grow it */
    ck_assert(!sentmap_sent(&records, &m, seq(1501), 99, 0, 5 * MS));
    ck_assert_uint_eq(m.total, 1400);
    ck_assert_uint_eq(m.retrans, 1400);
    ack(&m, 200, 700, 1600, NULL, 6 * MS);
    ck_assert_uint_eq(sentmap_first(&m)->seq.v, 700);
    ck_assert_uint_eq(sentmap_mark_all_lost(&m, false), 900);
    a = ack(&m, 700, 1600, 1600, NULL, 7 * MS);
    ck_assert_uint_eq(a.flags, TCP_FIN);
    ck_assert_uint_eq(m.total + m.lost + m.retrans + m.sacked + m.count, 0);
    struct list *n;
    while ((n = list_pop_front(&taken)) != NULL)
        pool_free(&records, list_entry(n, struct sent_record, link));
    ck_assert_uint_eq(records.live, 0);
}
END_TEST

struct byte_state {
    nsec_t sent;
    uint8_t times;
    bool sacked, lost, retrans, fresh; /* fresh: this ACK brought news of it */
};

enum { SPAN = 1 << 15 };

struct model {
    struct test_random r;
    struct sentmap m;
    struct byte_state *b; /* of the bytes from una on */
    tcp_seq una;
    uint32_t len;
    nsec_t now;
    unsigned rtt_possible, rtt_exact;
    struct tcp_sack_block last[TCP_SACK_BLOCKS_MAX];
};

/* Every byte lies in one record that says of it what the model says; the sums are right. */
static void model_check(struct model *k)
{
    uint32_t at = 0, sacked = 0, lost = 0, retrans = 0, count = 0, wrong = 0;
    bool before_sacked = false;
    list_for_each (n, &k->m.records) {
        const struct sent_record *r = list_entry(n, struct sent_record, link);
        wrong += r->seq.v != k->una.v + at || r->len == 0 || at + r->len > k->len;
        wrong += before_sacked && r->sacked; /* should have been joined */
        before_sacked = r->sacked;
        for (uint32_t i = at; i < at + r->len && wrong == 0; i++) {
            const struct byte_state *s = &k->b[i];
            wrong += s->sacked != r->sacked || s->lost != r->lost || s->retrans != r->retrans;
            wrong += r->transmissions < s->times || r->sent > s->sent;
        }
        ck_assert_uint_eq(wrong, 0);
        at += r->len;
        count++;
        sacked += r->sacked ? r->len : 0;
        lost += r->lost ? r->len : 0;
        retrans += r->retrans ? r->len : 0;
    }
    ck_assert_uint_eq(at, k->len);
    ck_assert_uint_eq(k->m.total, k->len);
    ck_assert_uint_eq(k->m.sacked, sacked);
    ck_assert_uint_eq(k->m.lost, lost);
    ck_assert_uint_eq(k->m.retrans, retrans);
    ck_assert_uint_eq(k->m.count, count);
    ck_assert_uint_eq(records.live, count);
}

static void model_send(struct model *k)
{
    uint32_t n = 1 + test_random_below(&k->r, test_random_one_in(&k->r, 4) ? 9000 : 1500);
    if (n > SPAN - k->len)
        return;
    ck_assert(sentmap_sent(&records, &k->m, seq_add(k->una, k->len), n, 0, k->now));
    for (uint32_t i = 0; i < n; i++)
        k->b[k->len++] = (struct byte_state){.sent = k->now, .times = 1};
}

/* Random blocks: new, repeated, stale, out of range, inverted. */
static void random_blocks(struct model *k, struct tcp_options *o)
{
    o->sack_count = (uint8_t)test_random_below(&k->r, TCP_SACK_BLOCKS_MAX + 1);
    for (unsigned i = 0; i < o->sack_count; i++) {
        const uint32_t s = test_random_below(&k->r, k->len + 20) - 10;
        const uint32_t n = test_random_below(&k->r, test_random_one_in(&k->r, 3) ? 6000 : 300);
        o->sack[i] = (struct tcp_sack_block){seq_add(k->una, s), seq_add(k->una, s + n)};
        if (test_random_one_in(&k->r, 30))
            o->sack[i].end = seq_sub(o->sack[i].start, n);
        if (test_random_one_in(&k->r, 3))
            o->sack[i] = k->last[i];
        k->last[i] = o->sack[i];
    }
}

static bool naive_dsack(const struct tcp_options *o, tcp_seq to)
{
    if (o->sack_count == 0 || seq_diff(o->sack[0].end, o->sack[0].start) <= 0)
        return false;
    return seq_diff(o->sack[0].end, to) <= 0 ||
           (o->sack_count > 1 && seq_diff(o->sack[0].start, o->sack[1].start) >= 0 &&
            seq_diff(o->sack[0].end, o->sack[1].end) <= 0);
}

/* Applies valid blocks to the model; returns the bytes newly sacked. */
static uint32_t naive_sack(struct model *k, const struct tcp_options *o, uint32_t acked,
                           unsigned first)
{
    uint32_t newly = 0;
    for (unsigned i = first; i < o->sack_count; i++) {
        const int32_t s = seq_diff(o->sack[i].start, k->una);
        const int32_t e = seq_diff(o->sack[i].end, k->una);
        if (s >= e || s <= (int32_t)acked || e > (int32_t)k->len)
            continue;
        for (int32_t j = s; j < e; j++) {
            struct byte_state *b = &k->b[j];
            newly += !b->sacked;
            b->fresh |= !b->sacked;
            b->sacked = true;
            b->lost = b->retrans = false;
        }
    }
    return newly;
}

/* The sample that RFC 6298 and Karn allow; false: none. */
static bool naive_rtt(const struct model *k, uint32_t acked, nsec_t *rtt)
{
    nsec_t newest = 0;
    for (uint32_t i = acked; i < k->len; i++) {
        if (k->b[i].fresh && k->b[i].times == 1)
            newest = max_u64(newest, k->b[i].sent);
    }
    bool again = false;
    for (uint32_t i = 0; i < acked; i++)
        again |= k->b[i].times > 1;
    const bool selective = newest != 0;
    for (uint32_t i = 0; i < acked && !again && !selective; i++) {
        if (k->b[i].fresh)
            newest = max_u64(newest, k->b[i].sent);
    }
    *rtt = k->now - newest;
    return newest != 0 && *rtt > 0;
}

static void model_ack(struct model *k)
{
    struct tcp_options o = {0};
    if (!test_random_one_in(&k->r, 3))
        random_blocks(k, &o);
    uint32_t acked =
        test_random_one_in(&k->r, 2) ? 0 : test_random_below(&k->r, min_u32(k->len, 4000) + 1);
    if (test_random_one_in(&k->r, 40))
        acked = k->len;
    const tcp_seq to = seq_add(k->una, acked);
    uint32_t delivered = 0;
    bool again = false;
    for (uint32_t i = 0; i < k->len; i++) {
        k->b[i].fresh = i < acked && !k->b[i].sacked;
        delivered += k->b[i].fresh;
        again |= i < acked && k->b[i].times > 1;
    }
    const bool dsack = naive_dsack(&o, to);
    const uint32_t newly = naive_sack(k, &o, acked, dsack);

    struct sent_ack out;
    const uint64_t before = k->m.delivered;
    sentmap_ack(&records, &k->m, k->una, to, seq_add(k->una, k->len), &o, k->now, &out);
    ck_assert_uint_eq(out.acked, acked);
    ck_assert_uint_eq(out.newly_sacked, newly);
    ck_assert_uint_eq(out.delivered, delivered + newly);
    ck_assert_uint_eq(k->m.delivered - before, delivered + newly);
    ck_assert_uint_eq(out.dsack, dsack);
    ck_assert(!again || out.acked_retransmitted);
    nsec_t rtt;
    const bool valid = naive_rtt(k, acked, &rtt);
    k->rtt_possible += valid;
    /* Joined records may make it more careful than the bytes ask for, never less. */
    ck_assert(valid || !out.rtt_valid);
    if (out.rtt_valid)
        ck_assert_uint_ge(out.rtt, rtt);
    k->rtt_exact += out.rtt_valid && out.rtt == rtt;
    ck_assert(out.reneged == (acked < k->len && k->b[acked].sacked));

    memmove(k->b, k->b + acked, (k->len - acked) * sizeof(*k->b));
    k->len -= acked;
    k->una = to;
}

static void model_mark_head(struct model *k)
{
    const uint32_t mss = 200 + test_random_below(&k->r, 1200);
    uint32_t at = 0;
    while (at < k->len && k->b[at].sacked)
        at++;
    const bool can = at < k->len && !k->b[at].lost;
    const uint32_t n = sentmap_mark_head_lost(&records, &k->m, mss);
    ck_assert_uint_le(n, mss);
    ck_assert(can == (n > 0));
    for (uint32_t i = at; i < at + n; i++) {
        k->b[i].lost = true;
        k->b[i].retrans = false;
    }
}

static void model_mark_all(struct model *k)
{
    const bool forget = test_random_one_in(&k->r, 3);
    uint32_t newly = 0;
    for (uint32_t i = 0; i < k->len; i++) {
        struct byte_state *b = &k->b[i];
        if (b->lost || (b->sacked && !forget))
            continue;
        b->lost = true;
        b->sacked = b->retrans = false;
        newly++;
    }
    ck_assert_uint_eq(sentmap_mark_all_lost(&k->m, forget), newly);
}

static void model_retransmit(struct model *k)
{
    const uint32_t max = 1 + test_random_below(&k->r, 3000);
    uint32_t at = 0;
    while (at < k->len && !k->b[at].lost)
        at++;
    struct sent_record *r = sentmap_next_lost(&records, &k->m, max);
    ck_assert((r == NULL) == (at == k->len));
    if (r == NULL)
        return;
    ck_assert_uint_eq(r->seq.v, k->una.v + at);
    ck_assert_uint_le(r->len, max);
    if (test_random_one_in(&k->r, 10))
        return; /* the window said no */
    sentmap_retransmitted(&k->m, r, k->now);
    for (uint32_t i = at; i < at + r->len; i++) {
        struct byte_state *b = &k->b[i];
        b->lost = false;
        b->retrans = true;
        b->sent = k->now;
        b->times += b->times < UINT8_MAX;
    }
}

START_TEST(test_model)
{
    struct model *k = calloc(1, sizeof(*k));
    k->b = malloc(SPAN * sizeof(*k->b));
    k->r.state = (uint64_t)_i + 1;
    k->una = seq(0u - test_random_below(&k->r, 100000));
    k->now = NSEC_PER_SEC;
    sentmap_init(&k->m);
    for (int op = 0; op < 1500; op++) {
        k->now += 1 + test_random_below(&k->r, 1000);
        const uint32_t kind = test_random_below(&k->r, 20);
        if (kind < 8)
            model_send(k);
        else if (kind < 14)
            model_ack(k);
        else if (kind < 16)
            model_mark_head(k);
        else if (kind < 19)
            model_retransmit(k);
        else if (test_random_one_in(&k->r, 4))
            model_mark_all(k);
        model_check(k);
    }
    ck_assert_uint_gt(k->rtt_exact * 10, k->rtt_possible * 8);
    sentmap_clear(&records, &k->m);
    ck_assert_uint_eq(records.live, 0);
    free(k->b);
    free(k);
}
END_TEST

Suite *suite_sentmap(void)
{
    Suite *s = suite_create("sentmap");
    TCase *tc = tcase_create("sentmap");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_cumulative);
    tcase_add_test(tc, test_flags);
    tcase_add_test(tc, test_sack);
    tcase_add_test(tc, test_dsack);
    tcase_add_test(tc, test_reneging);
    tcase_add_test(tc, test_karn);
    tcase_add_test(tc, test_head_lost);
    tcase_add_test(tc, test_all_lost);
    tcase_add_test(tc, test_split_bound);
    tcase_add_test(tc, test_no_memory);
    tcase_add_loop_test(tc, test_model, 0, 8);
    tcase_set_timeout(tc, 240);
    suite_add_tcase(s, tc);
    return s;
}
