#define _GNU_SOURCE
#include "shim/life/arena_map.h"

#include <errno.h>
#include <sys/resource.h>

#include "shim/core/raw.h"
#include "stack/base.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/*
 * Away from where Linux puts programs (0x55..., 0x7f...) and the sanitizers their heaps (0x60...).
 * The second of a kind is for a process that has one already, or a neighbour of unusual taste.
 * valgrind gives programs 16 TB: the last.
 */
static const uintptr_t places[] = {0x6a0000000000, 0x6b0000000000, 0x4a0000000000, 0x2a0000000000,
                                   0x0a0000000000};

/* An unnamed file of the size, or negative errno. */
static int make_file(size_t size)
{
    struct rlimit limit = {.rlim_cur = 0};
    raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0);
    if (limit.rlim_cur < size)
        return -EFBIG; /* ftruncate() would raise SIGXFSZ */
    int fd = (int)raw_syscall(SYS_memfd_create, (long)ARENA_FILE_NAME, MFD_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0)
        return fd;
    int err = (int)raw_syscall(SYS_ftruncate, fd, (long)size, 0, 0, 0, 0);
    if (err == 0)
        return fd;
    raw_close(fd);
    return err;
}

int arena_map(size_t size, void **base, int *file)
{
    const int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    int fd = make_file(size);
    int err = -ENOMEM;
    if (fd < 0)
        flags |= MAP_ANONYMOUS; /* forked processes share that too */
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        void *want = (void *)places[i];
        void *got = raw_mmap(want, size, prot, flags, fd < 0 ? -1 : fd, 0);
        if (!raw_is_error(got) && got != want) {
            raw_munmap(got, size); /* before Linux 4.17 the flag is but a hint */
            continue;
        }
        if (!raw_is_error(got)) {
            *base = got;
            err = 0;
            break;
        }
        err = (int)(intptr_t)got;
    }
    if (err < 0 && fd >= 0)
        raw_close(fd);
    *file = err < 0 || fd < 0 ? -1 : fd;
    return err;
}

int arena_map_again(void *base, size_t size, int file)
{
    void *got = raw_mmap(base, size, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, file, 0);
    if (raw_is_error(got))
        return (int)(intptr_t)got;
    if (got == base)
        return 0;
    raw_munmap(got, size);
    return -EEXIST;
}

void arena_unmap(void *base, size_t size)
{
    raw_munmap(base, size);
}
