#include "shim/core/hold.h"

#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/shared.h"
#include "shim/wait/epset.h"

static struct hold *hold_new(uint32_t process, int fd, struct usock *us, struct epset *ep)
{
    struct hold *h = pool_alloc(&engine.sh->holds);
    if (unlikely(h == NULL))
        return NULL;
    h->us = us;
    h->ep = ep;
    h->process = process;
    h->fd = fd;
    list_push_back(&engine.sh->processes[process - 1].holds, &h->of_process);
    if (us != NULL)
        us->refs++;
    else if (ep != NULL)
        ep->refs++;
    return h;
}

static void hold_free(struct hold *h)
{
    list_remove(&h->of_process);
    list_remove(&h->on_kept);
    pool_free(&engine.sh->holds, h);
}

bool hold_usock(int fd, struct usock *us)
{
    struct hold *h = hold_new(process_number(), fd, us, NULL);
    if (h == NULL)
        return false;
    fd_set_usock(fd, us);
    fd_holds[fd] = h;
    return true;
}

bool hold_epset(int fd, struct epset *ep)
{
    struct hold *h = hold_new(process_number(), fd, NULL, ep);
    if (h == NULL)
        return false;
    fd_set_epset(fd, ep);
    fd_holds[fd] = h;
    return true;
}

static void count_down(const struct hold *h)
{
    if (h->us != NULL)
        h->us->refs--;
    else
        h->ep->refs--;
}

void hold_forget(int fd)
{
    struct hold *h = fd_hold(fd);
    if (h == NULL)
        return;
    fd_holds[fd] = NULL;
    h->fd = -1;
    count_down(h);
    if (h->calls == 0)
        hold_free(h);
}

void hold_release(int fd)
{
    fd_clear(fd);
    hold_forget(fd);
}

void hold_again(void)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct usock *us = fd_usock((int)fd);
        struct epset *ep = fd_epset((int)fd);
        if ((us == NULL && ep == NULL) || fd_holds[fd] != NULL)
            continue;
        fd_holds[fd] = hold_new(process_number(), (int)fd, us, ep);
        if (fd_holds[fd] == NULL)
            fd_clear((int)fd);
    }
}

struct hold *hold_enter(int fd)
{
    struct hold *h = fd_hold(fd);
    if (likely(h != NULL)) {
        h->calls++;
        h->us->calls++;
    }
    return h;
}

void hold_leave(struct hold *h)
{
    if (unlikely(h == NULL))
        return;
    h->us->calls--;
    if (--h->calls == 0 && unlikely(h->fd < 0))
        hold_free(h);
}

struct hold *hold_keep(struct usock *us, int fd, uint32_t events)
{
    struct hold *h = hold_new(process_number(), -1, us, NULL);
    if (h == NULL)
        return NULL;
    us->refs--; /* it is no descriptor */
    us->calls++;
    h->calls = 1;
    h->kept_fd = fd;
    h->kept_events = events;
    return h;
}

static void hold_uncount(struct hold *h)
{
    if (h->fd >= 0)
        count_down(h);
    if (h->us != NULL)
        h->us->calls -= min_u32(h->calls, h->us->calls);
    hold_free(h);
}

void hold_end(struct stack_cx *cx, struct hold *h)
{
    struct usock *us = h->us;
    struct epset *ep = h->ep;
    const bool counted = h->fd >= 0;
    hold_uncount(h);
    if (us != NULL)
        usock_dropped(cx, us, counted);
    else
        epset_dropped(cx, ep);
}

void hold_adopt(struct stack_cx *cx, bool (*same)(int fd, const struct usock *us))
{
    list_for_each_safe(n, &process_self()->holds)
    {
        struct hold *h = list_entry(n, struct hold, of_process);
        if (h->us == NULL || h->fd < 0 || !same(h->fd, h->us)) {
            hold_end(cx, h);
            continue;
        }
        h->us->calls -= min_u32(h->calls, h->us->calls);
        h->calls = 0;
        fd_set_usock(h->fd, h->us);
        fd_holds[h->fd] = h;
    }
}

/* ---- fork ---- */

bool hold_fork(uint32_t child)
{
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        const struct hold *h = fd_holds[fd];
        if (h == NULL) {
            if (unlikely(fd_heirs[fd] != NULL))
                fd_heirs[fd] = NULL;
            continue;
        }
        fd_heirs[fd] = hold_new(child, (int)fd, h->us, h->ep);
        if (fd_heirs[fd] == NULL) {
            hold_fork_failed(child);
            return false;
        }
    }
    return true;
}

void hold_fork_failed(uint32_t child)
{
    struct list *holds = &engine.sh->processes[child - 1].holds;
    while (!list_empty(holds))
        hold_uncount(list_first(holds, struct hold, of_process));
}

void hold_forked(bool lost)
{
    struct hold **mine = fd_heirs;
    fd_heirs = fd_holds;
    fd_holds = mine;
    for (unsigned fd = 0; lost && fd < fd_high(); fd++) {
        fd_holds[fd] = NULL;
        if (fd_usock((int)fd) != NULL || fd_epset((int)fd) != NULL)
            fd_clear((int)fd);
    }
}
