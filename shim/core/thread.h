/*
 * What the shim knows of the calling thread. Initial-exec: the signal trampoline reads it, so an
 * access must not allocate.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct thread_state {
    uint32_t inside;       /* depth of engine_enter(); signals are deferred while it is not 0 */
    uint32_t slot;         /* index + 1 of the thread's waiter; 0: none yet */
    int wake_fd;           /* its eventfd; 0: none */
    bool copies;           /* engine_step_out(): signals are deferred all the same */
    int cancel_state;      /* pthread_cancel's, from before engine_enter() */
    int copy_cancel_state; /* the same, of the call that copies */
    bool cancel_async;     /* it may be cancelled at any instruction: only within a sleep */
    bool asleep;           /* in a wait, between engine_leave() and engine_enter() */
    bool ends;             /* this is the thread that ends the process (engine_freeze()) */
    bool exit_hook;        /* the slot is given back when the thread ends */
    uint32_t handlers;     /* signal handlers that ran, */
    uint32_t handlers_end; /* and of those the ones without SA_RESTART */
    uint64_t deferred;     /* signals held back by the trampoline (bit n-1) */
};

extern __thread struct thread_state thread_state __attribute__((tls_model("initial-exec")));
