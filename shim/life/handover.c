#define _GNU_SOURCE
#include "shim/life/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/core/usock.h"
#include "shim/life/arena_map.h"
#include "shim/life/keeper.h"
#include "shim/life/own_address.h"
#include "shim/link/link.h"
#include "shim/wait/epset.h"
#include "shim/wait/wait.h"

/* The family's descriptors, in the order of the variable; -1: there is none. */
enum { PACKET = KEEPER_HAS, ADDRESS, HANDED };

static void family_fds(int fds[HANDED])
{
    keeper_fds(fds);
    fds[PACKET] = engine.link->fd;
    fds[ADDRESS] = own_address_fd();
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) == 0 ? st.st_ino : 0;
}

static bool inherited(int fd)
{
    return (raw_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) == 0;
}

bool handover_due(void)
{
    if (!engine_running())
        return false;
    for (unsigned fd = 0; fd < fd_high(); fd++)
        if (fd_usock((int)fd) != NULL && inherited((int)fd))
            return true;
    return config.own_address || config.loopback_user;
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

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    (void)raw_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
    return cookie;
}

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
            us->cookie = cookie_of((int)fd);
        else
            usock_leave(&cx, us, (int)fd);
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
    for (unsigned fd = 0; fd < fd_high(); fd++) {
        struct usock *us = fd_usock((int)fd);
        if (us != NULL && !inherited((int)fd))
            us->refs++;
    }
    epset_ref_all(1);
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

/* By cookie: which descriptors of this process may be a user socket. */
struct found {
    uint64_t cookie;
    int32_t fd;
    int32_t next; /* of the same bucket; -1: none */
};

struct search {
    struct found *found;
    int32_t *buckets;
    uint32_t mask;
};

static void match(void *object, void *arg)
{
    struct usock *us = object;
    const struct search *s = arg;
    if (us->cookie == 0)
        return;
    for (int32_t i = s->buckets[us->cookie & s->mask]; i >= 0; i = s->found[i].next)
        if (s->found[i].cookie == us->cookie)
            fd_set_usock(s->found[i].fd, us);
}

/* Entered. The table of descriptors, made anew from the kernel's sockets below `high`. */
static void find_sockets(unsigned high)
{
    struct search s = {.mask = 15};
    while (s.mask < high)
        s.mask = s.mask * 2 + 1;
    const size_t size = high * sizeof(struct found) + (s.mask + 1) * sizeof(int32_t);
    void *map = raw_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw_is_error(map))
        return;
    s.found = map;
    s.buckets = (int32_t *)(s.found + high);
    memset(s.buckets, 0xff, (s.mask + 1) * sizeof(int32_t));
    int32_t n = 0;
    for (unsigned fd = 0; fd < high; fd++) {
        const uint64_t cookie = fd_entry((int)fd) == 0 ? cookie_of((int)fd) : 0;
        if (cookie == 0)
            continue;
        int32_t *bucket = &s.buckets[cookie & s.mask];
        s.found[n] = (struct found){.cookie = cookie, .fd = (int32_t)fd, .next = *bucket};
        *bucket = n++;
    }
    pool_each(&engine.sh->usocks, match, &s);
    raw_munmap(map, size);
}

bool handover_adopt(const char *value)
{
    struct paper p;
    struct link *l;
    if (fd_table_init() < 0 || !read_paper(value, &p))
        return false;
    if (inode_of(p.fds[KEEPER_ARENA]) != p.inode ||
        arena_map_again((void *)(uintptr_t)p.base, p.size, p.fds[KEEPER_ARENA]) < 0)
        return false;
    for (unsigned i = 0; i < HANDED; i++)
        if (p.fds[i] >= 0)
            fd_mark_internal(p.fds[i]);
    config.mem = p.size;
    engine.sh = stack_extra((struct stack *)(uintptr_t)p.stack);
    if (link_af_packet_attach((struct stack *)(uintptr_t)p.stack, p.fds[PACKET], &config, &l) < 0)
        return false;
    keeper_adopt(p.fds);
    own_address_adopt(p.fds[ADDRESS]);
    engine.link = l;
    __atomic_store_n(&engine.st, (struct stack *)(uintptr_t)p.stack, __ATOMIC_RELEASE);
    engine_attach();
    struct stack_cx cx;
    engine_enter(&cx);
    find_sockets((unsigned)p.high);
    engine_leave(&cx);
    return true;
}
