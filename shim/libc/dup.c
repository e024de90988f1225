/* dup(), dup2(), dup3(): descriptors come and go, the user socket counts them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/streams.h"
#include "shim/wait/wait.h"

int sock_add_fd(struct call *c, int fd)
{
    if (unlikely(fd_entry(fd) != 0))
        call_purge(fd);
    if ((unsigned)fd >= fd_limit || likely(hold_usock(fd, c->us)))
        return fd;
    raw_close(fd);
    return -ENOMEM;
}

SHIM_EXPORT int dup(int fd)
{
    struct call c;
    int new_fd;
    if (unlikely(call_begin(&c, fd, "dup", CALL_ANY))) {
        new_fd = raw_fcntl(fd, F_DUPFD, 0);
        if (new_fd >= 0)
            new_fd = sock_add_fd(&c, new_fd);
        return streams_arrived((int)call_end(&c, new_fd));
    }
    new_fd = real_ready()->dup(fd);
    if (unlikely(new_fd >= 0 && fd_entry(new_fd) != 0))
        call_purge(new_fd);
    if (unlikely(new_fd >= 0 && wait_is_epoll(fd)))
        wait_epoll_dup(fd, new_fd);
    return new_fd;
}

/*
 * dup3() by its own number, dup2() too: newfd != fd here. What newfd was is let go of first, as the
 * guard of a port has to be duplicated before the kernel closes it.
 */
static int replace(int fd, int newfd, int flags, const char *name)
{
    if ((flags & ~O_CLOEXEC) != 0)
        return (int)call_result(-EINVAL);
    if (raw_fcntl(fd, F_GETFD, 0) < 0 || fd_is_internal(newfd))
        return (int)call_result(-EBADF);
    sock_forget_fd(newfd, name, false);
    struct call c;
    int r;
    if (call_begin(&c, fd, name, CALL_ANY)) {
        r = (int)raw_syscall(SYS_dup3, fd, newfd, flags, 0, 0, 0);
        if (r >= 0)
            r = sock_add_fd(&c, newfd);
        return streams_arrived((int)call_end(&c, r));
    }
    r = (int)raw_syscall(SYS_dup3, fd, newfd, flags, 0, 0, 0);
    if (r >= 0 && wait_is_epoll(fd))
        wait_epoll_dup(fd, newfd);
    return (int)call_result(r);
}

static bool is_plain(int fd)
{
    return fd_entry(fd) == 0 && !wait_is_epoll(fd);
}

SHIM_EXPORT int dup2(int fd, int newfd)
{
    if (likely(is_plain(fd) && is_plain(newfd)) || fd == newfd)
        return real_ready()->dup2(fd, newfd);
    return replace(fd, newfd, 0, "dup2");
}
extern int __dup2(int fd, int newfd)
    __attribute__((nothrow, leaf, alias("dup2"), visibility("default")));

SHIM_EXPORT int dup3(int fd, int newfd, int flags)
{
    if (likely(is_plain(fd) && is_plain(newfd)) || fd == newfd)
        return real_ready()->dup3(fd, newfd, flags);
    return replace(fd, newfd, flags, "dup3");
}
