/*
 * Accurate ECN (RFC 9768): see accecn.h. What comes in is counted in tcp_accecn_arrives() and told
 * in tcp_accecn_mark(); what the peer tells is read in tcp_accecn_feedback(). The heuristics are
 * those of its appendix A, in Linux's choice of numbers.
 */
#include "stack/tcp/accecn.h"

#include "stack/tcp/conn.h"

/* Of an ACE field that says how a SYN or SYN-ACK arrived, by the ECN field (3.1.1, tables 2 and 3).
 */
static const uint8_t handshake_ace[] = {2, 3, 4, 6};
#define ACE_SYN 7u /* asks for accurate ECN */

#define COUNTERS      3u
#define COUNTER_BYTES 3u
#define COUNTER_MASK  0xffffffu
/* 3.2.3.3: each counter is told once in so many bytes */
#define TELL_BYTES (1u << 22)
/* A counter that was never heard of may have wrapped after so many bytes. */
#define UNHEARD_MAX ((1u << 23) - 1)
/* ACKs of more segments than this are usual on this path: one of many is no sign of lost ones. */
#define THIN_ACKS      (4u << ACK_SIZE_SHIFT)
#define ACK_SIZE_SHIFT 6
#define BEACON_DEFAULT 3

/* ---- the option ---- */

static uint32_t get_counter(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

static void put_counter(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 16);
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)v;
}

static unsigned counters_in(const uint8_t *option)
{
    return min_u32((option[1] - 2u) / COUNTER_BYTES, COUNTERS);
}

/* Whose bytes the i-th counter counts (table 5). */
static unsigned field_of(uint8_t kind, unsigned i)
{
    static const uint8_t order0[] = {IP_ECT_0, IP_CE, IP_ECT_1},
                         order1[] = {IP_ECT_1, IP_CE, IP_ECT_0};
    return kind == TCP_ACCECN_0 ? order0[i] : order1[i];
}

static uint32_t begin_of(unsigned field)
{
    return field == IP_CE ? 0 : 1;
}

/* How many counters an option must have, in order 1, to tell of this field. */
static unsigned needed_for(unsigned field)
{
    return field == IP_ECT_1 ? 1 : field == IP_CE ? 2 : 3;
}

/*
 * How many counters fit beside the other options. Those needed take the place of SACK blocks, but
 * not of the first two, for losses are more urgent (3.2.3.3). -1: the option does not fit.
 */
static int fit(struct tcp_options *o, unsigned needed)
{
    const uint8_t blocks = o->sack_count;
    for (;;) {
        const uint32_t room = TCP_OPTIONS_MAX - tcp_options_size(o);
        for (int n = COUNTERS; n >= (int)needed; n--)
            if (tcp_accecn_size(2 + (uint32_t)n * COUNTER_BYTES, o->sack_count > 0) <= room)
                return n;
        if (o->sack_count <= 2 || needed == 0)
            break;
        o->sack_count--;
    }
    o->sack_count = blocks;
    return -1;
}

static bool beacon_due(const struct stack_cx *cx, const struct tcp_conn *c)
{
    const uint8_t set = cx->st->config.tuning.ecn_beacon;
    if (set == STACK_ECN_BEACON_NONE)
        return false;
    const uint64_t since = (uint64_t)(tcp_short_clock(cx->now) - c->accecn->option_at) << 10;
    return since * (set ? set : BEACON_DEFAULT) >= c->rtt.srtt;
}

/* Whether this segment carries it. Linux: only who has seen the peer's sends its own. */
static bool option_due(const struct stack_cx *cx, const struct tcp_conn *c)
{
    const struct tcp_accecn *x = c->accecn;
    const uint8_t how = cx->st->config.tuning.ecn_option;
    if (how == STACK_ECN_OPTION_OFF || x->seen == ACCECN_UNSEEN ||
        (x->option_lost && how != STACK_ECN_OPTION_ALWAYS))
        return false;
    return how != STACK_ECN_OPTION_SELDOM || x->demand || beacon_due(cx, c);
}

uint8_t tcp_accecn_reserve(const struct stack *st, const struct tcp_accecn *x)
{
    const uint8_t how = st->config.tuning.ecn_option;
    const bool regular =
        how == STACK_ECN_OPTION_ALWAYS || (how == STACK_ECN_OPTION_FITTING && !x->option_lost);
    return regular && x->seen != ACCECN_UNSEEN ? (TCP_ACCECN_MAX + 3) & ~3 : 0;
}

static void add_option(struct stack_cx *cx, struct tcp_conn *c, struct tcp_options *o, bool whole)
{
    struct tcp_accecn *x = c->accecn;
    x->dsack_answered = false;
    if (whole || !option_due(cx, c)) /* a probe of the path's MTU has no room to spare */
        return;
    const int n = fit(o, x->needed);
    if (n < 0)
        return;
    x->option[0] = TCP_ACCECN_1;
    x->option[1] = (uint8_t)(2 + n * (int)COUNTER_BYTES);
    for (unsigned i = 0; i < COUNTERS && i < (unsigned)n; i++) {
        const unsigned field = field_of(TCP_ACCECN_1, i);
        put_counter(x->option + 2 + i * COUNTER_BYTES,
                    x->received_bytes[field - 1] + begin_of(field));
    }
    o->accecn = x->option;
    x->needed = 0;
    x->option_at = tcp_short_clock(cx->now);
    if (x->demand)
        x->demand--;
    x->dsack_answered = o->sack_count && seq_eq(o->sack[0].start, c->dsack.start) &&
                        seq_eq(o->sack[0].end, c->dsack.end);
}

/* The peer's first option: whether something on the way clears counters (3.2.3.2.4). */
static enum tcp_accecn_seen judge(const uint8_t *option)
{
    const unsigned n = counters_in(option);
    if (n == 0)
        return ACCECN_EMPTY;
    const uint8_t *last = option + 2 + 2 * COUNTER_BYTES;
    if (get_counter(option + 2) == 0 || (n == COUNTERS && get_counter(last) == 0))
        return ACCECN_MANGLED;
    return ACCECN_COUNTERS;
}

/* ---- the handshake ---- */

bool tcp_accecn_syn_again(const struct stack *st, struct tcp_ecn_deal *d,
                          const struct tcp_segment *syn, uint8_t tos)
{
    if (st->config.ecn < STACK_ECN_ACCURATE)
        return true;
    if (d->mode == TCP_ECN_CLASSIC)
        return !tcp_accecn_asked(syn);
    if (d->mode != TCP_ECN_ACCURATE)
        return true;
    d->syn_field = tos & IP_ECN_MASK;
    d->plain |= tcp_ace(syn) == 0;
    return tcp_ace(syn) != 3;
}

void tcp_accecn_answer(const struct stack *st, struct tcp_ecn_deal *d, unsigned retries,
                       struct tcp_segment *syn_ack)
{
    static const uint8_t first[COUNTERS + 1][TCP_ACCECN_MAX] = {
        {TCP_ACCECN_1, 2},
        {TCP_ACCECN_1, 5, 0, 0, 1},
        {TCP_ACCECN_1, 8, 0, 0, 1, 0, 0, 0},
        {TCP_ACCECN_1, 11, 0, 0, 1, 0, 0, 0, 0, 0, 1},
    };
    /* 3.2.3.2.2: again without the option, then without anything that may not come through */
    if (retries >= 2) {
        d->plain = true;
        return;
    }
    tcp_set_ace(syn_ack, handshake_ace[d->syn_field]);
    if (d->answered || st->config.tuning.ecn_option == STACK_ECN_OPTION_OFF)
        return;
    d->answered = true;
    const int n = fit(&syn_ack->opt, 0);
    if (n >= 0)
        syn_ack->opt.accecn = first[n];
}

struct tcp_accecn *tcp_accecn_new(struct stack *st, const struct tcp_ecn_deal *d)
{
    struct tcp_accecn *x = pool_alloc(&st->tcp.accecns);
    if (x == NULL) {
        stack_count(st, COUNT_NO_MEMORY);
        return NULL;
    }
    x->deal = *d;
    x->last_field = d->syn_field;
    x->demand = 1;
    return x;
}

void tcp_accecn_drop(struct stack *st, struct tcp_conn *c)
{
    pool_free(&st->tcp.accecns, c->accecn);
    c->accecn = NULL;
}

/* Our SYN or SYN-ACK was not ECN-capable; a path that makes it so is not to be trusted (3.2.2.3).
 */
static void check_transition(const struct stack *st, struct tcp_accecn *x, unsigned ace)
{
    if (ace != handshake_ace[0] && !st->config.tuning.no_ecn_fallback)
        x->no_ect = true;
}

/* r.cep moved: CWR in the field belongs on each segment that a device cuts, and most clear it on
 * all but the first; see frame_payload_max(). */
static void note_ace(struct tcp_conn *c)
{
    c->cwr_due = (tcp_ace_told(c->accecn) & 2) != 0;
}

void tcp_accecn_granted(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn_ack,
                        uint8_t tos)
{
    struct tcp_accecn *x = c->accecn;
    const unsigned ace = tcp_ace(syn_ack);
    x->deal.syn_field = tos & IP_ECN_MASK;
    x->last_field = x->deal.syn_field;
    if (ace != 5) /* 3.1.3: reserved, as if the SYN had arrived unchanged */
        check_transition(cx->st, x, ace);
    if (x->deal.syn_field == IP_CE) /* 3.2.2.2: once, however many SYN-ACKs come */
        x->received_ce = 1;
    note_ace(c);
    if (syn_ack->opt.accecn != NULL) {
        x->seen = judge(syn_ack->opt.accecn);
        x->demand = 2;
    }
}

/* Table 4: a server's first segment after its SYN-ACK, if it is a pure ACK. */
static void third_ack(const struct stack *st, struct tcp_accecn *x, unsigned ace)
{
    switch (ace) {
    case 0: /* the peer may count nothing */
        x->no_ect = x->deaf = true;
        break;
    case 6:
        x->delivered_ce = 1;
        check_transition(st, x, ace);
        break;
    case 2:
    case 3:
    case 4:
        check_transition(st, x, ace);
        break;
    default: /* of no meaning yet */
        break;
    }
}

void tcp_accecn_ack_syn(struct stack_cx *cx, struct tcp_conn *c)
{
    c->accecn->reflects = true;
    tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_HANDSHAKE);
    c->accecn->reflects = false;
}

void tcp_accecn_challenge(struct stack_cx *cx, struct tcp_conn *c, uint8_t tos)
{
    c->accecn->deal.syn_field = tos & IP_ECN_MASK;
    c->accecn->reflects = true;
    tcp_challenge(cx, c);
    c->accecn->reflects = false;
}

/* ---- what goes ---- */

void tcp_accecn_mark(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e,
                     struct tcp_segment *s, uint8_t *tos)
{
    struct tcp_accecn *x = c->accecn;
    if (e->flags & TCP_SYN) {
        if (e->flags & TCP_ACK)
            tcp_accecn_answer(cx->st, &x->deal, c->retries, s);
        else if (c->retries <= 1) /* 3.1.4.1: once more, then without */
            tcp_set_ace(s, ACE_SYN);
        return;
    }
    add_option(cx, c, &s->opt, e->whole);
    if (x->reflects && s->opt.sack_count == 0)
        tcp_set_ace(s, handshake_ace[x->deal.syn_field]);
    else
        tcp_set_ace(s, tcp_ace_told(x));
    x->unreported = 0;
    if (!x->no_ect && !x->deal.plain) /* Linux: everything, as ECN++ has it */
        *tos |= IP_ECT_0;
}

/* ---- what comes ---- */

static void count_bytes(struct tcp_accecn *x, unsigned field, uint32_t len)
{
    uint32_t *n = &x->received_bytes[field - 1];
    const uint32_t before = *n;
    *n += len;
    x->needed = (uint8_t)max_u32(x->needed, needed_for(field)) & 3;
    if ((before ^ *n) & ~(TELL_BYTES - 1))
        x->demand = (uint8_t)max_u32(x->demand, 1) & 3;
}

/*
 * Linux makes use of the option from the second ACK of text on, and takes a first one of more than
 * 7 segments for a counter that wrapped. Of frames that come together the first few have their own.
 */
static bool first_ack_due(const struct tcp_conn *c)
{
    return seq_eq(c->rcv_wup, seq_add(c->irs, 1)) &&
           (uint32_t)seq_diff(c->rcv_nxt, c->rcv_wup) > 3u * c->rcv_mss;
}

void tcp_accecn_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                        const struct ip_packet *p)
{
    struct tcp_accecn *x = c->accecn;
    if (s->flags & TCP_SYN)
        return;
    if (s->opt.accecn != NULL && x->seen < ACCECN_COUNTERS) {
        x->seen = judge(s->opt.accecn);
        tcp_update_mss(cx, c);
    }
    if (s->len && first_ack_due(c))
        tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_NOW);
    const unsigned field = p->tos & IP_ECN_MASK;
    const bool changed = field != x->last_field;
    x->last_field = field & 3;
    if (field == 0 && !changed)
        return;
    if (field != 0) {
        c->ecn_seen = true;
        if (s->len)
            count_bytes(x, field, s->len);
    }
    if (field == IP_CE) {
        const uint32_t segs = p->gso_size && s->len ? (s->len + p->gso_size - 1) / p->gso_size : 1;
        x->received_ce += segs;
        x->unreported = (uint8_t)min_u32(x->unreported + segs, 15) & 15;
        note_ace(c);
    }
    if (changed || field == IP_CE)
        x->demand = 2;
    /*
     * 3.2.2.5.1: an ACK for each change (as Linux, not only for those to CE), and for each 2 marks,
     * or 3 of them on ACKs; of these only where an ACK of an ACK is no duplicate ACK.
     */
    const bool text = s->len || !seq_eq(c->rcv_nxt, c->rcv_wup);
    if ((changed && s->len) || (x->unreported >= 2 && text) || (x->unreported >= 3 && c->sack_ok))
        tcp_schedule_ack(cx, c, TCP_WHY_SEND_ACK_MARKS);
}

void tcp_accecn_duplicate(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start)
{
    /* 3.2.3.2.2: the ACK that had the option and reported this very text did not arrive */
    if (!c->accecn->dsack_answered || !seq_eq(start, c->dsack.start))
        return;
    c->accecn->option_lost = true;
    tcp_update_mss(cx, c);
}

/* ---- what the peer says ---- */

/*
 * Takes the option's counters. Without one the same kind of bytes is taken to go on. False: how
 * many bytes were marked is not known.
 */
static bool take_counters(const struct tcp_conn *c, const uint8_t *option, uint32_t delivered)
{
    struct tcp_accecn *x = c->accecn;
    const unsigned before = x->estimate;
    if (x->seen == ACCECN_MANGLED)
        return false;
    if (option == NULL) {
        if (x->seen == ACCECN_UNSEEN && c->bytes_sent >= UNHEARD_MAX)
            x->seen = ACCECN_MANGLED;
        if (before != 0)
            x->delivered_bytes[before - 1] += delivered;
        return before != 0;
    }
    const unsigned n = counters_in(option);
    unsigned grown = 0;
    bool backwards = false;
    for (unsigned i = 0; i < n; i++) {
        const unsigned field = field_of(option[0], i);
        uint32_t *count = &x->delivered_bytes[field - 1];
        const uint32_t told = get_counter(option + 2 + i * COUNTER_BYTES) - begin_of(field);
        const int32_t step = (int32_t)((told - *count) << 8) >> 8;
        *count += (uint32_t)step;
        backwards |= step < 0;
        if (step != 0) {
            x->estimate = field & 3;
            grown++;
        }
    }
    if (grown > 1 || backwards)
        x->estimate = 0;
    return !backwards && (n >= 2 || before != 0);
}

/* How many segments an ACK acknowledges on this path. */
static void note_ack_size(struct tcp_accecn *x, uint32_t segs)
{
    if (segs == 0)
        return;
    const uint32_t now = min_u32(segs, UINT16_MAX >> ACK_SIZE_SHIFT) << ACK_SIZE_SHIFT;
    x->ack_size = (uint16_t)(x->ack_size ? (x->ack_size * 63u + now) / 64 : now);
}

/*
 * 3.2.2.5.2, A.2: by how much s.cep grew, which the field tells but for multiples of 8. segs: what
 * the ACK acknowledges; told: marked_bytes is known.
 */
static uint32_t new_marks(const struct tcp_conn *c, unsigned ace, uint32_t segs, bool told,
                          uint32_t marked_bytes)
{
    const uint32_t least = (ace - TCP_ACE_BEGIN - c->accecn->delivered_ce) & TCP_ACE_MASK;
    if (segs <= TCP_ACE_MASK)
        return least;
    const uint32_t most = segs - ((segs - least) & TCP_ACE_MASK);
    if (!told)
        return c->accecn->ack_size > THIN_ACKS ? least : most;
    const uint32_t wanted = (marked_bytes + c->mss - 1) / c->mss;
    const uint32_t wraps = wanted > least ? (wanted - least + TCP_ACE_MASK) & ~TCP_ACE_MASK : 0;
    return min_u32(least + wraps, most);
}

void tcp_accecn_feedback(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         struct sent_ack *a)
{
    struct tcp_accecn *x = c->accecn;
    const bool first = x->handshake;
    x->handshake = false;
    if (s->flags & TCP_SYN)
        return;
    const bool pure = s->len == 0 && !(s->flags & TCP_FIN) && s->opt.sack_count == 0;
    if (first && pure) {
        third_ack(cx->st, x, tcp_ace(s));
        return;
    }
    /* 3.2.2.2, A.1: one that a later ACK has superseded, or may have, says nothing. A pure one that
     * comes before any of our text was acknowledged may still say how a SYN-ACK arrived. */
    const bool newer = c->ts_ok && s->opt.has_ts && (int32_t)(s->opt.ts_val - c->ts_recent) > 0;
    const bool counter = !pure || c->sent.total != 0 || a->acked || c->bytes_acked;
    if (x->deaf || !counter || !(a->acked || a->newly_sacked || newer))
        return;
    const uint32_t before = x->delivered_bytes[IP_CE - 1];
    const bool told = take_counters(c, s->opt.accecn, a->delivered);
    const uint32_t bytes = x->delivered_bytes[IP_CE - 1] - before;
    const uint32_t segs = (a->delivered + c->mss - 1) / c->mss;
    note_ack_size(x, segs);
    const uint32_t marks = new_marks(c, tcp_ace(s), segs, told, bytes);
    x->delivered_ce += marks;
    if (marks)
        a->marked = max_u32(told ? bytes : marks * c->mss, 1);
}
