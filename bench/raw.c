/*
 * The limits: what system calls, wake-ups and copies cost without a TCP. Two ends of a veth pair
 * exchange as many frames as TCP would, over packet sockets; nothing is looked up, timed or kept.
 *
 *     raw pong IF                     echoes
 *     raw ping IF BYTES SECONDS       round trips: prints "median p99 count", times in microseconds
 *     raw sink IF                     takes bulk, and says so every other frame
 *     raw source IF SECONDS           bulk, with one copy as for retransmission: prints Gbit/s
 *     raw accept IF                   the frames of short connections, and a descriptor each
 *     raw connect IF SECONDS          their other end: prints connections per second
 *     raw copy | call                 memcpy() in GB/s, a system call in nanoseconds
 *
 * pong, sink and accept say `ready` first.
 */
#define _GNU_SOURCE
#include "round.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MSS        1448
#define TCP_HEADER 32 /* with timestamps */
#define HEADERS    (14 + 20 + TCP_HEADER)
#define TEXT_MAX   (45 * MSS) /* what a frame of 65,535 bytes has room for */
#define WINDOW     4          /* frames under way: 256 KB, within the cache */
#define ACK_EVERY  2
#define BUFFER     (16 << 20)

struct frame {
    struct virtio_net_hdr head;
    uint8_t bytes[HEADERS];
} __attribute__((packed));

static int fd;
static uint8_t text[ROUND_MAX + 65536];

static void open_interface(const char *name)
{
    const int on = 1, bytes = BUFFER;
    const struct sockaddr_ll at = {.sll_family = AF_PACKET,
                                   .sll_protocol = htons(ETH_P_IP),
                                   .sll_ifindex = (int)if_nametoindex(name)};
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    must(fd >= 0, "packet socket");
    must(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) == 0, "PACKET_VNET_HDR");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) == 0, "SO_RCVBUFFORCE");
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0, "SO_SNDBUFFORCE");
    must(bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0, name);
}

static void say_ready(void)
{
    printf("ready\n");
    fflush(stdout);
}

/* A TCP segment of so many bytes between addresses that nobody has; its checksum is left open. */
static struct frame make_frame(size_t bytes)
{
    struct frame f = {
        .head = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16}};
    if (bytes > MSS) {
        f.head.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        f.head.gso_size = MSS;
        f.head.hdr_len = HEADERS;
    }
    static const uint8_t fixed[] = {2,    0,  0, 0, 0,   1,  2, 0, 0,  0, 0, 2, 8, 0, /* Ethernet */
                                    0x45, 0,  0, 0, 0,   0,  0, 0, 64, 6, 0, 0,       /* IP */
                                    198,  18, 0, 1, 198, 18, 0, 2};
    memcpy(f.bytes, fixed, sizeof(fixed));
    const uint16_t length = htons((uint16_t)(20 + TCP_HEADER + bytes));
    memcpy(f.bytes + 16, &length, 2);
    f.bytes[34 + 12] = TCP_HEADER / 4 << 4;
    return f;
}

static void transmit(const struct frame *f, const void *data, size_t bytes)
{
    struct iovec iov[] = {{(void *)(uintptr_t)f, sizeof(*f)}, {(void *)(uintptr_t)data, bytes}};
    const struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    must(sendmsg(fd, &m, 0) > 0, "sendmsg");
}

/* Waits for a frame, or with MSG_DONTWAIT looks whether there is one. */
static int receive(int flags)
{
    struct frame f;
    struct iovec iov[] = {{&f, sizeof(f)}, {text, sizeof(text)}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    return recvmsg(fd, &m, flags) > 0;
}

static void ping(size_t bytes, double seconds)
{
    const struct frame f = make_frame(bytes);
    float *samples = samples_new();
    const double end = now_usec() + seconds * 1e6;
    size_t n = 0;
    for (double before = now_usec(), after; before < end && n < SAMPLES_MAX; before = after) {
        transmit(&f, text, bytes);
        must(receive(0), "recvmsg");
        after = now_usec();
        samples[n++] = (float)(after - before);
    }
    print_samples(samples, n);
}

static _Noreturn void pong(void)
{
    say_ready();
    for (;;) {
        struct frame f;
        struct iovec iov[] = {{&f, sizeof(f)}, {text, sizeof(text)}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
        const ssize_t n = recvmsg(fd, &m, 0);
        must(n >= (ssize_t)sizeof(f), "recvmsg");
        transmit(&f, text, (size_t)n - sizeof(f));
    }
}

static void source(double seconds)
{
    static uint8_t program[2 * TEXT_MAX], kept[WINDOW + 1][TEXT_MAX];
    const struct frame f = make_frame(TEXT_MAX);
    const double start = now_usec(), span = seconds * 1e6;
    double now = start;
    unsigned under_way = 0;
    size_t sent = 0;
    for (; now - start < span; sent++) {
        uint8_t *keep = kept[sent % (WINDOW + 1)];
        memcpy(keep, program + (sent & 1) * TEXT_MAX, TEXT_MAX);
        while (under_way >= ACK_EVERY && receive(under_way >= WINDOW ? 0 : MSG_DONTWAIT))
            under_way -= ACK_EVERY;
        transmit(&f, keep, TEXT_MAX);
        under_way++;
        now = now_usec();
    }
    printf("%.3f\n", (double)sent * TEXT_MAX * 8 / (now - start) / 1e3);
}

static _Noreturn void sink(void)
{
    const struct frame ack = make_frame(0);
    say_ready();
    for (unsigned n = 1;; n++) {
        must(receive(0), "recvmsg");
        if (n % ACK_EVERY == 0)
            transmit(&ack, text, 0);
    }
}

/* Of one connection: sends so many frames, then waits for so many. */
static void exchange(unsigned out, unsigned in)
{
    const struct frame f = make_frame(64);
    for (unsigned i = 0; i < out; i++)
        transmit(&f, text, 64);
    for (unsigned i = 0; i < in; i++)
        must(receive(0), "recvmsg");
}

static void descriptor(void)
{
    close(dup(fd));
}

static _Noreturn void accept_all(void)
{
    say_ready();
    for (;;) {
        exchange(0, 1); /* SYN */
        descriptor();
        exchange(1, 2); /* SYN-ACK; ACK, request */
        exchange(2, 1); /* answer, FIN; FIN with the ACK of both */
        exchange(1, 0); /* ACK */
    }
}

static void connect_all(double seconds)
{
    const double start = now_usec(), span = seconds * 1e6;
    double now = start;
    unsigned done = 0;
    for (; now - start < span; now = now_usec(), done++) {
        descriptor();
        exchange(1, 1);
        exchange(2, 2);
        exchange(1, 1);
    }
    printf("%.0f\n", done / (now - start) * 1e6);
}

#define BLOCK  65536
#define BLOCKS 4 /* as much as a window */

static void copy_speed(void)
{
    static uint8_t from[BLOCKS][BLOCK], to[BLOCKS][BLOCK];
    double best = 0;
    for (unsigned round = 0; round < 50; round++) {
        const double before = now_usec();
        for (unsigned i = 0; i < 64; i++) {
            memcpy(to[i % BLOCKS], from[i % BLOCKS], BLOCK);
            __asm__ volatile("" ::: "memory");
        }
        const double speed = 64.0 * BLOCK / (now_usec() - before) / 1e3;
        best = speed > best ? speed : best;
    }
    printf("%.2f\n", best);
}

static void call_cost(void)
{
    double best = 1e9;
    for (unsigned round = 0; round < 50; round++) {
        const double before = now_usec();
        for (unsigned i = 0; i < 1000; i++)
            (void)syscall(SYS_getppid);
        const double cost = now_usec() - before;
        best = cost < best ? cost : best;
    }
    printf("%.1f\n", best);
}

static int run(int argc, char **argv)
{
    const char *mode = argv[1];
    if (argc > 2)
        open_interface(argv[2]);
    if (argc == 2 && strcmp(mode, "copy") == 0)
        copy_speed();
    else if (argc == 2 && strcmp(mode, "call") == 0)
        call_cost();
    else if (argc == 3 && strcmp(mode, "pong") == 0)
        pong();
    else if (argc == 5 && strcmp(mode, "ping") == 0)
        ping((size_t)atoi(argv[3]), atof(argv[4]));
    else if (argc == 3 && strcmp(mode, "sink") == 0)
        sink();
    else if (argc == 4 && strcmp(mode, "source") == 0)
        source(atof(argv[3]));
    else if (argc == 3 && strcmp(mode, "accept") == 0)
        accept_all();
    else if (argc == 4 && strcmp(mode, "connect") == 0)
        connect_all(atof(argv[3]));
    else
        return 2;
    return 0;
}

int main(int argc, char **argv)
{
    return argc < 2 ? 2 : run(argc, argv);
}
