/*
 * What the shims of a family of processes share beside the stack itself: it lies in stack_extra(),
 * at the same address in all of them. Everything here is read and written under `lock`, but for
 * what is marked (atomic).
 *
 * Waiter slots are fixed memory that is never freed: a wake-up that comes late finds a slot, at
 * worst another sleeper's, who then wakes for nothing and looks again.
 */
#pragma once

#include <pthread.h>

#include "shim/core/engine.h"
#include "shim/link/impair_engine.h"
#include "shim/link/ports.h"
#include "shim/link/standing.h"
#include "shim/wait/wait.h"
#include "stack/arena.h"

#define WAITERS_MAX   4096
#define PROCESSES_MAX 2048
#define FAMILY_FDS    12

struct waiter;

/* Who is told later of a listener's connections (shim/wait/herd.h). */
struct herd_turn {
    struct list on_herd;         /* in shared.herd */
    nsec_t at;                   /* when it is told */
    const struct list *listener; /* usock.watches, if it is a waiter's; NULL: a member's of a set */
};

/* A thread's interest in one socket or epoll set. */
struct waiter_watch {
    struct watch watch; /* kind WATCH_WAITER */
    bool exclusive;     /* one such watch is woken per event (epoll_wait), not all */
    bool pooled;        /* from shared.watches, else waiter.own */
    struct list of_waiter;
    struct list *head; /* the list it is on: usock.watches or epset.watches; NULL: that is gone */
    int32_t fd;        /* the number by which poll() waits; -1: another call */
    struct waiter *who;
};

/* A thread that sleeps, slept or may sleep. Claimed by a process, reused by its threads. */
struct waiter {
    uint32_t process;        /* index + 1 in shared.processes; 0: free */
    bool woken;              /* something happened to what it watches since it registered */
    bool asleep;             /* between leave and enter of a wait: a wake-up must be sent */
    bool spins;              /* drives and looks for frames instead of sleeping */
    bool service;            /* a service thread */
    uint8_t kind;            /* what its wait is for: enum spin_kind */
    bool single;             /* waits for one socket: when it is woken it has what it wants */
    bool inside;             /* what it waits for comes from inside the stack: it need not drive */
    bool by_word;            /* sleeps on `word`, not on its eventfd */
    uint32_t word;           /* enum word: shim/wait/word.h (atomic) */
    uint16_t woken_on;       /* the processor of who last woke it by the word, + 1 (atomic) */
    struct list on_sleepers; /* in shared.sleepers: asleep and could drive */
    struct list on_queue;    /* in shared.wakeups or process.relay */
    struct list watches;     /* struct waiter_watch */
    struct list kept;        /* struct hold: sockets that it polls whose numbers were closed */
    struct waiter_watch own; /* for the wait on a single socket */
    struct herd_turn turn;   /* of one that sleeps in poll or select */
};

enum service_mode { SERVICE_NONE, SERVICE_DEEP, SERVICE_TICK, SERVICE_DRIVE };

enum process_state {
    PROCESS_FREE,
    PROCESS_MEANT, /* its parent is about to fork; nobody else would know of its end */
    PROCESS_BORN,  /* forked, and not yet attached */
    PROCESS_LIVE,
    PROCESS_LEFT, /* it exits, or execs; what it held is released */
};

/* A process of the family: shim/core/family.h. */
struct process {
    int32_t pid;         /* 0: not known yet */
    uint8_t state;       /* enum process_state (atomic) */
    uint8_t service;     /* enum service_mode (atomic) */
    bool ring;           /* its service thread is to be rung when the lock is gone */
    uint32_t doorbell;   /* futex of its service thread (atomic) */
    uint32_t generation; /* counts who had this entry; from 1 */
    uint32_t dead;       /* the generation that was seen to be dead (atomic) */
    uint32_t parent;     /* index + 1 of who forked it */
    /* Robust, and held by its service thread: the kernel says at once when it dies, and long before
     * its pidfd does (process_died()). */
    pthread_mutex_t life;
    struct list relay; /* struct waiter: wake-ups from other processes, for its service thread */
    struct list holds; /* struct hold: its descriptors of ours */
    /* where its table of descriptors lies in its own memory, for readers outside (tcpshim ss) */
    const uintptr_t *fds;
    const unsigned *fds_high;
};

struct shared {
    pthread_mutex_t lock; /* robust, process-shared */
    bool broken;          /* who held it died: shim/core/repair.h */
    bool filter_broken;   /* and so may be the packet socket's filter */
    uint32_t repairs;     /* times that this was so */
    uint32_t deaths;      /* times that processes were marked dead (atomic) */
    uint32_t buried;      /* deaths up to which the dead are buried (atomic) */

    struct pool holds;   /* struct hold */
    struct pool usocks;  /* struct usock */
    struct pool watches; /* struct waiter_watch */
    struct pool epsets;  /* struct epset */
    struct pool epitems; /* struct epitem */

    uint32_t processes_live; /* born or live (atomic) */
    uint32_t processes_high; /* entries ever used */
    uint32_t waiters_high;   /* slots ever claimed */
    uint32_t driver;         /* index + 1 of the waiter that has the role; 0: nobody */
    nsec_t driver_until;     /* when the driver will wake by itself */
    uint32_t heir;           /* index + 1 of the sleeper that was woken to take the role */
    nsec_t heir_since;
    uint64_t drains;       /* (atomic) counts engine_drain() by callers: whether somebody drives */
    nsec_t drained_at;     /* when it last did (atomic) */
    uint32_t set_shares;   /* epoll sets that several processes have got user sockets (atomic) */
    bool listened;         /* there was a listener: the engine may have work without a timer */
    struct list sleepers;  /* struct waiter */
    struct list wakeups;   /* struct waiter: to be sent when the lock is gone */
    struct list herd;      /* struct herd_turn, by `at` */
    struct port_set ports; /* what the family's packet socket lets through (shim/link) */
    int32_t family_fds[FAMILY_FDS]; /* numbers of what every member has (shim/life/handover.c) */
    uint32_t ingress_asked;         /* interfaces of the stack, a bit each: shim/link/ingress.h */
    int32_t keeper; /* its pid; 0: not started yet; negative: see shim/life/keeper.c (atomic) */
    uint64_t
        grouped[65536 / 64]; /* ports that had a listener with SO_REUSEPORT (shim/link/group.h) */
    nsec_t foreign_until;    /* a keeper may have connections of our ports (shim/link/foreign.h) */
    uint32_t held;           /* guards in custody (shim/life/custody.h), */
    bool held_out;           /* some are in the hands of who looks at them, */
    uint32_t held_new;       /* how many came since some were last looked at, */
    uint32_t held_named;     /* and how many may be named (struct custody_item) */
    int64_t capture_offset;  /* from CLOCK_MONOTONIC to the time of day in captures */
    int32_t capture_pid;     /* %p in the name of the family's capture */
    bool capture_said;       /* that frames are missing from it */
    struct impair_state impair;   /* TCPSHIM_IMPAIR */
    struct standing_set standing; /* guards in custody that each process may use */
    struct process processes[PROCESSES_MAX];
    struct waiter waiters[WAITERS_MAX];
};

/* Sets a zeroed stack_extra() up. Called once by who makes the stack (engine_start), before anyone
 * enters. */
void shared_init(struct stack *st);
/* Bytes to ask of stack_init() as `extra`. */
static inline size_t shared_size(void)
{
    return sizeof(struct shared);
}

/* This process takes part: after engine.st and engine.sh are set (engine_start). */
void engine_attach(void);
/* The same in the image after exec, which has the place of the one before (shim/life/handover.h).
 */
void engine_resume(void);
/* This process leaves: at exit, not entered. */
void engine_detach(void);
/*
 * Entered, before exec: nobody counts on the sleepers and the service thread of this process any
 * more. Returns what engine_step_back() needs if exec fails.
 */
uint8_t engine_step_aside(void);
void engine_step_back(uint8_t service);
/* Processes that take part now. */
uint32_t engine_processes(void);
