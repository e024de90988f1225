/*
 * tcpshim-keeper: the process that finishes a dead family's connections (docs/architecture.md,
 * "Exit and death"). Started by shim/life/keeper.c; not meant to be called by hand.
 *
 * While the family lives it sleeps in one poll for the hang-up of a socketpair whose other end only
 * members of the family hold, and never touches the engine.
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
    const struct rlimit no_core = {0}, cpu = {CPU_MAX, CPU_MAX};
    sigset_t none;
    for (int n = 1; n < NSIG; n++) {
        signal(n, SIG_IGN); /* forgets what came for the group that it was born in */
        signal(n, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGTERM, asked);
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_CPU, &cpu);
    prctl(PR_SET_NAME, "tcpshim-keeper");
}

static void wait_for_death(void)
{
    struct pollfd p = {.fd = KEEPER_FD_CUSTODY};
    while (raw_ppoll(&p, 1, NULL) <= 0)
        ;
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
    wait_for_death();
    alarm(WATCHDOG);
    void *base = (void *)number(argv[1]);
    const void *got =
        raw_mmap(base, number(argv[2]), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, KEEPER_FD_ARENA, 0);
    if (got != base)
        return 1;
    finish((struct stack *)number(argv[3]));
    return 0;
}
