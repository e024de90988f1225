/* Connections inside the stack whose text passes without segments (stack/tcp/inside.h). */
#include "tests/packet/harness.h"

#include <errno.h>

#include "stack/tcp/inside.h"

static struct tcp_conn *client, *server;

/* What is traced as segments has to be segments. */
static void look(bool on)
{
    the_cx()->trace = on ? TRACE_ALL : TRACE_ALL & ~(uint32_t)TCP_INSIDE_SEEN;
}

/* rcvbuf: of the server, 0: the default. */
static void connect_inside(uint32_t rcvbuf)
{
    established_inside(rcvbuf, &client, &server);
    look(false);
}

/* A number below n. */
static uint32_t draw(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

static uint64_t segments(void)
{
    return stack_counter(the_stack(), COUNT_SEGS_OUT);
}

TEST(inside_without_segments, "text passes at once: no ACK, nothing in flight, no timer")
{
    connect_inside(0);
    const uint64_t before = segments();
    for (unsigned i = 1; i <= 100; i++) {
        check_eq(call_send(client, 10 * i), 10 * i);
        check_eq(client->snd_una.v, client->snd_nxt.v);
        check_eq(client->sendbuf.len, 0);
        check_eq(call_recv(server, 2000), 10 * i);
        check_eq(call_send(server, i), i);
        check_eq(call_recv(client, 2000), i);
    }
    check_eq(segments() - before, 200);
    check(!tcp_timer_armed(client, TCP_TIMER_DELAYED_ACK));
    check(!tcp_timer_armed(client, TCP_TIMER_RETRANSMIT));
    look(true); /* segments go on where the text stopped */
    check_eq(call_send(client, 1000), 1000);
    check_eq(call_recv(server, 2000), 1000);
    check_eq(call_send(server, 1000), 1000);
    check_eq(call_recv(client, 2000), 1000);
    expect_none(0);
}

TEST(inside_waits_for_window, "what the window does not take waits, and passes as the reader reads")
{
    connect_inside(0);
    int64_t sent = 0, read = 0, r;
    while ((r = call_send(client, 50000)) > 0)
        sent += r;
    check_eq(r, -EAGAIN);
    check(client->sendbuf.len > 0 && sent > server->rcv_limit);
    check_eq(tcp_poll(client) & TCP_EV_OUT, 0);
    const uint64_t before = segments();
    while ((r = call_recv(server, 30000)) > 0) {
        read += r;
        check((tcp_poll(server) & TCP_EV_IN) != 0 || client->sendbuf.len == 0);
    }
    check_eq(r, -EAGAIN);
    check_eq(read, sent);
    check((tcp_poll(client) & TCP_EV_OUT) != 0);
    check(segments() - before < 200);
    check(!tcp_timer_armed(client, TCP_TIMER_PERSIST));
    expect_none(0);
}

TEST(inside_no_delay, "what waits never needs a timer: whoever reads on gets all of it at once")
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t state = seed;
        int64_t sent = 0, got = 0, r = 0;
        connect_inside(seed % 4 == 0 ? 3000u << seed % 5 : 0);
        tcp_opts(server)->rcvlowat = seed % 5 == 0 ? 700 : 1;
        for (unsigned i = 0; i < 400; i++) {
            const uint32_t n = 1 + draw(&state, 1u << (3 + draw(&state, 16)));
            r = draw(&state, 2) == 0 ? call_send(client, n) : -EAGAIN;
            sent += r > 0 ? r : 0;
            r = draw(&state, 2) == 0 ? call_recv(server, n) : -EAGAIN;
            got += r > 0 ? r : 0;
            check(client->sendbuf.len == 0 || (tcp_poll(server) & TCP_EV_IN) != 0);
        }
        while ((r = call_recv(server, 1 + draw(&state, 50000))) > 0)
            got += r;
        check_eq(got, sent);
        check_eq(client->sendbuf.len, 0);
        check(client->snd_wnd >= min_u32(256u << 10, server->rcv_limit) / 2);
    }
}

TEST(inside_watched, "what waits goes on by segments as soon as somebody looks")
{
    connect_inside(0);
    int64_t sent = 0, read = 0, r;
    while ((r = call_send(client, 50000)) > 0)
        sent += r;
    check(client->sendbuf.len > 0);
    const uint64_t before = segments();
    look(true);
    while (read < sent) {
        while ((r = call_recv(server, 30000)) > 0)
            read += r;
        t_run(ms(1));
    }
    check_eq(read, sent);
    check(segments() > before + 2);
}

TEST(inside_wakes_both, "who waits to read and who waits to write is told")
{
    connect_inside(0);
    events_of(server);
    check_eq(call_send(client, 1), 1);
    check((events_of(server) & TCP_EV_IN) != 0);
    while (call_send(client, 50000) > 0)
        ;
    events_of(client);
    check(call_recv(server, 60000) > 0);
    while (tcp_send_room(client) < client->sendbuf.len / 2)
        check(call_recv(server, 60000) > 0);
    check((events_of(client) & TCP_EV_OUT) != 0);
}

TEST(inside_ends, "FIN comes behind what waits; a close with unread text resets")
{
    connect_inside(0);
    int64_t sent = 0, read = 0, r;
    while ((r = call_send(client, 50000)) > 0)
        sent += r;
    call_shutdown(client, TCP_SHUT_WR);
    while ((r = call_recv(server, 70000)) > 0) {
        read += r;
        t_run(ms(1));
    }
    for (unsigned i = 0; i < 20 && r == -EAGAIN; i++) {
        t_run(ms(100));
        while ((r = call_recv(server, 70000)) > 0)
            read += r;
    }
    check_eq(r, 0);
    check_eq(read, sent);
    check_eq(call_send(server, 100), 100);
    call_close(client); /* unread */
    check_eq(tcp_state(server), TCP_CLOSED);
    check_eq(call_send(server, 1), -EPIPE);
}

/* Fills the window and the send buffer. */
static int64_t send_all(void)
{
    int64_t sent = 0, r;
    while ((r = call_send(client, 50000)) > 0)
        sent += r;
    check(client->sendbuf.len > 0);
    return sent;
}

TEST(inside_counts,
     "TCP_INFO: all is acknowledged that passed; the reader is what the rest waits for")
{
    struct tcp_view v;
    connect_inside(0);
    check_eq(call_send(client, 1000), 1000);
    t_run(ms(30));
    tcp_view(the_cx(), client, &v);
    check_eq(v.busy, 0);
    const int64_t sent = 1000 + send_all();
    t_run(ms(40));
    while (call_recv(server, 40000) > 0)
        ;
    t_run(ms(50));
    tcp_view(the_cx(), client, &v);
    check_eq(v.bytes_sent, sent);
    check_eq(v.bytes_acked, sent);
    check_eq(v.busy, ms(40));
    check_eq(v.rwnd_limited, ms(40));
    check_eq(v.sndbuf_limited, 0);
    tcp_view(the_cx(), server, &v);
    check_eq(v.bytes_received, sent);
}

TEST(inside_peek, "recv(2) MSG_PEEK: however little is unread, some of what waits is found")
{
    connect_inside(0);
    send_all();
    while (client->sendbuf.len > 16384) {
        check(call_recv(server, 7001) == 7001);
        check_eq(call_recv_flags(server, 8000, TCP_RECV_PEEK), 8000);
    }
}

TEST(inside_tells_of_all, "epoll(7): text that comes while the reader reads is a new edge")
{
    connect_inside(0);
    send_all();
    while (recvbuf_ready(&server->recvbuf) > 50000)
        check(call_recv(server, 50000) > 0);
    events_of(server);
    check(call_recv(server, 50000) > 0);
    check(recvbuf_ready(&server->recvbuf) > 0 && client->sendbuf.len > 0);
    check((events_of(server) & TCP_EV_IN) != 0);
}

TEST(inside_reader_stops,
     "RFC 9293 3.8.6.1: a probe finds the window of a reader that stops reading")
{
    connect_inside(0);
    const int64_t sent = send_all();
    int64_t read = 0, r;
    while (recvbuf_ready(&server->recvbuf) > 20000)
        read += call_recv(server, 10000);
    const uint32_t unread = recvbuf_ready(&server->recvbuf), waiting = client->sendbuf.len;
    t_run(sec(3));
    check(client->sendbuf.len < waiting);
    check(recvbuf_ready(&server->recvbuf) > unread);
    t_run(sec(700));
    while ((r = call_recv(server, 100000)) > 0) {
        read += r;
        t_run(ms(1));
    }
    check_eq(read, sent);
    check_eq(tcp_state(client), TCP_ESTABLISHED);
}

TEST(inside_records, "MSG_EOR, MSG_ZEROCOPY and stamps: segments, behind what waits")
{
    struct tcp_report report;
    for (unsigned what = 0; what < 3; what++) {
        connect_inside(0);
        int64_t sent = send_all(), read = 0, r;
        if (what == 0) {
            tcp_opts(client)->sndbuf += 1000;
            check_eq(call_send_flags(client, 1000, TCP_SEND_EOR), 1000);
            sent += 1000;
        } else if (what == 1) {
            tcp_zerocopy_done(the_cx(), client);
        } else {
            check_eq(tcp_set_stamps(the_cx(), client, 1u << TCP_REPORT_ACKED, 1,
                                    TCP_STAMP_BASE_UNWRITTEN),
                     0);
            tcp_opts(client)->sndbuf += 1000;
            check_eq(call_send(client, 1000), 1000);
            sent += 1000;
        }
        while (read < sent) {
            while ((r = call_recv(server, 30000)) > 0)
                read += r;
            t_run(ms(1));
        }
        t_run(ms(300));
        check_eq(tcp_take_report(the_cx(), client, &report), what != 0);
        check(what != 2 || (report.kind == TCP_REPORT_ACKED && report.first == 999));
        const uint64_t before = segments();
        check_eq(call_send(client, 1000), 1000);
        check(segments() > before);
        check_eq(call_recv(server, 2000), 1000);
    }
}

TEST(inside_urgent, "send(2) MSG_OOB: told at once where it is, and stands where it was written")
{
    connect_inside(0);
    tcp_opts(server)->oobinline = true;
    check_eq(call_send(client, 1000), 1000);
    check_eq(call_send_flags(client, 1, TCP_SEND_OOB), 1);
    check_eq(call_send(client, 1000), 1000);
    check((tcp_poll(server) & TCP_EV_PRI) != 0);
    check_eq(call_recv(server, 5000), 1000);
    check(tcp_at_mark(server));
    check_eq(call_recv(server, 5000), 1001);
    const uint32_t some = server->rcv_limit + 10000;
    check_eq(call_send(client, some), some);
    check(client->sendbuf.len > 0);
    check_eq(call_recv(server, 40000), 40000); /* enough is left to read: nothing more passes */
    check_eq(tcp_poll(server) & TCP_EV_PRI, 0);
    check_eq(call_send_flags(client, 1, TCP_SEND_OOB), 1);
    check((tcp_poll(server) & TCP_EV_PRI) != 0);
}

static void some_option(uint64_t *state, struct tcp_conn *c, bool few)
{
    switch (draw(state, few ? 4 : 6)) {
    case 0:
        tcp_opts(c)->cork = draw(state, 3) == 0;
        break;
    case 1:
        tcp_opts(c)->nodelay = draw(state, 2) == 0;
        break;
    case 2:
        tcp_opts(c)->rcvlowat = draw(state, 2) == 0 ? 1 : 1 + draw(state, 5000);
        break;
    case 3:
        tcp_quickack(the_cx(), c, draw(state, 2) == 0);
        return;
    case 4:
        tcp_set_stamps(the_cx(), c, 1u << TCP_REPORT_ACKED, 1, TCP_STAMP_BASE_KEPT);
        return;
    default:
        tcp_zerocopy_done(the_cx(), c);
        return;
    }
    call_opts_changed(c);
}

/* few: nothing that ends the use of this way for good. */
static void some_step(uint64_t *state, uint64_t sent[2], uint64_t got[2], bool few)
{
    struct tcp_conn *const ends[2] = {client, server};
    const uint32_t kinds[] = {TCP_SEND_MORE, TCP_SEND_OOB, TCP_SEND_MORE, TCP_SEND_EOR};
    const unsigned way = draw(state, 2);
    const uint32_t sizes[] = {1, 100, 5000, 70000, 300000};
    const uint32_t n = 1 + draw(state, sizes[draw(state, ARRAY_LEN(sizes))]);
    int64_t r;
    switch (draw(state, 10)) {
    case 0:
        look(draw(state, 3) == 0);
        break;
    case 1:
        t_run(ms(draw(state, 60)));
        break;
    case 2:
        some_option(state, ends[way], few);
        break;
    case 3:
        r = call_send_flags(ends[way], n, kinds[draw(state, few ? 3 : 4)]);
        sent[way] += r > 0 ? (uint64_t)r : 0;
        break;
    case 4:
    case 5:
    case 6:
        r = call_send(ends[way], n);
        check(r > 0 || r == -EAGAIN);
        sent[way] += r > 0 ? (uint64_t)r : 0;
        break;
    default:
        r = call_recv(ends[1 - way], n);
        check(r > 0 || r == -EAGAIN);
        got[way] += r > 0 ? (uint64_t)r : 0;
    }
}

TEST(inside_or_not, "text and segments in turn, whatever is sent and set: all arrives, in order")
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t state = seed, sent[2] = {0}, got[2] = {0};
        connect_inside(seed % 3 == 0 ? 4000u << seed % 5 : 0);
        tcp_opts(client)->oobinline = tcp_opts(server)->oobinline = true;
        for (unsigned i = 0; i < 300; i++)
            some_step(&state, sent, got, seed % 4 != 0);
        struct tcp_conn *const ends[2] = {client, server};
        for (unsigned way = 0; way < 2; way++) {
            tcp_opts(ends[way])->cork = false;
            call_opts_changed(ends[way]);
            tcp_push(the_cx(), ends[way]);
        }
        for (unsigned i = 0; i < 2000 && (got[0] < sent[0] || got[1] < sent[1]); i++) {
            for (unsigned way = 0; way < 2; way++) {
                const int64_t r = call_recv(ends[1 - way], 100000);
                got[way] += r > 0 ? (uint64_t)r : 0;
            }
            t_run(ms(10));
        }
        check_eq(got[0], sent[0]);
        check_eq(got[1], sent[1]);
    }
}

/* ---- text in the hands of who copies it (stack/tcp/parcel.h) ---- */

#define HOLDER 7
#define PIECE  40000u
#define PIECES 3

static uint8_t piece[PIECES][PIECE];

static uint64_t in_hand(void)
{
    return the_stack()->tcp.parcels.live;
}

/* A piece of so many bytes, all of them `mark`; NULL: not by parcel. */
static struct tcp_parcel *pack(uint8_t mark, uint32_t len)
{
    struct tcp_parcel *p = tcp_pack(the_cx(), client, len, HOLDER);
    memset(piece[0], mark, PIECE);
    if (p != NULL)
        tcp_parcel_fill(p, piece[0]);
    return p;
}

static struct tcp_parcel *take(unsigned to, int64_t *got)
{
    struct tcp_parcel *p;
    const struct slice s = {piece[to], PIECE};
    *got = tcp_recv_parcel(the_cx(), server, &s, HOLDER, &p);
    return p;
}

static void check_marks(const uint8_t *text, int64_t len, uint8_t mark)
{
    for (int64_t i = 0; i < len; i++)
        check_eq(text[i], mark);
}

TEST(parcel_passes,
     "large text passes by whole chunks, in no more than the two copies of who has it")
{
    connect_inside(0);
    const uint64_t before = segments();
    for (unsigned i = 1; i <= 20; i++) {
        int64_t got;
        struct tcp_parcel *p = pack((uint8_t)i, PIECE);
        check(p != NULL && tcp_parcel_len(p) == PIECE);
        check_eq(tcp_outq(client), 0); /* it is nobody's yet */
        check_eq(tcp_inq(server), 0);
        check_eq(tcp_send_parcel(the_cx(), client, p), PIECE);
        check_eq(tcp_inq(server), PIECE);
        check((tcp_poll(server) & TCP_EV_IN) != 0);
        p = take(1, &got);
        check(p != NULL);
        check_eq(got, PIECE);
        check_eq(tcp_inq(server), 0);
        tcp_parcel_empty(p, piece[1]);
        tcp_parcel_free(the_cx(), p);
        check_marks(piece[1], got, (uint8_t)i);
        check_eq(the_stack()->tcp.chunks.live, 0);
    }
    check_eq(segments() - before, 20);
    check(pack(0, 16383) == NULL); /* not worth it */
    look(true);
    check(pack(0, PIECE) == NULL);
    check_eq(in_hand(), 0);
}

TEST(parcel_order, "two readers at once: each has a part without gaps, the second what follows")
{
    int64_t got[2];
    connect_inside(0);
    struct tcp_parcel *first = pack(1, PIECE), *second = pack(2, PIECE), *p[2];
    check_eq(tcp_send_parcel(the_cx(), client, second), PIECE);
    check_eq(tcp_send_parcel(the_cx(), client, first), PIECE); /* as they are handed in */
    p[0] = take(1, &got[0]);
    p[1] = take(2, &got[1]);
    check(p[0] != NULL && p[1] != NULL && got[0] == PIECE && got[1] == PIECE);
    tcp_parcel_empty(p[1], piece[2]);
    tcp_parcel_free(the_cx(), p[1]);
    check_eq(call_send(client, 5000), 5000); /* takes what the second gave back */
    tcp_parcel_empty(p[0], piece[1]);
    tcp_parcel_free(the_cx(), p[0]);
    check_marks(piece[1], PIECE, 2);
    check_marks(piece[2], PIECE, 1);
    while (call_recv(server, 70000) > 0)
        ;
    check_eq(in_hand(), 0);
}

TEST(parcel_waits,
     "a window and a send buffer full of pieces, read in others: nothing lost or doubled")
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint64_t state = seed;
        uint32_t sent = 0, got = 0, part = 0;
        struct tcp_parcel *p;
        connect_inside(0);
        tcp_opts(server)->rcvlowat = seed % 5 == 0 ? 20000 : 1;
        for (unsigned i = 0; i < 300; i++) {
            const uint32_t len = 16384 + draw(&state, PIECE - 16384);
            if (draw(&state, 2) == 0 && (p = tcp_pack(the_cx(), client, len, HOLDER)) != NULL) {
                const uint32_t n = tcp_parcel_len(p);
                for (uint32_t k = 0; k < n; k++)
                    piece[0][k] = (uint8_t)((sent + k) % 251);
                tcp_parcel_fill(p, piece[0]);
                check_eq(tcp_send_parcel(the_cx(), client, p), n);
                sent += n;
            } else {
                int64_t n = 0;
                const struct slice s = {piece[1], 1 + draw(&state, PIECE)};
                p = NULL;
                if (draw(&state, 3) != 0)
                    n = tcp_recv_parcel(the_cx(), server, &s, HOLDER, &p);
                if (n == 0)
                    n = tcp_recv(the_cx(), server, &s, 1, 0, 0);
                if (p != NULL) {
                    tcp_parcel_empty(p, piece[1]);
                    tcp_parcel_free(the_cx(), p);
                }
                for (int64_t k = 0; k < n; k++)
                    check_eq(piece[1][k], (got + k) % 251);
                got += n > 0 ? (uint32_t)n : 0;
                part += p != NULL;
            }
            flush();
            check(client->sendbuf.len == 0 || (tcp_poll(server) & TCP_EV_IN) != 0);
            check_eq(tcp_outq(client) + tcp_inq(server), sent - got);
        }
        check(part > 0);
        check_eq(in_hand(), 0);
    }
}

TEST(parcel_too_late,
     "reset, shut down or closed while it was copied: refused, and nothing is left")
{
    /* Linux: after the peer's close it is the next one that fails, by the reset */
    const int64_t results[] = {-EPIPE, -ECONNRESET, -ECONNRESET, PIECE};
    for (unsigned what = 0; what < ARRAY_LEN(results); what++) {
        connect_inside(0);
        struct tcp_parcel *p = pack(1, PIECE);
        check(p != NULL);
        if (what == 0)
            call_shutdown(client, TCP_SHUT_WR);
        else if (what == 1)
            call_abort(server);
        else if (what == 2)
            tcp_disconnect(the_cx(), client);
        else
            call_close(server);
        t_run(ms(1));
        const int64_t r = tcp_send_parcel(the_cx(), client, p);
        check_eq(r, results[what]);
        t_run(ms(1));
        check_eq(in_hand(), 0);
        check_eq(the_stack()->tcp.chunks.live, 0);
    }
}

TEST(parcel_watched, "looked at while it was copied: by segments")
{
    connect_inside(0);
    struct tcp_parcel *p = pack(1, PIECE);
    const uint64_t before = segments();
    look(true);
    check_eq(tcp_send_parcel(the_cx(), client, p), PIECE);
    flush();
    t_run(ms(1));
    check(segments() > before + 1);
    check_eq(tcp_inq(server), PIECE);
}

TEST(parcel_of_the_dead, "chunks in hand live through a repair, until their holder is dead")
{
    int64_t got;
    connect_inside(0);
    struct tcp_parcel *out = pack(1, PIECE), *in;
    check_eq(tcp_send_parcel(the_cx(), client, out), PIECE);
    in = take(1, &got);
    out = pack(2, PIECE);
    check(in != NULL && out != NULL);
    stack_repair(the_cx());
    check_eq(call_send(client, 20000), 20000); /* takes none of theirs */
    tcp_parcel_empty(in, piece[1]);
    check_marks(piece[1], got, 1);
    tcp_parcel_free(the_cx(), in);
    tcp_parcels_drop(the_stack(), HOLDER + 1);
    check_eq(in_hand(), 1);
    tcp_parcels_drop(the_stack(), HOLDER);
    check_eq(in_hand(), 0);
    check_eq(call_recv(server, 30000), 20000);
    check_eq(the_stack()->tcp.chunks.live, 0);
}
