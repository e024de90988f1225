/*
 * Waiter slots: who sleeps, on what, and how to wake it. All entered (engine_enter) but for
 * waiter_send() and waiter_thread_hook().
 *
 * A thread claims a slot at its first wait and keeps it. The slot's eventfd belongs to the slot and
 * stays open for the life of the process, also when the thread ends: a wake-up that was decided
 * under the lock is sent after it, and must never hit a descriptor that the program got meanwhile.
 */
#pragma once

#include "shim/core/family.h"
#include "shim/core/shared.h"

/* The calling thread's slot with `woken` cleared; NULL when there are no slots left. */
struct waiter *waiter_begin(void);
/*
 * Registers the waiter on a list of watches (usock.watches, epset.watches) for TCP_EV_* events;
 * ERR and HUP always count. False: no memory; the caller then sleeps for a short while only.
 */
bool waiter_watch(struct waiter *w, struct list *head, uint32_t events, bool exclusive);
/* The same for poll() by descriptor fd: its socket outlives the descriptor (waiter_keep()). */
bool waiter_watch_number(struct waiter *w, struct list *head, uint32_t events, int fd);
/*
 * Descriptor fd of the socket is about to be closed. Threads of this process that poll it by that
 * number go on, and keep the socket, until waiter_release().
 */
void waiter_keep(struct usock *us, int fd);
/* Whether the waiter keeps a socket that it polls by the number. */
bool waiter_keeps(const struct waiter *w, int fd);
void waiter_release(struct stack_cx *cx, struct waiter *w);
/* Takes all its watches back; an exclusive wake-up that it did not use goes to the next (pass_on).
 */
void waiter_unwatch(struct waiter *w, bool pass_on);
/* Marks it woken and, if it sleeps, queues the wake-up for engine_leave(). */
void waiter_wake(struct waiter *w);
/* Every watch on the list is cut off, its waiter woken: the list's owner goes away. */
void waiter_cut(struct list *head);
/*
 * Something happened to the owner of this list: sleepers are marked, epoll members become ready.
 * Whether a sleeper was found. depth: of epoll sets inside epoll sets, 0 for a socket's list.
 */
bool watches_notify(struct list *head, uint32_t events, unsigned depth);
/* Wakes one of those that sleep in turns, if any is there. */
void watches_wake_one(struct list *head);

/* What engine_leave() sends when the lock is gone. */
#define WAKEUPS_BATCH 24
struct wakeups {
    unsigned fds, bells, words;
    bool family; /* the bell that whoever drives sleeps on (shim/life/births.h) */
    int fd[WAKEUPS_BATCH];
    struct waiter *word[WAKEUPS_BATCH];
    uint32_t *bell[4];
};
void waiter_collect(struct shared *sh, struct wakeups *out);
void waiter_send(const struct wakeups *w);
/* All who sleep on their word look again: a wake-up may have died with who was to send it. */
void waiter_wake_again(struct shared *sh);
/* The service thread's part: sends what other processes queued for sleepers of this one. Not
 * entered. */
void waiter_relay(void);
/* Rings a process's service thread from under the lock. */
void waiter_ring(struct shared *sh, struct process *p);

/* Not entered, before a sleep: makes sure that the slot comes back when the thread ends. */
void waiter_thread_hook(void);
/* A doorbell's (process.doorbell). */
void bell_ring(uint32_t *bell);
/* At engine_attach(). */
void waiter_prepare(void);
/* The process (index + 1) has no threads any more: its slots are free. */
void waiter_free_all(uint32_t process);
/* Claims a slot that no thread owns (service thread). 0: none left. */
uint32_t waiter_claim(void);
int waiter_fd(uint32_t slot);
static inline struct waiter *waiter_at(struct shared *sh, uint32_t slot)
{
    return &sh->waiters[slot - 1];
}
static inline uint32_t waiter_slot(const struct shared *sh, const struct waiter *w)
{
    return (uint32_t)(w - sh->waiters) + 1;
}
/* fork's child: forgets the parent's slots and closes their eventfds. */
void waiter_after_fork_child(void);
