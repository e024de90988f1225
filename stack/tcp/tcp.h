/*
 * The calls on TCP connections and listeners: what the shim's socket functions, the packet tests
 * and the simulator use. All are entered with the engine lock held and end in stack_flush() by the
 * caller. Errors are negative errno values with Linux's meaning (tcp(7), the man page of the call).
 */
#pragma once

#include "stack/ip/ip.h"
#include "stack/stack.h"
#include "stack/tcp/cc.h"
#include "stack/tcp/names.h"

struct flow_mark;

/* Readiness, with poll(2)'s bits so that they pass through. */
#define TCP_EV_IN    0x0001u /* POLLIN */
#define TCP_EV_PRI   0x0002u /* POLLPRI: urgent data */
#define TCP_EV_OUT   0x0004u /* POLLOUT */
#define TCP_EV_ERR   0x0008u /* POLLERR */
#define TCP_EV_HUP   0x0010u /* POLLHUP */
#define TCP_EV_RDHUP 0x2000u /* POLLRDHUP */

/* Options of a socket. Set before or after connect/listen; accepted connections inherit their
 * listener's. */
struct tcp_opts {
    bool nodelay, cork, oobinline, keepalive;
    bool quickack_off : 1;  /* TCP_QUICKACK 0: pingpong mode */
    bool linger : 1;        /* SO_LINGER l_onoff */
    bool sndbuf_locked : 1; /* set by the program: no autotuning */
    bool rcvbuf_locked : 1;
    bool pmtu_dont : 1;          /* IP_MTU_DISCOVER: IP_PMTUDISC_DONT */
    bool fastopen_connect : 1;   /* RFC 7413, a client: asks for cookies and uses them */
    bool fastopen_no_cookie : 1; /* TCP_FASTOPEN_NO_COOKIE */
    bool inq : 1;                /* TCP_INQ: recvmsg() tells what is left */
    bool zerocopy : 1;           /* SO_ZEROCOPY: MSG_ZEROCOPY is heard */
    uint8_t tos, ttl, priority;
    uint8_t cc;      /* enum tcp_cc_id */
    uint8_t keepcnt; /* 0: default (9) */
    uint8_t syncnt;  /* 0: default (6) */
    /* RFC 7413, a listener: so many connections that have not finished their handshake may wait.
     * 0: no Fast Open. */
    uint8_t fastopen;
    uint16_t linger_secs;
    uint16_t user_mss;            /* TCP_MAXSEG; 0: by path */
    uint16_t keepidle, keepintvl; /* seconds; 0: defaults (7200, 75) */
    uint16_t defer_accept;        /* seconds; 0: off */
    uint32_t rto_max;             /* ms; 0: default (120 s) */
    uint32_t user_timeout;        /* ms; 0: by retries */
    int32_t linger2; /* TCP_LINGER2 seconds; 0: default (60); negative: no FIN_WAIT_2 for orphans */
    uint32_t sndbuf, rcvbuf; /* bytes, doubled as Linux does */
    uint32_t rcvlowat;       /* at least 1 */
    uint32_t notsent_lowat;  /* UINT32_MAX: off */
    uint32_t window_clamp;   /* 0: none */
    uint32_t max_pacing;     /* SO_MAX_PACING_RATE in units of 64 bytes a second; 0: none */
};

/* Linux's defaults (tcp_rmem, tcp_wmem). */
#define TCP_SNDBUF_DEFAULT 87040u
#define TCP_SNDBUF_MAX     (4u << 20)
#define TCP_RCVBUF_DEFAULT 131072u
#define TCP_RCVBUF_MAX     (6u << 20)
#define TCP_BUF_MIN        4608u

void tcp_opts_init(struct tcp_opts *o, const struct stack *st);

/* ---- connections ---- */

/* A connection in CLOSED with default options, or NULL when the arena is full. Released by
 * tcp_close(). */
struct tcp_conn *tcp_open(struct stack_cx *cx);
/* What notify() is given for this connection; NULL ends the notifications. */
void tcp_set_owner(struct tcp_conn *c, void *owner);
void *tcp_owner(const struct tcp_conn *c);
/* The options, to read or to write; after writing call tcp_opts_changed(). */
struct tcp_opts *tcp_opts(struct tcp_conn *c);
/* Lets changed options take effect: pushes what Nagle or the cork held, re-arms keepalive, resizes
 * buffers. */
void tcp_opts_changed(struct stack_cx *cx, struct tcp_conn *c);
/* Switches congestion control; -ENOENT for an unknown id. */
int tcp_set_cc(struct stack_cx *cx, struct tcp_conn *c, uint8_t id);

/*
 * Active open: sends the SYN and enters SYN_SENT. -EADDRINUSE when the 4-tuple exists (a TIME_WAIT
 * entry that may be reused is replaced), -EISCONN, -EALREADY, -ENOBUFS. The outcome comes by
 * notify(): TCP_EV_OUT on success, TCP_EV_ERR|HUP on failure with tcp_take_error().
 */
int tcp_connect(struct stack_cx *cx, struct tcp_conn *c, const struct endpoint *local,
                const struct endpoint *remote, const struct ip_path *path);
/*
 * Fast Open (RFC 7413), with opts.fastopen_connect set: whether data may go with a SYN to this
 * server (its cookie is known, or none is needed); and the bytes that are to go with it, as many as
 * fit, put into the send buffer before tcp_connect() over the same path. Returns the bytes taken,
 * or -ENOBUFS.
 */
/* Whether connections of this stack may use it at all. */
bool tcp_fastopen_client(const struct stack *st);
bool tcp_fastopen_known(const struct stack *st, const struct tcp_conn *c,
                        const struct ip_addr *server);
int64_t tcp_send_ahead(struct stack_cx *cx, struct tcp_conn *c, const struct ip_addr *server,
                       const struct ip_path *path, const struct slice *from, unsigned n);
/* A program waits for the handshake with more to send: that will carry its last ACK. */
void tcp_expect_send(struct tcp_conn *c, bool expected);
/* TCP_FASTOPEN_CONNECT: connect() said yes and waits for the first data. Poll shows it writable. */
void tcp_defer(struct tcp_conn *c, bool deferred);
bool tcp_deferred(const struct tcp_conn *c);
/*
 * An ephemeral port for local->remote that no connection uses, chosen as RFC 6056 asks; `attempt`
 * counts from 0 when the caller could not use (guard) the one before. In shared address mode the
 * shim passes the block of ports that it has guarded through [min, max]. 0: none is free.
 */
uint16_t tcp_ephemeral_port(struct stack_cx *cx, const struct ip_addr *local,
                            const struct endpoint *remote, uint16_t min, uint16_t max,
                            unsigned attempt);
/*
 * From now on connections are marked in `marks` (marks.h), which is zeroed and lies at that address
 * in whatever process enters; NULL: no more.
 */
void tcp_use_marks(struct stack *st, struct flow_mark *marks);
/* NULL: there are none. */
struct flow_mark *tcp_marks(const struct stack *st);
/* Whether any connection, half-open entry, TIME_WAIT entry or listener uses this local port. */
bool tcp_port_in_use(const struct stack *st, uint16_t port);
/* What has this tuple now, for traces; NULL: nothing. */
const struct flow *tcp_flow_find(const struct stack *st, const struct flow_tuple *tuple);

#define TCP_SEND_MORE 0x1u  /* MSG_MORE: as if corked */
#define TCP_SEND_OOB  0x2u  /* MSG_OOB: the last byte is urgent */
#define TCP_SEND_EOR  0x4u  /* MSG_EOR: the last byte ends a record, whose segment ends there */
#define TCP_SEND_PART 0x8u  /* the rest of the call's bytes follows at once */
#define TCP_SEND_ONCE 0x10u /* the call takes no more than what is taken now */
/*
 * The program will go on at once, or close: where nothing is in flight, less than a segment waits
 * for that, so that both leave together, until the next call ends (stack_flush_patiently()).
 */
#define TCP_SEND_UNFINISHED 0x20u
/*
 * Takes bytes into the send buffer and sends what may be sent. Returns the bytes taken (never 0
 * unless asked for 0), or -EAGAIN (no room), -EPIPE (shut down; the SIGPIPE is the shim's),
 * -ENOTCONN, -EINPROGRESS-like states give -EAGAIN, or the connection's pending error (once).
 */
int64_t tcp_send(struct stack_cx *cx, struct tcp_conn *c, const struct slice *from, unsigned n,
                 uint32_t flags);
/* Whether text of the connection waits so; a call that will go on is only prepared: it waits on. */
bool tcp_unfinished(const struct stack *st, const struct tcp_conn *c);
void tcp_unfinished_yet(struct stack *st, const struct tcp_conn *c);
#define TCP_RECV_PEEK  0x1u
#define TCP_RECV_TRUNC 0x2u /* MSG_TRUNC: discard */
#define TCP_RECV_OOB   0x4u /* the urgent byte */
/*
 * Takes ready bytes. 0: end of stream. -EAGAIN: nothing yet. -ENOTCONN, -EINVAL (MSG_OOB without
 * urgent data), or the connection's pending error (once). Never reads across the urgent mark.
 * peek_from: bytes to skip when peeking (SO_PEEK_OFF, MSG_WAITALL loops).
 */
int64_t tcp_recv(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to, unsigned n,
                 uint32_t flags, uint32_t peek_from);

/*
 * Large transfers between two ends in the same stack, copied while others use it
 * (stack/tcp/parcel.h). tcp_pack(): room for up to len bytes of text that the program sends, or
 * NULL: tcp_send() is to be called. tcp_send_parcel() takes it, with results like tcp_send() but
 * never a part of it. tcp_recv_parcel(): up to to->len bytes; those of *out are not at their place
 * yet, the first ones of `to`. 0: tcp_recv() is to be called. holder: whose the parcel is (not 0).
 */
struct tcp_parcel;
struct tcp_parcel *tcp_pack(struct stack_cx *cx, struct tcp_conn *c, size_t len, uint32_t holder);
uint32_t tcp_parcel_len(const struct tcp_parcel *p);
int64_t tcp_send_parcel(struct stack_cx *cx, struct tcp_conn *c, struct tcp_parcel *p);
int64_t tcp_recv_parcel(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                        uint32_t holder, struct tcp_parcel **out);
/* Needs no lock: copies the text from the program, or to it. */
void tcp_parcel_fill(const struct tcp_parcel *p, const void *from);
void tcp_parcel_empty(const struct tcp_parcel *p, void *to);
void tcp_parcel_free(struct stack_cx *cx, struct tcp_parcel *p);
/* The holder is dead: frees all that it had. */
void tcp_parcels_drop(struct stack *st, uint32_t holder);

enum tcp_how { TCP_SHUT_RD = 0, TCP_SHUT_WR = 1, TCP_SHUT_RDWR = 2 };
/* -ENOTCONN when not connected (the direction counts as shut all the same). */
int tcp_shutdown(struct stack_cx *cx, struct tcp_conn *c, enum tcp_how how);
/*
 * The last reference is gone: the pointer is dead for the caller. The engine finishes alone what
 * must be finished (data, FIN, TIME_WAIT), or resets (unread data, SO_LINGER 0).
 */
void tcp_close(struct stack_cx *cx, struct tcp_conn *c);
/* Whether everything sent was acknowledged and our FIN too: what SO_LINGER and exit wait for. */
bool tcp_sent_all(const struct tcp_conn *c);
/* connect(AF_UNSPEC), or an abort: RST where the state asks for one; the connection returns to
 * CLOSED. */
void tcp_disconnect(struct stack_cx *cx, struct tcp_conn *c);

/* Level-triggered readiness now (TCP_EV_*), as Linux's tcp_poll(). */
uint32_t tcp_poll(const struct tcp_conn *c);
enum tcp_state tcp_state(const struct tcp_conn *c);
/* SO_ERROR: returns the pending error (positive errno) and clears it. */
int tcp_take_error(struct tcp_conn *c);
int tcp_peek_error(const struct tcp_conn *c);
bool tcp_local(const struct tcp_conn *c, struct endpoint *out);
/* False: not connected (getpeername gives ENOTCONN). */
bool tcp_remote(const struct tcp_conn *c, struct endpoint *out);
/* SIOCINQ, SIOCOUTQ, SIOCOUTQNSD; sockatmark. */
uint32_t tcp_inq(const struct tcp_conn *c);
uint32_t tcp_outq(const struct tcp_conn *c);
/* Bytes that close() would throw away, those of and behind an urgent mark included. */
uint32_t tcp_unread(const struct tcp_conn *c);
uint32_t tcp_outq_unsent(const struct tcp_conn *c);
/*
 * Room for the len bytes of text that follow the next `direct` ones, for stack_foresee(). Returns
 * the number of slices, 0: there is none.
 */
#define TCP_PLACE_SLICES 20
unsigned tcp_place_text(struct stack_cx *cx, struct tcp_conn *c, uint32_t direct, uint32_t len,
                        struct slice out[TCP_PLACE_SLICES]);
/*
 * Text for c is the next to come, and stays in the device until the program reads: c is readable.
 * Until tcp_unannounce(), which is due when the next frame is taken from there, whatever it is.
 * False: the program would not be told of so few bytes.
 */
bool tcp_announce(struct stack_cx *cx, struct tcp_conn *c, uint32_t bytes);
/*
 * Text for c is the next to come, for a program that is reading: the ACK of what it has just read
 * may wait for that. Until tcp_unannounce(); nobody is told that c is readable.
 */
void tcp_foresee_more(struct stack *st, struct tcp_conn *c);
void tcp_unannounce(struct stack *st);
/* Whether the frame that is next to come was seen: announced, or by tcp_foresee_more(). */
bool tcp_any_foreseen(const struct stack *st);
bool tcp_any_announced(const struct stack *st);
/* The number of the last announcement or foresight. */
uint32_t tcp_announced_last(const struct stack *st);
bool tcp_announced(const struct tcp_conn *c);
/* Whether the frame that is next to come was seen, and has text for c. */
bool tcp_text_foreseen(const struct stack *st, const struct tcp_conn *c);
bool tcp_at_mark(const struct tcp_conn *c);
/* Whether there is an urgent mark that was not passed yet. */
bool tcp_has_mark(const struct tcp_conn *c);
bool tcp_reading_shut(const struct tcp_conn *c);
bool tcp_writing_shut(const struct tcp_conn *c);
/* Room in the send buffer, as poll counts it. */
uint32_t tcp_send_room(const struct tcp_conn *c);
/* It is, or tries to be, connected inside the stack: no frame from outside concerns it. */
bool tcp_is_inside(const struct tcp_conn *c);
/* The number by which traces name the connection. */
uint32_t tcp_number(const struct tcp_conn *c);
const struct flow *tcp_flow(const struct tcp_conn *c);
struct tcp_listener;
const struct flow *tcp_listener_flow(const struct tcp_listener *l);
/* The initial sequence numbers of both sides, ours (ISS) and the peer's (IRS), as far as known. */
struct tcp_isns {
    bool has_iss, has_irs;
    uint32_t iss, irs;
};
/* f must be what the engine hands to traces, no copy (or one of kind 0). False: it knows none. */
bool tcp_flow_isns(const struct flow *f, struct tcp_isns *out);
/* Current segment size (TCP_MAXSEG). */
uint32_t tcp_mss(const struct tcp_conn *c);
uint32_t tcp_path_mtu(const struct stack *st, const struct tcp_conn *c);
/* TCP_NODELAY was set: what Nagle or a cork holds back goes now, once (Linux). */
void tcp_push(struct stack_cx *cx, struct tcp_conn *c);
/* The program reads or will read now: turns pingpong mode off (TCP_QUICKACK 1). */
void tcp_quickack(struct stack_cx *cx, struct tcp_conn *c, bool on);

/*
 * The error queue (MSG_ERRQUEUE): what the program asked to hear of what it sent. While something
 * is in it poll says TCP_EV_ERR.
 */
enum tcp_report_kind {
    TCP_REPORT_ZEROCOPY, /* the buffers of the sends `first` to `last` are free (MSG_ZEROCOPY) */
    /* a send's last byte, the `first`th that was counted, went to the device's queue; left; is
       acknowledged */
    TCP_REPORT_SCHED,
    TCP_REPORT_SENT,
    TCP_REPORT_ACKED,
};
struct tcp_report {
    nsec_t at;
    uint32_t first, last;
    uint8_t kind; /* enum tcp_report_kind */
};
/* The oldest report, which is taken out. False: there is none. */
bool tcp_take_report(struct stack_cx *cx, struct tcp_conn *c, struct tcp_report *out);
/* The byte that is the 0th from now on: that of before, SND.UNA, or the next that is written. */
enum tcp_stamp_base { TCP_STAMP_BASE_KEPT, TCP_STAMP_BASE_UNACKED, TCP_STAMP_BASE_UNWRITTEN };
/*
 * Which stamps later sends get: bits 1 << enum tcp_report_kind. stamping is the caller's, for
 * tcp_stamping(). -ENOBUFS.
 */
int tcp_set_stamps(struct stack_cx *cx, struct tcp_conn *c, uint8_t kinds, uint32_t stamping,
                   enum tcp_stamp_base base);
uint32_t tcp_stamping(const struct tcp_conn *c);
/* A send with MSG_ZEROCOPY took its bytes, by copying: its buffers are free. */
void tcp_zerocopy_done(struct stack_cx *cx, struct tcp_conn *c);

/* What TCP_INFO needs, in engine terms. */
struct tcp_view {
    enum tcp_state state;
    uint8_t ca_state; /* 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss: Linux's TCP_CA_* */
    uint8_t backoff, retransmits, probes;
    bool ts, sack, wscale, ecn;
    bool accecn; /* accurate ECN: see tcp_view_accecn() */
    uint8_t snd_wscale, rcv_wscale;
    nsec_t rto, ato, srtt, rttvar, min_rtt, rcv_rtt;
    uint32_t snd_mss, rcv_mss, advmss, pmtu;
    uint32_t unacked_segs, sacked_segs, lost_segs, retrans_segs;
    nsec_t last_data_sent, last_data_recv, last_ack_recv; /* ages */
    uint32_t cwnd, ssthresh;                              /* bytes */
    uint32_t rcv_ssthresh, rcv_space, snd_wnd, rcv_wnd;
    uint32_t total_retrans;
    uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retrans;
    uint32_t delivered_segs;
    bool syn_data; /* data of a SYN was taken (RFC 7413) */
    uint32_t segs_in, segs_out, data_segs_in, data_segs_out, notsent;
    uint32_t sndbuf, rcvbuf;
    uint32_t reord_seen, dsack_dups;
    uint32_t reordering; /* segments by which one was late at most; 3 at least (tcp_reordering) */
    bool ecn_seen;
    nsec_t busy, rwnd_limited, sndbuf_limited; /* see enum tcp_limit; busy is the sum */
    uint64_t pacing_rate, max_pacing_rate;     /* bytes a second; UINT64_MAX: none */
    uint64_t delivery_rate;                    /* bytes a second; 0: none was measured yet */
    bool app_limited; /* it is what the program sent, the path may carry more */
};
void tcp_view(const struct stack_cx *cx, const struct tcp_conn *c, struct tcp_view *out);

/* The counters of accurate ECN (RFC 9768), all from zero on. */
struct tcp_view_accecn {
    uint32_t received_ce, delivered_ce; /* packets, CE marks of ours that the peer tells of */
    uint32_t received_e0, received_e1, received_ce_bytes;
    uint32_t delivered_e0, delivered_e1, delivered_ce_bytes;
    uint8_t option_seen; /* Linux's TCP_ACCECN_OPT_*: 0 no, 1 an empty one, 2 yes, 3 spoiled */
    uint8_t failures;    /* Linux's TCP_ACCECN_*_FAIL_*: bits of what does not come through */
};
/* False: the connection does without. c must be the connection itself, no copy. */
bool tcp_view_accecn(const struct tcp_conn *c, struct tcp_view_accecn *out);

/* ---- listeners ---- */

struct tcp_listen_args {
    struct endpoint local; /* any address: :: or 0.0.0.0 (mapped) */
    int backlog;           /* as listen(2): clamped to somaxconn (4096), queue holds backlog + 1 */
    bool reuseport;        /* several listeners share the port; SYNs spread by hash */
    uint64_t member;       /* by which stack_ops.elect knows it; 0: not at all */
    const struct tcp_opts *opts;
    const uint8_t *fastopen_key; /* TCP_FASTOPEN_KEY_LEN bytes; NULL: the stack's */
    void *owner;                 /* for notify(): TCP_EV_IN when a connection can be accepted */
};
/* -EADDRINUSE when another listener of the stack has the address and not both say reuseport;
 * -ENOBUFS. */
int tcp_listen(struct stack_cx *cx, const struct tcp_listen_args *args, struct tcp_listener **out);
void tcp_listener_set_fastopen_key(struct tcp_listener *l, const uint8_t *key);
void tcp_listener_set_backlog(struct tcp_listener *l, int backlog);
/* Options that accepted connections will inherit. */
struct tcp_opts *tcp_listener_opts(struct tcp_listener *l);
/* NULL: the accept queue is empty. The connection's owner is NULL. */
struct tcp_conn *tcp_accept(struct stack_cx *cx, struct tcp_listener *l);
/* Half-open entries are dropped, connections not yet accepted are reset, as Linux does. */
void tcp_listener_close(struct stack_cx *cx, struct tcp_listener *l);
uint32_t tcp_listener_poll(const struct tcp_listener *l);
void tcp_listener_queues(const struct tcp_listener *l, uint32_t *syn_queue, uint32_t *accept_queue,
                         uint32_t *backlog);
uint32_t tcp_listener_number(const struct tcp_listener *l);

/* ---- the whole stack ---- */

/* Connections that the program has closed and the engine still works on (TIME_WAIT not counted). */
uint32_t tcp_orphans(const struct stack *st);
/* Orphans that still have data or a FIN to deliver: what a process waits for at exit. */
uint32_t tcp_orphans_unsent(const struct stack *st);
uint32_t tcp_connections(const struct stack *st);
uint32_t tcp_time_waits(const struct stack *st);
void tcp_each_conn(struct stack *st, void (*visit)(struct tcp_conn *c, void *arg), void *arg);
void tcp_each_listener(struct stack *st, void (*visit)(struct tcp_listener *l, void *arg),
                       void *arg);
/* For who looks for what nobody has any more, after stack_repair(). */
bool tcp_is_conn(const struct stack *st, const struct tcp_conn *c);
bool tcp_is_listener(const struct stack *st, const struct tcp_listener *l);
/* Whether the program has it: between tcp_open() or tcp_accept() and tcp_close(). */
bool tcp_is_held(const struct tcp_conn *c);
void *tcp_listener_owner(const struct tcp_listener *l);
uint16_t tcp_listener_port(const struct tcp_listener *l);
/* The listener of the port that tcp_listen() was given this number for, or NULL. */
struct tcp_listener *tcp_listener_member(const struct stack *st, uint16_t port, uint64_t member);
/* Checks every invariant of every connection; returns the number broken (tests expect 0). */
uint32_t tcp_check_invariants(struct stack *st);
