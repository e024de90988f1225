/*
 * syscall(): libuv closes by syscall(SYS_close), vsftpd forks by syscall(SYS_clone), libbsd uses
 * SYS_close_range. Numbers of calls that concern sockets go to the hooks; io_uring, which would
 * pass them by, is not there; all others go to the kernel as they are.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "shim/libc/process.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/life/sandbox.h"

struct raw_call {
    long number;
    long a[6];
};

static long pass(const struct raw_call *s)
{
    return call_result(
        raw_syscall(s->number, s->a[0], s->a[1], s->a[2], s->a[3], s->a[4], s->a[5]));
}

static long fork_raw(void *arg)
{
    const struct raw_call *s = arg;
    return raw_syscall(s->number, s->a[0], s->a[1], s->a[2], s->a[3], s->a[4], s->a[5]);
}

/* A clone with its own descriptors and no other stack is a fork. */
static long do_clone(struct raw_call *s)
{
    if ((s->a[0] & (CLONE_THREAD | CLONE_FILES)) != 0 || s->a[1] != 0)
        return pass(s);
    s->a[0] &= ~(CLONE_VM | CLONE_VFORK | CLONE_SIGHAND); /* as clone() (fork.c) */
    return call_result(process_fork(fork_raw, s));
}

static const void *in(const struct raw_call *s, unsigned i)
{
    return (const void *)s->a[i];
}

static void *out(const struct raw_call *s, unsigned i)
{
    return (void *)s->a[i];
}

/* Numbers that every architecture has. False: none of these. */
static bool sockets(const struct raw_call *s, long *result)
{
    const int fd = (int)s->a[0];
    switch (s->number) {
    case SYS_socket:
        *result = socket(fd, (int)s->a[1], (int)s->a[2]);
        return true;
    case SYS_bind:
        *result = bind(fd, in(s, 1), (socklen_t)s->a[2]);
        return true;
    case SYS_listen:
        *result = listen(fd, (int)s->a[1]);
        return true;
    case SYS_accept:
        *result = accept(fd, out(s, 1), out(s, 2));
        return true;
    case SYS_accept4:
        *result = accept4(fd, out(s, 1), out(s, 2), (int)s->a[3]);
        return true;
    case SYS_connect:
        *result = connect(fd, in(s, 1), (socklen_t)s->a[2]);
        return true;
    case SYS_shutdown:
        *result = shutdown(fd, (int)s->a[1]);
        return true;
    case SYS_getsockname:
        *result = getsockname(fd, out(s, 1), out(s, 2));
        return true;
    case SYS_getpeername:
        *result = getpeername(fd, out(s, 1), out(s, 2));
        return true;
    case SYS_setsockopt:
        *result = setsockopt(fd, (int)s->a[1], (int)s->a[2], in(s, 3), (socklen_t)s->a[4]);
        return true;
    case SYS_getsockopt:
        *result = getsockopt(fd, (int)s->a[1], (int)s->a[2], out(s, 3), out(s, 4));
        return true;
    default:
        return false;
    }
}

static bool transfers(const struct raw_call *s, long *result)
{
    const int fd = (int)s->a[0];
    switch (s->number) {
    case SYS_read:
        *result = read(fd, out(s, 1), (size_t)s->a[2]);
        return true;
    case SYS_readv:
        *result = readv(fd, in(s, 1), (int)s->a[2]);
        return true;
    case SYS_recvfrom:
        *result = recvfrom(fd, out(s, 1), (size_t)s->a[2], (int)s->a[3], out(s, 4), out(s, 5));
        return true;
    case SYS_recvmsg:
        *result = recvmsg(fd, out(s, 1), (int)s->a[2]);
        return true;
    case SYS_recvmmsg:
        *result = recvmmsg(fd, out(s, 1), (unsigned)s->a[2], (int)s->a[3], out(s, 4));
        return true;
    case SYS_write:
        *result = write(fd, in(s, 1), (size_t)s->a[2]);
        return true;
    case SYS_writev:
        *result = writev(fd, in(s, 1), (int)s->a[2]);
        return true;
    case SYS_sendto:
        *result = sendto(fd, in(s, 1), (size_t)s->a[2], (int)s->a[3], in(s, 4), (socklen_t)s->a[5]);
        return true;
    case SYS_sendmsg:
        *result = sendmsg(fd, in(s, 1), (int)s->a[2]);
        return true;
    case SYS_sendmmsg:
        *result = sendmmsg(fd, out(s, 1), (unsigned)s->a[2], (int)s->a[3]);
        return true;
    case SYS_sendfile:
        *result = sendfile(fd, (int)s->a[1], out(s, 2), (size_t)s->a[3]);
        return true;
    case SYS_splice:
        *result =
            splice(fd, out(s, 1), (int)s->a[2], out(s, 3), (size_t)s->a[4], (unsigned)s->a[5]);
        return true;
    default:
        return false;
    }
}

static bool descriptors(const struct raw_call *s, long *result)
{
    const int fd = (int)s->a[0];
    switch (s->number) {
    case SYS_close:
        *result = close(fd);
        return true;
    case SYS_close_range:
        *result = close_range((unsigned)s->a[0], (unsigned)s->a[1], (int)s->a[2]);
        return true;
    case SYS_dup:
        *result = dup(fd);
        return true;
    case SYS_dup3:
        *result = dup3(fd, (int)s->a[1], (int)s->a[2]);
        return true;
    case SYS_fcntl:
        *result = fcntl(fd, (int)s->a[1], out(s, 2));
        return true;
    case SYS_ioctl:
        *result = ioctl(fd, (unsigned long)s->a[1], out(s, 2));
        return true;
    case SYS_epoll_create1:
        *result = epoll_create1(fd);
        return true;
    case SYS_epoll_ctl:
        *result = epoll_ctl(fd, (int)s->a[1], (int)s->a[2], out(s, 3));
        return true;
    case SYS_epoll_pwait:
        *result = epoll_pwait(fd, out(s, 1), (int)s->a[2], (int)s->a[3], in(s, 4));
        return true;
    case SYS_ppoll:
        *result = ppoll(out(s, 0), (nfds_t)s->a[1], in(s, 2), in(s, 3));
        return true;
    default:
        return false;
    }
}

/* Of the old tables: x86-64 has them, newer architectures do not. */
static bool old_numbers(const struct raw_call *s, long *result)
{
    switch (s->number) {
#ifdef SYS_dup2
    case SYS_dup2:
        *result = dup2((int)s->a[0], (int)s->a[1]);
        return true;
#endif
#ifdef SYS_poll
    case SYS_poll:
        *result = poll(out(s, 0), (nfds_t)s->a[1], (int)s->a[2]);
        return true;
#endif
#ifdef SYS_select
    case SYS_select:
        *result = select((int)s->a[0], out(s, 1), out(s, 2), out(s, 3), out(s, 4));
        return true;
#endif
#ifdef SYS_epoll_create
    case SYS_epoll_create:
        *result = epoll_create((int)s->a[0]);
        return true;
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        *result = epoll_wait((int)s->a[0], out(s, 1), (int)s->a[2], (int)s->a[3]);
        return true;
#endif
    default:
        return false;
    }
}

static bool processes(struct raw_call *s, long *result)
{
    switch (s->number) {
    case SYS_clone:
        *result = do_clone(s);
        return true;
#ifdef SYS_fork
    case SYS_fork:
        *result = call_result(process_fork(fork_raw, s));
        return true;
#endif
#ifdef SYS_vfork
    case SYS_vfork:
        s->number = SYS_fork;
        *result = call_result(process_fork(fork_raw, s));
        return true;
#endif
    case SYS_execve:
        *result = execve(in(s, 0), out(s, 1), out(s, 2));
        return true;
    case SYS_execveat:
        *result = execveat((int)s->a[0], in(s, 1), out(s, 2), out(s, 3), (int)s->a[4]);
        return true;
    case SYS_exit_group:
        _exit((int)s->a[0]);
    case SYS_pidfd_getfd:
        *result = pidfd_getfd((int)s->a[0], (int)s->a[1], (unsigned)s->a[2]);
        return true;
    case SYS_prctl:
        *result = prctl((int)s->a[0], s->a[1], s->a[2], s->a[3], s->a[4]);
        return true;
    case SYS_seccomp:
        if (s->a[0] == SECCOMP_SET_MODE_FILTER || s->a[0] == SECCOMP_SET_MODE_STRICT)
            sandbox_enter(in(s, 2), (s->a[1] & SECCOMP_FILTER_FLAG_TSYNC) != 0);
        return false;
    case SYS_io_uring_setup:
        if (config.io_uring)
            return false;
        *result = call_result(-ENOSYS);
        return true;
    default:
        return false;
    }
}

SHIM_EXPORT long syscall(long number, ...)
{
    struct raw_call s = {.number = number};
    va_list ap;
    va_start(ap, number);
    for (unsigned i = 0; i < ARRAY_LEN(s.a); i++)
        s.a[i] = va_arg(ap, long);
    va_end(ap);
    long result;
    if (!config.off &&
        (transfers(&s, &result) || sockets(&s, &result) || descriptors(&s, &result) ||
         old_numbers(&s, &result) || processes(&s, &result)))
        return result;
    return pass(&s);
}
