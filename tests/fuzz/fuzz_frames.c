/*
 * libFuzzer target: a listener and connections; the input is a program of segments that nearly fit
 * (numbers are chosen relative to what the host expects, checksums are put right), calls and
 * delays, so that the fuzzer gets behind the first checks. What must hold is in world.c.
 */
#include "tests/fuzz/world.h"

#include <stdlib.h>

#define CONNS 4

static struct tcp_conn *conns[CONNS];
static struct tcp_listener *listener;

/* Around `at`: near it, at the edges of the window, far away. */
static uint32_t near(struct fuzz_input *in, uint32_t at)
{
    uint32_t how = fuzz_take(in, 1);
    if (how < 128)
        return at;
    if (how < 192)
        return at + (uint32_t)(int8_t)fuzz_take(in, 1);
    if (how < 240)
        return at + (uint32_t)(int16_t)fuzz_take(in, 2);
    return at + fuzz_take(in, 4);
}

/* Accurate ECN (RFC 9768) is on. */
static bool accurate(void)
{
    return F.cx.st->config.ecn >= STACK_ECN_ACCURATE;
}

static unsigned put_options(struct fuzz_input *in, const struct fuzz_flow *f, uint8_t *o, bool syn)
{
    unsigned n = 0, what = fuzz_take(in, 1);
    if (syn && what & 1) {
        memcpy(o + n, (uint8_t[]){2, 4, 0, 0}, 4);
        put_be16(o + n + 2, (uint16_t)fuzz_take(in, 2));
        n += 4;
    }
    if (syn && what & 2) {
        memcpy(o + n, (uint8_t[]){1, 3, 3, (uint8_t)fuzz_take(in, 1)}, 4);
        n += 4;
    }
    if (syn && what & 4) {
        memcpy(o + n, (uint8_t[]){4, 2, 1, 1}, 4);
        n += 4;
    }
    if (what & 8) {
        memcpy(o + n, (uint8_t[]){1, 1, 8, 10}, 4);
        put_be32(o + n + 4, (uint32_t)(F.now / NSEC_PER_MSEC) + (what & 64 ? near(in, 0) : 0));
        put_be32(o + n + 8, f->ts);
        n += 12;
    }
    if (!syn && what & 16) {
        unsigned blocks = 1 + fuzz_take(in, 1) % 3;
        if (n + 4 + 8 * blocks <= 40) {
            memcpy(o + n, (uint8_t[]){1, 1, 5, (uint8_t)(2 + 8 * blocks)}, 4);
            for (unsigned i = 0; i < 2 * blocks; i++)
                put_be32(o + n + 4 + 4 * i, f->host_una + fuzz_take(in, 2) - 16);
            n += 4 + 8 * blocks;
        }
    }
    if (accurate() && what & 128 && n <= 28) { /* either order, any number of counters */
        const uint32_t how = fuzz_take(in, 1);
        const unsigned len = 2 + 3 * (how >> 1 & 3);
        memset(o + n, 1, 12);
        o[n] = how & 1 ? 172 : 174;
        o[n + 1] = (uint8_t)(len < 11 ? len : 11);
        for (unsigned i = 2; i < o[n + 1]; i++)
            o[n + i] = (uint8_t)(how & 8 ? fuzz_take(in, 1) : i % 3 == 1);
        n += 12;
    }
    if (what & 32 && n <= 36) {
        put_be32(o + n, fuzz_take(in, 4));
        n += 4;
    }
    return n;
}

static void segment(struct fuzz_input *in)
{
    static uint8_t frame[FRAME_MAX], text[16384];
    static const uint8_t usual[] = {TCP_ACK,           TCP_ACK | TCP_PSH, TCP_SYN,
                                    TCP_ACK | TCP_FIN, TCP_SYN | TCP_ACK, TCP_RST,
                                    TCP_ACK,           TCP_ACK | TCP_URG};
    struct fuzz_flow *f = &F.flows[fuzz_take(in, 1) % F.nflows];
    uint32_t how = fuzz_take(in, 1);
    struct wire_seg s = {
        .src = FUZZ_PEER_IP,
        .dst = FUZZ_HOST_IP,
        .sport = f->pport,
        .dport = f->hport,
        .flags = how < 224 ? usual[how % 8] : (uint8_t)fuzz_take(in, 1),
        .text = text,
    };
    if (accurate()) {
        const uint32_t ecn = fuzz_take(in, 1);
        s.flags ^= (uint16_t)((ecn & 7) << 6);
        s.tos = ecn >> 3 & 3;
    }
    s.seq = near(in, f->peer_nxt);
    s.ack = near(in, fuzz_take(in, 1) & 1 ? f->host_nxt : f->host_una + fuzz_take(in, 2));
    s.win = how & 16 ? 65535 : (uint16_t)fuzz_take(in, 2);
    s.urg = s.flags & TCP_URG ? (uint16_t)fuzz_take(in, 2) : 0;
    s.len = how & 8 ? fuzz_take(in, 2) % (how & 32 ? sizeof(text) : 1461) : 0;
    s.optlen = put_options(in, f, s.opts, s.flags & TCP_SYN);
    size_t len = wire_build_tcp(frame, &s, fuzz_host_mac, fuzz_peer_mac);
    if (s.flags & TCP_ACK && (int32_t)(s.ack - f->host_una) > 0 &&
        (int32_t)(s.ack - f->host_nxt) <= 0)
        f->host_una = s.ack;
    if (how & 64 && fuzz_take(in, 1) < 32) { /* one byte of the headers, checksums right again */
        frame[L2_LEN + fuzz_take(in, 1) % 60] = (uint8_t)fuzz_take(in, 1);
        wire_fix_csums(frame, len);
    }
    fuzz_input(frame, (uint32_t)len, s.len > 1460, s.len > 1460 ? 1460 : 0);
}

static void icmp(struct fuzz_input *in)
{
    uint8_t quoted[64], frame[256];
    const struct fuzz_flow *f = &F.flows[fuzz_take(in, 1) % F.nflows];
    struct wire_seg s = {.src = FUZZ_HOST_IP,
                         .dst = FUZZ_PEER_IP,
                         .sport = f->hport,
                         .dport = f->pport,
                         .seq = near(in, f->host_una)};
    wire_build_tcp(quoted, &s, fuzz_peer_mac, fuzz_host_mac);
    size_t n =
        wire_build_icmp(frame, ip4(10, 0, 0, 254), FUZZ_HOST_IP, (uint8_t)(fuzz_take(in, 1) % 13),
                        (uint8_t)(fuzz_take(in, 1) % 16), fuzz_take(in, 2), quoted + L2_LEN,
                        fuzz_take(in, 1) % 29, fuzz_host_mac, fuzz_peer_mac);
    fuzz_input(frame, (uint32_t)n, false, 0);
}

static void connect_one(unsigned i)
{
    struct ip_addr peer = ip_addr_from_v4(__builtin_bswap32(FUZZ_PEER_IP));
    struct endpoint local = {ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP)),
                             F.flows[i % 2].hport};
    struct endpoint remote = {peer, F.flows[i % 2].pport};
    struct ip_path path = {.netif = F.netif, .next_hop = peer};
    tcp_connect(&F.cx, conns[i], &local, &remote, &path);
}

static void call(struct fuzz_input *in)
{
    static uint8_t buf[20000];
    unsigned i = fuzz_take(in, 1) % CONNS, what = fuzz_take(in, 1);
    if (!conns[i]) {
        conns[i] = what & 1 ? tcp_accept(&F.cx, listener) : tcp_open(&F.cx);
        if (conns[i] && !(what & 1))
            connect_one(i);
        return;
    }
    struct slice s = {buf, fuzz_take(in, 2) % sizeof(buf)};
    switch (what % 12) {
    case 0:
    case 1:
    case 2:
        tcp_send(&F.cx, conns[i], &s, 1, what >> 4 & 3);
        break;
    case 3:
    case 4:
        tcp_recv(&F.cx, conns[i], &s, 1, what >> 4 & 7, 0);
        break;
    case 5:
        tcp_shutdown(&F.cx, conns[i], (enum tcp_how)(what >> 4 & 1 ? TCP_SHUT_WR : TCP_SHUT_RD));
        break;
    case 6:
        tcp_close(&F.cx, conns[i]);
        conns[i] = NULL;
        break;
    case 7:
        tcp_disconnect(&F.cx, conns[i]);
        break;
    case 8:
        connect_one(i);
        break;
    case 9: {
        struct tcp_opts *o = tcp_opts(conns[i]);
        o->nodelay = what & 16;
        o->cork = what & 32;
        o->keepalive = what & 64;
        o->keepidle = 1 + fuzz_take(in, 1);
        o->oobinline = what & 128;
        if (what & 16)
            o->user_timeout = fuzz_take(in, 2);
        if (what & 32) {
            o->rcvbuf = 2304 + fuzz_take(in, 2);
            o->rcvbuf_locked = true;
        }
        tcp_opts_changed(&F.cx, conns[i]);
        break;
    }
    case 10:
        tcp_quickack(&F.cx, conns[i], what & 16);
        break;
    default: {
        struct tcp_view v;
        tcp_view(&F.cx, conns[i], &v);
        (void)tcp_poll(conns[i]);
        (void)tcp_take_error(conns[i]);
    }
    }
}

static void start(struct fuzz_input *in)
{
    uint32_t how = fuzz_take(in, 1);
    fuzz_start_with(&(struct stack_config){.own_address = !(how & 1),
                                           .ecn = how & 128 ? STACK_ECN_ACCURATE : STACK_ECN_OFF},
                    how & 2);
    F.nflows = 4;
    F.places = how & 8;
    F.patient = how & 64;
    for (unsigned i = 0; i < 4; i++)
        F.flows[i] = (struct fuzz_flow){.hport = i < 2 ? (uint16_t)(5000 + i) : FUZZ_LISTEN,
                                        .pport = (uint16_t)(7000 + i),
                                        .peer_nxt = 0xfffff000u};
    struct tcp_opts o;
    tcp_opts_init(&o, F.cx.st);
    if (how & 4)
        o.defer_accept = 3;
    struct tcp_listen_args args = {
        .local = {.port = FUZZ_LISTEN}, .backlog = how >> 4 & 3, .opts = &o};
    tcp_listen(&F.cx, &args, &listener);
    memset(conns, 0, sizeof(conns));
    /* one that is established already */
    conns[0] = tcp_open(&F.cx);
    connect_one(0);
    struct fuzz_flow *f = &F.flows[0];
    static uint8_t frame[200];
    struct wire_seg s = {.src = FUZZ_PEER_IP,
                         .dst = FUZZ_HOST_IP,
                         .sport = f->pport,
                         .dport = f->hport,
                         .seq = f->peer_nxt - 1,
                         .ack = f->host_nxt,
                         .flags = TCP_SYN | TCP_ACK | (accurate() ? TCP_CWR : 0),
                         .win = 65535,
                         .optlen = 8,
                         .opts = {2, 4, 5, 180, 4, 2, 1, 1}};
    size_t n = wire_build_tcp(frame, &s, fuzz_host_mac, fuzz_peer_mac);
    fuzz_input(frame, (uint32_t)n, false, 0);
    f->host_una = f->host_nxt;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    start(&in);
    for (unsigned n = 0; in.p < in.end && n < 500; n++) {
        uint32_t op = fuzz_take(&in, 1);
        if (op < 160)
            segment(&in);
        else if (op < 220)
            call(&in);
        else if (op < 250)
            fuzz_run((nsec_t)(1 + fuzz_take(&in, 1)) << (10 + op % 30));
        else
            icmp(&in);
        fuzz_check();
    }
    fuzz_end(conns, CONNS, listener);
    return 0;
}
