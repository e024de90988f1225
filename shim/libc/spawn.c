/*
 * posix_spawn(), system(), popen(). libc starts their child in this process's memory and lets it
 * close, duplicate and exec inside libc, past every hook: the child would have none of the user
 * sockets, and nobody would know that it ever had. So where the process has any, the child is a
 * fork whose calls go through the hooks; where it has none, libc's own functions do it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/life/handover.h"
#include "shim/life/service.h"

/* glibc's list of file actions, as posix_spawn_file_actions_t has it: the same since 2.3; new kinds
 * come at the end. */
struct action {
    enum {
        ACT_CLOSE,
        ACT_DUP2,
        ACT_OPEN,
        ACT_CHDIR,
        ACT_FCHDIR,
        ACT_CLOSEFROM,
        ACT_TCSETPGRP,
        ACT_KINDS
    } kind;
    union {
        int fd;
        struct {
            int from, to;
        } dup2;
        struct {
            int fd;
            char *path;
            int flags;
            mode_t mode;
        } open;
        char *path;
    };
};

struct order {
    const char *file;
    bool search; /* by PATH */
    const posix_spawn_file_actions_t *actions;
    const posix_spawnattr_t *attr;
    char *const *argv, *const *envp;
    sigset_t mask; /* of the caller */
    int report;    /* the pipe that tells of failure; internal */
};

/* ---- in the child ---- */

/* posix_spawnattr_setsigdefault(3); everything else that has a handler is exec's affair. */
static int set_signals(const struct order *o, short flags)
{
    sigset_t set;
    if ((flags & POSIX_SPAWN_SETSIGDEF) != 0) {
        const struct sigaction none = {.sa_handler = SIG_DFL};
        posix_spawnattr_getsigdefault(o->attr, &set);
        for (int sig = 1; sig < NSIG; sig++)
            if (sigismember(&set, sig) == 1)
                real.sigaction(sig, &none, NULL);
    }
    set = o->mask;
    if ((flags & POSIX_SPAWN_SETSIGMASK) != 0)
        posix_spawnattr_getsigmask(o->attr, &set);
    return real.sigprocmask(SIG_SETMASK, &set, NULL);
}

static int set_attributes(const struct order *o)
{
    short flags = 0;
    struct sched_param param;
    int policy = 0;
    pid_t group = 0;
    if (o->attr != NULL)
        posix_spawnattr_getflags(o->attr, &flags);
    if ((flags & POSIX_SPAWN_SETSCHEDULER) != 0) {
        posix_spawnattr_getschedpolicy(o->attr, &policy);
        posix_spawnattr_getschedparam(o->attr, &param);
        if (sched_setscheduler(0, policy, &param) < 0)
            return -1;
    } else if ((flags & POSIX_SPAWN_SETSCHEDPARAM) != 0) {
        posix_spawnattr_getschedparam(o->attr, &param);
        if (sched_setparam(0, &param) < 0)
            return -1;
    }
    if ((flags & POSIX_SPAWN_SETSID) != 0 && setsid() < 0)
        return -1;
    if ((flags & POSIX_SPAWN_SETPGROUP) != 0) {
        posix_spawnattr_getpgroup(o->attr, &group);
        if (setpgid(0, group) < 0)
            return -1;
    }
    if ((flags & POSIX_SPAWN_RESETIDS) != 0 && (seteuid(getuid()) < 0 || setegid(getgid()) < 0))
        return -1;
    return flags;
}

static int act_open(const struct action *a)
{
    close(a->open.fd);
    const int fd = open(a->open.path, a->open.flags, a->open.mode);
    if (fd < 0 || fd == a->open.fd)
        return fd;
    const int r = dup2(fd, a->open.fd);
    close(fd);
    return r;
}

static int act(const struct action *a)
{
    switch (a->kind) {
    case ACT_CLOSE:
        close(a->fd); /* one that is not open is no error */
        return 0;
    case ACT_DUP2:
        if (a->dup2.from != a->dup2.to)
            return dup2(a->dup2.from, a->dup2.to);
        return fcntl(a->dup2.from, F_SETFD, fcntl(a->dup2.from, F_GETFD) & ~FD_CLOEXEC);
    case ACT_OPEN:
        return act_open(a);
    case ACT_CHDIR:
        return chdir(a->path);
    case ACT_FCHDIR:
        return fchdir(a->fd);
    case ACT_CLOSEFROM:
        closefrom(a->fd);
        return 0;
    case ACT_TCSETPGRP:
        return tcsetpgrp(a->fd, getpgrp());
    default:
        errno = EINVAL;
        return -1;
    }
}

static int do_actions(const struct order *o)
{
    if (o->actions == NULL)
        return 0;
    const struct action *list = (const struct action *)(const void *)o->actions->__actions;
    for (int i = 0; i < o->actions->__used; i++)
        if (act(&list[i]) < 0)
            return -1;
    return 0;
}

static _Noreturn void child(const struct order *o)
{
    const int flags = set_attributes(o);
    if (flags >= 0 && do_actions(o) == 0 && set_signals(o, (short)flags) == 0) {
        if (o->search)
            execvpe(o->file, o->argv, o->envp);
        else
            execve(o->file, o->argv, o->envp);
    }
    const int err = errno;
    raw_write(o->report, &err, sizeof(err));
    _exit(127);
}

/* ---- in the parent ---- */

/* Whether the child could come to have a user socket. */
static bool concerned(void)
{
    if (!engine_running())
        return false;
    for (unsigned fd = 0; fd < fd_high(); fd++)
        if (fd_usock((int)fd) != NULL)
            return true;
    return handover_due();
}

/* 0 or a positive errno, as posix_spawn(3). */
static int start(pid_t *pid, struct order *o)
{
    int pipe_fds[2], err = 0;
    sigset_t all;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return errno;
    o->report = fd_make_internal(pipe_fds[1]);
    sigfillset(&all);
    real.sigprocmask(SIG_BLOCK, &all, &o->mask); /* no handler of the program's runs in the child */
    service_put_off(true); /* the child may find libc's locks taken: no thread is to start there */
    const pid_t forked = _Fork();
    if (forked == 0)
        child(o);
    if (forked < 0)
        err = errno;
    service_put_off(false);
    fd_release_internal(o->report);
    if (forked > 0 && raw_read(pipe_fds[0], &err, sizeof(err)) != sizeof(err))
        err = 0;
    raw_close(pipe_fds[0]);
    if (forked > 0 && err != 0)
        raw_syscall(SYS_wait4, forked, 0, 0, 0, 0, 0);
    real.sigprocmask(SIG_SETMASK, &o->mask, NULL);
    if (err == 0 && pid != NULL)
        *pid = forked;
    return err;
}

SHIM_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                            const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    if (likely(!concerned()))
        return real_ready()->posix_spawn(pid, path, actions, attr, argv, envp);
    struct order o = {.file = path, .actions = actions, .attr = attr, .argv = argv, .envp = envp};
    const int saved = errno, err = start(pid, &o);
    errno = saved;
    return err;
}

SHIM_EXPORT int posix_spawnp(pid_t *pid, const char *file,
                             const posix_spawn_file_actions_t *actions,
                             const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    if (likely(!concerned()))
        return real_ready()->posix_spawnp(pid, file, actions, attr, argv, envp);
    struct order o = {
        .file = file, .search = true, .actions = actions, .attr = attr, .argv = argv, .envp = envp};
    const int saved = errno, err = start(pid, &o);
    errno = saved;
    return err;
}

static int start_shell(pid_t *pid, const char *command, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attr)
{
    char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"--", (char *)command, NULL};
    struct order o = {
        .file = _PATH_BSHELL, .actions = actions, .attr = attr, .argv = argv, .envp = environ};
    return start(pid, &o);
}

/* ---- system(3) ---- */

/* Callers in several threads: the first puts SIGINT and SIGQUIT aside, the last brings them back.
 */
static pthread_mutex_t system_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned system_callers;
static struct sigaction old_int, old_quit;

static void ignore_keys(sigset_t *to_default)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    pthread_mutex_lock(&system_lock);
    if (system_callers++ == 0) {
        sigaction(SIGINT, &ignore, &old_int);
        sigaction(SIGQUIT, &ignore, &old_quit);
    }
    sigemptyset(to_default);
    if (old_int.sa_handler != SIG_IGN)
        sigaddset(to_default, SIGINT);
    if (old_quit.sa_handler != SIG_IGN)
        sigaddset(to_default, SIGQUIT);
    pthread_mutex_unlock(&system_lock);
}

static void heed_keys(void)
{
    pthread_mutex_lock(&system_lock);
    if (--system_callers == 0) {
        sigaction(SIGINT, &old_int, NULL);
        sigaction(SIGQUIT, &old_quit, NULL);
    }
    pthread_mutex_unlock(&system_lock);
}

static int wait_for(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

SHIM_EXPORT int system(const char *command)
{
    if (likely(command == NULL || !concerned()))
        return real_ready()->system(command);
    posix_spawnattr_t attr;
    sigset_t set, before;
    pid_t pid = -1;
    posix_spawnattr_init(&attr);
    ignore_keys(&set);
    posix_spawnattr_setsigdefault(&attr, &set);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &before);
    posix_spawnattr_setsigmask(&attr, &before);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const int err = start_shell(&pid, command, NULL, &attr);
    const int status = err == 0 ? wait_for(pid) : W_EXITCODE(127, 0);
    heed_keys();
    sigprocmask(SIG_SETMASK, &before, NULL);
    posix_spawnattr_destroy(&attr);
    return status;
}

/* ---- popen(3) ---- */

/* Streams with a process behind them. */
#define POPEN_MAX 64
static struct popened {
    FILE *file; /* NULL: free */
    pid_t pid;
} popened[POPEN_MAX];
static pthread_mutex_t popen_lock = PTHREAD_MUTEX_INITIALIZER;

static bool popen_remember(FILE *file, pid_t pid)
{
    bool done = false;
    pthread_mutex_lock(&popen_lock);
    for (unsigned i = 0; i < POPEN_MAX && !done; i++) {
        if (popened[i].file != NULL)
            continue;
        popened[i] = (struct popened){file, pid};
        done = true;
    }
    pthread_mutex_unlock(&popen_lock);
    return done;
}

/* POSIX: the child has none of the streams that popen() gave before. */
static void close_others(posix_spawn_file_actions_t *actions)
{
    pthread_mutex_lock(&popen_lock);
    for (unsigned i = 0; i < POPEN_MAX; i++)
        if (popened[i].file != NULL)
            posix_spawn_file_actions_addclose(actions, fileno(popened[i].file));
    pthread_mutex_unlock(&popen_lock);
}

static FILE *start_piped(const char *command, bool reads, const int ends[2])
{
    posix_spawn_file_actions_t actions;
    pid_t pid = -1;
    const int ours = ends[reads ? 0 : 1], theirs = ends[reads ? 1 : 0];
    FILE *file = fdopen(ours, reads ? "r" : "w");
    if (file == NULL) {
        close(ours);
        return NULL;
    }
    posix_spawn_file_actions_init(&actions);
    close_others(&actions);
    posix_spawn_file_actions_adddup2(&actions, theirs, reads ? STDOUT_FILENO : STDIN_FILENO);
    const int err = start_shell(&pid, command, &actions, NULL);
    posix_spawn_file_actions_destroy(&actions);
    if (err == 0 && popen_remember(file, pid))
        return file;
    fclose(file);
    errno = err != 0 ? err : EMFILE;
    return NULL;
}

SHIM_EXPORT FILE *popen(const char *command, const char *mode)
{
    const bool reads = strchr(mode, 'r') != NULL;
    int ends[2];
    if (likely(!concerned()) || reads == (strchr(mode, 'w') != NULL))
        return real_ready()->popen(command, mode);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return NULL;
    FILE *file = start_piped(command, reads, ends);
    const int saved = errno;
    close(ends[reads ? 1 : 0]);
    if (file != NULL && strchr(mode, 'e') == NULL)
        fcntl(ends[reads ? 0 : 1], F_SETFD, 0);
    errno = saved;
    return file;
}

FILE *_IO_popen(const char *command, const char *mode);
SHIM_EXPORT FILE *_IO_popen(const char *command, const char *mode)
{
    return popen(command, mode);
}

SHIM_EXPORT int pclose(FILE *file)
{
    pid_t pid = 0;
    pthread_mutex_lock(&popen_lock);
    for (unsigned i = 0; i < POPEN_MAX && pid == 0; i++) {
        if (popened[i].file != file || file == NULL)
            continue;
        pid = popened[i].pid;
        popened[i].file = NULL;
    }
    pthread_mutex_unlock(&popen_lock);
    if (pid == 0)
        return real_ready()->pclose(file);
    fclose(file);
    return wait_for(pid);
}
