/* The program's side: calls on the engine as the shim makes them. */
#include "tests/packet/world.h"

/* Bytes for one call. */
static uint8_t *room(uint32_t n)
{
    static uint8_t buf[(4 << 20) + 1];
    if (n > sizeof(buf))
        fail("too many bytes for one call");
    return buf;
}

static struct app *app_new(void)
{
    if (W.napps == APPS_MAX)
        fail("too many sockets");
    struct app *a = &W.apps[W.napps];
    *a = (struct app){.number = W.napps++};
    return a;
}

static struct app *app_of(struct tcp_conn *c)
{
    for (unsigned i = W.napps; i-- > 0;)
        if (W.apps[i].conn == c)
            return &W.apps[i];
    fail("no such connection");
}

static struct endpoint endpoint(uint32_t ip, uint16_t port)
{
    return (struct endpoint){ip_addr_from_v4(__builtin_bswap32(ip)), port};
}

struct tcp_conn *call_open(void)
{
    struct tcp_conn *c = tcp_open(&W.cx);
    if (!c)
        fail("tcp_open: no memory");
    struct app *a = app_new();
    a->conn = c;
    tcp_set_owner(c, a);
    return c;
}

int call_connect_from(struct tcp_conn *c, uint16_t hport, uint16_t pport)
{
    flow(hport, pport);
    struct endpoint local = endpoint(HOST_IP, hport), remote = endpoint(PEER_IP, pport);
    struct ip_path path = {.netif = W.netif, .next_hop = remote.addr};
    int r = tcp_connect(&W.cx, c, &local, &remote, &path);
    world_after_step();
    return r;
}

bool call_fastopen_known(const struct tcp_conn *c)
{
    const struct endpoint remote = endpoint(PEER_IP, 0);
    return tcp_fastopen_known(W.cx.st, c, &remote.addr);
}

int64_t call_send_ahead(struct tcp_conn *c, const struct slice *text)
{
    const struct endpoint remote = endpoint(PEER_IP, 0);
    const struct ip_path path = {.netif = W.netif, .next_hop = remote.addr};
    if (text->len == 0 || !call_fastopen_known(c))
        return 0;
    const int64_t r = tcp_send_ahead(&W.cx, c, &remote.addr, &path, text, 1);
    app_of(c)->sent += r > 0 ? (uint32_t)r : 0;
    return r;
}

struct tcp_conn *call_connect(void)
{
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), 0);
    return c;
}

struct tcp_listener *call_listen_opts(int backlog, const struct tcp_opts *opts)
{
    struct tcp_opts defaults;
    tcp_opts_init(&defaults, W.cx.st);
    struct app *a = app_new();
    struct tcp_listen_args args = {
        .local = endpoint(0, LISTEN_PORT),
        .backlog = backlog,
        .opts = opts ? opts : &defaults,
        .owner = a,
    };
    check_eq(tcp_listen(&W.cx, &args, &a->listener), 0);
    world_after_step();
    flow(LISTEN_PORT, CLIENT_PORT);
    return a->listener;
}

struct tcp_listener *call_listen(int backlog)
{
    return call_listen_opts(backlog, NULL);
}

struct tcp_conn *call_accept(struct tcp_listener *l)
{
    struct tcp_conn *c = tcp_accept(&W.cx, l);
    if (c) {
        struct app *a = app_new();
        a->conn = c;
        tcp_set_owner(c, a);
    }
    world_after_step();
    return c;
}

int64_t call_send_flags(struct tcp_conn *c, uint32_t n, uint32_t flags)
{
    struct app *a = app_of(c);
    uint8_t *buf = room(n);
    for (uint32_t i = 0; i < n; i++)
        buf[i] = pattern(a->sent + i);
    struct slice s = {buf, n};
    int64_t r = tcp_send(&W.cx, c, &s, 1, flags);
    if (r > 0)
        a->sent += (uint32_t)r;
    world_after_step();
    return r;
}

int64_t call_send(struct tcp_conn *c, uint32_t n)
{
    return call_send_flags(c, n, 0);
}

int64_t call_recv_flags(struct tcp_conn *c, uint32_t n, uint32_t flags)
{
    struct app *a = app_of(c);
    uint8_t *buf = room(n);
    struct slice s = {buf, n};
    int64_t r = tcp_recv(&W.cx, c, &s, 1, flags, 0);
    if (r > (int64_t)n && !(flags & TCP_RECV_TRUNC))
        fail("recv() of %u bytes returned %lld", n, (long long)r);
    if (!(flags & (TCP_RECV_OOB | TCP_RECV_TRUNC)) && !a->other_text)
        for (int64_t i = 0; i < r; i++)
            if (buf[i] != pattern(a->received + (uint32_t)i))
                fail("recv(): byte %lld of the stream is wrong", (long long)(a->received + i));
    if (r > 0 && !(flags & (TCP_RECV_OOB | TCP_RECV_PEEK)))
        a->received += (uint32_t)r;
    world_after_step();
    return r;
}

int64_t call_recv(struct tcp_conn *c, uint32_t n)
{
    return call_recv_flags(c, n, 0);
}

int call_shutdown(struct tcp_conn *c, enum tcp_how how)
{
    int r = tcp_shutdown(&W.cx, c, how);
    world_after_step();
    return r;
}

void call_close(struct tcp_conn *c)
{
    struct app *a = app_of(c);
    a->conn = NULL;
    tcp_set_owner(c, NULL);
    tcp_close(&W.cx, c);
    world_after_step();
}

void call_abort(struct tcp_conn *c)
{
    struct tcp_opts *o = tcp_opts(c);
    o->linger = true;
    o->linger_secs = 0;
    call_close(c);
}

void call_listener_close(struct tcp_listener *l)
{
    for (unsigned i = 0; i < W.napps; i++)
        if (W.apps[i].listener == l)
            W.apps[i].listener = NULL;
    tcp_listener_close(&W.cx, l);
    world_after_step();
}

void call_opts_changed(struct tcp_conn *c)
{
    tcp_opts_changed(&W.cx, c);
    world_after_step();
}

uint32_t events_of(struct tcp_conn *c)
{
    struct app *a = app_of(c);
    uint32_t e = a->events;
    a->events = 0;
    return e;
}

uint32_t listener_events(void)
{
    for (unsigned i = 0; i < W.napps; i++) {
        struct app *a = &W.apps[i];
        if (a->listener) {
            uint32_t e = a->events;
            a->events = 0;
            return e;
        }
    }
    return 0;
}

/* ---- usual beginnings ---- */

struct tcp_conn *established_after(nsec_t rtt, const char *synack_opts)
{
    struct tcp_conn *c = call_connect();
    expect_tx("S seq 0 len 0");
    t_run(rtt);
    char spec[160];
    strcpy(spec, "SA seq 0 ack 1 ");
    strcat(spec, synack_opts ? synack_opts : "<mss 1460>");
    inject(spec);
    expect_tx("A seq 1 ack 1 len 0");
    expect_state(TCP_ESTABLISHED);
    check(events_of(c) & TCP_EV_OUT);
    return c;
}

struct tcp_conn *established(const char *synack_opts)
{
    return established_after(0, synack_opts);
}

void established_inside(uint32_t rcvbuf, struct tcp_conn **client, struct tcp_conn **server)
{
    struct tcp_opts opts;
    world((struct world_opts){.loopback = true});
    tcp_opts_init(&opts, the_stack());
    if (rcvbuf != 0) {
        opts.rcvbuf = rcvbuf;
        opts.rcvbuf_locked = true;
    }
    struct tcp_listener *l = call_listen_opts(5, &opts);
    const struct ip_addr lo = ip_addr_from_v4(__builtin_bswap32(ip4(127, 0, 0, 1)));
    struct ip_path path;
    struct ip_addr src;
    check_eq(ip_route(the_stack(), &lo, &path, &src), 0);
    const struct endpoint local = {src, 6000}, remote = {lo, LISTEN_PORT};
    *client = call_open();
    check_eq(tcp_connect(the_cx(), *client, &local, &remote, &path), 0);
    flush();
    check_eq(tcp_state(*client), TCP_ESTABLISHED);
    *server = call_accept(l);
    check(*server != NULL);
}

struct tcp_conn *accepted(const char *syn_opts)
{
    struct tcp_listener *l = call_listen(5);
    char spec[160];
    strcpy(spec, "S seq 0 ");
    strcat(spec, syn_opts ? syn_opts : "<mss 1460>");
    inject(spec);
    expect_tx("SA seq 0 ack 1 len 0");
    inject("A seq 1 ack 1");
    expect_none(0);
    struct tcp_conn *c = call_accept(l);
    check(c != NULL);
    expect_state(TCP_ESTABLISHED);
    return c;
}

struct tcp_conn *bring(enum tcp_state state)
{
    if (state == TCP_CLOSED)
        return call_open();
    if (state == TCP_SYN_SENT || state == TCP_SYN_RECEIVED) {
        struct tcp_conn *c = call_connect();
        expect_tx("S seq 0");
        if (state == TCP_SYN_RECEIVED) {
            inject("S seq 0 <mss 1460>");
            expect_tx("SA seq 0 ack 1");
        }
        expect_state(state);
        return c;
    }
    struct tcp_conn *c = established(NULL);
    if (state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK) {
        inject("FA seq 1 ack 1");
        expect_tx("A seq 1 ack 2");
    }
    if (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT) {
        check_eq(call_shutdown(c, TCP_SHUT_WR), 0);
        expect_tx("FA seq 1");
    }
    if (state == TCP_FIN_WAIT_2 || state == TCP_TIME_WAIT)
        inject("A seq 1 ack 2");
    if (state == TCP_CLOSING) {
        inject("FA seq 1 ack 1");
        expect_tx("A seq 2 ack 2");
    }
    if (state == TCP_TIME_WAIT) {
        inject("FA seq 1 ack 2");
        expect_tx("A seq 2 ack 2");
    }
    expect_none(0);
    expect_state(state);
    events_of(c);
    return c;
}
