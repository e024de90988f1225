/*
 * Accurate ECN (RFC 9768). The ACE field is AE, CWR, ECE (N, W, E here); counts begin at 5 (NE),
 * and those of the option at 1, 0, 1 (ECT(1), CE, ECT(0)). tos 1: ECT(1), 2: ECT(0), 3: CE.
 */
#include "stack/tcp/conn.h"
#include "tests/packet/harness.h"

#include <stdio.h>

#define OPTS   "<mss 1460,sackOK,nop,nop>"
#define OPTS_A "<mss 1460,sackOK,nop,nop,accecn 1 0 1,nop>"
#define OPTS_T "<mss 1460,sackOK,ts 1 0,nop,wscale 7>"

static struct tcp_view view(struct tcp_conn *c)
{
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    return v;
}

static struct tcp_view_accecn counts(struct tcp_conn *c)
{
    struct tcp_view_accecn v = {0};
    tcp_view_accecn(c, &v);
    return v;
}

static void accurate_world(uint8_t cc)
{
    world((struct world_opts){.ecn = STACK_ECN_ACCURATE, .cc = cc});
}

/* A connection of ours; the SYN-ACK has these options. */
static struct tcp_conn *client_cc(uint8_t cc, const char *opts)
{
    accurate_world(cc);
    struct tcp_conn *c = call_connect();
    expect_tx("SEWN seq 0 tos 0 <!accecn>");
    t_run(ms(50));
    char syn_ack[120];
    snprintf(syn_ack, sizeof(syn_ack), "SAW seq 0 ack 1 %s", opts);
    inject(syn_ack);
    expect_tx("AW seq 1 ack 1 tos 2");
    return c;
}

static struct tcp_conn *client(const char *opts)
{
    return client_cc(TCP_CC_CUBIC, opts);
}

/* One that was accepted; the third ACK is this. */
static struct tcp_conn *server(const char *third)
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_listener *l = call_listen(5);
    inject("SEWN seq 0 " OPTS);
    expect_tx("SAW seq 0 ack 1 tos 0 <accecn 1 0 1>");
    t_run(ms(50));
    inject(third);
    struct tcp_conn *c = call_accept(l);
    check(c != NULL);
    return c;
}

static struct tcp_conn *usual_server(void)
{
    return server("AW seq 1 ack 1 tos 2 <accecn 1 0 1>");
}

TEST(accecn_asked_for,
     "RFC 9768 3.1.1, 3.2.2.1: a SYN with all three flags; the ACK says how the SYN-ACK came")
{
    struct tcp_conn *c = client(OPTS_A);
    check(view(c).ecn && view(c).accecn);
    call_send(c, 1000);
    expect_tx("AEN seq 1 len 1000 tos 2 <accecn 1 0 1>");
    inject("AEN ack 1001 len 500 tos 2 <accecn 1 0 1001>");
    expect_tx("AEN ack 501 tos 2 <accecn 1 0 501>");
    check_eq(counts(c).delivered_e0, 1000);
    check_eq(counts(c).received_e0, 500);
}

TEST(accecn_syn_ack_field, "RFC 9768 table 3: the four ECN fields of a SYN-ACK, of which CE counts")
{
    static const char *const third[] = {"AW", "AEW", "AN", "AWN"};
    for (unsigned field = 0; field < 4; field++) {
        accurate_world(TCP_CC_CUBIC);
        struct tcp_conn *c = call_connect();
        drain_tx();
        char text[80];
        snprintf(text, sizeof(text), "SAW seq 0 ack 1 tos %u " OPTS, field);
        inject(text);
        snprintf(text, sizeof(text), "%s seq 1 len 0", third[field]);
        expect_tx(text);
        call_send(c, 10);
        expect_tx(field == 3 ? "AWN seq 1 len 10" : "AEN seq 1 len 10");
    }
}

TEST(
    accecn_syn_ack_again,
    "RFC 9768 3.2.2.1: a SYN-ACK that comes again is acknowledged with its own field, counted once")
{
    struct tcp_conn *c = client(OPTS);
    t_run(sec(1));
    inject("SAW seq 0 ack 1 tos 3 " OPTS);
    expect_tx("AWN seq 1 ack 1 len 0");
    t_run(sec(1));
    inject("SA seq 0 ack 1 tos 2 " OPTS);
    expect_tx("AN seq 1 ack 1 len 0");
    call_send(c, 10);
    expect_tx("AEN seq 1 len 10");
}

TEST(accecn_answers, "RFC 9768 table 2: what a SYN-ACK makes of a SYN that asked")
{
    static const struct {
        const char *syn_ack, *ack;
        bool ecn, accurate;
    } rows[] = {
        {"SA", "A tos 0", false, false},    /* no ECN */
        {"SAEWN", "A tos 0", false, false}, /* broken */
        {"SAE", "A tos 0", true, false},    /* RFC 3168 */
        {"SAEN", "AW tos 2", true, true},   /* reserved: as if the SYN had arrived unchanged */
        {"SAW", "AW tos 2", true, true},
        {"SAEW", "AW tos 0", true, true}, /* a path that makes ECT of Not-ECT: 3.2.2.3 */
        {"SAN", "AW tos 0", true, true},
        {"SAWN", "AW tos 0", true, true},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        accurate_world(TCP_CC_CUBIC);
        struct tcp_conn *c = call_connect();
        drain_tx();
        char text[80];
        snprintf(text, sizeof(text), "%s seq 0 ack 1 " OPTS, rows[i].syn_ack);
        inject(text);
        expect_tx(rows[i].ack);
        check_eq(view(c).ecn, rows[i].ecn);
        check_eq(view(c).accecn, rows[i].accurate);
    }
}

TEST(accecn_syn_again, "RFC 9768 3.1.4.1: asked for twice, then the SYN goes without")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_conn *c = call_connect();
    expect_tx("SEWN seq 0");
    expect_tx_in(ms(990), ms(1010), "SEWN seq 0");
    expect_tx_in(ms(1990), ms(2010), "S seq 0");
    inject("SAW seq 0 ack 1 " OPTS); /* of the first: a client may set ECT all the same */
    expect_tx("AW seq 1 tos 2");
    check(view(c).accecn);
}

TEST(accecn_offered, "RFC 9768 table 2: the SYN-ACK says how the SYN came")
{
    static const char *const answers[] = {"SAW", "SAEW", "SAN", "SAWN"};
    for (unsigned field = 0; field < 4; field++) {
        accurate_world(TCP_CC_CUBIC);
        call_listen(5);
        char text[80];
        snprintf(text, sizeof(text), "SEWN seq 0 tos %u " OPTS, field);
        inject(text);
        snprintf(text, sizeof(text), "%s seq 0 ack 1 tos 0 <accecn 1 0 1>", answers[field]);
        expect_tx(text);
    }
}

TEST(accecn_syn_flags, "RFC 9768 3.1.2, 3.1.3: other flags of a SYN, and what is not allowed here")
{
    static const struct {
        uint8_t mode;
        const char *syn, *answer;
    } rows[] = {
        {STACK_ECN_ACCURATE, "SN", "SAW"},
        {STACK_ECN_ACCURATE, "SEN", "SAW"},
        {STACK_ECN_ACCURATE, "SWN", "SAW"},
        {STACK_ECN_ACCURATE, "SE", "SAW"},
        {STACK_ECN_ACCURATE, "SW", "SAW"},
        {STACK_ECN_ACCURATE, "SEW", "SAE"},
        {STACK_ECN_ACCURATE, "S", "SA"},
        {STACK_ECN_ACCURATE_ACCEPT, "SEWN", "SAW"},
        {STACK_ECN_ACCURATE_ASK_CLASSIC, "SEWN", "SAW"},
        {STACK_ECN_ASK, "SEWN", "SAE"},
        {STACK_ECN_ACCEPT, "SEWN", "SAE"},
        {STACK_ECN_OFF, "SEWN", "SA"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        world((struct world_opts){.ecn = rows[i].mode});
        call_listen(5);
        char text[80];
        snprintf(text, sizeof(text), "%s seq 0 " OPTS, rows[i].syn);
        inject(text);
        snprintf(text, sizeof(text), "%s seq 0 ack 1", rows[i].answer);
        expect_tx(text);
    }
}

TEST(accecn_asks_less, "Linux's tcp_ecn of 4 asks for RFC 3168's marks, 5 for none")
{
    world((struct world_opts){.ecn = STACK_ECN_ACCURATE_ASK_CLASSIC});
    call_connect();
    expect_tx("SEW seq 0");
    world((struct world_opts){.ecn = STACK_ECN_ACCURATE_ACCEPT});
    call_connect();
    expect_tx("S seq 0");
}

TEST(accecn_syn_ack_repeated,
     "RFC 9768 3.2.3.2.2, 3.1.5: without the option, then without flags; then no ECT any more")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_listener *l = call_listen(5);
    inject("SEWN seq 0 " OPTS);
    expect_tx("SAW seq 0 ack 1 <accecn 1 0 1>");
    expect_tx_in(ms(990), ms(1010), "SAW seq 0 ack 1 <!accecn>");
    expect_tx_in(ms(1990), ms(2010), "SA seq 0 ack 1 <!accecn>");
    inject("AW seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    check(view(c).accecn);
    call_send(c, 100);
    expect_tx("AEN seq 1 len 100 tos 0");
}

TEST(accecn_latest_syn, "RFC 9768 3.1.5: the last SYN's field is told; one without flags ends ECT")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_listener *l = call_listen(5);
    inject("SEWN seq 0 tos 3 " OPTS);
    expect_tx("SAWN seq 0 ack 1 <accecn 1 0 1>");
    inject("SEWN seq 0 tos 2 " OPTS);
    expect_tx("SAN seq 0 ack 1 <!accecn>");
    inject("S seq 0 " OPTS);
    expect_tx("SAW seq 0 ack 1 <!accecn>");
    inject("AW seq 1 ack 1");
    struct tcp_conn *c = call_accept(l);
    call_send(c, 100);
    expect_tx("AEN seq 1 len 100 tos 0");
}

TEST(accecn_mixed, "RFC 9768 3.1.5: a SYN that asks for the other kind of ECN is answered by RST")
{
    accurate_world(TCP_CC_CUBIC);
    call_listen(5);
    inject("SEWN seq 0 " OPTS);
    expect_tx("SAW seq 0 ack 1");
    inject("SEW seq 0 " OPTS);
    expect_tx("RA seq *");
    expect_state(TCP_CLOSED);
    accurate_world(TCP_CC_CUBIC);
    call_listen(5);
    inject("SEW seq 0 " OPTS);
    expect_tx("SAE seq 0 ack 1");
    inject("SEWN seq 0 " OPTS);
    expect_tx("RA seq *");
}

TEST(accecn_third_ack,
     "RFC 9768 table 4: what the third ACK says of the SYN-ACK, which left as Not-ECT")
{
    static const struct {
        const char *ace;
        unsigned tos, delivered, marks_later; /* after an ACK that counts one mark more than 5 */
    } rows[] = {
        {"AW", 2, 0, 1},                                       /* unchanged */
        {"AEW", 0, 0, 1}, {"AN", 0, 0, 1},                     /* changed on the way */
        {"AWN", 0, 1, 1},                                      /* CE: counted, and not again */
        {"A", 0, 0, 0},                                        /* the client may not count at all */
        {"AE", 2, 0, 1},  {"AEN", 2, 0, 1}, {"AEWN", 2, 0, 1}, /* of no meaning yet */
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        char text[80];
        snprintf(text, sizeof(text), "%s seq 1 ack 1 tos 2", rows[i].ace);
        struct tcp_conn *c = server(text);
        check_eq(counts(c).delivered_ce, rows[i].delivered);
        call_send(c, 100);
        snprintf(text, sizeof(text), "AEN seq 1 len 100 tos %u", rows[i].tos);
        expect_tx(text);
        inject("AWN ack 101");
        check_eq(counts(c).delivered_ce, rows[i].marks_later);
    }
}

TEST(accecn_third_ack_lost, "RFC 9768 3.2.2.1: text in place of the third ACK has the counter")
{
    struct tcp_conn *c = server("AEN seq 1 ack 1 len 100 tos 3");
    expect_tx("AWN ack 101");
    check_eq(counts(c).received_ce, 1);
    check_eq(counts(c).delivered_ce, 0);
    call_send(c, 100);
    expect_tx("AWN seq 1 len 100 tos 2");
}

TEST(accecn_cookie, "RFC 9768 5.1: the third ACK of a SYN cookie tells that it was agreed on")
{
    static const struct {
        const char *third, *data;
    } rows[] = {{"AW", "AEN seq 1 len 10 tos 2"}, {"A", "A seq 1 len 10 tos 0"}};
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        accurate_world(TCP_CC_CUBIC);
        struct tcp_listener *l = call_listen(0);
        flow(LISTEN_PORT, 1);
        inject("S seq 0");
        drain_tx();
        flow(LISTEN_PORT, CLIENT_PORT);
        inject("SEWN seq 0 " OPTS);
        expect_tx("SAW seq 0 ack 1 <accecn 1 0 1>");
        check_eq(counter(COUNT_COOKIES_SENT), 1);
        char text[40];
        snprintf(text, sizeof(text), "%s seq 1 ack 1", rows[i].third);
        inject(text);
        struct tcp_conn *c = call_accept(l);
        check(c != NULL);
        call_send(c, 10);
        expect_tx(rows[i].data);
    }
}

TEST(accecn_crossing, "RFC 9768 3.1.1: SYNs that cross, both of which ask")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_conn *c = call_connect();
    expect_tx("SEWN seq 0");
    inject("SEWN seq 0 tos 2 " OPTS);
    expect_tx("SAN seq 0 ack 1 <accecn 1 0 1>");
    inject("SAW seq 0 ack 1 " OPTS);
    drain_tx();
    check(view(c).accecn);
    call_send(c, 10);
    expect_tx("AEN seq 1 len 10");
}

TEST(accecn_crossing_ack, "RFC 9768 table 4: an ACK in SYN_RECEIVED says how our SYN-ACK came")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_conn *c = call_connect();
    expect_tx("SEWN seq 0");
    inject("SEWN seq 0 " OPTS);
    expect_tx("SAW seq 0 ack 1");
    inject("AW seq 1 ack 1");
    expect_state(TCP_ESTABLISHED);
    check_eq(counts(c).delivered_ce, 0);
}

TEST(accecn_counts, "RFC 9768 3.2, 3.2.2.2: CE marks in the ACE field, which wraps; bytes by mark")
{
    struct tcp_conn *c = usual_server();
    static const char *const ace[] = {"AWN", "AEWN", "A", "AE", "AW", "AEW", "AN", "AEN", "AWN"};
    for (unsigned i = 0; i < ARRAY_LEN(ace); i++) {
        char text[80];
        inject("AEN len 100 tos 3 <accecn 1 0 1>");
        snprintf(text, sizeof(text), "%s ack %u <accecn 1 %u 1>", ace[i], 1 + 100 * (i + 1),
                 100 * (i + 1));
        expect_tx(text);
    }
    inject("AEN len 100 tos 1");
    expect_tx("AWN ack 1001 <accecn 101 900 1>");
    inject("AEN len 100 tos 2");
    expect_tx("AWN ack 1101 <accecn 101 900 101>");
    check_eq(counts(c).received_ce, 9);
    check_eq(counts(c).received_ce_bytes, 900);
    check(view(c).ecn_seen);
}

TEST(accecn_first_ack_alone, "RFC 9768 3.2.2.5.2: Linux reads the option from the second ACK of "
                             "text on; a first one of more "
                             "than seven segments would seem a wrap to it")
{
    struct tcp_conn *c = usual_server();
    frames_together(true);
    for (unsigned i = 0; i < 10; i++)
        inject("AEN len 1460 tos 2");
    frames_together(false);
    expect_tx("AEN ack 5841 <accecn 1 0 5841>");
    expect_tx("AEN ack 14601 <accecn 1 0 14601>");
    call_recv(c, 14600);
    drain_tx();
    frames_together(true);
    for (unsigned i = 0; i < 10; i++)
        inject("AEN len 1460 tos 2");
    frames_together(false);
    expect_tx("AEN ack 29201");
}

TEST(accecn_counts_duplicates, "RFC 9768 3.2: text that comes again counts again")
{
    usual_server();
    inject("AEN seq 1 len 100 tos 3");
    expect_tx("AWN ack 101 <accecn 1 100 1>");
    inject("AEN seq 1 len 100 tos 3");
    expect_tx("AEWN ack 101 <accecn 1 200 1>");
    inject("AEN seq 100000 len 100 tos 3"); /* outside the window: not acceptable */
    expect_tx("AEWN ack 101");
}

TEST(accecn_ack_on_change,
     "RFC 9768 3.2.2.5.1: a first mark is acknowledged at once, and each second one")
{
    struct tcp_conn *c = usual_server();
    for (unsigned i = 0; i < 20; i++) { /* past the quick ACKs of a beginning */
        inject("AEN len 1000 tos 2");
        call_recv(c, 1000);
    }
    drain_tx();
    tcp_opts(c)->quickack_off = true;
    call_opts_changed(c);
    inject("AEN len 10 tos 2");
    expect_none(ms(10));
    inject("AEN len 10 tos 3");
    expect_tx("AWN ack 20021");
    inject("AEN len 10 tos 3");
    expect_none(ms(10));
    inject("AEN len 10 tos 3");
    expect_tx("A ack 20041");
    inject("AEN len 10 tos 2");
    expect_tx("A ack 20051");
}

TEST(accecn_ack_of_acks,
     "RFC 9768 3.2.2.5.1: marks on ACKs are acknowledged by threes, where ACKs are no duplicates")
{
    struct tcp_conn *c = usual_server();
    call_send(c, 10000);
    drain_tx();
    inject("AEN ack 1461 tos 3");
    inject("AEN ack 2921 tos 3");
    check_eq(pending_tx(), 0);
    inject("AEN ack 4381 tos 3");
    expect_tx("A seq 10001 len 0");
    drain_tx();
}

TEST(accecn_reduces_once, "RFC 9768 3.1.5, 4: marks reduce the window once a round trip; no CWR")
{
    struct tcp_conn *c = client(OPTS);
    check_eq(call_send(c, 60000), 60000);
    check_eq(drain_tx(), 10);
    t_run(ms(50));
    inject("AWN ack 1461");
    check_eq(view(c).ca_state, 2);
    check_eq(view(c).ssthresh, 14600 * 7 / 10);
    inject("AEWN ack 2921");
    inject("A ack 4381");
    check_eq(view(c).ssthresh, 14600 * 7 / 10);
    check_eq(counter(COUNT_ECN_REDUCED), 1);
    check_eq(counts(c).delivered_ce, 3);
    uint32_t len;
    for (const uint8_t *f; (f = next_tx(&len));)
        check_eq(f[L2_LEN + IP4_LEN + 13] & (TCP_CWR | TCP_ECE), TCP_ECE); /* of ACE 5 */
}

TEST(accecn_superseded, "RFC 9768 3.2.2.2: an ACK that may be older than the last says nothing")
{
    struct tcp_conn *c = client(OPTS);
    call_send(c, 1000);
    drain_tx();
    inject("AWN ack 1");
    check_eq(counts(c).delivered_ce, 0);
    inject("AWN ack 1001");
    check_eq(counts(c).delivered_ce, 1);
}

TEST(accecn_newer_by_stamp, "RFC 9768 A.1: a newer timestamp tells that an ACK is not old")
{
    struct tcp_conn *c = client(OPTS_T);
    call_send(c, 1000);
    drain_tx();
    inject("AWN ack 1 <nop,nop,ts 1 0>");
    check_eq(counts(c).delivered_ce, 0);
    inject("AWN ack 1 <nop,nop,ts 2 0>");
    check_eq(counts(c).delivered_ce, 1);
}

TEST(accecn_marks_of_acks, "RFC 9768 3.2.2.1: who only receives hears by text how its ACKs fare; "
                           "its own text was unmarked")
{
    accurate_world(TCP_CC_CUBIC);
    struct tcp_listener *l = call_listen(5);
    inject("SEWN seq 0 " OPTS_T);
    drain_tx();
    inject("AW seq 1 ack 1 tos 2 <nop,nop,ts 2 0>");
    struct tcp_conn *c = call_accept(l);
    static const char *const ace[] = {"AEN", "AWN", "AEWN"}; /* 5, 6, 7 */
    for (unsigned i = 0; i < 3; i++) {
        char text[60];
        snprintf(text, sizeof(text), "%s len 100 tos 2 <nop,nop,ts %u 0>", ace[i], 3 + i);
        inject(text);
        check_eq(counts(c).delivered_ce, i);
    }
    call_send(c, 1000);
    drain_tx();
    inject("AEWN ack 1001 <nop,nop,ts 6 0>");
    check_eq(counts(c).delivered_ce, 2);
    check_eq(counter(COUNT_ECN_REDUCED), 0);
}

TEST(accecn_safe_count, "RFC 9768 3.2.2.5.2, A.2: many segments at once may be a wrap of the "
                        "counter, or the path's way")
{
    struct tcp_conn *c = client(OPTS);
    call_send(c, 14600);
    drain_tx();
    inject("AEN ack 1461");
    inject("AEN ack 14601"); /* nine at once, where one at a time is usual */
    check_eq(counts(c).delivered_ce, 8);
    c = client(OPTS);
    call_send(c, 14600);
    drain_tx();
    inject("AEN ack 14601"); /* ten at once from the first on */
    check_eq(counts(c).delivered_ce, 0);
}

TEST(accecn_option_settles,
     "RFC 9768 3.2.3.2.5: the option's bytes tell how often the field wrapped")
{
    struct tcp_conn *c = client("<mss 1472,sackOK,nop,nop,accecn 1 0 1,nop>");
    call_send(c, 14480);
    drain_tx();
    inject("AEN ack 14481 <accecn 1 11584 2897,nop>"); /* eight of ten segments of 1448 */
    check_eq(counts(c).delivered_ce, 8);
    check_eq(counts(c).delivered_ce_bytes, 11584);
    check_eq(counts(c).delivered_e0, 2896);
}

TEST(accecn_option_orders, "RFC 9768 3.2.3: both orders are read, of any length")
{
    struct tcp_conn *c = client(OPTS_A);
    call_send(c, 3000);
    drain_tx();
    inject("AEN ack 1001 <hex ac080003e9000000>"); /* 172: ECT(0), CE */
    check_eq(counts(c).delivered_e0, 1000);
    inject("AWN ack 2001 <hex ae0b0000010003e80003e901>"); /* 174: ECT(1), CE, ECT(0) */
    check_eq(counts(c).delivered_ce_bytes, 1000);
    inject("AWN ack 3001 <hex ae0700000100ff01>"); /* one counter and what is none: padding */
    check_eq(counts(c).delivered_e1, 0);
    check_eq(counts(c).delivered_ce, 1);
}

TEST(accecn_option_zeroed, "RFC 9768 3.2.3.2.4: counters that begin at zero are not believed")
{
    struct tcp_conn *c = client("<mss 1460,sackOK,nop,nop,accecn 0 0 0,nop>");
    call_send(c, 1000);
    expect_tx("AEN seq 1 len 1000");
    inject("AEN ack 1001 <accecn 0 1000 0,nop>");
    check_eq(counts(c).delivered_ce_bytes, 0);
    check_eq(counts(c).option_seen, 3);
}

TEST(accecn_option_absent,
     "RFC 9768 3.2.3.2.3, Linux: the option is sent where the peer's was seen, also late")
{
    struct tcp_conn *c = client(OPTS);
    call_send(c, 1000);
    expect_tx("AEN seq 1 len 1000 <!accecn>");
    inject("AEN ack 1001 <accecn 1 0 1001,nop>");
    call_send(c, 1000);
    expect_tx("AEN seq 1001 len 1000 <accecn 1 0 1>");
}

TEST(accecn_option_lost,
     "RFC 9768 3.2.3.2.2: text comes again and again where ACKs have the option: no more of it")
{
    usual_server();
    inject("AEN seq 1 len 100 tos 2");
    expect_tx("AEN ack 101 <accecn 1 0 101>");
    inject("AEN seq 1 len 100 tos 2");
    expect_tx("AEN ack 101 <accecn 1 0 201,sack 1:101>");
    inject("AEN seq 1 len 100 tos 2");
    expect_tx("AEN ack 101 <!accecn,sack 1:101>");
    inject("AEN len 100 tos 2");
    expect_tx("AEN ack 201 <!accecn>");
}

TEST(accecn_option_beside_sack,
     "RFC 9768 3.2.3.3: counters that changed take the place of a third SACK block, of no second")
{
    accurate_world(TCP_CC_CUBIC);
    call_listen(5);
    inject("SEWN seq 0 " OPTS_T);
    expect_tx("SAW seq 0 ack 1");
    inject("AW seq 1 ack 1 tos 2 <nop,nop,ts 2 0,accecn 1 0 1,nop>");
    inject("AEN seq 1001 len 100 tos 1 <nop,nop,ts 3 0>");
    expect_tx("AEN ack 1 <accecn 101 0 1,sack 1001:1101>");
    inject("AEN seq 2001 len 100 tos 1 <nop,nop,ts 3 0>");
    expect_tx("AEN ack 1 <accecn 201 0,sack 2001:2101 1001:1101>");
    inject("AEN seq 3001 len 100 tos 3 <nop,nop,ts 3 0>");
    expect_tx("AWN ack 1 <accecn 201 100,sack 3001:3101 2001:2101>");
    inject("AEN seq 4001 len 100 tos 2 <nop,nop,ts 3 0>"); /* needs all three */
    expect_tx("AWN ack 1 <!accecn,sack 4001:4101 3001:3101 2001:2101>");
}

TEST(accecn_room_for_option, "RFC 6691: segments leave room for the option; one is not cut for it")
{
    world((struct world_opts){.ecn = STACK_ECN_ACCURATE, .gso = true, .csum_offload = true});
    struct tcp_conn *c = call_connect();
    drain_tx();
    t_run(ms(50));
    inject("SAW seq 0 ack 1 " OPTS_A);
    drain_tx();
    check_eq(tcp_mss(c), 1448);
    call_send(c, 2896);
    expect_tx("AEN seq 1 len 2896 gso 1448 <accecn 1 0 1>");
}

TEST(accecn_cwr_segments,
     "RFC 9768 3.3.4: while the ACE field has CWR a frame is one segment: devices clear it")
{
    world((struct world_opts){.ecn = STACK_ECN_ACCURATE, .gso = true, .csum_offload = true});
    struct tcp_conn *c = call_connect();
    drain_tx();
    t_run(ms(50));
    inject("SAW seq 0 ack 1 tos 3 " OPTS);
    drain_tx();
    call_send(c, 2920);
    expect_tx("AWN seq 1 len 1460 gso 0");
    expect_tx("AWN seq 1461 len 1460 gso 0");
}

TEST(accecn_dctcp_bytes, "RFC 8257 3.3 with RFC 9768: DCTCP's part is that of the bytes marked")
{
    struct tcp_conn *c = client_cc(TCP_CC_DCTCP, OPTS_A);
    uint32_t at = 1;
    for (unsigned i = 0; i < 100; i++) { /* a round trip each, without marks */
        check_eq(call_send(c, 5000), 5000);
        drain_tx();
        t_run(ms(50));
        char text[80];
        at += 5000;
        snprintf(text, sizeof(text), "AEN ack %u <accecn 1 0 %u,nop>", at, at);
        inject(text);
    }
    check(c->cc.dctcp.alpha < 16);
    check_eq(call_send(c, 10000), 10000);
    drain_tx();
    t_run(ms(50));
    const uint32_t before = c->cc.dctcp.alpha;
    inject("AWN ack 510001 <accecn 1 1448 508553,nop>");
    /* 1448 of 10000 bytes: 148 of 1024, a sixteenth of which counts */
    check(c->cc.dctcp.alpha > before && c->cc.dctcp.alpha <= before + 148 / 16);
    drain_tx();
}

TEST(accecn_stays_through_close, "RFC 9768 3.2.2.2: FIN, its ACK and TIME_WAIT have the ACE field")
{
    struct tcp_conn *c = client(OPTS);
    call_shutdown(c, TCP_SHUT_WR);
    expect_tx("FAEN seq 1 tos 2");
    inject("FAEN ack 2 tos 3");
    expect_tx("AWN seq 2 ack 2 tos 2");
    expect_state(TCP_TIME_WAIT);
    inject("FAEN seq 1 ack 2");
    expect_tx("AWN seq 2 ack 2");
}
