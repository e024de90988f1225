/* The kernel's routing answers, over rtnetlink (rtnetlink(7)). */
#pragma once

#include "shim/core/config.h"
#include "shim/core/usock.h"
#include "stack/ip/ip.h"

struct route_answer {
    uint32_t ifindex;
    bool local;              /* the destination is this host itself */
    struct ip_addr prefsrc;  /* source address the kernel would use */
    struct ip_addr next_hop; /* gateway, or the destination itself */
    uint32_t mtu;            /* of the route, or 0 */
    bool neigh_known;        /* the kernel's neighbour table has it */
    uint8_t neigh_mac[6];
};
/*
 * All of these are called entered (under the engine lock).
 * src: NULL or the any address: not bound. oif: 0: any interface.
 * 0, -ENETUNREACH, -EHOSTUNREACH, -EACCES as the kernel would give them for connect(), other
 * errors for routes that the stack cannot follow. Answers are up to a second old.
 */
int route_lookup(const struct ip_addr *dst, const struct ip_addr *src, uint32_t oif,
                 struct route_answer *out);
/*
 * Decides connect(): user or kernel, with the reason; fills path and the local address when user.
 * Considers TCPSHIM_RULES, local destinations, SO_BINDTODEVICE, the bound address, the mode.
 */
struct decision route_connect(struct usock *us, const struct endpoint *remote, struct ip_path *path,
                              struct ip_addr *local);
struct decision route_listen(struct usock *us, const struct endpoint *local);
