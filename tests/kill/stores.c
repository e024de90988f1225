/*
 * Death between any two stores. One process has two stacks: "ours", whose arena is write-protected
 * while the victim works, and the peer's, over a wire that loses and reorders. Each store into the
 * arena stops the victim. There, for each instruction of the engine that stores a few times, and at
 * random beyond, the process forks: in the child the victim is dead, its frames in hand with it.
 * The stack is repaired, and all connections of those who live run on to their end: every byte must
 * be what was sent, all of it must arrive, and nothing may be left in the arena.
 *
 *     kill_stores DEATHS SEED [wire|place|inside|copies [NUMBER]]
 *
 * place: the victim puts the text of large frames straight into the receive buffers of others.
 * inside: there is no peer: all connections have both ends in the one stack, and the victim's calls
 * put text into buffers of those who live.
 * copies: the same, with deaths only while it sends and reads by parcels (stack/tcp/parcel.h).
 * NUMBER: only the death of that number is looked at.
 * The last line says how it went, with how long the living saw no progress after a death, in
 * virtual milliseconds: deaths by the time of the slowest connection.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "stack/internal.h"
#include "stack/ip/ip.h"
#include "stack/tcp/conn.h"
#include "stack/tcp/inside.h"
#include "stack/tcp/names.h"

#define ARENA        ((size_t)16 << 20)
#define ATTACH       0x6a0000000000
#define PAGE         4096
#define STREAMS      4 /* connections of those who live */
#define VICTIMS      4 /* and of the victim */
#define GUESTS       16
#define QUEUE        64
#define KEPT         16
#define PORT         80
#define DELAY        (50 * NSEC_PER_USEC)
#define OF_STORE     3     /* deaths at each instruction that stores, before chance decides */
#define CHANCE       400   /* one of so many stores beyond them */
#define STORES       65536 /* instructions that are remembered */
#define REST         60000 /* bytes of each stream after a death */
#define PATIENCE     20000 /* steps until everything must be over */
#define SLOT_BUCKETS 6

enum side { OURS, PEER };

struct stamp {
    uint8_t mark, stream, from, zero;
    uint32_t offset;
};
#define STAMP_MARK 0xc5

struct stream {
    struct tcp_conn *conn[2];
    uint32_t sent[2], got[2]; /* by the side that sends, and that gets */
    uint32_t end[2];          /* no more is sent */
    nsec_t since[2];          /* a death: no byte has come from this side after it; 0: one has */
    struct tcp_parcel *out[2], *in[2]; /* by side: filled and not sent; taken and not emptied */
    uint32_t in_len[2];                /* with what was copied behind it */
    bool broken;
};

struct frame {
    struct frame *next; /* free */
    uint32_t len;
    uint16_t gso_size;
    nsec_t at; /* it arrives */
    uint8_t bytes[FRAME_BYTES_MAX + 1];
};

/* On the way to one side. */
struct wire {
    struct frame *frames[QUEUE];
    unsigned n;
};

static struct stack_cx cx[2];
static struct tcp_listener *listeners[2];
static struct stream streams[STREAMS];
static struct tcp_conn *victims[VICTIMS];
static struct tcp_conn *guests[GUESTS]; /* the peer's ends of the victim's */
static struct wire wires[2];
static struct frame *unused;
static struct frame_out kept[KEPT];
static unsigned nkept;
static nsec_t now = NSEC_PER_SEC;
static uint32_t random_state;
static uint32_t loss; /* of 1,000 frames */
static bool places, inside, copies, lazy[2];

/* Of all processes. */
static struct tally {
    uint32_t died, resets, most, stores, late[SLOT_BUCKETS];
} * tally;
static const uint32_t late_ms[SLOT_BUCKETS] = {1, 10, 50, 100, 250, UINT32_MAX};

static uint32_t rnd(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % n;
}

/* ---- death ---- */

static uint8_t *arena;
static bool guarded;          /* the arena is write-protected */
static uintptr_t open_page;   /* but for this page and the next, for one instruction */
static uint32_t wanted;       /* deaths still to come */
static uint32_t number, only; /* of the death; the one that is looked at, 0: all */
static sigjmp_buf second;     /* where a death inside the repair goes */
static uint32_t until_second; /* stores; 0: no second death */
static struct {
    uintptr_t at;
    uint32_t n;
} stores[STORES];

static _Noreturn void aftermath(uintptr_t at);

/* How often something was stored here before. */
static uint32_t stores_at(uintptr_t at)
{
    uint32_t i = (uint32_t)(at * 2654435761u) % STORES;
    while (stores[i].at != 0 && stores[i].at != at)
        i = (i + 1) % STORES;
    tally->stores += stores[i].at == 0;
    stores[i].at = at;
    return stores[i].n++;
}

/* The victim is about to change something. */
static void may_die(uintptr_t at)
{
    if (until_second > 0) {
        if (--until_second == 0)
            siglongjmp(second, 1);
        return;
    }
    if (wanted == 0 || (stores_at(at) >= OF_STORE ? rnd(CHANCE) != 0 : rnd(3) != 0))
        return;
    int status = 0;
    wanted--;
    if (++number != only && only != 0)
        return;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0)
        aftermath(at);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        printf("death %u at %#lx: status %#x\n", number, (unsigned long)at, (unsigned)status);
        fflush(stdout);
        _exit(1);
    }
}

static void guard(bool on)
{
    guarded = on;
    mprotect(arena, ARENA, on ? PROT_READ : PROT_READ | PROT_WRITE);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    if (!guarded || at - (uintptr_t)arena >= ARENA) {
        signal(sig, SIG_DFL);
        return;
    }
    may_die((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]);
    open_page = at & ~(uintptr_t)(PAGE - 1);
    mprotect((void *)open_page, (size_t)2 * PAGE, PROT_READ | PROT_WRITE);
    uc->uc_mcontext.gregs[REG_EFL] |= 0x100; /* trap after this instruction */
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig;
    (void)info;
    uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)0x100;
    mprotect((void *)open_page, (size_t)2 * PAGE, PROT_READ);
}

/* Long copies are interrupted in the middle, and not at each of their many stores. */
static void copy_run(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void set_run(void *to, int value, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

/* Whether [to, to+n) is closed to writing; then it is open from now on. */
static bool open_run(const void *to, size_t n)
{
    if (!guarded || (uintptr_t)to - (uintptr_t)arena >= ARENA || n == 0)
        return false;
    const uintptr_t first = (uintptr_t)to & ~(uintptr_t)(PAGE - 1);
    mprotect((void *)first, (uintptr_t)to + n - first, PROT_READ | PROT_WRITE);
    return true;
}

static void close_run(const void *to, size_t n)
{
    const uintptr_t first = (uintptr_t)to & ~(uintptr_t)(PAGE - 1);
    mprotect((void *)first, (uintptr_t)to + n - first, PROT_READ);
}

void *memcpy(void *to, const void *from, size_t n)
{
    if (!open_run(to, n)) {
        copy_run(to, from, n);
        return to;
    }
    const size_t half = n / 2;
    may_die((uintptr_t)__builtin_return_address(0));
    copy_run(to, from, half);
    may_die((uintptr_t)__builtin_return_address(0) + 1);
    copy_run((uint8_t *)to + half, (const uint8_t *)from + half, n - half);
    close_run(to, n);
    return to;
}

void *memset(void *to, int value, size_t n)
{
    if (!open_run(to, n)) {
        set_run(to, value, n);
        return to;
    }
    const size_t half = n / 2;
    may_die((uintptr_t)__builtin_return_address(0));
    set_run(to, value, half);
    may_die((uintptr_t)__builtin_return_address(0) + 1);
    set_run((uint8_t *)to + half, value, n - half);
    close_run(to, n);
    return to;
}

/* ---- the wire ---- */

static void put_on_wire(enum side to, const struct frame_out *f)
{
    struct wire *w = &wires[to];
    if (w->n == QUEUE || rnd(1000) < loss)
        return;
    struct frame *p = unused != NULL ? unused : malloc(sizeof(*p));
    unused = unused != NULL ? unused->next : NULL;
    const uint32_t head = (uint32_t)f->head_end - f->head_start;
    copy_run(p->bytes, f->head + f->head_start, head);
    p->len = head;
    for (unsigned i = 0; i < f->nslices; i++) {
        copy_run(p->bytes + p->len, f->slices[i].base, f->slices[i].len);
        p->len += (uint32_t)f->slices[i].len;
    }
    p->gso_size = f->gso_size;
    p->at = now + DELAY;
    const bool overtakes = w->n > 0 && rnd(1000) < loss;
    w->frames[w->n++] = p;
    if (overtakes) {
        w->frames[w->n - 1] = w->frames[w->n - 2];
        w->frames[w->n - 2] = p;
    }
}

static struct frame *take_from_wire(enum side at)
{
    struct wire *w = &wires[at];
    if (w->n == 0 || w->frames[0]->at > now)
        return NULL;
    struct frame *f = w->frames[0];
    for (unsigned i = 1; i < w->n; i++)
        w->frames[i - 1] = w->frames[i];
    w->n--;
    return f;
}

/* What is kept leaves; who dies here takes the rest along. */
static void flush(struct stack_cx *c)
{
    if (c->user != NULL)
        return;
    const unsigned n = nkept;
    for (unsigned i = 0; i < n; i++) {
        if (guarded)
            may_die((uintptr_t)flush);
        put_on_wire(PEER, &kept[i]);
    }
    nkept = 0;
}

static int transmit(struct stack_cx *c, const struct frame_out *f)
{
    if (c->user != NULL) {
        put_on_wire(OURS, f);
        return 0;
    }
    if (f->lasting && nkept < KEPT) {
        copy_run(&kept[nkept++], f, sizeof(*f));
        return 0;
    }
    flush(c);
    if (guarded)
        may_die((uintptr_t)transmit);
    put_on_wire(PEER, f);
    if (guarded)
        may_die((uintptr_t)transmit + 1);
    return 0;
}

static void notify(struct stack_cx *c, void *owner, uint32_t events)
{
    (void)c;
    (void)owner;
    (void)events;
}

static const struct stack_ops ops = {.transmit = transmit, .flush = flush, .notify = notify};

/* ---- the streams ---- */

static void fill(uint8_t *p, uint32_t len, unsigned stream, enum side from, uint32_t offset)
{
    struct stamp s = {.mark = STAMP_MARK, .stream = (uint8_t)stream, .from = (uint8_t)from};
    for (uint32_t i = 0; i < len; i++) {
        s.offset = (offset + i) & ~(uint32_t)(sizeof(s) - 1);
        p[i] = ((const uint8_t *)&s)[(offset + i) % sizeof(s)];
    }
}

static _Noreturn void fail(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
    _exit(1);
}

/* Says what stands where something else should. */
static _Noreturn void wrong_byte(unsigned stream, enum side from, uint32_t offset, const uint8_t *p,
                                 uint32_t left)
{
    struct stamp s = {.mark = 0};
    for (uint32_t at = 0; at + sizeof(s) <= left && at < sizeof(s) && s.mark != STAMP_MARK; at++)
        copy_run(&s, p + at, sizeof(s));
    printf("stream %u from %s, byte %u: ", stream, from == OURS ? "us" : "the peer", offset);
    if (s.mark == STAMP_MARK)
        printf("it is of stream %u from %s, near byte %u\n", s.stream,
               s.from == OURS ? "us" : "the peer", s.offset);
    else
        printf("%02x %02x %02x %02x ...\n", p[0], left > 1 ? p[1] : 0, left > 2 ? p[2] : 0,
               left > 3 ? p[3] : 0);
    fail("not what was sent");
}

#define STREAMER 1 /* holders of parcels */
#define VICTIM   2
#define PIECE    40000

/* Sends what it packed, in most cases at some later time: others, who may die, come before. */
static bool say_parcel(struct stream *s, unsigned i, enum side at, uint8_t *bytes, uint32_t len)
{
    if (s->out[at] == NULL) {
        s->out[at] = tcp_pack(&cx[at], s->conn[at], len, STREAMER);
        if (s->out[at] == NULL)
            return false;
        fill(bytes, tcp_parcel_len(s->out[at]), i, at, s->sent[at]);
        tcp_parcel_fill(s->out[at], bytes);
    }
    if (rnd(3) == 0) {
        const int64_t n = tcp_send_parcel(&cx[at], s->conn[at], s->out[at]);
        s->sent[at] += n > 0 ? (uint32_t)n : 0;
        s->out[at] = NULL;
    }
    return true;
}

static void say(unsigned i, enum side at)
{
    static uint8_t bytes[PIECE];
    struct stream *s = &streams[i];
    if (s->conn[at] == NULL || s->sent[at] >= s->end[at])
        return;
    const uint32_t len = min_u32(1 + rnd(sizeof(bytes)), s->end[at] - s->sent[at]);
    if (inside && say_parcel(s, i, at, bytes, len))
        return;
    fill(bytes, len, i, at, s->sent[at]);
    const int64_t n = tcp_send(&cx[at], s->conn[at], &(struct slice){bytes, len}, 1, 0);
    if (n > 0)
        s->sent[at] += (uint32_t)n;
}

static void got_bytes(unsigned i, enum side at, const uint8_t *bytes, uint32_t n)
{
    struct stream *s = &streams[i];
    static uint8_t expected[40000];
    fill(expected, n, i, !at, s->got[at]);
    for (uint32_t k = 0; k < n; k++)
        if (bytes[k] != expected[k])
            wrong_byte(i, !at, s->got[at] + k, bytes + k, n - k);
    s->got[at] += n;
    if (n == 0 || s->since[!at] == 0)
        return;
    const nsec_t ms = (now - s->since[!at]) / NSEC_PER_MSEC;
    s->since[!at] = 0;
    unsigned b = 0;
    while (ms >= late_ms[b])
        b++;
    tally->late[b]++;
}

/* As say_parcel(): what is taken is looked at later. */
static bool hear_parcel(struct stream *s, unsigned i, enum side at, uint32_t room)
{
    static uint8_t places[STREAMS][2][PIECE];
    uint8_t *bytes = places[i][at];
    if (s->in[at] == NULL) {
        const struct slice to = {bytes, room};
        const int64_t n = tcp_recv_parcel(&cx[at], s->conn[at], &to, STREAMER, &s->in[at]);
        if (n > 0 && s->in[at] == NULL)
            got_bytes(i, at, bytes, (uint32_t)n);
        s->in_len[at] = (uint32_t)n;
        return n > 0;
    }
    if (rnd(3) == 0) {
        tcp_parcel_empty(s->in[at], bytes);
        tcp_parcel_free(&cx[at], s->in[at]);
        s->in[at] = NULL;
        got_bytes(i, at, bytes, s->in_len[at]);
    }
    return true;
}

static void drop_parcels(struct stream *s)
{
    for (enum side at = OURS; at <= PEER; at++) {
        if (s->out[at] != NULL)
            tcp_parcel_free(&cx[at], s->out[at]);
        if (s->in[at] != NULL)
            tcp_parcel_free(&cx[at], s->in[at]);
        s->out[at] = s->in[at] = NULL;
    }
}

static void hear(unsigned i, enum side at)
{
    static uint8_t bytes[PIECE];
    struct stream *s = &streams[i];
    if (s->conn[at] == NULL)
        return;
    const uint32_t room = 1 + rnd(sizeof(bytes));
    if (inside && hear_parcel(s, i, at, room))
        return;
    const int64_t n = tcp_recv(&cx[at], s->conn[at], &(struct slice){bytes, room}, 1, 0, 0);
    if (n > 0)
        got_bytes(i, at, bytes, (uint32_t)n);
}

/* ---- frames ---- */

/* Text straight to its place, as the link does it; false: by the usual way. */
static bool take_to_place(const struct frame *f)
{
    struct stack_place place;
    struct frame_in in = {
        .data = f->bytes, .len = f->len, .netif = 1, .csum_trusted = true, .gso_size = f->gso_size};
    struct slice rest[TCP_PLACE_SLICES];
    if (f->len < FORESEEN_BYTES || !stack_foresee(&cx[OURS], &in, &place))
        return false;
    const unsigned n = tcp_place_text(&cx[OURS], place.conn, 0, place.len, rest);
    if (n == 0)
        return false;
    uint32_t at = place.head;
    for (unsigned i = 0; i < n; i++) {
        memcpy(rest[i].base, f->bytes + at, rest[i].len);
        at += (uint32_t)rest[i].len;
    }
    place.direct = 0;
    in.place = &place;
    stack_input(&cx[OURS], &in);
    return true;
}

static void receive(enum side at, unsigned most)
{
    struct frame *f;
    while (most-- > 0 && (f = take_from_wire(at)) != NULL) {
        const struct frame_in in = {.data = f->bytes,
                                    .len = f->len,
                                    .netif = 1,
                                    .csum_trusted = true,
                                    .gso_size = f->gso_size};
        cx[at].now = now;
        if (at != OURS || !places || !take_to_place(f))
            stack_input(&cx[at], &in);
        f->next = unused;
        unused = f;
    }
    cx[at].now = now;
    if (stack_deadline(cx[at].st) <= now)
        stack_run_timers(&cx[at]);
    stack_flush(&cx[at]);
}

/* ---- connections ---- */

static struct ip_addr addr_of(enum side at)
{
    if (inside)
        return ip_addr_from_v4(htobe32(0x7f000001u));
    return ip_addr_from_v4(htobe32(0x0a000001u + (uint32_t)at));
}

static uint16_t port_of(enum side at)
{
    return (uint16_t)(PORT + at);
}

static struct tcp_conn *dial(enum side at)
{
    const struct ip_addr to = addr_of(!at);
    struct ip_path path;
    struct ip_addr src;
    struct tcp_conn *c = tcp_open(&cx[at]);
    if (c == NULL)
        return NULL;
    if (ip_route(cx[at].st, &to, &path, &src) == 0) {
        const struct endpoint remote = {to, port_of(!at)};
        const uint16_t port = tcp_ephemeral_port(&cx[at], &src, &remote, 40000, 50000, 0);
        if (port != 0 &&
            tcp_connect(&cx[at], c, &(struct endpoint){src, port}, &remote, &path) == 0)
            return c;
    }
    tcp_close(&cx[at], c);
    return NULL;
}

static void peer_turn(void)
{
    static uint8_t bytes[9000];
    receive(PEER, 1 + rnd(8));
    for (unsigned i = 0; i < STREAMS; i++) {
        if (!lazy[PEER] || rnd(16) == 0)
            hear(i, PEER);
        if (rnd(2) == 0)
            say(i, PEER);
    }
    for (unsigned i = 0; i < GUESTS; i++) {
        if (guests[i] == NULL) {
            guests[i] = tcp_accept(&cx[PEER], listeners[PEER]);
            continue;
        }
        const int64_t n =
            tcp_recv(&cx[PEER], guests[i], &(struct slice){bytes, 1 + rnd(sizeof(bytes))}, 1, 0, 0);
        for (int64_t k = 0; k < n; k++)
            if (bytes[k] != 0) /* the victim says nothing else */
                fail("not what the victim sent");
        if (n > 0)
            tcp_send(&cx[PEER], guests[i], &(struct slice){bytes, (size_t)n}, 1, 0);
        if (n == 0 || (n < 0 && n != -EAGAIN) || rnd(500) == 0) {
            tcp_close(&cx[PEER], guests[i]);
            guests[i] = NULL;
        }
    }
    stack_flush(&cx[PEER]);
}

/* The victim copies large text between calls; now and then it forgets what it has in hand. */
static void copy_as_victim(struct tcp_conn *c)
{
    static uint8_t bytes[PIECE];
    guard(true);
    struct tcp_parcel *p = tcp_pack(&cx[OURS], c, 1 + rnd(PIECE), VICTIM);
    if (p != NULL) {
        tcp_parcel_fill(p, bytes);
        if (rnd(8) != 0)
            tcp_send_parcel(&cx[OURS], c, p);
    }
    const struct slice to = {bytes, 1 + rnd(PIECE)};
    if (tcp_recv_parcel(&cx[OURS], c, &to, VICTIM, &p) > 0 && p != NULL && rnd(8) != 0)
        tcp_parcel_free(&cx[OURS], p);
    guard(!copies);
    memset(bytes, 0, sizeof(bytes));
}

/* What the one does who may die: frames and timers of all, calls on its own connections. */
static void victim_turn(void)
{
    static uint8_t bytes[9000];
    struct tcp_conn **slot = &victims[rnd(VICTIMS)];
    const uint32_t what = rnd(16);
    if (what < 8)
        receive(OURS, 1 + rnd(8));
    else if (*slot == NULL)
        *slot = rnd(2) == 0 ? dial(OURS) : tcp_accept(&cx[OURS], listeners[OURS]);
    else if (inside && rnd(2) == 0)
        copy_as_victim(*slot);
    else if (what < 11)
        tcp_send(&cx[OURS], *slot, &(struct slice){bytes, 1 + rnd(sizeof(bytes))}, 1, 0);
    else if (what < 14)
        tcp_recv(&cx[OURS], *slot, &(struct slice){bytes, 1 + rnd(sizeof(bytes))}, 1, 0, 0);
    else if (what < 15) {
        tcp_shutdown(&cx[OURS], *slot, TCP_SHUT_WR);
    } else {
        tcp_close(&cx[OURS], *slot);
        *slot = NULL;
    }
    stack_flush(&cx[OURS]);
}

static void our_turn(void)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        if (rnd(2) == 0)
            say(i, OURS);
        if (!lazy[OURS] || rnd(16) == 0)
            hear(i, OURS);
    }
    if (rnd(4) == 0)
        receive(OURS, 1 + rnd(4));
    stack_flush(&cx[OURS]);
}

/* ---- after a death ---- */

/* Whether c belongs to one of those who live. */
static bool is_stream(const struct tcp_conn *c)
{
    for (unsigned i = 0; i < STREAMS; i++)
        if (streams[i].conn[OURS] == c || streams[i].conn[PEER] == c)
            return true;
    for (unsigned i = 0; i < GUESTS; i++)
        if (guests[i] == c)
            return true;
    return false;
}

/* Who has a connection inside the stack must learn that the other end is gone. */
static void check_other_end(struct tcp_conn *c, void *arg)
{
    (void)arg;
    if (c->state == TCP_ESTABLISHED && tcp_other_end(&cx[OURS], c) == NULL)
        fail("one end of a connection is left");
}

/* What the dead had is closed. */
static void bury(struct tcp_conn *c, void *arg)
{
    (void)arg;
    if (tcp_is_held(c) && !is_stream(c))
        tcp_close(&cx[OURS], c);
}

static void repair(void)
{
    volatile bool died = false;
    if (sigsetjmp(second, 1) == 0 && rnd(4) == 0) {
        until_second = 1 + rnd(1 + rnd(20000));
        guard(true);
        stack_repair(&cx[OURS]);
    } else {
        died = true;
    }
    until_second = 0;
    guard(false);
    nkept = 0;
    if (died)
        stack_repair(&cx[OURS]);
    if (tcp_check_invariants(cx[OURS].st) != 0)
        fail("invariants");
    tcp_parcels_drop(cx[OURS].st, VICTIM);
    tcp_each_conn(cx[OURS].st, bury, NULL);
    stack_flush(&cx[OURS]);
    if (inside)
        tcp_each_conn(cx[OURS].st, check_other_end, NULL);
}

static void hang_up(struct tcp_conn **slot, enum side at)
{
    if (*slot != NULL)
        tcp_close(&cx[at], *slot);
    *slot = NULL;
}

/* One was reset at most: with the peer's end, which may not have heard of it. */
static void note_broken(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &streams[i];
        bool whole = true;
        for (enum side at = OURS; at <= (inside ? PEER : OURS); at++) {
            if (!tcp_is_conn(cx[OURS].st, s->conn[at]) || !tcp_is_held(s->conn[at]))
                fail("a connection is gone");
            whole &= s->conn[at]->err == 0 && s->conn[at]->state != TCP_CLOSED;
        }
        if (whole)
            continue;
        n++;
        s->broken = true;
        drop_parcels(s);
        hang_up(&s->conn[OURS], OURS);
        hang_up(&s->conn[PEER], PEER);
    }
    tally->resets += n;
    tally->most = max_u32(tally->most, n);
}

static void show_conn(struct tcp_conn *c, void *arg)
{
    (void)arg;
    printf(
        "  connection %u: state %u err %d una %u nxt %u fin %d received %d rcv_nxt %u adv %u wnd "
        "%u cwnd %u held %d shut %d%d buffered %u unread %u in flight %u lost %u sacked %u "
        "pending %d",
        c->flow.number, c->state, c->err, c->snd_una.v - c->iss.v, c->snd_nxt.v - c->iss.v,
        c->fin_queued, c->fin_received, c->rcv_nxt.v - c->irs.v, c->rcv_adv.v - c->irs.v,
        c->snd_wnd, c->cc.cwnd, c->app_held, c->rcv_shut, c->snd_shut, c->sendbuf.len,
        recvbuf_ready(&c->recvbuf), c->sent.total, c->sent.lost, c->sent.sacked, c->needs_output);
    for (unsigned t = 0; t < TCP_CONN_TIMERS; t++)
        if (c->deadline[t] != NSEC_NEVER)
            printf(" %s %+ld us", tcp_timer_name(t),
                   (long)(c->deadline[t] - now) / (long)NSEC_PER_USEC);
    printf("\n");
}

static void show(void)
{
    const struct tcp_stack *t = &cx[OURS].st->tcp;
    printf("conns %u half_opens %u time_waits %u chunks %u records %u ranges %u flows %u orphans "
           "%u packets %u bad_frees %lu\n",
           t->conns.live, t->half_opens.live, t->time_waits.live, t->chunks.live, t->records.live,
           t->ranges.live, t->flows.count, t->norphans,
           cx[OURS].st->ip.small.live + cx[OURS].st->ip.large.live,
           (unsigned long)arena_bad_frees(cx[OURS].st->arena));
    for (unsigned i = 0; i < STREAMS; i++)
        for (enum side at = OURS; at <= PEER; at++) {
            const struct stream *s = &streams[i];
            printf("stream %u at %s: connection %u, %u of %u sent, %u got%s\n", i,
                   at == OURS ? "us" : "the peer",
                   s->conn[at] != NULL ? s->conn[at]->flow.number : 0, s->sent[at], s->end[at],
                   s->got[at], s->broken ? ", broken" : "");
        }
    for (enum side at = OURS; at <= PEER; at++) {
        printf("%s:\n", at == OURS ? "us" : "the peer");
        tcp_each_conn(cx[at].st, show_conn, NULL);
    }
}

static bool all_arrived(void)
{
    for (unsigned i = 0; i < STREAMS; i++)
        for (enum side at = OURS; at <= PEER; at++)
            if (!streams[i].broken && streams[i].got[!at] != streams[i].end[at])
                return false;
    return true;
}

static nsec_t earliest(void)
{
    nsec_t at = min_u64(stack_deadline(cx[OURS].st), stack_deadline(cx[PEER].st));
    for (unsigned i = 0; i < 2; i++)
        if (wires[i].n > 0)
            at = min_u64(at, wires[i].frames[0]->at);
    return at;
}

/* Lets everybody work until nothing is to be done now; false: nor ever. */
static bool settle(void)
{
    for (unsigned i = 0; i < STREAMS; i++)
        for (enum side at = OURS; at <= PEER; at++)
            do {
                say(i, at);
                hear(i, at);
            } while (streams[i].out[at] != NULL || streams[i].in[at] != NULL);
    receive(PEER, QUEUE);
    receive(OURS, QUEUE);
    const nsec_t next = earliest();
    now = max_u64(now, next != NSEC_NEVER ? next : now);
    cx[OURS].now = cx[PEER].now = now;
    return next != NSEC_NEVER;
}

static bool arena_empty(void)
{
    const struct tcp_stack *t = &cx[OURS].st->tcp;
    return t->conns.live + t->half_opens.live + t->time_waits.live + t->chunks.live +
                   t->parcels.live + t->records.live + t->ranges.live + t->flows.count +
                   t->norphans + cx[OURS].st->ip.small.live + cx[OURS].st->ip.large.live ==
               0 &&
           arena_bad_frees(cx[OURS].st->arena) == 0;
}

/* This process is the one where the victim is dead: its end tells whether all is well. */
static _Noreturn void aftermath(uintptr_t at)
{
    (void)at;
    wanted = 0;
    guard(false);
    cx[OURS].now = cx[PEER].now = now;
    tally->died++;
    repair();
    for (unsigned i = 0; i < VICTIMS; i++)
        victims[i] = NULL;
    note_broken();
    for (unsigned i = 0; i < GUESTS; i++)
        hang_up(&guests[i], PEER);
    if (rnd(2) == 0)
        loss = 0;
    for (unsigned i = 0; i < STREAMS; i++)
        for (enum side from = OURS; from <= PEER; from++) {
            struct stream *s = &streams[i];
            const uint32_t packed = s->out[from] != NULL ? tcp_parcel_len(s->out[from]) : 0;
            s->end[from] = s->sent[from] + packed + rnd(REST);
            if (loss == 0 && s->sent[from] != s->got[!from])
                s->since[from] = now;
        }
    unsigned steps = 0;
    while (!all_arrived() && steps++ < PATIENCE)
        settle(); /* without a timer there may be something left to read */
    if (!all_arrived())
        show(), fail("bytes are missing");
    for (unsigned i = 0; i < STREAMS; i++) {
        hang_up(&streams[i].conn[OURS], OURS);
        hang_up(&streams[i].conn[PEER], PEER);
    }
    for (enum side side = OURS; side <= PEER; side++)
        tcp_listener_close(&cx[side], listeners[side]);
    while (settle() && steps++ < PATIENCE)
        ;
    if (!arena_empty())
        show(), fail("something is left");
    _exit(0);
}

/* ---- the beginning ---- */

static struct stack *make_stack(enum side at)
{
    const struct stack_config config = {.own_address = true,
                                        .loopback = inside,
                                        .port_min = 40000,
                                        .port_max = 50000,
                                        .seed = {(uint8_t)at}};
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE;
    void *base =
        mmap((void *)(ATTACH + (uintptr_t)at * ARENA), ARENA, PROT_READ | PROT_WRITE, flags, -1, 0);
    struct netif nif = {.up = true,
                        .kind = NETIF_ETHERNET,
                        .ifindex = 2,
                        .mtu = 1500,
                        .mac = {2, 0, 0, 0, 0, (uint8_t)at},
                        .gso = true,
                        .csum_offload = true,
                        .answers_arp = true,
                        .naddrs = 1};
    nif.addrs[0].addr = addr_of(at);
    nif.addrs[0].prefix = 120;
    struct stack *st = stack_init(base, ARENA, 0, &config, now);
    if (st == NULL || stack_add_netif(st, &nif) != 1)
        fail("no stack");
    if (at == OURS)
        arena = base;
    return st;
}

static void begin(enum side at)
{
    cx[at] = (struct stack_cx){.ops = &ops, .now = now, .user = at == PEER ? &wires : NULL};
    cx[at].st = inside && at == PEER ? cx[OURS].st : make_stack(at);
    struct tcp_opts opts;
    tcp_opts_init(&opts, cx[at].st);
    const struct tcp_listen_args args = {
        .local = {.port = port_of(at)}, .backlog = 8, .opts = &opts, .owner = &listeners[at]};
    if (tcp_listen(&cx[at], &args, &listeners[at]) < 0)
        fail("no listener");
}

static void connect_streams(void)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        const enum side at = i % 2 == 0 ? OURS : PEER;
        struct stream *s = &streams[i];
        s->conn[at] = dial(at);
        for (unsigned n = 0; n < 1000 && s->conn[!at] == NULL; n++) {
            settle();
            s->conn[!at] = tcp_accept(&cx[!at], listeners[!at]);
        }
        if (s->conn[OURS] == NULL || s->conn[PEER] == NULL)
            fail("no connection");
    }
    for (unsigned i = 0; i < STREAMS; i++)
        streams[i].end[OURS] = streams[i].end[PEER] = UINT32_MAX;
}

int main(int argc, char **argv)
{
    const unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 500;
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    random_state = argc > 2 ? (uint32_t)atoi(argv[2]) * 2654435761u + 1 : 1;
    places = argc > 3 && strcmp(argv[3], "place") == 0;
    copies = argc > 3 && strcmp(argv[3], "copies") == 0;
    inside = copies || (argc > 3 && strcmp(argv[3], "inside") == 0);
    only = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGTRAP, &trap, NULL);
    begin(OURS);
    begin(PEER);
    connect_streams();
    wanted = kills;
    while (wanted > 0) {
        now += NSEC_PER_USEC * rnd(200);
        if (rnd(200) == 0) {
            loss = rnd(2) * rnd(50);
            lazy[OURS] = rnd(4) == 0;
            lazy[PEER] = rnd(4) == 0;
            now += NSEC_PER_MSEC * rnd(300);
        }
        cx[OURS].now = cx[PEER].now = now;
        peer_turn();
        our_turn();
        guard(!copies);
        victim_turn();
        guard(false);
    }
    printf("deaths %u stores %u resets %u most %u late", tally->died, tally->stores, tally->resets,
           tally->most);
    for (unsigned i = 0; i < SLOT_BUCKETS; i++)
        printf(" %u", tally->late[i]);
    printf(" %s\n", copies ? "copies" : inside ? "inside" : places ? "place" : "wire");
    return tally->most > 1 || tally->died < kills;
}
