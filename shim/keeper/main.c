/*
 * tcpshim-keeper: the process that finishes a dead family's connections (docs/architecture.md,
 * "Exit and death"). Started by shim/life/keeper.c; not meant to be called by hand.
 *
 * While the family lives it sleeps in one poll: for the end of any of its processes, of which it
 * tells the others (watch.h), and for the hang-up of a socketpair whose other end only they hold.
 * It does not touch the engine until then.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/raw.h"
#include "shim/keeper/finish.h"
#include "shim/keeper/watch.h"
#include "shim/life/keeper.h"

/* Whatever happens in an arena that a dying process left: these end it (seconds). */
#define WATCHDOG 150
#define CPU_MAX  60

/* Service managers end everybody at once: the family first, please. */
static void asked(int number)
{
    (void)number;
    finish_soon = 1;
}

static void forget_parent(void)
{
    const struct rlimit no_core = {0};
    sigset_t none;
    for (int n = 1; n < NSIG; n++) {
        signal(n, SIG_IGN); /* forgets what came for the group that it was born in */
        signal(n, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGTERM, asked);
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_NAME, "tcpshim-keeper");
}

void bound_life(void)
{
    struct rusage used = {.ru_utime = {0}};
    struct rlimit cpu = {RLIM_INFINITY, RLIM_INFINITY};
    getrusage(RUSAGE_SELF, &used);
    getrlimit(RLIMIT_CPU, &cpu);
    cpu.rlim_cur = (rlim_t)used.ru_utime.tv_sec + (rlim_t)used.ru_stime.tv_sec + CPU_MAX;
    if (cpu.rlim_cur > cpu.rlim_max)
        cpu.rlim_cur = cpu.rlim_max;
    setrlimit(RLIMIT_CPU, &cpu);
    alarm(WATCHDOG);
}

static uintptr_t number(const char *text)
{
    return strtoul(text, NULL, 16);
}

int main(int argc, char **argv)
{
    if (argc != 4 || raw_fcntl(KEEPER_FD_CUSTODY, F_GETFD, 0) < 0)
        return 2;
    forget_parent();
    config_read(environ);
    if (config.trace_file[0] != '/')
        config.trace = 0; /* the family's stderr is not ours to keep open */
    void *base = (void *)number(argv[1]);
    const void *got =
        raw_mmap(base, number(argv[2]), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, KEEPER_FD_ARENA, 0);
    if (got != base)
        return 1;
    struct stack *st = (struct stack *)number(argv[3]);
    watch_family(st);
    bound_life();
    finish(st);
    return 0;
}
