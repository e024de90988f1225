/*
 * Explicit congestion notification (RFC 3168): routers mark instead of dropping, the receiver
 * echoes the mark (ECE) until the sender says that it has slowed down (CWR). DCTCP echoes each mark
 * as it came (RFC 8257 3.2). What both sides agree to count exactly (RFC 9768) is in accecn.c.
 */
#include "stack/tcp/conn.h"

static bool exact(const struct tcp_opts *o)
{
    return cc_ops(o->cc)->exact_ecn;
}

/* ---- the handshake ---- */

void tcp_ecn_begin(struct stack_cx *cx, struct tcp_conn *c)
{
    struct stack *st = cx->st;
    const uint8_t mode = st->config.ecn;
    const struct tcp_ecn_deal accurate = {.mode = TCP_ECN_ACCURATE};
    c->ecn_ok = mode == STACK_ECN_ASK || mode == STACK_ECN_ACCURATE ||
                mode == STACK_ECN_ACCURATE_ASK_CLASSIC || exact(&c->opts);
    c->ece_due = c->cwr_due = false;
    tcp_accecn_drop(st, c);         /* of an attempt that failed */
    if (mode == STACK_ECN_ACCURATE) /* without memory it is RFC 3168's that is asked for */
        c->accecn = tcp_accecn_new(st, &accurate);
}

/* RFC 3168 6.1.1: both flags, and a SYN that is not itself ECN-capable; Linux: or one that would
 * rather have accurate ECN (RFC 8311 4.3). */
static bool accepts_classic(const struct stack *st, const struct tcp_opts *o,
                            const struct tcp_segment *s, uint8_t tos)
{
    if ((s->flags & (TCP_ECE | TCP_CWR)) != (TCP_ECE | TCP_CWR))
        return false;
    if (exact(o)) /* Linux: DCTCP's SYNs are marked, too */
        return true;
    return st->config.ecn != STACK_ECN_OFF && ((tos & IP_ECN_MASK) == 0 || s->ae);
}

struct tcp_ecn_deal tcp_ecn_accepts(const struct stack *st, const struct tcp_opts *o,
                                    const struct tcp_segment *s, uint8_t tos)
{
    if (st->config.ecn >= STACK_ECN_ACCURATE && tcp_accecn_asked(s))
        return (struct tcp_ecn_deal){.mode = TCP_ECN_ACCURATE, .syn_field = tos & IP_ECN_MASK};
    return (struct tcp_ecn_deal){.mode = accepts_classic(st, o, s, tos) ? TCP_ECN_CLASSIC
                                                                        : TCP_ECN_NONE};
}

void tcp_ecn_granted(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn_ack,
                     uint8_t tos)
{
    if (!c->ecn_ok)
        return;
    if (c->accecn == NULL) {
        /* RFC 3168 6.1.1: CWR beside ECE is a host that only reflects our flags */
        c->ecn_ok = (syn_ack->flags & (TCP_ECE | TCP_CWR)) == TCP_ECE;
        return;
    }
    const unsigned ace = tcp_ace(syn_ack);
    if (ace != 0 && ace != 1 && ace != 7) {
        tcp_accecn_granted(cx, c, syn_ack, tos);
        return;
    }
    c->ecn_ok = ace == 1; /* RFC 9768 table 2: a server of RFC 3168; else none, or a broken one */
    tcp_accecn_drop(cx->st, c);
}

void tcp_ecn_crossed(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn,
                     uint8_t tos)
{
    if (c->accecn != NULL && tcp_accecn_asked(syn)) {
        c->accecn->deal.syn_field = c->accecn->last_field = tos & IP_ECN_MASK;
        c->accecn->handshake = true;
        return;
    }
    tcp_accecn_drop(cx->st, c);
    c->ecn_ok = accepts_classic(cx->st, &c->opts, syn, tos);
}

/* ---- what goes ---- */

static uint8_t classic_flags(struct tcp_conn *c, const struct tcp_emit *e, uint8_t *tos)
{
    if (e->flags & TCP_SYN) {
        if (e->flags & TCP_ACK)
            return TCP_ECE;
        /* 6.1.1.1: some path drops such SYNs; Linux asks once */
        return c->retries ? 0 : TCP_ECE | TCP_CWR;
    }
    uint8_t flags = c->ece_due && e->flags & TCP_ACK ? TCP_ECE : 0;
    /* 6.1.4, 6.1.5: neither pure ACKs nor what is sent again. Linux: DCTCP marks all. */
    const bool fresh = e->len && seq_eq(e->seq, c->snd_nxt);
    if (fresh || exact(&c->opts))
        *tos |= IP_ECT_0;
    if (fresh && c->cwr_due) {
        c->cwr_due = false;
        flags |= TCP_CWR;
    }
    return flags;
}

void tcp_ecn_mark(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e,
                  struct tcp_segment *s, uint8_t *tos)
{
    if (likely(!c->ecn_ok))
        return;
    if (c->accecn != NULL)
        tcp_accecn_mark(cx, c, e, s, tos);
    else
        s->flags |= classic_flags(c, e, tos);
}

/* ---- what comes ---- */

/* RFC 8257 3.2: what is acknowledged together has met the same. */
static void echo_exactly(struct stack_cx *cx, struct tcp_conn *c, bool ce)
{
    if (ce == c->ece_due)
        return;
    if (c->ack_now || c->ack_delayed)
        tcp_emit_ack(cx, c, TCP_WHY_SEND_ACK_ECN);
    c->ece_due = ce;
    c->quickacks = (uint8_t)max_u32(c->quickacks, 1);
}

void tcp_ecn_receive(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                     uint8_t tos)
{
    if (s->len == 0 || c->accecn != NULL) /* this has counted it */
        return;
    const bool ce = (tos & IP_ECN_MASK) == IP_CE;
    c->ecn_seen |= (tos & IP_ECN_MASK) != 0;
    if (exact(&c->opts)) {
        echo_exactly(cx, c, ce);
        return;
    }
    if (s->flags & TCP_CWR) {
        c->ece_due = false;
        c->quickacks =
            (uint8_t)max_u32(c->quickacks, 2); /* Linux: the sender's window is small now */
    }
    if (ce && !c->ece_due) {
        c->ece_due = true;
        c->quickacks = (uint8_t)max_u32(c->quickacks, 2);
    }
}

void tcp_ecn_feedback(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      struct sent_ack *a)
{
    if (c->accecn != NULL)
        tcp_accecn_feedback(cx, c, s, a);
    else if ((s->flags & (TCP_ECE | TCP_SYN)) == TCP_ECE) /* all of it may be */
        a->marked = UINT32_MAX;
}
