/*
 * The kernel clears a word when a thread ends (set_tid_address(2)), however it ends. libc has one
 * for each thread; looking at the main thread's costs a load.
 */
#define _GNU_SOURCE
#include "shim/life/leader.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "stack/base.h"

static const int32_t *tid_word; /* the kernel's for the main thread; NULL: not known (atomic) */
static int32_t own_tid_word;    /* for a main thread that libc made without one */
static bool leaves;             /* by pthread_exit() (atomic) */
static bool others_seen;        /* that were left when the main thread was gone */
static int view = -1;           /* /proc/self/stat, where it could not be opened later */

void leader_know(void)
{
    int32_t *word = NULL;
    if (__atomic_load_n(&tid_word, __ATOMIC_RELAXED) != NULL)
        return;
    const int32_t tid = (int32_t)raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
    if (tid != raw_getpid() ||
        raw_syscall(SYS_prctl, PR_GET_TID_ADDRESS, (long)&word, 0, 0, 0, 0) < 0)
        return;
    if (word == NULL) { /* a raw fork's child */
        word = &own_tid_word;
        *word = tid;
        raw_syscall(SYS_set_tid_address, (long)word, 0, 0, 0, 0, 0);
    }
    if (*word == tid)
        __atomic_store_n(&tid_word, word, __ATOMIC_RELEASE);
}

void leader_after_fork_child(void)
{
    tid_word = NULL;
    leaves = others_seen = false;
    leader_know();
    if (view < 0)
        return;
    if (fd_is_internal(view))
        fd_release_internal(view);
    else
        raw_close(view);
    view = -1;
    leader_keep_view();
}

void leader_leaves(void)
{
    __atomic_store_n(&leaves, true, __ATOMIC_RELAXED);
}

static bool ended(void)
{
    const int32_t *word = __atomic_load_n(&tid_word, __ATOMIC_RELAXED);
    return word != NULL && __atomic_load_n(word, __ATOMIC_RELAXED) == 0;
}

bool leader_left(void)
{
    return unlikely(__atomic_load_n(&leaves, __ATOMIC_RELAXED) || ended());
}

/* ---- how it ended ---- */

struct look {
    char state;
    unsigned threads;
    int code; /* as wait(2) has it */
};

void leader_keep_view(void)
{
    if (view >= 0)
        return;
    view = fd_make_internal(raw_open("/proc/self/stat", O_RDONLY | O_CLOEXEC, 0));
}

/* The field with this number (proc(5)) of what follows the name in parentheses. */
static const char *field(const char *rest, unsigned number)
{
    for (unsigned at = 3; at < number && rest != NULL; at++) {
        rest = strchr(rest, ' ');
        rest = rest != NULL ? rest + 1 : NULL;
    }
    return rest;
}

/* False: there is no /proc to say so. */
static bool look(struct look *l)
{
    char text[1024];
    const int fd = view >= 0 ? view : raw_open("/proc/self/stat", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const ssize_t n = raw_syscall(SYS_pread64, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
    if (fd != view)
        raw_close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *name_end = strrchr(text, ')');
    if (name_end == NULL || name_end[1] != ' ')
        return false;
    const char *rest = name_end + 2;
    const char *threads = field(rest, 20), *code = field(rest, 52);
    if (threads == NULL || code == NULL)
        return false;
    *l = (struct look){*rest, (unsigned)strtoul(threads, NULL, 10), (int)strtol(code, NULL, 10)};
    return true;
}

/*
 * Without /proc. Linux lets a process with one living thread alone into a time namespace, and looks
 * at that first; into its own, where it is already, nothing happens. False also where a filter
 * answers in the kernel's place.
 */
static bool has_others(void)
{
    const int self = (int)raw_syscall(SYS_pidfd_open, raw_getpid(), 0, 0, 0, 0, 0);
    if (self < 0)
        return self != -EMFILE;
    const long r = raw_syscall(SYS_setns, self, CLONE_NEWTIME, 0, 0, 0, 0);
    raw_close(self);
    return r != 0 && r != -EPERM;
}

/* As the kernel has it since 5.18: the last thread's end is the process's. */
static _Noreturn void end_as(int code)
{
    const struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } none = {.handler = SIG_DFL};
    const int sig = code & 0x7f;
    const uint64_t mask = sig != 0 ? 1ull << (sig - 1) : 0;
    if (sig != 0) {
        raw_syscall(SYS_rt_sigaction, sig, (long)&none, 0, sizeof(mask), 0, 0);
        raw_syscall(SYS_tgkill, raw_getpid(), raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0), sig, 0, 0,
                    0);
        raw_sigprocmask(SIG_UNBLOCK, &mask, NULL);
    }
    for (;;)
        raw_syscall(SYS_exit, code >> 8, 0, 0, 0, 0, 0);
}

void leader_end_if_alone(void)
{
    struct look l;
    if (!look(&l)) {
        if (!has_others())
            end_as(0);
        return;
    }
    if (l.state != 'Z')
        return;
    if (l.threads > 2) {
        others_seen = true;
        return;
    }
    if (__atomic_load_n(&leaves, __ATOMIC_RELAXED))
        exit(0); /* as libc's last thread does */
    end_as(others_seen ? 0 : l.code);
}
