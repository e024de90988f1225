/* pthread_exit(): see shim/life/service.c. */
#define _GNU_SOURCE
#include <pthread.h>

#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/life/service.h"

SHIM_EXPORT void pthread_exit(void *result)
{
    if (raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0) == raw_getpid())
        service_main_left();
    real_ready()->pthread_exit(result);
    __builtin_unreachable();
}
