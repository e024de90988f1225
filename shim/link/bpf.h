/* bpf(2). */
#pragma once

#include <errno.h>
#include <linux/bpf.h>
#include <sys/prctl.h>

#include "shim/core/raw.h"

/* What <linux/bpf.h> of Linux 6.1 does not have. */
#define TCX_INGRESS 46 /* BPF_TCX_INGRESS */
#define TCX_NEXT    (-1)
#define TCX_DROP    2

/* Negative errno. Not under seccomp: a sandbox may kill for a call that a program with kernel
 * sockets would never make. */
static inline int bpf_call(enum bpf_cmd command, const union bpf_attr *attr)
{
    if (raw_syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0) != 0)
        return -EPERM;
    return (int)raw_syscall(SYS_bpf, command, (long)attr, sizeof(*attr), 0, 0, 0);
}
