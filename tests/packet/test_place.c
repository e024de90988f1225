/* Text that the link puts to its place (stack_foresee()), announcements of it, and questions about
 * the whole stack. */
#include "tests/packet/harness.h"
#include "tests/packet/world.h"

#include <string.h>

/* A frame of which the link knows the first bytes. */
struct ahead {
    uint8_t bytes[2048];
    struct frame_in in;
    struct stack_place place;
};

static bool foresee(struct ahead *a, const char *spec)
{
    *a = (struct ahead){.in = {.netif = W.netif, .csum_trusted = true}};
    a->in.len = (uint32_t)build_frame(spec, a->bytes);
    a->in.data = a->bytes;
    return stack_foresee(the_cx(), &a->in, &a->place);
}

/* The device writes: `direct` bytes to the program, the rest to where the stack says. */
static void take(struct ahead *a, struct tcp_conn *c, uint32_t direct)
{
    struct slice out[TCP_PLACE_SLICES];
    const uint8_t *text = a->bytes + a->place.head + direct;
    const uint32_t rest = a->place.len - direct;
    const unsigned n = rest > 0 ? tcp_place_text(the_cx(), c, direct, rest, out) : 0;
    uint32_t done = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(out[i].base, text + done, out[i].len);
        done += (uint32_t)out[i].len;
    }
    check_eq(done, rest);
    a->place.direct = direct;
    a->in.place = &a->place;
    stack_input(the_cx(), &a->in);
    flush();
}

TEST(place_in_buffer, "stack_foresee(): text goes to the receive buffer at once")
{
    struct ahead a;
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < 4; i++) {
        check(foresee(&a, "A len 1000"));
        check(a.place.conn == c);
        check_eq(a.place.len, 1000);
        take(&a, c, 0);
        check(a.place.taken);
        flow(HOST_PORT, PEER_PORT)->p_nxt = 1001 + 1000 * i;
    }
    drain_tx();
    check_eq(tcp_inq(c), 4000);
    check_eq(call_recv(c, 4000), 4000);
}

TEST(place_at_the_program, "stack_foresee(): text goes to who reads, what is left to the buffer")
{
    struct ahead a;
    uint8_t got[1000];
    struct slice to = {got, sizeof(got)};
    struct tcp_conn *c = established(NULL);
    check(foresee(&a, "A seq 1 len 1000"));
    take(&a, c, 400);
    check(a.place.taken);
    drain_tx();
    check_eq(tcp_inq(c), 600);
    check_eq(tcp_recv(the_cx(), c, &to, 1, 0, 0), 600);
    check(memcmp(got, a.bytes + a.place.head + 400, 600) == 0);
    check(foresee(&a, "A seq 1001 len 1000"));
    take(&a, c, 1000);
    check(a.place.taken);
    check_eq(tcp_inq(c), 0);
    t_run(sec(1));
    expect_tx("A ack 2001 len 0");
}

TEST(place_not_taken, "stack_foresee(): a segment that is not acceptable after all")
{
    struct ahead a;
    struct tcp_conn *c = established("<mss 1460,sackOK,ts 1000>");
    inject("A seq 1 len 100 <ts 5000>");
    check_eq(call_recv(c, 100), 100);
    drain_tx();
    check(foresee(&a, "A seq 101 len 1000 <ts 10>")); /* RFC 7323 5.3 R1: too old */
    take(&a, c, 0);
    check(!a.place.taken);
    check_eq(tcp_inq(c), 0);
    drain_tx();
    inject("A seq 101 len 1000 <ts 5001>");
    check_eq(call_recv(c, 1000), 1000);
    drain_tx();
}

TEST(place_only_plain_text, "stack_foresee(): what is not plainly the next text goes its usual way")
{
    static const char *const odd[] = {"FA seq 1 len 100", "UA seq 1 len 100 urg 5",
                                      "RA seq 1 len 100", "A seq 2 len 100",
                                      "A seq 1 len 0",    "SA seq 1 len 100"};
    struct ahead a;
    struct tcp_conn *c = established(NULL);
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        check(!foresee(&a, odd[i]));
    check(foresee(&a, "A seq 1 len 100"));
    a.in.csum_trusted = false;
    check(!stack_foresee(the_cx(), &a.in, &a.place));
    a.in.csum_trusted = true;
    for (unsigned i = 0; i < 40; i++) { /* another host's, another protocol, a fragment, ... */
        const uint8_t was = a.bytes[i];
        if ((i >= 6 && i < 12) || i == 15 || (i >= 18 && i < 20) || i == 22 || i == 24 || i == 25 ||
            i == 38 || i == 39)
            continue; /* where from, TOS, IP's id, TTL, checksum, the rest of the sequence number */
        a.bytes[i] ^= 0x20;
        check(!stack_foresee(the_cx(), &a.in, &a.place));
        a.bytes[i] = was;
    }
    inject("A seq 1 len 10"); /* unread: the same again is old */
    check(!foresee(&a, "A seq 1 len 100"));
    inject("A seq 100 len 10"); /* a hole */
    check(!foresee(&a, "A seq 11 len 100"));
    drain_tx();
    call_shutdown(c, TCP_SHUT_WR);
    drain_tx();
    check(!foresee(&a, "A seq 11 len 100"));
}

TEST(announced_text, "tcp_announce(): text that stays in the device makes the socket readable")
{
    struct tcp_conn *c = established(NULL);
    check(!tcp_any_announced(the_stack()));
    const uint32_t before = tcp_announced_last(the_stack());
    check(tcp_announce(the_cx(), c, 1000));
    check(tcp_announced(c));
    check(tcp_any_announced(the_stack()));
    check_eq(tcp_announced_last(the_stack()), before + 1);
    check(tcp_poll(c) & TCP_EV_IN);
    tcp_unannounce(the_stack());
    tcp_unannounce(the_stack());
    check(!tcp_announced(c));
    check(!(tcp_poll(c) & TCP_EV_IN));
    tcp_opts(c)->rcvlowat = 2000;
    check(!tcp_announce(the_cx(), c, 1000));
    check(!tcp_any_announced(the_stack()));
}

static void count_listener(struct tcp_listener *l, void *arg)
{
    *(unsigned *)arg += tcp_listener_port(l) == LISTEN_PORT;
}

static void count_conn(struct tcp_conn *c, void *arg)
{
    *(unsigned *)arg += tcp_is_held(c);
}

TEST(stack_questions, "what the shim and the command ask of a stack")
{
    struct tcp_conn *c = accepted(NULL);
    struct stack *st = the_stack();
    struct endpoint at;
    struct tcp_isns isns = {.has_iss = false};
    unsigned n = 0;
    tcp_each_listener(st, count_listener, &n);
    check_eq(n, 1);
    n = 0;
    tcp_each_conn(st, count_conn, &n);
    check_eq(n, 1);
    check(tcp_local(c, &at));
    check_eq(at.port, LISTEN_PORT);
    check(tcp_remote(c, &at));
    check_eq(at.port, CLIENT_PORT);
    check(tcp_port_in_use(st, LISTEN_PORT));
    check(!tcp_port_in_use(st, LISTEN_PORT + 1));
    check(tcp_flow_find(st, &tcp_flow(c)->tuple) == tcp_flow(c));
    check_eq(tcp_flow(c)->number, tcp_number(c));
    check(tcp_flow_isns(tcp_flow(c), &isns));
    check(isns.has_irs);
    check(tcp_is_conn(st, c));
    check_eq(tcp_connections(st), 1);
    check_eq(tcp_orphans(st), 0);
    check(!tcp_reading_shut(c));
    check(!tcp_writing_shut(c));
    check(!tcp_is_inside(c));
    check(!tcp_at_mark(c));
    check(!tcp_has_mark(c));
    check_eq(tcp_unread(c), 0);
    check_eq(call_send(c, 100), 100);
    drain_tx();
    call_close(c);
    drain_tx();
    check_eq(tcp_orphans(st), 1);
    check_eq(tcp_orphans_unsent(st), 1);
    inject("A seq 1 ack 102");
    check_eq(tcp_orphans_unsent(st), 0);
}
