#include "tests/packet/harness.h"

#include "tests/packet/spec.h"
#include "tests/packet/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct world_state W;

const uint8_t host_mac[6] = {2, 0, 0, 0, 0, 1};
const uint8_t peer_mac[6] = {2, 0, 0, 0, 0, 2};

#define EPOCH (1000 * NSEC_PER_SEC)

/* ---- failure ---- */

static void fail_end(void)
{
    W.failed = true;
    longjmp(W.out, 1);
}

_Noreturn void h_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    printf("%s:%d: %s: ", file, line, W.test ? W.test->name : "?");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n    (%s)\n", W.test ? W.test->what : "");
    world_print_log();
    fail_end();
    abort();
}

_Noreturn void skip(const char *why)
{
    printf("%s: skipped: %s\n", W.test->name, why);
    W.skipped = true;
    longjmp(W.out, 1);
}

bool packet_skipped(void)
{
    return W.skipped;
}

void h_check(const char *file, int line, bool ok, const char *what)
{
    if (!ok)
        h_fail(file, line, "not true: %s", what);
}

void h_check_eq(const char *file, int line, int64_t got, int64_t want, const char *what)
{
    if (got != want)
        h_fail(file, line, "%s: got %lld, want %lld", what, (long long)got, (long long)want);
}

/* ---- the engine's world ---- */

static int on_transmit(struct stack_cx *cx, const struct frame_out *f)
{
    (void)cx;
    return world_capture(f);
}

static void on_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx;
    struct app *a = owner;
    a->events |= events;
    world_log_event(a->listener ? "listener" : "conn", a->number, events);
}

static void on_trace(struct stack_cx *cx, const struct trace_record *r)
{
    (void)cx;
    world_log_trace(r);
}

static void on_warn(struct stack_cx *cx, const char *text, const struct ip_addr *addr)
{
    (void)cx;
    (void)addr;
    world_log_text(text);
    W.warnings++;
}

static bool on_foreign(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                       bool unheard)
{
    (void)cx;
    (void)tuple;
    (void)ifindex;
    (void)unheard;
    return W.port_shared;
}

static bool on_elect(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                     uint64_t *member)
{
    (void)cx;
    (void)tuple;
    (void)ifindex;
    *member = W.elected;
    return W.elected != 0;
}

void shares_port(uint64_t elected)
{
    W.port_shared = elected != 0;
    W.elected = elected;
}

static const struct stack_ops ops = {
    .transmit = on_transmit,
    .notify = on_notify,
    .trace = on_trace,
    .warn = on_warn,
    .foreign = on_foreign,
    .elect = on_elect,
};

static void *arena_memory(size_t size)
{
    /* one mapping for all tests: given back to the kernel between them, so that it reads zero */
    if (!W.memory) {
        char *p = mmap(NULL, WORLD_ARENA_MAX + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            abort();
        uintptr_t at = ((uintptr_t)p + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1);
        W.memory = (void *)at;
    } else {
        madvise(W.memory, W.memory_used, MADV_DONTNEED);
    }
    W.memory_used = size;
    return W.memory;
}

static void free_frames(void)
{
    for (unsigned i = W.tx_head; i != W.tx_tail; i++)
        free(W.tx[i % TX_MAX].bytes);
    W.tx_head = W.tx_tail = 0;
}

void world(struct world_opts o)
{
    free_frames();
    W.opts = o;
    W.now = W.start = EPOCH;
    W.nflows = W.napps = W.log_n = 0;
    W.warnings = 0;
    shares_port(0);
    W.arp_asked = W.patient = W.together = false;
    W.bad_frame[0] = 0;
    struct stack_config config = {
        .own_address = !o.shared,
        .loopback = o.loopback,
        .port_min = 32768,
        .port_max = 60999,
        .cc = o.cc,
        .ecn = o.ecn,
        .fastopen = o.fastopen,
        .tuning = {.mtu_probing = o.mtu_probing},
    };
    memset(config.seed, 0x5a + o.seed, sizeof(config.seed));
    size_t size = o.arena ? o.arena : (size_t)16 << 20;
    W.cx = (struct stack_cx){.now = W.now, .ops = &ops, .trace = TRACE_ALL};
    W.cx.st = stack_init(arena_memory(size), size, 0, &config, W.now);
    if (!W.cx.st)
        fail("stack_init returned NULL");
    struct netif nif = {
        .up = true,
        .kind = NETIF_ETHERNET,
        .ifindex = 7,
        .mtu = o.mtu ? o.mtu : 1500,
        .gso = o.gso,
        .csum_offload = o.csum_offload,
        .answers_arp = !o.shared,
        .naddrs = 1,
    };
    memcpy(nif.mac, host_mac, 6);
    nif.addrs[0].addr = ip_addr_from_v4(__builtin_bswap32(HOST_IP));
    nif.addrs[0].prefix = 120;
    int n = stack_add_netif(W.cx.st, &nif);
    if (n < 0)
        fail("stack_add_netif: %d", n);
    W.netif = (uint8_t)n;
    if (!o.no_neighbour)
        arp_learn(&W.cx, W.netif, __builtin_bswap32(PEER_IP), peer_mac);
    stack_flush(&W.cx);
    drain_tx();
    flow(HOST_PORT, PEER_PORT);
}

struct stack *the_stack(void)
{
    return W.cx.st;
}

struct stack_cx *the_cx(void)
{
    return &W.cx;
}

uint64_t counter(enum stack_counter c)
{
    return stack_counter(W.cx.st, c);
}

void program_goes_on(bool on)
{
    W.patient = on;
}

void frames_together(bool on)
{
    W.together = on;
    if (!on)
        world_after_step();
}

void world_after_step(void)
{
    if (W.together)
        return;
    if (W.patient)
        stack_flush_patiently(&W.cx);
    else
        stack_flush(&W.cx);
    if (W.arp_asked)
        world_answer_arp();
    if (W.bad_frame[0])
        fail("the host sent a malformed frame: %s", W.bad_frame);
    uint32_t broken = tcp_check_invariants(W.cx.st);
    if (broken || counter(COUNT_INVARIANT))
        fail("invariants broken: %u now, %llu counted", broken,
             (unsigned long long)counter(COUNT_INVARIANT));
}

void flush(void)
{
    world_after_step();
}

/* ---- the clock ---- */

nsec_t t_now(void)
{
    return W.now - W.start;
}

/* To `target`, or to the moment when the first frame leaves if stop_at_tx. */
void world_run_to(nsec_t target, bool stop_at_tx)
{
    unsigned idle = 0;
    for (;;) {
        nsec_t d = stack_deadline(W.cx.st);
        if (d > target)
            break;
        if (d > W.now) {
            W.now = d;
            idle = 0;
        } else if (++idle > 1000) {
            fail("stack_deadline() stays in the past: the engine spins");
        }
        W.cx.now = W.now;
        stack_run_timers(&W.cx);
        world_after_step();
        if (stop_at_tx && W.tx_head != W.tx_tail)
            return;
    }
    W.now = W.cx.now = target;
}

void t_run(nsec_t dt)
{
    world_run_to(W.now + dt, false);
}

void t_at(nsec_t t)
{
    if (W.start + t < W.now)
        fail("t_at() into the past");
    world_run_to(W.start + t, false);
}

/* ---- flows ---- */

struct peer *world_flow_find(uint16_t hport, uint16_t pport)
{
    for (unsigned i = 0; i < W.nflows; i++)
        if (W.flows[i].hport == hport && W.flows[i].pport == pport)
            return &W.flows[i];
    return NULL;
}

struct peer *flow(uint16_t hport, uint16_t pport)
{
    struct peer *f = world_flow_find(hport, pport);
    if (!f) {
        if (W.nflows == FLOWS_MAX)
            fail("too many flows");
        f = &W.flows[W.nflows++];
        /* an ISN such that the sequence numbers wrap soon: every test then crosses 2^32 */
        *f = (struct peer){.hport = hport, .pport = pport, .irs = 0xfffffc00u + W.nflows};
    }
    W.cur = f;
    return f;
}

struct peer *cur(void)
{
    return W.cur;
}

enum tcp_state flow_state(void)
{
    struct flow_tuple t = {
        .local = ip_addr_from_v4(__builtin_bswap32(HOST_IP)),
        .remote = ip_addr_from_v4(__builtin_bswap32(PEER_IP)),
        .lport = W.cur->hport,
        .rport = W.cur->pport,
    };
    struct flow *f = flow_find(&W.cx.st->tcp.flows, &t);
    if (!f)
        return TCP_CLOSED;
    switch (f->kind) {
    case FLOW_CONN:
        return tcp_state((struct tcp_conn *)f);
    case FLOW_HALF_OPEN:
        return TCP_SYN_RECEIVED;
    default:
        return TCP_TIME_WAIT;
    }
}

void h_expect_state(const char *file, int line, enum tcp_state s)
{
    enum tcp_state got = flow_state();
    if (got != s)
        h_fail(file, line, "state is %s, want %s", tcp_state_name(got), tcp_state_name(s));
}

/* ---- one test ---- */

static void close_all(void)
{
    for (unsigned i = 0; i < W.napps; i++) {
        struct app *a = &W.apps[i];
        if (a->conn)
            call_abort(a->conn);
        if (a->listener)
            call_listener_close(a->listener);
    }
}

static void check_memory_back(void)
{
    struct tcp_stack *t = &W.cx.st->tcp;
    const struct {
        const char *what;
        uint32_t n;
    } live[] = {
        {"connections", t->conns.live},
        {"listeners", t->listeners.live},
        {"half-open entries", t->half_opens.live},
        {"TIME_WAIT entries", t->time_waits.live},
        {"chunks", t->chunks.live},
        {"ranges", t->ranges.live},
        {"sent records", t->records.live},
        {"flows", t->flows.count},
        {"orphans", t->norphans},
    };
    for (size_t i = 0; i < ARRAY_LEN(live); i++)
        if (live[i].n)
            fail("at the end %u %s are left", live[i].n, live[i].what);
}

static void run_body(const struct packet_test *t)
{
    world((struct world_opts){0});
    t->run();
    if (W.tx_head != W.tx_tail)
        fail("%u frames were sent that the test did not expect", W.tx_tail - W.tx_head);
    close_all();
    t_run(sec(70));
    drain_tx();
    if (W.cx.st->tcp.conns.live)
        t_run(sec(3600));
    check_memory_back();
}

bool packet_run(const struct packet_test *t, bool verbose)
{
    W.test = t;
    W.failed = W.skipped = false;
    if (setjmp(W.out) == 0) {
        run_body(t);
        if (verbose)
            world_print_log();
    }
    free_frames();
    return !W.failed;
}
