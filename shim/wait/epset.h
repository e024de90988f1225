/*
 * The user-stack side of an epoll descriptor. The program's epoll descriptor is a real one; kernel
 * descriptors are members of the kernel's set behind it. The first user socket that is added gives
 * it an epset in the arena, whose members are user sockets (and, for nesting, other epsets).
 *
 * A member is a watch on its socket. The engine's notify() puts it on the set's ready list and
 * wakes one sleeper, so that the cost of an event does not depend on the number of members.
 *
 * Twins: a listener's backing socket accepts local clients, and an inner set has kernel members:
 * these are members here and of the kernel's set as well, there with the item's address as data,
 * which epoll_wait() translates back (epset_translate()).
 *
 * All entered (engine_enter).
 */
#pragma once

#include <sys/epoll.h>

#include "shim/core/shared.h"
#include "shim/wait/wait.h"

struct epset {
    uint32_t refs;         /* descriptors, over all processes: a sum over struct hold */
    uint32_t twins;        /* members that the kernel's set has too */
    bool kernel_members;   /* the kernel's set has (or had) members (atomic) */
    nsec_t kernel_checked; /* when the kernel's set was last asked while ours had events, */
    uint32_t kernel_calls; /* and calls since */
    nsec_t kicked;     /* since when the kernel's set has what wakes its sleepers; 0: it has not */
    uint32_t round;    /* of epoll_wait(): so that a twin's two sides make one event */
    struct list items; /* struct epitem */
    struct list ready; /* struct epitem: may be ready */
    struct list watches; /* who wants to know of this set: sleepers, pollers, outer sets */
};

struct epitem {
    struct watch watch; /* WATCH_EPOLL on usock.watches or on the inner set's watches */
    struct list on_set, on_ready;
    struct epset *set;
    struct usock *us;    /* either this */
    struct epset *inner; /* or this */
    int32_t fd, epfd;    /* the numbers they were registered under */
    uint32_t events;     /* as the program gave them, EPOLLERR and EPOLLHUP added */
    uint64_t data;
    bool disabled; /* EPOLLONESHOT, reported */
    bool twin;
    uint32_t told_round,
        told_at;           /* a twin: when, and where in the array, the kernel's side was told */
    struct herd_turn turn; /* its set is told later (shim/wait/herd.h) */
};

/* Whose member: exactly one is set. */
struct epmember {
    struct usock *us;
    struct epset *inner;
};

/* A set without descriptors, or NULL when the arena is full. */
struct epset *epset_new(bool kernel_members);
/* A descriptor of it went (hold_release(), hold_end()): frees it when that was the last. */
void epset_dropped(struct stack_cx *cx, struct epset *ep);
/* Drops every epoll descriptor of this process (exec, exit; as usock_drop_all()). */
void epset_drop_all(struct stack_cx *cx, bool keep_shared);

/* epoll_ctl(2): 0 or -EEXIST, -ENOENT, -EINVAL, -ENOMEM, -ELOOP. The flags were validated. */
int epset_add(struct stack_cx *cx, struct epset *ep, int epfd, struct epmember member, int fd,
              const struct epoll_event *event);
int epset_mod(struct stack_cx *cx, struct epset *ep, struct epmember member, int fd,
              const struct epoll_event *event);
int epset_del(struct stack_cx *cx, struct epset *ep, struct epmember member, int fd);
/* The kernel's set already has the inner set's descriptor, under the program's data: makes it a
 * twin. fd -1: that cannot be changed any more, the number being closed; both sides tell. */
int epset_adopt(struct stack_cx *cx, struct epset *ep, int epfd, struct epset *inner, int fd,
                const struct epoll_event *event);

/*
 * One epoll_wait(): events of the kernel's set come first, where twins get the program's data back.
 * Returns how many of the n remain.
 */
unsigned epset_translate(struct epset *ep, struct epoll_event *events, unsigned n);
/*
 * Then ours behind those `have`, until there are max; level-triggered members queue up again behind
 * the others. Members that are held (herd.h) are left out unless `held`. Returns how many events
 * there are.
 */
unsigned epset_collect(struct epset *ep, struct epoll_event *events, unsigned have, unsigned max,
                       bool held);
/* Whether a member is ready (the user-stack side only). */
bool epset_ready(struct epset *ep, unsigned depth);
/* Whether all that its members wait for comes from inside the stack (false for large sets). */
bool epset_inside(const struct epset *ep);
/* More is ready than was taken: another sleeper may take it. As in Linux, those that watch the set
 * hear nothing. */
void epset_pass_on(struct epset *ep);
/* None of its members is held any more (herd.h). */
void epset_let_go(struct epset *ep);
/* The kernel's set got its first member. */
void epset_has_kernel_members(struct epset *ep);

/* ---- a member, as the lists of watches know it ---- */

bool epitem_exclusive(const struct watch *watch);
/* Whether it has something to tell now. */
bool epitem_ready(const struct epitem *item);
/* Something that the member asked for happened. Whether a sleeper was found. */
bool epitem_notify(struct watch *watch, unsigned depth);
/* The same, also when it was held. */
void epitem_tell(struct watch *watch);
void epitem_remove(struct stack_cx *cx, struct watch *watch);
void epitem_to_kernel(struct stack_cx *cx, struct watch *watch);
void epitem_listens(struct stack_cx *cx, struct watch *watch);
void epitem_unlistens(struct stack_cx *cx, struct watch *watch);
