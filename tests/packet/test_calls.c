/* RFC 9293 3.10.1 to 3.10.6: each call in each state, with the errors of Linux. */
#include "tests/packet/harness.h"

#include <errno.h>

static const struct {
    enum tcp_state state;
    int connect, send, recv, shutdown;
    const char *shutdown_tx; /* what SHUT_WR sends */
    enum tcp_state after_shutdown;
    const char *close_tx; /* what close() sends */
    enum tcp_state after_close;
    uint32_t poll;
} calls[] = {
    {TCP_CLOSED, 0, -EPIPE, -ENOTCONN, -ENOTCONN, NULL, TCP_CLOSED, NULL, TCP_CLOSED,
     TCP_EV_OUT | TCP_EV_HUP},
    {TCP_SYN_SENT, -EALREADY, -EAGAIN, -EAGAIN, 0, NULL, TCP_CLOSED, NULL, TCP_CLOSED, 0},
    /* Linux since 6.10: the FIN of shutdown() waits for ESTABLISHED */
    {TCP_SYN_RECEIVED, -EALREADY, -EAGAIN, -EAGAIN, 0, NULL, TCP_SYN_RECEIVED, "FA seq 1 ack 1",
     TCP_FIN_WAIT_1, 0},
    {TCP_ESTABLISHED, -EISCONN, 10, -EAGAIN, 0, "FA seq 1 ack 1", TCP_FIN_WAIT_1, "FA seq 1 ack 1",
     TCP_FIN_WAIT_1, TCP_EV_OUT},
    {TCP_FIN_WAIT_1, -EISCONN, -EPIPE, -EAGAIN, 0, NULL, TCP_FIN_WAIT_1, NULL, TCP_FIN_WAIT_1,
     TCP_EV_OUT},
    {TCP_FIN_WAIT_2, -EISCONN, -EPIPE, -EAGAIN, 0, NULL, TCP_FIN_WAIT_2, NULL, TCP_FIN_WAIT_2,
     TCP_EV_OUT},
    {TCP_CLOSE_WAIT, -EISCONN, 10, 0, 0, "FA seq 1 ack 2", TCP_LAST_ACK, "FA seq 1 ack 2",
     TCP_LAST_ACK, TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP},
    {TCP_CLOSING, -EISCONN, -EPIPE, 0, 0, NULL, TCP_CLOSING, NULL, TCP_CLOSING,
     TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP | TCP_EV_HUP},
    {TCP_LAST_ACK, -EISCONN, -EPIPE, 0, 0, NULL, TCP_LAST_ACK, NULL, TCP_LAST_ACK,
     TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP | TCP_EV_HUP},
    {TCP_TIME_WAIT, -EISCONN, -EPIPE, 0, -ENOTCONN, NULL, TCP_TIME_WAIT, NULL, TCP_TIME_WAIT,
     TCP_EV_IN | TCP_EV_OUT | TCP_EV_RDHUP | TCP_EV_HUP},
};

TEST(call_connect_states, "3.10.1 OPEN; Linux inet_stream_connect()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        if (calls[i].state == TCP_CLOSED)
            continue;
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), calls[i].connect);
        expect_none(0);
        expect_state(calls[i].state);
    }
}

TEST(call_send_states, "3.10.2 SEND; Linux tcp_sendmsg()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        check_eq(call_send(c, 10), calls[i].send);
        if (calls[i].send > 0)
            expect_tx("PA seq 1 len 10");
        expect_none(0);
        expect_state(calls[i].state);
    }
}

TEST(call_recv_states, "3.10.3 RECEIVE; Linux tcp_recvmsg()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        check_eq(call_recv(c, 10), calls[i].recv);
        expect_none(0);
        expect_state(calls[i].state);
    }
}

TEST(call_shutdown_states, "3.10.4 CLOSE as a half close; Linux inet_shutdown()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        check_eq(call_shutdown(c, TCP_SHUT_WR), calls[i].shutdown);
        if (calls[i].shutdown_tx)
            expect_tx(calls[i].shutdown_tx);
        expect_none(0);
        expect_state(calls[i].after_shutdown);
    }
}

TEST(call_close_states, "3.10.4 CLOSE; Linux tcp_close()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        call_close(c);
        if (calls[i].close_tx)
            expect_tx(calls[i].close_tx);
        expect_none(0);
        expect_state(calls[i].after_close);
    }
}

TEST(call_poll_states, "Linux tcp_poll()")
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(calls[i].state);
        if (tcp_poll(c) != calls[i].poll)
            fail("poll in %s: 0x%x, want 0x%x", tcp_state_name(calls[i].state), tcp_poll(c),
                 calls[i].poll);
    }
}

TEST(call_abort_states, "3.10.5 ABORT: a RST in the synchronized states; Linux tcp_need_reset()")
{
    static const struct {
        enum tcp_state state;
        const char *tx;
    } rows[] = {
        {TCP_CLOSED, NULL},
        {TCP_SYN_SENT, NULL},
        {TCP_SYN_RECEIVED, "RA seq 1 ack 1"},
        {TCP_ESTABLISHED, "RA seq 1 ack 1"},
        {TCP_FIN_WAIT_1, "RA seq 2 ack 1"},
        {TCP_FIN_WAIT_2, "RA seq 2 ack 1"},
        {TCP_CLOSE_WAIT, "RA seq 1 ack 2"},
        {TCP_CLOSING, NULL},
        {TCP_LAST_ACK, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        world((struct world_opts){0});
        struct tcp_conn *c = bring(rows[i].state);
        call_abort(c);
        if (rows[i].tx)
            expect_tx(rows[i].tx);
        expect_none(0);
        expect_state(TCP_CLOSED);
    }
}

TEST(call_status, "3.10.6 STATUS")
{
    struct tcp_conn *c = established("<mss 1400,sackOK,ts,nop,wscale 7>");
    struct endpoint e;
    check(tcp_local(c, &e) && e.port == HOST_PORT);
    check(tcp_remote(c, &e) && e.port == PEER_PORT);
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    check_eq(v.state, TCP_ESTABLISHED);
    check(v.ts && v.sack && v.wscale);
    check_eq(v.snd_wscale, 7);
    check_eq(v.snd_mss, 1400 - 12);
    check_eq(v.pmtu, 1500);
    check(v.rto >= ms(200) && v.rto <= sec(120));
    check_eq(v.cwnd, 10 * v.snd_mss);
}

TEST(call_names_unconnected, "getpeername(): ENOTCONN before connect() and after the end")
{
    struct tcp_conn *c = call_open();
    struct endpoint e;
    check(!tcp_remote(c, &e));
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), 0);
    expect_tx("S");
    inject("RA seq 0 ack 1");
    check_eq(tcp_take_error(c), ECONNREFUSED);
    check_eq(tcp_take_error(c), 0);
    check(!tcp_remote(c, &e));
}

TEST(call_reconnect, "Linux: a socket whose connect() was refused may connect again")
{
    struct tcp_conn *c = bring(TCP_SYN_SENT);
    inject("RA seq 0 ack 1");
    check(events_of(c) & (TCP_EV_ERR | TCP_EV_HUP));
    check_eq(tcp_take_error(c), ECONNREFUSED);
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT + 1), 0);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    expect_state(TCP_ESTABLISHED);
    check_eq(tcp_poll(c), TCP_EV_OUT);
    check_eq(call_send(c, 10), 10);
    expect_tx("PA seq 1 len 10");
    inject("PA len 10");
    expect_tx("A ack 11");
    check_eq(call_recv(c, 10), 10);
    check_eq(call_recv(c, 10), -EAGAIN);
}

TEST(call_connect_after_end, "Linux: EISCONN after a connection is over, until connect(AF_UNSPEC)")
{
    struct tcp_conn *c = established(NULL);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    inject("R seq 11");
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT + 1), -EISCONN);
    tcp_disconnect(the_cx(), c);
    flush();
    tcp_take_error(c);
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT + 1), 0);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1 <mss 1460>");
    expect_tx("A seq 1 ack 1");
    check_eq(call_recv(c, 10), -EAGAIN);
    inject("PA seq 1 ack 1 len 20");
    expect_tx("A ack 21");
    check_eq(call_recv_flags(c, 100, TCP_RECV_TRUNC), 20);
    check_eq(call_send_flags(c, 10, 0), 10);
    expect_tx("PA seq 1 len 10");
}

TEST(call_disconnect, "connect(AF_UNSPEC): RST, and the socket can be used again")
{
    struct tcp_conn *c = established(NULL);
    check_eq(call_send(c, 100), 100);
    expect_tx("PA seq 1 len 100");
    tcp_disconnect(the_cx(), c);
    flush();
    expect_tx("RA seq 101 ack 1");
    expect_state(TCP_CLOSED);
    check_eq(tcp_state(c), TCP_CLOSED);
    check_eq(tcp_outq(c), 0);
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT + 1), 0);
    expect_tx("S seq 0");
}

TEST(call_pending_error_once, "Linux: a pending error is given by one call")
{
    struct tcp_conn *c = established(NULL);
    inject("R seq 1");
    check_eq(tcp_poll(c), TCP_EV_IN | TCP_EV_OUT | TCP_EV_ERR | TCP_EV_HUP | TCP_EV_RDHUP);
    check_eq(call_recv(c, 10), -ECONNRESET);
    check_eq(call_recv(c, 10), 0);
    check_eq(call_send(c, 10), -EPIPE);
}

TEST(call_error_by_send, "Linux: a pending error is given by send() first, EPIPE after")
{
    struct tcp_conn *c = established(NULL);
    inject("R seq 1");
    check_eq(call_send(c, 10), -ECONNRESET);
    check_eq(call_send(c, 10), -EPIPE);
}

TEST(call_data_before_error,
     "Linux: data that arrived before the RST is lost to the error, or read first")
{
    struct tcp_conn *c = established(NULL);
    inject("PA seq 1 ack 1 len 10");
    expect_tx("A ack 11");
    inject("R seq 11");
    /* Linux keeps the receive queue on RST: the bytes are read first, then the error */
    check_eq(call_recv(c, 100), 10);
    check_eq(call_recv(c, 100), -ECONNRESET);
}

TEST(call_connect_in_use, "connect(): EADDRINUSE when the 4-tuple exists")
{
    bring(TCP_ESTABLISHED);
    struct tcp_conn *c = call_open();
    check_eq(call_connect_from(c, HOST_PORT, PEER_PORT), -EADDRINUSE);
    expect_none(0);
}

TEST(call_listen_in_use, "bind()/listen(): EADDRINUSE unless both say SO_REUSEPORT")
{
    call_listen(5);
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    struct tcp_listen_args a = {.local = {.port = LISTEN_PORT}, .backlog = 1, .opts = &o};
    struct tcp_listener *l = NULL;
    check_eq(tcp_listen(the_cx(), &a, &l), -EADDRINUSE);
    a.local.port = LISTEN_PORT + 1;
    a.reuseport = true;
    struct tcp_listener *l2 = NULL;
    check_eq(tcp_listen(the_cx(), &a, &l), 0);
    check_eq(tcp_listen(the_cx(), &a, &l2), 0);
    tcp_listener_close(the_cx(), l);
    tcp_listener_close(the_cx(), l2);
    flush();
}
