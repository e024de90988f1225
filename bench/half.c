/*
 * The limits where one side is the kernel's: its TCP on one end of a veth pair, on the other frames
 * that are as much of a TCP as one connection without loss needs. Nothing is looked up, timed or
 * sent again.
 *
 *     half give IF ADDRESS PORT SECONDS  bulk by frames, with one copy as for retransmission
 *     half take IF PORT                  takes it by frames: prints its processor time
 *     half write ADDRESS PORT SECONDS    bulk by the kernel's TCP
 *     half read PORT                     takes it by the kernel's TCP: prints its processor time
 *
 * take and read say `ready` first; give and write print as print_bulk().
 */
#include "frames.h"

#include <linux/filter.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/select.h>

#define BLOCK      131072 /* what iperf3 writes and reads at once */
#define WINDOW     16     /* frames under way */
#define ACK_EVERY  2      /* frames, */
#define SLOW_START 100    /* but one as long as they are small */
#define SCALE      7
#define RECEIVE    (1u << 20) /* offered to the kernel's sender */
#define FIN        0x01
#define SYN        0x02
#define ACK        0x10
#define IP_AT      14
#define TCP_AT     34
#define ECHO_AT    (TCP_AT + 28) /* the timestamp that is echoed */

/* One connection, which never loses anything. */
struct half {
    int fd;
    struct frame frame; /* the next segment's headers */
    uint32_t snd_nxt, snd_una, snd_wnd, rcv_nxt;
    unsigned snd_scale;
    uint16_t lport; /* as on the wire */
};

struct segment {
    struct frame frame;
    uint8_t options[20]; /* what a SYN has more */
};

static uint8_t program[2 * BLOCK];

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return ntohl(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htonl(v);
    memcpy(p, &v, 4);
}

static void put16(uint8_t *p, uint32_t v)
{
    const uint16_t n = htons((uint16_t)v);
    memcpy(p, &n, 2);
}

/* Keeps the kernel from answering for the port: a listener that sees nothing. Returns the port. */
static uint16_t guard(const char *port)
{
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    const struct sock_fprog none = {1, &nothing};
    struct sockaddr_in sa = address("0.0.0.0", port);
    socklen_t size = sizeof(sa);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    must(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &none, sizeof(none)) == 0,
         "SO_ATTACH_FILTER");
    must(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 1) == 0, "guard");
    must(getsockname(fd, (struct sockaddr *)&sa, &size) == 0, "getsockname");
    return sa.sin_port;
}

static void fill_ip(struct half *h, size_t tcp_bytes)
{
    uint8_t *ip = h->frame.bytes + IP_AT;
    put16(ip + 2, (uint32_t)(20 + tcp_bytes));
    put16(ip + 10, 0);
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, ~(sum + (sum >> 16)));
}

/* The next segment's headers. */
static void fill(struct half *h, uint8_t flags, size_t bytes)
{
    uint8_t *tcp = h->frame.bytes + TCP_AT;
    put32(tcp + 4, h->snd_nxt);
    put32(tcp + 8, h->rcv_nxt);
    tcp[13] = flags;
    put16(tcp + 14, flags & SYN ? 65535 : RECEIVE >> SCALE);
    fill_ip(h, TCP_HEADER + bytes);
    h->frame.head.gso_type = bytes > MSS ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_NONE;
    h->snd_nxt += (uint32_t)bytes + ((flags & (SYN | FIN)) != 0);
}

static void send_segment(struct half *h, uint8_t flags, const void *data, size_t bytes)
{
    fill(h, flags, bytes);
    transmit(h->fd, &h->frame, data, bytes);
}

/* The SYN has the options that a kernel's has, but SACK. */
static void send_syn(struct half *h, uint8_t flags)
{
    static const uint8_t options[] = {2, 4, 1460 >> 8, 1460 & 255, 3, 3, SCALE, 1};
    h->frame.bytes[TCP_AT + 12] = (TCP_HEADER + sizeof(options)) / 4 << 4;
    send_segment(h, flags, options, sizeof(options));
    h->snd_nxt -= sizeof(options);
    h->frame.bytes[TCP_AT + 12] = TCP_HEADER / 4 << 4;
}

/* Scale of the window in a SYN's options. */
static unsigned scale_of(const uint8_t *option, const uint8_t *end)
{
    while (option < end && *option != 0) {
        if (*option == 3)
            return option[2];
        option += *option == 1 ? 1 : option[1];
    }
    return 0;
}

/*
 * Takes over what a segment of the connection says. Returns its bytes of text, 0 where they are
 * known, -1 for a frame of somebody else.
 */
static ssize_t take_headers(struct half *h, const struct segment *s, ssize_t got)
{
    const uint8_t *ip = s->frame.bytes + IP_AT, *tcp = s->frame.bytes + TCP_AT;
    if (got < (ssize_t)sizeof(s->frame) || memcmp(tcp + 2, &h->lport, 2) != 0 || tcp[13] & SYN)
        return -1;
    const int32_t ahead = (int32_t)(get32(tcp + 4) - h->rcv_nxt);
    must(ahead <= 0, "a segment was lost");
    h->snd_una = get32(tcp + 8);
    h->snd_wnd = (uint32_t)(tcp[14] << 8 | tcp[15]) << h->snd_scale;
    memcpy(h->frame.bytes + ECHO_AT, tcp + 24, 4);
    if (ahead < 0)
        return 0;
    const ssize_t text = (ip[2] << 8 | ip[3]) - 20 - TCP_HEADER;
    h->rcv_nxt += (uint32_t)text + (tcp[13] & FIN);
    return text;
}

/* Waits for a SYN of the connection, which it answers to from then on. */
static struct segment await_syn(struct half *h, uint8_t flags)
{
    struct segment s;
    const uint8_t *tcp = s.frame.bytes + TCP_AT;
    do
        must(recv(h->fd, &s, sizeof(s), 0) > 0, "recv");
    while (s.frame.bytes[IP_AT + 9] != IPPROTO_TCP || memcmp(tcp + 2, &h->lport, 2) != 0 ||
           tcp[13] != flags);
    h->snd_scale = scale_of(tcp + 20, tcp + (tcp[12] >> 4) * 4);
    h->rcv_nxt = get32(tcp + 4) + 1;
    /* the timestamp of a SYN stands behind MSS and SACK permitted */
    memcpy(h->frame.bytes + ECHO_AT, tcp + 28, 4);
    return s;
}

static struct half half_new(const char *interface, uint16_t lport)
{
    struct half h = {
        .fd = open_interface(interface), .frame = make_frame(TEXT_MAX), .lport = lport};
    static const uint8_t timestamps[] = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0};
    memcpy(h.frame.bytes + TCP_AT, &lport, 2);
    memcpy(h.frame.bytes + TCP_AT + 20, timestamps, sizeof(timestamps));
    return h;
}

/* The answers' addresses are those of the frame that is answered. */
static void address_to(struct half *h, const struct segment *s)
{
    const uint8_t *from = s->frame.bytes;
    uint8_t *to = h->frame.bytes;
    memcpy(to, from + 6, 6);
    memcpy(to + 6, from, 6);
    memcpy(to + IP_AT + 12, from + IP_AT + 16, 4);
    memcpy(to + IP_AT + 16, from + IP_AT + 12, 4);
    memcpy(to + TCP_AT + 2, from + TCP_AT, 2);
}

/* The frames' addresses, of which the kernel knows those of the link once it has sent something. */
static void address_from(struct half *h, const char *interface, const struct sockaddr_in *to)
{
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in own;
    socklen_t size = sizeof(own);
    struct arpreq peer = {0};
    struct ifreq link = {0};
    must(fd >= 0 && connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0, "connect");
    must(getsockname(fd, (struct sockaddr *)&own, &size) == 0, "getsockname");
    memcpy(&peer.arp_pa, to, sizeof(*to));
    strncpy(peer.arp_dev, interface, sizeof(peer.arp_dev) - 1);
    strncpy(link.ifr_name, interface, sizeof(link.ifr_name) - 1);
    for (unsigned tries = 0; !(peer.arp_flags & ATF_COM); tries++) {
        must(tries < 1000, "no neighbour");
        (void)send(fd, "", 1, 0);
        usleep(1000);
        (void)ioctl(fd, SIOCGARP, &peer);
    }
    must(ioctl(fd, SIOCGIFHWADDR, &link) == 0, "SIOCGIFHWADDR");
    close(fd);
    memcpy(h->frame.bytes, peer.arp_ha.sa_data, 6);
    memcpy(h->frame.bytes + 6, link.ifr_hwaddr.sa_data, 6);
    memcpy(h->frame.bytes + IP_AT + 12, &own.sin_addr, 4);
    memcpy(h->frame.bytes + IP_AT + 16, &to->sin_addr, 4);
    memcpy(h->frame.bytes + TCP_AT + 2, &to->sin_port, 2);
}

/* Takes acknowledgements, those that are there and what it takes until so much may be sent. */
static void await_room(struct half *h, uint32_t bytes)
{
    const uint32_t most = WINDOW * TEXT_MAX;
    for (;;) {
        const uint32_t wnd = h->snd_wnd < most ? h->snd_wnd : most;
        const int full = h->snd_nxt + bytes - h->snd_una > wnd;
        struct segment s;
        const ssize_t got = recv(h->fd, &s, sizeof(s), full ? 0 : MSG_DONTWAIT);
        if (got < 0)
            return;
        take_headers(h, &s, got);
    }
}

/* One copy as for retransmission, which is what leaves. */
static void give_frames(struct half *h, unsigned n)
{
    static uint8_t kept[WINDOW + BATCH][TEXT_MAX];
    static unsigned next;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *keep = kept[next++ % (WINDOW + BATCH)];
        memcpy(keep, program + (i & 1) * TEXT_MAX, TEXT_MAX);
        fill(h, ACK, TEXT_MAX);
        batch_add(h->fd, &h->frame, keep, TEXT_MAX);
    }
    batch_send();
}

static void give(const char *interface, const char *addr, const char *port, double seconds)
{
    const struct sockaddr_in to = address(addr, port);
    struct half h = half_new(interface, guard("0"));
    address_from(&h, interface, &to);
    send_syn(&h, SYN);
    (void)await_syn(&h, SYN | ACK);
    h.snd_una = h.snd_nxt;
    send_segment(&h, ACK, NULL, 0);
    h.snd_wnd = 65535;
    const double start = now_usec(), span = seconds * 1e6, cpu = cpu_seconds();
    double now = start;
    size_t sent = 0;
    for (; now - start < span; now = now_usec()) {
        const unsigned n = h.snd_wnd >= WINDOW * TEXT_MAX ? BATCH : 1;
        await_room(&h, n * TEXT_MAX);
        give_frames(&h, n);
        sent += n;
    }
    print_bulk((double)sent * TEXT_MAX, now - start, cpu);
    send_segment(&h, FIN | ACK, NULL, 0);
}

/* As iperf3 does for each block. */
static void await(int fd)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    must(select(fd + 1, &set, NULL, NULL, NULL) == 1, "select");
}

static void take(const char *interface, const char *port)
{
    struct half h = half_new(interface, guard(port));
    say_ready();
    const struct segment syn = await_syn(&h, SYN);
    address_to(&h, &syn);
    send_syn(&h, SYN | ACK);
    uint32_t acked = h.rcv_nxt;
    for (unsigned frames = 0;; frames++) {
        struct segment s;
        uint8_t *const text = program + (frames & 1) * TEXT_MAX;
        struct iovec iov[] = {{&s.frame, sizeof(s.frame)}, {text, TEXT_MAX}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
        if ((frames & 1) == 0)
            await(h.fd);
        const ssize_t got = recvmsg(h.fd, &m, 0);
        const ssize_t bytes = take_headers(&h, &s, got);
        if (bytes < 0)
            continue;
        const int last = s.frame.bytes[TCP_AT + 13] & FIN;
        if (last || bytes == 0 || frames < SLOW_START ||
            h.rcv_nxt - acked >= ACK_EVERY * TEXT_MAX) {
            send_segment(&h, ACK, NULL, 0);
            acked = h.rcv_nxt;
        }
        if (last)
            break;
    }
    printf("%.6f\n", cpu_seconds());
}

static void write_bulk(const char *addr, const char *port, double seconds)
{
    const struct sockaddr_in to = address(addr, port);
    const int fd = connect_to(&to);
    const double start = now_usec(), span = seconds * 1e6, cpu = cpu_seconds();
    double now = start;
    size_t sent = 0;
    for (; now - start < span; now = now_usec(), sent++)
        must(write(fd, program, BLOCK) == BLOCK, "write");
    print_bulk((double)sent * BLOCK, now - start, cpu);
}

static void read_bulk(const char *port)
{
    const int listener = listen_on(port);
    say_ready();
    const int fd = accept(listener, NULL, NULL);
    must(fd >= 0, "accept");
    for (ssize_t n = 1; n > 0;) {
        await(fd);
        n = recv(fd, program, BLOCK, MSG_WAITALL);
        must(n >= 0, "recv");
    }
    printf("%.6f\n", cpu_seconds());
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (argc == 6 && strcmp(mode, "give") == 0)
        give(argv[2], argv[3], argv[4], atof(argv[5]));
    else if (argc == 4 && strcmp(mode, "take") == 0)
        take(argv[2], argv[3]);
    else if (argc == 5 && strcmp(mode, "write") == 0)
        write_bulk(argv[2], argv[3], atof(argv[4]));
    else if (argc == 3 && strcmp(mode, "read") == 0)
        read_bulk(argv[2]);
    else
        return 2;
    return 0;
}
