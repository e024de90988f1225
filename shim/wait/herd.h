/*
 * Processes that wait for connections of one listener in epoll sets of their own, or in poll and
 * select: the thundering herd. Linux wakes them all; who runs first accepts before the others look,
 * so these sleep on. Here the wake-up of another process takes longer than accept(), and all would
 * return for nothing.
 *
 * So one of them is told of a connection, and the others that sleep one after another,
 * HERD_PATIENCE apart, as long as nobody has accepted. Meanwhile a call that begins finds the
 * connection, a thread that wakes for something else does not.
 *
 * EPOLLEXCLUSIVE members, accept() and other sockets than listeners have no turns. All entered.
 */
#pragma once

#include "shim/core/shared.h"
#include "shim/wait/epset.h"

#define HERD_PATIENCE NSEC_PER_MSEC

/* The listener has something to accept: watches_notify() in turns. */
void herd_notify(struct stack_cx *cx, struct usock *us, uint32_t events);
/* Tells those whose turn it is. */
void herd_release(struct stack_cx *cx);
/* When the next is to be told; NSEC_NEVER. Forgets those who need not be told any more. */
nsec_t herd_deadline(struct shared *sh);

/* Whether the member's set is to be told later. */
static inline bool herd_held(const struct epitem *item)
{
    return unlikely(list_linked(&item->turn.on_herd));
}

/* Whether the turn's waiter is to be told later of what its watch on this list is for. */
static inline bool herd_holds(const struct herd_turn *turn, const struct list *watches)
{
    return unlikely(list_linked(&turn->on_herd)) && turn->listener == watches;
}

/* The waiter awoke, but not for what it waits for, and is to be told later of a connection. */
static inline bool herd_waits(const struct waiter *w)
{
    return unlikely(list_linked(&w->turn.on_herd)) && !w->woken;
}
