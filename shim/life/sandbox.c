/*
 * Programs that are careful let a child without rights do the dangerous part: sshd's child before
 * login talks to the network under chroot, as another user, with RLIMIT_NOFILE 1, and a seccomp
 * filter that ends it for anything but read, write, poll, futex and the like.
 *
 * The filter is looked at before it is installed. If it allows what the engine does ordinarily,
 * nothing changes. Otherwise the process's calls go on to work on the arena, frames leave by
 * writev(2) on packet sockets that were bound to their interfaces while the process was still
 * root, and another process of the family takes what arrives and runs the timers; this one sleeps
 * on words in the arena. Its service thread ends, as it would live outside the filter. If
 * there is no other process, that thread has to stay.
 */
#define _GNU_SOURCE
#include "shim/life/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/life/leader.h"
#include "shim/life/service.h"
#include "shim/link/aside.h"
#include "shim/link/batch.h"
#include "shim/link/diag.h"
#include "shim/link/link.h"
#include "shim/wait/waiter.h"
#include "shim/watch/trace.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif
/* As the kernel's BPF_MAXINSNS: jumps go forward only, so this many steps at most. */
#define STEPS_MAX 4096

/* ---- what a filter says (seccomp(2)) ---- */

static uint32_t load(const struct seccomp_data *data, uint32_t at)
{
    uint32_t word = 0;
    if (at <= sizeof(*data) - sizeof(word))
        memcpy(&word, (const uint8_t *)data + at, sizeof(word));
    return word;
}

static uint32_t arithmetic(uint16_t op, uint32_t a, uint32_t b)
{
    switch (op) {
    case BPF_AND:
        return a & b;
    case BPF_OR:
        return a | b;
    case BPF_XOR:
        return a ^ b;
    case BPF_ADD:
        return a + b;
    case BPF_SUB:
        return a - b;
    case BPF_RSH:
        return b < 32 ? a >> b : 0;
    case BPF_LSH:
        return b < 32 ? a << b : 0;
    default:
        return a;
    }
}

static bool compare(uint16_t op, uint32_t a, uint32_t b)
{
    switch (op) {
    case BPF_JEQ:
        return a == b;
    case BPF_JGT:
        return a > b;
    case BPF_JGE:
        return a >= b;
    default:
        return (a & b) != 0; /* BPF_JSET */
    }
}

/* Runs the program; its return value. */
static uint32_t judge(const struct sock_fprog *prog, const struct seccomp_data *data)
{
    uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {0};
    for (uint32_t pc = 0, steps = 0; pc < prog->len && steps < STEPS_MAX; pc++, steps++) {
        const struct sock_filter *i = &prog->filter[pc];
        const uint32_t operand = BPF_SRC(i->code) == BPF_X ? x : i->k;
        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            a = BPF_MODE(i->code) == BPF_ABS   ? load(data, i->k)
                : BPF_MODE(i->code) == BPF_MEM ? memory[i->k % BPF_MEMWORDS]
                                               : i->k;
            break;
        case BPF_LDX:
            x = BPF_MODE(i->code) == BPF_MEM ? memory[i->k % BPF_MEMWORDS] : i->k;
            break;
        case BPF_ST:
            memory[i->k % BPF_MEMWORDS] = a;
            break;
        case BPF_STX:
            memory[i->k % BPF_MEMWORDS] = x;
            break;
        case BPF_ALU:
            a = arithmetic(BPF_OP(i->code), a, operand);
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA)
                pc += i->k;
            else
                pc += compare(BPF_OP(i->code), a, operand) ? i->jt : i->jf;
            break;
        case BPF_MISC:
            if (BPF_MISCOP(i->code) == BPF_TAX)
                x = a;
            else
                a = x;
            break;
        default:
            return BPF_RVAL(i->code) == BPF_A ? a : i->k;
        }
    }
    return SECCOMP_RET_KILL_PROCESS;
}

static bool allows(const struct sock_fprog *prog, int call)
{
    const struct seccomp_data data = {.nr = call, .arch = ARCH};
    const uint32_t verdict = judge(prog, &data) & SECCOMP_RET_ACTION_FULL;
    return verdict == SECCOMP_RET_ALLOW || verdict == SECCOMP_RET_LOG;
}

/* Whether it allows what a driver does all the time. */
static bool allows_driver(const struct sock_fprog *prog)
{
    static const int calls[] = {SYS_sendmsg, SYS_recvmsg, SYS_ppoll, SYS_futex};
    for (unsigned i = 0; i < ARRAY_LEN(calls); i++)
        if (!allows(prog, calls[i]))
            return false;
    return true;
}

/* Whether sockets can share a kernel socket and get their own later. */
static bool allows_sharing(const struct sock_fprog *prog)
{
    static const int calls[] = {SYS_socket, SYS_fcntl, SYS_dup3, SYS_getsockopt, SYS_setsockopt};
    for (unsigned i = 0; i < ARRAY_LEN(calls); i++)
        if (!allows(prog, calls[i]))
            return false;
    return true;
}

/* ---- going in ---- */

void sandbox_prepare(void)
{
    bool connected = false;
    trace_ready();
    leader_keep_view();
    for (unsigned fd = 0; fd < fd_high() && !connected; fd++)
        connected = fd_usock((int)fd) != NULL && fd_usock((int)fd)->kind == USOCK_CONN;
    if (connected)
        link_prepare_writing(engine.link, engine.st);
}

void sandbox_enter(const struct sock_fprog *filter, bool all)
{
    struct stack_cx cx;
    if (engine_running()) { /* the thread may be under it, too */
        engine_enter(&cx);
        aside_forbid();
        engine_leave(&cx);
    }
    if (filter == NULL || !allows(filter, SYS_sched_yield))
        config.spin_auto = false;
    if (filter == NULL || !allows(filter, SYS_io_submit))
        batch_forbid();
    else if (!allows(filter, SYS_sendmmsg) || !allows(filter, SYS_getrusage))
        batch_forbid_messages();
    if (filter == NULL || !allows(filter, SYS_sendto) || !allows(filter, SYS_recvfrom))
        link_by_messages();
    if (engine_running() && (filter == NULL || !allows_sharing(filter))) {
        engine_enter(&cx);
        backing_forbid();
        engine_leave(&cx);
    }
    diag_forbid();
    if (engine.sandboxed || !engine_running() || (filter != NULL && allows_driver(filter)))
        return;
    trace_ready();
    service_put_off(true);
    engine_enter(&cx);
    (void)waiter_begin(); /* the slot and its eventfd, while they can be had */
    const bool others = engine_processes() > 1;
    engine_leave(&cx);
    if (others || all)
        service_stop();
    engine.sandboxed = true;
}

SHIM_EXPORT int prctl(int option, ...)
{
    unsigned long a[4];
    va_list ap;
    va_start(ap, option);
    for (unsigned i = 0; i < ARRAY_LEN(a); i++)
        a[i] = va_arg(ap, unsigned long);
    va_end(ap);
    if (unlikely(option == PR_SET_SECCOMP))
        sandbox_enter(a[0] == SECCOMP_MODE_FILTER ? (const struct sock_fprog *)a[1] : NULL, false);
    return real_ready()->prctl(option, a[0], a[1], a[2], a[3]);
}
