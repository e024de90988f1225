/*
 * The engine under ThreadSanitizer. Stacks keep nothing outside their arenas, so that several can
 * run in several threads without any lock; and one may be shared under a lock, as the shim does.
 * Ends with the line `N passed, N failed`.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "stack/arena.h"
#include "stack/ip/ip.h"
#include "stack/tcp/tcp.h"

#define THREADS 6
#define ROUNDS  12
#define BYTES   (256 * 1024)
#define SIZE    (64u << 20)

#define PATIENCE (10 * NSEC_PER_SEC)

struct host {
    struct stack *st;
    pthread_mutex_t *lock; /* NULL: nobody else has it */
};

static int no_device(struct stack_cx *cx, const struct frame_out *frame)
{
    (void)cx, (void)frame;
    return -1;
}

static void nobody(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx, (void)owner, (void)events;
}

static const struct stack_ops ops = {.transmit = no_device, .notify = nobody};

static struct stack *new_stack(uint8_t seed)
{
    struct stack_config config = {.loopback = true, .port_min = 32768, .port_max = 60999};
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    memset(config.seed, seed, sizeof(config.seed));
    void *base = mmap(NULL, SIZE + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const uintptr_t at =
        ((uintptr_t)base + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1);
    struct stack *st = stack_init((void *)at, SIZE, 0, &config, (nsec_t)ts.tv_sec * NSEC_PER_SEC);
    if (st == NULL)
        abort();
    return st;
}

static nsec_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

static void enter(const struct host *h, struct stack_cx *cx)
{
    if (h->lock != NULL)
        pthread_mutex_lock(h->lock);
    *cx = (struct stack_cx){.st = h->st, .ops = &ops, .now = now()};
    if (stack_deadline(h->st) <= cx->now)
        stack_run_timers(cx);
}

static void leave(const struct host *h, struct stack_cx *cx)
{
    stack_flush(cx);
    if (h->lock != NULL)
        pthread_mutex_unlock(h->lock);
}

static uint8_t pattern(unsigned thread, size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + thread);
}

static bool late(nsec_t began)
{
    return now() - began > PATIENCE;
}

/* BYTES through a connection, a piece at a time; Nagle and delayed ACKs make it wait now and then.
 * False: something was lost or mixed up. */
static bool transfer(const struct host *h, struct tcp_conn *from, struct tcp_conn *to, unsigned id)
{
    static __thread uint8_t out[5000], in[3000];
    size_t sent = 0, got = 0;
    bool good = true;
    const nsec_t began = now();
    while (good && got < BYTES && !late(began)) {
        struct stack_cx cx;
        enter(h, &cx);
        const size_t n = min_u64(sizeof(out), BYTES - sent);
        for (size_t i = 0; i < n; i++)
            out[i] = pattern(id, sent + i);
        const struct slice give = {out, n}, take = {in, sizeof(in)};
        int64_t r = n > 0 ? tcp_send(&cx, from, &give, 1, 0) : 0;
        sent += r > 0 ? (size_t)r : 0;
        stack_flush(&cx);
        while ((r = tcp_recv(&cx, to, &take, 1, 0, 0)) > 0) {
            for (int64_t i = 0; i < r; i++)
                good = good && in[i] == pattern(id, got + (size_t)i);
            got += (size_t)r;
        }
        leave(h, &cx);
    }
    return good && got == BYTES;
}

/* The same by parcels, which are filled and emptied while others have the lock. */
static bool transfer_parcels(const struct host *h, struct tcp_conn *from, struct tcp_conn *to,
                             unsigned id)
{
    static __thread uint8_t out[40000], in[40000];
    size_t sent = 0, got = 0;
    bool good = true;
    const nsec_t began = now();
    while (good && got < BYTES && !late(began)) {
        struct stack_cx cx;
        struct tcp_parcel *p;
        const struct slice give = {out, min_u64(sizeof(out), BYTES - sent)};
        for (size_t i = 0; i < give.len; i++)
            out[i] = pattern(id, sent + i);
        enter(h, &cx);
        p = tcp_pack(&cx, from, give.len, id + 1);
        if (p != NULL) {
            leave(h, &cx);
            tcp_parcel_fill(p, out);
            enter(h, &cx);
        }
        int64_t r = p != NULL      ? tcp_send_parcel(&cx, from, p)
                    : give.len > 0 ? tcp_send(&cx, from, &give, 1, 0)
                                   : 0; /* segments are on their way, or the rest is too small */
        sent += r > 0 ? (size_t)r : 0;
        leave(h, &cx);
        const struct slice take = {in, sizeof(in)};
        enter(h, &cx);
        r = tcp_recv_parcel(&cx, to, &take, id + 1, &p);
        if (r == 0)
            r = tcp_recv(&cx, to, &take, 1, 0, 0);
        leave(h, &cx);
        if (p != NULL) {
            tcp_parcel_empty(p, in);
            enter(h, &cx);
            tcp_parcel_free(&cx, p);
            leave(h, &cx);
        }
        for (int64_t i = 0; i < r; i++)
            good = good && in[i] == pattern(id, got + (size_t)i);
        got += r > 0 ? (size_t)r : 0;
    }
    return good && got == BYTES;
}

static bool one_round(const struct host *h, unsigned id, unsigned round)
{
    const struct endpoint at = {.addr = ip_addr_from_v4(htobe32(0x7f000001)),
                                .port = (uint16_t)(1000 + id)};
    struct tcp_opts opts;
    struct tcp_listener *l;
    struct stack_cx cx;
    enter(h, &cx);
    tcp_opts_init(&opts, h->st);
    const struct tcp_listen_args args = {.local = at, .backlog = 5, .opts = &opts};
    struct tcp_conn *c = tcp_open(&cx), *a = NULL;
    struct ip_path path;
    struct ip_addr src = {.q = {0, 0}};
    bool ok =
        c != NULL && tcp_listen(&cx, &args, &l) == 0 && ip_route(h->st, &at.addr, &path, &src) == 0;
    struct endpoint local = {.addr = src};
    local.port = tcp_ephemeral_port(&cx, &src, &at, 32768, 60999, round);
    ok = ok && tcp_connect(&cx, c, &local, &at, &path) == 0;
    leave(h, &cx);
    const nsec_t began = cx.now;
    while (ok && a == NULL && !late(began)) {
        enter(h, &cx);
        a = tcp_accept(&cx, l);
        leave(h, &cx);
    }
    ok = ok && a != NULL && transfer(h, c, a, id) && transfer(h, a, c, id + 100) &&
         transfer_parcels(h, c, a, id);
    enter(h, &cx);
    tcp_close(&cx, c);
    if (a != NULL)
        tcp_close(&cx, a);
    if (ok)
        tcp_listener_close(&cx, l);
    leave(h, &cx);
    return ok;
}

struct job {
    struct host host;
    unsigned id;
    unsigned done;
};

static void *run(void *arg)
{
    struct job *j = arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        j->done += one_round(&j->host, j->id, i);
    return NULL;
}

static unsigned all(struct job jobs[THREADS])
{
    pthread_t threads[THREADS];
    unsigned done = 0;
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, &jobs[i]) != 0)
            abort();
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        done += jobs[i].done;
    }
    return done;
}

int main(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct job own[THREADS], shared[THREADS];
    struct stack *st = new_stack(99);
    for (unsigned i = 0; i < THREADS; i++) {
        own[i] = (struct job){.host = {.st = new_stack((uint8_t)(i + 1))}, .id = i};
        shared[i] = (struct job){.host = {.st = st, .lock = &lock}, .id = i};
    }
    const unsigned done = all(own) + all(shared), wanted = 2 * THREADS * ROUNDS;
    printf("%u passed, %u failed\n", done, wanted - done);
    return done == wanted ? 0 : 1;
}
