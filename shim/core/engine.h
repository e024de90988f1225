/*
 * The process's door to the engine: one lock, one clock, one packet socket, shared by all processes
 * of a family.
 *
 *     struct stack_cx cx;
 *     engine_enter(&cx);          lock; signals of this thread are deferred from here on
 *     ... tcp_send(&cx, ...) ...
 *     engine_leave(&cx);          flush, unlock, wake whom the events concern, run deferred signals
 *
 * Nothing blocks, allocates with malloc or calls dlsym in between.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "stack/tcp/tcp.h"

/* Behind struct stack in the arena (stack_extra()): what the shims of a family share. */
struct shared;

/* Process-local. */
struct engine {
    struct stack *st; /* NULL: not started */
    struct shared *sh;
    struct link *link; /* shim/link/link.h */
    /* This process may not use the packet socket as others do: it never drives, sends with
     * writev(2), and sleeps on words in the arena (shim/life/sandbox.h). */
    bool sandboxed;
    int start_error; /* positive errno of a start that failed; 0: not tried or running */
};
extern struct engine engine;

/*
 * Starts the engine at the first TCP socket of the process (or attaches to the family's). 0, or a
 * negative errno after one line on stderr said what is wrong and the cure. Later calls are cheap
 * and return the same.
 */
int engine_start(void);
static inline bool engine_running(void)
{
    return __atomic_load_n(&engine.st, __ATOMIC_ACQUIRE) != NULL;
}

/* While the engine starts: where its frames go. */
void engine_use_link(struct link *l);

void engine_enter(struct stack_cx *cx);
/*
 * The same for a thread that can as well come later (the service thread alone: it takes no
 * signals). False: another thread is inside. Who waits at the door is woken each time somebody
 * leaves.
 */
bool engine_try_enter(struct stack_cx *cx);
void engine_leave(struct stack_cx *cx);
/*
 * Entered, once: lets others in while the thread copies, and comes back. What was decided is sent
 * before. Signals stay deferred, but for those that the thread itself raises by a bad pointer:
 * their handlers may do anything, also never return (engine_thrown_out()). engine_step_out() is
 * false where the caller has entered twice: the lock stays taken.
 */
bool engine_step_out(struct stack_cx *cx);
void engine_step_in(struct stack_cx *cx);
/* Entered: this thread will not come to the engine_step_in() that is due. */
void engine_thrown_out(void);
/* Whether this thread is inside (between enter and leave): for the signal trampoline. */
bool engine_inside(void);
/*
 * The process ends: from now on no other thread of it gets into the engine; who tries stops there,
 * as threads do when the kernel ends a process. Sockets can be closed under them.
 */
void engine_freeze(void);
bool engine_frozen(void);
/*
 * Entered. The process is about to become another program: other threads of it stop at the door
 * until engine_release() (exec failed) or for good. The calling thread goes in and out.
 */
void engine_hold(void);
void engine_release(void);
/* Reads the clock again (after sleeping or long work under the lock). */
void engine_clock(struct stack_cx *cx);
/*
 * Entered: takes what lies in the packet socket, without waiting, and runs timers that are due.
 * Returns the number of frames taken. Calls that find nothing do this before they give EAGAIN.
 */
unsigned engine_drain(struct stack_cx *cx);
/* The same for a caller that has found something: see `passing`. */
unsigned engine_drain_passing(struct stack_cx *cx);

/* A frame of this length is worth a look before it is taken, to save a copy of its text. */
#define PLACE_MIN 16384

/* A recv(): text that comes next for its connection may go to its buffer at once. */
struct reader {
    const struct usock *us;
    struct slice room; /* what is left of the buffer */
    size_t got;        /* bytes that were put there */
    int error;         /* -EFAULT: it is not the program's to write to */
    bool patient;      /* would rather be told that there is nothing than get a small part */
};

static inline bool reader_served(const struct reader *r)
{
    return r != NULL && (r->got > 0 || r->error != 0);
}

/* For whom frames are taken. */
struct drain {
    struct reader *reader; /* may be NULL */
    const bool *woken;     /* whether the caller has what it waits for */
    bool single;           /* it waits for one thing */
    bool stays;            /* text may stay where it is until it is read: nobody else sleeps */
    bool passing;          /* the program has something to do: so may text that it will come for */
};
/* The same for a caller that waits for something, see link_ops.receive. */
unsigned engine_drain_for(struct stack_cx *cx, const struct drain *d);
