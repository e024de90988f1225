/*
 * Programs start as root, give up their privileges (or their view of the file system) and then make
 * or use sockets. The packet socket needs CAP_NET_RAW when it is opened: so it is opened before.
 */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/engine.h"
#include "shim/libc/real.h"
#include "shim/libc/user.h"
#include "shim/life/init.h"
#include "shim/life/sandbox.h"
#include "shim/link/guard.h"
#include "shim/watch/trace.h"

#define KEEP_UID ((uid_t)-1)

static void prepare(void)
{
    (void)engine_start_quietly();
    if (engine_running())
        sandbox_prepare();
}

/* uid: what the effective one becomes; KEEP_UID: it stays. */
static void before_loss(uid_t uid)
{
    shim_init();
    if (config.off || geteuid() != 0)
        return;
    prepare();
    if (!engine_running() || uid == 0 || uid == KEEP_UID)
        return;
    struct stack_cx cx;
    trace_give(uid);
    engine_enter(&cx);
    guard_give(uid);
    engine_leave(&cx);
}

SHIM_EXPORT int setuid(uid_t uid)
{
    before_loss(uid);
    return real_ready()->setuid(uid);
}

SHIM_EXPORT int seteuid(uid_t uid)
{
    before_loss(uid);
    return real_ready()->seteuid(uid);
}

SHIM_EXPORT int setreuid(uid_t ruid, uid_t euid)
{
    before_loss(euid);
    return real_ready()->setreuid(ruid, euid);
}

SHIM_EXPORT int setresuid(uid_t ruid, uid_t euid, uid_t suid)
{
    before_loss(euid);
    return real_ready()->setresuid(ruid, euid, suid);
}

SHIM_EXPORT int chroot(const char *path)
{
    before_loss(KEEP_UID);
    return real_ready()->chroot(path);
}

/* All versions of the structure have the capability at the same place. */
SHIM_EXPORT int capset(cap_user_header_t header, cap_user_data_t data)
{
    shim_init();
    if (!config.off && user_valid(data, sizeof(*data)) &&
        (data->effective & 1u << CAP_NET_RAW) == 0)
        prepare();
    return real_ready()->capset(header, data);
}
