/*
 * The packet socket's classic BPF program: only what this stack owns is copied to it, so that many
 * shimmed processes on a busy host do not each see all of its traffic.
 */
#pragma once

#include <linux/filter.h>

#include "shim/link/ports.h"

/* More single ports than this do not fit: all TCP is let through. */
#define FILTER_PORTS_MAX 1400
/* Room that filter_build() never exceeds: what the kernel takes (BPF_MAXINSNS). */
#define FILTER_MAX 4096

struct filter_spec {
    bool own_address;  /* everything for own_addr; else the ports of a shared address */
    uint32_t own_addr; /* IPv4, network order */
    uint32_t loopback; /* number of the loopback interface: its frames are the kernel's */
    const struct port_set *ports; /* shared address */
    bool all_ports;               /* shared address: any TCP port */
};

/* Writes the program (at most FILTER_MAX instructions); returns its length. */
unsigned filter_build(const struct filter_spec *spec, struct sock_filter *out);

/*
 * The program of a guard: admits what came in over the loopback interface when local_clients,
 * native IPv6 when v6_kernel, and drops the rest. At most 8 instructions.
 */
#define FILTER_GUARD_MAX 8
unsigned filter_guard(bool local_clients, bool v6_kernel, uint32_t loopback,
                      struct sock_filter *out);
