#include "shim/wait/herd.h"

#include "shim/wait/ready.h"
#include "shim/wait/waiter.h"

/* From this turn on all are told at once. */
#define TURNS_MAX 8

static struct epitem *item_of(const struct watch *watch)
{
    return container_of(watch, struct epitem, watch);
}

static const struct waiter_watch *waiter_watch_of(const struct watch *watch)
{
    return container_of(watch, struct waiter_watch, watch);
}

/* It is the driver, and awake: it needs no wake-up. */
static bool is_at_work(const struct waiter *w)
{
    return !w->asleep && engine.sh->driver == waiter_slot(engine.sh, w);
}

/*
 * Whether nobody watches the set but threads in epoll_wait(), of whom one was not woken yet.
 * at_work: whether one of them is at work.
 */
static bool set_sleeps(const struct epset *ep, bool *at_work)
{
    bool can_wake = false;
    list_for_each (n, &ep->watches) {
        const struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind != WATCH_WAITER || !waiter_watch_of(watch)->exclusive)
            return false;
        const struct waiter *w = waiter_watch_of(watch)->who;
        if (w->woken)
            continue;
        can_wake = true;
        *at_work |= is_at_work(w);
    }
    return can_wake;
}

/* The turn of a watch that can have one; else NULL. */
static struct herd_turn *turn_of(const struct watch *watch, bool *at_work)
{
    *at_work = false;
    if ((watch->events & TCP_EV_IN) == 0)
        return NULL;
    if (watch->kind == WATCH_WAITER) {
        const struct waiter_watch *ww = waiter_watch_of(watch);
        if (ww->exclusive || ww->who->woken)
            return NULL;
        *at_work = is_at_work(ww->who);
        return &ww->who->turn;
    }
    struct epitem *item = item_of(watch);
    if (epitem_exclusive(watch) || item->disabled || !set_sleeps(item->set, at_work))
        return NULL;
    return &item->turn;
}

/* The list is in the order of their turns. */
static void hold(struct herd_turn *turn, nsec_t at)
{
    struct list *herd = &engine.sh->herd;
    struct list *pos = herd;
    while (pos->prev != herd && list_entry(pos->prev, struct herd_turn, on_herd)->at > at)
        pos = pos->prev;
    turn->at = at;
    list_insert_before(pos, &turn->on_herd);
}

void herd_notify(struct stack_cx *cx, struct usock *us, uint32_t events)
{
    struct herd_turn *first = NULL;
    struct epset *told = NULL;
    bool at_work, first_at_work = false;
    list_for_each (n, &us->watches) {
        const struct watch *watch = list_entry(n, struct watch, on_sock);
        struct herd_turn *turn = turn_of(watch, &at_work);
        if (turn != NULL && (first == NULL || (at_work && !first_at_work))) {
            first = turn;
            first_at_work = at_work;
            told = watch->kind == WATCH_EPOLL ? item_of(watch)->set : NULL;
        }
    }
    if (first != NULL)
        list_remove(&first->on_herd);
    if (told != NULL)
        epset_let_go(told);
    unsigned before = 0;
    list_for_each (n, &us->watches) {
        const struct watch *watch = list_entry(n, struct watch, on_sock);
        struct herd_turn *turn = turn_of(watch, &at_work);
        if (turn == NULL || turn == first ||
            (watch->kind == WATCH_EPOLL && item_of(watch)->set == told))
            continue;
        before += before < TURNS_MAX;
        if (!list_linked(&turn->on_herd)) {
            turn->listener = watch->kind == WATCH_WAITER ? &us->watches : NULL;
            hold(turn, cx->now + before * HERD_PATIENCE);
        }
    }
    watches_notify(&us->watches, events, 0);
}

/* Whether the waiter still waits for the listener of its turn, which has something to accept. */
static bool waiter_wants(const struct waiter *w)
{
    list_for_each (n, &w->watches) {
        const struct list *head = list_entry(n, struct waiter_watch, of_waiter)->head;
        if (head != w->turn.listener)
            continue;
        return (ready_now(container_of(head, struct usock, watches)) & TCP_EV_IN) != 0;
    }
    return false;
}

static bool still_wants(const struct herd_turn *turn)
{
    return turn->listener != NULL ? waiter_wants(container_of(turn, struct waiter, turn))
                                  : epitem_ready(container_of(turn, struct epitem, turn));
}

void herd_release(struct stack_cx *cx)
{
    struct list *herd = &engine.sh->herd;
    while (!list_empty(herd) && list_first(herd, struct herd_turn, on_herd)->at <= cx->now) {
        struct herd_turn *turn = list_first(herd, struct herd_turn, on_herd);
        const bool tell = still_wants(turn);
        list_remove(&turn->on_herd);
        if (tell && turn->listener != NULL)
            waiter_wake(container_of(turn, struct waiter, turn));
        else if (tell)
            epitem_tell(&container_of(turn, struct epitem, turn)->watch);
    }
}

nsec_t herd_deadline(struct shared *sh)
{
    while (unlikely(!list_empty(&sh->herd))) {
        struct herd_turn *turn = list_first(&sh->herd, struct herd_turn, on_herd);
        if (still_wants(turn))
            return turn->at;
        list_remove(&turn->on_herd);
    }
    return NSEC_NEVER;
}
