/*
 * What is in a family's arena, read from outside: the argument is the pid of its keeper. One line
 * of "word number" pairs. A family that is at rest and has closed everything has nothing left.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/keeper.h"
#include "stack/internal.h"

/* The keeper's arguments: base, size, stack. */
static int read_arguments(const char *pid, uint64_t words[3])
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
    const int fd = open(path, O_RDONLY);
    const ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    const char *at = text;
    for (unsigned i = 0; i < 3; i++) {
        at += strlen(at) + 1;
        if (n < 0 || at >= text + n)
            return -1;
        words[i] = strtoull(at, NULL, 16);
    }
    return 0;
}

static unsigned waiters(const struct shared *sh)
{
    unsigned n = 0;
    for (uint32_t slot = 0; slot < sh->waiters_high; slot++)
        n += sh->waiters[slot].process != 0;
    return n;
}

int main(int argc, char **argv)
{
    uint64_t words[3];
    char path[64];
    if (argc != 2 || read_arguments(argv[1], words) < 0)
        return 2;
    snprintf(path, sizeof(path), "/proc/%s/fd/%d", argv[1], KEEPER_FD_ARENA);
    const int fd = open(path, O_RDONLY);
    void *base = (void *)(uintptr_t)words[0];
    if (fd < 0 || mmap(base, words[1], PROT_READ, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                       fd, 0) != base)
        return 1;
    struct stack *st = (struct stack *)(uintptr_t)words[2];
    const struct shared *sh = stack_extra(st);
    const struct tcp_stack *t = &st->tcp;
    printf("processes %u waiters %u usocks %u holds %u epsets %u epitems %u watches %u conns %u "
           "listeners %u half_opens %u time_waits %u chunks %u ranges %u records %u packets %u "
           "flows %u orphans %u deaths %u buried %u repairs %u invariants %lu bad_frees %lu\n",
           sh->processes_live, waiters(sh), sh->usocks.live, sh->holds.live, sh->epsets.live,
           sh->epitems.live, sh->watches.live, t->conns.live, t->listeners.live, t->half_opens.live,
           t->time_waits.live, t->chunks.live, t->ranges.live, t->records.live,
           st->ip.small.live + st->ip.large.live, t->flows.count, t->norphans, sh->deaths,
           sh->buried, sh->repairs, (unsigned long)st->counters[COUNT_INVARIANT],
           (unsigned long)arena_bad_frees(st->arena));
    return 0;
}
