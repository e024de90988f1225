/*
 * Death at any instruction: a child shares the arena, does one operation of the engine under
 * PTRACE_SINGLESTEP, and is killed after a random number of instructions. Then the stack is
 * repaired and everything looked at. All connections run over the loopback inside one stack.
 *
 *     kill_engine KILLS SEED
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stack/internal.h"
#include "stack/ip/ip.h"
#include "stack/tcp/conn.h"
#include "stack/tcp/inside.h"

#define ARENA  ((size_t)16 << 20)
#define CONNS  12
#define STEPS  4000
#define PORT   80
#define ATTACH 0x6a0000000000

/* Shared with the children: who has which connection. */
struct world {
    struct stack_cx cx;
    struct tcp_listener *listener;
    struct tcp_conn *conns[CONNS];
    uint32_t random;
    uint64_t bytes;
    bool bad;
};

static struct world *w;

static uint32_t rnd(uint32_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 17;
    w->random ^= w->random << 5;
    return w->random % n;
}

static int transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    (void)cx;
    (void)frame;
    return 0;
}

static void notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx;
    (void)owner;
    (void)events;
}

static const struct stack_ops ops = {.transmit = transmit, .notify = notify};

/* What stands at this offset of every stream. */
static uint8_t at(uint32_t offset)
{
    return (uint8_t)(offset * 7 + (offset >> 8));
}

static void dial(struct tcp_conn **slot)
{
    const struct ip_addr any = ip_addr_from_v4(htobe32(0x7f000001));
    const uint16_t port =
        tcp_ephemeral_port(&w->cx, &any, &(struct endpoint){any, PORT}, 40000, 50000, 0);
    struct ip_path path;
    struct ip_addr src;
    struct tcp_conn *c = tcp_open(&w->cx);
    if (c == NULL)
        return;
    *slot = c;
    tcp_set_owner(c, slot);
    if (port == 0 || ip_route(w->cx.st, &any, &path, &src) < 0 ||
        tcp_connect(&w->cx, c, &(struct endpoint){any, port}, &(struct endpoint){any, PORT},
                    &path) < 0) {
        *slot = NULL;
        tcp_close(&w->cx, c);
    }
}

static void take(struct tcp_conn **slot)
{
    struct tcp_conn *c = tcp_accept(&w->cx, w->listener);
    if (c != NULL) {
        *slot = c;
        tcp_set_owner(c, slot);
    }
}

static void talk(struct tcp_conn *c)
{
    uint8_t bytes[9000];
    const uint32_t from = (uint32_t)seq_diff(tcp_data_end(c), c->iss) - 1;
    const uint32_t len = 1 + rnd(sizeof(bytes));
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = at(from + i);
    tcp_send(&w->cx, c, &(struct slice){bytes, len}, 1, 0);
}

static void hear(struct tcp_conn *c)
{
    uint8_t bytes[9000];
    const uint32_t from = (uint32_t)seq_diff(c->copied_seq, c->irs) - 1;
    const int64_t got =
        tcp_recv(&w->cx, c, &(struct slice){bytes, 1 + rnd(sizeof(bytes))}, 1, 0, 0);
    for (int64_t i = 0; i < got; i++)
        w->bad |= bytes[i] != at(from + (uint32_t)i);
    w->bytes += got > 0 ? (uint64_t)got : 0;
}

static void hang_up(struct tcp_conn **slot)
{
    struct tcp_conn *c = *slot;
    tcp_set_owner(c, NULL);
    tcp_close(&w->cx, c);
    *slot = NULL;
}

static void operate(void)
{
    struct tcp_conn **slot = &w->conns[rnd(CONNS)];
    const uint32_t what = rnd(16);
    w->cx.now += rnd(4) == 0 ? NSEC_PER_MSEC * rnd(300) : NSEC_PER_USEC * rnd(500);
    if (what == 0)
        stack_run_timers(&w->cx);
    else if (*slot == NULL && what < 8)
        dial(slot);
    else if (*slot == NULL)
        take(slot);
    else if (what == 1 || (*slot)->state == TCP_CLOSED)
        hang_up(slot);
    else if (what < 9)
        talk(*slot);
    else
        hear(*slot);
    stack_flush(&w->cx);
}

/* Whether the child was killed in the middle. */
static bool killed_at(uint32_t steps)
{
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        operate();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    while (steps-- > 0) {
        ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
        if (waitpid(pid, &status, 0) < 0 || WIFEXITED(status))
            return false;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return true;
}

static void end_stray(struct tcp_conn *c, void *arg)
{
    (void)arg;
    struct tcp_conn **slot = tcp_owner(c);
    if (tcp_is_held(c) && (slot == NULL || *slot != c)) {
        tcp_set_owner(c, NULL);
        tcp_close(&w->cx, c);
    }
}

static void repair(void)
{
    stack_repair(&w->cx);
    /* one without its owner is being closed (hang_up()) or not yet taken: end_stray() ends it */
    for (unsigned i = 0; i < CONNS; i++)
        if (w->conns[i] != NULL &&
            (!tcp_is_conn(w->cx.st, w->conns[i]) || tcp_owner(w->conns[i]) != &w->conns[i]))
            w->conns[i] = NULL;
    tcp_each_conn(w->cx.st, end_stray, NULL);
    stack_flush(&w->cx);
}

static unsigned broken(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CONNS; i++)
        n += w->conns[i] != NULL && w->conns[i]->err == ECONNRESET;
    return n;
}

/* Who lives must learn that the other end is gone. */
static void check_other_end(struct tcp_conn *c, void *arg)
{
    (void)arg;
    if (c->state == TCP_ESTABLISHED && tcp_other_end(&w->cx, c) == NULL)
        w->bad = true;
}

/* Everything is closed and waited for: nothing may be left. */
static bool ends_empty(void)
{
    struct tcp_stack *t = &w->cx.st->tcp;
    for (unsigned i = 0; i < CONNS; i++)
        if (w->conns[i] != NULL)
            hang_up(&w->conns[i]);
    tcp_listener_close(&w->cx, w->listener);
    for (unsigned i = 0; i < 100000 && stack_deadline(w->cx.st) != NSEC_NEVER; i++) {
        stack_flush(&w->cx);
        w->cx.now = max_u64(w->cx.now, stack_deadline(w->cx.st));
        stack_run_timers(&w->cx);
        stack_flush(&w->cx);
    }
    return t->conns.live + t->half_opens.live + t->time_waits.live + t->chunks.live +
               t->records.live + t->ranges.live + t->flows.count + t->norphans +
               w->cx.st->ip.small.live + w->cx.st->ip.large.live ==
           0;
}

int main(int argc, char **argv)
{
    const unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 500;
    const struct stack_config config = {
        .loopback = true, .own_address = true, .port_min = 40000, .port_max = 50000};
    const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    void *base = mmap((void *)ATTACH, ARENA, PROT_READ | PROT_WRITE, flags, -1, 0);
    w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    w->random = argc > 2 ? (uint32_t)atoi(argv[2]) * 2654435761u + 1 : 1;
    w->cx = (struct stack_cx){.ops = &ops, .now = NSEC_PER_SEC};
    w->cx.st = stack_init(base, ARENA, 0, &config, w->cx.now);
    struct tcp_opts opts;
    tcp_opts_init(&opts, w->cx.st);
    const struct tcp_listen_args args = {
        .local = {.port = PORT}, .backlog = 8, .opts = &opts, .owner = w};
    if (w->cx.st == NULL || tcp_listen(&w->cx, &args, &w->listener) < 0)
        return 2;
    unsigned died = 0, resets = 0, most = 0;
    for (unsigned tries = 0; died < kills && tries < 20 * kills; tries++) {
        for (uint32_t n = rnd(30); n > 0; n--)
            operate();
        const unsigned before = broken();
        if (!killed_at(rnd(1 + rnd(STEPS))))
            continue;
        died++;
        repair();
        const unsigned now = broken() > before ? broken() - before : 0;
        resets += now;
        tcp_each_conn(w->cx.st, check_other_end, NULL);
        most = now > most ? now : most;
        if (tcp_check_invariants(w->cx.st) != 0 || w->bad) {
            printf("kill %u: invariants\n", died);
            return 1;
        }
    }
    const bool empty = ends_empty();
    const uint64_t bad_frees = arena_bad_frees(w->cx.st->arena);
    printf("kills %u resets %u most %u bytes %lu bad %d left %d bad_frees %lu\n", died, resets,
           most, (unsigned long)w->bytes, w->bad, !empty, (unsigned long)bad_frees);
    /* both ends are in this stack, and so is the other end of one that was being closed */
    return w->bad || !empty || most > 3 || died < kills || bad_frees != 0;
}
