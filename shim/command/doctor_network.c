/* The network: interfaces with their addresses and offloads, the default route. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim/command/doctor.h"

static bool ask(int fd, const char *name, uint32_t command, bool *on)
{
    struct ethtool_value value = {.cmd = command};
    struct ifreq request = {.ifr_data = (char *)&value};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, SIOCETHTOOL, &request) < 0)
        return false;
    *on = value.data != 0;
    return true;
}

static void offloads(int fd, const char *name, char *out, size_t size)
{
    static const struct {
        uint32_t command;
        const char *word;
    } kinds[] = {{ETHTOOL_GTXCSUM, "tx-checksum"},
                 {ETHTOOL_GTSO, "tso"},
                 {ETHTOOL_GGSO, "gso"},
                 {ETHTOOL_GGRO, "gro"}};
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        bool on = false;
        if (ask(fd, name, kinds[i].command, &on) && on && used < size)
            used += (size_t)snprintf(out + used, size - used, " %s", kinds[i].word);
    }
    if (used == 0)
        snprintf(out, size, " none");
}

/* Of the first address of the family. */
static bool address(const struct ifaddrs *all, const char *name, int family, char *out)
{
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        if (a->ifa_addr == NULL || a->ifa_addr->sa_family != family ||
            strcmp(a->ifa_name, name) != 0)
            continue;
        if (family == AF_INET)
            return inet_ntop(family, &((struct sockaddr_in *)a->ifa_addr)->sin_addr, out,
                             INET6_ADDRSTRLEN) != NULL;
        return inet_ntop(family, &((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr, out,
                         INET6_ADDRSTRLEN) != NULL;
    }
    return false;
}

/* True: TCP over it runs in the user stack. */
static bool examine_interface(int fd, const struct ifaddrs *all, const struct ifaddrs *i)
{
    struct ifreq request = {0};
    char text[100], v4[INET6_ADDRSTRLEN] = "";
    int mtu = 0;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", i->ifa_name);
    if (ioctl(fd, SIOCGIFMTU, &request) == 0)
        mtu = request.ifr_mtu;
    const int kind = ioctl(fd, SIOCGIFHWADDR, &request) == 0 ? request.ifr_hwaddr.sa_family : -1;
    if (kind != ARPHRD_ETHER && kind != ARPHRD_NONE && kind != ARPHRD_RAWIP) {
        doctor_note("%s: of a kind that tcpshim cannot use; TCP over it stays in the kernel",
                    i->ifa_name);
        return false;
    }
    offloads(fd, i->ifa_name, text, sizeof(text));
    const bool has = address(all, i->ifa_name, AF_INET, v4);
    if (has)
        doctor_good("%s: %s, mtu %d, offloads:%s", i->ifa_name, v4, mtu, text);
    else
        doctor_note("%s: mtu %d, no IPv4 address; --addr can give the stack one", i->ifa_name, mtu);
    return true;
}

static void examine_route(void)
{
    char line[300], name[32];
    unsigned long destination, gateway;
    bool found = false;
    FILE *f = fopen("/proc/net/route", "re");
    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "%31s %lx %lx", name, &destination, &gateway) == 3 && destination == 0) {
            const struct in_addr a = {.s_addr = (in_addr_t)gateway};
            doctor_good("default route: by %s over %s", inet_ntoa(a), name);
            found = true;
        }
    if (f != NULL)
        fclose(f);
    if (!found)
        doctor_note("no default route: only hosts on these networks can be reached");
}

void doctor_examine_network(void)
{
    struct ifaddrs *all = NULL;
    bool usable = false;
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && getifaddrs(&all) == 0) {
        for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next)
            if (i->ifa_addr != NULL && i->ifa_addr->sa_family == AF_PACKET &&
                (i->ifa_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP)
                usable |= examine_interface(fd, all, i);
    }
    if (all != NULL)
        freeifaddrs(all);
    if (fd >= 0)
        close(fd);
    if (!usable) {
        doctor_bad("no usable interface is up: only connections to this host itself are possible");
        doctor_cure("bring one up (ip link set NAME up), or work in a laboratory (tcpshim lab)");
        return;
    }
    examine_route();
}
