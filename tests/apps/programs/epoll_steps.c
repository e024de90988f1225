/*
 * What an event of epoll costs with few and with many sockets in the set, in instructions, which
 * are the same on a busy machine. Argument: how many. Prints the cost of sending a byte, being told
 * and reading it, with 50 connections and with all; both ends of all are in the process.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "pair.h"

#define FEW    50
#define ROUNDS 4
/* A round that takes more is not counted further: the timers of thousands of connections ran in it.
 */
#define STEPS_MAX 30000

static void mark(void)
{
    raise(SIGUSR1); /* stops for the parent, who takes it away */
}

static void one_event(int set, const int pair[2])
{
    struct epoll_event event;
    char byte = 'x';
    must(send(pair[0], &byte, 1, 0) == 1, "send");
    must(epoll_wait(set, &event, 1, 5000) == 1 && event.data.fd == pair[1], "epoll_wait");
    must(recv(pair[1], &byte, 1, 0) == 1, "recv");
}

static void watched(unsigned count)
{
    struct sockaddr_in at;
    const int listener = listen_somewhere(&at, 64), set = epoll_create1(0);
    int pair[2] = {-1, -1};
    unsigned made = 0;
    while (made < count) {
        const unsigned until = made < FEW ? FEW : count;
        for (; made < until; made++) {
            connect_pair(listener, &at, pair);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = pair[1]};
            must(epoll_ctl(set, EPOLL_CTL_ADD, pair[1], &event) == 0, "epoll_ctl");
        }
        one_event(set, pair);
        for (unsigned i = 0; i < ROUNDS; i++) {
            mark();
            one_event(set, pair);
            mark();
        }
    }
    exit(0);
}

/* To the child's next signal; how many instructions it took when they are counted. */
static unsigned long go_on(pid_t pid, bool step)
{
    int status;
    for (unsigned long steps = 0;; steps++) {
        step &= steps < STEPS_MAX;
        must(ptrace(step ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, NULL, NULL) == 0, "ptrace");
        must(waitpid(pid, &status, __WALL) == pid, "waitpid");
        must(WIFSTOPPED(status), "the child ended");
        if (WSTOPSIG(status) == SIGUSR1)
            return steps;
        must(WSTOPSIG(status) == SIGTRAP, "the child stopped");
    }
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    /* both ends, and a guard for the port of one */
    const unsigned most = (unsigned)(limit.rlim_max / 3 - 100);
    const unsigned asked = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
    const pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        mark();
        watched(asked < most ? asked : most);
    }
    int status;
    must(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status), "the child");
    for (unsigned set = 0; set < 2; set++) {
        unsigned long least = ~0ul;
        for (unsigned i = 0; i < ROUNDS; i++) {
            go_on(pid, false);
            const unsigned long steps = go_on(pid, true);
            least = steps < least ? steps : least;
        }
        printf("%lu%c", least, set == 0 ? ' ' : '\n');
    }
    kill(pid, SIGKILL);
    return 0;
}
