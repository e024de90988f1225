#include "shim/link/impair_engine.h"

#include "stack/tcp/seq.h"
#include "stack/util/siphash.h"

/* A segment that is to be overtaken stays behind by half of the delay, and at least so long. */
#define REORDER_MIN NSEC_PER_MSEC

/* For what a number is drawn. */
enum draw { DRAW_CHANCE, DRAW_JITTER, DRAW_BIT };

/* The segment in question. */
struct matter {
    struct impair_flow *flow;
    struct impair_half *half;
    enum impair_dir dir;
    const struct segment *s;
    uint32_t size;
    nsec_t now;
    bool is[IMPAIR_KINDS], again[IMPAIR_KINDS];
    bool new_text; /* in order, and not seen before */
};

static bool after(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

static uint64_t draw(const struct impair_rules *rules, const struct matter *m, unsigned rule,
                     enum draw what)
{
    const struct siphash_key key = {rules->seed, 0x7463707368696d21};
    const bool ack = m->is[IMPAIR_ACK];
    const uint32_t of[] = {rule,
                           m->flow->number,
                           m->dir,
                           what,
                           m->s->flags & (TCP_SYN | TCP_FIN | TCP_RST),
                           ack,
                           ack ? m->half->count[IMPAIR_ACK] : m->s->seq - m->half->isn,
                           m->again[IMPAIR_ANY] ? m->half->again[IMPAIR_ANY] : 0};
    return siphash13(&key, of, sizeof(of));
}

/* ---- connections ---- */

static bool same(const struct impair_flow *f, const struct impair_flow *key)
{
    return f->number != 0 && f->lport == key->lport && f->rport == key->rport &&
           ip_addr_eq(&f->local, &key->local) && ip_addr_eq(&f->remote, &key->remote);
}

static struct impair_flow *begin(struct impair_state *state, struct impair_flow *at,
                                 const struct impair_flow *key)
{
    *at = *key;
    at->number = ++state->flows_begun;
    return at;
}

/* The connection of a segment; a SYN with another ISN begins a new one. */
static struct impair_flow *find(struct impair_state *state, enum impair_dir dir,
                                const struct segment *s, nsec_t now)
{
    struct impair_flow key = {
        .local = s->src, .remote = s->dst, .lport = s->sport, .rport = s->dport};
    if (dir == IMPAIR_IN)
        key = (struct impair_flow){
            .local = s->dst, .remote = s->src, .lport = s->dport, .rport = s->sport};
    static const struct siphash_key hash_key = {1, 2};
    struct impair_flow *set =
        state->flow[siphash13(&hash_key, &key, offsetof(struct impair_flow, number)) % IMPAIR_SETS];
    struct impair_flow *oldest = set, *f = NULL;
    for (unsigned i = 0; i < IMPAIR_WAYS && !f; i++) {
        if (same(&set[i], &key))
            f = &set[i];
        else if (oldest->number != 0 && (set[i].number == 0 || set[i].seen < oldest->seen))
            oldest = &set[i];
    }
    if (!f)
        f = begin(state, oldest, &key);
    else if ((s->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && f->half[dir].begun &&
             f->half[dir].isn != s->seq)
        f = begin(state, f, &key);
    f->seen = now;
    return f;
}

/* Of which kinds the segment is, and whether it was sent before; then it counts. */
static void count(struct matter *m)
{
    const struct segment *s = m->s;
    struct impair_half *h = m->half;
    const bool syn = s->flags & TCP_SYN, fin = s->flags & TCP_FIN, rst = s->flags & TCP_RST;
    const uint32_t next = s->seq + s->len + syn + fin;
    const bool seen = h->begun && (s->len > 0 || syn || fin) && !after(next, h->seq_max);
    m->is[IMPAIR_SYN] = syn && !(s->flags & TCP_ACK);
    m->is[IMPAIR_SYN_ACK] = syn && (s->flags & TCP_ACK);
    m->is[IMPAIR_FIN] = fin;
    m->is[IMPAIR_RST] = rst;
    m->is[IMPAIR_DATA] = s->len > 0;
    m->is[IMPAIR_ACK] = !syn && !fin && !rst && s->len == 0;
    m->is[IMPAIR_ANY] = true;
    m->new_text = s->len > 0 && h->begun && s->seq == h->seq_max;

    if (!h->begun) {
        h->begun = true;
        h->isn = h->seq_max = s->seq;
    }
    if (syn)
        h->isn = s->seq;
    if (after(next, h->seq_max)) {
        h->bytes += min_u32(s->len, next - h->seq_max);
        h->seq_max = next;
    }
    for (unsigned k = 0; k < IMPAIR_KINDS; k++) {
        if (!m->is[k])
            continue;
        h->count[k]++;
        /* a FIN may ride on text that was sent before */
        m->again[k] = k == IMPAIR_FIN ? h->count[k] > 1 : seen;
        h->again[k] += m->again[k];
    }
}

/* ---- rules ---- */

static bool concerns(const struct impair_rule *r, const struct matter *m)
{
    if (!r->dirs[m->dir] || !m->is[r->kind])
        return false;
    const uint16_t a = m->flow->lport, b = m->flow->rport;
    return (a >= r->port_low && a <= r->port_high) || (b >= r->port_low && b <= r->port_high);
}

static bool chosen(const struct impair_rules *rules, const struct impair_rule *r,
                   const struct matter *m)
{
    if (r->retransmit && !m->again[r->kind])
        return false;
    const uint32_t nth = r->retransmit ? m->half->again[r->kind] : m->half->count[r->kind];
    if (r->first != 0 && (nth < r->first || nth > r->last))
        return false;
    return r->chance >= IMPAIR_ALWAYS ||
           draw(rules, m, (unsigned)(r - rules->rule), DRAW_CHANCE) >> 32 < r->chance;
}

static bool reset_due(const struct impair_rules *rules, const struct impair_rule *r,
                      struct matter *m)
{
    const uint32_t bit = 1u << (unsigned)(r - rules->rule);
    uint64_t bytes = 0;
    for (unsigned d = 0; d < IMPAIR_DIRS; d++)
        bytes += r->dirs[d] ? m->flow->half[d].bytes : 0;
    /* in order, so that both ends take it (RFC 5961 3.2) */
    if ((m->flow->reset & bit) || bytes < r->after || !m->new_text)
        return false;
    m->flow->reset |= bit;
    return true;
}

/* The window that the segment shows is closed for a while, once a direction. */
static bool window_closed(const struct impair_rule *r, const struct matter *m)
{
    struct impair_half *h = m->half;
    const uint64_t bytes = m->flow->half[IMPAIR_IN].bytes + m->flow->half[IMPAIR_OUT].bytes;
    if ((m->s->flags & (TCP_SYN | TCP_RST)) || !(m->s->flags & TCP_ACK))
        return false;
    if (h->zero_until == 0 && bytes >= r->after)
        h->zero_until = m->now + r->time;
    return m->now < h->zero_until;
}

/* A queue in front of a slow link; false: it is full. */
static bool queue_at(nsec_t *busy, const struct impair_rule *r, const struct matter *m,
                     nsec_t *wait)
{
    const nsec_t start = max_u64(*busy, m->now);
    const nsec_t takes = (nsec_t)m->size * 8 * NSEC_PER_SEC / r->rate;
    const nsec_t room =
        max_u64(IMPAIR_QUEUE_TIME, (nsec_t)IMPAIR_QUEUE_BYTES * 8 * NSEC_PER_SEC / r->rate);
    if (start - m->now > room)
        return false;
    *busy = start + takes;
    *wait = max_u64(*wait, *busy - m->now);
    return true;
}

/* Waits that add up for one segment. */
struct waits {
    nsec_t queue, path, special; /* in order; in order; of this kind of segment alone */
    nsec_t jitter;
    uint64_t jitter_draw;
    bool ordered;
};

static void apply(const struct impair_rules *rules, struct impair_state *state, unsigned i,
                  struct matter *m, struct waits *w, struct impair_verdict *v)
{
    const struct impair_rule *r = &rules->rule[i];
    switch (r->verb) {
    case IMPAIR_DROP:
        v->drop = v->drop ? v->drop : r;
        break;
    case IMPAIR_DUP:
        v->dup = r;
        break;
    case IMPAIR_CORRUPT:
        v->corrupt = r;
        v->bit = (uint32_t)(draw(rules, m, i, DRAW_BIT) % ((m->s->end - m->s->l4) * 8));
        break;
    case IMPAIR_REORDER:
        v->reorder = r;
        break;
    case IMPAIR_DELAY:
        v->delay = r;
        if (r->kind == IMPAIR_ANY && r->first == 0 && r->chance >= IMPAIR_ALWAYS &&
            !r->retransmit) {
            w->path += r->time;
            w->ordered = true;
        } else {
            w->special += r->time;
        }
        break;
    case IMPAIR_JITTER:
        w->jitter = r->time;
        w->jitter_draw = draw(rules, m, i, DRAW_JITTER);
        w->ordered = true;
        break;
    case IMPAIR_RATE:
        w->ordered = true;
        if (!v->drop && !queue_at(&state->busy_until[i][m->dir], r, m, &w->queue))
            v->drop = r;
        break;
    case IMPAIR_RESET:
        if (reset_due(rules, r, m))
            v->reset = r;
        break;
    case IMPAIR_ZERO_WINDOW:
        if (window_closed(r, m))
            v->zero_window = r;
        break;
    default:
        break;
    }
}

/* When the segment goes on. */
static void schedule(struct impair_state *state, const struct matter *m, const struct waits *w,
                     struct impair_verdict *v)
{
    nsec_t wait = w->queue + w->path;
    if (w->jitter != 0) {
        const nsec_t later = w->jitter_draw % (2 * w->jitter + 1); /* of [-jitter, +jitter] */
        wait = wait + later > w->jitter ? wait + later - w->jitter : 0;
    }
    v->due = m->now + wait;
    if (w->ordered) {
        v->due = max_u64(v->due, state->last_due[m->dir]);
        state->last_due[m->dir] = v->due;
    }
    if (v->reorder)
        v->due += max_u64(wait / 2, REORDER_MIN);
    v->due += w->special;
}

void impair_decide(const struct impair_rules *rules, struct impair_state *state,
                   enum impair_dir dir, const struct segment *s, uint32_t size, nsec_t now,
                   struct impair_verdict *verdict)
{
    struct matter m = {.dir = dir, .s = s, .size = size, .now = now};
    struct waits w = {.queue = 0};
    m.flow = find(state, dir, s, now);
    m.half = &m.flow->half[dir];
    count(&m);
    *verdict = (struct impair_verdict){.due = now};
    for (unsigned i = 0; i < rules->n; i++) {
        if (concerns(&rules->rule[i], &m) && chosen(rules, &rules->rule[i], &m))
            apply(rules, state, i, &m, &w, verdict);
    }
    schedule(state, &m, &w, verdict);
}
