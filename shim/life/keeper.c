/*
 * Starting the keeper without the program noticing: it is the grandchild of this process, by two
 * clones without a signal at their end, so that no wait() of the program sees either; it has a
 * session of its own and none of the program's descriptors. Both clones share memory, so that
 * nothing is copied but the table of descriptors: from that moment on (some 50 us) all is in the
 * keeper's hands, and it starts while the program goes on. The service thread collects the child
 * in between.
 *
 * A program that adopts orphans (PR_SET_CHILD_SUBREAPER) would get the grandchild back as a child
 * with SIGCHLD: it does not adopt for as long as the birth takes. The init of a container always
 * does, and takes everybody with it when it ends: it gets no keeper.
 */
#define _GNU_SOURCE
#include "shim/life/keeper.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/real.h"
#include "shim/life/births.h"
#include "shim/life/custody.h"
#include "shim/life/own_address.h"
#include "shim/link/diag.h"
#include "shim/link/guard.h"
#include "shim/link/ingress.h"
#include "shim/link/link.h"
#include "shim/link/standing.h"

#define NAME        "tcpshim-keeper"
#define ENV_BYTES   2048
#define ENV_MAX     24
#define STACK_BYTES 8192
#define QUEUE_BYTES (4 << 20)
/* The keeper's descriptors are gathered from here on before they get their numbers. */
#define FD_GATHER 16
/*
 * Guards in custody that make a look worth while whether some can be let go; and how many are
 * looked at, each time that half as many came: in few looks all, and none holds the others up.
 */
#define SWEEP_MIN  128
#define SWEEP_LOOK CUSTODY_BATCH

/* Another thread or process is about to have started it: looks, nanoseconds between them. */
#define STARTING_LOOKS 200
#define STARTING_LOOK  (500 * NSEC_PER_USEC)

/* Values of shared.keeper beside its pid. */
enum { KEEPER_NONE = 0, KEEPER_STARTING = -1, KEEPER_IMPOSSIBLE = -2 };

static struct {
    int32_t parent, child; /* by which it is born; 0: collected (atomic) */
    int program;           /* O_PATH; -1: there is none */
    int arena;
    int out, in; /* custody */
    int pidfd;   /* of the keeper that this process, or one that it was forked from, started */
    int32_t watched;
    char env_text[ENV_BYTES];
    char *env[ENV_MAX + 1];
} keeper = {.program = -1, .arena = -1, .out = -1, .in = -1, .pidfd = -1};

/* ---- before anything else ---- */

/* The executable in the directory that this library came from. */
static int open_program(void)
{
    char path[512];
    Dl_info info;
    if (dladdr(&keeper, &info) == 0 || info.dli_fname == NULL)
        return -1;
    const char *slash = strrchr(info.dli_fname, '/');
    const size_t dir = slash != NULL ? (size_t)(slash - info.dli_fname) + 1 : 0;
    if (dir + sizeof(NAME) > sizeof(path))
        return -1;
    memcpy(path, info.dli_fname, dir);
    memcpy(path + dir, NAME, sizeof(NAME));
    return raw_open(path, O_PATH | O_CLOEXEC, 0);
}

/* The program may rewrite its environment at any time (setproctitle): what counts is copied. */
static void copy_environment(void)
{
    size_t used = 0;
    unsigned n = 0;
    for (char **e = environ; e != NULL && *e != NULL && n < ENV_MAX; e++) {
        const size_t len = strlen(*e) + 1;
        if (strncmp(*e, "TCPSHIM_", 8) != 0 || len > ENV_BYTES - used)
            continue;
        keeper.env[n++] = memcpy(keeper.env_text + used, *e, len);
        used += len;
    }
}

void keeper_prepare(int arena)
{
    int pair[2] = {-1, -1};
    const int bytes = QUEUE_BYTES;
    const int program = arena >= 0 ? open_program() : -1;
    if (program < 0 || raw_syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                                   (long)pair, 0, 0) < 0) {
        if (program >= 0)
            raw_close(program);
        keeper.arena = fd_make_internal(arena);
        return;
    }
    if (raw_setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        raw_setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    keeper.out = fd_make_internal(pair[0]);
    keeper.in = fd_make_internal(pair[1]);
    keeper.program = fd_make_internal(program);
    keeper.arena = fd_make_internal(arena);
    copy_environment();
}

void keeper_fds(int fds[KEEPER_HAS])
{
    fds[KEEPER_PROGRAM] = keeper.program;
    fds[KEEPER_ARENA] = keeper.arena;
    fds[KEEPER_OUT] = keeper.out;
    fds[KEEPER_IN] = keeper.in;
}

void keeper_adopt(const int fds[KEEPER_HAS])
{
    keeper.program = fds[KEEPER_PROGRAM];
    keeper.arena = fds[KEEPER_ARENA];
    keeper.out = fds[KEEPER_OUT];
    keeper.in = fds[KEEPER_IN];
    copy_environment();
}

/* ---- the two children: system calls only, on stacks of their own, in this process's memory ----
 */

struct birth {
    char *argv[5];
    int fds[KEEPER_FD_END + 1]; /* by their new numbers; the last is the executable; -1: none */
    int32_t pid;
    int error;
};

static struct birth birth;
static char stacks[2][STACK_BYTES] __attribute__((aligned(16)));

static _Noreturn void leave(int status)
{
    for (;;)
        raw_syscall(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

/* Gives the descriptors their numbers and closes all others. */
static int arrange_fds(const struct birth *b)
{
    int gathered[KEEPER_FD_END + 1];
    for (int i = KEEPER_FD_PACKET; i <= KEEPER_FD_END; i++) {
        gathered[i] = b->fds[i] < 0 ? -1 : raw_fcntl(b->fds[i], F_DUPFD_CLOEXEC, FD_GATHER);
        if (b->fds[i] >= 0 && gathered[i] < 0)
            return gathered[i];
    }
    const int null = raw_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
    const int none = null >= 0 ? raw_fcntl(null, F_DUPFD_CLOEXEC, FD_GATHER) : -1;
    for (int i = 0; i <= KEEPER_FD_END; i++) {
        const int from = i < KEEPER_FD_PACKET ? none : gathered[i];
        raw_close(i);
        if (from >= 0)
            raw_syscall(SYS_dup3, from, i, i == KEEPER_FD_END ? O_CLOEXEC : 0, 0, 0, 0);
    }
    if (raw_syscall(SYS_close_range, KEEPER_FD_END + 1, UINT32_MAX, 0, 0, 0, 0) == -ENOSYS)
        for (int fd = KEEPER_FD_END + 1; fd < 65536; fd++)
            raw_close(fd);
    return 0;
}

static int grandchild(void *arg)
{
    struct birth *b = arg;
    struct rlimit limit = {0};
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit, 0, 0) == 0) {
        limit.rlim_cur = limit.rlim_max;
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&limit, 0, 0, 0);
    }
    raw_syscall(SYS_setsid, 0, 0, 0, 0, 0, 0);
    raw_syscall(SYS_chdir, (long)"/", 0, 0, 0, 0, 0);
    b->error = arrange_fds(b);
    if (b->error == 0)
        b->error = (int)raw_syscall(SYS_execveat, KEEPER_FD_END, (long)"", (long)b->argv,
                                    (long)keeper.env, AT_EMPTY_PATH, 0);
    leave(127);
}

/* Returns when the grandchild has become the keeper, or has ended. */
static int intermediate(void *arg)
{
    struct birth *b = arg;
    b->pid = real.clone(grandchild, stacks[1] + STACK_BYTES, CLONE_VM | CLONE_VFORK, b);
    leave(0);
}

static bool adopts_orphans(void)
{
    int adopts = 0;
    const long r = raw_syscall(SYS_prctl, PR_GET_CHILD_SUBREAPER, (long)&adopts, 0, 0, 0, 0);
    return r == 0 && adopts != 0;
}

static void wait_for(int32_t child)
{
    while (raw_syscall(SYS_wait4, child, 0, __WCLONE, 0, 0, 0) == -EINTR)
        ;
}

/* The child by which it is born, or negative. */
static int32_t conceive(struct birth *b)
{
    static char base[20], size[20], stack[20];
    *b = (struct birth){
        .argv = {(char *)NAME, base, size, stack, NULL},
        .error = -ECHILD, /* when the second clone does not come about */
    };
    snprintf(base, sizeof(base), "%lx", (unsigned long)(uintptr_t)stack_arena(engine.st));
    snprintf(size, sizeof(size), "%lx", (unsigned long)config.mem);
    snprintf(stack, sizeof(stack), "%lx", (unsigned long)(uintptr_t)engine.st);
    b->fds[KEEPER_FD_PACKET] = engine.link->fd;
    b->fds[KEEPER_FD_ARENA] = keeper.arena;
    b->fds[KEEPER_FD_CUSTODY] = keeper.in;
    b->fds[KEEPER_FD_ADDRESS] = own_address_fd();
    b->fds[KEEPER_FD_BIRTHS] = births_in();
    b->fds[KEEPER_FD_BELL] = births_bell();
    b->fds[KEEPER_FD_CAPTURE] = link_capture_fd();
    b->fds[KEEPER_FD_MARKS] = ingress_fd();
    b->fds[KEEPER_FD_END] = keeper.program;
    if (!adopts_orphans())
        return real_ready()->clone(intermediate, stacks[0] + STACK_BYTES, CLONE_VM, b);
    raw_syscall(SYS_prctl, PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0, 0);
    const int32_t child =
        real_ready()->clone(intermediate, stacks[0] + STACK_BYTES, CLONE_VM | CLONE_VFORK, b);
    if (child > 0)
        wait_for(child);
    raw_syscall(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0);
    return child;
}

/* A sandbox may kill for what a program with kernel sockets would never do. */
static bool sandboxed(void)
{
    return raw_syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0) > 0;
}

static bool alive(int32_t pid)
{
    return pid > 0 && raw_syscall(SYS_kill, pid, 0, 0, 0, 0, 0) != -ESRCH;
}

void keeper_begin(void)
{
    if (keeper.program < 0 || !engine_running())
        return;
    int32_t *state = &engine.sh->keeper, none = KEEPER_NONE;
    if (!__atomic_compare_exchange_n(state, &none, KEEPER_STARTING, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return;
    const int saved = errno;
    const uint64_t all = UINT64_MAX;
    uint64_t before;
    int32_t child = -1;
    if (raw_getpid() != 1 && !sandboxed()) {
        raw_sigprocmask(SIG_SETMASK, &all, &before);
        child = conceive(&birth);
        raw_sigprocmask(SIG_SETMASK, &before, NULL);
    }
    if (child > 0) {
        keeper.parent = raw_getpid();
        __atomic_store_n(&keeper.child, child, __ATOMIC_RELEASE);
    } else {
        __atomic_store_n(state, KEEPER_IMPOSSIBLE, __ATOMIC_RELEASE);
    }
    errno = saved;
}

/*
 * Entered meanwhile, since the lock is held across fork(): the kernel copies the descriptors first
 * and the memory later, so a child could have the number without the descriptor.
 */
static void watch(int32_t pid)
{
    struct stack_cx cx;
    engine_enter(&cx);
    const int fd = (int)raw_syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0);
    if (keeper.pidfd >= 0)
        fd_release_internal(keeper.pidfd);
    keeper.pidfd = fd_make_internal(fd);
    keeper.watched = fd >= 0 ? pid : 0;
    engine_leave(&cx);
}

/* Whoever comes first waits for the intermediate child and says how it went. */
static void collect(void)
{
    if (keeper.parent != raw_getpid()) /* a fork's child inherited the variables only */
        return;
    const int32_t child = __atomic_exchange_n(&keeper.child, 0, __ATOMIC_ACQ_REL);
    if (child == 0)
        return;
    wait_for(child); /* or it was waited for: ECHILD */
    const bool born = birth.error == 0 && birth.pid > 0;
    __atomic_store_n(&engine.sh->keeper, born ? birth.pid : KEEPER_IMPOSSIBLE, __ATOMIC_RELEASE);
    if (born) /* last: if the process ends meanwhile, other threads enter no more */
        watch(birth.pid);
}

/*
 * It was killed: by hand, or for its memory. True: this process is to start another. Only who
 * started it, or was forked from that process later, knows; by a call that no sandbox refuses.
 */
static bool lost(void)
{
    int32_t pid = __atomic_load_n(&engine.sh->keeper, __ATOMIC_ACQUIRE);
    struct pollfd end = {.fd = keeper.pidfd, .events = POLLIN};
    struct timespec zero = {0};
    return pid > 0 && pid == keeper.watched && raw_ppoll(&end, 1, &zero) == 1 &&
           (end.revents & POLLIN) != 0 &&
           __atomic_compare_exchange_n(&engine.sh->keeper, &pid, KEEPER_NONE, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

bool keeper_start(void)
{
    if (keeper.program < 0 || !engine_running())
        return false;
    const bool again = lost();
    keeper_begin();
    collect();
    int32_t state = __atomic_load_n(&engine.sh->keeper, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; state == KEEPER_STARTING && i < STARTING_LOOKS; i++) {
        struct timespec pause = {.tv_nsec = (long)STARTING_LOOK};
        raw_ppoll(NULL, 0, &pause);
        state = __atomic_load_n(&engine.sh->keeper, __ATOMIC_ACQUIRE);
    }
    if (again && state > 0)
        family_introduce();
    return alive(state);
}

bool keeper_watches(void)
{
    const int32_t state = __atomic_load_n(&engine.sh->keeper, __ATOMIC_ACQUIRE);
    return state > 0 || state == KEEPER_STARTING;
}

/* ---- guards ---- */

struct wish {
    uint64_t cookie;           /* let go of this one; 0: by port */
    uint16_t port;             /* let go of this process's named guards of this port; 0: of none */
    struct guard_yield *yield; /* named guards of its port make room, or end; NULL: none do */
    int32_t dead; /* take over the named guards of this process, and let go of members of groups
                     that listened for it; 0: of none */
};

static bool unwanted(struct custody_item *item, int fd, const struct wish *w)
{
    if (w->cookie != 0)
        return item->cookie == w->cookie;
    if (w->dead != 0) {
        if (item->named && guard_orphaned(fd, item->cookie, item->port))
            return true;
        if (!item->named || item->pid != w->dead)
            return false;
        item->pid = raw_getpid();
        return !guard_adopt(fd, item->port);
    }
    if (w->yield != NULL)
        return item->named && item->port == w->yield->to.port && guard_yields(fd, w->yield);
    if (w->port != 0)
        return item->named && item->port == w->port && item->pid == raw_getpid();
    return !tcp_port_in_use(engine.st, item->port) && !alive(item->pid);
}

/* Guards that are on their way from the queue into the queue. */
struct bundle {
    unsigned n;
    struct custody_item items[CUSTODY_BATCH];
    int fds[CUSTODY_BATCH];
};

static struct bundle taken, kept; /* under the lock, and too large for a program's stack */

/* The items from `at` on are not in custody any more. */
static void gone(const struct bundle *b, unsigned at, unsigned n)
{
    struct shared *sh = engine.sh;
    for (unsigned i = at; i < at + n; i++) {
        if (b->items[i].named)
            sh->held_named -= min_u32(sh->held_named, 1);
        else
            standing_gone(&sh->standing, b->items[i].port);
    }
}

static void put_back(void)
{
    struct shared *sh = engine.sh;
    sh->held += kept.n; /* who dies here leaves it too high: the next look mends that */
    if (kept.n > 0 && custody_send(keeper.out, kept.items, kept.fds, kept.n) < 0) {
        gone(&kept, 0, kept.n);
        sh->held -= kept.n;
    }
    for (unsigned i = 0; i < kept.n; i++)
        raw_close(kept.fds[i]);
    kept.n = 0;
}

/* Takes out `most` guards (more, by a whole message), if there are so many, and puts back what is
 * still wanted. */
static void go_through(const struct wish *w, uint32_t most)
{
    struct shared *sh = engine.sh;
    struct rlimit before = {0}, high;
    const bool limited = raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&before, 0, 0) == 0;
    if (limited) {
        high = before;
        high.rlim_cur = high.rlim_max;
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&high, 0, 0, 0);
    }
    sh->held_out = true;
    for (uint32_t left = min_u32(most, sh->held); left > 0;) {
        unsigned lost = 0;
        const int n = custody_receive(keeper.in, taken.items, taken.fds, &lost);
        if (n < 0) {
            sh->held = 0;
            break;
        }
        gone(&taken, (unsigned)n, lost);
        const uint32_t out = (uint32_t)n + lost;
        left -= min_u32(left, out);
        sh->held -= min_u32(sh->held, out);
        for (int i = 0; i < n; i++) {
            if (unwanted(&taken.items[i], taken.fds[i], w)) {
                gone(&taken, (unsigned)i, 1);
                raw_close(taken.fds[i]);
                continue;
            }
            kept.items[kept.n] = taken.items[i];
            kept.fds[kept.n++] = taken.fds[i];
            if (kept.n == CUSTODY_BATCH)
                put_back();
        }
    }
    put_back();
    sh->held_out = false;
    if (limited)
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&before, 0, 0, 0);
}

bool keeper_hold(int fd, uint16_t port, bool named)
{
    if (keeper.out < 0)
        return false;
    struct shared *sh = engine.sh;
    const struct wish sweep = {.port = 0};
    const struct custody_item item = {
        .cookie = diag_cookie(fd), .pid = raw_getpid(), .port = port, .named = named};
    if (sh->held >= SWEEP_MIN && ++sh->held_new >= SWEEP_LOOK / 2) {
        sh->held_new = 0;
        go_through(&sweep, SWEEP_LOOK);
    }
    sh->held++; /* before it is: who dies in between leaves no guard that nobody looks for */
    sh->held_named += named;
    int err = custody_send(keeper.out, &item, &fd, 1);
    if (err == -EAGAIN) { /* many small messages: fewer large ones take less room */
        go_through(&sweep, UINT32_MAX);
        err = custody_send(keeper.out, &item, &fd, 1);
    }
    if (err == 0)
        return true;
    sh->held -= min_u32(sh->held, 1);
    sh->held_named -= min_u32(sh->held_named, named);
    return false;
}

void keeper_let_go(int fd, uint16_t port)
{
    if (keeper.out < 0 || engine.sh->held == 0)
        return;
    const struct wish w = {.cookie = fd >= 0 ? diag_cookie(fd) : 0, .port = port};
    if (w.cookie != 0 || w.port != 0)
        go_through(&w, UINT32_MAX);
}

void keeper_yield(struct guard_yield *y)
{
    const struct wish w = {.yield = y};
    if (keeper.out >= 0 && engine.sh->held_named != 0)
        go_through(&w, UINT32_MAX);
}

void keeper_inherit(int32_t pid)
{
    const struct wish w = {.dead = pid};
    if (keeper.out >= 0 && engine.sh->held_named != 0)
        go_through(&w, UINT32_MAX);
}
