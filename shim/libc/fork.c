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
#include <paths.h>
#include <pthread.h>
#include <unistd.h>

#include "shim/core/family.h"
#include "shim/core/usock.h"
#include "shim/libc/process.h"
#include "shim/libc/real.h"
#include "shim/link/guard.h"
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

pid_t process_fork(long (*how)(void *), void *arg)
{
    fds_watch_fork();
    fds_before_fork();
    const long pid = how(arg);
    if (pid == 0) {
        fds_after_fork_child();
        wait_after_fork_child();
        guard_after_fork_child();
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
