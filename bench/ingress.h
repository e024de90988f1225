/*
 * What arrives for a packet socket arrives at the kernel's IP, too. For the limits of bench/ a
 * program at the interface's ingress spares it that, as the shim's own does (shim/link/ingress.h),
 * but without a question: it drops all of IPv4.
 */
#pragma once
#include "net.h"
#include "shim/link/bpf.h"

#include <linux/if_ether.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

static inline long bpf(int command, const union bpf_attr *attr)
{
    return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* As long as this process lives. Where the kernel is older than Linux 6.6: not at all. */
static inline void drop_at_ingress(unsigned ifindex)
{
    const struct bpf_insn code[] = {
        {BPF_LDX | BPF_MEM | BPF_W, 2, 1, offsetof(struct __sk_buff, protocol), 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, TCX_NEXT},
        {BPF_JMP | BPF_JNE | BPF_K, 2, 0, 1, htons(ETH_P_IP)},
        {BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, TCX_DROP},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SCHED_CLS}, attach = {0};
    load.insns = (uintptr_t)code;
    load.insn_cnt = sizeof(code) / sizeof(code[0]);
    load.license = (uintptr_t) "GPL";
    const long program = bpf(BPF_PROG_LOAD, &load);
    must(program >= 0, "BPF_PROG_LOAD");
    attach.link_create.prog_fd = (uint32_t)program;
    attach.link_create.target_ifindex = ifindex;
    attach.link_create.attach_type = TCX_INGRESS;
    (void)bpf(BPF_LINK_CREATE, &attach);
}
