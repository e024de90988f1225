/*
 * A filter of its own for each guard is dear: the kernel checks and compiles each one (14 of the
 * 208 us that a connection took while perf looked on), and frees it later in RCU callbacks. So a
 * process that makes guard after guard loads one eBPF program that drops everything, and the guards
 * share it. Where bpf(2) is refused, classic filters do; where those are refused as well (since
 * Linux 6.x TCP sockets take none without CAP_NET_ADMIN), a signature that nobody can give does
 * (signature.h).
 */
#include "shim/link/seal.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/link/bpf.h"
#include "shim/link/diag.h"
#include "shim/link/filter.h"
#include "shim/link/interfaces.h"
#include "shim/link/signature.h"

/* Guards with a filter of their own, before a program to share is worth loading. */
#define ALONE 4

static int shared_program; /* its descriptor; 0: not loaded yet; negative: cannot be had */
static unsigned alone;
static uint32_t loopback;

static uint32_t loopback_index(void)
{
    if (loopback == 0)
        loopback = iface_loopback();
    return loopback;
}

/* A socket filter that lets nothing pass: r0 = 0; exit. Its descriptor or negative errno. */
static int load_program(void)
{
    const struct bpf_insn code[2] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr = {0};
    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insn_cnt = ARRAY_LEN(code);
    attr.insns = (uintptr_t)code;
    attr.license = (uintptr_t) "GPL";
    return fd_make_internal(bpf_call(BPF_PROG_LOAD, &attr));
}

/* False: a filter of its own, then. */
static bool attach_shared(int fd)
{
    if (shared_program < 0 || alone < ALONE)
        return false;
    if (shared_program == 0)
        shared_program = load_program();
    if (shared_program <= 0)
        return false;
    const int program = shared_program;
    return raw_setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)) == 0;
}

int seal_socket(int fd, bool local_clients, bool v6_kernel)
{
    static bool filter_refused;
    diag_mark(fd, local_clients);
    if (!local_clients && !v6_kernel && attach_shared(fd))
        return 0;
    struct sock_filter code[FILTER_GUARD_MAX];
    struct sock_fprog prog = {.filter = code};
    prog.len = (uint16_t)filter_guard(local_clients, v6_kernel, loopback_index(), code);
    int err = -EPERM;
    if (!filter_refused || geteuid() == 0)
        err = raw_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
    alone += err == 0;
    if (err != -EPERM)
        return err;
    filter_refused = true;
    return signature_guard(fd, local_clients);
}
