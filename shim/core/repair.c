/*
 * The truth in the arena is: which objects live (the bitmaps of the pools), who holds which socket
 * and set (struct hold), which socket has which connection or listener (struct usock), which
 * members a set has (struct epitem), which processes there are. All lists between them, counts,
 * roles and wake-ups are made anew. Wake-ups that nobody needed are harmless: everyone looks again.
 */
#include "shim/core/repair.h"

#include "shim/core/family.h"
#include "shim/core/hold.h"
#include "shim/core/shared.h"
#include "shim/core/usock.h"
#include "shim/life/births.h"
#include "shim/link/impair_store.h"
#include "shim/link/link.h"
#include "shim/link/standing.h"
#include "shim/wait/epset.h"
#include "shim/wait/waiter.h"
#include "stack/tcp/flow.h"

/* ---- processes and waiters ---- */

static void repair_processes(struct shared *sh)
{
    uint32_t live = 0;
    sh->processes_high = min_u32(sh->processes_high, PROCESSES_MAX);
    for (uint32_t i = 0; i < sh->processes_high; i++) {
        struct process *p = &sh->processes[i];
        list_init(&p->relay);
        list_init(&p->holds);
        live += process_counts(p);
    }
    __atomic_store_n(&sh->processes_live, live, __ATOMIC_RELAXED);
}

static void forget_watch(void *object, void *arg)
{
    pool_free(arg, object);
}

/* Nobody watches anything or has a role any more: all who sleep are woken. */
static void repair_waiters(struct shared *sh)
{
    pool_each(&sh->watches, forget_watch, &sh->watches);
    list_init(&sh->sleepers);
    list_init(&sh->wakeups);
    list_init(&sh->herd);
    sh->driver = sh->heir = 0;
    sh->waiters_high = min_u32(sh->waiters_high, WAITERS_MAX);
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++) {
        struct waiter *w = waiter_at(sh, slot);
        list_init(&w->watches);
        list_init(&w->kept);
        list_init(&w->on_sleepers);
        list_init(&w->on_queue);
        list_init(&w->turn.on_herd);
        list_init(&w->own.of_waiter);
        list_init(&w->own.watch.on_sock);
        w->own.head = NULL;
        w->own.who = w;
        if (w->process > sh->processes_high)
            w->process = 0;
        if (w->process != 0)
            waiter_wake(w);
    }
}

/* ---- sockets and sets ---- */

static void begin_usock(void *object, void *arg)
{
    struct usock *us = object;
    (void)arg;
    list_init(&us->watches);
    us->refs = us->passing;
    us->calls = 0;
}

static void check_owner(struct tcp_conn *c, void *arg)
{
    if (tcp_owner(c) != NULL && !pool_owns(arg, tcp_owner(c)))
        tcp_set_owner(c, NULL);
}

/* What the socket says it has must live, and be held. */
static void check_usock(void *object, void *arg)
{
    struct usock *us = object;
    struct stack_cx *cx = arg;
    if (us->conn != NULL && (!tcp_is_conn(cx->st, us->conn) || !tcp_is_held(us->conn)))
        us->conn = NULL;
    if (us->listener != NULL && !tcp_is_listener(cx->st, us->listener))
        us->listener = NULL;
    if ((us->kind == USOCK_CONN && us->conn == NULL) ||
        (us->kind == USOCK_LISTENER && us->listener == NULL))
        us->kind = USOCK_UNDECIDED;
    if (us->conn != NULL)
        tcp_set_owner(us->conn, us);
}

static void begin_epset(void *object, void *arg)
{
    struct epset *ep = object;
    (void)arg;
    ep->refs = 0;
    list_init(&ep->items);
    list_init(&ep->ready);
    list_init(&ep->watches);
}

static void enter_hold(void *object, void *arg)
{
    struct hold *h = object;
    struct shared *sh = arg;
    const bool socket = h->us != NULL && pool_owns(&sh->usocks, h->us);
    const bool set = h->us == NULL && h->ep != NULL && pool_owns(&sh->epsets, h->ep);
    if (list_linked(&h->on_kept) || (!socket && !set) || h->process - 1 >= sh->processes_high ||
        process_at(sh, h->process)->state == PROCESS_FREE) {
        pool_free(&sh->holds, h);
        return;
    }
    list_push_back(&process_at(sh, h->process)->holds, &h->of_process);
    if (socket) {
        h->us->refs += h->fd >= 0;
        h->us->calls += h->calls;
    } else {
        h->ep->refs += h->fd >= 0;
    }
}

static void enter_item(void *object, void *arg)
{
    struct epitem *item = object;
    struct shared *sh = arg;
    const bool member = item->us != NULL
                            ? pool_owns(&sh->usocks, item->us)
                            : item->inner != NULL && pool_owns(&sh->epsets, item->inner);
    if (item->set == NULL || !pool_owns(&sh->epsets, item->set) || !member) {
        pool_free(&sh->epitems, item);
        return;
    }
    struct list *watches = item->us != NULL ? &item->us->watches : &item->inner->watches;
    list_push_back(&item->set->items, &item->on_set);
    list_push_back(&item->set->ready, &item->on_ready); /* whoever takes it looks */
    list_init(&item->turn.on_herd);
    item->watch.kind = WATCH_EPOLL;
    if (epitem_exclusive(&item->watch))
        list_push_back(watches, &item->watch.on_sock);
    else
        list_push_front(watches, &item->watch.on_sock);
}

/* ---- what nobody has any more ---- */

static void end_conn(struct tcp_conn *c, void *arg)
{
    struct stack_cx *cx = arg;
    struct usock *us = tcp_owner(c);
    if (!tcp_is_held(c) || (us != NULL && pool_owns(&engine.sh->usocks, us) && us->conn == c))
        return;
    tcp_set_owner(c, NULL);
    tcp_close(cx, c);
}

static void end_listener(struct tcp_listener *l, void *arg)
{
    struct stack_cx *cx = arg;
    struct usock *us = tcp_listener_owner(l);
    if (us == NULL || !pool_owns(&engine.sh->usocks, us) || us->listener != l)
        tcp_listener_close(cx, l);
}

static void end_usock(void *object, void *arg)
{
    usock_settle(arg, object); /* frees it where there is neither a hold nor a call */
}

static void end_epset(void *object, void *arg)
{
    epset_dropped(arg, object);
}

/* ---- the link ---- */

static void note_conn(struct tcp_conn *c, void *arg)
{
    if (tcp_state(c) != TCP_CLOSED)
        link_filter_note(arg, tcp_flow(c)->tuple.lport);
}

static void note_listener(struct tcp_listener *l, void *arg)
{
    link_filter_note(arg, tcp_listener_port(l));
}

static void note_bound(void *object, void *arg)
{
    const struct usock *us = object;
    if (us->kernel_bound && us->local.port != 0)
        link_filter_note(arg, us->local.port);
}

/* The process may have died between a change of the set and the filter made of it. */
void family_repair_filter(struct stack_cx *cx)
{
    engine.sh->filter_broken = false;
    if (engine.link == NULL)
        return;
    link_filter_forget(engine.link);
    tcp_each_conn(cx->st, note_conn, engine.link);
    tcp_each_listener(cx->st, note_listener, engine.link);
    pool_each(&engine.sh->usocks, note_bound, engine.link);
    link_filter_update(engine.link);
}

void family_repair(struct stack_cx *cx)
{
    struct shared *sh = engine.sh;
    struct pool *const pools[] = {&sh->usocks, &sh->watches, &sh->epsets, &sh->epitems, &sh->holds};
    for (unsigned i = 0; i < ARRAY_LEN(pools); i++)
        pool_repair(pools[i]);
    impair_store_repair(&sh->impair);
    standing_repair(&sh->standing, !sh->held_out);
    sh->held_out = false;
    pool_each(&sh->usocks, begin_usock, NULL);
    pool_each(&sh->epsets, begin_epset, NULL);
    repair_processes(sh);
    pool_each(&sh->holds, enter_hold, sh);
    pool_each(&sh->epitems, enter_item, sh);
    repair_waiters(sh);
    tcp_each_conn(cx->st, check_owner, &sh->usocks);
    stack_repair(cx);
    pool_each(&sh->usocks, check_usock, cx);
    tcp_each_conn(cx->st, end_conn, cx);
    tcp_each_listener(cx->st, end_listener, cx);
    pool_each(&sh->epsets, end_epset, cx);
    pool_each(&sh->usocks, end_usock, cx);
    sh->filter_broken = true;
    sh->repairs++;
    births_ring();
}
