/*
 * Programs start as root, give up their privileges (or their view of the file system) and then make
 * or use sockets. The packet socket needs CAP_NET_RAW when it is opened: so it is opened before.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/libc/real.h"
#include "shim/life/init.h"

static void before_loss(void)
{
    shim_init();
    if (!config.off && geteuid() == 0)
        (void)engine_start_quietly();
}

SHIM_EXPORT int setuid(uid_t uid)
{
    before_loss();
    return real_ready()->setuid(uid);
}

SHIM_EXPORT int seteuid(uid_t uid)
{
    before_loss();
    return real_ready()->seteuid(uid);
}

SHIM_EXPORT int setreuid(uid_t ruid, uid_t euid)
{
    before_loss();
    return real_ready()->setreuid(ruid, euid);
}

SHIM_EXPORT int setresuid(uid_t ruid, uid_t euid, uid_t suid)
{
    before_loss();
    return real_ready()->setresuid(ruid, euid, suid);
}

SHIM_EXPORT int chroot(const char *path)
{
    before_loss();
    return real_ready()->chroot(path);
}
