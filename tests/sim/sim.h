/*
 * A seeded simulation: two to eight hosts, each an engine of its own, on a switch that loses,
 * doubles, delays, reorders and corrupts frames; programs on the hosts open connections and send
 * bytes that are a function of their place in the stream. All that happens follows from the seed.
 *
 * What must hold, whatever the seed:
 *   - bytes arrive as they were sent, and the end of the stream only where the sender put it;
 *   - every connection ends within a bounded time after the faults end; in worlds with mild faults
 *     none ends by an error;
 *   - all memory comes back when TIME_WAIT is over;
 *   - the engine's own invariants hold, and the number of frames stays in proportion.
 */
#pragma once

#include "stack/internal.h"
#include "stack/stack.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/wire.h"
#include "tests/packet/frame.h"

#include <setjmp.h>

#define HOSTS_MAX     8
#define PAIRS_MAX     1024
#define LISTENERS_MAX 2
#define LISTEN_BASE   1000
#define MARK_BYTES    ((uint64_t)1 << 20)
#define SIM_EPOCH     (5000 * NSEC_PER_SEC)

/* ---- numbers from the seed ---- */

struct prng {
    uint64_t s;
};
static inline uint64_t prng_u64(struct prng *r) /* splitmix64 */
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
/* Uniform in [0, n); 0 for n == 0. */
static inline uint64_t prng_below(struct prng *r, uint64_t n)
{
    return n ? prng_u64(r) % n : 0;
}
static inline uint64_t prng_range(struct prng *r, uint64_t low, uint64_t high)
{
    return low + prng_below(r, high - low + 1);
}
/* True once in `n` times. */
static inline bool prng_one_in(struct prng *r, uint64_t n)
{
    return prng_below(r, n) == 0;
}
static inline bool prng_permille(struct prng *r, unsigned p)
{
    return p && prng_below(r, 1000) < p;
}
/* Small values often, large ones seldom: uniform in the exponent. */
static inline uint64_t prng_skewed(struct prng *r, uint64_t high)
{
    if (high == 0)
        return 0;
    unsigned bits = 64 - (unsigned)__builtin_clzll(high);
    uint64_t v = prng_below(r, 1ull << prng_below(r, bits + 1));
    return v > high ? high : v;
}

/* ---- programs ---- */

enum app_end {
    END_SHUTDOWN,  /* sends all, shutdown(WR), reads to the end, close() */
    END_AFTER_EOF, /* sends all, reads to the end, close() */
    END_CLOSE,     /* sends all, close() */
    END_ABORT,     /* at some offset of what it sends: close() with SO_LINGER 0 */
    END_UNREAD,    /* at some offset of what it reads: close(), whatever is unread */
};

enum app_state { APP_IDLE, APP_CONNECTING, APP_OPEN, APP_ENDED };

/* One end of a connection. */
struct app {
    struct sim *sim;
    struct host *host;
    struct pair *pair;
    uint8_t side; /* 0: connects first, 1: the other */
    uint8_t state;
    struct tcp_conn *conn;
    bool dirty;                 /* on the host's list of programs to run */
    bool sleeping;              /* a wake-up is in the event queue */
    bool want_write, want_read; /* ready, as far as notify() told */
    struct app *next_dirty;

    /* what it will do */
    enum app_end end;
    uint64_t total;   /* bytes to send */
    uint64_t stop_at; /* END_ABORT, END_UNREAD */
    uint32_t send_chunk, recv_chunk;
    nsec_t send_think, recv_think;
    bool nodelay, cork, keepalive, peeks, pmtu_dont, reno;
    uint32_t sndbuf, rcvbuf, rcvlowat, user_mss; /* 0: defaults */

    /* what it has done */
    uint64_t sent, received;
    bool shut, eof;
    nsec_t *marks; /* when each further MARK_BYTES had been read; NULL: nobody asks */
    unsigned marks_max;
    bool fin_valid; /* the stream ends at `sent` for the reader */
    int error;
    nsec_t progress, send_at, recv_at;
};

/* The two ends of one connection. */
struct pair {
    unsigned number;
    struct app app[2];
    struct endpoint at[2]; /* addresses */
    unsigned listener;     /* of the passive side */
    bool simultaneous;     /* both connect */
    bool clean;            /* in a mild world: must deliver all and end without error */
    nsec_t start;
    struct pair *after; /* whose ports it takes over, soon after its end; NULL: has its own */
    bool scheduled;
    uint32_t salt[2];
};

/* ---- the network ---- */

struct impairment {
    unsigned loss, dup, reorder, corrupt, mark; /* permille; mark: of ECN-capable packets */
    unsigned loss_ppm;                          /* more loss, per million */
    nsec_t reorder_max;                         /* how late; 0: up to five times the delay */
    nsec_t delay, jitter;
    uint64_t ns_per_byte; /* bandwidth; 0: no limit */
    nsec_t queue_max;     /* a frame that would wait longer is dropped */
    nsec_t mark_above;    /* one that waits longer is marked; 0: none */
    uint32_t pmtu;        /* the path carries packets up to this size; 0: any */
    bool silent;          /* and says nothing about larger ones */
};

struct host {
    struct sim *sim;
    unsigned index;
    struct stack_cx cx;
    size_t arena; /* bytes */
    uint8_t netif;
    uint32_t ip; /* host order */
    uint8_t mac[6];
    uint32_t mtu;
    bool gso, csum_offload;
    bool virtual_link; /* takes frames uncut and with partial checksums, as veth does */
    bool coalesces;    /* joins neighbouring segments on input */
    nsec_t rx_wait;    /* how long frames wait to be taken in one batch */
    struct impairment out;
    bool congested;   /* what was given to the link last waited longer than mark_above */
    nsec_t line_free; /* when the link has sent what it was given */
    nsec_t down_from, down_to;
    nsec_t ahead; /* of its clock, as against the simulation's */
    nsec_t deadline;
    struct event *rx_head, *rx_tail;
    bool rx_scheduled;
    struct app *dirty_head, *dirty_tail;
    struct tcp_listener *listener[LISTENERS_MAX];
    bool listener_ready[LISTENERS_MAX];
    bool slow_acceptor;
    unsigned steps;
};

enum event_kind {
    EV_FRAME,
    EV_RX_BATCH,
    EV_APP,
    EV_START,
    EV_ACCEPT,
    EV_LISTENER,
    EV_WATCH,
    EV_LONGER,  /* the host's link becomes twice as long */
    EV_ROUTE,   /* its packets take another path from now on */
    EV_RESTART, /* it loses all that it knew and starts anew */
    EV_JUMP,    /* its clock jumps ahead */
    EV_FAULTS_END
};

struct event {
    nsec_t at;
    uint64_t order;
    enum event_kind kind;
    struct host *host;
    void *arg;
    struct event *next;
    bool csum_trusted;
    uint16_t gso_size;
    uint32_t len;
    uint8_t data[]; /* of a frame: exactly len bytes */
};

struct sim {
    uint64_t seed;
    struct prng rng;      /* what happens on the way */
    struct prng plan_rng; /* what the world is */
    bool verbose;
    jmp_buf out;
    char why[256];
    nsec_t now;
    nsec_t faults_end;
    bool mild;    /* faults that no connection may die of */
    bool perfect; /* no faults at all: nothing may be sent twice */
    bool faults_over;
    unsigned nhosts, npairs, ended;
    struct host hosts[HOSTS_MAX];
    struct pair pairs[PAIRS_MAX];
    uint64_t frames, frames_max, bytes_total;
    uint64_t order;
    struct event **heap;
    size_t nevents, heap_room;
    uint64_t trace_sum; /* keeps a silent trace sink honest */
};

/* Ends the seed as failed. */
_Noreturn void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_say(struct sim *s, const struct host *h, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- events.c ---- */
struct event *event_new(struct sim *s, enum event_kind kind, nsec_t at, struct host *h,
                        uint32_t len);
void event_push(struct sim *s, struct event *e);
struct event *event_pop(struct sim *s);
static inline nsec_t event_next(const struct sim *s)
{
    return s->nevents ? s->heap[0]->at : NSEC_NEVER;
}
void event_free_all(struct sim *s);

/* ---- net.c ---- */
/* The device: takes a frame from the engine, completes and cuts it, and gives it to the switch. */
int net_transmit(struct host *h, const struct frame_out *f);
/* A frame reaches the host's device. */
void net_arrive(struct sim *s, struct event *frame);
/* The host takes what its device has. */
void net_receive(struct host *h);
/* Another path for what the host sends: other delays, perhaps smaller packets; what is on its way
 * stays behind, or is overtaken. */
void net_reroute(struct host *h);
void net_say_frame(struct sim *s, const struct host *h, const char *what, const uint8_t *frame,
                   size_t len, uint16_t gso_size);

/* ---- hosts.c ---- */
void host_start(struct host *h, size_t arena, bool loopback, bool traced);
/* After each entry into the engine: flush, invariants, the programs that were woken. */
/* Power off and on: its connections are gone, and nobody was told. Old segments are still about. */
void host_restart(struct host *h);
static inline nsec_t host_clock(const struct host *h)
{
    return h->sim->now + h->ahead;
}
void host_settle(struct host *h);
void host_check_memory(struct host *h);
void host_listen(struct host *h, unsigned which, int backlog);
void host_accept(struct host *h, unsigned which);
/* Closes a listener, or opens it again. */
void host_toggle_listener(struct host *h, unsigned which);
void host_wake(struct host *h, struct app *a);

/* ---- apps.c ---- */
void app_connect(struct app *a);
void app_accepted(struct app *a, struct tcp_conn *c);
void app_run(struct app *a);
void app_event(struct app *a, uint32_t events);
/* Bytes of the next text that the program would have put into its buffer; 0: it does not read. */
uint32_t app_reads(struct app *a);
/* They were put there. */
void app_took(struct app *a, const uint8_t *text, uint32_t n);
/* Nothing has moved for too long: gives up, or says that the engine is stuck. */
void app_watch(struct app *a);
/* Its host lost it. A connection that is to follow on the same ports begins soon, whatever the peer
 * thinks of this one. */
void app_killed(struct app *a);
static inline struct app *app_peer(struct app *a)
{
    return &a->pair->app[!a->side];
}
void app_pattern_init(void);

/* ---- scenario.c ---- */
void scenario_make(struct sim *s);

/* ---- sim.c ---- */
/* Runs one seed. NULL: all held; otherwise what did not. */
const char *sim_run(uint64_t seed, bool verbose);
/* The same with a world of `make`; *world remains until the next run. */
const char *sim_play(uint64_t seed, bool verbose, void (*make)(struct sim *s),
                     const struct sim **world);

/* ---- rates.c ---- */
/* Returns how many of the transfers were too slow or failed. */
unsigned sim_rates(bool verbose);
