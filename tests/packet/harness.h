/*
 * Packet-level tests: one engine ("the host", 10.0.0.1) with one Ethernet interface, a virtual
 * clock and a peer (10.0.0.2) that the test plays by hand. A test reads like a time-sequence
 * diagram:
 *
 *     TEST(three_way, "RFC 9293 3.5 figure 6")
 *     {
 *         struct tcp_conn *c = call_connect();
 *         expect_tx("S seq 0 <mss 1460,sackOK,ts,wscale>");
 *         inject("SA seq 0 ack 1 win 65535 <mss 1460>");
 *         expect_tx("A seq 1 ack 1 len 0");
 *         expect_state(TCP_ESTABLISHED);
 *     }
 *
 * Segments are written as `FLAGS [seq N] [ack N] [win N] [len N] [urg N] [gso N] [tos N]
 * [<options>]`.
 *   FLAGS    of S F R P A U E W, N for AE (RFC 9768), or `-` for none. Expected: P is compared only
 *            when written.
 *   numbers  seq and ack count from the ISN of their sender (SYN is 0, the first byte is 1); win is
 *            the raw field. Expected ones may be `>N`, `<N` or `*`.
 *   options  mss N, wscale N, sackOK, ts [VAL [ECR]], sack A:B C:D, accecn [EE1B [ECEB [EE0B]]]
 * (kind 174; raw counters), nop, eol, hex BYTES. Expected: a bare name wants the option present,
 * `!name` wants it absent, `none` wants none at all. What is not written is not compared in an
 * expected segment. In an injected one seq defaults to the peer's next, ack to the highest that the
 * host has sent, win to 65535, ts to the peer's clock.
 *
 * The text of both directions is a function of the stream's offset and is always compared. After
 * each step the engine's invariants are checked. At the end no frame may be left unexpected, and
 * all connections are aborted and all memory must come back.
 */
#pragma once

#include "stack/internal.h"
#include "stack/stack.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/wire.h"
#include "tests/packet/frame.h"

#define HOST_IP     ip4(10, 0, 0, 1)
#define PEER_IP     ip4(10, 0, 0, 2)
#define HOST_PORT   5000 /* of call_connect() */
#define PEER_PORT   80
#define LISTEN_PORT 80 /* of call_listen() */
#define CLIENT_PORT 40000

extern const uint8_t host_mac[6], peer_mac[6];

/* ---- the registry ---- */

struct packet_test {
    const char *name, *what, *file;
    void (*run)(void);
    struct packet_test *next;
};
void packet_test_register(struct packet_test *t);

#define TEST(id, cites)                                                                            \
    static void test_##id(void);                                                                   \
    __attribute__((constructor)) static void register_##id(void)                                   \
    {                                                                                              \
        static struct packet_test t = {#id, cites, __FILE__, test_##id, NULL};                     \
        packet_test_register(&t);                                                                  \
    }                                                                                              \
    static void test_##id(void)

/* ---- the clock ---- */

static inline nsec_t us(uint64_t n)
{
    return n * NSEC_PER_USEC;
}

static inline nsec_t ms(uint64_t n)
{
    return n * NSEC_PER_MSEC;
}

static inline nsec_t sec(uint64_t n)
{
    return n * NSEC_PER_SEC;
}

/* Runs the engine's timers up to `t` after the start of the test. */
void t_at(nsec_t t);
void t_run(nsec_t dt);
/* Since the start of the test. */
nsec_t t_now(void);

/* ---- the world ---- */

struct world_opts {
    bool shared; /* shared address mode */
    bool gso, csum_offload;
    bool no_neighbour; /* ARP is not seeded */
    bool loopback;
    uint32_t mtu; /* 0: 1500 */
    size_t arena; /* 0: 16 MB */
    uint8_t cc;
    uint8_t ecn;         /* enum stack_ecn */
    uint16_t fastopen;   /* enum stack_fastopen */
    uint8_t mtu_probing; /* enum stack_mtu_probing */
    uint8_t seed;
};
/*
 * From now on other stacks share all ports, and new connections to those that are listened on by
 * SO_REUSEPORT are for this member. 0: nobody shares any.
 */
void shares_port(uint64_t elected);
/* A new world in place of the default one; everything before is forgotten. */
void world(struct world_opts o);
struct stack *the_stack(void);
struct stack_cx *the_cx(void);

/* The scripted side of one 4-tuple. */
struct peer {
    uint16_t hport, pport;
    bool have_iss;
    uint32_t iss, irs;     /* ISNs of the host and of the peer */
    uint32_t h_nxt, p_nxt; /* relative: next of the host, of the peer */
    uint32_t host_ts;      /* the newest TSval of the host */
    bool sends_ts;         /* the peer puts timestamps on what it sends by default */
    bool other_text;       /* text is not the pattern: do not compare */
};
/* The 4-tuple that inject(), expect_tx() and expect_state() speak of. */
struct peer *flow(uint16_t hport, uint16_t pport);
struct peer *cur(void);

/* ---- calls (all flush) ---- */

struct tcp_conn *call_open(void);
/* 10.0.0.1:hport -> 10.0.0.2:pport; selects the flow. */
int call_connect_from(struct tcp_conn *c, uint16_t hport, uint16_t pport);
/* Fast Open: what a SYN to the peer may carry, if a cookie is known. */
bool call_fastopen_known(const struct tcp_conn *c);
int64_t call_send_ahead(struct tcp_conn *c, const struct slice *text);
/* Opens and connects HOST_PORT -> PEER_PORT. */
struct tcp_conn *call_connect(void);
/* Listens on LISTEN_PORT, selects the flow LISTEN_PORT <- CLIENT_PORT. opts may be NULL. */
struct tcp_listener *call_listen_opts(int backlog, const struct tcp_opts *opts);
struct tcp_listener *call_listen(int backlog);
struct tcp_conn *call_accept(struct tcp_listener *l);
int64_t call_send(struct tcp_conn *c, uint32_t n);
int64_t call_send_flags(struct tcp_conn *c, uint32_t n, uint32_t flags);
/* Compares what it reads with the pattern. */
int64_t call_recv(struct tcp_conn *c, uint32_t n);
int64_t call_recv_flags(struct tcp_conn *c, uint32_t n, uint32_t flags);
int call_shutdown(struct tcp_conn *c, enum tcp_how how);
void call_close(struct tcp_conn *c);
/* SO_LINGER with a time of zero, then close(). */
void call_abort(struct tcp_conn *c);
void call_listener_close(struct tcp_listener *l);
void call_opts_changed(struct tcp_conn *c);
void flush(void);
/* From now on steps end in stack_flush_patiently(), or no longer. */
void program_goes_on(bool on);
/* What is injected meanwhile is one batch of the link's. */
void frames_together(bool on);
/* notify() events of the connection since the last question. */
uint32_t events_of(struct tcp_conn *c);
uint32_t listener_events(void);

/* ---- usual beginnings ---- */

/*
 * An established connection by active open. `synack` are the options of the peer's SYN-ACK
 * ("<mss 1460>" when NULL); window 65535 unless given after them.
 */
struct tcp_conn *established(const char *synack_opts);
/* The same with a round trip of `rtt` between SYN and SYN-ACK. */
struct tcp_conn *established_after(nsec_t rtt, const char *synack_opts);
/* By passive open, accepted; the listener stays open with backlog 5. */
struct tcp_conn *accepted(const char *syn_opts);
/* An established connection taken on to any state; the user's handle stays open. */
struct tcp_conn *bring(enum tcp_state state);
/* In a new world: both ends of a connection inside the stack; `rcvbuf` is of the end that was
 * accepted, 0: the default. */
void established_inside(uint32_t rcvbuf, struct tcp_conn **client, struct tcp_conn **server);

/* ---- the wire ---- */

void h_inject(const char *file, int line, const char *spec);
void h_expect_tx(const char *file, int line, nsec_t from, nsec_t to, const char *spec);
void h_expect_none(const char *file, int line, nsec_t dt);
void h_expect_state(const char *file, int line, enum tcp_state s);
void h_check(const char *file, int line, bool ok, const char *what);
void h_check_eq(const char *file, int line, int64_t got, int64_t want, const char *what);
_Noreturn void h_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The peer's segment arrives now. */
#define inject(spec) h_inject(__FILE__, __LINE__, spec)
/* The next frame that the host has sent by now. */
#define expect_tx(spec) h_expect_tx(__FILE__, __LINE__, 0, 0, spec)
/* The next frame leaves between `from` and `to` from now; the clock moves to when it does. */
#define expect_tx_in(from, to, spec) h_expect_tx(__FILE__, __LINE__, from, to, spec)
/* No frame has been sent that was not expected, and none will within dt. */
#define expect_none(dt) h_expect_none(__FILE__, __LINE__, dt)
/* The state of the current flow as the flow table has it (TIME_WAIT and half-open entries
 * included). */
#define expect_state(s) h_expect_state(__FILE__, __LINE__, s)
#define check(cond)     h_check(__FILE__, __LINE__, cond, #cond)
#define check_eq(got, want)                                                                        \
    h_check_eq(__FILE__, __LINE__, (int64_t)(got), (int64_t)(want), #got " == " #want)
#define fail(...) h_fail(__FILE__, __LINE__, __VA_ARGS__)

/* Forgets the frames sent so far; returns how many they were. */
unsigned drain_tx(void);
unsigned pending_tx(void);
/* The bytes of the next frame sent, taken off; NULL when there is none. Valid until the next call.
 */
const uint8_t *next_tx(uint32_t *len);
/* Builds the frame of an inject() spec at out without sending it. */
size_t build_frame(const char *spec, uint8_t *out);
void inject_raw(const uint8_t *frame, size_t len);
void inject_trusted(const uint8_t *frame, size_t len, uint16_t gso_size);
/*
 * An ICMP error from `from` about the host's segment of the current flow at relative sequence
 * number `rel_seq`; rest is the second word (next-hop MTU for fragmentation needed).
 */
void inject_icmp(uint32_t from, uint8_t type, uint8_t code, uint32_t rest, uint32_t rel_seq);
enum tcp_state flow_state(void);
uint64_t counter(enum stack_counter c);
/* Bytes of text of the current flow sent by the host and not yet expected, all frames taken off. */
uint32_t drain_text(void);

/* ---- for the runner ---- */

/* Runs one test in a new world; false: it failed and said why. */
bool packet_run(const struct packet_test *t, bool verbose);
/* Ends the current test as skipped. */
_Noreturn void skip(const char *why);
bool packet_skipped(void);
