/* Binding of libc's functions: see real.h. */
#define _GNU_SOURCE
#include "shim/libc/real.h"

#include <dlfcn.h>
#include <errno.h>

struct real real;

void real_bind(void)
{
    static bool binding;
    if (__atomic_load_n(&real.bound, __ATOMIC_ACQUIRE))
        return;
    /* dlsym() may allocate, and an interposed allocator may call a hook: it uses what is bound so
     * far. */
    if (__atomic_exchange_n(&binding, true, __ATOMIC_ACQ_REL))
        return;
    const int saved = errno;
#define X(ret, name, params) real.name = (ret(*) params)dlsym(RTLD_NEXT, #name);
    REAL_FUNCTIONS(X)
#undef X
    __atomic_store_n(&real.bound, true, __ATOMIC_RELEASE);
    errno = saved;
}
