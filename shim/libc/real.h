/*
 * libc's own functions behind the names that the shim exports, bound eagerly by the constructor
 * (dlsym is never called later: it may lock or allocate). A hook that runs before the constructor
 * (another library's, or an allocator that reads /proc while it starts) binds at first use. Names
 * that this libc lacks stay NULL.
 *
 * Parts of the shim that are not the pass-through of a hook use shim/core/raw.h instead: no errno,
 * no cancellation point.
 *
 * X(return type, name, parameters)
 */
#pragma once

#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "stack/base.h"

struct mmsghdr;
typedef void (*real_handler)(int);

/* In the order of binding: what an allocator that starts up may need comes first. */
/* clang-format off */
#define REAL_FUNCTIONS(X) \
    X(ssize_t, read, (int, void *, size_t)) \
    X(ssize_t, write, (int, const void *, size_t)) \
    X(int, close, (int)) \
    X(int, fcntl, (int, int, ...)) \
    X(int, ioctl, (int, unsigned long, ...)) \
    X(int, socket, (int, int, int)) \
    X(int, bind, (int, const struct sockaddr *, socklen_t)) \
    X(int, listen, (int, int)) \
    X(int, accept, (int, struct sockaddr *, socklen_t *)) \
    X(int, accept4, (int, struct sockaddr *, socklen_t *, int)) \
    X(int, connect, (int, const struct sockaddr *, socklen_t)) \
    X(int, shutdown, (int, int)) \
    X(int, getsockname, (int, struct sockaddr *, socklen_t *)) \
    X(int, getpeername, (int, struct sockaddr *, socklen_t *)) \
    X(int, setsockopt, (int, int, int, const void *, socklen_t)) \
    X(int, getsockopt, (int, int, int, void *, socklen_t *)) \
    X(int, sockatmark, (int)) \
    X(ssize_t, readv, (int, const struct iovec *, int)) \
    X(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int)) \
    X(ssize_t, recv, (int, void *, size_t, int)) \
    X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *)) \
    X(ssize_t, recvmsg, (int, struct msghdr *, int)) \
    X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *)) \
    X(ssize_t, writev, (int, const struct iovec *, int)) \
    X(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int)) \
    X(ssize_t, send, (int, const void *, size_t, int)) \
    X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t)) \
    X(ssize_t, sendmsg, (int, const struct msghdr *, int)) \
    X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int)) \
    X(ssize_t, sendfile, (int, int, off_t *, size_t)) \
    X(ssize_t, splice, (int, off_t *, int, off_t *, size_t, unsigned)) \
    X(int, dup, (int)) \
    X(int, dup2, (int, int)) \
    X(int, dup3, (int, int, int)) \
    X(FILE *, fdopen, (int, const char *)) \
    X(FILE *, freopen, (const char *, const char *, FILE *)) \
    X(FILE *, freopen64, (const char *, const char *, FILE *)) \
    X(int, vdprintf, (int, const char *, va_list)) \
    X(int, __vdprintf_chk, (int, int, const char *, va_list)) \
    X(int, poll, (struct pollfd *, nfds_t, int)) \
    X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *)) \
    X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *)) \
    X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *)) \
    X(int, epoll_create, (int)) \
    X(int, epoll_create1, (int)) \
    X(int, epoll_ctl, (int, int, int, struct epoll_event *)) \
    X(int, epoll_wait, (int, struct epoll_event *, int, int)) \
    X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *)) \
    X(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *)) \
    X(int, sigaction, (int, const struct sigaction *, struct sigaction *)) \
    X(real_handler, signal, (int, real_handler)) \
    X(real_handler, bsd_signal, (int, real_handler)) \
    X(real_handler, ssignal, (int, real_handler)) \
    X(real_handler, sysv_signal, (int, real_handler)) \
    X(real_handler, __sysv_signal, (int, real_handler)) \
    X(real_handler, sigset, (int, real_handler)) \
    X(int, sigignore, (int)) \
    X(int, sigsuspend, (const sigset_t *)) \
    X(int, pause, (void)) \
    X(int, sigprocmask, (int, const sigset_t *, sigset_t *)) \
    X(int, pthread_sigmask, (int, const sigset_t *, sigset_t *)) \
    X(int, siginterrupt, (int, int)) \
    X(pid_t, fork, (void)) \
    X(int, execve, (const char *, char *const[], char *const[])) \
    X(int, posix_spawn, (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[], char *const[])) \
    X(int, posix_spawnp, (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[], char *const[])) \
    X(int, clone, (int (*)(void *), void *, int, void *, ...)) \
    X(int, prctl, (int, ...)) \
    X(int, system, (const char *)) \
    X(FILE *, popen, (const char *, const char *)) \
    X(int, pclose, (FILE *)) \
    X(int, fexecve, (int, char *const[], char *const[])) \
    X(void, pthread_exit, (void *)) \
    X(void, _exit, (int)) \
    X(void, quick_exit, (int)) \
    X(pid_t, _Fork, (void)) \
    X(int, execveat, (int, const char *, char *const[], char *const[], int)) \
    X(int, close_range, (unsigned, unsigned, int)) \
    X(void, closefrom, (int)) \
    X(int, setuid, (uid_t)) \
    X(int, seteuid, (uid_t)) \
    X(int, setreuid, (uid_t, uid_t)) \
    X(int, setresuid, (uid_t, uid_t, uid_t)) \
    X(int, chroot, (const char *)) \
    X(int, capset, (cap_user_header_t, cap_user_data_t))
/* clang-format on */

#define SHIM_EXPORT __attribute__((visibility("default")))

struct real {
#define X(ret, name, params) ret(*name) params;
    REAL_FUNCTIONS(X)
#undef X
    bool bound;
};
extern struct real real;
/* Binds all names; later calls do nothing. */
void real_bind(void);

/* The table, bound: for the pass-through of a hook, which may run before the constructor. */
static inline const struct real *real_ready(void)
{
    if (unlikely(!__atomic_load_n(&real.bound, __ATOMIC_ACQUIRE)))
        real_bind();
    return &real;
}
