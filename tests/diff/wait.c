/*
 * Waiting: threads that sleep in poll, select or epoll_wait while something happens; signal masks
 * with signals that are pending; an epoll set used by a child of fork().
 *
 * What a sleeper answers depends on the moment when it looks. The runner has one processor, and the
 * sleepers are known to sleep before anything happens to what they wait for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define SLEEPERS   3
#define EVENTS_MAX 16
#define SPAN_MS    40
#define LOOKS      200 /* for a sleeper to sleep, 100 us apart */

enum how { POLL, PPOLL, SELECT, PSELECT, EPOLL_WAIT, EPOLL_PWAIT2, WAYS };
static const char *const names[] = {"poll",    "ppoll",      "select",
                                    "pselect", "epoll_wait", "epoll_pwait2"};

/* One call. Answers are in the arrays, the result in r and err. */
struct waiting {
    enum how how;
    int timeout_ms;
    const sigset_t *mask;
    int fd; /* epoll */
    struct epoll_event events[EVENTS_MAX];
    int max;
    struct pollfd p[4]; /* poll and select */
    unsigned n, slots[4];
    int r, err;
    pthread_t thread;
    volatile pid_t tid; /* 0: not there yet; -1: it has returned */
};

/* ---- one call ---- */

static void select_once(struct waiting *c)
{
    fd_set sets[3];
    int high = -1;
    static const short kinds[] = {POLLIN, POLLOUT, POLLPRI};
    for (unsigned k = 0; k < 3; k++) {
        FD_ZERO(&sets[k]);
        for (unsigned i = 0; i < c->n; i++) {
            if ((c->p[i].events & kinds[k]) == 0)
                continue;
            FD_SET(c->p[i].fd, &sets[k]);
            high = c->p[i].fd > high ? c->p[i].fd : high;
        }
    }
    struct timeval tv = {.tv_usec = c->timeout_ms * 1000};
    const struct timespec ts = {.tv_nsec = c->timeout_ms * 1000000L};
    c->r = c->how == SELECT ? select(high + 1, &sets[0], &sets[1], &sets[2], &tv)
                            : pselect(high + 1, &sets[0], &sets[1], &sets[2], &ts, c->mask);
    c->err = errno;
    for (unsigned i = 0; i < c->n; i++) {
        c->p[i].revents = 0;
        for (unsigned k = 0; k < 3 && c->r > 0; k++)
            if (FD_ISSET(c->p[i].fd, &sets[k]))
                c->p[i].revents |= kinds[k];
    }
}

static void wait_once(struct waiting *c)
{
    const struct timespec ts = {.tv_nsec = c->timeout_ms * 1000000L};
    switch (c->how) {
    case POLL:
        c->r = poll(c->p, c->n, c->timeout_ms);
        break;
    case PPOLL:
        c->r = ppoll(c->p, c->n, &ts, c->mask);
        break;
    case EPOLL_WAIT:
        c->r = epoll_pwait(c->fd, c->events, c->max, c->timeout_ms, c->mask);
        break;
    case EPOLL_PWAIT2:
        c->r = epoll_pwait2(c->fd, c->events, c->max, &ts, c->mask);
        break;
    default:
        select_once(c);
        return;
    }
    c->err = errno;
}

static int by_id(const void *a, const void *b)
{
    const struct epoll_event *x = a, *y = b;
    return x->data.u64 < y->data.u64 ? -1 : x->data.u64 > y->data.u64;
}

static void say_answer(struct waiting *c)
{
    if (c->how >= EPOLL_WAIT) {
        if (c->r > 0)
            qsort(c->events, (size_t)c->r, sizeof(c->events[0]), by_id);
        for (int i = 0; i < c->r; i++) {
            say(" #%u:", (unsigned)c->events[i].data.u64);
            say_events(c->events[i].events);
        }
    } else {
        for (unsigned i = 0; i < c->n; i++) {
            say(" %s:", slot_name(c->slots[i]));
            say_events((uint16_t)c->p[i].revents);
        }
    }
    say_result(c->r, c->err);
}

/* Chooses what to wait for, and says so. False: there is nothing. */
static bool choose(struct world *w, struct waiting *c)
{
    c->how = pick(w, WAYS);
    c->max = EVENTS_MAX;
    c->mask = NULL;
    if (c->how >= EPOLL_WAIT) {
        const unsigned set = pick_slot(w, SLOT_SET, true);
        c->fd = w->slot[set].fd;
        /* Waiting, the shim asks the kernel's side of a busy set only now and then. */
        if (w->slot[set].mixed)
            c->timeout_ms = 0;
        say("%s(%s", names[c->how], slot_name(set));
        return c->fd >= 0;
    }
    static const short events[] = {POLLIN, POLLIN, POLLIN | POLLOUT, POLLPRI, POLLIN | POLLPRI};
    say("%s(", names[c->how]);
    c->n = 0;
    for (unsigned i = 1 + pick(w, 4); i > 0; i--) {
        const unsigned slot = once_in(w, 4)
                                  ? SOCKETS + SETS
                                  : pick_slot(w, once_in(w, 5) ? SLOT_SET : SLOT_SOCKET, true);
        const short wanted = events[pick(w, sizeof(events) / sizeof(events[0]))];
        if (w->slot[slot].fd < 0)
            continue;
        c->slots[c->n] = slot;
        c->p[c->n++] = (struct pollfd){.fd = w->slot[slot].fd, .events = wanted};
        say(" %s:", slot_name(slot));
        say_events((uint16_t)wanted);
    }
    return c->n != 0;
}

/* ---- sleepers ---- */

static void *sleeper_main(void *arg)
{
    struct waiting *c = arg;
    c->tid = gettid();
    wait_once(c);
    c->tid = -1;
    return NULL;
}

/* Until it sleeps, or has returned. */
static void until_asleep(const struct waiting *c)
{
    const struct timespec step = {.tv_nsec = 100000};
    unsigned seen = 0;
    for (unsigned i = 0; i < LOOKS && seen < 3 && c->tid != -1; i++) {
        char path[48], text[256] = "";
        nanosleep(&step, NULL);
        if (c->tid == 0)
            continue;
        snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)c->tid);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        (void)!read(fd, text, sizeof(text) - 1);
        close(fd);
        const char *after = strrchr(text, ')');
        seen = after != NULL && after[1] == ' ' && after[2] == 'S' ? seen + 1 : 0;
    }
}

/* Something that may concern a sleeper, also the close of what it waits for. */
static void something(struct world *w)
{
    static const enum {
        SEND,
        RECEIVE,
        END,
        PIPE,
        CHANGE,
        CONNECT,
        CLOSE
    } all[] = {SEND, SEND, SEND, RECEIVE, END, PIPE, CHANGE, CHANGE, CONNECT, CONNECT, CLOSE};
    unsigned slot;
    switch (all[pick(w, sizeof(all) / sizeof(all[0]))]) {
    case SEND:
        data_operations[0].run(w);
        break;
    case RECEIVE:
        data_operations[1].run(w);
        break;
    case END:
        life_shutdown(w);
        break;
    case PIPE:
        slot = SOCKETS + SETS + 1;
        say("write(P1)");
        const long r = w->slot[slot].fd >= 0 ? write(w->slot[slot].fd, "x", 1) : -1;
        say_result(r, r < 0 ? EBADF : 0);
        break;
    case CHANGE:
        ready_change(w);
        break;
    case CONNECT:
        life_pair(w);
        break;
    default:
        slot = pick_slot(w, SLOT_SOCKET, true);
        slot_close(w, slot);
        break;
    }
}

static int by_answer(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    return x->r != y->r ? (x->r < y->r ? 1 : -1) : x->r > 0 ? by_id(x->events, y->events) : 0;
}

static void op_sleep(struct world *w)
{
    static struct waiting c[SLEEPERS];
    memset(c, 0, sizeof(c));
    c[0].timeout_ms = SPAN_MS;
    if (!choose(w, &c[0])) {
        say("): nothing to wait for\n");
        return;
    }
    const unsigned n = c[0].how >= EPOLL_WAIT && once_in(w, 2) ? 2 + pick(w, SLEEPERS - 1) : 1;
    say(") in %u threads\n", n);
    for (unsigned i = 0; i < n; i++) {
        c[i] = c[0];
        c[i].tid = 0;
        if (pthread_create(&c[i].thread, NULL, sleeper_main, &c[i]) != 0)
            exit(3);
        until_asleep(&c[i]);
    }
    if (c[n - 1].tid != -1) {
        w->sleepers = true;
        something(w);
        w->sleepers = false;
    }
    settle(w);
    for (unsigned i = 0; i < n; i++)
        pthread_join(c[i].thread, NULL);
    qsort(c, n, sizeof(c[0]), by_answer);
    for (unsigned i = 0; i < n; i++) {
        say("  answer");
        say_answer(&c[i]);
    }
}

/* ---- masks ---- */

static volatile int caught;

static void on_signal(int number)
{
    (void)number;
    caught++;
}

/* A signal is pending, blocked by the thread's mask and perhaps allowed by the call's. */
static void op_masked(struct world *w)
{
    struct waiting c = {.timeout_ms = PICK(w, 0, 0, 3)};
    sigset_t open, blocked, before;
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    sigprocmask(SIG_BLOCK, NULL, &open);
    const bool allowed = !once_in(w, 3), pending = !once_in(w, 4);
    if (allowed)
        sigdelset(&open, SIGUSR1);
    caught = 0;
    if (choose(w, &c)) {
        if (pending)
            raise(SIGUSR1);
        c.mask = &open;
        say("), %s%s, %d ms", pending ? "a signal" : "no signal", allowed ? "" : ", blocked",
            c.timeout_ms);
        wait_once(&c);
        say(": %d handlers", caught);
        say_answer(&c);
    } else {
        say(")\n");
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    say("  then %d handlers\n", caught);
}

/* ---- fork ---- */

static void op_fork(struct world *w)
{
    int ends[2];
    char text[4096];
    say("fork\n");
    if (pipe2(ends, O_CLOEXEC) < 0)
        exit(3);
    log_flush();
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        for (unsigned i = 0; i < 4; i++)
            ready_look(w);
        log_flush();
        _exit(0);
    }
    for (unsigned i = 0; i < 4; i++) /* the same numbers are drawn here */
        (void)pick(w, 2);
    close(ends[1]);
    ssize_t n;
    while ((n = read(ends[0], text, sizeof(text))) > 0)
        say("%.*s", (int)n, text);
    close(ends[0]);
    int status = -1;
    waitpid(pid, &status, 0);
    say("child ended with %d\n", status);
    settle(w);
}

const struct operation wait_operations[] = {
    {2, op_sleep},
    {6, op_masked},
    {2, op_fork},
    {0, NULL},
};
