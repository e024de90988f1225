/*
 * Exit delivers. In the kernel, data that send() accepted and the FIN reach the peer although the
 * process is gone; here the keeper (keeper.h) sees to that. Only where none can be had does the
 * last process of the family wait before it goes.
 */
#define _GNU_SOURCE
#include "shim/life/exit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/engine.h"
#include "shim/core/family.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/real.h"
#include "shim/libc/streams.h"
#include "shim/life/keeper.h"
#include "shim/link/link.h"
#include "shim/watch/trace.h"

#define DELIVER_MAX (60 * NSEC_PER_SEC)
/*
 * Everything is acknowledged but a peer's FIN is still to come: answered for this long, so that the
 * usual exchange of FINs ends in order and not with the kernel's RST.
 */
#define FAREWELL_MAX (100 * NSEC_PER_MSEC)
#define STEP_MAX     (50 * NSEC_PER_MSEC)

static void sleep_on_link(nsec_t span)
{
    struct pollfd p = {.fd = engine.link != NULL ? engine.link->fd : -1, .events = POLLIN};
    span = span < STEP_MAX ? span : STEP_MAX;
    struct timespec ts = {.tv_sec = 0, .tv_nsec = (long)span};
    raw_ppoll(&p, 1, &ts);
}

/* The keeper's trace goes to a file; on stderr the end of a connection shows while we are there. */
static bool shows_trace(void)
{
    return (config.trace & TRACE_ALL) != 0 && config.trace_file[0] != '/';
}

/* kept: the keeper does what is not done after FAREWELL_MAX. */
static void deliver(bool kept)
{
    struct stack_cx cx;
    nsec_t end = 0, farewell = 0;
    for (;;) {
        engine_enter(&cx);
        engine_drain(&cx);
        stack_flush(&cx);
        const uint32_t unsent = tcp_orphans_unsent(cx.st), orphans = tcp_orphans(cx.st);
        const nsec_t deadline = engine_deadline(cx.st);
        const nsec_t now = cx.now;
        engine_leave(&cx);
        if (end == 0)
            end = now + DELIVER_MAX;
        if ((unsent == 0 || kept) && farewell == 0)
            farewell = now + FAREWELL_MAX;
        if (orphans == 0 || now >= end || (farewell != 0 && now >= farewell))
            return;
        sleep_on_link(deadline > now ? deadline - now : 0);
    }
}

/* Whether another process of the family lives, who then drives the engine. */
static bool others_live(void)
{
    return engine_processes() > (process_self() != NULL && process_counts(process_self()));
}

void exit_release(bool keep_shared)
{
    if (!engine_running() || engine_inside())
        return;
    struct stack_cx cx;
    engine_enter(&cx);
    usock_drop_all(&cx, keep_shared);
    const bool open = tcp_connections(cx.st) != 0 || tcp_time_waits(cx.st) != 0 ||
                      link_deadline(engine.link) != NSEC_NEVER;
    engine_leave(&cx);
    if (!open || engine.sandboxed)
        return;
    const bool kept = keeper_start();
    if ((!kept || shows_trace()) && !others_live())
        deliver(kept);
}

/* Once for a process: exit() comes by the destructor and may then meet _exit(). */
static void leave_process(void)
{
    static bool left;
    if (!engine_running() || __atomic_exchange_n(&left, true, __ATOMIC_ACQ_REL))
        return;
    engine_freeze();
    exit_release(false);
    fd_limit = 0; /* what this thread still does with descriptors is the kernel's */
    engine_detach();
    trace_close();
}

/* exit(): after the program's atexit() functions. libc's streams would be flushed too late. */
__attribute__((destructor)) static void at_exit(void)
{
    if (!engine_running())
        return;
    streams_flush();
    leave_process();
}

SHIM_EXPORT _Noreturn void _exit(int status)
{
    leave_process();
    for (;;)
        raw_syscall(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

SHIM_EXPORT _Noreturn void _Exit(int status)
{
    _exit(status);
}

SHIM_EXPORT _Noreturn void quick_exit(int status)
{
    leave_process();
    real_ready()->quick_exit(status);
    _exit(status);
}
