/*
 * libFuzzer target: sequences of calls. Connections of the stack with itself (over the loopback
 * inside it, so that both ends are calls) and with a peer that answers as it should, or not; ECN,
 * Fast Open, pacing and all congestion controls, records and the error queue, listeners that share
 * a port; time passes in between, and processes die.
 */
#include "stack/tcp/conn.h"
#include "tests/fuzz/world.h"

#include <stdlib.h>

#define CONNS       6
#define OTHERS_PORT 81

static struct tcp_conn *conns[CONNS];
static struct tcp_listener *listener;
static struct tcp_listener *others[2]; /* of OTHERS_PORT, or NULL */
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
    const uint16_t port = others[how >> 2 & 1] != NULL ? OTHERS_PORT : FUZZ_LISTEN;
    const struct endpoint remote = {inside ? host : peer, !inside             ? f->pport
                                                          : (how & 0xf0) != 0 ? port
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
    tcp_expect_send(conns[i], how & 128);
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
    fuzz_expect(v.busy >= v.rwnd_limited + v.sndbuf_limited, "busy is the sum");
    fuzz_expect(tcp_poll(c) != 0xffffffffu && tcp_inq(c) <= tcp_unread(c) + sizeof(bytes) * 1000,
                "readiness, or what is unread");
    fuzz_expect(tcp_outq_unsent(c) <= tcp_outq(c), "unsent is part of what is out");
    fuzz_expect(tcp_is_conn(F.cx.st, c) && tcp_is_held(c) && tcp_owner(c) == NULL,
                "held by nobody else");
    (void)tcp_deferred(c);
    (void)tcp_local(c, &e);
    (void)tcp_remote(c, &e);
    const int pending = tcp_peek_error(c);
    fuzz_expect(tcp_take_error(c) == pending && tcp_peek_error(c) == 0, "the pending error, once");
    (void)tcp_sent_all(c);
    (void)tcp_at_mark(c);
    (void)tcp_has_mark(c);
    (void)tcp_reading_shut(c);
    (void)tcp_writing_shut(c);
    (void)tcp_send_room(c);
    (void)tcp_is_inside(c);
    (void)tcp_number(c);
    (void)tcp_mss(c);
    (void)tcp_path_mtu(F.cx.st, c);
    struct tcp_isns isns = {0};
    (void)tcp_flow_isns(tcp_flow(c), &isns);
    fuzz_expect(c->extra == NULL || tcp_extra_whole(c->extra), "marks and reports");
}

static void see_conn(struct tcp_conn *c, void *count)
{
    fuzz_expect(tcp_is_conn(F.cx.st, c), "not a connection");
    ++*(uint32_t *)count;
}

static void see_listener(struct tcp_listener *l, void *count)
{
    uint32_t syns, accepts, backlog;
    fuzz_expect(tcp_is_listener(F.cx.st, l), "not a listener");
    tcp_listener_queues(l, &syns, &accepts, &backlog);
    fuzz_expect((tcp_listener_poll(l) & TCP_EV_IN) != 0 || accepts == 0,
                "a listener with connections is readable");
    fuzz_expect(tcp_port_in_use(F.cx.st, tcp_listener_port(l)), "a listener's port is in use");
    fuzz_expect(tcp_listener_owner(l) == NULL, "a listener's owner");
    (void)tcp_listener_number(l);
    (void)tcp_listener_flow(l);
    ++*(uint32_t *)count;
}

static void look_around(void)
{
    uint32_t n = 0, listeners = 0;
    tcp_each_conn(F.cx.st, see_conn, &n);
    tcp_each_listener(F.cx.st, see_listener, &listeners);
    fuzz_expect(n == F.cx.st->tcp.conns.live, "connections counted");
    fuzz_expect(listeners == 1u + (others[0] != NULL) + (others[1] != NULL), "listeners counted");
    fuzz_expect(tcp_orphans_unsent(F.cx.st) <= tcp_orphans(F.cx.st), "orphans unsent");
    fuzz_expect(tcp_orphans(F.cx.st) <= tcp_connections(F.cx.st), "orphans are connections");
    (void)tcp_time_waits(F.cx.st);
}

/* A second and a third listener share a port, with numbers by which they could be elected. */
static void listen_or_not(unsigned i, uint32_t bits)
{
    static const uint8_t key[TCP_FASTOPEN_KEY_LEN] = "another one";
    if (others[i] != NULL) {
        tcp_listener_close(&F.cx, others[i]);
        others[i] = NULL;
        fuzz_expect(tcp_listener_member(F.cx.st, OTHERS_PORT, 7 + i) == NULL, "a closed member");
        return;
    }
    struct tcp_opts o;
    tcp_opts_init(&o, F.cx.st);
    o.fastopen = 3;
    const struct tcp_listen_args args = {.local = {.port = OTHERS_PORT},
                                         .backlog = bits >> 6 & 1,
                                         .reuseport = bits & 1,
                                         .member = 7 + i,
                                         .opts = &o,
                                         .fastopen_key = bits & 2 ? key : NULL};
    if (tcp_listen(&F.cx, &args, &others[i]) != 0) {
        others[i] = NULL;
        return;
    }
    if (bits & 4)
        tcp_listener_set_fastopen_key(others[i], key);
    tcp_listener_opts(others[i])->nodelay = bits & 8;
    fuzz_expect(tcp_listener_member(F.cx.st, OTHERS_PORT, 7 + i) == others[i], "the member");
}

static void take_reports(struct tcp_conn *c, unsigned n)
{
    struct tcp_report r = {0};
    while (n-- > 0 && tcp_take_report(&F.cx, c, &r))
        fuzz_expect(r.kind <= TCP_REPORT_ACKED && r.at <= F.cx.now &&
                        (r.kind == TCP_REPORT_ZEROCOPY || r.first == r.last),
                    "a report");
}

/* A free port, and where a packet to an address would go. */
static void ask_for_ways(struct fuzz_input *in)
{
    const struct ip_addr host = ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP));
    const struct ip_addr far = ip_addr_from_v4(__builtin_bswap32(FUZZ_HOST_IP + fuzz_take(in, 1)));
    const struct endpoint remote = {far, (uint16_t)(7000 + fuzz_take(in, 1) % 4)};
    const uint16_t min = (uint16_t)(5000 + fuzz_take(in, 1) % 8);
    const uint16_t port =
        tcp_ephemeral_port(&F.cx, &host, &remote, min, (uint16_t)(min + 3), fuzz_take(in, 1) % 8);
    fuzz_expect(port == 0 || (port >= min && port <= min + 3), "a port of the range");
    const struct flow_tuple t = {host, remote.addr, port, remote.port};
    const struct flow *f = tcp_flow_find(F.cx.st, &t);
    fuzz_expect(port == 0 || f == NULL || f->kind == FLOW_TIME_WAIT, "a free port");
    struct ip_path path;
    struct ip_addr source;
    (void)ip_route(F.cx.st, &far, &path, &source);
    (void)ip_is_local(F.cx.st, &far);
    arp_probe(&F.cx, F.netif, &far);
}

/* What is called more seldom. */
static void call_seldom(struct fuzz_input *in, struct tcp_conn *c, uint32_t bits)
{
    switch (bits & 15) {
    case 1:
        take_reports(c, 1 + (bits >> 4));
        break;
    case 2:
    case 3:
        tcp_set_stamps(&F.cx, c, (uint8_t)(bits >> 4 << 1 & 15), bits,
                       (enum tcp_stamp_base)(fuzz_take(in, 1) % 3));
        fuzz_expect(tcp_stamping(c) == bits || c->extra == NULL, "stamping");
        break;
    case 4:
        for (unsigned n = 0; n < 1 + (bits >> 4); n++)
            tcp_zerocopy_done(&F.cx, c);
        break;
    case 5:
        if (bits & 16) { /* in the middle of a change of this one */
            F.cx.st->working = &c->flow;
            F.cx.st->transmitting = bits & 32;
        }
        stack_repair(&F.cx);
        break;
    case 6:
        listen_or_not(bits >> 4 & 1, bits >> 5 | fuzz_take(in, 1) << 3);
        break;
    case 7:
        if (tcp_state(c) == TCP_ESTABLISHED && tcp_announce(&F.cx, c, 1 + fuzz_take(in, 2)))
            fuzz_expect(tcp_announced(c) && tcp_any_announced(F.cx.st), "announced");
        break;
    case 8:
        tcp_unannounce(F.cx.st);
        fuzz_expect(!tcp_announced(c), "not announced");
        break;
    case 9:
        F.patient = bits & 16;
        F.looks = bits & 32;
        break;
    case 10:
        ask_for_ways(in);
        break;
    case 11:
        look_around();
        break;
    case 12:
        F.cx.trace = bits & 64 ? TRACE_ALL | TRACE_TROUBLE : 0;
        if (bits & 128)
            stack_ignore_strangers(F.cx.st);
        break;
    case 13: {
        const unsigned which = bits >> 4 & 1, i = (bits >> 5) % CONNS;
        if (others[which] != NULL && conns[i] == NULL)
            conns[i] = tcp_accept(&F.cx, others[which]);
        break;
    }
    default:
        look(c);
    }
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
    /* more than a window takes, or than lies there */
    const struct slice several[] = {s, {bytes, 1}, s, s, s};
    const unsigned n = s.len & 1 ? ARRAY_LEN(several) : 1;
    switch (op % 14) {
    case 0:
    case 1:
    case 2:
        tcp_send(&F.cx, c, several, n,
                 bits & (TCP_SEND_MORE | TCP_SEND_OOB | TCP_SEND_EOR | TCP_SEND_PART |
                         TCP_SEND_ONCE | TCP_SEND_UNFINISHED));
        break;
    case 3:
    case 4:
        tcp_recv(&F.cx, c, several, n, bits & 7, bits & TCP_RECV_PEEK ? bits >> 3 : 0);
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
        call_seldom(in, c, bits);
    }
}

/* A router refuses what the host sent last, or something before it. */
static void refuse(struct fuzz_input *in, const struct fuzz_flow *f)
{
    uint8_t quoted[64], frame[256];
    const uint32_t how = fuzz_take(in, 1), rest = fuzz_take(in, 2);
    const struct wire_seg s = {.src = FUZZ_HOST_IP,
                               .dst = FUZZ_PEER_IP,
                               .sport = f->hport,
                               .dport = f->pport,
                               .seq = f->host_nxt - 1 - (how & 128 ? fuzz_take(in, 2) : 0)};
    wire_build_tcp(quoted, &s, fuzz_peer_mac, fuzz_host_mac);
    const size_t len = wire_build_icmp(frame, ip4(10, 0, 0, 254), FUZZ_HOST_IP, 3, how & 15, rest,
                                       quoted + L2_LEN, IP4_LEN + 8, fuzz_host_mac, fuzz_peer_mac);
    fuzz_input(frame, (uint32_t)len, false, 0);
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
    if (how & 8192) {
        refuse(in, f);
        return;
    }
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
                                           .ecn = (uint8_t)((how >> 3) % (STACK_ECN_MAX + 1)),
                                           .cc = (uint8_t)((how >> 5) % TCP_CC_COUNT),
                                           .tuning = {.no_sack = how & 512,
                                                      .no_timestamps = how & 1024,
                                                      .no_wscale = how & 2048,
                                                      .mtu_probing = how >> 12 & 3}},
                    how & 128);
    F.nflows = FUZZ_FLOWS;
    F.places = how & 32768;
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
    memset(others, 0, sizeof(others));
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
    for (unsigned i = 0; i < 2; i++)
        if (others[i] != NULL)
            tcp_listener_close(&F.cx, others[i]);
    fuzz_end(conns, CONNS, listener);
    return 0;
}
