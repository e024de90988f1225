/* TCP Fast Open (RFC 7413), both roles. */
#include "stack/tcp/conn.h"
#include "tests/packet/harness.h"

#include <stdio.h>

#define OPTS       "mss 1460,sackOK,nop,nop"
#define COOKIE     "220a0102030405060708"
#define COOKIE_OPT "hex " COOKIE ",nop,nop"

/* The Fast Open option of the next frame sent, taken off: its length, or 0. */
static unsigned next_option(uint8_t *cookie, uint32_t *text, uint8_t *flags)
{
    uint32_t len;
    struct wire_seg s;
    const uint8_t *f = next_tx(&len);
    check(f != NULL);
    check(wire_parse_tcp(f, len, false, &s) == NULL);
    *text = s.len;
    *flags = s.flags;
    for (unsigned i = 0; i < s.optlen && s.opts[i];) {
        if (s.opts[i] == 1) {
            i++;
            continue;
        }
        if (s.opts[i] == 34) {
            memcpy(cookie, s.opts + i + 2, s.opts[i + 1] - 2u);
            return s.opts[i + 1];
        }
        i += s.opts[i + 1];
    }
    return 0;
}

static struct tcp_conn *open_fast(uint16_t port, uint32_t n)
{
    struct tcp_conn *c = call_open();
    tcp_opts(c)->fastopen_connect = true;
    static uint8_t text[4096];
    for (uint32_t i = 0; i < n; i++)
        text[i] = (uint8_t)(i * 7 + (i >> 8) * 13);
    const struct slice from = {text, n};
    check_eq(call_send_ahead(c, &from), call_fastopen_known(c) ? n : 0);
    check_eq(call_connect_from(c, port, PEER_PORT), 0);
    return c;
}

/* A first connection that asks for a cookie and gets it. */
static void learn(void)
{
    uint8_t cookie[16], flags;
    uint32_t text;
    world(
        (struct world_opts){.fastopen = STACK_FASTOPEN_CLIENT, .gso = true, .csum_offload = true});
    open_fast(HOST_PORT, 0);
    check_eq(next_option(cookie, &text, &flags), 2); /* 4.1.3: the empty option asks */
    inject("SA seq 0 ack 1 <" OPTS "," COOKIE_OPT ">");
    expect_tx("A seq 1 ack 1");
}

TEST(fastopen_asks_and_uses, "RFC 7413 4.2.1: the cookie of a server, then data in the SYN")
{
    uint8_t cookie[16], flags;
    uint32_t text;
    learn();
    struct tcp_conn *c =
        open_fast(5001, 1000); /* more than the MSS of a peer of whom nothing is known */
    check_eq(next_option(cookie, &text, &flags), 10);
    check_eq(memcmp(cookie, "\1\2\3\4\5\6\7\10", 8), 0);
    check_eq(text, 1000);
    check_eq(flags, TCP_SYN);
    inject("SA seq 0 ack 1001 <" OPTS ">");
    expect_tx("A seq 1001 ack 1");
    expect_state(TCP_ESTABLISHED);
    check_eq(tcp_outq(c), 0);
    check_eq(counter(COUNT_FASTOPEN_ACTIVE), 1);
}

TEST(fastopen_keeps_order,
     "text in a SYN tells a program: whose connect() was over before is to be accepted before")
{
    learn();
    program_goes_on(true);
    call_connect_from(call_open(), 5001, PEER_PORT);
    flow(5001, PEER_PORT);
    expect_tx("S seq 0");
    inject("SA seq 0 ack 1");
    expect_none(us(100));
    open_fast(5002, 100);
    flow(5001, PEER_PORT);
    expect_tx("A seq 1 ack 1 len 0");
    flow(5002, PEER_PORT);
    expect_tx("S seq 0 len 100");
}

TEST(fastopen_text_refused,
     "RFC 7413 4.2.1: a SYN-ACK of the SYN alone: the data goes again at once")
{
    learn();
    open_fast(5001, 500);
    drain_tx();
    inject("SA seq 0 ack 1 <" OPTS ">");
    expect_tx("PA seq 1 ack 1 len 500");
    inject("A ack 501");
    expect_none(sec(1));
}

TEST(fastopen_syn_lost,
     "RFC 7413 4.2.1, 7.1: the SYN that is sent again is plain; such a path is remembered")
{
    uint8_t cookie[16], flags;
    uint32_t text;
    learn();
    open_fast(5001, 500);
    drain_tx();
    t_run(ms(1010));
    check_eq(next_option(cookie, &text, &flags), 0);
    check_eq(text, 0);
    inject("SA seq 0 ack 1 <" OPTS ">");
    expect_tx("PA seq 1 ack 1 len 500");
    inject("A ack 501");
    open_fast(5002, 500);
    check_eq(next_option(cookie, &text, &flags), 2);
    check_eq(text, 0);
    inject("SA seq 0 ack 1 <" OPTS ">");
    expect_tx("A seq 1 ack 1");
}

TEST(
    fastopen_rest_follows,
    "RFC 7413 4.2.1: of more than a SYN holds the rest follows, with the last ACK of the handshake")
{
    uint8_t cookie[16], flags;
    uint32_t text;
    learn();
    struct tcp_conn *c = open_fast(5001, 1000);
    tcp_expect_send(c, true);
    check_eq(next_option(cookie, &text, &flags), 10);
    inject("SA seq 0 ack 1001 <" OPTS ">");
    expect_none(ms(30));
    check_eq(call_send(c, 400), 400);
    expect_tx("PA seq 1001 ack 1 len 400");
}

TEST(fastopen_experimental,
     "RFC 7413 A.2: a server that gave no cookie is asked in the option's experimental form, once")
{
    uint8_t cookie[16], flags;
    uint32_t text;
    world(
        (struct world_opts){.fastopen = STACK_FASTOPEN_CLIENT, .gso = true, .csum_offload = true});
    open_fast(HOST_PORT, 0);
    check_eq(next_option(cookie, &text, &flags), 2);
    inject("SA seq 0 ack 1 <" OPTS ">");
    expect_tx("A seq 1 ack 1");
    open_fast(5001, 0);
    expect_tx("S seq 0 <" OPTS ",hex fe04f989>");
    inject("SA seq 0 ack 1 <" OPTS ",hex fe08f98901020304>");
    expect_tx("A seq 1 ack 1");
    open_fast(5002, 500);
    expect_tx("S seq 0 len 500 <" OPTS ",hex fe08f98901020304>");
}

TEST(fastopen_no_cookie_client, "RFC 7413 5.1, Linux's tcp_fastopen bit 4: data without a cookie")
{
    uint8_t cookie[16], flags;
    uint32_t text;
    world((struct world_opts){.fastopen = STACK_FASTOPEN_CLIENT | STACK_FASTOPEN_CLIENT_NO_COOKIE});
    open_fast(HOST_PORT, 500);
    check_eq(next_option(cookie, &text, &flags), 0);
    check_eq(text, 500);
    inject("SA seq 0 ack 501 <" OPTS "," COOKIE_OPT ">"); /* nobody asked for it */
    expect_tx("A seq 501 ack 1");
}

static struct tcp_listener *listen_fast(uint8_t pending)
{
    world((struct world_opts){.fastopen = STACK_FASTOPEN_SERVER});
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.fastopen = pending;
    return call_listen_opts(5, &o);
}

/* A cookie of the host, as an option's text. */
static void ask_cookie(char *option)
{
    uint8_t cookie[16] = {0}, flags;
    uint32_t text;
    inject("S seq 0 <" OPTS ",hex 2202,nop,nop>");
    check_eq(next_option(cookie, &text, &flags), 10);
    unsigned n = (unsigned)sprintf(option, "hex 220a");
    for (unsigned i = 0; i < 8; i++)
        n += (unsigned)sprintf(option + n, "%02x", cookie[i]);
    inject("R seq 1");
}

TEST(fastopen_server,
     "RFC 7413 4.2.2: data of a valid cookie is read, and answered, before the third ACK")
{
    struct tcp_listener *l = listen_fast(3);
    char option[64], syn[160];
    ask_cookie(option);
    flow(LISTEN_PORT, CLIENT_PORT + 1);
    snprintf(syn, sizeof(syn), "S seq 0 len 400 <" OPTS ",%s,nop,nop>", option);
    inject(syn);
    expect_tx("SA seq 0 ack 401");
    struct tcp_conn *c = call_accept(l);
    check(c != NULL);
    check_eq(call_recv(c, 1000), 400);
    check_eq(call_send(c, 700), 700);
    expect_tx("PA seq 1 ack 401 len 700");
    expect_state(TCP_SYN_RECEIVED);
    inject("A seq 401 ack 701");
    expect_state(TCP_ESTABLISHED);
    check_eq(tcp_outq(c), 0);
    check_eq(call_shutdown(c, TCP_SHUT_WR), 0);
    expect_tx("FA seq 701 ack 401");
}

TEST(fastopen_server_repeats,
     "RFC 7413 4.2.2: the SYN-ACK alone is repeated; the text was taken once")
{
    struct tcp_listener *l = listen_fast(3);
    char option[64], syn[160];
    ask_cookie(option);
    flow(LISTEN_PORT, CLIENT_PORT + 1);
    snprintf(syn, sizeof(syn), "S seq 0 len 400 <" OPTS ",%s,nop,nop>", option);
    inject(syn);
    expect_tx("SA seq 0 ack 401");
    inject(syn);
    expect_tx("SA seq 0 ack 401");
    expect_tx_in(ms(900), ms(1100), "SA seq 0 ack 401");
    inject("A seq 401 ack 1");
    struct tcp_conn *c = call_accept(l);
    check_eq(call_recv(c, 1000), 400);
    check_eq(call_recv(c, 1000), -11);
}

TEST(fastopen_no_cookie_server, "Linux's tcp_fastopen bit 0x200: data is taken without a cookie")
{
    world((struct world_opts){.fastopen = STACK_FASTOPEN_SERVER | STACK_FASTOPEN_SERVER_NO_COOKIE});
    struct tcp_opts o;
    tcp_opts_init(&o, the_stack());
    o.fastopen = 3;
    struct tcp_listener *l = call_listen_opts(5, &o);
    inject("S seq 0 len 400 <" OPTS ">");
    expect_tx("SA seq 0 ack 401 <" OPTS ">");
    check_eq(call_recv(call_accept(l), 1000), 400);
}

TEST(fastopen_key, "Linux's tcp_fastopen_key: the cookie that Linux gives these addresses")
{
    static const uint8_t key[TCP_FASTOPEN_KEY_LEN] = {0xf7, 0x63, 0xbf, 0xa0, 0x81, 0x3d,
                                                      0x80, 0xed, 0x30, 0x1d, 0x64, 0xcd,
                                                      0x90, 0x4a, 0xbc, 0xce};
    static const uint8_t linux_says[] = {0x00, 0xab, 0xaa, 0xab, 0xe8, 0xe9, 0x54, 0xc2};
    const struct ip_addr client = ip_addr_from_v4(__builtin_bswap32(0x0af80002));
    const struct ip_addr server = ip_addr_from_v4(__builtin_bswap32(0xc0a80002));
    struct tcp_listener *l = listen_fast(3);
    uint8_t cookie[TCP_COOKIE_LEN];
    tcp_listener_set_fastopen_key(l, key);
    tcp_fastopen_cookie(l, &client, &server, cookie);
    check_eq(memcmp(cookie, linux_says, sizeof(cookie)), 0);
}

TEST(fastopen_bad_cookie,
     "RFC 7413 4.1.2: a wrong cookie: an ordinary handshake, and the right one with it")
{
    struct tcp_listener *l = listen_fast(3);
    uint8_t cookie[16], flags;
    uint32_t text;
    inject("S seq 0 len 400 <" OPTS "," COOKIE_OPT ">");
    check_eq(next_option(cookie, &text, &flags), 10);
    inject("A seq 1 ack 1 len 400");
    expect_tx("A seq 1 ack 401");
    struct tcp_conn *c = call_accept(l);
    check_eq(call_recv(c, 1000), 400);
    check_eq(counter(COUNT_FASTOPEN_BAD), 1);
}

TEST(fastopen_pending_bound,
     "RFC 7413 5.1: connections before their third ACK are bounded; reset ones count no more")
{
    listen_fast(2);
    char option[64], syn[160];
    ask_cookie(option);
    snprintf(syn, sizeof(syn), "S seq 0 len 400 <" OPTS ",%s,nop,nop>", option);
    for (uint16_t i = 1; i <= 3; i++) {
        flow(LISTEN_PORT, (uint16_t)(CLIENT_PORT + i));
        inject(syn);
        expect_tx(i <= 2 ? "SA seq 0 ack 401" : "SA seq 0 ack 1");
    }
    flow(LISTEN_PORT, CLIENT_PORT + 1);
    inject("R seq 401");
    flow(LISTEN_PORT, CLIENT_PORT + 4);
    inject(syn);
    expect_tx("SA seq 0 ack 401");
}
