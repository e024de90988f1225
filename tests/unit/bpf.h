/* A classic BPF machine for tests: what the kernel would say of a frame (linux/filter.h). */
#pragma once

#include <linux/filter.h>

#include "stack/base.h"

/* A frame as the kernel sees it when it runs a socket's filter. */
struct bpf_frame {
    const uint8_t *data; /* from where the socket's data begins */
    uint32_t len;
    uint32_t network; /* offset of the network header */
    uint32_t ifindex, pkttype, protocol, vlan;
};

/*
 * Checks that every instruction is one that the machine knows and every jump stays inside, as the
 * kernel does before it takes a program.
 */
bool bpf_valid(const struct sock_filter *code, unsigned n);
/* The program's verdict: bytes accepted, 0: dropped. A load outside the frame drops it. */
uint32_t bpf_run(const struct sock_filter *code, const struct bpf_frame *f);
