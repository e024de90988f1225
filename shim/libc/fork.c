/*
 * fork() and those that fork. A child owns every descriptor that it inherits: one reference each is
 * taken before the fork, with the engine lock held across it so that the table cannot change
 * between, and given back if it fails. pthread_atfork()'s handlers do it for forks inside libc;
 * these hooks know the result as well.
 *
 * vfork() is fork(): its child closes and replaces descriptors before it execs, and in the parent's
 * memory that would be the parent's table.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <paths.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include "shim/core/family.h"
#include "shim/core/raw.h"
#include "shim/core/usock.h"
#include "shim/libc/process.h"
#include "shim/libc/real.h"
#include "shim/life/kin.h"
#include "shim/life/service.h"
#include "shim/link/aside.h"
#include "shim/link/batch.h"
#include "shim/link/standing.h"
#include "shim/wait/wait.h"

SHIM_EXPORT pid_t fork(void)
{
    if (unlikely(engine_running() && !family_has_room())) {
        errno = EAGAIN;
        return -1;
    }
    fds_watch_fork();
    const pid_t pid = real_ready()->fork();
    if (pid != 0)
        fds_forked(pid);
    return pid;
}
extern __typeof(fork) __fork __attribute__((nothrow, leaf, alias("fork"), visibility("default")));

SHIM_EXPORT pid_t vfork(void)
{
    return fork();
}
extern __typeof(fork) __vfork __attribute__((nothrow, leaf, alias("vfork"), visibility("default")));

/*
 * The kernel forgets where a raw fork's child has its list of robust locks (libc's fork() tells it
 * again): were that child killed inside the engine, the lock would stay taken.
 */
static __thread struct robust_list_head *robust_list __attribute__((tls_model("initial-exec")));

static void robust_remember(void)
{
    size_t len = 0;
    if (raw_syscall(SYS_get_robust_list, 0, (long)&robust_list, (long)&len, 0, 0, 0) < 0)
        robust_list = NULL;
}

static void robust_tell(void)
{
    if (robust_list == NULL)
        return;
    robust_list->list.next = &robust_list->list;
    robust_list->list_op_pending = NULL;
    raw_syscall(SYS_set_robust_list, (long)robust_list, sizeof(*robust_list), 0, 0, 0, 0);
}

static void process_forked_child(void)
{
    robust_tell();
    fds_after_fork_child();
    wait_after_fork_child();
    standing_after_fork_child();
    batch_after_fork_child();
    aside_after_fork_child();
    kin_after_fork_child();
}

pid_t process_fork(long (*how)(void *), void *arg)
{
    service_await_start();
    kin_before_fork();
    robust_remember();
    fds_watch_fork();
    fds_before_fork();
    const long pid = how(arg);
    if (pid == 0) {
        process_forked_child();
        return 0;
    }
    fds_forked((pid_t)pid);
    return (pid_t)pid;
}

static long call_Fork(void *arg)
{
    (void)arg;
    return real_ready()->_Fork();
}

SHIM_EXPORT pid_t _Fork(void)
{
    if (real_ready()->_Fork == NULL)
        return fork();
    return process_fork(call_Fork, NULL);
}

/* ---- clone(2) ---- */

struct clone_call {
    int (*fn)(void *);
    void *stack, *arg;
    int flags;
    pid_t *parent_tid, *child_tid;
    void *tls;
};

/* The child's beginning, on the stack that its parent gave it. */
static int cloned(void *arg)
{
    const struct clone_call *c = arg;
    process_forked_child();
    _exit(c->fn(c->arg)); /* libc would end this thread alone */
}

static long call_clone(void *arg)
{
    struct clone_call *c = arg;
    const int r = real.clone(cloned, c->stack, c->flags, c, c->parent_tid, c->tls, c->child_tid);
    return r < 0 ? -errno : r;
}

/*
 * A child with descriptors of its own is a fork, whatever it shares of the memory: with the
 * parent's memory its close() and dup2() would meet the parent's table. So CLONE_VM goes, and with
 * it CLONE_VFORK, whose parent would sleep with what the child has to wait for.
 */
SHIM_EXPORT int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
    struct clone_call c = {.fn = fn, .stack = stack, .arg = arg, .flags = flags};
    va_list ap;
    va_start(ap, arg);
    c.parent_tid = va_arg(ap, pid_t *);
    c.tls = va_arg(ap, void *);
    c.child_tid = va_arg(ap, pid_t *);
    va_end(ap);
    if (!engine_running() || (flags & (CLONE_THREAD | CLONE_FILES)) != 0)
        return real_ready()->clone(fn, stack, flags, arg, c.parent_tid, c.tls, c.child_tid);
    c.flags &= ~(CLONE_VM | CLONE_VFORK | CLONE_SIGHAND);
    if (c.flags != SIGCHLD) {
        const pid_t pid = process_fork(call_clone, &c);
        if (pid < 0)
            errno = -pid;
        return pid < 0 ? -1 : pid;
    }
    const pid_t pid = _Fork(); /* of libc, which then knows the child's thread */
    if (pid == 0)
        _exit(fn(arg));
    return pid;
}
extern __typeof(clone) __clone
    __attribute__((nothrow, leaf, alias("clone"), visibility("default")));

/*
 * daemon(3). libc's own ends the parent inside libc, past the hook of _exit(), and the parent's
 * references would stay for ever.
 */
SHIM_EXPORT int daemon(int keep_directory, int keep_output)
{
    const pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid > 0)
        _exit(0);
    if (setsid() < 0)
        return -1;
    if (!keep_directory && chdir("/") < 0)
        return -1;
    if (keep_output)
        return 0;
    const int null = open(_PATH_DEVNULL, O_RDWR);
    if (null < 0)
        return -1;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
    return 0;
}
