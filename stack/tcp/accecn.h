/*
 * Accurate ECN (RFC 9768): the receiver counts what met congestion and tells how much it was, where
 * RFC 3168 tells once a round trip that there was some. The count of packets goes in the ACE field
 * (the flags AE, CWR and ECE), the last three bits of it; counts of bytes go in an option, where
 * it passes and fits.
 *
 * What it takes is in an object of its own, which a connection has from connect() or from the third
 * ACK on if both sides agreed (struct tcp_conn.accecn).
 */
#pragma once

#include "stack/base.h"
#include "stack/tcp/wire.h"

/* What the two sides agreed on. */
enum tcp_ecn_mode { TCP_ECN_NONE, TCP_ECN_CLASSIC, TCP_ECN_ACCURATE };

/* The same, and what a server must know of the handshake until it is over. */
struct tcp_ecn_deal {
    uint8_t mode : 2;      /* enum tcp_ecn_mode */
    uint8_t syn_field : 2; /* the ECN field of the last SYN's packet (of a client: SYN-ACK's) */
    bool plain : 1;        /* a SYN or a SYN-ACK without ECN's flags came or went */
    bool answered : 1;     /* a SYN-ACK with the option went: the next go without */
};

/* The ECN field of an IP packet. */
#define IP_ECN_MASK 0x03u
#define IP_ECT_1    0x01u
#define IP_ECT_0    0x02u
#define IP_CE       0x03u

/* Whether the peer's option comes through. */
enum tcp_accecn_seen { ACCECN_UNSEEN, ACCECN_EMPTY, ACCECN_COUNTERS, ACCECN_MANGLED };

/* Counters begin at zero here; what they begin at on the wire (RFC 9768 3.2.1) is added there. */
struct tcp_accecn {
    /* what arrived: r.cep, and r.e1b, r.e0b, r.ceb by the ECN field less one */
    uint32_t received_ce;
    uint32_t received_bytes[3];
    /* what the peer says arrived: s.cep, ... */
    uint32_t delivered_ce;
    uint32_t delivered_bytes[3];
    uint32_t option_at; /* tcp_short_clock() when the option was sent last */
    uint16_t ack_size;  /* segments that an ACK acknowledges, in 64ths, a moving mean; 0: unknown */
    struct tcp_ecn_deal deal;
    uint8_t reserved;        /* bytes of each segment that c->mss leaves for the option */
    uint8_t unreported : 4;  /* CE marks since the last segment of ours, 15 at most */
    uint8_t needed : 2;      /* counters that the next option must hold: those that changed */
    uint8_t demand : 2;      /* so many of the next segments are to carry the option */
    uint8_t last_field : 2;  /* the ECN field of the last packet */
    uint8_t estimate : 2;    /* the ECN field whose bytes grow; 0: not known */
    uint8_t seen : 2;        /* enum tcp_accecn_seen */
    bool handshake : 1;      /* the segment is awaited that ends a server's handshake */
    bool reflects : 1;       /* this pure ACK says how the SYN-ACK arrived (3.2.2.1) */
    bool no_ect : 1;         /* the path spoils the ECN field, or the peer may not count */
    bool deaf : 1;           /* what the peer says is not to be believed */
    bool option_lost : 1;    /* the path drops segments with the option */
    bool dsack_answered : 1; /* the last segment had the option and a D-SACK */
    uint8_t option[TCP_ACCECN_MAX]; /* of the segment that is being sent */
};

struct stack;
struct stack_cx;
struct tcp_conn;
struct tcp_emit;
struct ip_packet;
struct sent_ack;

/* ---- the handshake ---- */

/* What r.cep begins at on the wire (3.2.1): a middlebox that clears the field is found out. */
#define TCP_ACE_BEGIN 5u
#define TCP_ACE_MASK  7u
/* The ACE field: AE, CWR, ECE. */
static inline unsigned tcp_ace(const struct tcp_segment *s)
{
    return (s->ae ? 4u : 0) | (s->flags & TCP_CWR ? 2u : 0) | (s->flags & TCP_ECE ? 1u : 0);
}
/* Sets the field, which is clear. */
static inline void tcp_set_ace(struct tcp_segment *s, unsigned ace)
{
    s->ae = (ace & 4) != 0;
    s->flags |= (uint8_t)((ace & 2 ? TCP_CWR : 0) | (ace & 1 ? TCP_ECE : 0));
}
/* What a segment of ours tells: the last bits of r.cep. */
static inline unsigned tcp_ace_told(const struct tcp_accecn *x)
{
    return (x->received_ce + TCP_ACE_BEGIN) & TCP_ACE_MASK;
}
/* Whether a SYN asks for it: any flags but none and those of RFC 3168 (3.1.3). */
static inline bool tcp_accecn_asked(const struct tcp_segment *syn)
{
    const unsigned ace = tcp_ace(syn);
    return ace != 0 && ace != 3;
}
/*
 * The server's SYN came again. False: it asks for another kind than the one that was answered; the
 * connection is to be reset (3.1.5).
 */
bool tcp_accecn_syn_again(const struct stack *st, struct tcp_ecn_deal *d,
                          const struct tcp_segment *syn, uint8_t tos);
/* The flags and the option of a SYN-ACK; retries: how often it went before its time-out. */
void tcp_accecn_answer(const struct stack *st, struct tcp_ecn_deal *d, unsigned retries,
                       struct tcp_segment *syn_ack);
/* The object, all counters zero. NULL: no memory. */
struct tcp_accecn *tcp_accecn_new(struct stack *st, const struct tcp_ecn_deal *d);
/* The connection does without, if it had any. */
void tcp_accecn_drop(struct stack *st, struct tcp_conn *c);
/* The SYN-ACK agrees to what the SYN asked for. Next is tcp_accecn_ack_syn(). */
void tcp_accecn_granted(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn_ack,
                        uint8_t tos);
/* A pure ACK that says how the SYN-ACK arrived. */
void tcp_accecn_ack_syn(struct stack_cx *cx, struct tcp_conn *c);
/* Another SYN-ACK came, when the connection was established: the challenge ACK says how. */
void tcp_accecn_challenge(struct stack_cx *cx, struct tcp_conn *c, uint8_t tos);

/* ---- a connection that has it ---- */

/* A segment is about to go: its ACE field, its option, and the ECN field of its packet. */
void tcp_accecn_mark(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e,
                     struct tcp_segment *s, uint8_t *tos);
/* An acceptable segment arrived, or text that came again. */
void tcp_accecn_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                        const struct ip_packet *p);
/* Text from `start` on came twice; before the D-SACK says so. */
void tcp_accecn_duplicate(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start);
/* What an ACK says of marks: sets a->marked. a: all zero where nothing was in flight. */
void tcp_accecn_feedback(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         struct sent_ack *a);
/* Bytes of each segment that the option will take. */
uint8_t tcp_accecn_reserve(const struct stack *st, const struct tcp_accecn *x);
