/*
 * The frame of a hooked call. Each hook asks call_begin() whether the descriptor is a user socket
 * of a kind that the call concerns; if not, libc's own function gets the call. Otherwise the engine
 * is entered until call_end(), which gives the result its libc form (-1 and errno):
 *
 *     struct call c;
 *     if (likely(!call_begin(&c, fd, "recv", CALL_CONN)))
 *         return real_ready()->recv(fd, buf, len, flags);
 *     return call_end(&c, sock_recv(&c, ...));
 *
 * Inside, results are counts or negative errno values.
 */
#pragma once

#include <errno.h>
#include <poll.h>
#include <sys/types.h>

#include "shim/core/config.h"
#include "shim/core/engine.h"
#include "shim/core/fdtable.h"

/* Kinds of sockets that a call concerns; of other kinds the backing socket answers as Linux does.
 */
#define CALL_UNDECIDED (1u << USOCK_UNDECIDED)
#define CALL_CONN      (1u << USOCK_CONN)
#define CALL_LISTENER  (1u << USOCK_LISTENER)
#define CALL_READS     0x80000000u /* takes text that was announced (tcp_announce()) */
#define CALL_ANY       (CALL_UNDECIDED | CALL_CONN | CALL_LISTENER)

/* Result of a sock_*() function: not for the user stack after all, libc's function is to be called.
 */
#define CALL_PASS INT64_MIN

/* Arguments of a call, kept while calls are traced. Pointers are the program's, read at its end. */
struct call_args {
    enum call_shape {
        ARGS_NONE,
        ARGS_NUMBER,  /* a */
        ARGS_BUFFER,  /* a bytes, flags b */
        ARGS_ADDRESS, /* p, len */
        ARGS_ACCEPT,  /* flags a */
        ARGS_HOW,     /* a, of shutdown() */
        ARGS_OPTION,  /* level a, name b, value at p if it has len bytes */
        ARGS_COMMAND, /* fcntl() a with b */
        ARGS_REQUEST, /* ioctl() a */
    } shape;
    uint32_t len;
    uint64_t a, b;
    const void *p;
};

struct call {
    struct stack_cx cx;
    struct usock *us;
    struct hold *hold; /* of this process's descriptor */
    const char *name;  /* of the libc function, for the trace */
    int fd;
    int saved_errno;
    nsec_t begun;          /* when it was made; valid if traced */
    struct call_args args; /* likewise */
    bool sigpipe;          /* raise SIGPIPE when the engine is left */
    bool traced;
    bool drop; /* the descriptor is let go of when the call ends */
};

bool call_begin_ours(struct call *c, int fd, const char *name, unsigned kinds);
/* True: entered, c->us is valid until call_end() (or call_pass()) even if it is closed meanwhile.
 */
static inline bool call_begin(struct call *c, int fd, const char *name, unsigned kinds)
{
    if (likely(fd_entry(fd) == 0))
        return false;
    return call_begin_ours(c, fd, name, kinds);
}
/* What the call was given, for its trace. */
static inline void call_note(struct call *c, struct call_args args)
{
    if (unlikely(c->traced))
        c->args = args;
}
/* Entered: the text of the arguments, valid until the engine is left. */
const char *call_args_text(const struct call *c, int64_t result);
/* Leaves; result as the libc function returns it, errno set when it is negative. */
ssize_t call_end(struct call *c, int64_t result);
/* Leaves without a trace or a result: the caller calls libc's function. */
void call_pass(struct call *c);
/*
 * wait_socket() for the call's socket. A thread that is cancelled in it gives up its call on the
 * socket. Results as wait_socket().
 */
int call_wait(struct call *c, uint32_t events, struct pollfd *kfd, nsec_t deadline, unsigned flags,
              struct reader *reader);
/*
 * Copies the parcel's text (from a program that sends it: out, or to one that reads it) while
 * others use the engine. What the socket has may have changed then.
 */
void call_copy(struct call *c, struct tcp_parcel *p, void *text, bool out);
/*
 * Waits as a blocking call with time-out `timeo` (0: none) does; deadline from call_deadline().
 * As in Linux, calls with a time-out are not restarted after a signal.
 */
static inline nsec_t call_deadline(const struct call *c, nsec_t timeo)
{
    return timeo == 0 ? NSEC_NEVER : c->cx.now + timeo;
}
/* A call that failed or was done without entering the engine: for functions that report -errno. */
static inline ssize_t call_result(int64_t result)
{
    if (result >= 0)
        return (ssize_t)result;
    errno = (int)-result;
    return -1;
}
/* Entries of descriptors that the kernel has just handed out can only be stale: forgets them. */
void call_purge(int fd);
