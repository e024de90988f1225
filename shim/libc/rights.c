/*
 * See rights.h. A process that gets a user socket and has no engine of its own joins the sender's
 * family (shim/life/handover.h). One that has another engine, or is not under the shim, gets a
 * kernel socket that is not connected: the rule trace of the sender says so.
 */
#define _GNU_SOURCE
#include "shim/libc/rights.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>

#include "shim/core/config.h"
#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/backing.h"
#include "shim/libc/call.h"
#include "shim/libc/real.h"
#include "shim/life/init.h"
#include "shim/life/transit.h"
#include "shim/link/diag.h"
#include "shim/watch/trace.h"

/* Calls visit for each descriptor in the message. */
static void each_right(const struct msghdr *msg, void (*visit)(int fd, void *arg), void *arg)
{
    struct msghdr m = *msg;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            c->cmsg_len < CMSG_LEN(sizeof(int)))
            continue;
        const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            visit(fd, arg);
        }
    }
}

/* The process at the other end of a unix socket, or who made the pair; 0: not known. */
static int peer_of(int fd)
{
    struct ucred cred = {.pid = 0};
    socklen_t len = sizeof(cred);
    (void)raw_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    return cred.pid;
}

/* ---- sending ---- */

static void put_in(int fd, void *arg)
{
    struct usock *us = fd_usock(fd);
    if (us == NULL)
        return;
    us->refs++;
    us->passing++;
    if (backing_own(us, fd) < 0)
        return; /* nobody will find it, and its file never goes */
    us->cookie = diag_cookie(fd);
    transit_begin(arg, fd, us);
}

static void take_out(int fd, void *arg)
{
    struct usock *us = fd_usock(fd);
    (void)arg;
    if (us == NULL || us->passing == 0)
        return;
    us->refs--; /* never the last: the descriptor is here */
    us->passing--;
}

static void count_ours(int fd, void *arg)
{
    *(unsigned *)arg += fd_usock(fd) != NULL;
}

static unsigned ours(const struct msghdr *msg)
{
    unsigned n = 0;
    if (engine_running())
        each_right(msg, count_ours, &n);
    return n;
}

static bool in_family(int pid)
{
    for (unsigned i = 0; i < engine.sh->processes_high; i++)
        if (process_counts(&engine.sh->processes[i]) && engine.sh->processes[i].pid == pid)
            return true;
    return false;
}

void rights_send(int fd, const struct msghdr *msg)
{
    struct stack_cx cx;
    if (likely(ours(msg) == 0))
        return;
    engine_enter(&cx);
    each_right(msg, put_in, &cx);
    const int peer = (config.trace & TRACE_RULE) != 0 ? peer_of(fd) : 0;
    const bool outside = peer > 0 && !in_family(peer);
    engine_leave(&cx);
    if (!outside)
        return;
    const uint64_t argv[] = {
        (uintptr_t) "sendmsg", true,
        (uintptr_t) "passed to a process that is not of this family: it has to join it or gets a "
                    "socket that is not connected"};
    trace_now(NULL, TRACE_EV_RULE, argv, ARRAY_LEN(argv));
}

void rights_unsend(const struct msghdr *msg)
{
    struct stack_cx cx;
    if (likely(ours(msg) == 0))
        return;
    engine_enter(&cx);
    each_right(msg, take_out, NULL);
    engine_leave(&cx);
}

/* ---- receiving ---- */

struct search {
    uint64_t cookie;
    struct usock *found;
};

static void match(void *object, void *arg)
{
    struct usock *us = object;
    struct search *s = arg;
    if (us->cookie == s->cookie)
        s->found = us;
}

struct arrival {
    int from;  /* the sender's pid; 0: not known */
    bool peek; /* the message stays, and so does what it holds */
};

static void adopt(int fd, bool peek)
{
    struct stack_cx cx;
    struct search s = {.cookie = diag_cookie(fd)};
    if (s.cookie == 0)
        return;
    engine_enter(&cx);
    pool_each(&engine.sh->usocks, match, &s);
    struct usock *us = s.found;
    if (us != NULL && us->kind != USOCK_KERNEL && (unsigned)fd < fd_limit) {
        if (hold_usock(fd, us) && us->passing > 0 && !peek) {
            us->passing--;
            us->refs--;
        }
    }
    engine_leave(&cx);
}

static bool is_tcp(int fd)
{
    int protocol = 0;
    socklen_t len = sizeof(protocol);
    return raw_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
           protocol == IPPROTO_TCP;
}

static void arrived(int fd, void *arg)
{
    const struct arrival *a = arg;
    if (fd_entry(fd) != 0)
        call_purge(fd);
    if (!is_tcp(fd))
        return;
    if (engine_running() || (a->from > 0 && engine_join(a->from)))
        adopt(fd, a->peek);
}

void rights_received(int fd, const struct msghdr *msg, int flags)
{
    const int saved = errno;
    struct arrival a = {.from = engine_running() ? 0 : peer_of(fd),
                        .peek = (flags & MSG_PEEK) != 0};
    each_right(msg, arrived, &a);
    errno = saved;
}

/* ---- pidfd_getfd(2) ---- */

/* The process behind a pidfd; 0: not known. */
static int pid_of(int pidfd)
{
    char path[48], text[512];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    const int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    const ssize_t n = fd >= 0 ? raw_read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        raw_close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *line = strstr(text, "\nPid:\t");
    return line != NULL ? atoi(line + 6) : 0;
}

/* Entered. What process pid has under the number. */
static struct usock *held_by(int pid, int number)
{
    for (unsigned i = 0; i < engine.sh->processes_high; i++) {
        struct process *p = &engine.sh->processes[i];
        if (!process_counts(p) || p->pid != pid)
            continue;
        list_for_each (n, &p->holds) {
            const struct hold *h = list_entry(n, struct hold, of_process);
            if (h->fd == number && h->us != NULL)
                return h->us;
        }
    }
    return NULL;
}

/* Descriptor fd was copied from that number of another process. */
static void copied(int fd, int pid, int number)
{
    struct stack_cx cx;
    if (pid <= 0 || !(engine_running() || engine_join(pid)))
        return;
    engine_enter(&cx);
    struct usock *us = held_by(pid, number);
    if (us != NULL && us->kind != USOCK_KERNEL && (unsigned)fd < fd_limit)
        (void)hold_usock(fd, us);
    engine_leave(&cx);
}

SHIM_EXPORT int pidfd_getfd(int pidfd, int number, unsigned flags)
{
    const int fd = (int)raw_syscall(SYS_pidfd_getfd, pidfd, number, flags, 0, 0, 0);
    if (fd < 0)
        return (int)call_result(fd);
    if (fd_entry(fd) != 0)
        call_purge(fd);
    const int saved = errno;
    if (!config.off && is_tcp(fd))
        copied(fd, pid_of(pidfd), number);
    errno = saved;
    return fd;
}
