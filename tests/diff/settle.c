/*
 * Waiting until nothing is under way, and looking.
 *
 * The kernel handles loopback frames of one processor in order (its backlog queue), mostly before
 * the sending call returns, but later under load. A datagram that the runner sends to itself goes
 * through the same queue: when it is there, so is everything that was sent before. A few of them in
 * a row cover the answers to the answers. What waits for a timer (a delayed ACK of a FIN, Nagle) is
 * awaited by its visible effect.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

enum { /* include/net/tcp_states.h */
       ESTABLISHED = 1,
       SYN_SENT,
       SYN_RECV,
       FIN_WAIT1,
       FIN_WAIT2,
       TIME_WAIT,
       CLOSED,
       CLOSE_WAIT,
       LAST_ACK,
       LISTEN,
       CLOSING,
};
static const char *const state_names[] = {"?",      "ESTAB",   "SYNSENT", "SYNRECV",
                                          "FINW1",  "FINW2",   "TIMEW",   "CLOSE",
                                          "CLOSEW", "LASTACK", "LISTEN",  "CLOSING"};

#define ROUNDS     4
#define WAIT_STEPS 120 /* of half a millisecond: longer than a delayed ACK */

static void barrier(const struct world *w)
{
    char byte = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        if (send(w->barrier, &byte, 1, 0) == 1)
            (void)!recv(w->barrier, &byte, 1, 0);
}

static bool under_way(const struct world *w)
{
    for (unsigned i = 0; i < SOCKETS; i++) {
        const int fd = w->slot[i].fd;
        if (fd < 0)
            continue;
        const int state = tcp_state_of(fd);
        if (state == FIN_WAIT1 || state == CLOSING || state == LAST_ACK)
            return true;
        int unsent = 0;
        if ((state == ESTABLISHED || state == CLOSE_WAIT) && !w->corked &&
            ioctl(fd, SIOCOUTQNSD, &unsent) == 0 && unsent != 0)
            return true;
    }
    return false;
}

void settle(struct world *w)
{
    barrier(w);
    for (unsigned i = 0; i < WAIT_STEPS && under_way(w); i++) {
        const struct timespec step = {.tv_nsec = 500000};
        nanosleep(&step, NULL);
        barrier(w);
    }
}

static void observe_socket(struct world *w, unsigned slot)
{
    struct slot *s = &w->slot[slot];
    struct pollfd p = {.fd = s->fd,
                       .events = POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | POLLWRNORM |
                                 POLLWRBAND | POLLRDHUP};
    poll(&p, 1, 0);
    const int state = tcp_state_of(s->fd);
    int unread = -1, mark = -1;
    if (ioctl(s->fd, FIONREAD, &unread) < 0)
        unread = -errno;
    if (ioctl(s->fd, SIOCATMARK, &mark) < 0)
        mark = -errno;
    char now[STATE_TEXT];
    snprintf(now, sizeof(now), "%d %#x %d %d", state, (unsigned)(uint16_t)p.revents, unread, mark);
    if (strcmp(now, s->seen) == 0)
        return;
    memcpy(s->seen, now, sizeof(now));
    say("    %s %s ", slot_name(slot), state > 0 && state <= CLOSING ? state_names[state] : "-");
    say_events((uint16_t)p.revents);
    if (unread != 0)
        say(" unread %d", unread);
    if (mark != 0)
        say(" mark %d", mark);
    say("\n");
}

void observe(struct world *w)
{
    for (unsigned i = 0; i < SOCKETS; i++)
        if (w->slot[i].fd >= 0)
            observe_socket(w, i);
}
