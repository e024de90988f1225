/* The table of descriptors: see fdtable.h. */
#define _GNU_SOURCE
#include "shim/core/fdtable.h"

#include <errno.h>
#include <sys/resource.h>

#include "shim/core/raw.h"

/* Descriptors at or above this are never ours: the array would be large, and nobody uses them. */
#define FD_TABLE_MAX (1u << 20)
#define FD_TABLE_MIN (1u << 16)
/* Our own descriptors begin here where the limit allows: above select()'s reach, yet low enough
 * that the kernel's table stays small. Where the soft limit is lower: just above it, where they
 * take none of the program's numbers. */
#define FD_INTERNAL_BASE 8192
#define FD_INTERNAL_ROOM 1024

uintptr_t *fd_entries;
struct hold **fd_holds, **fd_heirs;
unsigned fd_limit;
static unsigned high;

int fd_table_init(void)
{
    if (__atomic_load_n(&fd_limit, __ATOMIC_ACQUIRE) != 0)
        return 0;
    struct rlimit limit = {.rlim_max = FD_TABLE_MIN};
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit, 0, 0);
    const unsigned n = limit.rlim_max >= FD_TABLE_MAX   ? FD_TABLE_MAX
                       : limit.rlim_max <= FD_TABLE_MIN ? FD_TABLE_MIN
                                                        : (unsigned)limit.rlim_max;
    void *map = raw_mmap(NULL, 3 * n * sizeof(uintptr_t), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_is_error(map))
        return -ENOMEM;
    uintptr_t *none = NULL;
    if (!__atomic_compare_exchange_n(&fd_entries, &none, map, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        raw_munmap(map, 3 * n * sizeof(uintptr_t)); /* another thread was first */
        return 0;
    }
    fd_holds = (struct hold **)map + n;
    fd_heirs = (struct hold **)map + 2 * (size_t)n;
    __atomic_store_n(&fd_limit, n, __ATOMIC_RELEASE);
    return 0;
}

static void set_entry(int fd, uintptr_t entry)
{
    if ((unsigned)fd >= fd_limit && (fd < 0 || fd_table_init() < 0 || (unsigned)fd >= fd_limit))
        return;
    unsigned seen = __atomic_load_n(&high, __ATOMIC_RELAXED);
    while (entry != 0 && seen <= (unsigned)fd &&
           !__atomic_compare_exchange_n(&high, &seen, (unsigned)fd + 1, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        ;
    __atomic_store_n(&fd_entries[fd], entry, __ATOMIC_RELEASE);
}

void fd_set_usock(int fd, struct usock *us)
{
    set_entry(fd, (uintptr_t)us | FD_SOCKET);
}

void fd_set_epset(int fd, struct epset *ep)
{
    set_entry(fd, (uintptr_t)ep | FD_EPOLL);
}

void fd_clear(int fd)
{
    if (fd_entry(fd) != 0)
        set_entry(fd, 0);
}

bool fd_limit_lift(struct rlimit *before)
{
    *before = (struct rlimit){.rlim_cur = 1024, .rlim_max = 1024};
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)before, 0, 0);
    if (before->rlim_cur >= FD_INTERNAL_BASE || before->rlim_max == before->rlim_cur)
        return false;
    const struct rlimit lifted = {min_u64(before->rlim_max, before->rlim_cur + FD_INTERNAL_ROOM),
                                  before->rlim_max};
    return raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&lifted, 0, 0, 0) == 0;
}

void fd_limit_restore(const struct rlimit *before)
{
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)before, 0, 0, 0);
}

int fd_socket(int family, int type, int protocol)
{
    struct rlimit limit;
    int fd = raw_socket(family, type, protocol);
    if (unlikely(fd == -EMFILE) && fd_limit_lift(&limit)) {
        fd = raw_socket(family, type, protocol);
        fd_limit_restore(&limit);
    }
    return fd;
}

int fd_duplicate(int fd)
{
    struct rlimit limit;
    int copy = raw_fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (unlikely(copy == -EMFILE) && fd_limit_lift(&limit)) {
        copy = raw_fcntl(fd, F_DUPFD_CLOEXEC, 0);
        fd_limit_restore(&limit);
    }
    return copy;
}

static int move_up(int fd, unsigned base)
{
    for (;; base /= 2) {
        const int moved = raw_fcntl(fd, F_DUPFD_CLOEXEC, base);
        if (moved >= 0) {
            raw_close(fd);
            set_entry(moved, FD_INTERNAL);
            return moved;
        }
        if (base == 0 || (int)base <= fd || (moved != -EMFILE && moved != -EINVAL)) {
            raw_fcntl(fd, F_SETFD, FD_CLOEXEC);
            set_entry(fd, FD_INTERNAL);
            return fd;
        }
    }
}

int fd_make_internal(int fd)
{
    struct rlimit limit;
    if (fd < 0 || fd_table_init() < 0)
        return fd;
    const bool lifted = fd_limit_lift(&limit);
    const int moved =
        move_up(fd, lifted                                      ? (unsigned)limit.rlim_cur
                    : limit.rlim_cur / 8 * 7 < FD_INTERNAL_BASE ? (unsigned)limit.rlim_cur / 8 * 7
                                                                : FD_INTERNAL_BASE);
    if (lifted)
        fd_limit_restore(&limit);
    return moved;
}

void fd_mark_internal(int fd)
{
    raw_fcntl(fd, F_SETFD, FD_CLOEXEC);
    set_entry(fd, FD_INTERNAL);
}

void fd_release_internal(int fd)
{
    if (!fd_is_internal(fd))
        return;
    set_entry(fd, 0);
    raw_close(fd);
}

const unsigned *fd_high_at(void)
{
    return &high;
}

unsigned fd_high(void)
{
    return __atomic_load_n(&high, __ATOMIC_RELAXED);
}
