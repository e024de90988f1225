/*
 * Virtual time. The shim's own code runs here, from the socket calls down; what is replaced are its
 * clock (clock_gettime() below), its packet socket (link.c), its way to sleep (sleep.c) and what
 * looks after processes.
 *
 * Two threads: the script's, which runs all events, and packetdrill's second one for calls that the
 * script expects to wait. Time passes only when the script's thread sleeps or waits for a packet,
 * from deadline to deadline. When something happens that ends a wait, time stands still until the
 * waiting thread has returned from its call and read the clock, or waits again: so the end of a
 * call is as exact as everything else. The engine's lock is the only one.
 */
#define _GNU_SOURCE
#include "tests/packetdrill/world.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/shared.h"
#include "shim/core/thread.h"
#include "shim/life/init.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"
#include "tests/packetdrill/link.h"

/* Where the clock begins: not at zero, which the engine uses for "never". */
#define EPOCH (1000 * NSEC_PER_SEC)
/* A call that nothing will end, or a script that waits for a packet that never comes. */
#define PATIENCE (3600 * NSEC_PER_SEC)

/* How often, and how long between, to look whether the other thread has come to rest: 10 s. */
#define SETTLE_LOOKS 50000
#define SETTLE_NSEC  200000

static struct {
    nsec_t now;
    pthread_t script;
    pthread_cond_t changed;
    struct waiter *sleeper; /* of the thread that waits in a call; NULL: none does */
    nsec_t sleeper_deadline;
    bool returning; /* it was woken, and has not yet said that it is back */
    char sysctl[sizeof(((struct world_flags *)0)->sysctl)];
} world = {.now = EPOCH, .changed = PTHREAD_COND_INITIALIZER};

/* Every clock of the shim. */
int clock_gettime(clockid_t id, struct timespec *out)
{
    (void)id;
    out->tv_sec = (time_t)(world.now / NSEC_PER_SEC);
    out->tv_nsec = (long)(world.now % NSEC_PER_SEC);
    return 0;
}

nsec_t world_now(void)
{
    return world.now;
}

void world_start(const struct world_flags *flags)
{
    world.script = pthread_self();
    memcpy(world.sysctl, flags->sysctl, sizeof(world.sysctl));
    shim_init();
    config.off = false;
    config.error[0] = 0;
    config.spin_auto = false; /* time is virtual */
    config.own_address = true;
    config.addr = flags->local;
    config.prefix = 112;
    config.mem = (uint64_t)32 << 20;
    link_configure(flags);
    if (engine_start() < 0) {
        fprintf(stderr, "packetdrill_tcpshim: the engine does not start\n");
        exit(1);
    }
    if (world.sysctl[0] != '\0')
        settings_apply(world.sysctl, engine.st);
}

static void check_invariants(struct stack_cx *cx)
{
    const uint32_t broken = tcp_check_invariants(cx->st);
    if (broken == 0 && stack_counter(cx->st, COUNT_INVARIANT) == 0)
        return;
    fprintf(stderr, "packetdrill_tcpshim: %u invariants broken\n", broken);
    abort();
}

/* Entered. Something happened: who waits for it returns now. */
static void settle(struct stack_cx *cx)
{
    stack_flush(cx);
    check_invariants(cx);
    if (world.sleeper != NULL && (world.sleeper->woken || world.sleeper_deadline <= world.now)) {
        world.returning = true;
        world.sleeper = NULL;
        pthread_cond_broadcast(&world.changed);
    }
    while (world.returning)
        pthread_cond_wait(&world.changed, &engine.sh->lock);
}

static nsec_t next_event(const struct stack_cx *cx)
{
    const nsec_t timer = stack_deadline(cx->st);
    return world.sleeper != NULL ? min_u64(timer, world.sleeper_deadline) : timer;
}

/*
 * Entered. To `target`, or to the moment when a packet leaves (stop_at_packet) or `w` is woken
 * (may be NULL).
 */
static void run_to(struct stack_cx *cx, nsec_t target, bool stop_at_packet, const struct waiter *w)
{
    settle(cx);
    for (;;) {
        if ((stop_at_packet && link_has_packet()) || (w != NULL && w->woken))
            return;
        const nsec_t at = next_event(cx);
        if (at > target)
            break;
        if (at > world.now)
            world.now = at;
        cx->now = world.now;
        stack_run_timers(cx);
        settle(cx);
    }
    world.now = cx->now = max_u64(target, world.now);
    settle(cx);
}

void world_sleep(nsec_t dt)
{
    struct stack_cx cx;
    engine_enter(&cx);
    run_to(&cx, world.now + dt, false, NULL);
    engine_leave(&cx);
}

void world_tick(void)
{
    if (pthread_equal(pthread_self(), world.script))
        world_sleep(1);
}

void world_inject(const void *packet, size_t len)
{
    struct stack_cx cx;
    world_tick();
    if (world.sysctl[0] != '\0')
        settings_apply(world.sysctl, engine.st);
    const struct frame_in frame = {.data = packet, .len = (uint32_t)len, .netif = link_netif()};
    engine_enter(&cx);
    stack_input(&cx, &frame);
    settle(&cx);
    engine_leave(&cx);
    if (world.sysctl[0] != '\0')
        settings_show_counters(world.sysctl, engine.st);
}

size_t world_next_packet(void *buf, size_t size, nsec_t *at)
{
    struct stack_cx cx;
    world_let_others();
    engine_enter(&cx);
    if (!link_has_packet())
        run_to(&cx, world.now + PATIENCE, true, NULL);
    const size_t len = link_take(buf, size, at);
    engine_leave(&cx);
    return len;
}

void world_clock_read(void)
{
    if (pthread_equal(pthread_self(), world.script) || !engine_running())
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    world.returning = false;
    pthread_cond_broadcast(&world.changed);
    engine_leave(&cx);
}

/* Whether every thread but the caller's sleeps in the kernel. */
static bool others_sleep(void)
{
    DIR *tasks = opendir("/proc/self/task");
    bool asleep = true;
    for (struct dirent *task; tasks != NULL && asleep && (task = readdir(tasks)) != NULL;) {
        const long tid = strtol(task->d_name, NULL, 10);
        if (tid <= 0 || tid == (long)gettid())
            continue;
        char path[64], state = 'S';
        snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", tid);
        FILE *f = fopen(path, "re");
        if (f == NULL)
            continue;
        if (fscanf(f, "%*d (%*[^)]) %c", &state) == 1)
            asleep = state == 'S';
        fclose(f);
    }
    if (tasks != NULL)
        closedir(tasks);
    return asleep;
}

void world_let_others(void)
{
    /* twice in a row: one look may meet it between two locks */
    for (int i = 0, asleep = 0; i < SETTLE_LOOKS && asleep < 2; i++) {
        asleep = others_sleep() ? asleep + 1 : 0;
        if (asleep < 2)
            nanosleep(&(struct timespec){.tv_nsec = SETTLE_NSEC}, NULL);
    }
}

/* ---- sleep.h ---- */

/* The script's own thread waits: time passes for it, and nothing else happens. */
static void sleep_of_script(struct stack_cx *cx, struct waiter *w, nsec_t deadline)
{
    const nsec_t latest = min_u64(deadline, world.now + PATIENCE);
    run_to(cx, latest, false, w);
    if (w->woken || world.now >= deadline)
        return;
    fprintf(stderr, "packetdrill_tcpshim: a call waits for something that never happens\n");
    exit(1);
}

int wait_sleep(struct stack_cx *cx, struct waiter *w, struct pollfd *fds, unsigned n,
               nsec_t deadline, const sigset_t *mask, struct reader *reader)
{
    (void)mask, (void)reader;
    for (unsigned i = 0; i < n; i++)
        fds[i].revents = 0; /* kernel descriptors do not take part in virtual time */
    if (w == NULL)
        abort();
    stack_flush(cx);
    if (pthread_equal(pthread_self(), world.script)) {
        sleep_of_script(cx, w, deadline);
    } else if (!w->woken && deadline > world.now) {
        world.sleeper = w;
        world.sleeper_deadline = deadline;
        world.returning = false;
        pthread_cond_broadcast(&world.changed);
        while (world.sleeper == w)
            pthread_cond_wait(&world.changed, &engine.sh->lock);
    }
    cx->now = world.now;
    waiter_unwatch(w, true);
    return 0;
}

struct sleep_signals sleep_signals_now(void)
{
    return (struct sleep_signals){0, 0};
}

int sleep_interrupted(const struct sleep_signals *since, bool restart)
{
    (void)since, (void)restart;
    return 0;
}

bool sleep_abandon(void)
{
    return false;
}

void sleep_end_now(void)
{
}

bool sleep_drain_due(const struct stack_cx *cx)
{
    (void)cx;
    return false;
}

void sleep_forget(struct waiter *w)
{
    waiter_unwatch(w, false);
}

void sleep_settle(struct stack_cx *cx)
{
    (void)cx;
}

void sleep_hand_over_to_others(struct shared *sh)
{
    (void)sh;
}

void sleep_check_driver(struct shared *sh)
{
    (void)sh;
}
