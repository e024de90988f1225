/*
 * The control block (TCB, RFC 9293 3.3.1), the half-open entry, TIME_WAIT and the listener: TCP's
 * objects, and the calls between the files of stack/tcp. The public face is stack/tcp/tcp.h.
 *
 * Life of a connection: tcp_open() or the third ACK of a handshake makes it; tcp_done() takes it
 * out of the table when its last state is left; it is freed when neither the program nor an accept
 * queue holds it any more (tcp_reap()).
 */
#pragma once

#include "stack/internal.h"
#include "stack/tcp/accecn.h"
#include "stack/tcp/extra.h"
#include "stack/tcp/recvbuf.h"
#include "stack/tcp/rtt.h"
#include "stack/tcp/sendbuf.h"
#include "stack/tcp/sentmap.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/wire.h"

/* Linux's numbers (tcp(7), include/net/tcp.h). */
#define TCP_MSL_2              (60 * NSEC_PER_SEC)
#define TCP_FIN_TIMEOUT        60 /* seconds */
#define TCP_SYN_RETRIES        6
#define TCP_SYNACK_RETRIES     5
#define TCP_RETRIES2           15
#define TCP_BLACK_HOLE_RETRIES 3 /* tcp_retries1 */
#define TCP_ORPHAN_RETRIES     8
#define TCP_KEEPALIVE_TIME     7200
#define TCP_KEEPALIVE_INTVL    75
#define TCP_KEEPALIVE_PROBES   9
#define TCP_DELACK_MIN         (40 * NSEC_PER_MSEC)
#define TCP_ACK_PATIENCE       (5 * NSEC_PER_MSEC) /* stack_flush_patiently() waits no longer */
#define TCP_DELACK_MAX         (200 * NSEC_PER_MSEC)
#define TCP_QUICKACKS_MAX      16
#define TCP_MSS_DEFAULT        536
#define TCP_MSS_MIN            48
#define TCP_MSS_MAX            65495 /* what a 64 KB packet holds */
#define TCP_SOMAXCONN          4096
#define TCP_DUPTHRESH          3
#define TCP_CORK_MAX           (200 * NSEC_PER_MSEC)
/* RFC 7323 5.5: a timestamp older than this says nothing */
#define TCP_PAWS_EXPIRE (24 * 86400 * NSEC_PER_SEC)
/* Challenge ACKs: a connection's own bound (Linux: tcp_invalid_ratelimit) */
#define TCP_CHALLENGE_INTERVAL (500 * NSEC_PER_MSEC)

/* Loss recovery, numbered as Linux's TCP_CA_*. */
enum tcp_ca_state {
    TCP_CA_OPEN = 0,
    TCP_CA_DISORDER = 1,
    TCP_CA_CWR = 2, /* the window is being reduced for a congestion mark */
    TCP_CA_RECOVERY = 3,
    TCP_CA_LOSS = 4,
};

/* F-RTO (RFC 5682 3.1): how far it is in telling whether a time-out was spurious. */
enum tcp_frto {
    FRTO_NONE,
    FRTO_FIRST, /* step 2: the first ACK that moves SND.UNA is awaited */
    FRTO_NEW,   /* 2.b: new segments go before what was lost */
    FRTO_ASKED, /* step 3: they are out, the next ACK tells */
};

/* What keeps the text that was written from being sent and acknowledged (Linux: tcp_chrono). */
enum tcp_limit {
    TCP_LIMIT_NONE,   /* there is none */
    TCP_LIMIT_BUSY,   /* the network */
    TCP_LIMIT_RWND,   /* the peer's window */
    TCP_LIMIT_SNDBUF, /* the program would write more than the send buffer holds */
};
#define TCP_LIMITS TCP_LIMIT_SNDBUF /* but for TCP_LIMIT_NONE */

/* Where the urgent byte stands (non-inline: it is kept out of the stream). */
enum tcp_urgent { URG_NONE, URG_NOT_YET, URG_VALID, URG_READ };

struct tcp_conn {
    struct flow flow; /* first */

    /* who holds it */
    void *owner; /* for notify() */
    struct tcp_listener *listener;
    struct list pending_link; /* output_pending */
    struct list holder_link;  /* the accept queue of `listener`, or the stack's orphans */
    int16_t err;              /* pending error, positive errno (SO_ERROR) */
    int16_t soft_err;         /* reported when a time-out ends the connection */

    uint8_t state;          /* enum tcp_state; changed by tcp_set_state() alone */
    bool app_held : 1;      /* the program has a descriptor for it */
    bool in_table : 1;      /* the flow is in the connection table */
    bool needs_output : 1;  /* on output_pending, or on held_acks */
    bool half_accepted : 1; /* on the accept queue of `listener` */
    bool rcv_shut : 1;      /* no more to read: FIN arrived, or shutdown(RD) */
    bool snd_shut : 1;      /* no more to write: shutdown(WR) or close() */
    bool fin_queued : 1;
    bool fin_received : 1;
    bool fin_ahead : 1;    /* a FIN came before the text in front of it: fin_seq says where it is */
    bool syn_acked : 1;    /* the peer has acknowledged our SYN */
    bool connected : 1;    /* has been ESTABLISHED */
    bool more : 1;         /* the last send() said MSG_MORE */
    bool cork_expired : 1; /* the 200 ms of a cork are over */
    bool urgent_out : 1;
    bool wscale_ok : 1, ts_ok : 1, sack_ok : 1;
    bool ack_now : 1;
    bool ack_delayed : 1; /* an ACK is owed, the timer runs */
    bool dsack_due : 1;
    bool cwnd_limited : 1;
    /* loss recovery: rack.c, recovery.c */
    bool rack_again : 1;      /* the segment of rack_sent was a retransmission */
    bool reordering_seen : 1; /* RFC 8985 6.2 step 3 */
    bool dsack_round : 1;  /* a D-SACK widened RACK's window in the round that ends at dsack_end */
    bool tlp_out : 1;      /* a loss probe is out, tlp_end says until where */
    bool tlp_retrans : 1;  /* it was a retransmission */
    bool undo_armed : 1;   /* the last reduction of cwnd may yet turn out to be for nothing */
    bool frto : 1;         /* what was sent once and arrives makes the time-out a spurious one */
    bool undo_stamped : 1; /* undo_stamp is valid */
    /* explicit congestion notification (RFC 3168): ecn.c */
    bool ecn_ok : 1;        /* negotiated, of either kind; in SYN_SENT: asked for */
    bool ece_due : 1;       /* a mark arrived: our ACKs echo it */
    bool cwr_due : 1;       /* our window was reduced: the next new segment says so; accurate ECN:
                               the ACE field has this flag */
    bool ecn_seen : 1;      /* for TCP_INFO: the peer's segments are ECN-capable */
    bool fast_open : 1;     /* passive, by a cookie: carries data before the third ACK (RFC 7413) */
    bool deferred : 1;      /* tcp_defer() */
    bool send_expected : 1; /* tcp_expect_send() */
    bool syn_data : 1;      /* for TCP_INFO: data of a SYN was taken (RFC 7413) */
    bool doomed : 1;        /* repair.c: something of it was lost */
    bool halfway : 1;       /* repair.c: it was being changed, and is whole */
    bool text_waits : 1;    /* tcp_announce() */

    /* acknowledging */
    uint8_t ack_why : 7;   /* enum tcp_reason of the ACK that is due */
    bool ack_held : 1;     /* on held_acks */
    uint8_t quickacks : 5; /* ACKs that go at once (Linux: icsk_ack.quick) */
    uint8_t limit : 2;     /* enum tcp_limit */
    bool interactive : 1; /* replies carry the ACKs (Linux: pingpong mode, tcp_pingpong_thresh 1) */
    uint16_t syn_text;    /* bytes of our SYN that the SYN-ACK acknowledged, for TCP_INFO */
    uint16_t mtu_wait;    /* no probe of the path's MTU before: mtu_probe.c */

    struct ip_path path;
    struct tcp_opts opts;
    uint32_t limit_since;    /* ms: when `limit` began */
    struct tcp_extra *extra; /* what few need; NULL: nothing of it */

    /* send sequence space */
    tcp_seq iss, irs; /* ISNs, ours and the peer's */
    tcp_seq snd_una, snd_nxt, snd_wl1, snd_wl2;
    tcp_seq snd_up;   /* one past the urgent byte */
    tcp_seq snd_sml;  /* end of the last segment sent that was smaller than the MSS (Minshall) */
    tcp_seq push_seq; /* end of the last write: the segment that reaches it carries PSH */
    uint32_t snd_wnd, snd_wnd_max;
    uint32_t ts_offset; /* of our timestamp clock (RFC 7323 5.4) */
    uint16_t mss;       /* payload of a full segment, options deducted */
    uint16_t peer_mss;  /* from its SYN */
    uint16_t advmss;
    uint8_t snd_wscale, rcv_wscale;
    struct sendbuf sendbuf;
    struct sentmap sent;

    /* receive sequence space */
    tcp_seq rcv_nxt;
    tcp_seq rcv_wup;    /* RCV.NXT when the last ACK went out */
    tcp_seq rcv_adv;    /* right edge offered: never retreats */
    tcp_seq copied_seq; /* next byte that recv() takes */
    tcp_seq fin_seq;
    tcp_seq urg_seq;       /* the urgent byte, when urg_state says so */
    uint8_t urg_state : 2; /* enum tcp_urgent */
    bool no_room : 1;      /* a send() found the buffer full (Linux: SOCK_NOSPACE) */
    bool sender_waits : 1; /* inside.c: the other end has text for us, or little window */
    bool rate_path : 1;    /* rate_delivered is the path's: the program had enough to send */
    uint8_t frto_step : 2; /* enum tcp_frto; in TCP_CA_LOSS */
    uint8_t urg_byte;
    uint16_t rcv_mss;   /* estimate of the peer's segment size */
    uint32_t rcv_limit; /* bytes of window that the buffer admits now: autotuned */
    struct recvbuf recvbuf;
    struct tcp_accecn *accecn; /* accurate ECN, asked for or agreed on; NULL: not so */
    /* receive autotuning: bytes that the program took in the last round trip */
    uint32_t drs_start; /* tcp_short_clock() */
    tcp_seq drs_seq;
    uint32_t drs_space;

    uint32_t ato;           /* delay of the next delayed ACK, ns */
    uint32_t challenged_ms; /* when the last challenge ACK went, 0: none did */
    uint32_t limited_ms[TCP_LIMITS];
    struct tcp_sack_block dsack;

    /* timestamps (RFC 7323) */
    uint32_t ts_recent;
    uint32_t undo_stamp; /* TSval of the first retransmission since undo was armed */
    /* the delivery rate for TCP_INFO: bytes in so many microseconds; 0: none was measured yet */
    uint32_t rate_delivered, rate_interval;

    /* round trips, loss, congestion */
    struct rtt rtt;
    struct tcp_cc cc;
    uint8_t ca_state;
    uint8_t backoffs;
    uint8_t dupacks;
    uint8_t probes_out; /* zero-window probes unanswered */
    uint8_t persist_backoff;
    uint8_t keepalives_out;
    uint8_t retries;      /* of SYN, or time-outs in a row */
    uint8_t held;         /* enum tcp_reason of the silence last traced */
    tcp_seq high_seq;     /* SND.NXT when recovery began */
    tcp_seq round_end;    /* the round trip is over when this is acknowledged */
    uint32_t reno_sacked; /* bytes that duplicate ACKs say have arrived (no SACK) */
    uint32_t max_in_flight;
    nsec_t pace_next;     /* pacing: nothing more leaves before */
    nsec_t retrans_start; /* when what is being retried was first sent; 0: no time-out yet */

    /* RACK-TLP (RFC 8985 5): rack.c */
    nsec_t
        rack_sent;   /* RACK.xmit_ts: when the newest segment known to have arrived left; 0: none */
    nsec_t rack_rtt; /* and how long it took */
    tcp_seq rack_end; /* RACK.end_seq */
    tcp_seq dsack_end;
    tcp_seq tlp_end;
    uint8_t reo_mult;       /* RACK.reo_wnd_mult less one */
    uint8_t reo_persist;    /* recoveries until reo_mult falls back */
    uint16_t reorder_count; /* for TCP_INFO */
    uint32_t dsack_count;   /* D-SACKs received: segments that arrived twice */
    uint32_t total_retrans; /* segments sent again */

    /* Proportional Rate Reduction (RFC 6937 3), and what tells whether it was for nothing */
    uint32_t prr_delivered, prr_out, prr_flight;
    uint32_t undo_retrans; /* bytes sent again since, and not reported as duplicates */

    /* by enum tcp_timer; the wheel holds the earliest */
    nsec_t deadline[TCP_CONN_TIMERS];
    struct wheel_timer timer;

    nsec_t created, last_sent, last_recv, last_ack;
    uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retrans;
    uint32_t segs_in, segs_out, data_segs_in, data_segs_out;
};

_Static_assert(sizeof(struct tcp_conn) <= 1024, "an idle connection costs at most 1 KiB");
_Static_assert(TCP_REASON_COUNT <= 128, "a reason fits ack_why");

/* A connection between SYN and third ACK. Small: a flood of them is cheap. */
struct tcp_half_open {
    struct flow flow; /* first */
    struct list link; /* the listener's SYN queue */
    struct tcp_listener *listener;
    struct wheel_timer timer;
    struct ip_path path;
    tcp_seq iss, irs;
    uint16_t peer_mss;
    uint16_t window; /* of the SYN, unscaled */
    uint8_t snd_wscale, rcv_wscale;
    bool wscale_ok, ts_ok, sack_ok;
    struct tcp_ecn_deal ecn;
    bool wants_cookie, cookie_exp; /* RFC 7413; in the experimental form */
    bool acked; /* third ACK seen, but the accept queue was full or data is awaited */
    uint8_t retransmits;
    uint8_t tos;
    uint32_t ts_recent;
    uint32_t rcv_wnd;
    nsec_t sent;
    nsec_t created;
};

/* What remains of a connection in TIME_WAIT. */
struct tcp_time_wait {
    struct flow flow; /* first */
    struct wheel_timer timer;
    struct list age_link;
    struct ip_path path;
    tcp_seq snd_nxt, rcv_nxt;
    uint32_t rcv_wnd; /* unscaled, as it is to be sent */
    bool ts_ok : 1;
    bool adopted : 1; /* from another stack: `path` is not known */
    bool accecn : 1;  /* ACKs have an ACE field: */
    uint8_t ace : 3;
    uint8_t tos, ttl;
    uint32_t ts_recent, ts_offset;
    nsec_t ts_recent_at;
    nsec_t last_ack;
};

struct tcp_listener {
    struct flow flow; /* first; the remote side is zero */
    void *owner;
    uint32_t fastopen_pending;       /* connections made by a cookie, before their third ACK */
    struct siphash_key fastopen_key; /* of its cookies */
    struct tcp_opts opts;
    uint32_t backlog;
    bool reuseport;
    uint64_t member; /* tcp_listen_args.member */
    uint32_t syn_queue_len, accept_queue_len;
    struct list syn_queue;    /* struct tcp_half_open */
    struct list accept_queue; /* struct tcp_conn */
    nsec_t last_overflow;     /* when cookies were last sent: only then are they believed */
};

static inline struct tcp_conn *conn_of(struct flow *f)
{
    return container_of(f, struct tcp_conn, flow);
}

/* ---- conn.c ---- */
struct tcp_conn *tcp_conn_new(struct stack_cx *cx);
void tcp_set_state(struct stack_cx *cx, struct tcp_conn *c, enum tcp_state s, enum tcp_reason why);
/* Puts the tuple into the table. */
void tcp_conn_enter(struct stack_cx *cx, struct tcp_conn *c, const struct flow_tuple *t);
/* The lists of connections and entries: empty. */
void tcp_lists_init(struct tcp_stack *t);
/* Into the table, with the tuple that it has, and marked; and out of it, if it is there. */
void tcp_conn_insert(struct stack *st, struct tcp_conn *c);
void tcp_conn_remove(struct stack *st, struct tcp_conn *c);
/* It is in the table: its mark is there again, whoever else has the place. */
void tcp_conn_mark(struct stack *st, const struct tcp_conn *c);
/* The connection is over: leaves the table, timers stop, unsent bytes go, state CLOSED, the program
 * is told err. */
void tcp_done(struct stack_cx *cx, struct tcp_conn *c, int err, enum tcp_reason why);
/* Frees the connection when it is CLOSED and nobody holds it. True: it is gone. */
bool tcp_reap(struct stack_cx *cx, struct tcp_conn *c);
/*
 * Whom Linux wakes, which an edge-triggered epoll member can tell: sk_data_ready() those who wait
 * for anything to read, sk_state_change() and sk_error_report() everyone, whatever they wait for.
 */
enum {
    TCP_WAKE_DATA = TCP_EV_IN | TCP_EV_PRI,
    TCP_WAKE_ALL = TCP_EV_IN | TCP_EV_PRI | TCP_EV_OUT | TCP_EV_ERR | TCP_EV_HUP | TCP_EV_RDHUP,
};
/* Tells the program (or the listener's, before accept()) of events. */
void tcp_notify(struct stack_cx *cx, struct tcp_conn *c, uint32_t events);
void tcp_want_output(struct stack_cx *cx, struct tcp_conn *c);
void tcp_timer_set(struct stack_cx *cx, struct tcp_conn *c, enum tcp_timer which, nsec_t at);
static inline void tcp_timer_stop(struct stack_cx *cx, struct tcp_conn *c, enum tcp_timer which)
{
    if (stack_traces(cx, TRACE_TIMER) && c->deadline[which] != NSEC_NEVER)
        TRACE(cx, TIMER, &c->flow, TIMER_CANCELLED, which);
    c->deadline[which] = NSEC_NEVER; /* lazily: the wheel finds out when it gets there */
}
static inline bool tcp_timer_armed(const struct tcp_conn *c, enum tcp_timer which)
{
    return c->deadline[which] != NSEC_NEVER;
}
void tcp_orphan(struct stack_cx *cx, struct tcp_conn *c);
/* The segment size that our side can take over a path: what the MSS option says (RFC 6691). */
uint16_t tcp_local_mss(const struct stack *st, const struct ip_path *path, const struct tcp_opts *o,
                       const struct ip_addr *peer);
/* Sets mss from the path's MTU, the peer's MSS option and the options in use. */
void tcp_update_mss(struct stack_cx *cx, struct tcp_conn *c);
/* The connection starts to carry data: windows, congestion control and timers as at ESTABLISHED. */
void tcp_established(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);
/* The part of it that makes it ready for data; the state stays. */
void tcp_ready_for_data(struct stack_cx *cx, struct tcp_conn *c);
/* No data passes yet: the handshake is not over, and no cookie stands in for it. */
static inline bool tcp_handshaking(const struct tcp_conn *c)
{
    return c->state == TCP_SYN_SENT || (c->state == TCP_SYN_RECEIVED && !c->fast_open);
}
/* When a segment last came that was the peer's beyond doubt. */
static inline nsec_t tcp_last_heard(const struct tcp_conn *c)
{
    return max_u64(c->last_recv, c->last_ack);
}
static inline uint32_t tcp_ms(nsec_t t)
{
    return (uint32_t)(t / NSEC_PER_MSEC);
}
/* In units of 1,024 ns, for differences of up to an hour. */
static inline uint32_t tcp_short_clock(nsec_t t)
{
    return (uint32_t)(t >> 10);
}
/* The timestamp clock of RFC 7323, in milliseconds. */
static inline uint32_t tcp_ts_at(nsec_t t, uint32_t offset)
{
    return tcp_ms(t) + offset;
}
static inline uint32_t tcp_ts_now(const struct stack_cx *cx, uint32_t offset)
{
    return tcp_ts_at(cx->now, offset);
}
/* No time-out is longer (TCP_RTO_MAX_MS). */
static inline nsec_t tcp_rto_max(const struct tcp_opts *o)
{
    return o->rto_max ? o->rto_max * NSEC_PER_MSEC : RTO_MAX;
}
static inline nsec_t tcp_backed_off(const struct tcp_conn *c, unsigned backoffs)
{
    return rtt_backed_off(&c->rtt, backoffs, tcp_rto_max(&c->opts));
}
/* The delay of delayed ACKs is bounded by the time-out. */
static inline uint32_t tcp_ato(const struct tcp_conn *c, nsec_t wanted)
{
    return (uint32_t)min_u64(min_u64(wanted, c->rtt.rto), UINT32_MAX);
}
/* Of `unsent` bytes those that one segment may hold, whatever its size: up to a record's end. */
static inline uint32_t tcp_within_record(const struct tcp_conn *c, uint32_t unsent)
{
    return likely(c->extra == NULL) ? unsent : tcp_extra_record(c, unsent);
}
/* First sequence number of what the send buffer holds. */
static inline tcp_seq tcp_data_start(const struct tcp_conn *c)
{
    return c->syn_acked ? c->snd_una : seq_add(c->iss, 1);
}
static inline tcp_seq tcp_data_end(const struct tcp_conn *c)
{
    return seq_add(tcp_data_start(c), c->sendbuf.len);
}
/* Bytes written and never sent. */
static inline uint32_t tcp_unsent(const struct tcp_conn *c)
{
    int32_t n = seq_diff(tcp_data_end(c), c->snd_nxt);
    return n > 0 ? (uint32_t)n : 0;
}
static inline bool tcp_fin_sent(const struct tcp_conn *c)
{
    /* once it is acknowledged SND.UNA stands behind it and tells nothing any more */
    return c->fin_queued && (c->state == TCP_FIN_WAIT_2 || seq_gt(c->snd_nxt, tcp_data_end(c)));
}
/*
 * Whether an ACK of our SYN is what the next segment must bring: in SYN_RECEIVED, and in FIN_WAIT_1
 * where the program closed before it came (RFC 9293 3.10.4).
 */
static inline bool tcp_awaits_ack_of_syn(const struct tcp_conn *c)
{
    return c->state == TCP_SYN_RECEIVED || (c->state == TCP_FIN_WAIT_1 && !c->syn_acked);
}
static inline uint32_t tcp_in_flight(const struct tcp_conn *c)
{
    uint32_t pipe = sentmap_pipe(&c->sent);
    if (unlikely(!c->syn_acked) && pipe)
        pipe--; /* Linux: a SYN-ACK takes nothing of the window of data (RFC 7413) */
    return pipe > c->reno_sacked ? pipe - c->reno_sacked : 0;
}
static inline bool tcp_synchronized(const struct tcp_conn *c)
{
    return c->state != TCP_CLOSED && c->state != TCP_LISTEN && c->state != TCP_SYN_SENT &&
           c->state != TCP_SYN_RECEIVED;
}

/* ---- window.c ---- */
/* The window to offer now, in bytes, kept from shrinking; also what goes unscaled into a header. */
uint32_t tcp_receive_window(const struct stack_cx *cx, const struct tcp_conn *c);
/* Initial window and scale of a new connection. */
void tcp_window_init(const struct stack_cx *cx, const struct tcp_opts *o, uint32_t *wnd,
                     uint8_t *wscale);
/* recv() took bytes: grows the buffer when the program keeps up, sends a window update when it is
 * worth it. */
void tcp_window_consumed(struct stack_cx *cx, struct tcp_conn *c);
/* What may be in flight whatever the windows are, bytes. */
uint32_t tcp_flight_max(const struct stack *st, const struct tcp_conn *c);
/* c moves so much that it has to share what tcp_flight_max() allows. */
void tcp_moves_much(struct stack_cx *cx, const struct tcp_conn *c);
/* What holds the text up changed, or may have. */
void tcp_note_limit(struct stack_cx *cx, struct tcp_conn *c, enum tcp_limit limit);
void tcp_sndbuf_grow(struct stack_cx *cx, struct tcp_conn *c);
bool tcp_writable(const struct tcp_conn *c);
/* Text left the send buffer, or may have: Linux's sk_stream_write_space(). */
void tcp_tell_writer(struct stack_cx *cx, struct tcp_conn *c, bool writable_before);

/* ---- emit.c: the one place where segments are made ---- */
struct tcp_emit {
    tcp_seq seq;
    uint32_t len; /* payload bytes from the send buffer */
    uint8_t flags;
    bool whole; /* one segment, whatever the MSS: a probe of the path's MTU */
    enum tcp_reason why;
};
/* Sends one frame; returns the payload bytes that went (fewer than asked when slices run out), or
 * negative errno. */
int64_t tcp_emit(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e);
/* A segment without a connection: answers to strangers, half-open and TIME_WAIT entries. */
void tcp_emit_bare(struct stack_cx *cx, const struct flow *trace_as, const struct flow_tuple *tuple,
                   const struct ip_path *path, uint8_t tos, uint8_t ttl,
                   const struct tcp_segment *seg, enum tcp_reason why);
/* RFC 9293 3.10.7.1: the reset that answers a segment which fits nothing. */
void tcp_reset_reply(struct stack_cx *cx, const struct ip_packet *p, const struct tcp_segment *s);
/* The same for a segment that may belong to a connection of another stack: false and not a word if
 * it does. unheard: no listener of ours is for it. */
bool tcp_reset_stranger(struct stack_cx *cx, const struct ip_packet *p, const struct tcp_segment *s,
                        bool unheard);
void tcp_emit_rst(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);
void tcp_emit_ack(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);

static inline void tcp_trace_fired(struct stack_cx *cx, struct tcp_conn *c, enum tcp_timer which,
                                   uint32_t count)
{
    TRACE(cx, TIMER, &c->flow, TIMER_FIRED, which, count);
    stack_note(cx, &c->flow, TRACE_EV_TIMER_FIRED, (uint8_t)which, 0, 0, (uint32_t[4]){count});
}

/* ---- report.c: events that take more than a line to tell; only while they are traced ---- */
/* What was newly taken for lost. */
void tcp_report_lost(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);
/* Text arrived: remembered for tcp_report_recv(). */
void tcp_report_arrival(struct stack_cx *cx, const struct tcp_conn *c, tcp_seq start, uint32_t len,
                        uint16_t gso_size);
/* A recv() took len bytes up to copied_seq. */
void tcp_report_recv(struct stack_cx *cx, struct tcp_conn *c, uint32_t len);

/* ---- output.c ---- */
/* Sends everything that may be sent now: retransmissions, data, FIN, ACK. */
void tcp_output(struct stack_cx *cx, struct tcp_conn *c);
/* Whether the ACK that is due may wait for company: see stack_flush_patiently(). */
bool tcp_ack_has_time(const struct tcp_conn *c);
/*
 * c is about to send text. Who said connect() before is to be accepted before the peer's program
 * hears of that: ACKs of handshakes that were held back leave first. If this completes a handshake
 * itself, those of who was connected before c said connect(): the order of accept() is theirs.
 */
void tcp_release_handshakes(struct stack_cx *cx, const struct tcp_conn *c);
/* Arms the retransmission timer or, where a probe may come first, the loss probe's. */
/* The SYN again, alone, at once: a router or a host refused what went with it. */
void tcp_retransmit_syn(struct stack_cx *cx, struct tcp_conn *c);
void tcp_arm_retransmit(struct stack_cx *cx, struct tcp_conn *c);
/* Sends a segment of new data for a loss probe, whatever cwnd is; false: none may go. */
bool tcp_probe_new(struct stack_cx *cx, struct tcp_conn *c);
/* Sends the last segment again. */
void tcp_probe_again(struct stack_cx *cx, struct tcp_conn *c);

/* ---- ack.c ---- */
/* An acceptable ACK in a synchronized state: RFC 9293 3.10.7.4 fifth. False: drop the segment. */
bool tcp_process_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s);
/* The first len bytes of the send buffer are acknowledged. */
void tcp_text_acked(struct stack_cx *cx, struct tcp_conn *c, uint32_t len);

/* ---- mtu_probe.c ---- */
/* RFC 1191 with the floor of RFC 1122 and of Linux (min_pmtu). */
#define TCP_PMTU_MIN 552u
/* Before the first data: where the path's MTU is to be found by probes, segments begin small. */
void tcp_mtu_begin(struct stack_cx *cx, struct tcp_conn *c);
/* Time-outs in a row: if what is lost is large, the path may swallow large segments in silence. */
void tcp_suspect_black_hole(struct stack_cx *cx, struct tcp_conn *c);
/* A router says what it lets pass. */
void tcp_mtu_learned(struct stack_cx *cx, struct tcp_conn *c, uint32_t mtu);
/* Bytes of text of the probe that is to go now, 0: none; *hold: one is due and waits for cwnd. */
uint32_t tcp_mtu_probe_len(struct stack_cx *cx, struct tcp_conn *c, bool *hold);
void tcp_mtu_probe_sent(struct tcp_conn *c, uint32_t len);
/* What became of it will not be known: another try later. */
void tcp_mtu_probe_given_up(struct stack_cx *cx, struct tcp_conn *c);
/* Bytes were found lost: 0 when they are the probe alone, which is no congestion; else `lost`. */
uint32_t tcp_mtu_probe_lost(struct stack_cx *cx, struct tcp_conn *c, uint32_t lost);
/* A probe is out and an ACK came: the same, and what arrived. */
uint32_t tcp_mtu_probe_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct sent_ack *a,
                              uint32_t lost);

/* ---- fastopen.c ---- */
/* The stack's key of cookies: the configured one, or the random one. */
struct siphash_key tcp_fastopen_key(const struct stack *st);
/* A listener's cookie for a client. */
void tcp_fastopen_cookie(const struct tcp_listener *l, const struct ip_addr *client,
                         const struct ip_addr *server, uint8_t cookie[TCP_COOKIE_LEN]);
/* What a SYN means for Fast Open. */
enum tcp_fastopen_verdict {
    TCP_FASTOPEN_NO,
    TCP_FASTOPEN_GIVE, /* an ordinary handshake, and a cookie in the SYN-ACK */
    TCP_FASTOPEN_YES,  /* its data may be taken at once */
};
enum tcp_fastopen_verdict tcp_fastopen_judge(struct stack *st, const struct tcp_listener *l,
                                             const struct flow_tuple *t,
                                             const struct tcp_segment *s);
/* A SYN-ACK's cookie and MSS are kept; a path that proved hostile to such SYNs is forgotten. */
void tcp_fastopen_learn(struct stack *st, const struct tcp_conn *c, const struct tcp_options *o);
void tcp_fastopen_forget(struct stack *st, const struct ip_addr *server);
/* The option of our SYN. */
void tcp_fastopen_offer(const struct stack *st, const struct tcp_conn *c, struct tcp_options *o);
/* The handshake of a connection made by a cookie is over, one way or the other. */
void tcp_fastopen_done(struct stack_cx *cx, struct tcp_conn *c);
/* Bytes of text that a SYN to this server may carry, advmss being our side's MSS; 0: no cookie. */
uint32_t tcp_fastopen_room(const struct stack *st, const struct tcp_conn *c,
                           const struct ip_addr *server, uint16_t advmss);

/* ---- ecn.c ---- */
/* Before our SYN: what it is to ask for. */
void tcp_ecn_begin(struct stack_cx *cx, struct tcp_conn *c);
/* What a SYN that arrived in a packet with this TOS byte asks for and gets. */
struct tcp_ecn_deal tcp_ecn_accepts(const struct stack *st, const struct tcp_opts *o,
                                    const struct tcp_segment *s, uint8_t tos);
/* What a SYN-ACK grants of what our SYN asked for; and a SYN that crosses it. */
void tcp_ecn_granted(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn_ack,
                     uint8_t tos);
void tcp_ecn_crossed(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *syn,
                     uint8_t tos);
/* A segment is about to go, its other options are set: its flags, and its packet's ECN field. */
void tcp_ecn_mark(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_emit *e,
                  struct tcp_segment *s, uint8_t *tos);
/* Text of an ECN connection arrived. */
void tcp_ecn_receive(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                     uint8_t tos);
/* What an ACK says of marks: sets a->marked. */
void tcp_ecn_feedback(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      struct sent_ack *a);
/* Our window falls: RFC 3168 6.1.2 has that said. */
static inline bool tcp_ecn_says_cwr(const struct tcp_conn *c)
{
    return c->accecn == NULL ? c->ecn_ok : c->cwr_due;
}

/* ---- pacing.c ---- */
/* Bytes a second; 0: not paced. */
uint64_t tcp_pacing_rate(const struct tcp_conn *c);
/* How much of `most` bytes one frame is to hold. */
uint32_t tcp_pacing_frame(const struct tcp_conn *c, uint32_t most);
/* Whether it is too early to send; arms the timer then. */
bool tcp_pacing_holds(struct stack_cx *cx, struct tcp_conn *c);
void tcp_pacing_sent(struct stack_cx *cx, struct tcp_conn *c, uint32_t len);

/* ---- recovery.c ---- */
/* Returns the bytes that this ACK showed to be lost. */
uint32_t tcp_recovery_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                             struct sent_ack *a, uint32_t prior_in_flight, bool duplicate);
void tcp_recovery_on_timeout(struct stack_cx *cx, struct tcp_conn *c);
void tcp_recovery_on_reorder_timeout(struct stack_cx *cx, struct tcp_conn *c);
/* len bytes go out; again: not for the first time. */
void tcp_recovery_on_send(struct stack_cx *cx, struct tcp_conn *c, uint32_t len, bool again);

/* ---- rack.c ---- */
/* Before detection: the newest segment that arrived, signs of reordering. */
void tcp_rack_update(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                     const struct sent_ack *a);
/* Marks what is lost and arms the timer for what may be; returns bytes newly lost. */
uint32_t tcp_rack_detect(struct stack_cx *cx, struct tcp_conn *c);
void tcp_rack_saw_reordering(struct tcp_conn *c);
/* A recovery ended: a widened window does not last for ever. */
void tcp_rack_recovered(struct tcp_conn *c);
/* Whether a probe, and not the RTO, is to break a silence now; and after how long. */
bool tcp_probe_wanted(const struct stack_cx *cx, const struct tcp_conn *c);
nsec_t tcp_probe_timeout(const struct tcp_conn *c);
void tcp_loss_probe_timeout(struct stack_cx *cx, struct tcp_conn *c);
bool tcp_probe_on_ack(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      const struct sent_ack *a, bool duplicate);

/* ---- data.c ---- */
/* Segment text, urgent pointer and FIN: RFC 9293 3.10.7.4 sixth to eighth. */
/* The urgent part alone, of text that nobody will read (Linux looks at that first). */
void tcp_process_urgent(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s);
void tcp_process_text(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                      uint16_t gso_size);
/* Text from start to end came twice: what our next ACK says of it (RFC 2883, RFC 9768 3.2.3.2.2).
 */
void tcp_note_duplicate(struct stack_cx *cx, struct tcp_conn *c, tcp_seq start, tcp_seq end);
void tcp_schedule_ack(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);
/* Text in order arrived: Linux's sk_data_ready(), where SO_RCVLOWAT allows. direct: bytes of it
 * that are in the reader's hands already. */
void tcp_tell_reader(struct stack_cx *cx, struct tcp_conn *c, uint32_t direct);
/* Each segment is acknowledged at once. */
static inline bool tcp_acks_quickly(const struct tcp_conn *c)
{
    return c->quickacks && !c->interactive && !c->opts.quickack_off;
}
/* An ACK is due, but not before the delayed-ACK time is over. */
void tcp_delay_ack(struct stack_cx *cx, struct tcp_conn *c);

/* ---- place.c ---- */
/* Whether the segment is the one that stack_foresee() saw coming. f: whose it is; NULL: nobody's.
 */
bool tcp_foreseen(const struct flow *f, const struct tcp_segment *s);
/* Its text is in order and acceptable: it counts from now on. */
void tcp_take_place(struct tcp_conn *c, struct stack_place *place);

/* ---- input.c ---- */
/* Challenge ACK (RFC 5961), within the limits. */
void tcp_challenge(struct stack_cx *cx, struct tcp_conn *c);
bool tcp_challenge_allowed(struct stack_cx *cx, uint32_t *last_ms);
/* The synchronized states (and SYN_RECEIVED): the long path of RFC 9293 3.10.7.4. */
void tcp_segment_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                         const struct ip_packet *p);

/* ---- handshake.c ---- */
void tcp_syn_sent_arrives(struct stack_cx *cx, struct tcp_conn *c, const struct tcp_segment *s,
                          const struct ip_packet *p);
void tcp_take_syn_options(struct tcp_conn *c, const struct tcp_options *o);

/* ---- listener.c ---- */
struct tcp_listener *tcp_listener_find(const struct stack *st, const struct flow_tuple *t);
/* A connection that a cookie made (RFC 7413) is pending no more. */
void tcp_listener_fastopen_done(const struct stack *st, const struct flow_tuple *t);
void tcp_listener_arrives(struct stack_cx *cx, struct tcp_listener *l, const struct tcp_segment *s,
                          const struct ip_packet *p, const struct flow_tuple *t,
                          const tcp_seq *time_wait_iss);
void tcp_half_open_arrives(struct stack_cx *cx, struct tcp_half_open *h,
                           const struct tcp_segment *s, const struct ip_packet *p);
void tcp_half_open_timer(struct stack_cx *cx, struct tcp_half_open *h);
void tcp_half_open_drop(struct stack_cx *cx, struct tcp_half_open *h, enum tcp_reason why);

/* ---- timewait.c ---- */
/* Leaves a TIME_WAIT entry in the connection's place. The connection itself becomes CLOSED. */
void tcp_time_wait_enter(struct stack_cx *cx, struct tcp_conn *c, enum tcp_reason why);
void tcp_time_wait_arrives(struct stack_cx *cx, struct tcp_time_wait *tw,
                           const struct tcp_segment *s, const struct ip_packet *p);
void tcp_time_wait_timer(struct stack_cx *cx, struct tcp_time_wait *tw);
void tcp_time_wait_drop(struct stack_cx *cx, struct tcp_time_wait *tw, enum tcp_reason why);
/* Whether a new connection may take the tuple over now (RFC 6191, Linux's tcp_tw_reuse for newer
 * timestamps). */
bool tcp_time_wait_reusable(const struct stack_cx *cx, const struct tcp_time_wait *tw);

/* ---- timer.c ---- */
void tcp_conn_timer(struct stack_cx *cx, struct tcp_conn *c);
void tcp_keepalive_arm(struct stack_cx *cx, struct tcp_conn *c);
