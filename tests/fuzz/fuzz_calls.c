/*
 * libFuzzer target: sequences of calls. Connections of the stack with itself (over the loopback
 * inside it, so that both ends are calls) and with a peer that answers as it should, or not; ECN,
 * Fast Open, pacing and all congestion controls; time passes in between.
 */
#include "tests/fuzz/world.h"

#include <stdlib.h>

#define CONNS 6

static struct tcp_conn *conns[CONNS];
static struct tcp_listener *listener;
static uint8_t bytes[40000];

static void connect_one(struct fuzz_input *in, unsigned i)
{
    const uint32_t how = fuzz_take(in, 1);
    const struct ip_addr host = ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP));
    const struct ip_addr peer = ip_addr_from_v4(__builtin_bswap32(FUZZ_PEER_IP));
    const bool inside = how & 1;
    const struct fuzz_flow *f = &F.flows[how >> 1 & 3];
    /* now and then to itself: one connection that opens simultaneously with itself */
    const uint16_t lport = inside ? (uint16_t)(6000 + (how >> 1 & 7)) : f->hport;
    const struct endpoint local = {host, lport};
    const struct endpoint remote = {inside ? host : peer, !inside             ? f->pport
                                                          : (how & 0xf0) != 0 ? FUZZ_LISTEN
                                                                              : lport};
    const struct ip_path path = {.netif = inside ? NETIF_LOOP : F.netif, .next_hop = remote.addr};
    const struct slice s = {bytes, fuzz_take(in, 2) % 5000};
    struct tcp_opts *o = tcp_opts(conns[i]);
    if (how & 16)
        o->fastopen_connect = true;
    if (how & 32)
        tcp_defer(conns[i], how & 64);
    if (how & 16 && tcp_state(conns[i]) == TCP_CLOSED && s.len)
        tcp_send_ahead(&F.cx, conns[i], &remote.addr, &path, &s, 1);
    tcp_connect(&F.cx, conns[i], &local, &remote, &path);
}

static void set_options(struct fuzz_input *in, struct tcp_conn *c)
{
    struct tcp_opts *o = tcp_opts(c);
    const uint32_t bits = fuzz_take(in, 2), v = fuzz_take(in, 2);
    o->nodelay = bits & 1;
    o->cork = bits & 2;
    o->oobinline = bits & 4;
    o->keepalive = bits & 8;
    o->linger = bits & 16;
    o->linger_secs = (bits & 32) != 0;
    o->pmtu_dont = bits & 64;
    switch (bits >> 8 & 15) {
    case 0:
        o->rcvbuf = 2304 + v;
        o->rcvbuf_locked = true;
        break;
    case 1:
        o->sndbuf = 4608 + v;
        o->sndbuf_locked = true;
        break;
    case 2:
        o->max_pacing = 1 + v * 16;
        break;
    case 3:
        o->window_clamp = v;
        break;
    case 4:
        o->rcvlowat = v ? v : 1;
        break;
    case 5:
        o->notsent_lowat = v;
        break;
    case 6:
        o->user_timeout = v;
        break;
    case 7:
        o->user_mss = (uint16_t)(v ? 88 + v % 32679 : 0);
        break;
    case 8:
        o->keepidle = 1 + v % 100;
        o->keepintvl = 1 + v % 7;
        o->keepcnt = (uint8_t)(1 + v % 10);
        break;
    case 9:
        o->linger2 = (int32_t)(v % 100) - 10;
        break;
    case 10:
        o->tos = (uint8_t)(v & 0xfc);
        break;
    case 11:
        o->syncnt = (uint8_t)(1 + v % 10);
        break;
    default:
        break;
    }
    tcp_opts_changed(&F.cx, c);
}

static void look(struct tcp_conn *c)
{
    struct tcp_view v;
    struct endpoint e;
    tcp_view(&F.cx, c, &v);
    if (tcp_poll(c) == 0xffffffffu || tcp_inq(c) > tcp_unread(c) + sizeof(bytes) * 1000)
        abort();
    if (tcp_outq_unsent(c) > tcp_outq(c))
        abort();
    (void)tcp_local(c, &e);
    (void)tcp_remote(c, &e);
    (void)tcp_take_error(c);
    (void)tcp_sent_all(c);
    (void)tcp_at_mark(c);
    (void)tcp_path_mtu(F.cx.st, c);
}

static void call(struct fuzz_input *in, uint32_t op)
{
    const unsigned i = fuzz_take(in, 1) % CONNS;
    struct tcp_conn *c = conns[i];
    if (!c) {
        conns[i] = op & 1 ? tcp_accept(&F.cx, listener) : tcp_open(&F.cx);
        if (conns[i] && !(op & 1))
            connect_one(in, i);
        return;
    }
    const uint32_t bits = fuzz_take(in, 1);
    const struct slice s = {bytes, fuzz_take(in, 2) % sizeof(bytes)};
    switch (op % 14) {
    case 0:
    case 1:
    case 2:
        tcp_send(&F.cx, c, &s, 1, bits & (TCP_SEND_MORE | TCP_SEND_OOB));
        break;
    case 3:
    case 4:
        tcp_recv(&F.cx, c, &s, 1, bits & 7, bits & TCP_RECV_PEEK ? bits >> 3 : 0);
        break;
    case 5:
        tcp_shutdown(&F.cx, c, (enum tcp_how)(bits % 3));
        break;
    case 6:
        tcp_close(&F.cx, c);
        conns[i] = NULL;
        break;
    case 7:
        if (bits & 1)
            tcp_disconnect(&F.cx, c);
        else
            connect_one(in, i);
        break;
    case 8:
    case 9:
        set_options(in, c);
        break;
    case 10:
        tcp_set_cc(&F.cx, c, (uint8_t)(bits % (TCP_CC_COUNT + 1)));
        break;
    case 11:
        tcp_push(&F.cx, c);
        tcp_quickack(&F.cx, c, bits & 1);
        break;
    case 12:
        tcp_listener_set_backlog(listener, (int)(bits & 7));
        break;
    default:
        look(c);
    }
}

/* The peer outside acknowledges, sends, ends, marks; with luck as it should. */
static void answer(struct fuzz_input *in)
{
    static uint8_t frame[FRAME_MAX];
    static const uint8_t kinds[] = {TCP_SYN | TCP_ACK, TCP_ACK,           TCP_ACK | TCP_PSH,
                                    TCP_ACK,           TCP_ACK | TCP_FIN, TCP_RST | TCP_ACK,
                                    TCP_SYN,           TCP_ACK | TCP_URG};
    const uint32_t how = fuzz_take(in, 2);
    const struct fuzz_flow *f = &F.flows[how & 3];
    struct wire_seg s = {.src = FUZZ_PEER_IP,
                         .dst = FUZZ_HOST_IP,
                         .sport = f->pport,
                         .dport = f->hport,
                         .flags = kinds[how >> 2 & 7],
                         .ack = f->host_nxt,
                         .win = how & 32 ? 65535 : (uint16_t)fuzz_take(in, 2),
                         .tos = how >> 6 & 3,
                         .text = bytes};
    s.seq = f->peer_nxt - !!(s.flags & TCP_SYN);
    if (how & 256)
        s.flags |= TCP_ECE;
    if (how & 512)
        s.flags |= TCP_CWR;
    if (how & 1024)
        s.ack = f->host_una + fuzz_take(in, 2);
    if (s.flags & TCP_PSH || how & 2048)
        s.len = fuzz_take(in, 2) % 1461;
    if (s.flags & TCP_URG)
        s.urg = (uint16_t)fuzz_take(in, 1);
    if (s.flags & TCP_SYN) {
        memcpy(s.opts, (uint8_t[]){2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7}, 12);
        s.optlen = 12;
    }
    const size_t len = wire_build_tcp(frame, &s, fuzz_host_mac, fuzz_peer_mac);
    fuzz_input(frame, (uint32_t)len, how & 4096, 0);
}

static void start(struct fuzz_input *in)
{
    const uint32_t how = fuzz_take(in, 2);
    fuzz_start_with(&(struct stack_config){.own_address = how & 1,
                                           .loopback = true,
                                           .fastopen = how >> 1 & 3,
                                           .ecn = (uint8_t)((how >> 3 & 3) % 3),
                                           .cc = (uint8_t)((how >> 5) % TCP_CC_COUNT),
                                           .tuning = {.no_sack = how & 512,
                                                      .no_timestamps = how & 1024,
                                                      .no_wscale = how & 2048,
                                                      .mtu_probing = how >> 12 & 3}},
                    how & 128);
    F.nflows = FUZZ_FLOWS;
    for (unsigned i = 0; i < FUZZ_FLOWS; i++)
        F.flows[i] =
            (struct fuzz_flow){.hport = i < FUZZ_FLOWS - 1 ? (uint16_t)(5000 + i) : FUZZ_LISTEN,
                               .pport = (uint16_t)(7000 + i),
                               .peer_nxt = 0xfffff000u};
    struct tcp_opts o;
    tcp_opts_init(&o, F.cx.st);
    o.fastopen = how & 256 ? 2 : 0;
    const struct tcp_listen_args args = {
        .local = {.port = FUZZ_LISTEN}, .backlog = how >> 13 & 3, .opts = &o};
    tcp_listen(&F.cx, &args, &listener);
    memset(conns, 0, sizeof(conns));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    start(&in);
    for (unsigned n = 0; in.p < in.end && n < 300; n++) {
        const uint32_t op = fuzz_take(&in, 1);
        if (op < 168)
            call(&in, op);
        else if (op < 232)
            answer(&in);
        else
            fuzz_run((nsec_t)(1 + fuzz_take(&in, 1)) << (10 + op % 24));
        fuzz_check();
    }
    fuzz_end(conns, CONNS, listener);
    return 0;
}
