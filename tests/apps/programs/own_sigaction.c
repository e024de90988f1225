/* A program with a sigaction() of its own, as Erlang's: it calls the next one by the name that libc has for it.
 * Prints how often its handler ran. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t ran;

static void handler(int sig)
{
    (void)sig;
    ran++;
}

int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    int (*next)(int, const struct sigaction *, struct sigaction *);
    *(void **)&next = dlsym(RTLD_NEXT, "__sigaction");
    return next(sig, act, old);
}

int main(void)
{
    const struct sigaction act = {.sa_handler = handler};
    if (sigaction(SIGUSR1, &act, NULL) != 0 || raise(SIGUSR1) != 0)
        return 1;
    printf("%d\n", ran);
    return 0;
}
