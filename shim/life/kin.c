#define _GNU_SOURCE
#include "shim/life/kin.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/lock.h"
#include "shim/core/raw.h"
#include "shim/life/handover.h"

#define PAGE_BYTES 4096
/* Relatives that are remembered: the last ones. */
#define RELATIVES_MAX 512

struct kin {
    pthread_mutex_t starting; /* robust */
    uint64_t family;          /* the inode of its arena; 0: nobody has started an engine */
    uint64_t netns;
    uid_t uid;
    uint32_t next;               /* (atomic) counts who was written down */
    int32_t pids[RELATIVES_MAX]; /* (atomic) who has the family's engine, or had it */
};

_Static_assert(sizeof(struct kin) <= PAGE_BYTES, "one page");

static struct kin *kin; /* NULL: none, or not yet */

void kin_before_fork(void)
{
    if (kin != NULL || engine_running())
        return;
    struct kin *k =
        raw_mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (raw_is_error(k))
        return;
    if (lock_init_robust(&k->starting))
        kin = k;
    else
        raw_munmap(k, PAGE_BYTES);
}

static void write_down(void)
{
    const uint32_t at = __atomic_fetch_add(&kin->next, 1, __ATOMIC_RELAXED) % RELATIVES_MAX;
    __atomic_store_n(&kin->pids[at], raw_getpid(), __ATOMIC_RELEASE);
}

void kin_after_fork_child(void)
{
    if (kin != NULL && engine_running())
        write_down();
}

/* Of the network namespace; 0: cannot be seen. */
static uint64_t own_netns(void)
{
    struct stat st = {.st_ino = 0};
    return raw_syscall(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/ns/net", (long)&st, 0, 0, 0) == 0
               ? st.st_ino
               : 0;
}

/* The effective user of a process. False: it cannot be seen. */
static bool user_of(int32_t pid, uid_t *uid)
{
    char path[32], text[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    const int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)!raw_read(fd, text, sizeof(text) - 1);
    raw_close(fd);
    const char *line = strstr(text, "\nUid:");
    return line != NULL && sscanf(line, "\nUid: %*u %u", uid) == 1;
}

/* Tries who was written down last first: most of the others may be dead. */
static bool join(void)
{
    const uint32_t next = __atomic_load_n(&kin->next, __ATOMIC_RELAXED);
    for (uint32_t i = 1; i <= RELATIVES_MAX && i <= next; i++) {
        int32_t *pid = &kin->pids[(next - i) % RELATIVES_MAX];
        uid_t uid;
        if (*pid <= 0)
            continue;
        if (!user_of(*pid, &uid))
            *pid = 0; /* it is gone */
        else if (uid == kin->uid && handover_join(*pid, kin->family))
            return true;
    }
    return false;
}

bool kin_begin(void)
{
    if (kin == NULL)
        return false;
    const uint64_t netns = own_netns();
    if (pthread_mutex_lock(&kin->starting) == EOWNERDEAD)
        pthread_mutex_consistent(&kin->starting);
    if (kin->family == 0) {
        kin->netns = netns;
        kin->uid = geteuid();
        return false;
    }
    if (netns == 0 || kin->netns != netns || kin->uid != geteuid()) {
        pthread_mutex_unlock(&kin->starting);
        kin_part();
        return false;
    }
    return join();
}

void kin_end(bool started)
{
    if (kin == NULL)
        return;
    if (started) {
        kin->family = handover_family();
        write_down();
    }
    pthread_mutex_unlock(&kin->starting);
}

void kin_part(void)
{
    if (kin != NULL)
        raw_munmap(kin, PAGE_BYTES);
    kin = NULL;
}
