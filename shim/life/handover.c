#define _GNU_SOURCE
#include "shim/life/handover.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/hold.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/core/usock.h"
#include "shim/libc/backing.h"
#include "shim/life/arena_map.h"
#include "shim/life/births.h"
#include "shim/life/keeper.h"
#include "shim/life/own_address.h"
#include "shim/link/diag.h"
#include "shim/link/ingress.h"
#include "shim/link/link.h"
#include "shim/wait/epset.h"
#include "shim/wait/wait.h"

/* Descriptors below this are looked at for unix sockets that listen. */
#define DOORS_MAX 256

/* The family's descriptors, in the order of the variable; -1: there is none. */
enum { PACKET = KEEPER_HAS, ADDRESS, CAPTURE, MARKS_MAP, BIRTHS, HANDED = BIRTHS + BIRTHS_HAVE };

static void family_fds(int fds[HANDED])
{
    keeper_fds(fds);
    fds[PACKET] = engine.link->fd;
    fds[ADDRESS] = own_address_fd();
    births_fds(&fds[BIRTHS]);
    fds[CAPTURE] = link_capture_fd();
    fds[MARKS_MAP] = ingress_fd();
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) == 0 ? st.st_ino : 0;
}

/*
 * The process that is of the family by itself, not by fork: it started the engine, or was handed
 * it. 0: there is none yet.
 */
static long member;

static bool inherited(int fd)
{
    return (raw_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) == 0;
}

/*
 * A unix socket that listens. Who serves on it may be handed connections in messages (dovecot), and
 * when it has another user by then it could not join the family any more.
 */
static bool is_door(int fd)
{
    int listens = 0, domain = 0;
    socklen_t len = sizeof(int);
    return raw_getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens != 0 &&
           raw_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

bool handover_due(void)
{
    if (!engine_running())
        return false;
    if (config.own_address || config.loopback_user)
        return true;
    for (unsigned fd = 0; fd < fd_high(); fd++)
        if (fd_usock((int)fd) != NULL && inherited((int)fd))
            return true;
    for (int fd = 0; fd < DOORS_MAX; fd++)
        if (is_door(fd) && inherited(fd))
            return true;
    return false;
}

/* A server that executes itself anew may get its sockets back by message (haproxy); and tools that
 * give up root for another program have started the engine for it (setpriv). */
bool handover_due_self(void)
{
    return handover_due() || (engine_running() && member == raw_getpid());
}

bool handover_text(char text[HANDOVER_TEXT])
{
    int fds[HANDED];
    family_fds(fds);
    if (fds[KEEPER_ARENA] < 0)
        return false;
    int n = snprintf(text, HANDOVER_TEXT, HANDOVER_VARIABLE "=%lx,%llx,%lx,%llx,%x",
                     (unsigned long)(uintptr_t)stack_arena(engine.st),
                     (unsigned long long)config.mem, (unsigned long)(uintptr_t)engine.st,
                     (unsigned long long)inode_of(fds[KEEPER_ARENA]), fd_high());
    for (unsigned i = 0; i < HANDED; i++)
        n += snprintf(text + n, HANDOVER_TEXT - (size_t)n, ",%d", fds[i]);
    return true;
}

/* ---- the old image ---- */

static uint8_t service_before;

static void keep_open(bool on)
{
    int fds[HANDED];
    family_fds(fds);
    for (unsigned i = 0; i < HANDED; i++)
        if (fds[i] >= 0)
            raw_fcntl(fds[i], F_SETFD, on ? 0 : FD_CLOEXEC);
}

void handover_begin(void)
{
    struct stack_cx cx;
    engine_enter(&cx);
    engine_hold();
    epset_drop_all(&cx, true);
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct usock *us = fd_usock((int)fd);
        if (us == NULL)
            continue;
        if (inherited((int)fd))
            us->cookie = backing_is_common(us, (int)fd) ? us->cookie : diag_cookie((int)fd);
        else if (us->guarded)
            usock_leave(&cx, us, (int)fd); /* its port is to be free when the image is there */
    }
    service_before = engine_step_aside();
    engine_leave(&cx);
    keep_open(true);
}

void handover_cancel(void)
{
    struct stack_cx cx;
    const int saved = errno;
    keep_open(false);
    engine_enter(&cx);
    hold_again();
    engine_step_back(service_before);
    engine_release();
    engine_leave(&cx);
    errno = saved;
}

/* ---- the new one ---- */

struct paper {
    uint64_t base, size, stack, inode, high;
    int fds[HANDED];
};

static bool read_paper(const char *value, struct paper *p)
{
    uint64_t *const words[] = {&p->base, &p->size, &p->stack, &p->inode, &p->high};
    char *at = (char *)value;
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        *words[i] = strtoull(at, &at, 16);
        if (*at++ != ',')
            return false;
    }
    for (unsigned i = 0; i < HANDED; i++) {
        p->fds[i] = (int)strtol(at, &at, 10);
        if (*at++ != (i + 1 < HANDED ? ',' : '\0'))
            return false;
    }
    return p->high <= fd_limit;
}

/* Whether the descriptor is still the socket that the image before had under that number. */
static bool same(int fd, const struct usock *us)
{
    return fd_entry(fd) == 0 &&
           ((us->cookie != 0 && diag_cookie(fd) == us->cookie) || backing_is_common(us, fd));
}

/* The family's descriptors are there, under the numbers that every member has them by. */
static bool enter_family(const struct paper *p, void (*attach)(void))
{
    struct stack *st = (struct stack *)(uintptr_t)p->stack;
    struct link *l;
    if (arena_map_again((void *)(uintptr_t)p->base, p->size, p->fds[KEEPER_ARENA]) < 0)
        return false;
    for (unsigned i = 0; i < HANDED; i++)
        if (p->fds[i] >= 0)
            fd_mark_internal(p->fds[i]);
    if (!ingress_adopt(st, p->fds[MARKS_MAP]))
        return false;
    config.mem = p->size;
    engine.sh = stack_extra(st);
    if (link_af_packet_attach(st, p->fds[PACKET], &config, &l) < 0)
        return false;
    link_wrap(st, &config, p->fds[CAPTURE], &l);
    keeper_adopt(p->fds);
    own_address_adopt(p->fds[ADDRESS]);
    births_adopt(&p->fds[BIRTHS]);
    engine_use_link(l);
    __atomic_store_n(&engine.st, st, __ATOMIC_RELEASE);
    attach();
    member = raw_getpid();
    return true;
}

bool handover_adopt(const char *value)
{
    struct paper p;
    if (fd_table_init() < 0 || !read_paper(value, &p) || inode_of(p.fds[KEEPER_ARENA]) != p.inode ||
        !enter_family(&p, engine_resume))
        return false;
    struct stack_cx cx;
    engine_enter(&cx);
    hold_adopt(&cx, same);
    engine_leave(&cx);
    return true;
}

/* ---- joining a family that this process does not come from ---- */

_Static_assert(HANDED <= FAMILY_FDS, "shared.family_fds has room for all");

void handover_publish(void)
{
    member = raw_getpid();
    family_fds(engine.sh->family_fds);
}

/* Copies descriptor fd of the process, to the same number. */
static bool fetch(int pidfd, int fd)
{
    struct rlimit before = {0}, high;
    const int got = (int)raw_syscall(SYS_pidfd_getfd, pidfd, fd, 0, 0, 0, 0);
    if (got < 0)
        return false;
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&before, 0, 0);
    high = before;
    high.rlim_cur = high.rlim_max;
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&high, 0, 0, 0);
    const int there = raw_fcntl(got, F_DUPFD_CLOEXEC, fd);
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&before, 0, 0, 0);
    raw_close(got);
    if (there == fd)
        return true;
    if (there >= 0)
        raw_close(there);
    return false;
}

/* The number by which the process has its arena; -1: it has none. */
static int find_arena(int pid)
{
    static const char target[] = "/memfd:" ARENA_FILE_NAME " (deleted)";
    char path[64], link[sizeof(target)];
    uint64_t buffer[256];
    int found = -1;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    const int dir = raw_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long n;
    while (dir >= 0 && found < 0 &&
           (n = raw_syscall(SYS_getdents64, dir, (long)buffer, sizeof(buffer), 0, 0, 0)) > 0) {
        for (long at = 0; at < n && found < 0;) {
            const struct dirent64 *e = (const void *)((const char *)buffer + at);
            at += e->d_reclen;
            if (raw_syscall(SYS_readlinkat, dir, (long)e->d_name, (long)link, sizeof(link), 0, 0) ==
                    sizeof(target) - 1 &&
                memcmp(link, target, sizeof(target) - 1) == 0)
                found = atoi(e->d_name);
        }
    }
    if (dir >= 0)
        raw_close(dir);
    return found;
}

/* A larger family takes nobody in: it needs the room for its children. */
#define JOINERS_MAX (PROCESSES_MAX / 2)

/* What the head of the arena says. It is mapped anywhere for that: only offsets hold. */
static bool read_arena(int fd, struct paper *p)
{
    struct stat st;
    if (raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) < 0 ||
        (uint64_t)st.st_size < STACK_SIZE_MIN)
        return false;
    uint8_t *map = raw_mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (raw_is_error(map))
        return false;
    struct stack *stack = arena_reserved((struct arena *)map);
    const struct shared *sh = stack_extra(stack);
    p->base = (uintptr_t)stack_arena(stack);
    p->size = (uint64_t)st.st_size;
    p->stack = p->base + (uint64_t)((uint8_t *)stack - map);
    memcpy(p->fds, sh->family_fds, sizeof(p->fds));
    const bool full = __atomic_load_n(&sh->processes_live, __ATOMIC_RELAXED) >= JOINERS_MAX;
    raw_munmap(map, (size_t)st.st_size);
    return p->fds[KEEPER_ARENA] >= 0 && !full;
}

uint64_t handover_family(void)
{
    int fds[KEEPER_HAS];
    keeper_fds(fds);
    return fds[KEEPER_ARENA] >= 0 ? inode_of(fds[KEEPER_ARENA]) : 0;
}

bool handover_join(int pid, uint64_t family)
{
    struct paper p;
    const int arena = fd_table_init() == 0 ? find_arena(pid) : -1;
    const int pidfd = arena >= 0 ? (int)raw_syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0) : -1;
    if (pidfd < 0)
        return false;
    bool ok = fetch(pidfd, arena);
    unsigned have = 0;
    if (ok && !((family == 0 || inode_of(arena) == family) && read_arena(arena, &p) &&
                p.fds[KEEPER_ARENA] == arena)) {
        raw_close(arena);
        ok = false;
    }
    for (; ok && have < HANDED; have++)
        ok = p.fds[have] < 0 || p.fds[have] == arena || fetch(pidfd, p.fds[have]);
    raw_close(pidfd);
    while (!ok && have-- > 0)
        if (p.fds[have] >= 0)
            raw_close(p.fds[have]);
    return ok && enter_family(&p, engine_attach);
}
