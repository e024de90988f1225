/* Packet sockets that carry frames as a TCP would make them: what the limits of bench/ are made of.
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ingress.h"

#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define MSS        1448
#define TCP_HEADER 32 /* with timestamps */
#define HEADERS    (14 + 20 + TCP_HEADER)
#define TEXT_MAX   (45 * MSS) /* what a frame of 65,535 bytes has room for */
#define BUFFER     (16 << 20)
#define ONE_PIECE  (65536 - 640) /* ONE_PIECE_MAX of shim/link/vnet.c */

struct frame {
    struct virtio_net_hdr head;
    uint8_t bytes[HEADERS];
} __attribute__((packed));

/*
 * A packet socket for IPv4 on the interface, of which nobody else gets any; frames that leave are
 * not seen. For all protocols and with a filter: sockets for one come behind the program.
 */
static inline int open_interface(const char *name)
{
    struct sock_filter code[] = {{BPF_LD | BPF_H | BPF_ABS, 0, 0, 12},
                                 {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, ETH_P_IP},
                                 {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
                                 {BPF_RET | BPF_K, 0, 0, 0}};
    const struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};
    const int on = 1, bytes = BUFFER;
    const struct sockaddr_ll at = {.sll_family = AF_PACKET,
                                   .sll_protocol = htons(ETH_P_ALL),
                                   .sll_ifindex = (int)if_nametoindex(name)};
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    must(fd >= 0, "packet socket");
    must(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0, "a filter");
    must(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) == 0, "PACKET_VNET_HDR");
    must(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) == 0,
         "PACKET_IGNORE_OUTGOING");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) == 0, "SO_RCVBUFFORCE");
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0, "SO_SNDBUFFORCE");
    must(bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0, name);
    drop_at_ingress((unsigned)at.sll_ifindex);
    return fd;
}

/* How a frame with so many bytes of text is cut; most of a large one is one piece of memory. */
static inline void set_cut(struct frame *f, size_t bytes)
{
    const int large = bytes > MSS;
    const size_t piece = HEADERS + bytes < ONE_PIECE ? HEADERS + bytes : ONE_PIECE;
    f->head.gso_type = large ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_NONE;
    f->head.gso_size = large ? MSS : 0;
    f->head.hdr_len = large ? (uint16_t)piece : 0;
}

/* A TCP segment of so many bytes between addresses that nobody has; its checksum is left open. */
static inline struct frame make_frame(size_t bytes)
{
    struct frame f = {
        .head = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16}};
    set_cut(&f, bytes);
    static const uint8_t fixed[] = {2,    0,  0, 0, 0,   1,  2, 0, 0,  0, 0, 2, 8, 0, /* Ethernet */
                                    0x45, 0,  0, 0, 0,   0,  0, 0, 64, 6, 0, 0,       /* IP */
                                    198,  18, 0, 1, 198, 18, 0, 2};
    memcpy(f.bytes, fixed, sizeof(fixed));
    const uint16_t length = htons((uint16_t)(20 + TCP_HEADER + bytes));
    memcpy(f.bytes + 16, &length, 2);
    f.bytes[34 + 12] = TCP_HEADER / 4 << 4;
    return f;
}

static inline void transmit(int fd, const struct frame *f, const void *data, size_t bytes)
{
    struct iovec iov[] = {{(void *)(uintptr_t)f, sizeof(*f)}, {(void *)(uintptr_t)data, bytes}};
    const struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    must(sendmsg(fd, &m, 0) > 0, "sendmsg");
}

/* Frames that leave together, before the receiver runs that the first one wakes. */
#define BATCH 8
static struct batch {
    aio_context_t context;
    unsigned count;
    struct frame frames[BATCH];
    struct iovec iov[BATCH][2];
    struct iocb calls[BATCH];
} batch;

/* The text stays where it is until batch_send(). */
static inline void batch_add(int fd, const struct frame *f, const void *data, size_t bytes)
{
    const unsigned i = batch.count++;
    batch.frames[i] = *f;
    batch.iov[i][0] = (struct iovec){&batch.frames[i], sizeof(*f)};
    batch.iov[i][1] = (struct iovec){(void *)(uintptr_t)data, bytes};
    batch.calls[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITEV,
                                   .aio_fildes = (uint32_t)fd,
                                   .aio_buf = (uintptr_t)batch.iov[i],
                                   .aio_nbytes = 2};
}

/* Whether the receiver may have a processor of its own: then sendmmsg() costs less. */
static inline int have_two_processors(void)
{
    static int count;
    cpu_set_t cpus;
    if (count == 0 && sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        count = CPU_COUNT(&cpus);
    return count > 1;
}

static inline void batch_send_messages(void)
{
    struct mmsghdr messages[BATCH] = {0};
    for (unsigned i = 0; i < batch.count; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = batch.iov[i], .msg_iovlen = 2};
    must(sendmmsg((int)batch.calls[0].aio_fildes, messages, batch.count, 0) == (int)batch.count,
         "sendmmsg");
    batch.count = 0;
}

static inline void batch_send(void)
{
    if (have_two_processors()) {
        batch_send_messages();
        return;
    }
    struct iocb *calls[BATCH];
    struct io_event events[BATCH];
    const long n = batch.count;
    for (unsigned i = 0; i < BATCH; i++)
        calls[i] = &batch.calls[i];
    must(batch.context != 0 || syscall(SYS_io_setup, BATCH, &batch.context) == 0, "io_setup");
    must(syscall(SYS_io_submit, batch.context, n, calls) == n, "io_submit");
    must(syscall(SYS_io_getevents, batch.context, n, n, events, NULL) == n, "io_getevents");
    for (long i = 0; i < n; i++)
        must(events[i].res > 0, "a frame");
    batch.count = 0;
}

static inline void say_ready(void)
{
    printf("ready\n");
    fflush(stdout);
}

/* Processor time of this process so far, in seconds. */
static inline double cpu_seconds(void)
{
    struct rusage r;
    must(getrusage(RUSAGE_SELF, &r) == 0, "getrusage");
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* What a sender of bulk says: Gbit/s, its processor time in seconds, and bytes. */
static inline void print_bulk(double bytes, double usec, double cpu_before)
{
    printf("%.3f %.6f %.0f\n", bytes * 8 / usec / 1e3, cpu_seconds() - cpu_before, bytes);
}
