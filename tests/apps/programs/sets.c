/*
 * Epoll sets: nested ones whose inner number is closed before either has a TCP socket, or whose
 * inner one is watched for edges, sets that processes share by fork and that get their first TCP
 * socket in one of them, kernel descriptors in a set that is always busy. Says the same on every
 * stack.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

#define LONG_MS 20000

static int add(int set, int fd, unsigned id)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = id};
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

/* The id of the one event that there is, 0: none. */
static unsigned one(int set, int ms)
{
    struct epoll_event event = {0};
    const int n = epoll_wait(set, &event, 1, ms);
    return n == 1 ? event.data.u32 : n < 0 ? 999 : 0;
}

static void moment(void)
{
    const struct timespec span = {.tv_nsec = 50000000};
    nanosleep(&span, NULL);
}

static void nested(const char *what, int reuse)
{
    const int outer = epoll_create1(0), inner = epoll_create1(0);
    int ends[2];
    add(outer, inner, 5);
    const int alias = dup(inner);
    close(inner);
    const int other = reuse ? open("/dev/null", O_RDONLY) : -1;
    make_pair(ends);
    add(alias, ends[1], 7);
    printf("%s: before %u", what, one(outer, 0));
    (void)!write(ends[0], "x", 1);
    printf(" outer %u", one(outer, LONG_MS));
    printf(" inner %u\n", one(alias, LONG_MS));
    close(alias);
    printf("%s: closed %u\n", what, one(outer, 0));
    close(outer);
    close(other);
    close(ends[0]);
    close(ends[1]);
}

/* What an inner set leaves to the next call is no further edge for the set around it. */
static void left_over(void)
{
    const int outer = epoll_create1(0), inner = epoll_create1(0);
    struct epoll_event edge = {.events = EPOLLIN | EPOLLET, .data.u32 = 5};
    int a[2], b[2];
    make_pair(a);
    make_pair(b);
    add(inner, a[1], 7);
    add(inner, b[1], 7);
    epoll_ctl(outer, EPOLL_CTL_ADD, inner, &edge);
    (void)!write(a[0], "x", 1);
    (void)!write(b[0], "x", 1);
    printf("left over: inner %u", one(inner, LONG_MS));
    printf(" %u", one(inner, LONG_MS));
    while (one(outer, 0) != 0)
        ;
    printf(" %u", one(inner, 0));
    printf(" outer %u\n", one(outer, 0));
    close(outer);
    close(inner);
    for (unsigned i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

/* The child adds, the parent waits, or sleeps already. */
static void child_adds(const char *what, int asleep)
{
    const int set = epoll_create1(0);
    int ends[2], ready[2];
    if (pipe(ready) < 0)
        exit(1);
    const pid_t pid = fork();
    if (pid == 0) {
        if (asleep)
            moment();
        make_pair(ends);
        const int r = add(set, ends[1], 11);
        (void)!write(ready[1], "r", 1);
        if (asleep)
            moment();
        (void)!write(ends[0], "x", 1);
        pause();
        _exit(r);
    }
    char byte;
    if (!asleep)
        (void)!read(ready[0], &byte, 1);
    printf("%s: the parent hears %u", what, one(set, LONG_MS));
    printf(", and again %u\n", one(set, LONG_MS));
    add(set, ready[0], 12);
    (void)!write(ready[1], "r", 1);
    unsigned seen = 0;
    for (unsigned i = 0; i < 100 && seen != 3; i++)
        seen |= one(set, LONG_MS) == 12 ? 2 : 1;
    printf("%s: the socket and the pipe %u\n", what, seen);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    for (unsigned i = 0; i < 200 && one(set, 0) != 0; i++)
        moment();
    printf("%s: the child is dead %u\n", what, one(set, 0));
    close(set);
}

/* The parent adds, the child waits, or sleeps already. */
static void parent_adds(const char *what, int asleep)
{
    const int set = epoll_create1(0);
    int ends[2], ready[2], status = -1;
    if (pipe(ready) < 0)
        exit(1);
    const pid_t pid = fork();
    if (pid == 0) {
        char byte;
        if (!asleep)
            (void)!read(ready[0], &byte, 1);
        const unsigned id = one(set, LONG_MS);
        _exit(id == one(set, LONG_MS) ? (int)id : 77);
    }
    if (asleep)
        moment();
    make_pair(ends);
    add(set, ends[1], 21);
    (void)!write(ready[1], "r", 1);
    if (asleep)
        moment();
    (void)!write(ends[0], "x", 1);
    waitpid(pid, &status, 0);
    printf("%s: the child heard %d\n", what, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    printf("%s: the parent hears %u\n", what, one(set, LONG_MS));
    close(set);
    close(ends[0]);
    close(ends[1]);
    close(ready[0]);
    close(ready[1]);
}

/* A set that always has events of a socket: how many calls until a pipe is told, too? */
static void busy(void)
{
    const int set = epoll_create1(0);
    int ends[2], ready[2];
    if (pipe(ready) < 0)
        exit(1);
    make_pair(ends);
    add(set, ends[1], 1);
    add(set, ready[0], 2);
    (void)!write(ends[0], "x", 1);
    one(set, LONG_MS);
    unsigned worst = 0;
    for (unsigned round = 0; round < 50; round++) {
        struct epoll_event events[4];
        char byte;
        unsigned calls = 0, told = 0;
        (void)!write(ready[1], "r", 1);
        while (!told && calls < 100000) {
            const int n = epoll_wait(set, events, 4, 0);
            calls++;
            for (int i = 0; i < n; i++)
                told |= events[i].data.u32 == 2;
        }
        worst = calls > worst ? calls : worst;
        (void)!read(ready[0], &byte, 1);
    }
    printf("busy: told %s\n", worst <= 8 ? "in time" : "late");
    close(set);
    close(ends[0]);
    close(ends[1]);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    int ends[2];
    setvbuf(stdout, NULL, _IONBF, 0);
    nested("nested", 0);
    nested("nested, number used again", 1);
    make_pair(ends); /* processes that are forked from here on are a family */
    child_adds("child adds", 0);
    child_adds("child adds, parent asleep", 1);
    parent_adds("parent adds", 0);
    parent_adds("parent adds, child asleep", 1);
    left_over();
    busy();
    return 0;
}
