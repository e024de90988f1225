/*
 * epoll. A set without user sockets is the kernel's alone and costs a look into the descriptor
 * table; how a set with user sockets works is told in shim/wait/epset.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <sys/epoll.h>

#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/real.h"
#include "shim/libc/user.h"
#include "shim/life/births.h"
#include "shim/wait/epset.h"
#include "shim/wait/pollset.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"

#ifndef EPOLL_URING_WAKE
#define EPOLL_URING_WAKE (1u << 27)
#endif
/* What EPOLLEXCLUSIVE may be combined with (Linux: EPOLLEXCLUSIVE_OK_BITS). */
#define EXCLUSIVE_OK                                                                               \
    (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)
/* While our side always has events, the kernel's is asked this often, and at the latest by the so
 * many-th call. */
#define KERNEL_CHECK (50 * NSEC_PER_USEC)
#define KERNEL_CALLS 8

static int result_of(int r)
{
    if (r >= 0)
        return r;
    errno = -r;
    return -1;
}

/* ---- which descriptors are epoll sets, and which of those are inside others ---- */

#define KNOWN_MAX  65536
#define NESTED_MAX 32

/*
 * Process-local. Sets that are added to sets while neither has a user socket are remembered, so
 * that they can be linked when the inner one gets its first.
 */
static uint64_t known[KNOWN_MAX / 64];
static struct nested {
    int epfd, fd; /* -1: free */
    bool
        moved; /* the number that it was added under was closed: fd is another of the inner set's */
    struct epoll_event event;
} nested[NESTED_MAX];
static unsigned nested_used;
static pthread_mutex_t nested_lock = PTHREAD_MUTEX_INITIALIZER;

/* Those of the known that a fork may have shared with other processes of the family. */
static uint64_t forked[KNOWN_MAX / 64];
static uint32_t shares_seen; /* of shared.set_shares, under the engine lock */

static void known_set(int fd)
{
    if (fd >= 0 && fd < KNOWN_MAX)
        __atomic_or_fetch(&known[fd / 64], 1ull << fd % 64, __ATOMIC_RELAXED);
}

static bool is_known(int fd)
{
    return fd >= 0 && fd < KNOWN_MAX &&
           (__atomic_load_n(&known[fd / 64], __ATOMIC_RELAXED) >> fd % 64 & 1) != 0;
}

static bool is_forked(int fd)
{
    return fd >= 0 && fd < KNOWN_MAX &&
           unlikely((__atomic_load_n(&forked[fd / 64], __ATOMIC_RELAXED) >> fd % 64 & 1) != 0);
}

static void nested_remember(int op, int epfd, int fd, const struct epoll_event *event)
{
    pthread_mutex_lock(&nested_lock);
    struct nested *slot = NULL;
    for (unsigned i = 0; i < nested_used; i++)
        if (nested[i].epfd == epfd && nested[i].fd == fd && !nested[i].moved)
            slot = &nested[i];
    for (unsigned i = 0; i < nested_used && slot == NULL; i++)
        if (nested[i].epfd < 0)
            slot = &nested[i];
    if (slot == NULL && nested_used < NESTED_MAX && op != EPOLL_CTL_DEL)
        slot = &nested[nested_used++];
    if (slot != NULL)
        *slot = op == EPOLL_CTL_DEL ? (struct nested){.epfd = -1, .fd = -1}
                                    : (struct nested){epfd, fd, false, *event};
    pthread_mutex_unlock(&nested_lock);
}

static bool same_file(long pid, int fd, long other_pid, int other)
{
    return raw_syscall(SYS_kcmp, pid, other_pid, KCMP_FILE, fd, other, 0) == 0;
}

/* Another number of the same epoll set in this process; -1: there is none. */
static int other_number(int epfd)
{
    const long pid = raw_getpid();
    for (int fd = 0; fd < KNOWN_MAX; fd++) {
        if (known[fd / 64] == 0)
            fd |= 63;
        else if (fd != epfd && is_known(fd) && same_file(pid, epfd, pid, fd))
            return fd;
    }
    return -1;
}

/* The number is closed. */
static void forget_number(int fd)
{
    __atomic_and_fetch(&known[fd / 64], ~(1ull << fd % 64), __ATOMIC_RELAXED);
    __atomic_and_fetch(&forked[fd / 64], ~(1ull << fd % 64), __ATOMIC_RELAXED);
    pthread_mutex_lock(&nested_lock);
    for (unsigned i = 0; i < nested_used; i++) {
        struct nested *n = &nested[i];
        if (n->epfd != fd && n->fd != fd)
            continue;
        const int other = other_number(fd);
        n->moved |= n->fd == fd;
        n->fd = n->fd == fd ? other : n->fd;
        n->epfd = n->epfd == fd ? other : n->epfd;
        if (other < 0)
            n->epfd = n->fd = -1;
    }
    pthread_mutex_unlock(&nested_lock);
}

/* Whether the kernel's set has members: one "tfd:" line for each (proc(5)). When in doubt, yes. */
static bool has_kernel_members(int epfd)
{
    char path[48] = "/proc/self/fdinfo/";
    char text[512];
    char digits[12];
    unsigned n = 0, at = sizeof("/proc/self/fdinfo/") - 1;
    do {
        digits[n++] = (char)('0' + epfd % 10);
        epfd /= 10;
    } while (epfd != 0);
    while (n != 0)
        path[at++] = digits[--n];
    const int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return true;
    const ssize_t got = raw_read(fd, text, sizeof(text));
    raw_close(fd);
    return got <= 0 || memmem(text, (size_t)got, "tfd:", 4) != NULL;
}

static uint16_t *sleepers_on(int epfd);

/* Duplicates of the descriptor that were made before it had a set share it. Whether a thread sleeps
 * on one of them. */
static bool share_with_duplicates(int epfd, struct epset *ep)
{
    bool asleep = false;
    const long pid = raw_getpid();
    for (int fd = 0; fd < KNOWN_MAX; fd++) {
        if (known[fd / 64] == 0) {
            fd |= 63;
            continue;
        }
        if (fd == epfd || !is_known(fd) || fd_entry(fd) != 0 || !same_file(pid, epfd, pid, fd))
            continue;
        hold_epset(fd, ep);
        asleep |= __atomic_load_n(sleepers_on(fd), __ATOMIC_SEQ_CST) != 0;
    }
    return asleep;
}

/* ---- threads that sleep in the kernel's set when the first user socket comes ---- */

/*
 * They would not hear of it. So they are counted, by descriptor (a hash: two may share a number),
 * and woken by a member of the kernel's set that is always readable, until the last has left.
 */
#define SLEEPERS_MAX 4096
static uint16_t sleepers[SLEEPERS_MAX]; /* (atomic) */
static int kick_fd = -1; /* an eventfd, under the engine lock; its address: the data */
/* One that left without being counted (by a jump out of a handler) holds the kick up for this. */
#define KICK_LASTS (50 * NSEC_PER_MSEC)

static uint16_t *sleepers_on(int epfd)
{
    return &sleepers[(unsigned)epfd % SLEEPERS_MAX];
}

static uint64_t kick_data(void)
{
    return (uint64_t)(uintptr_t)&kick_fd;
}

/* Entered. */
static void kick(struct stack_cx *cx, int epfd, struct epset *ep)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = kick_data()};
    if (kick_fd < 0) {
        const int flags = O_CLOEXEC | O_NONBLOCK;
        kick_fd = fd_make_internal((int)raw_syscall(SYS_eventfd2, 1, flags, 0, 0, 0, 0));
    }
    if (raw_syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, kick_fd, (long)&event, 0, 0) == 0)
        ep->kicked = cx->now;
}

/* Entered. */
static void kick_end(int epfd, struct epset *ep)
{
    struct epoll_event unused = {0};
    if (kick_fd >= 0)
        raw_syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, kick_fd, (long)&unused, 0, 0);
    ep->kicked = 0;
}

/* Entered. Takes the kick out of what the kernel's set gave; returns how many events remain. */
static int leave_out_kick(struct stack_cx *cx, int epfd, struct epset *ep,
                          struct epoll_event *events, int n)
{
    int kept = 0;
    if (likely(kick_fd < 0 && shares_seen == 0))
        return n;
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 != kick_data())
            events[kept++] = events[i];
    if (ep->kicked != 0 && cx->now - ep->kicked > KICK_LASTS)
        kick_end(epfd, ep);
    return kept;
}

/* Cleanup handler: also a thread that is cancelled leaves. */
static void sleeper_leaves(void *arg)
{
    const int epfd = *(const int *)arg;
    const bool last = __atomic_sub_fetch(sleepers_on(epfd), 1, __ATOMIC_SEQ_CST) == 0;
    if (likely(!last || fd_epset(epfd) == NULL))
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    struct epset *ep = fd_epset(epfd);
    if (ep != NULL)
        kick_end(epfd, ep);
    engine_leave(&cx);
}

/* ---- sets that several processes have by fork ---- */

/*
 * The first user socket that one of them adds gives the set its second half in that process. The
 * others find it there when they next use the set, or are rung.
 */

/* The set that another process of the family has for the same epoll description; NULL. */
static struct epset *set_of_others(int epfd)
{
    struct shared *sh = engine.sh;
    const long pid = raw_getpid();
    for (uint32_t number = 1; number <= sh->processes_high; number++) {
        const struct process *p = process_at(sh, number);
        if (number == process_number() || !process_counts(p) || p->pid == 0)
            continue;
        list_for_each (n, &p->holds) {
            const struct hold *h = list_entry(n, struct hold, of_process);
            if (h->ep != NULL && h->fd >= 0 && same_file(pid, epfd, p->pid, h->fd))
                return h->ep;
        }
    }
    return NULL;
}

/* Entered. */
static void find_shared(struct stack_cx *cx)
{
    if (engine.sandboxed || shares_seen == engine.sh->set_shares)
        return;
    shares_seen = engine.sh->set_shares;
    for (int fd = 0; fd < KNOWN_MAX; fd++) {
        if (forked[fd / 64] == 0) {
            fd |= 63;
            continue;
        }
        struct epset *ep = is_forked(fd) && fd_entry(fd) == 0 ? set_of_others(fd) : NULL;
        if (ep != NULL && hold_epset(fd, ep) &&
            __atomic_load_n(sleepers_on(fd), __ATOMIC_SEQ_CST) != 0)
            kick(cx, fd, ep);
    }
}

/* Entered: a set that others may have got its first user socket here. */
static void tell_others(void)
{
    struct shared *sh = engine.sh;
    shares_seen = ++sh->set_shares;
    for (uint32_t number = 1; number <= sh->processes_high; number++)
        if (number != process_number() && process_counts(process_at(sh, number)))
            bell_ring(&process_at(sh, number)->doorbell);
    births_ring(); /* for a service thread that drives */
}

void wait_shared_sets(void)
{
    if (likely(__atomic_load_n(&engine.sh->set_shares, __ATOMIC_RELAXED) == shares_seen))
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    find_shared(&cx);
    engine_leave(&cx);
}

/* Not entered; the program uses a set. To leave the engine starts the service thread, which can be
 * rung. */
static void look_for_shared(int epfd)
{
    if (likely(!is_forked(epfd)) || fd_entry(epfd) != 0 || !engine_running())
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    find_shared(&cx);
    engine_leave(&cx);
}

void wait_before_fork(void)
{
    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (known[i] != 0)
            __atomic_or_fetch(&forked[i], known[i], __ATOMIC_RELAXED);
}

/* Entered. The set of an epoll descriptor, made when it has none. NULL: the arena is full. */
static struct epset *attach(struct stack_cx *cx, int epfd, unsigned depth)
{
    struct epset *ep = fd_epset(epfd);
    if (ep == NULL && is_forked(epfd)) {
        find_shared(cx);
        ep = fd_epset(epfd);
    }
    if (ep != NULL)
        return ep;
    ep = epset_new(has_kernel_members(epfd));
    if (ep == NULL)
        return NULL;
    if (!hold_epset(epfd, ep)) {
        epset_dropped(cx, ep);
        return NULL;
    }
    known_set(epfd);
    if (share_with_duplicates(epfd, ep) ||
        __atomic_load_n(sleepers_on(epfd), __ATOMIC_SEQ_CST) != 0)
        kick(cx, epfd, ep);
    if (is_forked(epfd))
        tell_others();
    for (unsigned i = 0; i < nested_used && depth < 5; i++) {
        const struct nested n = nested[i];
        if (n.epfd < 0 || fd_epset(n.fd) != ep)
            continue;
        struct epoll_event event = n.event;
        if (!n.moved &&
            raw_syscall(SYS_epoll_ctl, n.epfd, EPOLL_CTL_MOD, n.fd, (long)&event, 0, 0) < 0)
            continue; /* one of them was closed meanwhile */
        struct epset *outer = attach(cx, n.epfd, depth + 1);
        if (outer != NULL)
            epset_adopt(cx, outer, n.epfd, ep, n.moved ? -1 : n.fd, &n.event);
    }
    return ep;
}

SHIM_EXPORT int epoll_create(int size)
{
    const int fd = real_ready()->epoll_create(size);
    known_set(fd);
    return fd;
}

SHIM_EXPORT int epoll_create1(int flags)
{
    const int fd = real_ready()->epoll_create1(flags);
    known_set(fd);
    return fd;
}

/* ---- descriptors come and go (wait.h) ---- */

bool wait_epoll_bare(int fd)
{
    return unlikely(is_known(fd)) && fd_entry(fd) == 0 && !engine.sandboxed;
}

void wait_epoll_attach(struct stack_cx *cx, int fd)
{
    struct epoll_event unused = {0};
    if (!wait_epoll_bare(fd))
        return;
    /* The number may be another file's by now, if it was closed without our knowledge. */
    const long r =
        raw_syscall(SYS_epoll_ctl, fd, EPOLL_CTL_DEL, births_bell(), (long)&unused, 0, 0);
    if (r == -ENOENT)
        attach(cx, fd, 0);
}

bool wait_is_epoll(int fd)
{
    return is_known(fd);
}

void wait_epoll_close(int fd)
{
    if (is_known(fd))
        forget_number(fd);
    if (fd_epset(fd) == NULL)
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    struct epset *ep = fd_epset(fd);
    if (ep != NULL) {
        hold_release(fd);
        epset_dropped(&cx, ep);
    }
    engine_leave(&cx);
}

void wait_epoll_dup(int oldfd, int newfd)
{
    if (is_known(oldfd))
        known_set(newfd);
    if (fd_epset(oldfd) == NULL)
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    struct epset *ep = fd_epset(oldfd);
    if (ep != NULL)
        hold_epset(newfd, ep);
    engine_leave(&cx);
}

/* ---- epoll_ctl ---- */

static int ctl_kernel(int epfd, int op, int fd, struct epoll_event *event)
{
    look_for_shared(epfd);
    const int r = real_ready()->epoll_ctl(epfd, op, fd, event);
    if (r < 0)
        return r;
    struct epset *ep = fd_epset(epfd);
    if (unlikely(ep != NULL && op == EPOLL_CTL_ADD &&
                 !__atomic_load_n(&ep->kernel_members, __ATOMIC_RELAXED))) {
        struct stack_cx cx;
        engine_enter(&cx);
        if (fd_epset(epfd) == ep)
            epset_has_kernel_members(ep);
        engine_leave(&cx);
    }
    if (unlikely(is_known(fd)))
        nested_remember(op, epfd, fd, event);
    return r;
}

/* As the kernel's checks, in its order. */
static int ctl_check(int epfd, int op, int fd, const struct epoll_event *event, bool inner)
{
    if (op != EPOLL_CTL_DEL && !user_valid(event, sizeof(*event)))
        return -EFAULT;
    look_for_shared(epfd);
    if (fd_epset(epfd) == NULL) {
        /* ENOENT: an epoll descriptor without this member, as it must be. */
        struct epoll_event unused = {0};
        const int r = (int)raw_syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, (long)&unused, 0, 0);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    if (epfd == fd || (fd_epset(fd) != NULL && fd_epset(fd) == fd_epset(epfd)))
        return -EINVAL;
    if (op != EPOLL_CTL_DEL && (event->events & EPOLLEXCLUSIVE) != 0) {
        if (op == EPOLL_CTL_MOD)
            return -EINVAL;
        if (op == EPOLL_CTL_ADD && (inner || (event->events & ~(uint32_t)EXCLUSIVE_OK) != 0))
            return -EINVAL;
    }
    return op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD || op == EPOLL_CTL_DEL ? 0 : -EINVAL;
}

/* Entered. */
static int ctl_member(struct stack_cx *cx, int epfd, int op, struct epmember member, int fd,
                      const struct epoll_event *event)
{
    struct epset *ep = fd_epset(epfd);
    if (op == EPOLL_CTL_ADD) {
        ep = attach(cx, epfd, 0);
        return ep != NULL ? epset_add(cx, ep, epfd, member, fd, event) : -ENOMEM;
    }
    if (ep == NULL)
        return -ENOENT;
    return op == EPOLL_CTL_MOD ? epset_mod(cx, ep, member, fd, event)
                               : epset_del(cx, ep, member, fd);
}

#define CTL_PASS 1
static int ctl_ours(int epfd, int op, int fd, const struct epoll_event *event)
{
    const int err = ctl_check(epfd, op, fd, event, fd_epset(fd) != NULL);
    if (err < 0)
        return err;
    struct stack_cx cx;
    engine_enter(&cx);
    const struct epmember member = {.us = fd_usock(fd), .inner = fd_epset(fd)};
    const bool pass = (member.us == NULL && member.inner == NULL) ||
                      (member.us != NULL && member.us->kind == USOCK_KERNEL);
    const int r = pass ? CTL_PASS : ctl_member(&cx, epfd, op, member, fd, event);
    engine_leave(&cx);
    return r;
}

SHIM_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    if (fd_usock(fd) == NULL && fd_epset(fd) == NULL)
        return ctl_kernel(epfd, op, fd, event);
    const int r = ctl_ours(epfd, op, fd, event);
    return r == CTL_PASS ? ctl_kernel(epfd, op, fd, event) : result_of(r);
}

/* ---- epoll_wait ---- */

struct wait_call {
    struct stack_cx cx;
    int epfd;
    struct epoll_event *events;
    int max;
    struct epset *ep;
    bool kernel_ready; /* the kernel's set was seen ready */
};

/* Entered, and again when it returns: events of the kernel's set into the front of the array. */
static int take_kernel(struct wait_call *c)
{
    /* One place is left for our side, so that neither starves the other. */
    const int room = c->max > 1 && !list_empty(&c->ep->ready) ? c->max - 1 : c->max;
    engine_leave(&c->cx);
    const int saved = errno;
    int n = real.epoll_wait(c->epfd, c->events, room, 0);
    const int err = errno;
    errno = saved;
    engine_enter(&c->cx);
    c->kernel_ready = false;
    c->ep = fd_epset(c->epfd);
    if (n < 0)
        return err == EINTR ? 0 : -err;
    if (c->ep == NULL)
        return n;
    c->ep->kernel_checked = c->cx.now;
    c->ep->kernel_calls = 0;
    n = leave_out_kick(&c->cx, c->epfd, c->ep, c->events, n);
    return c->ep->twins != 0 ? (int)epset_translate(c->ep, c->events, (unsigned)n) : n;
}

/* Entered, and again when it returns: what is there now; first, last: it did not sleep yet, it will
 * not. */
static int take(struct wait_call *c, bool first, bool last)
{
    struct epset *ep = c->ep;
    int n = 0;
    if (ep->kernel_members &&
        (c->kernel_ready || last ||
         (!list_empty(&ep->ready) &&
          (++ep->kernel_calls >= KERNEL_CALLS || c->cx.now - ep->kernel_checked > KERNEL_CHECK))))
        n = take_kernel(c);
    ep = c->ep;
    if (n < 0 || ep == NULL)
        return n;
    n = (int)epset_collect(ep, c->events, (unsigned)n, (unsigned)c->max, first || last);
    if (n > 0)
        epset_pass_on(ep);
    return n;
}

/* Entered. One sleep; a negative errno, or 0. */
static int sleep_on_set(struct wait_call *c, nsec_t deadline, const sigset_t *mask)
{
    struct pollfd fds[1 + SLEEP_FDS];
    unsigned n = 0;
    if (c->ep->kernel_members)
        fds[n++] = (struct pollfd){.fd = c->epfd, .events = POLLIN};
    struct waiter *w = waiter_begin();
    if (w != NULL) {
        w->inside = epset_inside(c->ep);
        waiter_watch(w, &c->ep->watches, TCP_EV_IN, true);
    }
    const int r = wait_sleep(&c->cx, w, fds, n, deadline, mask, NULL);
    c->kernel_ready = r > 0;
    return r < 0 ? r : 0;
}

static int wait_ours(struct wait_call *c, nsec_t timeout, const sigset_t *mask)
{
    const struct sleep_signals since = sleep_signals_now();
    engine_enter(&c->cx);
    const nsec_t deadline = timeout < NSEC_NEVER - c->cx.now ? c->cx.now + timeout : NSEC_NEVER;
    int r = 0;
    for (bool first = true;; first = false) {
        /* The set may have gone while this thread slept: its descriptor was closed. */
        c->ep = fd_epset(c->epfd);
        const bool last = c->cx.now >= deadline;
        if (c->ep == NULL) {
            r = -EBADF;
            break;
        }
        if (last)
            engine_drain(&c->cx);
        else if (!list_empty(&c->ep->ready) && sleep_drain_due(&c->cx))
            engine_drain_passing(&c->cx);
        r = take(c, first, last);
        if (r != 0 || last)
            break;
        if (c->ep == NULL)
            continue;
        r = sleep_interrupted(&since, false);
        if (r < 0)
            break;
        r = sleep_on_set(c, deadline, mask);
        if (r < 0)
            break;
    }
    engine_leave(&c->cx);
    return r;
}

static int wait_set(int epfd, struct epoll_event *events, int max, nsec_t timeout,
                    const sigset_t *mask)
{
    if (max <= 0 || max > (int)(INT_MAX / sizeof(struct epoll_event)))
        return result_of(-EINVAL);
    if (!user_valid(events, sizeof(*events)))
        return result_of(-EFAULT);
    struct wait_call c = {.epfd = epfd, .events = events, .max = max};
    return result_of(wait_ours(&c, timeout, mask));
}

/* How the kernel's set alone is waited for, by the call that the program made. */
struct plain {
    enum { PLAIN_WAIT, PLAIN_PWAIT, PLAIN_PWAIT2 } how;
    int epfd, max;
    struct epoll_event *events;
    const struct timespec *ts; /* PWAIT2 */
    const sigset_t *mask;
    int ms;
    nsec_t timeout;
};

static int plain_call(const struct plain *p)
{
    switch (p->how) {
    case PLAIN_WAIT:
        return real_ready()->epoll_wait(p->epfd, p->events, p->max, p->ms);
    case PLAIN_PWAIT:
        return real_ready()->epoll_pwait(p->epfd, p->events, p->max, p->ms, p->mask);
    default:
        return real_ready()->epoll_pwait2(p->epfd, p->events, p->max, p->ts, p->mask);
    }
}

static nsec_t clock_now(void)
{
    struct stack_cx cx;
    engine_clock(&cx);
    return cx.now;
}

/* The set got its first user socket while the thread slept. */
static int plain_attached(const struct plain *p, int n, nsec_t left)
{
    struct stack_cx cx;
    engine_enter(&cx);
    struct epset *ep = fd_epset(p->epfd);
    if (ep != NULL && n > 0)
        n = leave_out_kick(&cx, p->epfd, ep, p->events, n);
    engine_leave(&cx);
    return n != 0 ? n : wait_set(p->epfd, p->events, p->max, left, p->mask);
}

static int plain_wait(const struct plain *p)
{
    int n = 0;
    if (p->timeout == 0) {
        look_for_shared(p->epfd);
        return fd_epset(p->epfd) == NULL ? plain_call(p)
                                         : wait_set(p->epfd, p->events, p->max, 0, p->mask);
    }
    const nsec_t start = p->timeout == NSEC_NEVER ? 0 : clock_now();
    __atomic_add_fetch(sleepers_on(p->epfd), 1, __ATOMIC_SEQ_CST);
    pthread_cleanup_push(sleeper_leaves, (void *)&p->epfd);
    look_for_shared(p->epfd);
    if (likely(fd_epset(p->epfd) == NULL))
        n = plain_call(p);
    pthread_cleanup_pop(1);
    if (likely(fd_epset(p->epfd) == NULL) || n < 0)
        return n;
    const nsec_t spent = p->timeout == NSEC_NEVER ? 0 : clock_now() - start;
    return plain_attached(p, n, spent < p->timeout ? p->timeout - spent : 0);
}

SHIM_EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    const nsec_t span = pollset_millis(timeout);
    if (likely(fd_epset(epfd) == NULL))
        return plain_wait(&(struct plain){.how = PLAIN_WAIT,
                                          .epfd = epfd,
                                          .max = max,
                                          .events = events,
                                          .ms = timeout,
                                          .timeout = span});
    return wait_set(epfd, events, max, span, NULL);
}

SHIM_EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout,
                            const sigset_t *mask)
{
    const nsec_t span = pollset_millis(timeout);
    if (likely(fd_epset(epfd) == NULL))
        return plain_wait(&(struct plain){.how = PLAIN_PWAIT,
                                          .epfd = epfd,
                                          .max = max,
                                          .events = events,
                                          .mask = mask,
                                          .ms = timeout,
                                          .timeout = span});
    return wait_set(epfd, events, max, span, mask);
}

SHIM_EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int max,
                             const struct timespec *timeout, const sigset_t *mask)
{
    nsec_t span;
    if (timeout != NULL && !user_valid(timeout, sizeof(*timeout)))
        return result_of(-EFAULT);
    const bool valid = pollset_timespec(timeout, &span);
    if (likely(fd_epset(epfd) == NULL))
        return plain_wait(&(struct plain){.how = PLAIN_PWAIT2,
                                          .epfd = epfd,
                                          .max = max,
                                          .events = events,
                                          .ts = timeout,
                                          .mask = mask,
                                          .timeout = valid ? span : 0});
    return valid ? wait_set(epfd, events, max, span, mask) : result_of(-EINVAL);
}
