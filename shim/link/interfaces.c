#include "shim/link/interfaces.h"

#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>

#include "shim/core/addr.h"
#include "shim/link/netlink.h"

#define IFACES_MAX 256

static struct iface table[IFACES_MAX];
static unsigned ntable;

static void visit_link(const struct nlmsghdr *m, void *arg)
{
    const struct ifinfomsg *info = NLMSG_DATA(m);
    const struct rtattr *a[IFLA_MTU + 1];
    size_t len;
    (void)arg;
    if (m->nlmsg_type != RTM_NEWLINK || ntable == IFACES_MAX)
        return;
    const struct rtattr *attrs = nl_attrs(m, sizeof(*info), &len);
    nl_parse(attrs, len, a, IFLA_MTU);
    struct iface *i = &table[ntable++];
    *i = (struct iface){.index = (uint32_t)info->ifi_index,
                        .flags = info->ifi_flags,
                        .mtu = nl_u32(a[IFLA_MTU]),
                        .type = info->ifi_type};
    if (a[IFLA_IFNAME])
        strncpy(i->name, RTA_DATA(a[IFLA_IFNAME]), sizeof(i->name) - 1);
    if (a[IFLA_ADDRESS] && RTA_PAYLOAD(a[IFLA_ADDRESS]) == sizeof(i->mac))
        memcpy(i->mac, RTA_DATA(a[IFLA_ADDRESS]), sizeof(i->mac));
}

static struct iface *find(uint32_t index)
{
    for (unsigned n = 0; n < ntable; n++)
        if (table[n].index == index)
            return &table[n];
    return NULL;
}

static void visit_addr(const struct nlmsghdr *m, void *arg)
{
    const struct ifaddrmsg *info = NLMSG_DATA(m);
    const struct rtattr *a[IFA_LOCAL + 1];
    size_t len;
    (void)arg;
    struct iface *i = find(info->ifa_index);
    if (m->nlmsg_type != RTM_NEWADDR || info->ifa_family != AF_INET || !i ||
        i->naddrs == NETIF_ADDRS_MAX)
        return;
    const struct rtattr *attrs = nl_attrs(m, sizeof(*info), &len);
    nl_parse(attrs, len, a, IFA_LOCAL);
    /* on a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL ours */
    const struct rtattr *ours = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
    if (!ours || RTA_PAYLOAD(ours) != 4)
        return;
    i->addrs[i->naddrs].addr = ip_addr_from_v4(nl_u32(ours));
    i->addrs[i->naddrs].prefix = (uint8_t)(96 + info->ifa_prefixlen);
    i->naddrs++;
}

int ifaces_read(void)
{
    struct nl_request rq;
    struct ifinfomsg links = {.ifi_family = AF_UNSPEC};
    struct ifaddrmsg addrs = {.ifa_family = AF_INET};
    ntable = 0;
    nl_begin(&rq, RTM_GETLINK, NLM_F_DUMP, &links, sizeof(links));
    int err = nl_ask(&rq, visit_link, NULL);
    if (err < 0)
        return err;
    nl_begin(&rq, RTM_GETADDR, NLM_F_DUMP, &addrs, sizeof(addrs));
    return nl_ask(&rq, visit_addr, NULL);
}

const struct iface *iface_by_index(uint32_t index)
{
    return find(index);
}

const struct iface *iface_by_name(const char *name)
{
    for (unsigned n = 0; n < ntable; n++)
        if (strcmp(table[n].name, name) == 0)
            return &table[n];
    return NULL;
}

bool iface_addr(unsigned at, struct ip_addr *out)
{
    for (unsigned n = 0; n < ntable; n++) {
        if (at < table[n].naddrs) {
            *out = table[n].addrs[at].addr;
            return true;
        }
        at -= table[n].naddrs;
    }
    return false;
}

uint32_t iface_loopback(void)
{
    for (unsigned n = 0; n < ntable; n++)
        if (table[n].flags & IFF_LOOPBACK)
            return table[n].index;
    return 1;
}

bool iface_usable(const struct iface *i)
{
    bool kind = i->type == ARPHRD_ETHER || i->type == ARPHRD_NONE || i->type == ARPHRD_RAWIP;
    return kind && (i->flags & IFF_UP) && !(i->flags & IFF_LOOPBACK);
}

/* Appends ", name" of each interface that could be used. */
static void list_names(char *text, size_t len)
{
    const char *between = "";
    for (unsigned n = 0; n < ntable; n++) {
        size_t used = strlen(text);
        if (!iface_usable(&table[n]) || used + 1 >= len)
            continue;
        snprintf(text + used, len - used, "%s%s", between, table[n].name);
        between = ", ";
    }
    if (*between == '\0')
        snprintf(text + strlen(text), len - strlen(text), "none (no interface is up)");
}

static const struct iface *choose_named(const struct config *cfg, char *text, size_t len, int *err)
{
    const struct iface *i = iface_by_name(cfg->ifname);
    if (!i) {
        *err = ENODEV;
        snprintf(text, len, "TCPSHIM_IF=%s: no such interface here; choose one of: ", cfg->ifname);
        list_names(text, len);
        return NULL;
    }
    if (!(i->flags & IFF_UP)) {
        *err = ENETDOWN;
        snprintf(text, len, "TCPSHIM_IF=%s: the interface is down; run: ip link set %s up",
                 cfg->ifname, cfg->ifname);
        return NULL;
    }
    if (!iface_usable(i)) {
        *err = EOPNOTSUPP;
        snprintf(text, len,
                 "TCPSHIM_IF=%s: neither Ethernet nor a tun device; choose one of: ", cfg->ifname);
        list_names(text, len);
        return NULL;
    }
    return i;
}

static bool holds(const struct iface *i, const struct ip_addr *addr)
{
    for (unsigned k = 0; k < i->naddrs; k++)
        if (addr_in_prefix(addr, &i->addrs[k].addr, i->addrs[k].prefix))
            return true;
    return false;
}

static const struct iface *check_mtu(const struct iface *i, char *text, size_t len, int *err)
{
    if (i->mtu >= LINK_MTU_MIN)
        return i;
    *err = EMSGSIZE;
    snprintf(text, len,
             "TCPSHIM_IF: the MTU of %s is %u, TCP needs %u; run: ip link set %s mtu 1500", i->name,
             i->mtu, LINK_MTU_MIN, i->name);
    return NULL;
}

const struct iface *iface_choose(const struct config *cfg, char *text, size_t len, int *err)
{
    const struct iface *on_net = NULL, *up = NULL;
    unsigned non_net = 0, nup = 0;
    if (cfg->ifname[0]) {
        const struct iface *i = choose_named(cfg, text, len, err);
        return i ? check_mtu(i, text, len, err) : NULL;
    }
    for (unsigned n = 0; n < ntable; n++) {
        const struct iface *i = &table[n];
        if (!iface_usable(i))
            continue;
        up = i;
        nup++;
        if (holds(i, &cfg->addr) || (!ip_addr_is_any(&cfg->gateway) && holds(i, &cfg->gateway))) {
            on_net = i;
            non_net++;
        }
    }
    if (non_net == 1)
        return check_mtu(on_net, text, len, err);
    if (nup == 1)
        return check_mtu(up, text, len, err);
    *err = ENODEV;
    snprintf(text, len,
             "TCPSHIM_ADDR: which interface leads to it is not clear; set TCPSHIM_IF to one of: ");
    list_names(text, len);
    return NULL;
}

void iface_to_netif(const struct iface *i, bool offload, struct netif *out)
{
    *out = (struct netif){.up = (i->flags & IFF_UP) != 0,
                          .kind = i->type == ARPHRD_ETHER ? NETIF_ETHERNET : NETIF_RAW_IP,
                          .ifindex = i->index,
                          .mtu = i->mtu,
                          .gso = offload,
                          .csum_offload = offload};
    memcpy(out->mac, i->mac, sizeof(out->mac));
    out->naddrs = i->naddrs;
    for (unsigned k = 0; k < i->naddrs; k++) {
        out->addrs[k].addr = i->addrs[k].addr;
        out->addrs[k].prefix = i->addrs[k].prefix;
    }
}

/* Addresses that sit on the loopback interface (service addresses of a host) arrive on any other.
 */
static void add_loopback_addrs(struct netif *nif)
{
    const struct iface *lo = find(iface_loopback());
    for (unsigned k = 0; lo && k < lo->naddrs && nif->naddrs < NETIF_ADDRS_MAX; k++) {
        if (addr_is_loopback(&lo->addrs[k].addr))
            continue;
        nif->addrs[nif->naddrs].addr = lo->addrs[k].addr;
        nif->addrs[nif->naddrs++].prefix = 128;
    }
}

void ifaces_sync(struct stack *st, const struct config *cfg, bool offload, uint32_t wanted)
{
    for (unsigned n = 0; n < ntable; n++) {
        const struct iface *i = &table[n];
        struct netif fresh;
        int at = stack_netif_by_ifindex(st, i->index);
        bool named = !cfg->ifname[0] || strcmp(cfg->ifname, i->name) == 0;
        if (at > 0) {
            iface_to_netif(i, offload, &fresh);
            add_loopback_addrs(&fresh);
            *stack_netif(st, (unsigned)at) = fresh;
        } else if (iface_usable(i) && named && i->mtu >= LINK_MTU_MIN &&
                   (i->naddrs > 0 || i->index == wanted)) {
            iface_to_netif(i, offload, &fresh);
            add_loopback_addrs(&fresh);
            (void)stack_add_netif(st, &fresh); /* no room: its connections stay in the kernel */
        }
    }
    for (unsigned at = NETIF_LOOP + 1; at < NETIFS_MAX; at++) {
        struct netif *nif = stack_netif(st, at);
        if (nif && nif->ifindex != 0 && !find(nif->ifindex))
            nif->up = false;
    }
}
