/*
 * The hot paths of the engine, one after the other, for callgrind to count: the release build's
 * objects, an in-memory link, and a peer of a few lines that is not counted. Copies of payload are
 * not counted either (their instructions depend on the processor), but their bytes are.
 *
 *     engine [PATH...]       all of them if none is named; each prints
 *                            `NAME OPERATIONS COPIED-BYTES FRAMES`, what lay in the counted parts
 *     engine --list
 *
 * TCPSHIM_TRACE and its like work as in the shim.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/instructions/count.h"
#include "shim/core/config.h"
#include "shim/watch/sink.h"
#include "shim/watch/trace.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/wire.h"
#include "stack/util/checksum.h"

#define ARENA       ((size_t)1 << 30)
#define LOCAL       0x0a000001u /* 10.0.0.1 */
#define REMOTE      0x0a010000u /* and above: the peers */
#define SERVER_PORT 80
#define MSS         1448
#define LARGE       (45 * MSS) /* the largest frame: 64 KB less headers */
#define SMALL       64
#define PATH_DELAY  (50 * NSEC_PER_USEC)
#define L2_L3       (14 + 20)
#define WARM_UP     200
#define OPERATIONS  500

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 1}, peer_mac[6] = {2, 0, 0, 0, 0, 2};

struct peer {
    struct tcp_conn *conn;
    uint32_t addr;
    uint16_t port, lport;
    uint32_t seq, ack; /* of what it sends next */
    uint32_t ts_recent;
};

static struct stack_cx cx;
static struct tcp_listener *listener;
static struct peer *peer; /* to whom the engine speaks now */
static uint8_t netif;
static bool counting;
static uint64_t copied, frames;
static uint8_t text[LARGE], sink_text[LARGE];

/* ---- what is counted ---- */

static void pause_count(void)
{
    if (counting)
        count_end();
}

static void resume_count(void)
{
    if (counting)
        count_begin();
}

/* volatile: the compiler would make it memcpy() again */
static void *(*volatile const move)(void *, const void *, size_t) = memmove;

/* The engine's copies call this. */
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    pause_count();
    copied += counting ? n : 0;
    move(to, from, n);
    resume_count();
    return to;
}

static void begin(void)
{
    counting = true;
    count_begin();
}

static void end(void)
{
    count_end();
    counting = false;
}

/* ---- the peer and the link ---- */

static int transmit(struct stack_cx *c, const struct frame_out *f)
{
    struct tcp_segment s;
    (void)c;
    pause_count();
    frames += counting;
    if (f->l4_proto == 6 && tcp_parse(f->head + f->l4, (uint32_t)(f->head_end - f->l4), &s)) {
        peer->ack = s.seq.v + f->payload_len + !!(s.flags & TCP_SYN) + !!(s.flags & TCP_FIN);
        peer->lport = s.src_port;
        peer->ts_recent = s.opt.ts_val;
    }
    resume_count();
    return 0;
}

static void notify(struct stack_cx *c, void *owner, uint32_t events)
{
    (void)c, (void)owner, (void)events;
}

static const struct stack_ops ops = {
    .transmit = transmit,
    .notify = notify,
    .trace = trace_record,
    .trouble = trace_trouble,
};

/* A frame of the peer's. */
static struct frame_in segment(uint8_t flags, uint32_t len)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    struct tcp_segment s = {
        .src_port = peer->port,
        .dst_port = peer->lport,
        .seq = {peer->seq},
        .ack = {peer->ack},
        .flags = flags,
        .wnd = 65535,
        .opt = {.has_ts = true,
                .ts_val = (uint32_t)(cx.now / NSEC_PER_MSEC),
                .ts_ecr = peer->ts_recent},
    };
    if (flags & TCP_SYN) {
        s.opt.has_mss = s.opt.has_wscale = s.opt.sack_permitted = true;
        s.opt.mss = MSS + 12;
        s.opt.wscale = 7;
    }
    memcpy(frame, our_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
    put_be16(frame + 12, 0x0800);
    uint8_t *ip = frame + 14;
    const uint32_t header = tcp_build(ip + 20, &s);
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put_be16(ip + 2, (uint16_t)(20 + header + len));
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 6;
    put_be32(ip + 12, peer->addr);
    put_be32(ip + 16, LOCAL);
    const uint16_t sum = (uint16_t)~csum_fold(csum_add(0, ip, 20, false));
    memcpy(ip + 10, &sum, 2);
    if (len)
        memcpy(ip + 20 + header, text, len);
    peer->seq += len + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
    return (struct frame_in){.data = frame,
                             .len = L2_L3 + header + len,
                             .netif = netif,
                             .csum_trusted = true,
                             .gso_size = len > MSS ? MSS : 0};
}

/* As the shim does when a frame has arrived. */
static void input(const struct frame_in *f)
{
    stack_input(&cx, f);
    stack_flush(&cx);
    if (stack_deadline(cx.st) <= cx.now)
        stack_run_timers(&cx);
}

static void leave(void)
{
    stack_flush(&cx);
    if (cx.trace != 0)
        trace_flush();
}

static void give(uint32_t len)
{
    const struct slice from = {text, len};
    if (tcp_send(&cx, peer->conn, &from, 1, 0) != len)
        abort();
}

static void take(uint32_t len)
{
    const struct slice to = {sink_text, len};
    if (tcp_recv(&cx, peer->conn, &to, 1, 0, 0) != len)
        abort();
}

static void later(nsec_t t)
{
    cx.now += t;
}

/* A connection from a peer of its own. */
static void connect_from(struct peer *p, uint32_t number)
{
    *p = (struct peer){
        .addr = REMOTE + number / 50000, .port = (uint16_t)(10000 + number % 50000), .seq = number};
    p->lport = SERVER_PORT;
    peer = p;
    struct frame_in f = segment(TCP_SYN, 0);
    input(&f);
    later(PATH_DELAY);
    f = segment(TCP_ACK, 0);
    input(&f);
    p->conn = tcp_accept(&cx, listener);
    if (p->conn == NULL)
        abort();
    tcp_opts(p->conn)->nodelay = true;
    leave();
}

/* ---- the paths ---- */

static void acknowledge(void)
{
    later(PATH_DELAY);
    const struct frame_in f = segment(TCP_ACK, 0);
    input(&f);
}

static void send_of(uint32_t len)
{
    later(NSEC_PER_MSEC);
    begin();
    give(len);
    leave();
    end();
    acknowledge();
}

static void send_64(void)
{
    send_of(SMALL);
}

static void send_64k(void)
{
    send_of(LARGE);
}

static void ack_64k(void)
{
    later(NSEC_PER_MSEC);
    give(LARGE);
    leave();
    later(PATH_DELAY);
    const struct frame_in f = segment(TCP_ACK, 0);
    begin();
    input(&f);
    leave();
    end();
}

static void receive_of(uint32_t len)
{
    later(NSEC_PER_MSEC);
    const struct frame_in f = segment(TCP_ACK | TCP_PSH, len);
    begin();
    input(&f);
    take(len);
    leave();
    end();
}

static void receive_64(void)
{
    receive_of(SMALL);
}

static void receive_64k(void)
{
    receive_of(LARGE);
}

/* A server's: the request carries the ACK of the answer before it. */
static void round_trip(void)
{
    later(PATH_DELAY);
    const struct frame_in f = segment(TCP_ACK | TCP_PSH, SMALL);
    begin();
    input(&f);
    take(SMALL);
    leave();
    give(SMALL);
    leave();
    end();
}

/* As much as the send buffer and the window take, until both have grown. */
static void open_windows(void)
{
    const struct slice from = {text, LARGE};
    for (unsigned i = 0; i < WARM_UP; i++) {
        tcp_send(&cx, peer->conn, &from, 1, 0);
        leave();
        acknowledge();
    }
}

/* SYN, ACK, accept(), close(), and what the peer's FIN leaves: TIME_WAIT. */
static void accept_close(void)
{
    static uint32_t number = 2000000;
    struct peer p = {.lport = SERVER_PORT, .addr = REMOTE + 0x1000, .seq = number};
    p.port = (uint16_t)(1024 + number++ % 60000);
    peer = &p;
    later(NSEC_PER_MSEC);
    struct frame_in f = segment(TCP_SYN, 0);
    begin();
    input(&f);
    end();
    later(PATH_DELAY);
    f = segment(TCP_ACK, 0);
    begin();
    input(&f);
    p.conn = tcp_accept(&cx, listener);
    if (p.conn == NULL)
        abort();
    leave();
    tcp_close(&cx, p.conn);
    leave();
    end();
    later(PATH_DELAY);
    f = segment(TCP_ACK | TCP_FIN, 0);
    begin();
    input(&f);
    leave();
    end();
}

/* connect(), SYN-ACK, close(), FIN. */
static void connect_close(void)
{
    static uint32_t number = 4000000;
    struct peer p = {.addr = REMOTE + 0x2000, .port = 9000, .seq = number};
    const uint16_t lport = (uint16_t)(1024 + number++ % 60000);
    const struct endpoint local = {.addr = ip_addr_from_v4(htobe32(LOCAL)), .port = lport};
    const struct endpoint remote = {.addr = ip_addr_from_v4(htobe32(p.addr)), .port = p.port};
    struct ip_path path = {.netif = netif, .mac_known = true, .next_hop = remote.addr};
    for (unsigned i = 0; i < 6; i++)
        path.mac[i] = peer_mac[i];
    peer = &p;
    later(NSEC_PER_MSEC);
    begin();
    p.conn = tcp_open(&cx);
    if (p.conn == NULL || tcp_connect(&cx, p.conn, &local, &remote, &path) != 0)
        abort();
    leave();
    end();
    later(PATH_DELAY);
    struct frame_in f = segment(TCP_SYN | TCP_ACK, 0);
    begin();
    input(&f);
    leave();
    tcp_close(&cx, p.conn);
    leave();
    end();
    later(PATH_DELAY);
    f = segment(TCP_ACK | TCP_FIN, 0);
    begin();
    input(&f);
    leave();
    end();
}

static const struct path {
    const char *name;
    void (*run)(void);
    uint32_t idle; /* other connections that are open */
} paths[] = {
    {"send-64", send_64, 0},
    {"receive-64", receive_64, 0},
    {"round-trip-64", round_trip, 0},
    {"send-64k", send_64k, 0},
    {"ack-64k", ack_64k, 0},
    {"receive-64k", receive_64k, 0},
    {"accept-close", accept_close, 0},
    {"connect-close", connect_close, 0},
    {"round-trip-64-idle-1000", round_trip, 1000},
    {"round-trip-64-idle-100000", round_trip, 100000},
};

/* ---- the world ---- */

static void make_stack(void)
{
    struct stack_config config_ = {.port_min = 32768, .port_max = 60999};
    for (unsigned i = 0; i < sizeof(config_.seed); i++)
        config_.seed[i] = (uint8_t)(i * 17);
    static char *base;
    if (base == NULL)
        base = mmap(NULL, ARENA + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    else
        madvise(base, ARENA + ARENA_SPAN_SIZE, MADV_DONTNEED);
    if (base == MAP_FAILED)
        abort();
    const uintptr_t at =
        ((uintptr_t)base + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1);
    cx = (struct stack_cx){.ops = &ops, .now = 1000 * NSEC_PER_SEC};
    cx.st = stack_init((void *)at, ARENA, 0, &config_, cx.now);
    if (cx.st == NULL)
        abort();
    struct netif nif = {.up = true,
                        .kind = NETIF_ETHERNET,
                        .ifindex = 7,
                        .mtu = 1500,
                        .gso = true,
                        .csum_offload = true,
                        .naddrs = 1};
    memcpy(nif.mac, our_mac, 6);
    nif.addrs[0].addr = ip_addr_from_v4(htobe32(LOCAL));
    nif.addrs[0].prefix = 96 + 8;
    netif = (uint8_t)stack_add_netif(cx.st, &nif);
    struct tcp_opts opts;
    tcp_opts_init(&opts, cx.st);
    const struct tcp_listen_args args = {
        .local = {.addr = nif.addrs[0].addr, .port = SERVER_PORT}, .backlog = 100, .opts = &opts};
    if (tcp_listen(&cx, &args, &listener) != 0)
        abort();
    leave();
}

static void measure(const struct path *p)
{
    struct peer busy, idle;
    make_stack();
    for (uint32_t i = 0; i < p->idle; i++) {
        connect_from(&idle, i);
        tcp_opts(idle.conn)->keepalive = true; /* a timer for each */
        tcp_opts_changed(&cx, idle.conn);
    }
    connect_from(&busy, p->idle);
    open_windows();
    cx.trace = config.trace;
    for (unsigned i = 0; i < WARM_UP; i++) {
        peer = &busy;
        p->run();
    }
    copied = frames = 0;
    count_start();
    for (unsigned i = 0; i < OPERATIONS; i++) {
        peer = &busy;
        p->run();
    }
    count_done(p->name, OPERATIONS);
    count_stop();
    printf(" %llu %llu\n", (unsigned long long)copied, (unsigned long long)frames);
}

int main(int argc, char **argv)
{
    const bool list = argc == 2 && strcmp(argv[1], "--list") == 0;
    config_read(environ);
    trace_open();
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        bool wanted = argc == 1;
        for (int a = 1; a < argc; a++)
            wanted |= strcmp(argv[a], paths[i].name) == 0;
        if (list)
            puts(paths[i].name);
        else if (wanted)
            measure(&paths[i]);
    }
    trace_close();
    return 0;
}
