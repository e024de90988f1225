/*
 * The engine's public face. Frames in, frames out, calls in, events out.
 *
 * The engine makes no system call, reads no clock, starts no thread, keeps no global and calls no
 * malloc. A `struct stack` lives in an arena; every entry point takes a `struct stack_cx`, which is
 * process-local and says who calls, at what time, and where frames and events go. The caller holds
 * the engine lock for the whole of an entry and ends a batch of entries with stack_flush().
 *
 * The calls on connections and listeners are in stack/tcp/tcp.h.
 */
#pragma once

#include "stack/arena.h"
#include "stack/base.h"
#include "stack/trace.h"
#include "stack/util/list.h"
#include "stack/util/random.h"
#include "stack/util/wheel.h"

/* Room in front of a TCP segment for L2 and L3 headers (Ethernet 14 + IPv6 40, rounded). */
#define FRAME_HEADROOM 64
/* TCP header with the most options. */
#define TCP_HEADER_MAX 60
/* A frame's bytes, L2 header included, never exceed this (AF_PACKET segments larger ones in
 * software). */
#define FRAME_BYTES_MAX 65535
/* Payload slices of one frame: 64 KB in chunks, one more at each end for partial ones. */
#define FRAME_SLICES_MAX 20

/* A frame on its way out: headers built in place, payload left where it lies. */
struct frame_out {
    uint8_t netif;    /* index into stack.netifs */
    uint8_t l4_proto; /* IPPROTO_* of what is at `l4` */
    uint8_t head[FRAME_HEADROOM + TCP_HEADER_MAX + 4];
    uint16_t head_start; /* offset in head[] of the first byte to send */
    uint16_t l4;         /* offset in head[] of the transport header (FRAME_HEADROOM for TCP) */
    uint16_t head_end;   /* offset in head[] after the last header byte */
    uint16_t gso_size;   /* payload bytes per segment when the link must cut; 0: a single segment */
    bool lasting;        /* the slices stay as they are until stack_ops.flush */
    bool csum_partial;   /* the transport checksum field holds the pseudo-header sum only */
    uint16_t csum_offset; /* of the checksum field within the transport header */
    uint32_t payload_len;
    unsigned nslices;
    struct slice slices[FRAME_SLICES_MAX];
};

/*
 * Text of a frame that a link has put where it is wanted, and not behind the frame's headers: see
 * stack_foresee().
 */
struct stack_place {
    struct tcp_conn *conn;
    uint32_t head;   /* bytes of headers in front of the text */
    uint32_t len;    /* of the text */
    uint32_t direct; /* the first bytes of it that went to the program; the rest lies where
                        tcp_place_text() said */
    bool taken;      /* out: it counts as received */
};

/* A frame that arrived. */
struct frame_in {
    const uint8_t *data; /* from the L2 header on (from the IP header where the link has no L2) */
    uint32_t len;
    uint8_t netif;
    bool csum_trusted; /* the link vouches for the checksum (partial or verified): do not verify */
    uint16_t gso_size; /* payload bytes per wire segment of a coalesced frame, 0 otherwise */
    struct stack_place *place; /* the text lies elsewhere: data has the headers alone. Else NULL */
};

enum netif_kind {
    NETIF_ETHERNET, /* 14-byte headers, ARP */
    NETIF_RAW_IP,   /* no L2 header (tun) */
    NETIF_LOOPBACK, /* inside the stack */
};

#define NETIFS_MAX      16
#define NETIF_LOOP      0 /* the index of the loopback inside the stack */
#define NETIF_ADDRS_MAX 8

/* An interface as the engine sees it. */
struct netif {
    bool up;
    enum netif_kind kind;
    uint32_t ifindex; /* the kernel's number, for the link; 0 inside the stack */
    uint32_t mtu;     /* bytes of an IP packet */
    uint8_t mac[6];
    bool gso;          /* takes frames larger than the MTU and cuts them */
    bool csum_offload; /* completes partial checksums */
    bool answers_arp;  /* own address: the engine answers ARP and ping for its addresses */
    unsigned naddrs;
    struct {
        struct ip_addr addr;
        uint8_t prefix; /* of the 128: an IPv4 /24 is 120 */
        bool conflict;  /* another station claims it */
    } addrs[NETIF_ADDRS_MAX];
    struct ip_addr gateway; /* own address mode; zero: none */
};

/* How packets of one connection travel. Filled by the shim from the kernel's routing or by
 * ip_route(). */
struct ip_path {
    uint8_t netif;
    bool mac_known; /* mac is the next hop's, learned from its frames: no ARP needed */
    uint8_t mac[6];
    uint32_t mtu; /* 0: the interface's */
    /* the search for a larger one: stack/tcp/mtu_probe.c */
    uint16_t mtu_high;       /* it ends here; 0: no search */
    uint16_t mtu_probe;      /* of the packet that is out; 0: none */
    struct ip_addr next_hop; /* on-link neighbour to ask ARP for */
};

struct stack_cx;
struct flow_tuple;
struct tcp_conn;
struct tcp_listener;

/* What the engine needs from outside. Process-local: never stored in the arena. */
struct stack_ops {
    /*
     * Puts a frame on the wire before it returns, or keeps it, if it is lasting, until flush;
     * slices point into the arena. 0, or a negative errno (-ENOBUFS, -EAGAIN: the frame is lost
     * like any other; -ENETDOWN likewise).
     */
    int (*transmit)(struct stack_cx *cx, const struct frame_out *frame);
    /* What transmit kept leaves before it returns. NULL: transmit keeps nothing. */
    void (*flush)(struct stack_cx *cx);
    /*
     * Something happened to a socket that Linux would wake a sleeper for: `events` is the set of
     * TCP_EV_* that became (again) true. `owner` is what tcp_set_owner()/tcp_listen() was given.
     */
    void (*notify)(struct stack_cx *cx, void *owner, uint32_t events);
    /* One trace record; only called for classes in cx->trace. May be NULL when cx->trace is 0. */
    void (*trace)(struct stack_cx *cx, const struct trace_record *record);
    /* While TRACE_TROUBLE is in cx->trace: a connection has just ended by an error or a reset. */
    void (*trouble)(struct stack_cx *cx, const struct flow *flow);
    /*
     * A conflict or another condition a human must hear of (ARP conflict). May be NULL.
     */
    void (*warn)(struct stack_cx *cx, const char *text, const struct ip_addr *addr);
    /*
     * Shared address: whether another stack on this host has this connection, so that its segments
     * are not ours to reset. unheard: this stack has no listener for it. May be NULL.
     */
    bool (*foreign)(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                    bool unheard);
    /*
     * Shared address: whose a new connection is, where listeners share a port (SO_REUSEPORT),
     * perhaps with listeners of other stacks. *member is the number that tcp_listen() was given for
     * it, or one that this stack does not know. False: cannot be told, the stack chooses among its
     * own. May be NULL.
     */
    bool (*elect)(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                  uint64_t *member);
    /* A packet that one end of a connection inside this stack sent to the other. NULL: nobody
     * looks, and text may pass without packets. */
    void (*looped)(struct stack_cx *cx, const struct frame_in *packet);
};

/* Who calls, when, and where output goes. */
struct stack_cx {
    struct stack *st;
    nsec_t now;
    const struct stack_ops *ops;
    void *user;     /* the caller's */
    uint32_t trace; /* enum trace_class bits */
};

/* Whether any of these classes is watched. */
static inline bool stack_traces(const struct stack_cx *cx, uint32_t classes)
{
#ifdef TRACE_NONE /* for bench/instructions: what watching costs while nobody does */
    (void)cx, (void)classes;
    return false;
#else
    return unlikely((cx->trace & classes) != 0);
#endif
}

/* As Linux's tcp_mtu_probing: not; once large segments were lost again and again; from small on. */
enum stack_mtu_probing {
    STACK_MTU_PROBING_OFF = 0,
    STACK_MTU_PROBING_BLACK_HOLE = 1,
    STACK_MTU_PROBING_ALWAYS = 2
};

/* Which segments carry the option of accurate ECN (RFC 9768 3.2.3); Linux's tcp_ecn_option. */
enum stack_ecn_option {
    STACK_ECN_OPTION_FITTING, /* 2, the default: all, where it fits and comes through */
    STACK_ECN_OPTION_OFF,     /* 0 */
    STACK_ECN_OPTION_SELDOM,  /* 1: when its counters changed, and a few times a round trip */
    STACK_ECN_OPTION_ALWAYS,  /* 3: also where segments with it seem to be dropped */
};
#define STACK_ECN_BEACON_NONE UINT8_MAX

/* From Linux's numbers. */
static inline uint8_t ecn_option_of(long sysctl)
{
    static const uint8_t by_number[] = {STACK_ECN_OPTION_OFF, STACK_ECN_OPTION_SELDOM,
                                        STACK_ECN_OPTION_FITTING, STACK_ECN_OPTION_ALWAYS};
    return sysctl >= 0 && sysctl <= 3 ? by_number[sysctl] : STACK_ECN_OPTION_FITTING;
}

static inline uint8_t ecn_beacon_of(long sysctl)
{
    return sysctl > 0 && sysctl < STACK_ECN_BEACON_NONE ? (uint8_t)sysctl : STACK_ECN_BEACON_NONE;
}

/* Linux's sysctls of the same purpose. All zero: Linux's defaults. */
struct stack_tuning {
    bool no_sack, no_timestamps, no_wscale; /* net.ipv4.tcp_sack, ... = 0 */
    bool no_idle_restart;                   /* tcp_slow_start_after_idle = 0 */
    bool no_probes;                         /* tcp_early_retrans = 0 */
    bool no_ack_interval;                   /* tcp_invalid_ratelimit = 0 */
    uint8_t mtu_probing;                    /* enum stack_mtu_probing */
    uint8_t min_frame_segs;                 /* tcp_min_tso_segs */
    uint8_t ecn_option;                     /* enum stack_ecn_option */
    uint8_t ecn_beacon;          /* tcp_ecn_option_beacon; 0: 3 times a round trip, the default */
    bool no_ecn_fallback;        /* tcp_ecn_fallback = 0 */
    uint32_t sndbuf, sndbuf_max; /* tcp_wmem */
    uint32_t rcvbuf, rcvbuf_max; /* tcp_rmem */
};

/* As Linux's tcp_ecn: what connections ask for, and the most that they are granted. */
enum stack_ecn {
    STACK_ECN_OFF = 0,
    STACK_ECN_ASK = 1,
    STACK_ECN_ACCEPT = 2,
    STACK_ECN_ACCURATE = 3,             /* ask for accurate ECN (RFC 9768), and accept it */
    STACK_ECN_ACCURATE_ASK_CLASSIC = 4, /* accept it, ask for RFC 3168 */
    STACK_ECN_ACCURATE_ACCEPT = 5,      /* accept it, ask for nothing */
};
#define STACK_ECN_MAX STACK_ECN_ACCURATE_ACCEPT

/* Bytes of a key of cookies (Linux: TCP_FASTOPEN_KEY_LENGTH). */
#define TCP_FASTOPEN_KEY_LEN 16

/* The bits of Linux's tcp_fastopen (ip-sysctl.rst). */
enum stack_fastopen {
    STACK_FASTOPEN_CLIENT = 0x1,
    STACK_FASTOPEN_SERVER = 0x2,
    STACK_FASTOPEN_CLIENT_NO_COOKIE = 0x4,   /* data goes with the SYN without one */
    STACK_FASTOPEN_SERVER_NO_COOKIE = 0x200, /* and is taken without one */
    STACK_FASTOPEN_ALL_LISTENERS = 0x400,    /* also those that did not set TCP_FASTOPEN */
};

struct stack_config {
    uint8_t seed[16];
    /* True: the stack owns its addresses alone (answers RST for unknown ports). */
    bool own_address;
    bool loopback; /* connections to own addresses and 127/8 may run inside the arena */
    uint16_t port_min, port_max; /* ephemeral range, inclusive */
    uint8_t cc;                  /* default congestion control, enum tcp_cc_id */
    struct stack_tuning tuning;
    uint8_t ecn;       /* enum stack_ecn */
    uint16_t fastopen; /* bits of enum stack_fastopen */
    /* of the server's cookies, as Linux's; all zero: a random one */
    uint8_t fastopen_key[TCP_FASTOPEN_KEY_LEN];
};

/*
 * Counters, for `tcpshim ss` and tests. X(id, name, what)
 */
#define STACK_COUNTERS(X)                                                                          \
    X(FRAMES_IN, "frames-in", "frames handed to the engine")                                       \
    X(FRAMES_OUT, "frames-out", "frames handed to the link")                                       \
    X(TX_FAILED, "tx-failed", "frames that the link refused")                                      \
    X(SHORT_FRAME, "drop-short", "frame shorter than its headers say")                             \
    X(BAD_ETHER, "drop-ether", "neither IPv4 nor ARP")                                             \
    X(BAD_IP, "drop-ip-header", "malformed IP header")                                             \
    X(BAD_IP_CSUM, "drop-ip-checksum", "IP header checksum wrong")                                 \
    X(NOT_OURS, "drop-not-ours", "addressed to somebody else")                                     \
    X(BAD_SOURCE, "drop-source", "source address is multicast, broadcast, zero or our own")        \
    X(BAD_PROTO, "drop-protocol", "IP protocol not spoken")                                        \
    X(FRAG_IN, "fragments-in", "fragments received")                                               \
    X(FRAG_OK, "fragments-joined", "datagrams reassembled")                                        \
    X(FRAG_DROPPED, "drop-fragment", "fragments dropped: bound, overlap or time")                  \
    X(BAD_ARP, "drop-arp", "malformed ARP")                                                        \
    X(BAD_ICMP, "drop-icmp", "malformed ICMP, or not about our connections")                       \
    X(ICMP_IN, "icmp-in", "ICMP messages used")                                                    \
    X(ICMP_RATE, "icmp-rate-limited", "echo replies suppressed")                                   \
    X(BAD_TCP, "drop-tcp-header", "malformed TCP header")                                          \
    X(BAD_TCP_CSUM, "drop-tcp-checksum", "TCP checksum wrong")                                     \
    X(NO_CONN, "no-connection", "segments for no connection of ours")                              \
    X(SEGS_IN, "segments-in", "TCP segments processed")                                            \
    X(SEGS_OUT, "segments-out", "TCP segments sent")                                               \
    X(RSTS_OUT, "resets-out", "RSTs sent")                                                         \
    X(RETRANS, "retransmitted", "segments sent again")                                             \
    X(FASTOPEN_ACTIVE, "fastopen-active", "connections opened with data in the SYN (RFC 7413)")    \
    X(FASTOPEN_PASSIVE, "fastopen-passive", "connections accepted with a valid cookie")            \
    X(FASTOPEN_BAD, "fastopen-bad-cookie", "SYNs whose cookie was not ours")                       \
    X(BLACK_HOLES, "black-holes", "paths found to swallow large segments (RFC 4821)")              \
    X(MTU_RAISED, "mtu-raised", "paths found by a probe to carry larger segments (RFC 4821)")      \
    X(ECN_REDUCED, "ecn-reduced", "windows reduced for an echoed congestion mark (RFC 3168)")      \
    X(LOSS_PROBES, "loss-probes", "segments sent again to probe a tail (RFC 8985 7)")              \
    X(RTOS, "rto", "retransmission time-outs")                                                     \
    X(CHALLENGE, "challenge-acks", "challenge ACKs sent (RFC 5961)")                               \
    X(CHALLENGE_LIMITED, "challenge-limited", "challenge ACKs suppressed by the rate limit")       \
    X(PAWS, "drop-paws", "segments dropped by PAWS (RFC 7323)")                                    \
    X(OUT_OF_WINDOW, "drop-window", "segments outside the window")                                 \
    X(SYN_OVERFLOW, "syn-overflow", "SYNs dropped: SYN queue full and no cookies")                 \
    X(ACCEPT_OVERFLOW, "accept-overflow", "accept queue full")                                     \
    X(COOKIES_SENT, "cookies-sent", "SYN cookies sent")                                            \
    X(COOKIES_OK, "cookies-valid", "connections made from a cookie")                               \
    X(COOKIES_BAD, "cookies-bad", "ACKs with a wrong cookie")                                      \
    X(NO_MEMORY, "no-memory", "allocations refused")                                               \
    X(TW_RECYCLED, "time-wait-recycled",                                                           \
      "TIME_WAIT ended early by a newer SYN or for want of room")                                  \
    X(BUFFER_PRUNED, "pruned", "out-of-order data given up under memory pressure")                 \
    X(INVARIANT, "invariant-broken", "an internal check failed (a defect of ours)")

enum stack_counter {
#define X(id, name, doc) COUNT_##id,
    STACK_COUNTERS(X)
#undef X
        STACK_COUNTER_COUNT
};

extern const char *const stack_counter_names[STACK_COUNTER_COUNT];

/* Bytes of contiguous memory that `struct stack` needs (it is the arena's reserved part). */
size_t stack_size(void);

/*
 * Lays a stack over [base, base+size): base aligned to ARENA_SPAN_SIZE and zero-filled, size at
 * least STACK_SIZE_MIN. extra bytes are reserved behind it for the caller (stack_extra()).
 * Returns NULL when size is too small.
 */
#define STACK_SIZE_MIN ((size_t)8 << 20)
struct stack *stack_init(void *base, size_t size, size_t extra, const struct stack_config *config,
                         nsec_t now);
void *stack_extra(struct stack *st);
/*
 * Segments for no connection are not answered any more, whatever their port: another stack may have
 * it.
 */
void stack_ignore_strangers(struct stack *st);
/*
 * After a process died inside, at any instruction. Which objects live is the truth, and what they
 * say of themselves; everything else is derived from it and made anew: pools, connection table,
 * timers, queues, counters. The connection that was being changed is reset, unless the process died
 * while a frame was being transmitted, when it is whole and goes on. The caller repairs its own
 * pools before. Owners of connections and listeners may be gone: the caller looks at them (
 * tcp_each_conn(), tcp_each_listener()).
 */
void stack_repair(struct stack_cx *cx);
struct arena *stack_arena(struct stack *st);
struct netif *stack_netif(struct stack *st, unsigned index);
/* Adds an interface; returns its index or -ENOSPC. Announces own addresses (gratuitous ARP) at the
 * next flush. */
int stack_add_netif(struct stack *st, const struct netif *nif);
/* Looks an interface up by the kernel's number; -1 when unknown. */
int stack_netif_by_ifindex(const struct stack *st, uint32_t ifindex);
uint64_t stack_counter(const struct stack *st, enum stack_counter c);
void stack_count(struct stack *st, enum stack_counter c);

/* A frame arrived. Whatever it holds, the engine survives it. */
void stack_input(struct stack_cx *cx, const struct frame_in *frame);
/*
 * A link that knows the first bytes of a frame before it takes the whole asks where its text could
 * go. f->data has FORESEEN_BYTES of the f->len. True: it is the next text of place->conn, by all
 * that is seen. Then the link may put it into the buffer of a program that reads that connection
 * and has nothing unread, and what does not fit there to where tcp_place_text() says, and hand the
 * headers to stack_input() with f->place. Nothing of the stack may be called in between. Should the
 * segment not be acceptable after all, place->taken stays false, and its text counts as lost.
 */
#define FORESEEN_BYTES 94 /* Ethernet, IPv4 without options, TCP with the most options */
bool stack_foresee(struct stack_cx *cx, const struct frame_in *f, struct stack_place *place);
/* Runs every timer that is due at cx->now. */
void stack_run_timers(struct stack_cx *cx);
/* Sends what the entries since the last flush left to send, runs the loopback dry. Ends every
 * batch. */
void stack_flush(struct stack_cx *cx);
/*
 * The same when the program is about to go on: what it sends next may carry the ACK of a small
 * request, of a FIN or of the handshake, which waits for that. Whoever goes to sleep calls
 * stack_flush(); if nobody does, they leave with the delayed ACK's timer at the latest.
 */
void stack_flush_patiently(struct stack_cx *cx);
/*
 * The same as stack_flush() where the caller looks for frames for a moment before it sleeps: ACKs
 * of streams, whose next text will be there at once, wait for that.
 */
void stack_flush_to_look(struct stack_cx *cx);
/* When stack_run_timers() must run next; NSEC_NEVER: no timer is armed. */
nsec_t stack_deadline(const struct stack *st);
