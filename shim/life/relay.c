/*
 * The relay is a grandchild by two forks, so that the image has no child that it does not know of;
 * the SIGCHLD of the first is taken here. It waits until the pipe `commit` is closed, by exec.
 */
#define _GNU_SOURCE
#include "shim/life/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <paths.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/life/environment.h"
#include "shim/life/service.h"

#define PROGRAM "tcpshim-relay"
/* The relay's descriptors are gathered from here on. */
#define FD_GATHER 16

struct crew {
    unsigned n;
    const struct usock *us[RELAYS_MAX];
    int socket[RELAYS_MAX];  /* a descriptor of it */
    int pair[RELAYS_MAX][2]; /* the image's end, the relay's */
};

static bool inherited_connection(int fd)
{
    const struct usock *us = fd_usock(fd);
    return us != NULL && us->kind == USOCK_CONN && (raw_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) == 0;
}

static int crew_find(const struct crew *c, const struct usock *us)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->us[i] == us)
            return (int)i;
    return -1;
}

/* Whom there is to relay for. */
static void muster(struct crew *c)
{
    c->n = 0;
    for (unsigned fd = 0; fd < fd_high() && c->n < RELAYS_MAX; fd++) {
        if (!inherited_connection((int)fd) || crew_find(c, fd_usock((int)fd)) >= 0)
            continue;
        if (raw_syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, (long)c->pair[c->n],
                        0, 0) < 0)
            return;
        c->us[c->n] = fd_usock((int)fd);
        c->socket[c->n++] = (int)fd;
    }
}

/* ---- the relay, before it is that ---- */

static _Noreturn void become_relay(const char *program, const struct crew *c, int commit)
{
    static char words[2 * RELAYS_MAX + 1][12];
    static char *argv[2 * RELAYS_MAX + 3] = {(char *)PROGRAM};
    const sigset_t none = {0};
    int fds[2 * RELAYS_MAX + 1], high = FD_GATHER;
    fds[0] = fcntl(commit, F_DUPFD, FD_GATHER);
    for (unsigned i = 0; i < c->n; i++) {
        fds[1 + 2 * i] = fcntl(c->socket[i], F_DUPFD, FD_GATHER);
        fds[2 + 2 * i] = fcntl(c->pair[i][1], F_DUPFD, FD_GATHER);
    }
    for (unsigned i = 0; i < 2 * c->n + 1; i++) {
        if (fds[i] < 0)
            _exit(1);
        snprintf(words[i], sizeof(words[i]), "%d", fds[i]);
        argv[i + 1] = words[i];
        high = fds[i] > high ? fds[i] : high;
    }
    for (int fd = 0; fd <= high; fd++) {
        bool ours = false;
        for (unsigned i = 0; i < 2 * c->n + 1; i++)
            ours |= fds[i] == fd;
        if (!ours)
            close(fd);
    }
    close_range((unsigned)high + 1, UINT_MAX, 0);
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        (void)!open(_PATH_DEVNULL, O_RDWR);
    setsid();
    (void)!chdir("/");
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            real.signal(sig, SIG_DFL);
    real.sigprocmask(SIG_SETMASK, &none, NULL);
    char *const env[] = {NULL};
    execve(program, argv, env);
    _exit(1);
}

static bool take_sigchld(bool was_pending)
{
    const uint64_t set = 1ull << (SIGCHLD - 1);
    const struct timespec none = {0};
    return was_pending ||
           raw_syscall(SYS_rt_sigtimedwait, (long)&set, 0, (long)&none, sizeof(set), 0, 0) > 0;
}

/* Signals are blocked. False: it could not be started. */
static bool give_birth(const char *program, const struct crew *c, int commit)
{
    uint64_t pending = 0;
    int status = -1;
    raw_syscall(SYS_rt_sigpending, (long)&pending, sizeof(pending), 0, 0, 0, 0);
    service_put_off(true);
    const pid_t child = _Fork();
    if (child == 0) {
        const pid_t relay = _Fork();
        if (relay == 0)
            become_relay(program, c, commit);
        _exit(relay < 0);
    }
    service_put_off(false);
    if (child < 0)
        return false;
    while (raw_syscall(SYS_wait4, child, (long)&status, 0, 0, 0, 0) == -EINTR)
        ;
    take_sigchld((pending >> (SIGCHLD - 1) & 1) != 0);
    return status == 0;
}

/* ---- the image's side ---- */

static void replace(struct relay_plan *plan, const struct crew *c)
{
    for (unsigned fd = 0; fd < fd_high() && plan->n < RELAYS_MAX; fd++) {
        const int i = inherited_connection((int)fd) ? crew_find(c, fd_usock((int)fd)) : -1;
        if (i < 0)
            continue;
        const int flags = fcntl((int)fd, F_GETFL);
        const int saved = fcntl((int)fd, F_DUPFD_CLOEXEC, FD_GATHER);
        if (saved < 0)
            continue;
        fcntl(c->pair[i][0], F_SETFL, flags & O_NONBLOCK);
        dup2(c->pair[i][0], (int)fd);
        plan->fds[plan->n].fd = (int)fd;
        plan->fds[plan->n++].saved = saved;
    }
}

void relay_start(struct relay_plan *plan)
{
    char program[PATH_MAX];
    struct crew c;
    int commit[2];
    plan->n = 0;
    plan->commit = -1;
    if (!environment_beside(PROGRAM, program, sizeof(program)))
        return;
    muster(&c);
    if (c.n == 0)
        return;
    if (raw_syscall(SYS_pipe2, (long)commit, O_CLOEXEC, 0, 0, 0, 0) == 0) {
        const uint64_t all = UINT64_MAX;
        uint64_t before;
        raw_sigprocmask(SIG_SETMASK, &all, &before);
        if (give_birth(program, &c, commit[0])) {
            plan->commit = commit[1];
            replace(plan, &c);
        } else {
            raw_close(commit[1]);
        }
        raw_sigprocmask(SIG_SETMASK, &before, NULL);
        raw_close(commit[0]);
    }
    for (unsigned i = 0; i < c.n; i++) {
        raw_close(c.pair[i][0]);
        raw_close(c.pair[i][1]);
    }
}

void relay_cancel(struct relay_plan *plan)
{
    if (plan->commit < 0)
        return;
    raw_write(plan->commit, "", 1);
    raw_close(plan->commit);
    for (unsigned i = 0; i < plan->n; i++) {
        dup2(plan->fds[i].saved, plan->fds[i].fd);
        close(plan->fds[i].saved);
    }
    plan->commit = -1;
}
