#include "shim/wait/epset.h"

#include <errno.h>
#include <fcntl.h>

#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/wait/herd.h"
#include "shim/wait/ready.h"
#include "shim/wait/waiter.h"

/* Sets inside sets, as the kernel's EP_MAX_NESTS. */
#define DEPTH_MAX 5
/* Members that epset_inside() looks at: each sleep does. */
#define INSIDE_MAX 4

static struct epitem *item_of(const struct watch *watch)
{
    return container_of(watch, struct epitem, watch);
}

/* ---- the kernel's set ---- */

static int kernel_ctl(int epfd, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return (int)raw_syscall(SYS_epoll_ctl, epfd, op, fd, (long)&event, 0, 0);
}

/* A descriptor of the set in this process; -1: none is left. */
static int set_fd(const struct epitem *item)
{
    if (fd_epset(item->epfd) == item->set)
        return item->epfd;
    for (unsigned fd = 0; fd < fd_high(); fd++)
        if (fd_epset((int)fd) == item->set)
            return (int)fd;
    return -1;
}

static uint64_t cookie_of(const struct epitem *item)
{
    return (uint64_t)(uintptr_t)item;
}

static int twin_add(struct epitem *item, int op)
{
    int err = kernel_ctl(set_fd(item), op, item->fd, item->events, cookie_of(item));
    if (err < 0)
        return err;
    item->twin = true;
    item->set->twins++;
    epset_has_kernel_members(item->set);
    return 0;
}

static void twin_drop(struct epitem *item)
{
    if (!item->twin)
        return;
    item->twin = false;
    /* Where it cannot be told any more, the number being another file's by now, it stays and is
     * counted, so that epset_translate() goes on to leave it out. */
    if (kernel_ctl(set_fd(item), EPOLL_CTL_DEL, item->fd, 0, 0) == 0)
        item->set->twins--;
}

/* ---- sets ---- */

struct epset *epset_new(bool kernel_members)
{
    struct epset *ep = pool_alloc(&engine.sh->epsets);
    if (ep == NULL)
        return NULL;
    ep->kernel_members = kernel_members;
    list_init(&ep->items);
    list_init(&ep->ready);
    list_init(&ep->watches);
    return ep;
}

static void item_free(struct epitem *item)
{
    list_remove(&item->watch.on_sock);
    list_remove(&item->on_set);
    list_remove(&item->on_ready);
    list_remove(&item->turn.on_herd);
    pool_free(&engine.sh->epitems, item);
}

void epset_dropped(struct stack_cx *cx, struct epset *ep)
{
    if (ep->refs != 0)
        return;
    list_for_each_safe(n, &ep->items)
    { /* their twins go with the kernel's set */
        item_free(list_entry(n, struct epitem, on_set));
    }
    list_for_each_safe(n, &ep->watches)
    {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL)
            epitem_remove(cx, watch);
    }
    waiter_cut(&ep->watches);
    pool_free(&engine.sh->epsets, ep);
}

void epset_drop_all(struct stack_cx *cx, bool keep_shared)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct epset *ep = fd_epset((int)fd);
        if (ep == NULL)
            continue;
        if (!engine_frozen() && (ep->refs == 1 || !keep_shared))
            hold_release((int)fd);
        else
            hold_forget((int)fd);
        epset_dropped(cx, ep);
    }
}

void epset_has_kernel_members(struct epset *ep)
{
    if (ep->kernel_members)
        return;
    ep->kernel_members = true;
    list_for_each (n, &ep->watches) { /* they sleep without the kernel's set */
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_WAITER)
            waiter_wake(container_of(watch, struct waiter_watch, watch)->who);
    }
}

/* ---- readiness ---- */

static uint32_t item_ready(const struct epitem *item, unsigned depth)
{
    if (item->disabled)
        return 0;
    if (item->us != NULL)
        return ready_bits(ready_now(item->us)) & item->events;
    return epset_ready(item->inner, depth + 1) ? item->events & (EPOLLIN | EPOLLRDNORM) : 0;
}

bool epset_ready(struct epset *ep, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return false;
    list_for_each_safe(n, &ep->ready)
    {
        if (item_ready(list_entry(n, struct epitem, on_ready), depth) != 0)
            return true;
        list_remove(n);
    }
    return false;
}

bool epset_inside(const struct epset *ep)
{
    unsigned n = 0;
    if (ep->kernel_members)
        return false;
    list_for_each (i, &ep->items) {
        const struct epitem *item = list_entry(i, struct epitem, on_set);
        if (item->us == NULL || !usock_inside(item->us) || ++n > INSIDE_MAX)
            return false;
    }
    return n > 0;
}

bool epitem_ready(const struct epitem *item)
{
    return item_ready(item, 0) != 0;
}

bool epitem_exclusive(const struct watch *watch)
{
    return (item_of(watch)->events & EPOLLEXCLUSIVE) != 0;
}

bool epitem_notify(struct watch *watch, unsigned depth)
{
    struct epitem *item = item_of(watch);
    if (item->disabled || depth > DEPTH_MAX)
        return false;
    if (!list_linked(&item->on_ready))
        list_push_back(&item->set->ready, &item->on_ready);
    if (herd_held(item))
        return false;
    return watches_notify(&item->set->watches, TCP_EV_IN, depth + 1);
}

void epset_let_go(struct epset *ep)
{
    list_for_each (n, &ep->ready)
        list_remove(&list_entry(n, struct epitem, on_ready)->turn.on_herd);
}

void epitem_tell(struct watch *watch)
{
    epset_let_go(item_of(watch)->set);
    list_remove(&item_of(watch)->turn.on_herd);
    epitem_notify(watch, 0);
}

void epset_pass_on(struct epset *ep)
{
    if (list_empty(&ep->watches))
        return;
    list_for_each (n, &ep->ready) {
        if (herd_held(list_entry(n, struct epitem, on_ready)))
            continue;
        watches_wake_one(&ep->watches);
        return;
    }
}

static void item_disable(struct epitem *item)
{
    item->disabled = true;
    item->watch.events = 0;
    if (item->twin)
        kernel_ctl(set_fd(item), EPOLL_CTL_MOD, item->fd, EPOLLONESHOT, cookie_of(item));
}

unsigned epset_collect(struct epset *ep, struct epoll_event *events, unsigned have, unsigned max,
                       bool held)
{
    unsigned n = have;
    struct list *last = ep->ready.prev;
    while (n < max && !list_empty(&ep->ready)) {
        struct list *node = list_pop_front(&ep->ready);
        struct epitem *item = list_entry(node, struct epitem, on_ready);
        const uint32_t ready = item_ready(item, 0);
        if (ready != 0 && !held && herd_held(item)) {
            list_push_back(&ep->ready, node);
        } else if (ready != 0) {
            list_remove(&item->turn.on_herd);
            if (item->twin && have != 0 && item->told_round == ep->round) {
                events[item->told_at].events |= ready;
            } else {
                events[n].events = ready;
                events[n++].data.u64 = item->data;
            }
            if ((item->events & EPOLLONESHOT) != 0)
                item_disable(item);
            else if ((item->events & EPOLLET) == 0)
                list_push_back(&ep->ready, node);
        }
        if (node == last)
            break;
    }
    return n;
}

/*
 * A one-shot member that was reported: epoll_ctl() cannot make one that does not tell HUP once
 * more. So that it is not told, the item stays as the twin of nothing until the kernel has told it.
 */
static bool spent(const struct epitem *item)
{
    return item->us == NULL && item->inner == NULL;
}

unsigned epset_translate(struct epset *ep, struct epoll_event *events, unsigned n)
{
    const uintptr_t base = (uintptr_t)engine.st;
    const uintptr_t end = base + arena_limit(stack_arena(engine.st));
    unsigned kept = 0;
    ep->round++;
    for (unsigned i = 0; i < n; i++) {
        struct epoll_event event = events[i];
        if (event.data.u64 >= base && event.data.u64 < end) {
            struct epitem *item = (struct epitem *)(uintptr_t)event.data.u64;
            if (!pool_owns(&engine.sh->epitems, item) || item->set != ep || !item->twin)
                continue; /* removed meanwhile */
            if (item->disabled) {
                if (spent(item)) {
                    ep->twins--;
                    item_free(item);
                }
                continue;
            }
            event.data.u64 = item->data;
            item->told_round = ep->round;
            item->told_at = kept;
            if ((item->events & EPOLLONESHOT) != 0)
                item_disable(item);
        }
        events[kept++] = event;
    }
    return kept;
}

/* ---- epoll_ctl ---- */

static struct list *member_watches(struct epmember member)
{
    return member.us != NULL ? &member.us->watches : &member.inner->watches;
}

static struct epitem *item_find(const struct epset *ep, struct epmember member, int fd)
{
    list_for_each (n, member_watches(member)) {
        struct watch *watch = list_entry(n, struct watch, on_sock);
        if (watch->kind == WATCH_EPOLL && item_of(watch)->set == ep && item_of(watch)->fd == fd)
            return item_of(watch);
    }
    return NULL;
}

/* New or changed: enabled, and on the ready list when something it asks for is true already. */
static void item_arm(struct epitem *item, const struct epoll_event *event)
{
    item->events = event->events | EPOLLERR | EPOLLHUP;
    item->data = event->data.u64;
    item->disabled = false;
    item->watch.events = ready_interest(item->events);
    if (item_ready(item, 0) != 0)
        epitem_tell(&item->watch);
}

static struct epitem *item_new(struct epset *ep, int epfd, struct epmember member, int fd,
                               uint32_t events)
{
    struct epitem *item = pool_alloc(&engine.sh->epitems);
    if (item == NULL)
        return NULL;
    item->set = ep;
    item->us = member.us;
    item->inner = member.inner;
    item->fd = fd;
    item->epfd = epfd;
    item->watch.kind = WATCH_EPOLL;
    list_push_back(&ep->items, &item->on_set);
    /* Linux's wait queues: the latest first, those that share an event behind all others */
    if ((events & EPOLLEXCLUSIVE) != 0)
        list_push_back(member_watches(member), &item->watch.on_sock);
    else
        list_push_front(member_watches(member), &item->watch.on_sock);
    return item;
}

static bool wants_twin(const struct epitem *item)
{
    return item->inner != NULL || (item->us->kind == USOCK_LISTENER && item->us->kernel_listen);
}

int epset_add(struct stack_cx *cx, struct epset *ep, int epfd, struct epmember member, int fd,
              const struct epoll_event *event)
{
    (void)cx;
    if (item_find(ep, member, fd) != NULL)
        return -EEXIST;
    struct epitem *item = item_new(ep, epfd, member, fd, event->events);
    if (item == NULL)
        return -ENOMEM;
    item->events = event->events | EPOLLERR | EPOLLHUP;
    if (wants_twin(item)) {
        /* For inner sets the kernel also finds loops and sets that are nested too deep. */
        int err = twin_add(item, EPOLL_CTL_ADD);
        if (err < 0) {
            item_free(item);
            return err;
        }
    }
    item_arm(item, event);
    return 0;
}

int epset_adopt(struct stack_cx *cx, struct epset *ep, int epfd, struct epset *inner, int fd,
                const struct epoll_event *event)
{
    (void)cx;
    const struct epmember member = {.inner = inner};
    if (item_find(ep, member, fd) != NULL)
        return -EEXIST;
    struct epitem *item = item_new(ep, epfd, member, fd, event->events);
    if (item == NULL)
        return -ENOMEM;
    item->events = event->events | EPOLLERR | EPOLLHUP;
    const int err = fd >= 0 ? twin_add(item, EPOLL_CTL_MOD) : 0;
    if (err < 0) {
        item_free(item);
        return err;
    }
    item_arm(item, event);
    return 0;
}

int epset_mod(struct stack_cx *cx, struct epset *ep, struct epmember member, int fd,
              const struct epoll_event *event)
{
    (void)cx;
    struct epitem *item = item_find(ep, member, fd);
    if (item == NULL)
        return -ENOENT;
    if ((item->events & EPOLLEXCLUSIVE) != 0)
        return -EINVAL;
    item_arm(item, event);
    if (item->twin)
        kernel_ctl(set_fd(item), EPOLL_CTL_MOD, fd, item->events, cookie_of(item));
    return 0;
}

int epset_del(struct stack_cx *cx, struct epset *ep, struct epmember member, int fd)
{
    struct epitem *item = item_find(ep, member, fd);
    if (item == NULL)
        return -ENOENT;
    epitem_remove(cx, &item->watch);
    return 0;
}

/* ---- what happens to a member's socket ---- */

void epitem_remove(struct stack_cx *cx, struct watch *watch)
{
    (void)cx;
    struct epitem *item = item_of(watch);
    twin_drop(item);
    item_free(item);
}

/*
 * Adds the member's socket to the kernel's set as epoll_ctl() would have long ago: under the number
 * that the program registered, also when that was closed meanwhile and a duplicate lives on.
 */
static int to_kernel(const struct epitem *item, uint32_t events, uint64_t data)
{
    const int op = item->twin ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (item->twin || fd_usock(item->fd) == item->us)
        return kernel_ctl(set_fd(item), op, item->fd, events, data);
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        if (fd_usock((int)fd) != item->us)
            continue;
        const int again = raw_fcntl((int)fd, F_DUPFD_CLOEXEC, item->fd);
        if (again < 0)
            return again;
        const int err = kernel_ctl(set_fd(item), op, again, events, data);
        raw_close(again);
        return err;
    }
    return -EBADF;
}

void epitem_to_kernel(struct stack_cx *cx, struct watch *watch)
{
    (void)cx;
    struct epitem *item = item_of(watch);
    const bool keep = item->disabled;
    const int err =
        to_kernel(item, keep ? EPOLLONESHOT : item->events, keep ? cookie_of(item) : item->data);
    if (item->twin)
        item->set->twins--;
    epset_has_kernel_members(item->set);
    if (!keep || err < 0) {
        item_free(item);
        return;
    }
    list_remove(&item->watch.on_sock);
    list_remove(&item->on_ready);
    item->us = NULL;
    item->twin = true;
    item->set->twins++;
}

void epitem_listens(struct stack_cx *cx, struct watch *watch)
{
    (void)cx;
    struct epitem *item = item_of(watch);
    if (!item->twin && wants_twin(item))
        twin_add(item, EPOLL_CTL_ADD);
    if (item->twin && item->disabled)
        item_disable(item);
}

void epitem_unlistens(struct stack_cx *cx, struct watch *watch)
{
    (void)cx;
    twin_drop(item_of(watch));
}
