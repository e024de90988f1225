#include "tests/fuzz/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ARENA ((size_t)8 << 20)

struct fuzz_world F;
const uint8_t fuzz_host_mac[6] = {2, 0, 0, 0, 0, 1};
const uint8_t fuzz_peer_mac[6] = {2, 0, 0, 0, 0, 2};

static void broken(const char *what, uint64_t n)
{
    fprintf(stderr, "fuzz: %s (%llu)\n", what, (unsigned long long)n);
    abort();
}

void fuzz_expect(bool ok, const char *what)
{
    if (!ok)
        broken(what, 0);
}

static void learn(const uint8_t *frame, uint32_t len)
{
    struct wire_seg s;
    if (wire_parse_tcp(frame, len, false, &s))
        return;
    for (unsigned i = 0; i < F.nflows; i++) {
        struct fuzz_flow *f = &F.flows[i];
        if (f->hport != s.sport || f->pport != s.dport || s.flags & TCP_RST)
            continue;
        uint32_t end = s.seq + s.len + !!(s.flags & TCP_SYN) + !!(s.flags & TCP_FIN);
        if (s.flags & TCP_SYN) {
            f->host_una = s.seq;
            f->host_nxt = end;
        } else if ((int32_t)(end - f->host_nxt) > 0) {
            f->host_nxt = end;
        }
        if (s.flags & TCP_ACK)
            f->peer_nxt = s.ack;
        struct wire_opts o;
        const char *wrong = wire_parse_opts(&s, &o);
        if (wrong)
            broken(wrong, s.optlen);
        if (o.has_ts)
            f->ts = o.ts_val;
    }
}

static int on_transmit(struct stack_cx *cx, const struct frame_out *f)
{
    (void)cx;
    static uint8_t frame[FRAME_MAX];
    uint32_t len = f->head_end - f->head_start;
    memcpy(frame, f->head + f->head_start, len);
    for (unsigned i = 0; i < f->nslices; i++) {
        if (len + f->slices[i].len > FRAME_BYTES_MAX)
            broken("frame too large", len);
        memcpy(frame + len, f->slices[i].base, f->slices[i].len);
        len += (uint32_t)f->slices[i].len;
    }
    learn(frame, len);
    if (++F.frames > 200000)
        broken("frames without end", F.frames);
    return 0;
}

static void on_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx;
    (void)owner;
    (void)events;
}

static void on_event(const struct ring_event *e, void *count)
{
    uint64_t args[TRACE_ARGS_MAX];
    ring_expand(e, args);
    ++*(unsigned *)count;
}

/* Everything that an event tells can be read. */
static void on_trace(struct stack_cx *cx, const struct trace_record *r)
{
    uint64_t sum = 0;
    (void)cx;
    for (unsigned i = 0; i < r->argc; i++)
        sum += r->argv[i];
    if (r->id == TRACE_EV_DROPPED)
        sum += strlen((const char *)(uintptr_t)r->argv[0]);
    if (r->flow != NULL)
        sum += r->flow->number;
    __asm__ volatile("" : : "r"(sum)); /* it is read */
}

static void on_trouble(struct stack_cx *cx, const struct flow *flow)
{
    unsigned n = 0;
    ring_walk(stack_ring(cx->st), flow->number, RING_EVENTS, on_event, &n);
    fuzz_expect(n <= RING_EVENTS, "a connection's last events");
}

static const struct stack_ops ops = {
    .transmit = on_transmit, .notify = on_notify, .trace = on_trace, .trouble = on_trouble};

static void *arena_memory(void)
{
    static char *memory;
    if (!memory) {
        char *p = mmap(NULL, ARENA + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            abort();
        uintptr_t at = ((uintptr_t)p + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1);
        memory = (char *)at;
    } else {
        madvise(memory, ARENA, MADV_DONTNEED);
    }
    return memory;
}

void fuzz_start(bool shared, bool gso)
{
    fuzz_start_with(&(struct stack_config){.own_address = !shared}, gso);
}

void fuzz_start_with(const struct stack_config *wanted, bool gso)
{
    F = (struct fuzz_world){.now = 1000 * NSEC_PER_SEC};
    struct stack_config config = *wanted;
    const bool shared = !config.own_address;
    config.port_min = 32768;
    config.port_max = 60999;
    F.cx = (struct stack_cx){.now = F.now, .ops = &ops};
    F.cx.st = stack_init(arena_memory(), ARENA, 0, &config, F.now);
    struct netif nif = {
        .up = true,
        .kind = NETIF_ETHERNET,
        .ifindex = 2,
        .mtu = 1500,
        .gso = gso,
        .csum_offload = gso,
        .answers_arp = !shared,
        .naddrs = 1,
    };
    memcpy(nif.mac, fuzz_host_mac, 6);
    nif.addrs[0].addr = ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP));
    nif.addrs[0].prefix = 120;
    F.netif = (uint8_t)stack_add_netif(F.cx.st, &nif);
    arp_learn(&F.cx, F.netif, __builtin_bswap32(FUZZ_PEER_IP), fuzz_peer_mac);
    stack_flush(&F.cx);
}

void fuzz_check(void)
{
    if (F.patient)
        stack_flush_patiently(&F.cx);
    else if (F.looks)
        stack_flush_to_look(&F.cx);
    else
        stack_flush(&F.cx);
    uint32_t n = tcp_check_invariants(F.cx.st);
    if (n)
        broken("invariants broken", n);
    if (stack_counter(F.cx.st, COUNT_INVARIANT))
        broken("invariants counted", stack_counter(F.cx.st, COUNT_INVARIANT));
}

void fuzz_run(nsec_t dt)
{
    nsec_t target = F.now + dt;
    for (unsigned idle = 0;;) {
        nsec_t d = stack_deadline(F.cx.st);
        if (d > target)
            break;
        if (d > F.now) {
            F.now = d;
            idle = 0;
        } else if (++idle > 1000) {
            broken("the engine spins", d);
        }
        F.cx.now = F.now;
        stack_run_timers(&F.cx);
        fuzz_check();
    }
    F.now = F.cx.now = target;
}

/*
 * As the packet socket's link does. Where no program reads, or with something unread, all text has
 * its place in the receive buffer. False: the frame has to go its usual way.
 */
static bool put_in_place(const struct frame_in *in)
{
    struct stack_place place;
    if (!F.places || in->len < FORESEEN_BYTES || !stack_foresee(&F.cx, in, &place))
        return false;
    const uint32_t part = tcp_unread(place.conn) > 0 ? 0 : in->data[L2_LEN + 5] & 3;
    place.direct = place.len / 3 * part;
    struct slice to[TCP_PLACE_SLICES];
    const uint32_t rest = place.len - place.direct;
    const unsigned n = rest > 0 ? tcp_place_text(&F.cx, place.conn, place.direct, rest, to) : 0;
    if (rest > 0 && n == 0)
        return false;
    uint32_t at = place.head + place.direct;
    for (unsigned i = 0; i < n; at += (uint32_t)to[i++].len)
        memcpy(to[i].base, in->data + at, to[i].len);
    if (at != in->len)
        broken("room for less than the text", at);
    uint8_t *head = malloc(place.head);
    memcpy(head, in->data, place.head);
    struct frame_in bare = *in;
    bare.data = head;
    bare.place = &place;
    tcp_unannounce(F.cx.st);
    stack_input(&F.cx, &bare);
    free(head);
    return true;
}

void fuzz_input(const uint8_t *frame, uint32_t len, bool trusted, uint16_t gso_size)
{
    uint8_t *copy = malloc(len ? len : 1); /* of exact size, for the sanitizer */
    memcpy(copy, frame, len);
    struct frame_in in = {
        .data = copy, .len = len, .netif = F.netif, .csum_trusted = trusted, .gso_size = gso_size};
    if (!put_in_place(&in)) {
        tcp_unannounce(F.cx.st);
        stack_input(&F.cx, &in);
    }
    free(copy);
    fuzz_check();
}

void fuzz_end(struct tcp_conn **conns, unsigned n, struct tcp_listener *listener)
{
    for (unsigned i = 0; i < n; i++)
        if (conns[i])
            tcp_close(&F.cx, conns[i]);
    tcp_listener_close(&F.cx, listener);
    fuzz_run(5000 * NSEC_PER_SEC);
    const struct tcp_stack *t = &F.cx.st->tcp;
    uint32_t left = t->conns.live + t->half_opens.live + t->time_waits.live + t->chunks.live +
                    t->ranges.live + t->records.live + t->extras.live + t->accecns.live +
                    t->flows.count;
    if (left)
        broken("objects left at the end", left);
}
