/*
 * Waiting on one socket, and what happens to waiters when a socket changes. The theory of sleeping
 * is in sleep.c, that of slots and wake-ups in waiter.h, that of epoll sets in epset.h.
 */
#include "shim/wait/wait.h"

#include <errno.h>

#include "shim/core/family.h"
#include "shim/core/thread.h"
#include "shim/libc/signal.h"
#include "shim/life/service.h"
#include "shim/wait/epset.h"
#include "shim/wait/herd.h"
#include "shim/wait/ready.h"
#include "shim/wait/sleep.h"
#include "shim/wait/spin.h"
#include "shim/wait/waiter.h"

void wait_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    struct usock *us = owner;
    if (us == NULL || list_empty(&us->watches))
        return;
    if (us->kind == USOCK_LISTENER)
        herd_notify(cx, us, events);
    else
        watches_notify(&us->watches, events, 0);
}

/* One more sleep of wait_socket(): 1: slept, nothing for us yet; else its result. */
static int wait_once(struct stack_cx *cx, struct waiter *w, struct usock *us, uint32_t events,
                     struct pollfd *kfd, nsec_t deadline, bool one, struct reader *reader)
{
    struct pollfd fds[1 + SLEEP_FDS];
    unsigned n = 0;
    if (kfd != NULL)
        fds[n++] = (struct pollfd){.fd = kfd->fd, .events = kfd->events};
    if (w != NULL)
        waiter_watch(w, &us->watches, events, one); /* the slot's own: never fails */
    int r = wait_sleep(cx, w, fds, n, deadline, NULL, reader);
    if (kfd != NULL)
        kfd->revents = fds[0].revents;
    if (r < 0)
        return r;
    return r > 0 || w == NULL || w->woken || reader_served(reader) ? 0 : 1;
}

static enum spin_kind kind_of(const struct usock *us, uint32_t events)
{
    if (us->kind == USOCK_LISTENER)
        return SPIN_CONNECTION;
    return (events & TCP_EV_IN) != 0 ? SPIN_DATA : SPIN_ROOM;
}

int wait_socket(struct stack_cx *cx, struct usock *us, uint32_t events, struct pollfd *kfd,
                nsec_t deadline, unsigned flags, struct reader *reader)
{
    const struct sleep_signals since = sleep_signals_now();
    /* Linux: a wait with a time-out is never restarted (sock_intr_errno). */
    const bool restart = (flags & WAIT_RESTART) != 0 && deadline == NSEC_NEVER;
    struct waiter *w = waiter_begin();
    if (w != NULL) {
        w->single = true;
        w->kind = kind_of(us, events);
        w->inside = usock_inside(us);
    }
    if (kfd != NULL)
        kfd->revents = 0;
    while (cx->now < deadline) {
        int r = wait_once(cx, w, us, events, kfd, deadline, (flags & WAIT_ONE) != 0, reader);
        if (r <= 0)
            return r;
        int interrupted = sleep_interrupted(&since, restart);
        if (interrupted != 0)
            return interrupted < 0 ? interrupted : 0;
    }
    return -EAGAIN;
}

void wait_wake_all(struct stack_cx *cx, struct usock *us)
{
    (void)cx;
    list_for_each_safe(n, &us->watches)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_WAITER)
            waiter_wake(container_of(watch, struct waiter_watch, watch)->who);
        else
            epitem_tell(watch); /* Linux: sk_state_change, an edge for whatever was asked */
    }
}

void wait_forget(struct stack_cx *cx, struct usock *us)
{
    list_for_each_safe(n, &us->watches)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL)
            epitem_remove(cx, watch);
    }
}

void wait_to_kernel(struct stack_cx *cx, struct usock *us)
{
    list_for_each_safe(n, &us->watches)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL)
            epitem_to_kernel(cx, watch);
    }
    waiter_cut(&us->watches);
}

void wait_listens(struct stack_cx *cx, struct usock *us)
{
    engine.sh->listened = true;
    list_for_each (n, &us->watches) {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL)
            epitem_listens(cx, watch);
    }
}

void wait_unlistens(struct stack_cx *cx, struct usock *us)
{
    list_for_each (n, &us->watches) {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL)
            epitem_unlistens(cx, watch);
    }
}

void wait_socket_init(struct usock *us)
{
    list_init(&us->watches);
}

void wait_after_fork_child(void)
{
    waiter_after_fork_child();
    service_after_fork_child();
    signals_after_fork_child();
    if (!engine_running())
        return;
    family_after_fork_child();
}
