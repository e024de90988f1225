#define _GNU_SOURCE
#include "shim/keeper/watch.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>

#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/keeper/ingress.h"
#include "shim/life/births.h"
#include "shim/life/keeper.h"

/* Survivors that are rung at once; if none of them came within this time, all are. */
#define RING_FIRST 4
#define RING_AGAIN (10 * NSEC_PER_MSEC)
#define FIXED_FDS  2

/* Someone of the family, by the place of the pidfd in `fds`. Two for one process are possible. */
static struct birth_notice who[2 * PROCESSES_MAX];
static struct pollfd fds[FIXED_FDS + 2 * PROCESSES_MAX];
static unsigned n;

static void ring(uint32_t *bell)
{
    __atomic_add_fetch(bell, 1, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)bell, FUTEX_WAKE, 1, 0, 0, 0);
}

/* The driver, and up to `most` service threads. */
static void ring_survivors(struct shared *sh, unsigned most)
{
    const uint64_t one = 1;
    raw_write(KEEPER_FD_BELL, &one, sizeof(one));
    for (uint32_t i = 0; i < sh->processes_high && most > 0; i++) {
        struct process *p = &sh->processes[i];
        if (p->state != PROCESS_LIVE || p->dead == p->generation || p->service == SERVICE_NONE)
            continue;
        ring(&p->doorbell);
        most--;
    }
}

static bool unburied(const struct shared *sh)
{
    return __atomic_load_n(&sh->deaths, __ATOMIC_ACQUIRE) !=
           __atomic_load_n(&sh->buried, __ATOMIC_ACQUIRE);
}

static void forget(unsigned i)
{
    raw_close(fds[FIXED_FDS + i].fd);
    fds[FIXED_FDS + i] = fds[FIXED_FDS + --n];
    who[i] = who[n];
}

/* A process is gone. Whether somebody has to be woken for it: not for one that left in order. */
static bool mark(struct shared *sh, const struct birth_notice *b)
{
    struct process *p = &sh->processes[b->number - 1];
    if (p->generation != b->generation || p->dead == b->generation)
        return false;
    const uint8_t state = __atomic_load_n(&p->state, __ATOMIC_ACQUIRE);
    __atomic_store_n(&p->dead, b->generation, __ATOMIC_RELEASE);
    __atomic_add_fetch(&sh->deaths, 1, __ATOMIC_RELEASE);
    return state == PROCESS_BORN || state == PROCESS_LIVE;
}

/* False: no message is left. */
static bool take_birth(void)
{
    struct birth_notice notice = {.number = 0};
    struct iovec iov = {&notice, sizeof(notice)};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = 0}};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    const ssize_t r = raw_recvmsg(KEEPER_FD_BIRTHS, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (r <= 0)
        return false;
    if (m.msg_controllen < sizeof(struct cmsghdr) || control.header.cmsg_type != SCM_RIGHTS) {
        if (notice.number == 0)
            ingress_attach(notice.generation); /* births_ask_ingress() */
        return true;
    }
    int fd;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    if (n == ARRAY_LEN(who) || notice.number - 1 >= PROCESSES_MAX) {
        raw_close(fd);
        return true;
    }
    fds[FIXED_FDS + n] = (struct pollfd){.fd = fd, .events = POLLIN};
    who[n++] = notice;
    return true;
}

/* A lifeline that broke says nothing where the process has put in its pidfd since. */
static bool has_another(unsigned i)
{
    for (unsigned k = 0; k < n; k++)
        if (k != i && who[k].number == who[i].number && who[k].generation == who[i].generation)
            return true;
    return false;
}

static bool take_deaths(struct shared *sh)
{
    bool urgent = false;
    for (unsigned i = n; i-- > 0;) {
        const short revents = fds[FIXED_FDS + i].revents;
        if (revents == 0)
            continue;
        if ((revents & POLLIN) != 0 || !has_another(i))
            urgent |= mark(sh, &who[i]);
        forget(i);
    }
    return urgent;
}

void watch_family(struct stack *st)
{
    struct shared *sh = stack_extra(st);
    bool waits = false;                                        /* for survivors who were rung */
    __atomic_store_n(&sh->ingress_asked, 0, __ATOMIC_RELAXED); /* of one that was killed */
    fds[0] = (struct pollfd){.fd = KEEPER_FD_CUSTODY};
    fds[1] = (struct pollfd){.fd = KEEPER_FD_BIRTHS, .events = POLLIN};
    for (;;) {
        struct timespec again = {.tv_nsec = (long)RING_AGAIN};
        const int r = raw_ppoll(fds, FIXED_FDS + n, waits ? &again : NULL);
        if (r > 0 && fds[0].revents != 0)
            return; /* all ends for writing are closed: nobody is left */
        waits = waits && unburied(sh);
        if (waits && r == 0)
            ring_survivors(sh, PROCESSES_MAX);
        if (r <= 0)
            continue;
        const unsigned known = n;
        /* Before deaths, and whatever revents says: a lifeline that was seen to break may have been
         * let go of after the births were looked at, when the pidfd was in. */
        while (take_birth())
            ;
        if (fds[1].revents != 0 && (fds[1].revents & POLLIN) == 0)
            fds[1].fd = -1;
        for (unsigned i = known; i < n; i++)
            fds[FIXED_FDS + i].revents = 0;
        if (take_deaths(sh)) {
            ring_survivors(sh, RING_FIRST);
            waits = true;
        }
    }
}
