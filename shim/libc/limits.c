/*
 * RLIMIT_AS counts the arena, which a kernel's TCP would not have in the process: a program that
 * limits its address space (vsftpd) gets the arena's size on top, and does not see that.
 * RLIMIT_FSIZE bounds files of traces, too, whose writer must not be killed for it.
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "shim/libc/call.h"
#include "shim/libc/real.h"
#include "shim/life/leader.h"
#include "shim/watch/sink.h"

static bool raised; /* in this process or before a fork of it */

static rlim_t arena_size(void)
{
    return engine_running() ? arena_limit(stack_arena(engine.st)) : 0;
}

static rlim_t more(rlim_t limit)
{
    return limit < RLIM_INFINITY - arena_size() ? limit + arena_size() : limit;
}

static rlim_t less(rlim_t limit)
{
    return limit != RLIM_INFINITY && limit >= arena_size() ? limit - arena_size() : limit;
}

/* glibc, too, has one system call for all of them. */
static long call(pid_t pid, int resource, const struct rlimit *new, struct rlimit *old)
{
    return raw_syscall(SYS_prlimit64, pid, resource, (long)new, (long)old, 0, 0);
}

static int change(pid_t pid, int resource, const struct rlimit *new, struct rlimit *old)
{
    if (resource == RLIMIT_FSIZE && new != NULL && (pid == 0 || pid == getpid()))
        sink_limit(new->rlim_cur);
    if (resource == RLIMIT_NOFILE && new != NULL && engine_running())
        leader_keep_view();
    if (likely(resource != RLIMIT_AS || !engine_running() || (pid != 0 && pid != getpid())))
        return (int)call_result(call(pid, resource, new, old));
    const bool before = raised;
    long r = -EPERM;
    if (new != NULL) {
        const struct rlimit with = {more(new->rlim_cur), more(new->rlim_max)};
        r = call(pid, resource, &with, old);
        raised |= r == 0;
    }
    if (r == -EPERM) /* or above a limit that was set before there was an arena */
        r = call(pid, resource, new, old);
    if (r == 0 && old != NULL && before)
        *old = (struct rlimit){less(old->rlim_cur), less(old->rlim_max)};
    return (int)call_result(r);
}

SHIM_EXPORT int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *new,
                        struct rlimit *old)
{
    return change(pid, (int)resource, new, old);
}

SHIM_EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    return change(0, (int)resource, limit, NULL);
}

SHIM_EXPORT int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
    return change(0, (int)resource, NULL, limit);
}

/* The same where rlim_t has 64 bits. */
_Static_assert(sizeof(struct rlimit) == sizeof(struct rlimit64), "rlim_t has 64 bits");
extern __typeof(prlimit64) prlimit64 __attribute__((alias("prlimit"), visibility("default")));
extern __typeof(setrlimit64) setrlimit64 __attribute__((alias("setrlimit"), visibility("default")));
extern __typeof(getrlimit64) getrlimit64 __attribute__((alias("getrlimit"), visibility("default")));
