#include "shim/wait/waiter.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/eventfd.h>

#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/thread.h"
#include "shim/life/births.h"
#include "shim/wait/epset.h"
#include "shim/wait/herd.h"
#include "shim/wait/sleep.h"
#include "shim/wait/spin.h"
#include "shim/wait/word.h"

/* Process-local. By slot - 1: the slot's eventfd, or 0; and the next of this process's idle slots.
 */
static int wake_fds[WAITERS_MAX];
static uint16_t next_idle[WAITERS_MAX];
static uint32_t first_idle; /* slot; 0: none */
static pthread_key_t thread_key;
static bool thread_key_made;

/* ---- slots ---- */

static void waiter_free(struct waiter *w)
{
    sleep_forget(w);
    list_remove(&w->on_queue);
    list_remove(&w->turn.on_herd);
    while (list_pop_front(&w->kept) != NULL)
        ;
    w->process = 0;
}

/* When all slots were given out once: one that came free. */
static uint32_t waiter_search(struct shared *sh)
{
    for (uint32_t slot = 1; slot <= WAITERS_MAX; slot++)
        if (waiter_at(sh, slot)->process == 0)
            return slot;
    return 0;
}

static int new_eventfd(void)
{
    struct rlimit limit;
    int fd = (int)raw_syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK, 0, 0, 0, 0);
    if (unlikely(fd == -EMFILE) && fd_limit_lift(&limit)) {
        fd = (int)raw_syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK, 0, 0, 0, 0);
        fd_limit_restore(&limit);
    }
    return fd;
}

uint32_t waiter_claim(void)
{
    struct shared *sh = engine.sh;
    uint32_t slot = first_idle;
    if (slot != 0) {
        first_idle = next_idle[slot - 1];
    } else if (sh->waiters_high < WAITERS_MAX) {
        slot = ++sh->waiters_high;
    } else {
        slot = waiter_search(sh);
        if (slot == 0)
            return 0;
    }
    struct waiter *w = waiter_at(sh, slot);
    if (w->watches.next == NULL) {
        list_init(&w->watches);
        list_init(&w->kept);
        list_init(&w->on_sleepers);
        list_init(&w->on_queue);
        w->own.who = w;
    }
    w->process = process_number();
    w->woken = w->asleep = w->spins = w->service = false;
    if (wake_fds[slot - 1] == 0) {
        int fd = new_eventfd();
        if (fd >= 0)
            wake_fds[slot - 1] = fd_make_internal(fd);
    }
    return slot;
}

int waiter_fd(uint32_t slot)
{
    return wake_fds[slot - 1];
}

/* The thread ends: its slot and eventfd wait for the next one. */
static void waiter_thread_end(void *unused)
{
    (void)unused;
    struct thread_state *t = &thread_state;
    t->exit_hook = false;
    if (t->slot == 0 || !engine_running())
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    struct waiter *w = waiter_at(engine.sh, t->slot);
    sleep_forget(w);
    waiter_release(&cx, w);
    next_idle[t->slot - 1] = (uint16_t)first_idle;
    first_idle = t->slot;
    t->slot = 0;
    t->wake_fd = 0;
    engine_leave(&cx);
}

void waiter_thread_hook(void)
{
    if (likely(thread_state.exit_hook))
        return;
    thread_state.exit_hook = true;
    if (thread_key_made)
        pthread_setspecific(thread_key, &engine);
}

struct waiter *waiter_begin(void)
{
    struct thread_state *t = &thread_state;
    if (unlikely(t->slot == 0)) {
        t->slot = waiter_claim();
        if (t->slot == 0)
            return NULL;
        t->wake_fd = wake_fds[t->slot - 1];
    }
    struct waiter *w = waiter_at(engine.sh, t->slot);
    w->woken = w->single = w->inside = false;
    w->kind = SPIN_SET;
    return w;
}

/* ---- watches ---- */

bool waiter_watch(struct waiter *w, struct list *head, uint32_t events, bool exclusive)
{
    struct waiter_watch *ww = &w->own;
    bool pooled = ww->head != NULL || list_linked(&ww->of_waiter);
    if (pooled) {
        ww = pool_alloc(&engine.sh->watches);
        if (ww == NULL)
            return false;
    }
    ww->pooled = pooled;
    ww->who = w;
    ww->head = head;
    ww->exclusive = exclusive;
    ww->fd = -1;
    ww->watch.kind = WATCH_WAITER;
    ww->watch.events = events;
    /* The driver runs anyway: it is asked first, so that no other thread need be woken. */
    if (exclusive && engine.sh->driver == waiter_slot(engine.sh, w))
        list_push_front(head, &ww->watch.on_sock);
    else
        list_push_back(head, &ww->watch.on_sock);
    list_push_back(&w->watches, &ww->of_waiter);
    return true;
}

bool waiter_watch_number(struct waiter *w, struct list *head, uint32_t events, int fd)
{
    if (!waiter_watch(w, head, events, false))
        return false;
    list_last(&w->watches, struct waiter_watch, of_waiter)->fd = fd;
    return true;
}

void waiter_keep(struct usock *us, int fd)
{
    list_for_each (n, &us->watches) {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind != WATCH_WAITER)
            continue;
        const struct waiter_watch *ww = container_of(watch, struct waiter_watch, watch);
        if (ww->fd != fd || ww->who->process != process_number())
            continue;
        struct hold *h = hold_keep(us, fd, watch->events);
        if (h != NULL)
            list_push_back(&ww->who->kept, &h->on_kept);
        else
            waiter_wake(ww->who);
    }
}

bool waiter_keeps(const struct waiter *w, int fd)
{
    list_for_each (n, &w->kept)
        if (list_entry(n, struct hold, on_kept)->kept_fd == fd)
            return true;
    return false;
}

void waiter_release(struct stack_cx *cx, struct waiter *w)
{
    struct list *n;
    while (unlikely((n = list_pop_front(&w->kept)) != NULL)) {
        struct hold *h = list_entry(n, struct hold, on_kept);
        struct usock *us = h->us;
        hold_leave(h);
        usock_settle(cx, us);
    }
}

void waiter_unwatch(struct waiter *w, bool pass_on)
{
    struct list *n;
    if (w->watches.next == NULL)
        return;
    while ((n = list_pop_front(&w->watches)) != NULL) {
        struct waiter_watch *ww = list_entry(n, struct waiter_watch, of_waiter);
        struct list *head = ww->head;
        list_remove(&ww->watch.on_sock);
        ww->head = NULL;
        if (pass_on && ww->exclusive && w->woken && head != NULL)
            watches_notify(head, TCP_EV_IN, 0);
        if (ww->pooled)
            pool_free(&engine.sh->watches, ww);
    }
}

void waiter_cut(struct list *head)
{
    list_for_each_safe(n, head)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind != WATCH_WAITER)
            continue;
        struct waiter_watch *ww = container_of(watch, struct waiter_watch, watch);
        list_remove(n);
        ww->head = NULL;
        waiter_wake(ww->who);
    }
}

bool watches_notify(struct list *head, uint32_t events, unsigned depth)
{
    const uint32_t always = TCP_EV_ERR | TCP_EV_HUP;
    struct watch *exclusive_item = NULL;
    bool waiter_taken = false, woke = false;
    list_for_each_safe(n, head)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if ((events & (watch->events | always)) == 0)
            continue;
        if (watch->kind == WATCH_EPOLL) {
            bool exclusive = epitem_exclusive(watch);
            if (exclusive && exclusive_item != NULL)
                continue;
            if (epitem_notify(watch, depth)) {
                woke = true;
                if (exclusive)
                    exclusive_item = watch;
            }
            continue;
        }
        struct waiter_watch *ww = container_of(watch, struct waiter_watch, watch);
        if (ww->exclusive) {
            if (waiter_taken || ww->who->woken)
                continue;
            waiter_taken = true;
        } else if (herd_holds(&ww->who->turn, head)) {
            continue;
        }
        woke = true;
        waiter_wake(ww->who);
    }
    if (exclusive_item != NULL) { /* the next event is another's turn */
        list_remove(&exclusive_item->on_sock);
        list_push_back(head, &exclusive_item->on_sock);
    }
    return woke;
}

void watches_wake_one(struct list *head)
{
    list_for_each (n, head) {
        const struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind != WATCH_WAITER)
            continue;
        const struct waiter_watch *ww = container_of(watch, struct waiter_watch, watch);
        if (ww->exclusive && !ww->who->woken) {
            waiter_wake(ww->who);
            return;
        }
    }
}

/* ---- wake-ups ---- */

void waiter_wake(struct waiter *w)
{
    w->woken = true;
    if (w->asleep && !list_linked(&w->on_queue))
        list_push_back(&engine.sh->wakeups, &w->on_queue);
}

static void wake_fd_write(int fd)
{
    const uint64_t one = 1;
    if (fd > 0)
        raw_write(fd, &one, sizeof(one));
}

void bell_ring(uint32_t *bell)
{
    __atomic_add_fetch(bell, 1, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)bell, FUTEX_WAKE, 1, 0, 0, 0);
}

static void wakeups_add_bell(struct wakeups *out, uint32_t *bell)
{
    for (unsigned i = 0; i < out->bells; i++)
        if (out->bell[i] == bell)
            return;
    if (out->bells < ARRAY_LEN(out->bell))
        out->bell[out->bells++] = bell;
    else
        bell_ring(bell);
}

/*
 * A sleeper of another process. Whoever drives sleeps on the family's bell; others are woken by
 * their service thread, which listens for its doorbell, or for the bell while it drives.
 */
static void wake_foreign(struct shared *sh, struct waiter *w, struct wakeups *out)
{
    struct process *p = &sh->processes[w->process - 1];
    if (sh->driver == waiter_slot(sh, w)) {
        out->family = true;
        return;
    }
    list_push_back(&p->relay, &w->on_queue);
    if (p->service == SERVICE_DRIVE)
        out->family = true;
    else
        wakeups_add_bell(out, &p->doorbell);
}

void waiter_collect(struct shared *sh, struct wakeups *out)
{
    out->fds = out->bells = out->words = 0;
    out->family = false;
    struct process *self = process_self();
    if (self != NULL && self->ring) {
        self->ring = false;
        wakeups_add_bell(out, &self->doorbell);
    }
    struct list *n;
    while ((n = list_pop_front(&sh->wakeups)) != NULL) {
        struct waiter *w = list_entry(n, struct waiter, on_queue);
        if (w->by_word) {
            if (out->words < WAKEUPS_BATCH)
                out->word[out->words++] = w;
            else
                word_wake(w);
            continue;
        }
        if (w->process != process_number()) {
            if (w->process != 0)
                wake_foreign(sh, w, out);
            continue;
        }
        int fd = wake_fds[waiter_slot(sh, w) - 1];
        if (out->fds < WAKEUPS_BATCH)
            out->fd[out->fds++] = fd;
        else
            wake_fd_write(fd);
    }
}

void waiter_send(const struct wakeups *w)
{
    for (unsigned i = 0; i < w->words; i++)
        word_wake(w->word[i]);
    for (unsigned i = 0; i < w->fds; i++)
        wake_fd_write(w->fd[i]);
    for (unsigned i = 0; i < w->bells; i++)
        bell_ring(w->bell[i]);
    if (unlikely(w->family))
        births_ring();
}

void waiter_ring(struct shared *sh, struct process *p)
{
    (void)sh;
    p->service = SERVICE_TICK;
    if (p == process_self())
        p->ring = true; /* by waiter_collect(), when the lock is gone */
    else
        bell_ring(&p->doorbell);
}

void waiter_relay(void)
{
    struct shared *sh = engine.sh;
    struct process *self = process_self();
    wait_shared_sets();
    if (self == NULL || __atomic_load_n(&self->relay.next, __ATOMIC_RELAXED) == &self->relay)
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    struct list *n;
    while ((n = list_pop_front(&self->relay)) != NULL) {
        struct waiter *w = list_entry(n, struct waiter, on_queue);
        if (w->process == process_number())
            wake_fd_write(wake_fds[waiter_slot(sh, w) - 1]);
    }
    engine_leave(&cx);
}

void waiter_wake_again(struct shared *sh)
{
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++) {
        struct waiter *w = waiter_at(sh, slot);
        if (w->process != 0 && w->asleep && w->by_word)
            word_wake_again(w);
    }
}

void waiter_prepare(void)
{
    if (!thread_key_made)
        thread_key_made = pthread_key_create(&thread_key, waiter_thread_end) == 0;
}

void waiter_free_all(uint32_t process)
{
    struct shared *sh = engine.sh;
    for (uint32_t slot = 1; slot <= sh->waiters_high; slot++)
        if (waiter_at(sh, slot)->process == process)
            waiter_free(waiter_at(sh, slot));
}

void waiter_after_fork_child(void)
{
    struct thread_state *t = &thread_state;
    for (unsigned i = 0; i < WAITERS_MAX; i++) {
        int fd = wake_fds[i];
        if (fd == 0)
            continue;
        if (fd_is_internal(fd))
            fd_release_internal(fd);
        else
            raw_close(fd);
        wake_fds[i] = 0;
    }
    first_idle = 0;
    t->slot = 0;
    t->wake_fd = 0;
    t->asleep = false;
}
