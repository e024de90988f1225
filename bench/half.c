/*
 * The limits where one side is the kernel's: its TCP on one end of a veth pair, on the other frames
 * that are as much of a TCP as connections without loss need. Nothing is timed or sent again.
 *
 *     half give IF ADDRESS PORT SECONDS N  bulk by frames, with one copy as for retransmission
 *     half take IF PORT N                  takes it by frames: prints its processor time
 *     half write ADDRESS PORT SECONDS N    bulk by the kernel's TCP
 *     half read PORT N                     takes it by the kernel's TCP: prints its processor time
 *
 * over N connections. take and read say `ready` first; give and write print as print_bulk().
 *
 *     half serve IF PORT                   the server of conn.c by frames, for as long as it may
 *
 * says `ready`, never sleeps, and has one connection at a time.
 */
#include "frames.h"
#include "stack/base.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sys/ioctl.h>

#define BLOCK       131072 /* what iperf3 writes and reads at once */
#define WINDOW      16     /* frames under way */
#define ACK_EVERY   2      /* frames, */
#define SLOW_START  100    /* but one as long as they are small */
#define STREAMS_MAX 16
#define SCALE       7
#define RECEIVE     (1u << 20) /* offered to the kernel's sender */
#define FIN         0x01
#define SYN         0x02
#define ACK         0x10
#define IP_AT       14
#define TCP_AT      34
#define ECHO_AT     (TCP_AT + 28) /* the timestamp that is echoed */

/* A connection that never loses anything. */
struct half {
    struct frame frame; /* the next segment's headers */
    uint32_t snd_nxt, snd_una, snd_wnd, rcv_nxt, acked;
    unsigned snd_scale;
};

struct segment {
    struct frame frame;
    uint8_t options[20]; /* what a SYN has more */
};

static int fd;
static struct half halves[STREAMS_MAX];
static unsigned streams;
static uint8_t program[STREAMS_MAX][BLOCK];

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
    put_be16(ip + 2, (uint16_t)(20 + tcp_bytes));
    put_be16(ip + 10, 0);
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    put_be16(ip + 10, (uint16_t) ~(sum + (sum >> 16)));
}

/* The next segment's headers. */
static void fill(struct half *h, uint8_t flags, size_t bytes)
{
    uint8_t *tcp = h->frame.bytes + TCP_AT;
    put_be32(tcp + 4, h->snd_nxt);
    put_be32(tcp + 8, h->rcv_nxt);
    tcp[13] = flags;
    put_be16(tcp + 14, flags & SYN ? 65535 : RECEIVE >> SCALE);
    fill_ip(h, TCP_HEADER + bytes);
    set_cut(&h->frame, bytes);
    h->snd_nxt += (uint32_t)bytes + ((flags & (SYN | FIN)) != 0);
}

static void send_segment(struct half *h, uint8_t flags, const void *data, size_t bytes)
{
    fill(h, flags, bytes);
    transmit(fd, &h->frame, data, bytes);
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

/* The connection of a segment that came in; NULL: none yet. */
static struct half *half_of(const struct segment *s)
{
    for (unsigned i = 0; i < streams; i++) {
        const uint8_t *own = halves[i].frame.bytes + TCP_AT, *tcp = s->frame.bytes + TCP_AT;
        if (memcmp(own, tcp + 2, 2) == 0 && memcmp(own + 2, tcp, 2) == 0)
            return &halves[i];
    }
    return NULL;
}

/*
 * Takes over what a segment says. Returns its connection, NULL for a frame of somebody else; *bytes
 * of text, 0 where they are known.
 */
static struct half *take_headers(const struct segment *s, ssize_t got, size_t *bytes)
{
    const uint8_t *ip = s->frame.bytes + IP_AT, *tcp = s->frame.bytes + TCP_AT;
    struct half *h = half_of(s);
    if (got < (ssize_t)sizeof(s->frame) || h == NULL || tcp[13] & SYN)
        return NULL;
    const int32_t ahead = (int32_t)(get_be32(tcp + 4) - h->rcv_nxt);
    must(ahead <= 0, "a segment was lost");
    h->snd_una = get_be32(tcp + 8);
    h->snd_wnd = (uint32_t)(tcp[14] << 8 | tcp[15]) << h->snd_scale;
    memcpy(h->frame.bytes + ECHO_AT, tcp + 24, 4);
    *bytes = ahead < 0 ? 0 : (size_t)(ip[2] << 8 | ip[3]) - 20 - TCP_HEADER;
    h->rcv_nxt += (uint32_t)*bytes + (ahead == 0 ? tcp[13] & FIN : 0);
    return h;
}

/* What the peer's SYN says. */
static void take_syn(struct half *h, const struct segment *s)
{
    const uint8_t *tcp = s->frame.bytes + TCP_AT;
    h->snd_scale = scale_of(tcp + 20, tcp + (tcp[12] >> 4) * 4);
    h->rcv_nxt = h->acked = get_be32(tcp + 4) + 1;
    /* the timestamp stands behind MSS and SACK permitted */
    memcpy(h->frame.bytes + ECHO_AT, tcp + 28, 4);
}

static struct half *half_new(uint16_t lport)
{
    must(streams < STREAMS_MAX, "too many connections");
    struct half *h = &halves[streams++];
    static const uint8_t timestamps[] = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0};
    h->frame = make_frame(TEXT_MAX);
    memcpy(h->frame.bytes + TCP_AT, &lport, 2);
    memcpy(h->frame.bytes + TCP_AT + 20, timestamps, sizeof(timestamps));
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
    const int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in own;
    socklen_t size = sizeof(own);
    struct arpreq peer = {0};
    struct ifreq link = {0};
    must(udp >= 0 && connect(udp, (const struct sockaddr *)to, sizeof(*to)) == 0, "connect");
    must(getsockname(udp, (struct sockaddr *)&own, &size) == 0, "getsockname");
    memcpy(&peer.arp_pa, to, sizeof(*to));
    strncpy(peer.arp_dev, interface, sizeof(peer.arp_dev) - 1);
    strncpy(link.ifr_name, interface, sizeof(link.ifr_name) - 1);
    for (unsigned tries = 0; !(peer.arp_flags & ATF_COM); tries++) {
        must(tries < 1000, "no neighbour");
        (void)send(udp, "", 1, 0);
        usleep(1000);
        (void)ioctl(udp, SIOCGARP, &peer);
    }
    must(ioctl(udp, SIOCGIFHWADDR, &link) == 0, "SIOCGIFHWADDR");
    close(udp);
    memcpy(h->frame.bytes, peer.arp_ha.sa_data, 6);
    memcpy(h->frame.bytes + 6, link.ifr_hwaddr.sa_data, 6);
    memcpy(h->frame.bytes + IP_AT + 12, &own.sin_addr, 4);
    memcpy(h->frame.bytes + IP_AT + 16, &to->sin_addr, 4);
    memcpy(h->frame.bytes + TCP_AT + 2, &to->sin_port, 2);
}

/* Takes an acknowledgement, or waits for one. */
static int take_ack(int flags)
{
    struct segment s;
    size_t bytes;
    const ssize_t got = recv(fd, &s, sizeof(s), flags);
    if (got >= 0)
        (void)take_headers(&s, got, &bytes);
    return got >= 0;
}

/* One copy as for retransmission, which is what leaves. */
static void give_frame(struct half *h, const uint8_t *from)
{
    static uint8_t kept[WINDOW + BATCH][TEXT_MAX];
    static unsigned next;
    uint8_t *keep = kept[next++ % (WINDOW + BATCH)];
    memcpy(keep, from, TEXT_MAX);
    fill(h, ACK, TEXT_MAX);
    batch_add(fd, &h->frame, keep, TEXT_MAX);
}

static uint32_t in_flight(const struct half *h)
{
    return h->snd_nxt - h->snd_una;
}

/* Whether the connection's next block may go: two frames, in the beginning one. */
static unsigned may_go(const struct half *h)
{
    const uint32_t share = WINDOW / streams * TEXT_MAX;
    const uint32_t wnd = h->snd_wnd < share ? h->snd_wnd : share;
    const unsigned frames = wnd < 2 * TEXT_MAX ? 1 : 2;
    return in_flight(h) + frames * TEXT_MAX <= wnd ? frames : 0;
}

/* A batch of blocks of connections in turn; returns frames. */
static unsigned give_batch(void)
{
    static unsigned turn;
    for (unsigned tried = 0; tried < streams && batch.count + 2 <= BATCH; tried++) {
        const unsigned i = turn++ % streams;
        const unsigned frames = may_go(&halves[i]);
        for (unsigned n = 0; n < frames; n++)
            give_frame(&halves[i], program[i]);
        if (frames > 0)
            tried = 0;
    }
    const unsigned frames = batch.count;
    if (frames > 0)
        batch_send();
    return frames;
}

static void connect_half(const char *interface, const struct sockaddr_in *to)
{
    struct half *h = half_new(guard("0"));
    struct segment s;
    address_from(h, interface, to);
    send_syn(h, SYN);
    do
        must(recv(fd, &s, sizeof(s), 0) > 0, "recv");
    while (half_of(&s) != h || s.frame.bytes[TCP_AT + 13] != (SYN | ACK));
    take_syn(h, &s);
    h->snd_una = h->snd_nxt;
    h->snd_wnd = 65535;
    send_segment(h, ACK, NULL, 0);
}

static void give(const char *interface, const char *addr, const char *port, double seconds,
                 unsigned n)
{
    const struct sockaddr_in to = address(addr, port);
    fd = open_interface(interface);
    while (streams < n)
        connect_half(interface, &to);
    const double start = now_usec(), span = seconds * 1e6, cpu = cpu_seconds();
    double now = start;
    size_t sent = 0;
    for (; now - start < span; now = now_usec()) {
        uint32_t under_way = 0;
        for (unsigned i = 0; i < n; i++)
            under_way += in_flight(&halves[i]);
        const unsigned frames = under_way <= (WINDOW - BATCH) * TEXT_MAX ? give_batch() : 0;
        sent += frames;
        for (int flags = frames > 0 ? MSG_DONTWAIT : 0; take_ack(flags);)
            flags = MSG_DONTWAIT;
    }
    print_bulk((double)sent * TEXT_MAX, now - start, cpu);
    for (unsigned i = 0; i < n; i++)
        send_segment(&halves[i], FIN | ACK, NULL, 0);
}

/* As iperf3 does before each block. */
static void await(int which, short events)
{
    struct pollfd p = {which, events, 0};
    must(poll(&p, 1, -1) == 1, "poll");
}

static void accept_half(uint16_t lport, const struct segment *s)
{
    struct half *h = half_new(lport);
    address_to(h, s);
    take_syn(h, s);
    send_syn(h, SYN | ACK);
}

static int asks_for(const struct segment *s, uint16_t lport)
{
    const uint8_t *tcp = s->frame.bytes + TCP_AT;
    return s->frame.bytes[IP_AT + 9] == IPPROTO_TCP && tcp[13] == SYN &&
           memcmp(tcp + 2, &lport, 2) == 0;
}

static void take(const char *interface, const char *port, unsigned n)
{
    fd = open_interface(interface);
    const uint16_t lport = guard(port);
    say_ready();
    unsigned ended = 0;
    for (unsigned frames = 0; ended < n; frames++) {
        struct segment s = {0};
        /* whose it is shows when it is there: the programs' buffers are used in turn */
        uint8_t *const text = program[frames / 2 % n] + (frames & 1) * (BLOCK - TEXT_MAX);
        struct iovec iov[] = {{&s.frame, sizeof(s.frame)}, {text, TEXT_MAX}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
        if ((frames & 1) == 0)
            await(fd, POLLIN);
        const ssize_t got = recvmsg(fd, &m, 0);
        const uint8_t *tcp = s.frame.bytes + TCP_AT;
        size_t bytes;
        struct half *h = take_headers(&s, got, &bytes);
        if (h == NULL && asks_for(&s, lport)) {
            memcpy(s.options, text, sizeof(s.options));
            accept_half(lport, &s);
        }
        if (h == NULL)
            continue;
        const int last = tcp[13] & FIN;
        if (last || bytes == 0 || frames < SLOW_START * n ||
            h->rcv_nxt - h->acked >= ACK_EVERY * TEXT_MAX) {
            send_segment(h, ACK, NULL, 0);
            h->acked = h->rcv_nxt;
        }
        ended += last;
    }
    printf("%.6f\n", cpu_seconds());
}

/* Never sleeps: whoever wants the processor has it between two looks. */
static ssize_t look(struct segment *s)
{
    ssize_t got;
    while ((got = recv(fd, s, sizeof(*s), MSG_DONTWAIT)) < 0)
        sched_yield();
    return got;
}

/* The answer and the FIN leave together. */
static _Noreturn void serve(const char *interface, const char *port)
{
    fd = open_interface(interface);
    const uint16_t lport = guard(port);
    say_ready();
    for (;;) {
        struct segment s = {0};
        const ssize_t got = look(&s);
        if (asks_for(&s, lport)) {
            streams = 0;
            accept_half(lport, &s);
            continue;
        }
        size_t bytes;
        struct half *h = take_headers(&s, got, &bytes);
        if (h != NULL && bytes > 0)
            send_segment(h, FIN | ACK, program[0], bytes);
        else if (h != NULL && s.frame.bytes[TCP_AT + 13] & FIN)
            send_segment(h, ACK, NULL, 0);
    }
}

static void write_bulk(const char *addr, const char *port, double seconds, unsigned n)
{
    const struct sockaddr_in to = address(addr, port);
    struct pollfd p[STREAMS_MAX];
    for (unsigned i = 0; i < n; i++) {
        p[i] = (struct pollfd){connect_to(&to), POLLOUT, 0};
        must(fcntl(p[i].fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
    }
    const double start = now_usec(), span = seconds * 1e6, cpu = cpu_seconds();
    double now = start, sent = 0;
    for (; now - start < span; now = now_usec()) {
        must(poll(p, n, -1) > 0, "poll");
        for (unsigned i = 0; i < n; i++) {
            const ssize_t wrote = p[i].revents != 0 ? write(p[i].fd, program[i], BLOCK) : 0;
            must(wrote >= 0 || errno == EAGAIN, "write");
            sent += wrote > 0 ? (double)wrote : 0;
        }
    }
    print_bulk(sent, now - start, cpu);
}

static void read_bulk(const char *port, unsigned n)
{
    const int listener = listen_on(port);
    struct pollfd p[STREAMS_MAX];
    say_ready();
    for (unsigned i = 0; i < n; i++) {
        p[i] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
        must(p[i].fd >= 0, "accept");
    }
    for (unsigned open = n; open > 0;) {
        must(poll(p, n, -1) > 0, "poll");
        for (unsigned i = 0; i < n; i++) {
            if (p[i].revents == 0)
                continue;
            const ssize_t got = recv(p[i].fd, program[i], BLOCK, MSG_DONTWAIT);
            must(got >= 0 || errno == EAGAIN, "recv");
            if (got == 0) {
                p[i].fd = -1;
                open--;
            }
        }
    }
    printf("%.6f\n", cpu_seconds());
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (argc == 4 && strcmp(mode, "serve") == 0)
        serve(argv[2], argv[3]);
    const int n = atoi(argv[argc - 1]);
    must(n > 0 && n <= STREAMS_MAX, "connections");
    if (argc == 7 && strcmp(mode, "give") == 0)
        give(argv[2], argv[3], argv[4], atof(argv[5]), (unsigned)n);
    else if (argc == 5 && strcmp(mode, "take") == 0)
        take(argv[2], argv[3], (unsigned)n);
    else if (argc == 6 && strcmp(mode, "write") == 0)
        write_bulk(argv[2], argv[3], atof(argv[4]), (unsigned)n);
    else if (argc == 4 && strcmp(mode, "read") == 0)
        read_bulk(argv[2], (unsigned)n);
    else
        return 2;
    return 0;
}
