/*
 * The path between two hosts: takes every frame from one of two interfaces and sends it out of the
 * other, as the settings of each direction say. Stands in for netem, which this needs not.
 *
 *     path ONE TWO [to-one|to-two|both PROPERTY VALUE]...    properties: see
 * shim/command/lab_link.h
 *
 * A direction without settings passes large frames in whole, as the veth would. One with settings
 * cuts them first, since what is lost or overtaken on a real path is a segment of the MTU.
 * Ends with SIGTERM; what became of the frames is printed then.
 */
#define _GNU_SOURCE
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/lab_link.h"
#include "shim/link/segment.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

#define SECOND      UINT64_C(1000000000)
#define HEAD        sizeof(struct virtio_net_hdr)
#define FRAME_MAX   (HEAD + ETH_HLEN + 65535)
#define BATCH       32 /* frames from one side before the other's turn */
#define BUFFER      (32 << 20)
#define PACKETS_ALL 0x0300 /* ETH_P_ALL, in network order */

struct side {
    int fd;
    struct link_way to; /* the direction that ends here */
    bool plain;         /* it has no settings */
};

static struct side sides[2];
static volatile sig_atomic_t ended;

static void on_term(int number)
{
    (void)number;
    ended = 1;
}

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static int open_interface(const char *name)
{
    const int on = 1, bytes = BUFFER;
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const struct sockaddr_ll at = {.sll_family = AF_PACKET,
                                   .sll_protocol = PACKETS_ALL,
                                   .sll_ifindex = (int)if_nametoindex(name)};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
        bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
        fail(name);
    return fd;
}

static void transmit(const struct side *to, const void *bytes, size_t len)
{
    (void)!send(to->fd, bytes, len, 0); /* a full queue loses it */
}

/* A large TCP frame becomes segments of the MTU; each meets its own fate. */
static void offer(struct side *to, uint64_t at, const uint8_t *bytes, size_t len)
{
    static uint8_t piece[FRAME_MAX];
    static const struct virtio_net_hdr whole;
    struct virtio_net_hdr head;
    struct segment s;
    const uint8_t *frame = bytes + HEAD;
    const uint32_t size = (uint32_t)(len - HEAD);
    memcpy(&head, bytes, HEAD);
    const bool ip = frame[12] == 0x08 && frame[13] == 0x00;
    if (!ip || head.gso_type == VIRTIO_NET_HDR_GSO_NONE ||
        !segment_parse(frame, size, size, ETH_HLEN, &s)) {
        link_offer(&to->to, at, bytes, HEAD, frame, size, ip);
        return;
    }
    for (uint32_t done = 0; done < s.len; done += head.gso_size) {
        const uint32_t n = segment_cut(frame, &s, done, head.gso_size, piece);
        link_offer(&to->to, at, &whole, HEAD, piece, n, true);
    }
}

static void take_from(unsigned from)
{
    static uint8_t bytes[FRAME_MAX];
    struct side *to = &sides[!from];
    for (unsigned n = 0; n < BATCH; n++) {
        const ssize_t len = recv(sides[from].fd, bytes, sizeof(bytes), 0);
        if (len < (ssize_t)(HEAD + ETH_HLEN))
            return;
        if (to->plain)
            transmit(to, bytes, (size_t)len);
        else
            offer(to, now(), bytes, (size_t)len);
    }
}

/* Sends what is due; returns when there is more. */
static uint64_t deliver(void)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < 2; i++) {
        struct link_frame *f;
        while ((f = link_due(&sides[i].to, now())) != NULL) {
            size_t len;
            const void *bytes = link_bytes(f, &len);
            transmit(&sides[i], bytes, len);
            free(f);
        }
        if (link_next(&sides[i].to) < next)
            next = link_next(&sides[i].to);
    }
    return next;
}

static void set(struct side *side, const char *name, const char *value)
{
    static const char *const names[] = {
#define X(id, option, argument, text) [LINK_##id] = option,
        LINK_PROPERTIES(X)
#undef X
    };
    for (enum link_property p = 0; p < LINK_PROPERTY_COUNT; p++) {
        if (strcmp(names[p], name) != 0)
            continue;
        const char *wanted = link_parse(p, value, &side->to.settings);
        if (wanted != NULL) {
            fprintf(stderr, "path: %s takes %s\n", name, wanted);
            exit(2);
        }
        side->plain = false;
        return;
    }
    fprintf(stderr, "path: no property %s\n", name);
    exit(2);
}

static void read_settings(int argc, char **argv)
{
    for (int i = 0; i + 2 < argc; i += 3) {
        if (strcmp(argv[i], "to-two") != 0)
            set(&sides[0], argv[i + 1], argv[i + 2]);
        if (strcmp(argv[i], "to-one") != 0)
            set(&sides[1], argv[i + 1], argv[i + 2]);
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct link_settings settings = sides[i].to.settings;
        link_init(&sides[i].to, &settings, i);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc % 3 != 0)
        return 2;
    sides[0].plain = sides[1].plain = true;
    read_settings(argc - 3, argv + 3);
    for (unsigned i = 0; i < 2; i++)
        sides[i].fd = open_interface(argv[1 + i]);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL); /* delays are kept to some ten microseconds */
    printf("ready\n");
    fflush(stdout);
    while (!ended) {
        struct pollfd fds[] = {{.fd = sides[0].fd, .events = POLLIN},
                               {.fd = sides[1].fd, .events = POLLIN}};
        const uint64_t next = deliver(), at = now(), span = next > at ? next - at : 0;
        const struct timespec ts = {.tv_sec = (time_t)(span / SECOND),
                                    .tv_nsec = (long)(span % SECOND)};
        if (ppoll(fds, 2, next == UINT64_MAX ? NULL : &ts, NULL) <= 0)
            continue;
        for (unsigned i = 0; i < 2; i++)
            if (fds[i].revents != 0)
                take_from(i);
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct link_counts *c = &sides[i].to.counts;
        printf("to %s: %llu frames, %llu lost, %llu did not fit, %llu overtaken\n", argv[1 + i],
               (unsigned long long)c->frames, (unsigned long long)c->lost,
               (unsigned long long)c->overflowed, (unsigned long long)c->reordered);
    }
    return 0;
}
