/*
 * fstat(): inode numbers of different sockets differ, so each socket has its own from then on. The
 * other names of the call (fstatat(), statx() with an empty path) show the common one.
 */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"

static int stat_of(int fd, void *st)
{
    struct call c;
    if (unlikely(fd_usock(fd) != NULL) && call_begin(&c, fd, "fstat", CALL_ANY)) {
        (void)backing_own(c.us, fd);
        call_pass(&c);
    }
    return (int)call_result(raw_syscall(SYS_fstat, fd, (long)st, 0, 0, 0, 0));
}

SHIM_EXPORT int fstat(int fd, struct stat *st)
{
    return stat_of(fd, st);
}

SHIM_EXPORT int fstat64(int fd, struct stat64 *st)
{
    return stat_of(fd, st);
}

/* Of programs that were built against a glibc before 2.33; the first argument is always the same.
 */
SHIM_EXPORT int __fxstat(int version, int fd, struct stat *st)
{
    (void)version;
    return stat_of(fd, st);
}

SHIM_EXPORT int __fxstat64(int version, int fd, struct stat64 *st)
{
    (void)version;
    return stat_of(fd, st);
}
