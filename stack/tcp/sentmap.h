/*
 * What is in flight: one record for each transmission, in sequence order from SND.UNA to SND.NXT.
 * A record covers a whole emitted frame (up to 64 KB) and is split when a SACK or a loss covers a
 * part. It serves RTT samples, the SACK scoreboard (RFC 6675) and the choice of what to send again.
 */
#pragma once

#include "stack/arena.h"
#include "stack/tcp/wire.h"
#include "stack/util/list.h"

struct sent_record {
    struct list link;
    tcp_seq seq;
    uint32_t len;  /* sequence space, SYN and FIN included */
    nsec_t sent;   /* of the latest transmission */
    nsec_t burst;  /* when what had been delivered last by then was sent */
    uint8_t flags; /* SYN, FIN carried; PSH: it ends a record (MSG_EOR), nothing is joined to it */
    uint8_t transmissions;
    bool sacked;
    bool lost;        /* taken for lost, not yet sent again */
    bool retrans;     /* in flight as a retransmission */
    bool app_limited; /* the program had nothing more to send */
    bool told;        /* that it is lost was traced */
    bool mtu_probe;   /* one segment, larger than the MSS; sent once */
    /* delivery rate sample at send time (draft-cheng-iccrg-delivery-rate-estimation) */
    uint64_t delivered;
    nsec_t delivered_at;
};

struct sentmap {
    struct list records;
    uint32_t sacked;  /* bytes in records that are sacked */
    uint32_t lost;    /* bytes lost and not yet sent again */
    uint32_t retrans; /* bytes in flight as retransmissions */
    uint32_t total;   /* bytes in all records */
    uint32_t count;   /* records */
    tcp_seq fack;     /* RACK.fack: end of the highest segment known to have arrived */
    uint64_t delivered;
    nsec_t delivered_at;
    nsec_t burst;                  /* when what was delivered last had been sent */
    struct sent_record *lost_hint; /* no lost record lies before it; NULL: begin at the head */
    /* sent while there was neither a record to grow nor memory for one; the list is empty then */
    tcp_seq owed_seq;
    uint32_t owed;
    uint8_t owed_flags;
    bool owed_lost;
    uint16_t reordering;  /* for TCP_INFO: segments by which one was late at most, 0: none was */
    uint32_t app_limited; /* until `delivered` (low bits) passes this; 0: not */
};

/* A transmission: when it left and where it ended. */
struct sent_mark {
    bool valid;
    bool again; /* not the first of these bytes */
    nsec_t sent;
    tcp_seq end;
};

/* What one ACK taught. */
struct sent_ack {
    uint32_t acked; /* bytes newly acknowledged cumulatively (that were not sacked before count in
                       delivered) */
    uint32_t newly_sacked;    /* bytes newly sacked */
    uint32_t delivered;       /* bytes newly known to have arrived */
    bool rtt_valid;           /* Karn: from a record sent once only */
    nsec_t rtt;               /* now - sent, of the newest record newly acknowledged or sacked */
    bool acked_retransmitted; /* some newly acknowledged record had been sent again */
    bool dsack;               /* the first block is a D-SACK (RFC 2883) */
    bool reneged;   /* the cumulative ACK stops short of a record sacked before: RFC 2018 8 */
    bool reordered; /* a segment sent once arrived after a higher one: RFC 8985 6.2 step 3 */
    uint32_t late; /* reordered: from its start to the end of the highest that was there, at most */
    uint8_t flags; /* SYN, FIN acknowledged */
    /* of what was delivered, bytes that met congestion, at most (by ecn.c); 0: no mark is told */
    uint32_t marked;
    uint32_t mtu_probe; /* bytes of a probe of the path's MTU that arrived whole */
    /* delivery rate sample of the newest of what this ACK delivered; interval 0: none */
    uint64_t rate_prior; /* bytes that had been delivered when it left */
    nsec_t rate_interval, rate_since;
    bool rate_app_limited;
    /* the newest transmissions newly acknowledged or sacked, sent once and sent again */
    struct sent_mark once, again;
};

void sentmap_init(struct sentmap *m);
/*
 * [seq, seq+len) was sent for the first time, behind all records; flags as in a record. False: no
 * memory (the frame counts as sent all the same and is covered by growing the last record, or owed
 * a record).
 */
bool sentmap_sent(struct pool *pool, struct sentmap *m, tcp_seq seq, uint32_t len, uint8_t flags,
                  nsec_t now);
/*
 * A cumulative ACK and SACK blocks (opt may be NULL); snd_una is the value before the ACK. An ACK
 * beyond snd_nxt and blocks outside (max(snd_una, ack), snd_nxt] are ignored.
 */
void sentmap_ack(struct pool *pool, struct sentmap *m, tcp_seq snd_una, tcp_seq ack,
                 tcp_seq snd_nxt, const struct tcp_options *opt, nsec_t now, struct sent_ack *out);
/* RFC 8985 6.2 RACK_sent_after(): later in time, or as late and higher in sequence. */
bool sent_after(nsec_t sent1, tcp_seq end1, nsec_t sent2, tcp_seq end2);
/*
 * RFC 8985 6.2 step 5: marks as lost what was sent before `newest` (which has arrived) and more
 * than `window` ago, retransmissions too. Returns bytes newly lost; *wait is how long until the
 * last of those sent before `newest` would be, 0 when there is none.
 */
uint32_t sentmap_mark_older(struct sentmap *m, const struct sent_mark *newest, nsec_t window,
                            nsec_t now, nsec_t *wait);
/* What was sent last is a probe of the path's MTU: one segment, which nothing cuts. */
void sentmap_mark_probe(struct sentmap *m);
/* Whether all that is lost is such a probe. */
bool sentmap_lost_is_probe(const struct sentmap *m);
/* Nothing was lost after all: what waits to be sent again is in flight. */
void sentmap_unmark_lost(struct sentmap *m);
/* The last segment sent, of at most mss bytes of text (its record is split). NULL: none. */
struct sent_record *sentmap_last(struct pool *pool, struct sentmap *m, uint32_t mss);
/* Marks the first unsacked mss bytes lost (fast retransmit without SACK, partial ACK of NewReno).
 */
uint32_t sentmap_mark_head_lost(struct pool *pool, struct sentmap *m, uint32_t mss);
/* After a time-out: everything not sacked is lost. forget_sack: also what was sacked (reneging). */
uint32_t sentmap_mark_all_lost(struct sentmap *m, bool forget_sack);
/*
 * The next run to send again: the first lost record, cut to at most max bytes (the record is split
 * when longer, and joined with lost neighbours when shorter). NULL: none. When there is no memory
 * to split it may still be longer: send its first max bytes and call sentmap_retransmitted() all
 * the same; the rest comes again with the next time-out.
 */
struct sent_record *sentmap_next_lost(struct pool *pool, struct sentmap *m, uint32_t max);
/* rec is sent again now. */
void sentmap_retransmitted(struct sentmap *m, struct sent_record *rec, nsec_t now);
/* Bytes that are believed to be in the network (RFC 6675 SetPipe, each byte once). */
static inline uint32_t sentmap_pipe(const struct sentmap *m)
{
    return m->total - m->sacked - m->lost;
}
/* The oldest record, or NULL. */
struct sent_record *sentmap_first(const struct sentmap *m);
/* The program has nothing more to send: rates of what is in flight are its own, not the path's. */
void sentmap_app_limited(struct sentmap *m);
void sentmap_clear(struct pool *pool, struct sentmap *m);
