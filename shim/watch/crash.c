#define _GNU_SOURCE
#include "shim/watch/crash.h"

#include <signal.h>

#include "shim/core/config.h"
#include "shim/core/engine.h"
#include "shim/libc/real.h"
#include "shim/watch/trace.h"

/* The default action follows: SA_RESETHAND, and the fault happens again (or abort() goes on). */
static void on_crash(int number)
{
    (void)number;
    if (engine_running())
        trace_crash(engine.st);
}

void crash_watch(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction now,
        then = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_NODEFER | SA_ONSTACK};
    if (!(config.trace & TRACE_TROUBLE))
        return;
    for (unsigned i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        if (real_ready()->sigaction(fatal[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
            real_ready()->sigaction(fatal[i], &then, NULL);
}
