/*
 * The exec family. An image that the loader will put the shim into gets the family's arena and the
 * user sockets that are not close-on-exec (shim/life/handover.h). Where there is nothing to hand
 * over, this process's references are dropped first: a connection that another process holds lives
 * on, others are closed in order and what was sent on them is delivered before the image goes. If
 * exec fails after all, what other processes kept alive is there again; so the obvious failures are
 * sought first (image.h).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <paths.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/backing.h"
#include "shim/libc/image.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/life/environment.h"
#include "shim/life/exit.h"
#include "shim/life/handover.h"
#include "shim/life/init.h"
#include "shim/life/relay.h"
#include "shim/watch/trace.h"

/* What is handed over, or let go of, until execve(2) fails. */
struct passage {
    struct environment env;
    char text[HANDOVER_TEXT];
    struct relay_plan relay;
    enum { PASS_NOTHING, PASS_FAMILY, PASS_RELEASED } kind;
};

static void release(struct passage *p)
{
    struct stack_cx cx;
    engine_enter(&cx);
    backing_own_inherited();
    engine_leave(&cx);
    exit_release(true);
    engine_detach();
    p->kind = PASS_RELEASED;
}

/* Returns the environment for the image. */
static char *const *prepare(struct passage *p, int dir, const char *path, int flags,
                            char *const envp[])
{
    const int saved = errno;
    char *const *result = envp;
    p->kind = PASS_NOTHING;
    p->env.map = NULL;
    p->relay.commit = -1;
    shim_init();
    const bool running = engine_running();
    const enum image image =
        running || config.exec == EXEC_ALL ? image_of(dir, path, flags) : IMAGE_NONE;
    if (config.off || image == IMAGE_NONE) {
        errno = saved;
        return envp;
    }
    const bool due = image == IMAGE_DYNAMIC && handover_due_self() && handover_text(p->text);
    if (image == IMAGE_DYNAMIC && (due || config.exec == EXEC_ALL) &&
        environment_make(&p->env, envp, due ? p->text : NULL))
        result = p->env.envp;
    if (due && result != envp) {
        handover_begin();
        p->kind = PASS_FAMILY;
    } else if (running) {
        relay_start(&p->relay);
        release(p);
    }
    trace_close();
    errno = saved;
    return result;
}

/* exec failed. */
static int failed(struct passage *p, int err)
{
    environment_drop(&p->env);
    if (p->kind == PASS_FAMILY) {
        handover_cancel();
    } else if (p->kind == PASS_RELEASED) {
        struct stack_cx cx;
        engine_attach();
        engine_enter(&cx);
        hold_again();
        engine_leave(&cx);
        relay_cancel(&p->relay);
    }
    errno = err;
    return -1;
}

SHIM_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    struct passage p;
    char *const *env = prepare(&p, AT_FDCWD, path, 0, envp);
    real_ready()->execve(path, argv, env);
    return failed(&p, errno);
}

SHIM_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
    struct passage p;
    char *const *env = prepare(&p, fd, "", AT_EMPTY_PATH, envp);
    real_ready()->fexecve(fd, argv, env);
    return failed(&p, errno);
}

SHIM_EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[],
                         int flags)
{
    struct passage p;
    char *const *env = prepare(&p, dir, path, flags, envp);
    const long r = raw_syscall(SYS_execveat, dir, (long)path, (long)argv, (long)env, flags, 0);
    return failed(&p, (int)-r);
}

SHIM_EXPORT int execv(const char *path, char *const argv[])
{
    return execve(path, argv, environ);
}

/* A script without #!: the shell runs it (execvp(3)). */
static int exec_by_shell(const char *path, char *const argv[], char *const envp[])
{
    size_t n = 0;
    while (argv[n] != NULL)
        n++;
    if (n > INT_MAX - 2u) {
        errno = E2BIG;
        return -1;
    }
    char *shell_argv[n > 1 ? n + 2 : 3];
    shell_argv[0] = (char *)_PATH_BSHELL;
    shell_argv[1] = (char *)path;
    if (n > 1)
        memcpy(shell_argv + 2, argv + 1, n * sizeof(char *));
    else
        shell_argv[2] = NULL;
    return execve(_PATH_BSHELL, shell_argv, envp);
}

static int exec_candidate(const char *path, char *const argv[], char *const envp[])
{
    execve(path, argv, envp);
    if (errno == ENOEXEC)
        exec_by_shell(path, argv, envp);
    return -1;
}

SHIM_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    if (*file == '\0') {
        errno = ENOENT;
        return -1;
    }
    if (strchr(file, '/') != NULL)
        return exec_candidate(file, argv, envp);
    const char *dirs = getenv("PATH");
    if (dirs == NULL)
        dirs = "/bin:/usr/bin";
    const size_t file_len = strlen(file);
    bool denied = false;
    char path[PATH_MAX];
    for (const char *end; dirs != NULL; dirs = end != NULL ? end + 1 : NULL) {
        end = strchr(dirs, ':');
        const size_t dir_len = end != NULL ? (size_t)(end - dirs) : strlen(dirs);
        if (dir_len + file_len + 2 > sizeof(path))
            continue;
        memcpy(path, dirs, dir_len);
        path[dir_len] = '/';
        memcpy(path + dir_len + (dir_len > 0), file, file_len);
        path[dir_len + (dir_len > 0) + file_len] = '\0';
        exec_candidate(path, argv, envp);
        if (errno == EACCES)
            denied = true;
        else if (errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
                 errno != ETIMEDOUT)
            return -1;
    }
    if (denied)
        errno = EACCES;
    return -1;
}

SHIM_EXPORT int execvp(const char *file, char *const argv[])
{
    return execvpe(file, argv, environ);
}

/* Arguments of execl() and its kin, counted with the first and the NULL. */
static size_t count_args(va_list ap)
{
    size_t n = 2;
    while (va_arg(ap, const char *) != NULL)
        n++;
    return n;
}

static void take_args(char **argv, const char *first, size_t n, va_list ap)
{
    argv[0] = (char *)first;
    for (size_t i = 1; i < n; i++)
        argv[i] = va_arg(ap, char *);
}

#define COLLECT_ARGS(argv, arg)                                                                    \
    va_list ap;                                                                                    \
    va_start(ap, arg);                                                                             \
    const size_t n = count_args(ap);                                                               \
    va_end(ap);                                                                                    \
    char *argv[n];                                                                                 \
    va_start(ap, arg);                                                                             \
    take_args(argv, arg, n, ap)

SHIM_EXPORT int execl(const char *path, const char *arg, ...)
{
    COLLECT_ARGS(argv, arg);
    va_end(ap);
    return execve(path, argv, environ);
}

SHIM_EXPORT int execlp(const char *file, const char *arg, ...)
{
    COLLECT_ARGS(argv, arg);
    va_end(ap);
    return execvpe(file, argv, environ);
}

SHIM_EXPORT int execle(const char *path, const char *arg, ...)
{
    COLLECT_ARGS(argv, arg);
    char *const *envp = va_arg(ap, char *const *);
    va_end(ap);
    return execve(path, argv, envp);
}
