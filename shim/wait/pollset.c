#include "shim/wait/pollset.h"

#include <errno.h>
#include <pthread.h>

#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/real.h"
#include "shim/wait/epset.h"
#include "shim/wait/herd.h"
#include "shim/wait/ready.h"
#include "shim/wait/sleep.h"
#include "shim/wait/waiter.h"

/* Larger sets are polled in a mapping of their own. */
#define LOCAL_FDS 64
/* When not everything can be waited for, look again after this. */
#define LOOK_AGAIN (10 * NSEC_PER_MSEC)
/* While there is something ready of ours, the kernel is asked for local clients of listeners this
 * often. */
#define DOOR_CHECK (50 * NSEC_PER_USEC)

/* One call. `kernel` has the descriptors that the kernel is asked for at the same places, -1
 * elsewhere. */
struct pollset {
    struct stack_cx cx;
    struct pollfd *fds, *kernel;
    unsigned n;
    unsigned flags;
    unsigned user_ready;
    struct waiter *w; /* of the last sleep; NULL: none yet, or no slot */
    bool any_kernel;  /* the kernel is to be asked, */
    bool foreign;     /* and for more than the local clients of our listeners */
    bool gone; /* a descriptor was closed meanwhile: as in Linux that is told when the wait is over
                */
    /* Something could not be registered, or was left out: sleep for a short while only. */
    bool partial, left_out;
};

bool pollset_may_be_ours(const struct pollfd *fds, nfds_t n)
{
    for (nfds_t i = 0; i < n; i++)
        if (unlikely(wait_epoll_bare(fds[i].fd)))
            return true;
    return false;
}

static uint32_t accepted(const struct pollset *p, short events)
{
    uint32_t want = (uint16_t)events;
    if ((p->flags & POLLSET_SELECT) == 0)
        return want | POLLERR | POLLHUP | POLLNVAL;
    if ((want & POLLIN) != 0)
        want |= POLLHUP | POLLERR;
    if ((want & POLLOUT) != 0)
        want |= POLLERR;
    return want | POLLNVAL;
}

/*
 * Entered: what is ready on the user stack; and, when anew, who has to be asked in the kernel (else
 * what the kernel said stays).
 */
static void look(struct pollset *p, bool anew)
{
    p->user_ready = 0;
    p->any_kernel = p->foreign = p->gone = false;
    for (unsigned i = 0; i < p->n; i++) {
        struct pollfd *f = &p->fds[i];
        struct pollfd *k = &p->kernel[i];
        if (anew)
            *k = (struct pollfd){.fd = f->fd, .events = f->events};
        f->revents = 0;
        const struct usock *us = fd_usock(f->fd);
        struct epset *ep = fd_epset(f->fd);
        uint32_t ready = 0;
        bool door = false;
        if (us != NULL && us->kind != USOCK_KERNEL) {
            ready = ready_bits(ready_now(us));
            door = us->kind == USOCK_LISTENER && us->kernel_listen;
            if (!door)
                k->fd = -1;
        } else if (ep == NULL && p->w != NULL && unlikely(waiter_keeps(p->w, f->fd))) {
            p->gone = true;
            k->fd = -1;
        } else if (ep != NULL) {
            ready = epset_ready(ep, 0) ? POLLIN | POLLRDNORM : 0;
            if (!ep->kernel_members)
                k->fd = -1;
        }
        f->revents = (short)(ready & accepted(p, f->events));
        p->user_ready += f->revents != 0;
        p->any_kernel |= k->fd >= 0;
        p->foreign |= k->fd >= 0 && !door;
    }
}

/* Entered: whether nothing but doors is left to ask the kernel for, and that was done just now. */
static bool doors_seen(const struct pollset *p)
{
    bool seen = !p->foreign;
    for (unsigned i = 0; i < p->n && seen; i++)
        if (p->kernel[i].fd >= 0)
            seen = p->cx.now - fd_usock(p->kernel[i].fd)->door_seen < DOOR_CHECK;
    if (seen)
        return true;
    for (unsigned i = 0; i < p->n && !p->foreign; i++)
        if (p->kernel[i].fd >= 0)
            fd_usock(p->kernel[i].fd)->door_seen = p->cx.now;
    return false;
}

/* Adds what the kernel said; returns how many descriptors have anything. */
static int combine(struct pollset *p)
{
    int ready = 0;
    for (unsigned i = 0; i < p->n; i++) {
        struct pollfd *f = &p->fds[i];
        const uint32_t events = (uint16_t)p->kernel[i].revents;
        if (p->gone && (p->flags & POLLSET_SELECT) != 0 && (events & POLLNVAL) != 0)
            f->revents = f->events; /* as Linux's POLLIN_SET; EBADF is for the first look */
        else if (p->kernel[i].fd >= 0)
            f->revents |= (short)(events & accepted(p, f->events));
        ready += f->revents != 0;
    }
    return ready;
}

/* Entered: leaves for good. */
static int leave(struct pollset *p, int result)
{
    if (p->w != NULL)
        waiter_release(&p->cx, p->w);
    engine_leave(&p->cx);
    return result;
}

/* The kernel says what the numbers are now that were closed meanwhile. */
static void ask_gone(struct pollset *p)
{
    for (unsigned i = 0; i < p->n; i++)
        if (waiter_keeps(p->w, p->fds[i].fd) && fd_usock(p->fds[i].fd) == NULL)
            p->kernel[i].fd = p->fds[i].fd;
    p->any_kernel = p->foreign = true;
}

/*
 * Entered, leaves: the result that is there now. As in Linux, a pending signal that the call's mask
 * allows ends it unless something is ready, also when it would not have waited.
 */
static int finish(struct pollset *p, const sigset_t *mask)
{
    if (unlikely(p->gone))
        ask_gone(p);
    else if (p->user_ready != 0 && p->any_kernel && doors_seen(p))
        p->any_kernel = false;
    leave(p, 0);
    const sigset_t *allowed = p->user_ready == 0 ? mask : NULL;
    if (p->any_kernel || allowed != NULL) {
        const struct timespec none = {0};
        const int saved = errno;
        if (real.ppoll(p->kernel, p->any_kernel ? p->n : 0, &none, allowed) < 0) {
            const int err = errno;
            errno = saved;
            if (err != EINTR || allowed != NULL)
                return -err;
            for (unsigned i = 0; i < p->n; i++)
                p->kernel[i].revents = 0;
        }
    }
    return combine(p);
}

static void watch_all(struct pollset *p, struct waiter *w)
{
    p->partial = false;
    if (w == NULL)
        return;
    w->inside = !p->any_kernel;
    for (unsigned i = 0; i < p->n; i++) {
        struct usock *us = fd_usock(p->fds[i].fd);
        w->inside &= us != NULL && usock_inside(us);
        struct epset *ep = fd_epset(p->fds[i].fd);
        struct list *head = us != NULL ? &us->watches : ep != NULL ? &ep->watches : NULL;
        if (head == NULL)
            continue;
        const uint32_t events = ready_interest(accepted(p, p->fds[i].events));
        if (!waiter_watch_number(w, head, events, us != NULL ? p->fds[i].fd : -1)) {
            p->partial = true;
            break;
        }
    }
    list_for_each (n, &w->kept) {
        const struct hold *h = list_entry(n, struct hold, on_kept);
        p->partial |= !waiter_watch(w, &h->us->watches, h->kept_events, false);
    }
}

/*
 * select() does not care for every event that poll() always tells (HUP of a descriptor that is only
 * watched for writing): such descriptors would end each sleep at once and are left out of it.
 */
static void leave_out(struct pollset *p)
{
    p->left_out = true;
    for (unsigned i = 0; i < p->n; i++) {
        struct pollfd *k = &p->kernel[i];
        if (k->revents != 0)
            k->fd = -1;
    }
}

static int wait_for(struct pollset *p, nsec_t timeout, const sigset_t *mask)
{
    const struct sleep_signals since = sleep_signals_now();
    engine_enter(&p->cx);
    const nsec_t deadline = timeout < NSEC_NEVER - p->cx.now ? p->cx.now + timeout : NSEC_NEVER;
    for (unsigned i = 0; timeout != 0 && i < p->n; i++)
        wait_epoll_attach(&p->cx, p->fds[i].fd);
    look(p, true);
    if (p->user_ready != 0 ? sleep_drain_due(&p->cx) : timeout == 0) {
        if (p->user_ready != 0)
            engine_drain_passing(&p->cx);
        else
            engine_drain(&p->cx);
        look(p, true);
    }
    while (p->user_ready == 0 && p->cx.now < deadline) {
        struct waiter *w = waiter_begin();
        if (p->w == NULL && w != NULL)
            waiter_release(&p->cx, w); /* of a wait that a handler jumped out of */
        p->w = w;
        watch_all(p, w);
        const bool brief = p->partial || p->left_out;
        const nsec_t until = brief ? min_u64(deadline, p->cx.now + LOOK_AGAIN) : deadline;
        const int r = wait_sleep(&p->cx, w, p->kernel, p->n, until, mask, NULL);
        if (r < 0)
            return leave(p, r);
        if (r != 0 || w == NULL || !herd_waits(w) || p->cx.now >= deadline)
            look(p, r == 0);
        p->left_out = false;
        if (r > 0) {
            const int ready = combine(p);
            if (ready > 0)
                return leave(p, ready);
            leave_out(p);
        }
        if (unlikely(p->gone) && w->woken)
            break; /* Linux looks at all numbers again */
        if (p->user_ready == 0 && sleep_interrupted(&since, false) != 0)
            return leave(p, -EINTR);
    }
    return finish(p, mask);
}

struct mapping {
    void *base;
    size_t size;
};

static void unmap(void *arg)
{
    const struct mapping *m = arg;
    raw_munmap(m->base, m->size);
}

/* Apart, so that small sets do not pay for a cleanup handler. */
static int __attribute__((noinline))
wait_mapped(struct pollset *p, nsec_t timeout, const sigset_t *mask)
{
    struct mapping m = {.size = ((size_t)p->n + SLEEP_FDS) * sizeof(struct pollfd)};
    m.base = raw_mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw_is_error(m.base))
        return -ENOMEM;
    p->kernel = m.base;
    int r;
    pthread_cleanup_push(unmap, &m);
    r = wait_for(p, timeout, mask);
    pthread_cleanup_pop(1);
    return r;
}

static int __attribute__((noinline))
wait_local(struct pollset *p, nsec_t timeout, const sigset_t *mask)
{
    struct pollfd kernel[LOCAL_FDS + SLEEP_FDS];
    p->kernel = kernel;
    return wait_for(p, timeout, mask);
}

int pollset_wait(struct pollfd *fds, nfds_t n, nsec_t timeout, const sigset_t *mask, unsigned flags)
{
    if (n > INT32_MAX / sizeof(struct pollfd))
        return -EINVAL;
    struct pollset p = {.fds = fds, .n = (unsigned)n, .flags = flags};
    return n <= LOCAL_FDS ? wait_local(&p, timeout, mask) : wait_mapped(&p, timeout, mask);
}
