/* RACK-TLP (RFC 8985), PRR (RFC 6937), and the undoing of what was not needed (RFC 3708, 3522). */
#include "stack/tcp/conn.h"
#include "tests/packet/harness.h"

#include <stdio.h>

#define SACK_OPTS "<mss 1460,sackOK,nop,nop>"

/* An established connection of RTT 100 ms with SACK, that has sent n bytes, all on the wire. */
static struct tcp_conn *sending(const char *opts, uint32_t n)
{
    struct tcp_conn *c = established_after(ms(100), opts);
    check_eq(call_send(c, n), n);
    check_eq(drain_text(), min_u32(n, 14600));
    return c;
}

static struct tcp_view view(struct tcp_conn *c)
{
    struct tcp_view v;
    tcp_view(the_cx(), c, &v);
    return v;
}

/* ---- RACK ---- */

TEST(rack_waits_a_quarter, "RFC 8985 6.2 step 4: one segment above: min_RTT/4 for reordering")
{
    struct tcp_conn *c = sending(SACK_OPTS, 2920);
    t_run(ms(100));
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    expect_none(ms(20));
    expect_tx_in(ms(4), ms(7), "A seq 1 len 1460");
    check_eq(view(c).ca_state, 3);
    inject("A ack 2921");
    check_eq(view(c).ca_state, 0);
}

TEST(rack_reordering_harmless, "RFC 8985 6.2: a late segment within the window: nothing is resent")
{
    struct tcp_conn *c = sending(SACK_OPTS, 2920);
    t_run(ms(100));
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    expect_none(ms(20));
    inject("A ack 2921");
    expect_none(sec(2));
    check_eq(view(c).reord_seen, 1);
    check_eq(counter(COUNT_RETRANS), 0);
}

TEST(rack_adapts_to_reordering,
     "RFC 8985 6.2 step 3, 4: once reordering was seen three segments above are no sign of loss")
{
    struct tcp_conn *c = sending(SACK_OPTS, 2920);
    t_run(ms(100));
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    inject("A ack 2921");
    check_eq(view(c).reordering, 3); /* by two segments: fewer than is usual anyway */
    check_eq(call_send(c, 8760), 8760);
    check_eq(drain_text(), 8760);
    t_run(ms(100));
    inject("A ack 2921 <nop,nop,sack 4381:11681>"); /* five */
    expect_none(ms(20));
    inject("A ack 11681");
    check_eq(view(c).reordering, 6);
    expect_none(sec(2));
    check_eq(counter(COUNT_RETRANS), 0);
    check(view(c).cwnd >= 14600);
}

TEST(rack_lost_retransmission,
     "RFC 8985 6.2 step 5: a retransmission that was lost is found by what was sent after it")
{
    struct tcp_conn *c = sending(SACK_OPTS, 40000);
    t_run(ms(100));
    inject("A ack 1 <nop,nop,sack 1461:5841>");
    expect_tx("A seq 1 len 1460"); /* lost again */
    t_run(ms(50));
    inject("A ack 1 <nop,nop,sack 1461:14601>");
    check(drain_text() > 0); /* new data, after the retransmission */
    t_run(ms(110));
    inject("A ack 1 <nop,nop,sack 1461:20441>");
    expect_tx("A seq 1 len 1460");
    drain_tx();
    check_eq(counter(COUNT_RTOS), 0);
    check_eq(view(c).ca_state, 3);
}

TEST(rack_dsack_widens, "RFC 8985 6.2 step 4: a D-SACK makes the window one min_RTT/4 larger")
{
    struct tcp_conn *c = sending(SACK_OPTS, 2920);
    t_run(ms(100));
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    expect_tx_in(ms(24), ms(27), "A seq 1 len 1460");
    inject("A ack 2921"); /* the original, late */
    t_run(ms(100));
    inject("A ack 2921 <nop,nop,sack 1:1461>");
    check_eq(call_send(c, 2920), 2920);
    check_eq(drain_text(), 2920);
    t_run(ms(100));
    inject("A ack 2921 <nop,nop,sack 4381:5841>");
    expect_none(ms(45));
    expect_tx_in(ms(1), ms(8), "A seq 2921 len 1460");
}

/* ---- TLP ---- */

TEST(tlp_repairs_tail, "RFC 8985 7.2, 7.3: the last segment goes again after 2 SRTT")
{
    struct tcp_conn *c = sending(SACK_OPTS, 4380);
    t_run(ms(100));
    inject("A ack 1461");
    expect_none(ms(195));
    expect_tx_in(ms(1), ms(12), "PA seq 2921 len 1460");
    t_run(ms(100));
    inject("A ack 1461 <nop,nop,sack 2921:4381>"); /* the probe arrived: 1461 is lost */
    expect_tx_in(0, ms(30), "A seq 1461 len 1460");
    check_eq(counter(COUNT_RTOS), 0);
    inject("A ack 4381");
    expect_none(sec(3));
    check_eq(view(c).ca_state, 0);
}

TEST(tlp_new_data, "RFC 8985 7.3: unsent data makes the better probe, whatever cwnd is")
{
    sending(SACK_OPTS, 20000);
    expect_tx_in(ms(200), ms(205), "A seq 14601 len 1460");
    expect_tx_in(ms(200), ms(400), "A seq 1 len 1460"); /* then the RTO */
    check_eq(counter(COUNT_RTOS), 1);
}

TEST(tlp_single_segment, "RFC 8985 7.2: a lone segment waits for a delayed ACK too, not beyond RTO")
{
    sending(SACK_OPTS, 100);
    expect_none(ms(295));
    expect_tx_in(ms(0), ms(110), "PA seq 1 len 100");
    check_eq(counter(COUNT_RTOS), 0);
}

TEST(tlp_counts_as_loss, "RFC 8985 7.4.2: a loss that the probe repaired reduces cwnd")
{
    struct tcp_conn *c = sending(SACK_OPTS, 4380);
    t_run(ms(100));
    inject("A ack 2921");
    const uint32_t before = view(c).cwnd;
    expect_tx_in(ms(200), ms(410), "PA seq 2921 len 1460");
    inject("A ack 4381");
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    inject("A ack 5381");
    check(view(c).cwnd < before);
}

TEST(tlp_spurious, "RFC 8985 7.4.2: a D-SACK for the probe: nothing was lost")
{
    struct tcp_conn *c = sending(SACK_OPTS, 4380);
    t_run(ms(100));
    inject("A ack 2921");
    const uint32_t before = view(c).cwnd;
    expect_tx_in(ms(200), ms(410), "PA seq 2921 len 1460");
    inject("A ack 4381");
    inject("A ack 4381 <nop,nop,sack 2921:4381>");
    check_eq(call_send(c, 1000), 1000);
    drain_tx();
    inject("A ack 5381");
    check(view(c).cwnd >= before);
}

TEST(tlp_not_without_sack, "RFC 8985 7.2: probes need SACK; without it the RTO comes")
{
    sending("<mss 1460>", 100);
    expect_tx_in(ms(250), ms(350), "PA seq 1 len 100");
    check_eq(counter(COUNT_RTOS), 1);
}

/* ---- undo ---- */

TEST(undo_by_dsack, "RFC 3708, Linux: all retransmissions were duplicates: cwnd as before")
{
    struct tcp_conn *c = sending(SACK_OPTS, 14600);
    t_run(ms(100));
    const uint32_t before = view(c).cwnd;
    inject("A ack 1 <nop,nop,sack 1461:5841>");
    expect_tx("A seq 1 len 1460");
    inject("A ack 14601"); /* the original, late */
    check(view(c).cwnd < before);
    t_run(ms(100));
    inject("A ack 14601 <nop,nop,sack 1:1461>");
    check(view(c).cwnd >= before);
    expect_none(sec(1));
}

TEST(undo_by_timestamp, "RFC 3522 3.2: the ACK echoes the stamp of the original")
{
    struct tcp_conn *c = sending("<mss 1460,sackOK,ts 5000>", 14480);
    cur()->sends_ts = true;
    const uint32_t original = cur()->host_ts;
    t_run(ms(100));
    const uint32_t before = view(c).cwnd;
    char spec[120];
    snprintf(spec, sizeof(spec), "A ack 1 <nop,nop,ts 5100 %u,nop,nop,sack 1449:5793>", original);
    inject(spec);
    expect_tx("A seq 1 len 1448");
    check_eq(view(c).ca_state, 3);
    t_run(ms(2));
    snprintf(spec, sizeof(spec), "A ack 5793 <nop,nop,ts 5102 %u>", original);
    inject(spec);
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= before);
    snprintf(spec, sizeof(spec), "A ack 14481 <nop,nop,ts 5103 %u>", original);
    inject(spec);
    expect_none(sec(1));
}

TEST(undo_time_out_by_timestamp, "RFC 3522, 4015: a delay spike; the RTO was for nothing")
{
    struct tcp_conn *c = sending("<mss 1460,sackOK,ts 5000>", 14480);
    cur()->sends_ts = true;
    const uint32_t original = cur()->host_ts;
    const uint32_t before = view(c).cwnd;
    t_run(ms(700)); /* probe, RTO */
    check_eq(counter(COUNT_RTOS), 1);
    drain_tx();
    check_eq(view(c).cwnd, 1448);
    char spec[120];
    snprintf(spec, sizeof(spec), "A ack 2897 <nop,nop,ts 5100 %u>", original);
    inject(spec);
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= before);
    check_eq(drain_text(), 0);
    snprintf(spec, sizeof(spec), "A ack 14481 <nop,nop,ts 5101 %u>", original);
    inject(spec);
    expect_none(sec(1));
}

TEST(frto_sack, "RFC 5682 3.1: after the time-out something arrives that was sent once only")
{
    struct tcp_conn *c = sending(SACK_OPTS, 14600);
    const uint32_t before = view(c).cwnd;
    t_run(ms(700));
    check_eq(counter(COUNT_RTOS), 1);
    drain_tx();
    inject("A ack 1 <nop,nop,sack 1461:2921>");
    check(view(c).ca_state != 4);
    check(view(c).cwnd >= before);
    check_eq(drain_text(), 0);
    inject("A ack 14601");
    expect_none(sec(1));
}

TEST(frto_when_all_is_acknowledged,
     "RFC 5682 3.1 step 2.a: the ACK of all may be due to what was sent again")
{
    struct tcp_conn *c = sending(SACK_OPTS, 14600);
    const uint32_t before = view(c).cwnd;
    t_run(ms(700));
    check_eq(counter(COUNT_RTOS), 1);
    drain_tx();
    inject("A ack 14601"); /* the first alone was lost, and all SACKs */
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd < before);
    check_eq(view(c).ssthresh, 10220);
}

TEST(frto_then_retransmissions,
     "RFC 5682 3.1: an ACK of the first alone says nothing, what was lost goes again")
{
    struct tcp_conn *c = sending(SACK_OPTS, 14600);
    t_run(ms(540)); /* the time-out was just before: too early for an ACK of what it sent */
    check_eq(counter(COUNT_RTOS), 1);
    drain_tx();
    inject("A ack 1461");
    check_eq(view(c).ca_state, 4);
    expect_tx("A seq 1461 len 1460");
    expect_tx("A seq 2921 len 1460");
    inject("A ack 2921 <nop,nop,sack 4381:5841>"); /* which went once: late, not lost */
    check_eq(view(c).ca_state, 1);
    check(view(c).cwnd >= 14600);
}

/* A connection with 30,000 bytes to send, whose loss probe and then the oldest segment went again.
 */
static struct tcp_conn *timed_out(void)
{
    struct tcp_conn *c = sending(SACK_OPTS, 30000);
    t_run(ms(700));
    check_eq(counter(COUNT_RTOS), 1);
    check_eq(view(c).ca_state, 4);
    expect_tx("A seq 14601 len 1460");
    expect_tx("A seq 1 len 1460");
    expect_none(0);
    return c;
}

/* ... and the first ACK was answered by new data. */
static struct tcp_conn *asked(void)
{
    struct tcp_conn *c = timed_out();
    inject("A ack 1461");
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 17521 len 1460");
    return c;
}

static void count_asked(const struct ring_event *e, void *arg)
{
    unsigned *n = arg;
    *n += e->event == TRACE_EV_SEGMENT_OUT && e->small[1] == TCP_WHY_SEND_FRTO;
}

TEST(frto_asks_by_new_data,
     "RFC 5682 3.1 step 2.b, 3.b: after the first ACK two new segments go, and nothing again")
{
    struct tcp_conn *c = timed_out();
    inject("A ack 1461");
    check_eq(view(c).ca_state, 4);
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 17521 len 1460");
    unsigned asked = 0;
    ring_walk(stack_ring(the_stack()), c->flow.number, RING_EVENTS, count_asked, &asked);
    check_eq(asked, 2);
    expect_none(ms(20));
    inject("A ack 2921");
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= 14600);
    inject("A ack 14601");
    inject("A ack 18981");
    drain_tx();
    check_eq(counter(COUNT_RETRANS), 1);
}

TEST(frto_duplicates_first, "RFC 5682 3.1 step 2: duplicate ACKs: the first new one is awaited")
{
    timed_out();
    inject("A ack 1");
    inject("A ack 1");
    expect_none(ms(20));
    inject("A ack 1461");
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 17521 len 1460");
}

TEST(frto_loss_was_real, "RFC 5682 3.1 step 3.a: new data arrived, but not what went before it")
{
    struct tcp_conn *c = asked();
    inject("A ack 1461 <nop,nop,sack 16061:17521>");
    check_eq(view(c).ca_state, 4);
    check(view(c).cwnd <= 3 * 1460);
    expect_tx("A seq 1461 len 1460");
    inject(
        "A ack 1461 <nop,nop,sack 13141:14601 16061:17521>"); /* a SACK that was lost on its way */
    check_eq(view(c).ca_state, 4);
    check(view(c).cwnd <= 3 * 1460);
}

TEST(frto_new_data_and_old, "RFC 5682 3.1 step 3.a: an ACK of new data tells nothing of the old")
{
    struct tcp_conn *c = asked();
    inject("A ack 2921 <nop,nop,sack 16061:17521>");
    check_eq(view(c).ca_state, 4);
    expect_tx("A seq 2921 len 1460");
    drain_tx();
    inject("A ack 2921 <nop,nop,sack 13141:14601 16061:17521>");
    check_eq(view(c).ca_state, 4);
}

TEST(frto_waits_for_an_answer,
     "RFC 5682 3.1 step 3: neither new ACK nor duplicate: ignored without any action")
{
    struct tcp_conn *c = asked();
    inject("A ack 1461 win 40000"); /* a window update */
    check_eq(call_send(c, 1000), 1000);
    expect_none(ms(20));
    inject("A ack 1461 win 40000"); /* a duplicate */
    check_eq(view(c).ca_state, 4);
    expect_tx("A seq 1461 len 1460");
}

TEST(frto_answer_lost, "RFC 5682 3.1: no answer to the new data: the next time-out sends again")
{
    struct tcp_conn *c = asked();
    expect_tx_in(ms(100), sec(2), "A seq 1461 len 1460");
    check_eq(counter(COUNT_RTOS), 2);
    inject("A ack 2921"); /* that segment was the second of the episode: no F-RTO */
    expect_tx("A seq 2921 len 1460");
    drain_tx();
    check_eq(view(c).ca_state, 4);
}

TEST(frto_one_segment_of_window, "RFC 5682 3.1 step 2.b: as much new data as the window allows")
{
    struct tcp_conn *c = timed_out();
    inject("A ack 1461 win 15600");
    expect_tx("A seq 16061 len 1000");
    expect_none(ms(20));
    inject("A ack 2921 win 15600");
    check_eq(view(c).ca_state, 0);
}

TEST(frto_no_window, "RFC 5682 3.1 step 2.b: no window for new data: what was lost goes again")
{
    struct tcp_conn *c = timed_out();
    inject("A ack 1461 win 14600");
    expect_tx("A seq 1461 len 1460");
    expect_tx("A seq 2921 len 1460");
    drain_tx();
    check_eq(view(c).ca_state, 4);
}

TEST(frto_paced, "RFC 5682 3.1 step 2.b: new data waits its time where segments are paced")
{
    struct tcp_conn *c = timed_out();
    tcp_opts(c)->max_pacing = 100000;
    call_opts_changed(c);
    c->pace_next = the_cx()->now + ms(50);
    inject("A ack 1461");
    expect_none(ms(45));
    expect_tx_in(0, ms(10), "A seq 16061 len 1460");
    expect_tx("A seq 17521 len 1460");
    inject("A ack 2921");
    check_eq(view(c).ca_state, 0);
}

TEST(frto_second_time_out, "RFC 5682 3.2: time-outs in a row for one segment, all spurious")
{
    struct tcp_conn *c = timed_out();
    t_run(sec(1));
    check_eq(counter(COUNT_RTOS), 2);
    drain_tx();
    inject("A ack 1461");
    expect_tx("A seq 16061 len 1460");
    expect_tx("A seq 17521 len 1460");
    inject("A ack 2921");
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= 14600);
}

TEST(frto_delayed_ack,
     "Linux tcp_process_loss(): a late ACK of two segments, of which one went again")
{
    struct tcp_conn *c = sending(SACK_OPTS, 14600);
    const uint32_t before = view(c).cwnd;
    t_run(ms(540)); /* the time-out was just before: too early for an ACK of what it sent */
    check_eq(counter(COUNT_RTOS), 1);
    drain_tx();
    inject("A ack 2921");
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd >= before);
    check_eq(drain_text(), 0);
    inject("A ack 14601");
    expect_none(sec(1));
}

TEST(undo_not_when_lost, "RFC 3522: an echo of the retransmission: the loss was real")
{
    struct tcp_conn *c = sending("<mss 1460,sackOK,ts>", 14480);
    cur()->sends_ts = true;
    t_run(ms(100));
    const uint32_t before = view(c).cwnd;
    inject("A ack 1 <nop,nop,ts,nop,nop,sack 1449:5793>");
    expect_tx("A seq 1 len 1448");
    t_run(ms(100));
    inject("A ack 14481");
    check_eq(view(c).ca_state, 0);
    check(view(c).cwnd < before);
}

/* ---- PRR ---- */

TEST(prr_proportional, "RFC 6937 3: seven go for ten that arrive, spread over the round trip")
{
    struct tcp_conn *c = sending(SACK_OPTS, 80000);
    t_run(ms(100));
    uint32_t end = 1461, most = 0, total = 0;
    for (unsigned i = 0; i < 9; i++) { /* all but the first segment */
        end += 1460;
        char spec[80];
        snprintf(spec, sizeof(spec), "A ack 1 <nop,nop,sack 1461:%u>", end);
        inject(spec);
        const uint32_t n = drain_text();
        if (i >= 3) {
            most = max_u32(most, n);
            total += n;
        }
    }
    check(most <= 2 * 1460);
    check(total >= 3 * 1460 && total <= 6 * 1460);
    check_eq(view(c).ca_state, 3);
    check_eq(view(c).ssthresh, 10220);
}
