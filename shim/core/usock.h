/*
 * A user socket: what stands behind the program's descriptors, in the arena, shared by all
 * processes of the family. Each descriptor is of a real kernel TCP socket (the backing socket,
 * which others may share while it has nothing to remember); this object says what the engine has
 * for it. It is born undecided at socket(); connect() or listen() decides between the user stack
 * and the kernel.
 *
 * All members are read and written under the engine lock, but for those marked (atomic).
 */
#pragma once

#include "stack/tcp/tcp.h"
#include "stack/util/list.h"

enum usock_kind {
    USOCK_UNDECIDED, /* neither connected nor listening; the kernel socket carries the options too
                      */
    USOCK_CONN,      /* the engine's connection (also before it connects: CLOSED) */
    USOCK_LISTENER,  /* the engine's listener; the kernel socket listens as its guard */
    USOCK_KERNEL,    /* decided for the kernel: every call passes through */
};

struct usock {
    uint8_t kind;   /* enum usock_kind; KERNEL is final */
    uint8_t family; /* AF_INET or AF_INET6, as the program asked */
    bool nonblock;  /* O_NONBLOCK of the open file description (atomic) */
    bool v6only;
    bool bound;        /* bind() was called, or connect() chose a local address */
    bool bound_port;   /* by an explicit bind to a port, guarded by the backing socket */
    bool port_chosen;  /* the kernel chose the port: bind(0), or listen() without bind() */
    bool kernel_bound; /* the backing socket holds the port in the kernel */
    bool rebound;      /* bind() gave it another name when its connection was over */
    bool reuseaddr, reuseport;
    bool connecting; /* a connect() is in progress whose result was not yet fetched */
    bool given_up;   /* shutdown() met a connect() that had failed: Linux's SS_DISCONNECTING */
    bool sigpipe_off;
    bool shares;  /* descriptors may be of a common backing socket (shim/libc/backing.h) */
    bool guarded; /* the backing socket stands as the guard of local.port (shim/link/guard.h) */
    bool beside;  /* shares its port with guards, which end when it stands itself (same) */
    bool fastopen_keyed; /* TCP_FASTOPEN_KEY was set: the backing socket has it */
    bool kernel_listen;  /* the backing socket listens, non-blocking, and accepts local clients */
    /* Both are sums over struct hold (shim/core/hold.h), which says whose they are. */
    uint32_t refs;      /* descriptors, over all processes; and */
    uint32_t passing;   /* of refs: in messages between processes (shim/libc/rights.h) */
    uint32_t transit;   /* whose epoll set has the file of what is passing (shim/life/transit.h) */
    bool transit_asked; /* a look at that is in progress */
    uint32_t calls; /* threads inside a call on it: close() from another thread waits for none */
    struct endpoint local; /* what bind() said */
    struct endpoint
        deferred_to;       /* TCP_FASTOPEN_CONNECT: where the first data goes (tcp_deferred()) */
    struct tcp_conn *conn; /* UNDECIDED, CONN */
    struct tcp_listener *listener; /* LISTENER */
    nsec_t rcvtimeo, sndtimeo;     /* 0: none */
    int32_t peek_off;              /* SO_PEEK_OFF; -1: off */
    uint16_t last_port;            /* of the connection that it was disconnected from */
    uint32_t bound_ifindex;        /* SO_BINDTODEVICE */
    int32_t backlog;
    int32_t listen_error; /* SO_ERROR that was pending when it began to listen */
    nsec_t door_seen;     /* LISTENER: when the kernel was last asked for local clients */
    uint64_t cookie; /* SO_COOKIE of the backing socket: identity across exec and passing; 0: not
                        asked yet */
    struct list watches; /* struct watch: who wants to know (shim/wait) */
};

/* Nothing from outside concerns it: the other end is a socket of the same stack. */
static inline bool usock_inside(const struct usock *us)
{
    return us->kind == USOCK_CONN && us->conn != NULL && tcp_is_inside(us->conn);
}

/* ---- life (shim/core/usock.c); all entered ---- */

/* An undecided socket without descriptors (refs 0), or NULL when the arena is full. */
struct usock *usock_new(struct stack_cx *cx, int family);
/* Its connection, made at first need (CLOSED, default options). NULL: the arena is full. */
struct tcp_conn *usock_conn(struct stack_cx *cx, struct usock *us);
/*
 * Descriptor fd of it is about to be closed or replaced in this process; its entry goes. The last
 * descriptor closes the connection or listener, or leaves that to the last call in progress, as the
 * kernel does; where flows still use the guarded port, fd is duplicated as its guard, if it is
 * still open.
 */
void usock_drop(struct stack_cx *cx, struct usock *us, int fd, bool open);
/* A dead process's hold of it ended (hold_end()), which counted as a descriptor or not. */
void usock_dropped(struct stack_cx *cx, struct usock *us, bool counted);
/* A call ended: frees the object when neither descriptors nor calls are left. */
void usock_settle(struct stack_cx *cx, struct usock *us);
/* Decided for the kernel: this process's entries are cleared, later calls pass through. */
void usock_to_kernel(struct stack_cx *cx, struct usock *us);
/* Drops every descriptor of this process (exec, exit). keep_shared: entries whose socket lives on
 * in other processes stay, for hold_again() if exec fails. */
void usock_drop_all(struct stack_cx *cx, bool keep_shared);

/* Drops descriptor fd, which exec will close. Its entry stays if the socket lives on in other
 * processes. */
void usock_leave(struct stack_cx *cx, struct usock *us, int fd);

/* ---- fork, called by pthread_atfork()'s handlers (shim/life/init.c) and the hooks of fork ---- */

/* Takes the engine lock, and makes the child's account: one hold for each descriptor. */
void fds_before_fork(void);
/* This thread's next fork is watched: its hook knows the result and will call fds_forked(). */
void fds_watch_fork(void);
/* In the parent, after a fork that was watched: gives the lock back; pid < 0: it failed. */
void fds_forked(int pid);
/* Gives the lock back, unless the fork is watched. */
void fds_after_fork_parent(void);
/* The lock is the parent's: the child only forgets that it was taken. Before
 * wait_after_fork_child(). */
void fds_after_fork_child(void);
