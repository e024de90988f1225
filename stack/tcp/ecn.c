/*
 * Explicit congestion notification (RFC 3168): routers mark instead of dropping, the receiver
 * echoes the mark (ECE) until the sender says that it has slowed down (CWR). DCTCP echoes each mark
 * as it came (RFC 8257 3.2).
 */
#include "stack/tcp/conn.h"

#define IP_ECN_MASK 0x03
#define IP_ECT_0    0x02
#define IP_CE       0x03

static bool exact(const struct tcp_opts *o)
{
    return cc_ops(o->cc)->exact_ecn;
}

bool tcp_ecn_asks(const struct stack *st, const struct tcp_opts *o)
{
    return st->config.ecn == STACK_ECN_ASK || exact(o);
}

/* RFC 3168 6.1.1: both flags, and a SYN that is not itself ECN-capable. */
bool tcp_ecn_accepts(const struct stack *st, const struct tcp_opts *o, const struct tcp_segment *s,
                     uint8_t tos)
{
    if ((s->flags & (TCP_ECE | TCP_CWR)) != (TCP_ECE | TCP_CWR))
        return false;
    if (exact(o)) /* Linux: DCTCP's SYNs are marked, too */
        return true;
    return st->config.ecn != STACK_ECN_OFF && (tos & IP_ECN_MASK) == 0;
}

uint8_t tcp_ecn_flags(struct tcp_conn *c, const struct tcp_emit *e, uint8_t *tos)
{
    if (!c->ecn_ok)
        return 0;
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
    if (s->len == 0)
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
