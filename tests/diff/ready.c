/*
 * Readiness: poll, select, and epoll in all its modes.
 *
 * The order in which a set gives its events is that in which they came (fs/eventpoll.c keeps a
 * list, level-triggered members go to its end). It is compared for sets of TCP sockets. A set that
 * also has pipes, other sets or sockets that the shim leaves to the kernel is two sets for the
 * shim: there each event is compared, but not the order (which epoll(7) does not promise).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define EVENTS_MAX 32

/* ---- poll ---- */

static short some_events(struct world *w)
{
    return (short)PICK(w, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLIN | POLLPRI, POLLRDHUP,
                       POLLIN | POLLRDHUP, 0, POLLRDNORM, POLLWRNORM | POLLRDBAND, POLLPRI, -1);
}

static void op_poll(struct world *w)
{
    struct pollfd p[6];
    unsigned slots[6];
    const unsigned n = 1 + pick(w, 6);
    say("poll");
    for (unsigned i = 0; i < n; i++) {
        slots[i] = once_in(w, 3) ? pick(w, SLOTS) : pick_slot(w, SLOT_SOCKET, true);
        p[i] = (struct pollfd){.fd = fd_of(w, slots[i]), .events = some_events(w), .revents = 0x55};
    }
    const struct timespec none = {0};
    const int how = PICK(w, 0, 0, 1);
    const int r = how == 0 ? poll(p, n, 0) : ppoll(p, n, &none, NULL);
    const int err = errno;
    for (unsigned i = 0; i < n; i++) {
        say(" %s(", slot_name(slots[i]));
        say_events((uint16_t)p[i].events);
        say("):");
        say_events((uint16_t)p[i].revents);
    }
    say_result(r, err);
}

/* ---- select ---- */

static void op_select(struct world *w)
{
    fd_set sets[3];
    bool used[3], asked[SLOTS] = {false};
    int high = -1;
    for (unsigned k = 0; k < 3; k++) {
        FD_ZERO(&sets[k]);
        used[k] = !once_in(w, 4);
        for (unsigned i = 0; i < SLOTS; i++) {
            const bool wanted = once_in(w, 3);
            const int fd = once_in(w, 100) ? fd_of(w, i) : w->slot[i].fd;
            if (!wanted || !used[k] || fd < 0)
                continue;
            FD_SET(fd, &sets[k]);
            asked[i] = true;
            high = fd > high ? fd : high;
        }
    }
    int nfds = high + 1;
    if (once_in(w, 10) && nfds > 0)
        nfds -= 1 + (int)pick(w, 3);
    if (once_in(w, 30))
        nfds = -1;
    struct timeval none = {0, 0};
    const struct timespec none_ts = {0, 0};
    fd_set *given[3];
    for (unsigned k = 0; k < 3; k++)
        given[k] = used[k] ? &sets[k] : NULL;
    const int r = once_in(w, 2) ? select(nfds, given[0], given[1], given[2], &none)
                                : pselect(nfds, given[0], given[1], given[2], &none_ts, NULL);
    const int err = errno;
    say("select(%d slots)", nfds < 0 ? -1 : high + 1 - nfds);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!asked[i] || w->slot[i].fd < 0)
            continue;
        say(" %s", slot_name(i));
        for (unsigned k = 0; k < 3; k++)
            if (used[k] && FD_ISSET(w->slot[i].fd, &sets[k]))
                say("%c", "rwx"[k]);
    }
    say_result(r, err);
}

/* ---- epoll ---- */

void ready_set(struct world *w)
{
    const unsigned slot = slot_for_new(w, SLOT_SET);
    const int fd = once_in(w, 3) ? epoll_create(5) : epoll_create1(EPOLL_CLOEXEC);
    const int err = errno;
    slot_open(w, slot, fd);
    say("epoll_create as %s", slot_name(slot));
    say_result(fd, err);
}

/* A set, made when there is none; once in `rarity` one that is closed. */
static unsigned some_set(struct world *w, unsigned rarity)
{
    const unsigned set = pick_slot(w, SLOT_SET, true);
    if (w->slot[set].fd < 0)
        ready_set(w);
    return pick_slot(w, SLOT_SET, !once_in(w, rarity));
}

static uint32_t some_epoll_events(struct world *w, bool exclusive_too)
{
    static const uint32_t interest[] = {
        EPOLLIN,
        EPOLLIN,
        EPOLLOUT,
        EPOLLIN | EPOLLOUT,
        EPOLLIN | EPOLLRDHUP,
        EPOLLRDHUP,
        EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI,
        EPOLLPRI,
        0,
        EPOLLRDNORM,
        EPOLLWRNORM,
        EPOLLHUP | EPOLLERR,
    };
    uint32_t events = interest[pick(w, sizeof(interest) / sizeof(interest[0]))];
    if (once_in(w, 2))
        events |= EPOLLET;
    if (once_in(w, 6))
        events |= EPOLLONESHOT;
    if (exclusive_too && once_in(w, 16))
        events |= EPOLLEXCLUSIVE;
    return events;
}

/* The set has members of both kinds from now on. */
static void mix(struct world *w, unsigned file)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (w->slot[i].file == file)
            w->slot[i].mixed = true;
}

static void say_ctl(struct world *w, unsigned set, int op, unsigned slot)
{
    static const char *const names[] = {"?", "ADD", "DEL", "MOD"};
    const bool tcp = slot < SOCKETS && !w->slot[slot].apart;
    const unsigned id = ++w->registered;
    struct epoll_event event = {.events = some_epoll_events(w, op != EPOLL_CTL_DEL),
                                .data.u64 = id};
    if (kind_of(slot) == SLOT_SET && (event.events & EPOLLRDNORM) != 0)
        event.events |= EPOLLIN; /* Linux wakes a set's outer set with EPOLLIN alone */
    say("epoll_ctl(%s, %s, %s, ", slot_name(set), op >= 1 && op <= 3 ? names[op] : "bad",
        slot_name(slot));
    if (op != EPOLL_CTL_DEL) {
        say_events(event.events);
        say(" #%u", id);
    }
    say(")");
    const int r = epoll_ctl(fd_of(w, set), op, fd_of(w, slot), &event);
    const int err = errno;
    if (r == 0 && op != EPOLL_CTL_DEL && !tcp)
        mix(w, w->slot[set].file);
    say_result(r, err);
}

static void op_ctl(struct world *w)
{
    const unsigned set = some_set(w, 40);
    const int op = PICK(w, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD,
                        EPOLL_CTL_MOD, EPOLL_CTL_DEL);
    unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    if (once_in(w, 8))
        slot = SOCKETS + SETS + pick(w, PIPES);
    else if (once_in(w, 12))
        slot = pick_slot(w, SLOT_SET, true);
    say_ctl(w, set, once_in(w, 100) ? 77 : op, slot);
}

void ready_change(struct world *w)
{
    op_ctl(w);
}

/* Most sockets of the script into a set, that many events come at once. */
static void op_ctl_all(struct world *w)
{
    const unsigned set = some_set(w, 1000);
    for (unsigned i = 0; i < SOCKETS; i++)
        if (w->slot[i].fd >= 0 && !once_in(w, 4))
            say_ctl(w, set, EPOLL_CTL_ADD, i);
}

static int by_id(const void *a, const void *b)
{
    const struct epoll_event *x = a, *y = b;
    return x->data.u64 < y->data.u64 ? -1 : x->data.u64 > y->data.u64;
}

static void op_wait(struct world *w)
{
    const unsigned set = some_set(w, 60);
    const struct slot *s = &w->slot[set];
    struct epoll_event events[EVENTS_MAX];
    int max = PICK(w, 1, 1, 2, 3, EVENTS_MAX, EVENTS_MAX, EVENTS_MAX);
    if (s->mixed)
        max = EVENTS_MAX;
    if (once_in(w, 60))
        max = PICK(w, 0, -1);
    const int how = PICK(w, 0, 0, 1, 2);
    /* Waiting, the shim asks the kernel's side of a busy set only now and then. */
    const int timeout = once_in(w, 40) && !s->mixed ? 2 : 0;
    const struct timespec span = {.tv_nsec = timeout * 1000000L};
    const int fd = fd_of(w, set);
    say("epoll_wait(%s, %d)", slot_name(set), max);
    const int r = how == 0   ? epoll_wait(fd, events, max, timeout)
                  : how == 1 ? epoll_pwait(fd, events, max, timeout, NULL)
                             : epoll_pwait2(fd, events, max, &span, NULL);
    const int err = errno;
    if (r > 0 && s->mixed)
        qsort(events, (size_t)r, sizeof(events[0]), by_id);
    for (int i = 0; i < r; i++) {
        say(" #%u:", (unsigned)events[i].data.u64);
        say_events(events[i].events);
    }
    say_result(r, err);
}

void ready_look(struct world *w)
{
    static void (*const looks[])(struct world *) = {op_wait, op_wait, op_poll, op_select};
    looks[pick(w, 4)](w);
}

/* ---- kernel descriptors among them ---- */

static void op_pipe(struct world *w)
{
    const unsigned first = SOCKETS + SETS;
    int ends[2];
    char bytes[8] = {0};
    long r;
    if (w->slot[first].fd < 0 && w->slot[first + 1].fd < 0) {
        say("pipe");
        r = pipe2(ends, O_NONBLOCK | O_CLOEXEC);
        const int err = errno;
        if (r == 0) {
            slot_open(w, first, ends[0]);
            slot_open(w, first + 1, ends[1]);
        }
        say_result(r, err);
        return;
    }
    switch (pick(w, 4)) {
    case 0:
    case 1:
        say("write(P1)");
        r = write(fd_of(w, first + 1), bytes, 3);
        break;
    case 2:
        say("read(P0)");
        r = read(fd_of(w, first), bytes, sizeof(bytes));
        break;
    default: {
        const unsigned slot = first + pick(w, 2);
        if (once_in(w, 2))
            slot_close(w, slot);
        return;
    }
    }
    say_result(r, errno);
}

const struct operation ready_operations[] = {
    {5, op_poll},    {4, op_select}, {3, ready_set}, {12, op_ctl},
    {2, op_ctl_all}, {18, op_wait},  {3, op_pipe},   {0, NULL},
};
