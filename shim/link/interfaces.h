/* The machine's network interfaces, read over rtnetlink, and the stack's view of them. */
#pragma once

#include <stdio.h>

#include "shim/core/config.h"

/* RFC 791: every host takes datagrams of 576 bytes; less is no link for TCP. */
#define LINK_MTU_MIN 576

struct iface {
    uint32_t index;
    uint32_t flags; /* IFF_* */
    uint32_t mtu;
    uint16_t type; /* ARPHRD_* */
    char name[16];
    uint8_t mac[6];
    unsigned naddrs; /* IPv4 addresses */
    struct {
        struct ip_addr addr;
        uint8_t prefix; /* of 128 */
    } addrs[NETIF_ADDRS_MAX];
};

/* Reads all interfaces with their addresses into a static table. 0 or negative errno. */
int ifaces_read(void);
/* Of the table last read; NULL: none. */
const struct iface *iface_by_name(const char *name);
const struct iface *iface_by_index(uint32_t index);
/* The at-th IPv4 address of this host, over all interfaces; false: there are fewer. */
bool iface_addr(unsigned at, struct ip_addr *out);
/* The number of the loopback interface. */
uint32_t iface_loopback(void);

/*
 * The interface for the stack's own address: TCPSHIM_IF, else the one whose subnet holds the
 * address or the gateway, else the only one that is up. NULL: one sentence on why and the cure in
 * text, the positive errno in *err.
 */
const struct iface *iface_choose(const struct config *cfg, char *text, size_t len, int *err);
/* Whether frames of this kind of interface are understood. */
bool iface_usable(const struct iface *i);
/* As the stack wants it; offload: the packet socket carries virtio-net headers. */
void iface_to_netif(const struct iface *i, bool offload, struct netif *out);

/*
 * Shared address mode: brings the stack's interfaces up to date with the table last read: each that
 * is up, is not the loopback and has an address, and in any case `wanted` (0: none).
 */
void ifaces_sync(struct stack *st, const struct config *cfg, bool offload, uint32_t wanted);
