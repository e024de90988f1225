#define _GNU_SOURCE
#include "shim/libc/user.h"

#include <sys/uio.h>

#include "shim/core/engine.h"
#include "shim/core/raw.h"

bool user_ask(const void *p)
{
    char byte;
    const struct iovec to = {.iov_base = &byte, .iov_len = 1};
    const struct iovec from = {.iov_base = (void *)p, .iov_len = 1};
    if (p == NULL || (intptr_t)p < 0 || engine.sandboxed)
        return false;
    return raw_syscall(SYS_process_vm_readv, raw_getpid(), (long)&to, 1, (long)&from, 1, 0) == 1;
}
