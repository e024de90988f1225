/*
 * The life of user sockets. References count descriptors over all processes of the family; calls
 * count threads inside a call. As in the kernel, where a call holds the file, close() in one thread
 * does not end a recv() of another: the connection is closed by whoever leaves last.
 */
#include "shim/core/usock.h"

#include <errno.h>

#include "shim/core/engine.h"
#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/core/thread.h"
#include "shim/life/keeper.h"
#include "shim/life/service.h"
#include "shim/link/guard.h"
#include "shim/link/link.h"
#include "shim/wait/epset.h"
#include "shim/wait/wait.h"
#include "shim/wait/waiter.h"

struct usock *usock_new(struct stack_cx *cx, int family)
{
    (void)cx;
    struct usock *us = pool_alloc(&engine.sh->usocks);
    if (us == NULL)
        return NULL;
    us->kind = USOCK_UNDECIDED;
    us->family = (uint8_t)family;
    us->peek_off = -1;
    wait_socket_init(us);
    return us;
}

struct tcp_conn *usock_conn(struct stack_cx *cx, struct usock *us)
{
    if (us->conn == NULL) {
        us->conn = tcp_open(cx);
        if (us->conn != NULL)
            tcp_set_owner(us->conn, us);
    }
    return us->conn;
}

/* The port of a listener that was closed needs no frames any more, unless its connections live. */
static void forget_port(struct stack_cx *cx, uint16_t port)
{
    if (port == 0 || tcp_port_in_use(cx->st, port))
        return;
    link_filter_remove_port(engine.link, port);
    link_filter_update(engine.link);
}

static void close_engine_side(struct stack_cx *cx, struct usock *us)
{
    if (us->conn != NULL) {
        tcp_set_owner(us->conn, NULL);
        tcp_close(cx, us->conn);
        us->conn = NULL;
    }
    if (us->listener != NULL) {
        tcp_listener_close(cx, us->listener);
        us->listener = NULL;
        forget_port(cx, us->local.port);
    }
}

void usock_settle(struct stack_cx *cx, struct usock *us)
{
    if (us->refs != 0 || us->calls != 0)
        return;
    close_engine_side(cx, us);
    wait_wake_all(cx, us);
    wait_forget(cx, us);
    while (list_pop_front(&us->watches) != NULL)
        ;
    pool_free(&engine.sh->usocks, us);
}

/* No descriptor is left. */
static void last_dropped(struct stack_cx *cx, struct usock *us)
{
    wait_forget(cx, us);
    usock_settle(cx, us);
}

void usock_dropped(struct stack_cx *cx, struct usock *us, bool counted)
{
    if (us->refs != 0)
        return;
    if (counted)
        wait_forget(cx, us);
    usock_settle(cx, us);
}

static void drop(struct stack_cx *cx, struct usock *us, int fd)
{
    const uint16_t guarded_port = us->guarded ? us->local.port : 0;
    last_dropped(cx, us);
    if (guarded_port == 0)
        return;
    if (fd >= 0 && tcp_port_in_use(cx->st, guarded_port))
        guard_keep(fd, guarded_port);
    else
        guard_end(fd, guarded_port);
}

void usock_drop(struct stack_cx *cx, struct usock *us, int fd, bool open)
{
    if (unlikely(!list_empty(&us->watches)))
        waiter_keep(us, fd);
    hold_release(fd);
    if (us->refs == 0)
        drop(cx, us, open ? fd : -1);
}

/* Clears this process's entries for us. */
static void clear_entries(const struct usock *us)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        if (fd_usock((int)fd) == us)
            hold_release((int)fd);
    }
}

void usock_to_kernel(struct stack_cx *cx, struct usock *us)
{
    us->kind = USOCK_KERNEL;
    close_engine_side(cx, us);
    wait_to_kernel(cx, us);
    clear_entries(us);
    usock_settle(cx, us);
}

/* This process ends, its other threads are stopped: they never come back from their calls. */
static void forget_calls(struct hold *h)
{
    h->us->calls -= h->calls;
    h->calls = 0;
}

void usock_drop_all(struct stack_cx *cx, bool keep_shared)
{
    epset_drop_all(cx, keep_shared);
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct usock *us = fd_usock((int)fd);
        if (us == NULL || fd_hold((int)fd) == NULL)
            continue;
        if (engine_frozen()) { /* threads must not find the kernel's socket: the entry stays */
            forget_calls(fd_hold((int)fd));
            hold_forget((int)fd);
        } else if (keep_shared && us->refs > 1) {
            hold_forget((int)fd);
        } else {
            hold_release((int)fd);
        }
        if (us->refs == 0)
            drop(cx, us, (int)fd);
    }
}

void usock_leave(struct stack_cx *cx, struct usock *us, int fd)
{
    if (us->refs == 1)
        hold_release(fd);
    else
        hold_forget(fd);
    if (us->refs == 0)
        drop(cx, us, fd);
}

/* A fork in progress in this thread. The engine lock is held from before it until its result is
 * known. */
static __thread struct stack_cx fork_cx __attribute__((tls_model("initial-exec")));
static __thread bool fork_entered __attribute__((tls_model("initial-exec")));
static __thread bool fork_watched __attribute__((tls_model("initial-exec")));

void fds_watch_fork(void)
{
    fork_watched = true;
}

void fds_before_fork(void)
{
    fork_entered = engine_running() && !engine_inside();
    if (!fork_entered)
        return;
    wait_before_fork();
    engine_enter(&fork_cx);
    family_before_fork();
}

static void leave_fork(void)
{
    if (!fork_entered)
        return;
    fork_entered = false;
    service_forked();
    engine_leave(&fork_cx);
}

void fds_forked(int pid)
{
    fork_watched = false;
    if (fork_entered && pid < 0)
        family_fork_failed();
    else if (fork_entered)
        family_forked(pid);
    leave_fork();
}

void fds_after_fork_parent(void)
{
    if (fork_watched)
        return;
    if (fork_entered)
        family_forked(0);
    leave_fork();
}

void fds_after_fork_child(void)
{
    fork_watched = false;
    if (!fork_entered)
        return;
    fork_entered = false;
    struct thread_state *t = &thread_state;
    t->inside = 0;
    pthread_setcancelstate(t->cancel_state, NULL);
    uint64_t deferred = t->deferred; /* pending in the parent only, but blocked here too */
    t->deferred = 0;
    if (deferred != 0)
        raw_sigprocmask(SIG_UNBLOCK, &deferred, NULL);
}
