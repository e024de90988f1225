/* Beginning and end of hooked calls: see call.h. */
#define _GNU_SOURCE
#include "shim/libc/call.h"

#include <pthread.h>
#include <signal.h>

#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/wait/wait.h"
#include "shim/watch/trace.h"
#include "stack/tcp/flow.h"

/*
 * A socket that is not connected but has something to say for itself: the error or the shutdown()
 * that its last connection, or attempt at one, left behind. Its calls are as a connection's.
 */
static bool has_leftovers(const struct usock *us)
{
    return us->kind == USOCK_UNDECIDED && us->conn != NULL &&
           (tcp_peek_error(us->conn) != 0 || tcp_reading_shut(us->conn) ||
            tcp_writing_shut(us->conn));
}

/*
 * The call that this thread sleeps or copies in. A signal handler may longjmp() out of it
 * (time-outs by alarm(2), bad pointers): then what it counted on the socket is taken back by the
 * thread's next call. A call of the handler's own lies deeper by more than a signal frame, or on
 * the alternate stack.
 */
#define SIGNAL_FRAME_MIN 1024
static __thread struct {
    const struct call *frame; /* NULL: none */
    struct usock *us;
    struct hold *hold;
    struct tcp_parcel *parcel; /* NULL: it sleeps */
} sleeping __attribute__((tls_model("initial-exec")));

static bool on_alternate_stack(void)
{
    stack_t stack = {.ss_flags = SS_DISABLE};
    raw_syscall(SYS_sigaltstack, 0, (long)&stack, 0, 0, 0, 0);
    return (stack.ss_flags & SS_ONSTACK) != 0;
}

/* Entered. */
static void __attribute__((noinline)) end_abandoned(struct call *c)
{
    struct usock *us = sleeping.us;
    if ((uintptr_t)sleeping.frame > (uintptr_t)c + SIGNAL_FRAME_MIN || on_alternate_stack())
        return;
    sleeping.frame = NULL;
    if (sleeping.parcel != NULL) {
        engine_thrown_out();
        tcp_parcel_free(&c->cx, sleeping.parcel);
    }
    hold_leave(sleeping.hold);
    usock_settle(&c->cx, us);
}

bool call_begin_ours(struct call *c, int fd, const char *name, unsigned kinds)
{
    c->saved_errno = errno;
    c->name = name;
    c->fd = fd;
    c->sigpipe = c->drop = false;
    for (;;) {
        struct usock *us = fd_usock(fd);
        if (us == NULL)
            return false;
        c->us = us;
        engine_enter(&c->cx);
        if (likely(fd_usock(fd) == us))
            break;
        engine_leave(&c->cx); /* another thread closed or replaced it meanwhile */
    }
    c->hold = hold_enter(fd);
    c->traced = (c->cx.trace & TRACE_CALL) != 0;
    if (unlikely(c->traced)) {
        c->begun = c->cx.now;
        c->args.shape = ARGS_NONE;
    }
    if (unlikely(sleeping.frame != NULL))
        end_abandoned(c);
    if (unlikely(tcp_any_announced(c->cx.st)) && (kinds & CALL_READS) == 0 && c->us->conn != NULL &&
        tcp_announced(c->us->conn))
        engine_drain(&c->cx);
    if (unlikely(c->us->kind == USOCK_KERNEL)) {
        /* Decided through a descriptor of another process. */
        usock_drop(&c->cx, c->us, fd, false);
    } else if (likely((kinds & (1u << c->us->kind)) != 0) ||
               ((kinds & CALL_CONN) != 0 && has_leftovers(c->us))) {
        return true;
    }
    call_pass(c);
    return false;
}

static void settle(struct call *c)
{
    hold_leave(c->hold);
    if (c->drop)
        usock_drop(&c->cx, c->us, c->fd, true); /* decides by what is left: we count no more */
    else
        usock_settle(&c->cx, c->us);
}

static void leave(struct call *c)
{
    settle(c);
    engine_leave(&c->cx);
}

void call_pass(struct call *c)
{
    leave(c);
    errno = c->saved_errno;
}

/* The result comes behind what the call did and sent; so no ACK waits for the next call. */
static void __attribute__((noinline)) leave_traced(struct call *c, int64_t result)
{
    struct flow flow; /* the connection may be gone then */
    const bool known = c->us->conn != NULL || c->us->listener != NULL;
    if (known) {
        flow = c->us->conn != NULL ? *tcp_flow(c->us->conn) : *tcp_listener_flow(c->us->listener);
        flow.kind = 0;
    }
    settle(c);
    stack_flush(&c->cx);
    engine_clock(&c->cx);
    TRACE(&c->cx, CALL, known ? &flow : NULL, CALL, (uintptr_t)c->name, (uint64_t)c->fd,
          result < 0 ? UINT64_MAX : (uint64_t)result, result < 0 ? (uint64_t)-result : 0,
          (uintptr_t)call_args_text(c, result), c->begun);
    engine_leave(&c->cx);
}

ssize_t call_end(struct call *c, int64_t result)
{
    if (unlikely(c->traced))
        leave_traced(c, result);
    else
        leave(c);
    if (unlikely(c->sigpipe) && !engine.sandboxed)
        raw_syscall(SYS_tgkill, raw_getpid(), raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0), SIGPIPE, 0,
                    0, 0);
    if (unlikely(result < 0)) {
        errno = (int)-result;
        return -1;
    }
    errno = c->saved_errno;
    return (ssize_t)result;
}

static void give_up(void *arg)
{
    struct call *c = arg;
    sleeping.frame = NULL;
    engine_enter(&c->cx);
    leave(c);
}

int call_wait(struct call *c, uint32_t events, struct pollfd *kfd, nsec_t deadline, unsigned flags,
              struct reader *reader)
{
    int r;
    const typeof(sleeping) outer = sleeping; /* of a call that a handler's call interrupts */
    sleeping.frame = c;
    sleeping.us = c->us;
    sleeping.hold = c->hold;
    sleeping.parcel = NULL;
    pthread_cleanup_push(give_up, c);
    r = wait_socket(&c->cx, c->us, events, kfd, deadline, flags, reader);
    pthread_cleanup_pop(0);
    sleeping = outer;
    return r;
}

void call_copy(struct call *c, struct tcp_parcel *p, void *text, bool out)
{
    const typeof(sleeping) outer = sleeping;
    sleeping.frame = c;
    sleeping.us = c->us;
    sleeping.hold = c->hold;
    sleeping.parcel = p;
    const bool alone = engine_step_out(&c->cx);
    if (out)
        tcp_parcel_fill(p, text);
    else
        tcp_parcel_empty(p, text);
    if (likely(alone))
        engine_step_in(&c->cx);
    sleeping = outer;
}

void call_purge(int fd)
{
    struct usock *us = fd_usock(fd);
    if (us == NULL) {
        wait_epoll_close(fd);
        return;
    }
    struct stack_cx cx;
    engine_enter(&cx);
    if (fd_usock(fd) == us)
        usock_drop(&cx, us, fd, false);
    engine_leave(&cx);
}
