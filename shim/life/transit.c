#define _GNU_SOURCE
#include "shim/life/transit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/service.h"

#define FIRST_LOOK (100 * NSEC_PER_MSEC)
#define LAST_LOOK  (2 * NSEC_PER_SEC)
#define BATCH      32 /* sockets in one look */

/* A child of fork() has the set, too, and goes on looking. */
static struct {
    int set;        /* 0: not made yet */
    uint32_t token; /* says which set has a socket's file */
    nsec_t due;     /* (atomic) */
    nsec_t pace;
    unsigned first; /* of the candidates: the next look's */
} transit = {.due = NSEC_NEVER};

static void make_set(const struct stack_cx *cx)
{
    const int fd = (int)raw_syscall(SYS_epoll_create1, EPOLL_CLOEXEC, 0, 0, 0, 0, 0);
    if (fd < 0)
        return;
    transit.set = fd_make_internal(fd);
    transit.token = (uint32_t)cx->now << 12 | (process_number() & 0xfff) | 1;
}

void transit_begin(struct stack_cx *cx, int fd, struct usock *us)
{
    if (transit.set == 0 && !engine.sandboxed)
        make_set(cx);
    struct epoll_event event = {.events = 0, .data.u64 = us->cookie};
    us->transit = 0;
    us->transit_asked = false;
    if (transit.set == 0)
        return;
    const long r = raw_syscall(SYS_epoll_ctl, transit.set, EPOLL_CTL_ADD, fd, (long)&event, 0, 0);
    if (r < 0 && r != -EEXIST)
        return;
    us->transit = transit.token;
    transit.pace = FIRST_LOOK;
    __atomic_store_n(&transit.due, cx->now + FIRST_LOOK, __ATOMIC_RELAXED);
    service_look_again();
}

nsec_t transit_due(void)
{
    return __atomic_load_n(&transit.due, __ATOMIC_RELAXED);
}

/* ---- a look ---- */

struct look {
    unsigned n, found, skip;
    bool under_way; /* messages of this set, whether or not there are descriptors beside them */
    struct {
        struct usock *us;
        uint64_t cookie;
        bool lives;
    } asked[BATCH];
};

/* A socket that nobody holds but messages. */
static void choose(void *object, void *arg)
{
    struct usock *us = object;
    struct look *l = arg;
    if (us->passing == 0 || us->transit != transit.token)
        return;
    l->under_way = true;
    if (us->refs != us->passing || us->calls != 0 || l->found++ < l->skip || l->n == BATCH)
        return;
    us->transit_asked = true;
    l->asked[l->n].us = us;
    l->asked[l->n].lives = false;
    l->asked[l->n++].cookie = us->cookie;
}

/* "tfd: 5 events: 18 data: 2003 pos:0 ino:3d sdev:8" */
static void line_read(struct look *l, const char *line)
{
    const char *at = strstr(line, "data:");
    if (at == NULL)
        return;
    const uint64_t cookie = strtoull(at + 5, NULL, 16);
    for (unsigned i = 0; i < l->n; i++)
        l->asked[i].lives |= l->asked[i].cookie == cookie;
}

/* Marks those whose files are members of the set. False: it could not be read. */
static bool ask(struct look *l)
{
    char path[48], text[1024];
    size_t kept = 0;
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", transit.set);
    const int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    ssize_t n;
    while ((n = raw_read(fd, text + kept, sizeof(text) - 1 - kept)) > 0) {
        text[kept + (size_t)n] = '\0';
        char *line = text, *end;
        for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            line_read(l, line);
        }
        kept = strlen(line);
        memmove(text, line, kept + 1);
        if (kept == sizeof(text) - 1)
            kept = 0; /* no line is that long */
    }
    raw_close(fd);
    return n == 0;
}

/* Entered. */
static void let_go(struct stack_cx *cx, struct usock *us)
{
    if (!us->transit_asked || us->refs != us->passing || us->calls != 0)
        return; /* received, or sent again, meanwhile */
    us->refs = us->passing = 0;
    usock_dropped(cx, us, true);
}

void transit_look(nsec_t now)
{
    if (likely(transit_due() > now))
        return;
    struct look l = {.skip = transit.first};
    struct stack_cx cx;
    engine_enter(&cx);
    pool_each(&engine.sh->usocks, choose, &l);
    transit.first = l.found > l.skip + BATCH ? l.skip + BATCH : 0;
    engine_leave(&cx);
    const bool known = l.n > 0 && ask(&l);
    engine_enter(&cx);
    for (unsigned i = 0; i < l.n; i++)
        if (known && !l.asked[i].lives && pool_owns(&engine.sh->usocks, l.asked[i].us) &&
            l.asked[i].us->cookie == l.asked[i].cookie)
            let_go(&cx, l.asked[i].us);
    transit.pace = min_u64(2 * transit.pace, LAST_LOOK);
    __atomic_store_n(&transit.due, l.under_way ? cx.now + transit.pace : NSEC_NEVER,
                     __ATOMIC_RELAXED);
    engine_leave(&cx);
}
