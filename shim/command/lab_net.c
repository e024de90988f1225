/* Interfaces of a laboratory, made by rtnetlink(7) and the ethtool ioctl. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim/command/lab.h"

struct message {
    struct nlmsghdr head;
    char body[1024 - sizeof(struct nlmsghdr)];
};

static void begin(struct message *m, uint16_t type, uint16_t flags, const void *family, size_t len)
{
    memset(m, 0, sizeof(*m));
    m->head.nlmsg_type = type;
    m->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    m->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
    memcpy(NLMSG_DATA(&m->head), family, len);
}

static struct rtattr *add(struct message *m, uint16_t type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));
    a->rta_type = type;
    a->rta_len = (uint16_t)RTA_LENGTH(len);
    if (len > 0)
        memcpy(RTA_DATA(a), data, len);
    m->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->head.nlmsg_len) + RTA_ALIGN(a->rta_len));
    return a;
}

/* Ends what add(m, type, NULL, 0) began. */
static void close_nest(struct message *m, struct rtattr *a)
{
    a->rta_len = (uint16_t)((char *)m + m->head.nlmsg_len - (char *)a);
}

static int talk(struct message *m)
{
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        char rest[2048];
    } reply;
    int err = 0;
    if (send(fd, m, m->head.nlmsg_len, 0) < 0 ||
        recv(fd, &reply, sizeof(reply), 0) < (ssize_t)NLMSG_LENGTH(sizeof(reply.error)))
        err = errno != 0 ? -errno : -EPROTO;
    else if (reply.head.nlmsg_type == NLMSG_ERROR)
        err = reply.error.error;
    close(fd);
    return err;
}

int lab_net_veth(const char *name, int peer_namespace, unsigned mtu)
{
    struct message m;
    const struct ifinfomsg none = {.ifi_family = AF_UNSPEC};
    begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &none, sizeof(none));
    add(&m, IFLA_IFNAME, name, strlen(name) + 1);
    add(&m, IFLA_MTU, &mtu, sizeof(mtu));
    struct rtattr *info = add(&m, IFLA_LINKINFO, NULL, 0);
    add(&m, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = add(&m, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = add(&m, VETH_INFO_PEER, &none, sizeof(none));
    add(&m, IFLA_IFNAME, "eth0", 5);
    add(&m, IFLA_MTU, &mtu, sizeof(mtu));
    add(&m, IFLA_NET_NS_FD, &peer_namespace, sizeof(peer_namespace));
    close_nest(&m, peer);
    close_nest(&m, data);
    close_nest(&m, info);
    return talk(&m);
}

int lab_net_up(const char *name)
{
    struct message m;
    struct ifinfomsg i = {
        .ifi_index = (int)if_nametoindex(name), .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    if (i.ifi_index == 0)
        return -ENODEV;
    begin(&m, RTM_NEWLINK, 0, &i, sizeof(i));
    return talk(&m);
}

int lab_net_lo_up(void)
{
    return lab_net_up("lo");
}

static int add_address(int family, const char *network, unsigned number, uint8_t prefix)
{
    struct message m;
    char text[64];
    uint8_t addr[16];
    struct ifaddrmsg a = {.ifa_family = (uint8_t)family,
                          .ifa_prefixlen = prefix,
                          .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0,
                          .ifa_index = if_nametoindex("eth0")};
    snprintf(text, sizeof(text), family == AF_INET6 ? "%s%x" : "%s%u", network, number);
    if (inet_pton(family, text, addr) != 1)
        return -EINVAL;
    const size_t len = family == AF_INET6 ? 16 : 4;
    begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &a, sizeof(a));
    add(&m, IFA_LOCAL, addr, len);
    add(&m, IFA_ADDRESS, addr, len);
    return talk(&m);
}

int lab_net_addresses(unsigned number)
{
    const int err = add_address(AF_INET, LAB_NETWORK, number, 24);
    if (err == 0)
        (void)add_address(AF_INET6, LAB_NETWORK6, number, 64); /* the kernel may be without IPv6 */
    return err;
}

int lab_net_offload_off(const char *name)
{
    static const uint32_t commands[] = {ETHTOOL_SGRO, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM};
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? -errno : 0;
    for (unsigned i = 0; i < 4 && err == 0; i++) {
        struct ethtool_value value = {.cmd = commands[i], .data = 0};
        struct ifreq request = {.ifr_data = (char *)&value};
        snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
        if (ioctl(fd, SIOCETHTOOL, &request) < 0 && errno != EOPNOTSUPP)
            err = -errno;
    }
    if (fd >= 0)
        close(fd);
    return err;
}
