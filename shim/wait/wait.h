/*
 * Waiting for events of user sockets and of kernel descriptors in one sleep, and who drives the
 * engine meanwhile. Theory of operation in wait.c.
 */
#pragma once

#include <poll.h>
#include <signal.h>

#include "shim/core/engine.h"
#include "shim/core/usock.h"

/* Who wants to hear of a socket's events: a sleeping thread, or a member of an epoll set. In the
 * arena. */
enum watch_kind { WATCH_WAITER = 1, WATCH_EPOLL };

struct watch {
    struct list on_sock; /* in usock.watches */
    uint8_t kind;
    uint32_t events; /* TCP_EV_* of interest; ERR and HUP always are */
};

/* The engine's notify(): goes through usock.watches, marks epoll members ready and sleepers to be
 * woken. */
void wait_notify(struct stack_cx *cx, void *owner, uint32_t events);

#define WAIT_RESTART 0x1u /* a handler installed with SA_RESTART does not end the wait */
#define WAIT_ONE     0x2u /* an event wakes one of those who wait so (accept) */
/*
 * Entered (engine_enter). Leaves the engine, sleeps until one of `events` is notified for us, until
 * kernel descriptor *kfd (may be NULL) is ready, until `deadline` (NSEC_NEVER: for ever) or a
 * signal, and enters again. The caller rechecks its condition: 0 may be spurious.
 * reader: a recv() whose buffer may be filled meanwhile, or NULL.
 *   0           something happened
 *   -EAGAIN     the deadline passed
 *   -EINTR      a signal handler ran (not with WAIT_RESTART if it asked for restart)
 * Is a cancellation point (pthread_cancel), with all references and roles given back.
 */
int wait_socket(struct stack_cx *cx, struct usock *us, uint32_t events, struct pollfd *kfd,
                nsec_t deadline, unsigned flags, struct reader *reader);
/*
 * Entered: wakes every thread that sleeps on the socket (close() from another thread, shutdown);
 * for epoll sets it is an edge.
 */
void wait_wake_all(struct stack_cx *cx, struct usock *us);
/* Entered: the socket's last descriptor is gone: epoll members of it are removed. */
void wait_forget(struct stack_cx *cx, struct usock *us);
/* The program closed or replaced descriptor fd in this process: epoll members registered under it
 * end when the description does. */
void wait_socket_init(struct usock *us);
/* Before a fork of a process that has the engine. */
void wait_before_fork(void);
/* Not entered, by the service thread: other processes of the family may have given sets that this
 * one has, too, their first user sockets. */
void wait_shared_sets(void);
/* After fork, in the child: this thread has no sleeper, no role; the service thread is not there.
 */
void wait_after_fork_child(void);

/* ---- what the libc calls tell about descriptors ---- */

/*
 * Entered: the socket was decided for the kernel; its members of epoll sets go on in the kernel's
 * own set with the same descriptor, sleepers look again. The object lives until its descriptors are
 * gone.
 */
void wait_to_kernel(struct stack_cx *cx, struct usock *us);
/* Whether fd was (at least when it was last seen) an epoll descriptor: then the following are due.
 */
bool wait_is_epoll(int fd);
/*
 * Whether it is, and the kernel's alone so far: a poll() that sleeps on it must hear of its first
 * user socket. Such a set gets its second half before (entered).
 */
bool wait_epoll_bare(int fd);
void wait_epoll_attach(struct stack_cx *cx, int fd);
/* Not entered: descriptor fd of an epoll set is about to be closed or replaced; clears its entry.
 */
void wait_epoll_close(int fd);
/* Not entered: newfd is a new duplicate of epoll descriptor oldfd; sets its entry. */
void wait_epoll_dup(int oldfd, int newfd);
/*
 * Entered: the socket became the engine's listener while its backing socket listens for local
 * clients: its members of epoll sets watch both from now on.
 */
void wait_listens(struct stack_cx *cx, struct usock *us);
/* Entered: it listens no more: they watch the engine's side alone again. */
void wait_unlistens(struct stack_cx *cx, struct usock *us);
