/*
 * libFuzzer target: segments whose numbers are right and whose options are whatever comes: of SYNs
 * to a listener with Fast Open, of SYN-ACKs to a connection that asked for a cookie or used one, of
 * segments of an established connection. Lengths are odd, options repeat and end early. Other than
 * in fuzz_wire the engine acts on them.
 */
#include "stack/tcp/conn.h"
#include "tests/fuzz/world.h"

#include <stdlib.h>

enum { SYN_FLOW, CONNECT_FLOW, OPEN_FLOW };

static struct tcp_conn *conns[FUZZ_FLOWS];
static struct tcp_listener *listener;

static void connect_one(unsigned i, bool ahead)
{
    const struct ip_addr peer = ip_addr_from_v4(__builtin_bswap32(FUZZ_PEER_IP));
    const struct endpoint local = {ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP)),
                                   F.flows[i].hport};
    const struct endpoint remote = {peer, F.flows[i].pport};
    const struct ip_path path = {.netif = F.netif, .next_hop = peer};
    static uint8_t text[3000];
    const struct slice s = {text, sizeof(text)};
    conns[i] = tcp_open(&F.cx);
    if (!conns[i])
        return;
    tcp_opts(conns[i])->fastopen_connect = true;
    if (ahead)
        tcp_send_ahead(&F.cx, conns[i], &peer, &path, &s, 1);
    tcp_connect(&F.cx, conns[i], &local, &remote, &path);
    stack_flush(&F.cx);
}

static void segment(struct fuzz_input *in, unsigned which, uint8_t flags)
{
    static uint8_t frame[FRAME_MAX], text[2000];
    struct fuzz_flow *f = &F.flows[which];
    const uint32_t how = fuzz_take(in, 1);
    struct wire_seg s = {.src = FUZZ_PEER_IP,
                         .dst = FUZZ_HOST_IP,
                         .sport = f->pport,
                         .dport = f->hport,
                         .seq = f->peer_nxt - !!(flags & TCP_SYN),
                         .ack = how & 1 ? f->host_una + 1 : f->host_nxt,
                         .flags = flags,
                         .win = 65535,
                         .tos = how >> 1 & 3,
                         .text = text,
                         .len = how & 8 ? fuzz_take(in, 2) % 1461 : 0};
    if (how & 16)
        s.flags |= TCP_ECE | TCP_CWR;
    const unsigned n = fuzz_take(in, 1) % (sizeof(s.opts) + 1);
    for (unsigned i = 0; i < n; i++)
        s.opts[i] = (uint8_t)fuzz_take(in, 1);
    s.optlen = (n + 3) & ~3u;
    const size_t len = wire_build_tcp(frame, &s, fuzz_host_mac, fuzz_peer_mac);
    fuzz_input(frame, (uint32_t)len, how & 32, 0);
}

/* A SYN with a cookie of ours that is right, or nearly. */
static void valid_cookie(struct fuzz_input *in)
{
    const struct ip_addr host = ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP));
    const struct ip_addr peer = ip_addr_from_v4(__builtin_bswap32(FUZZ_PEER_IP));
    /* what segment() takes: how, the text's length, that of the options */
    uint8_t program[16] = {8, 0, (uint8_t)fuzz_take(in, 1), 12, 34, 2 + TCP_COOKIE_LEN};
    tcp_fastopen_cookie(listener, &peer, &host, program + 6);
    program[6 + fuzz_take(in, 1) % 10] ^= (uint8_t)fuzz_take(in, 1);
    struct fuzz_input again = {program, program + sizeof(program)};
    segment(&again, SYN_FLOW, TCP_SYN);
}

static void step(struct fuzz_input *in)
{
    const uint32_t op = fuzz_take(in, 1);
    const unsigned which = op >> 4 & 3;
    switch (op & 7) {
    case 0:
        segment(in, SYN_FLOW, TCP_SYN);
        break;
    case 1:
        segment(in, which, TCP_SYN | TCP_ACK);
        break;
    case 2:
    case 3:
        segment(in, which, TCP_ACK);
        break;
    case 4:
        valid_cookie(in);
        break;
    case 5:
        if (conns[which]) {
            tcp_close(&F.cx, conns[which]);
            conns[which] = NULL;
        } else if (which == SYN_FLOW) {
            conns[which] = tcp_accept(&F.cx, listener);
        } else {
            connect_one(which, op & 128);
        }
        break;
    case 6:
        fuzz_run((nsec_t)(1 + fuzz_take(in, 1)) << (14 + fuzz_take(in, 1) % 20));
        break;
    default:
        if (conns[which]) {
            static uint8_t text[9000];
            const struct slice s = {text, fuzz_take(in, 2) % sizeof(text)};
            tcp_send(&F.cx, conns[which], &s, 1, 0);
        }
    }
    fuzz_check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    const uint32_t how = fuzz_take(&in, 1);
    fuzz_start_with(&(struct stack_config){.own_address = how & 1,
                                           .fastopen = how >> 1 & 3,
                                           .ecn = (uint8_t)((how >> 3) % (STACK_ECN_MAX + 1)),
                                           .cc = (uint8_t)((how >> 5) % TCP_CC_COUNT)},
                    how & 128);
    F.nflows = FUZZ_FLOWS;
    for (unsigned i = 0; i < FUZZ_FLOWS; i++)
        F.flows[i] = (struct fuzz_flow){.hport = i == SYN_FLOW ? FUZZ_LISTEN : (uint16_t)(5000 + i),
                                        .pport = (uint16_t)(7000 + i),
                                        .peer_nxt = 0xfffff000u};
    struct tcp_opts o;
    tcp_opts_init(&o, F.cx.st);
    o.fastopen = 3;
    const struct tcp_listen_args args = {
        .local = {.port = FUZZ_LISTEN}, .backlog = how >> 6, .opts = &o};
    tcp_listen(&F.cx, &args, &listener);
    memset(conns, 0, sizeof(conns));
    connect_one(CONNECT_FLOW, false);
    for (unsigned n = 0; in.p < in.end && n < 200; n++)
        step(&in);
    fuzz_end(conns, FUZZ_FLOWS, listener);
    return 0;
}
