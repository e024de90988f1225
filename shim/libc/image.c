/*
 * Reads what the kernel and the loader will read. A file that may be run but not read counts as
 * dynamic: most are.
 */
#define _GNU_SOURCE
#include "shim/libc/image.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "stack/base.h"

/* Of scripts, as the kernel's. */
#define DEPTH_MAX 5
#define HEAD_MAX  256

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#else
#define MACHINE EM_AARCH64
#endif

struct program {
    int fd;
    struct stat st;
    size_t len;
    union {
        char text[HEAD_MAX + 1];
        Elf64_Ehdr elf;
    } head;
};

/* What makes the loader forget LD_PRELOAD (AT_SECURE). */
static bool gains(const struct program *p)
{
    struct statvfs fs;
    if (getuid() != geteuid() || getgid() != getegid())
        return true;
    if (raw_syscall(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 0) == 1)
        return false;
    const bool uid = (p->st.st_mode & S_ISUID) != 0 && p->st.st_uid != geteuid();
    const bool gid =
        (p->st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && p->st.st_gid != getegid();
    const bool caps = geteuid() != 0 && fgetxattr(p->fd, "security.capability", NULL, 0) > 0;
    return (uid || gid || caps) && (fstatvfs(p->fd, &fs) < 0 || (fs.f_flag & ST_NOSUID) == 0);
}

static enum image elf_image(const struct program *p)
{
    const Elf64_Ehdr *e = &p->head.elf;
    if (p->len < sizeof(*e) || e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != MACHINE)
        return IMAGE_FOREIGN;
    for (unsigned i = 0; i < e->e_phnum; i++) {
        Elf64_Phdr h;
        const off_t at = (off_t)(e->e_phoff + (uint64_t)i * e->e_phentsize);
        if (raw_syscall(SYS_pread64, p->fd, (long)&h, sizeof(h), at, 0, 0) != sizeof(h))
            return IMAGE_FOREIGN;
        if (h.p_type == PT_INTERP)
            return gains(p) ? IMAGE_FOREIGN : IMAGE_DYNAMIC;
    }
    return IMAGE_FOREIGN;
}

/* "#! /bin/sh -e": cut to the interpreter's path. */
static const char *interpreter(struct program *p)
{
    char *path = p->head.text + 2;
    p->head.text[p->len] = '\0';
    path += strspn(path, " \t");
    path[strcspn(path, " \t\r\n")] = '\0';
    return path;
}

static enum image look(int dir, const char *path, int flags, unsigned depth)
{
    struct program p = {.len = 0};
    if (fstatat(dir, path, &p.st, flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) < 0 ||
        !S_ISREG(p.st.st_mode) ||
        ((flags & AT_EMPTY_PATH) == 0 && faccessat(dir, path, X_OK, AT_EACCESS) < 0))
        return IMAGE_NONE;
    if ((flags & AT_EMPTY_PATH) != 0 && path[0] == '\0')
        p.fd = raw_fcntl(dir, F_DUPFD_CLOEXEC, 0);
    else
        p.fd = (int)raw_syscall(SYS_openat, dir, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (p.fd < 0)
        return IMAGE_DYNAMIC;
    const ssize_t n = raw_syscall(SYS_pread64, p.fd, (long)p.head.text, HEAD_MAX, 0, 0, 0);
    p.len = n > 0 ? (size_t)n : 0;
    enum image image = n == -EBADF ? IMAGE_DYNAMIC : IMAGE_NONE; /* EBADF: by O_PATH */
    if (p.len >= SELFMAG && memcmp(p.head.text, ELFMAG, SELFMAG) == 0)
        image = elf_image(&p);
    raw_close(p.fd);
    if (p.len > 2 && p.head.text[0] == '#' && p.head.text[1] == '!')
        image = depth < DEPTH_MAX ? look(AT_FDCWD, interpreter(&p), 0, depth + 1) : IMAGE_NONE;
    return image;
}

enum image image_of(int dir, const char *path, int flags)
{
    return look(dir, path, flags, 0);
}
