/*
 * RFC 9293 3.10.7, SEGMENT ARRIVES: one row for each case of each state. A row brings a connection
 * to its state (SND.NXT is 1, or 2 where our FIN is out; RCV.NXT is 1, or 2 where the peer's FIN is
 * in), injects one segment and says what is sent, where the connection goes and what SO_ERROR is.
 */
#include "tests/packet/harness.h"

#include <errno.h>

static void arrival(const char *file, int line, enum tcp_state from, const char *segment,
                    const char *answer, enum tcp_state to, int err)
{
    struct tcp_conn *c = bring(from);
    h_inject(file, line, segment);
    if (answer)
        h_expect_tx(file, line, 0, 0, answer);
    h_expect_none(file, line, 0);
    h_expect_state(file, line, to);
    h_check_eq(file, line, tcp_take_error(c), err, "SO_ERROR");
}

#define ROW(id, from, segment, answer, to, err, cites)                                             \
    TEST(arrives_##id, cites)                                                                      \
    {                                                                                              \
        arrival(__FILE__, __LINE__, TCP_##from, segment, answer, TCP_##to, err);                   \
    }

/* ---- CLOSED (3.10.7.1): nobody has the port ---- */

ROW(closed_rst, CLOSED, "R seq 7", NULL, CLOSED, 0, "3.10.7.1: a RST is discarded")
ROW(closed_rst_ack, CLOSED, "RA seq 7 ack 9", NULL, CLOSED, 0, "3.10.7.1: a RST is discarded")
ROW(closed_ack, CLOSED, "A seq 7 ack 9", "R seq 9 len 0", CLOSED, 0,
    "3.10.7.1: <SEQ=SEG.ACK><CTL=RST>")
ROW(closed_syn, CLOSED, "S seq 7", "RA seq 0 ack 8 len 0", CLOSED, 0,
    "3.10.7.1: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>")
ROW(closed_fin_text, CLOSED, "F seq 7 len 10", "RA seq 0 ack 18 len 0", CLOSED, 0,
    "3.10.7.1: SEG.LEN counts text and FIN")
ROW(closed_syn_ack, CLOSED, "SA seq 7 ack 9", "R seq 9 len 0", CLOSED, 0, "3.10.7.1")

/* ---- SYN_SENT (3.10.7.3) ---- */

ROW(syn_sent_syn_ack, SYN_SENT, "SA seq 0 ack 1 <mss 1460>", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "3.10.7.3 fourth: our SYN is acknowledged")
ROW(syn_sent_syn, SYN_SENT, "S seq 0 <mss 1460>", "SA seq 0 ack 1 len 0", SYN_RECEIVED, 0,
    "3.10.7.3 fourth: simultaneous open")
ROW(syn_sent_ack_old, SYN_SENT, "A seq 0 ack 0", "R seq 0 len 0", SYN_SENT, 0,
    "3.10.7.3 first: SEG.ACK =< ISS")
ROW(syn_sent_ack_future, SYN_SENT, "A seq 0 ack 5", "R seq 5 len 0", SYN_SENT, 0,
    "3.10.7.3 first: SEG.ACK > SND.NXT")
ROW(syn_sent_syn_ack_bad, SYN_SENT, "SA seq 0 ack 5", "R seq 5 len 0", SYN_SENT, 0,
    "3.10.7.3 first: half-open connection discovered")
ROW(syn_sent_rst_bad_ack, SYN_SENT, "RA seq 0 ack 5", NULL, SYN_SENT, 0,
    "3.10.7.3 first: a RST with a bad ACK is dropped")
ROW(syn_sent_rst_ack, SYN_SENT, "RA seq 0 ack 1", NULL, CLOSED, ECONNREFUSED,
    "3.10.7.3 second: connection refused")
ROW(syn_sent_rst_bare, SYN_SENT, "R seq 0", NULL, SYN_SENT, 0,
    "3.10.7.3 second: a RST without ACK is dropped")
ROW(syn_sent_ack_only, SYN_SENT, "A seq 0 ack 1", NULL, SYN_SENT, 0,
    "3.10.7.3 fifth: neither SYN nor RST: dropped")
ROW(syn_sent_fin, SYN_SENT, "F seq 0", NULL, SYN_SENT, 0, "3.10.7.3 fifth")
ROW(syn_sent_text, SYN_SENT, "- seq 0 len 10", NULL, SYN_SENT, 0, "3.10.7.3 fifth")

/* ---- first: the sequence number (3.10.7.4); the answer is an ACK ---- */

ROW(syn_rcvd_window, SYN_RECEIVED, "A seq 200000 ack 1 len 9", "A seq 1 ack 1 len 0", SYN_RECEIVED,
    0, "3.10.7.4 first: not acceptable")
ROW(est_window, ESTABLISHED, "A seq 200000 ack 1 len 9", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "3.10.7.4 first: not acceptable")
ROW(est_before, ESTABLISHED, "A seq -9 ack 1 len 9", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "3.10.7.4 first: text before the window")
ROW(fw1_window, FIN_WAIT_1, "A seq 200000 ack 1 len 9", "A seq 2 ack 1 len 0", FIN_WAIT_1, 0,
    "3.10.7.4 first: not acceptable")
ROW(fw2_window, FIN_WAIT_2, "A seq 200000 ack 2 len 9", "A seq 2 ack 1 len 0", FIN_WAIT_2, 0,
    "3.10.7.4 first: not acceptable")
ROW(cw_window, CLOSE_WAIT, "A seq 200000 ack 1 len 9", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 first: not acceptable")
ROW(closing_window, CLOSING, "A seq 200000 ack 1 len 9", "A seq 2 ack 2 len 0", CLOSING, 0,
    "3.10.7.4 first: not acceptable")
ROW(last_ack_window, LAST_ACK, "A seq 200000 ack 1 len 9", "A seq 2 ack 2 len 0", LAST_ACK, 0,
    "3.10.7.4 first: not acceptable")
ROW(time_wait_window, TIME_WAIT, "A seq 200000 ack 2 len 9", "A seq 2 ack 2 len 0", TIME_WAIT, 0,
    "3.10.7.4 first: not acceptable")

/* ---- second: RST (RFC 5961 3.2) ---- */

ROW(syn_rcvd_rst, SYN_RECEIVED, "R seq 1", NULL, CLOSED, ECONNREFUSED,
    "3.10.7.4 second: after an active open the user is told 'connection refused'")
ROW(est_rst, ESTABLISHED, "R seq 1", NULL, CLOSED, ECONNRESET, "RFC 5961 3.2: exact match")
ROW(est_rst_ack, ESTABLISHED, "RA seq 1 ack 1", NULL, CLOSED, ECONNRESET,
    "RFC 5961 3.2: exact match")
ROW(est_rst_inside, ESTABLISHED, "R seq 2", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "RFC 5961 3.2: in the window but not exact: challenge ACK")
ROW(est_rst_outside, ESTABLISHED, "R seq 200000", NULL, ESTABLISHED, 0,
    "RFC 5961 3.2: outside the window: dropped in silence")
ROW(est_rst_before, ESTABLISHED, "R seq 0", NULL, ESTABLISHED, 0, "RFC 5961 3.2: below the window")
ROW(fw1_rst, FIN_WAIT_1, "R seq 1", NULL, CLOSED, ECONNRESET, "3.10.7.4 second")
ROW(fw1_rst_inside, FIN_WAIT_1, "R seq 5", "A seq 2 ack 1 len 0", FIN_WAIT_1, 0, "RFC 5961 3.2")
ROW(fw2_rst, FIN_WAIT_2, "R seq 1", NULL, CLOSED, ECONNRESET, "3.10.7.4 second")
ROW(fw2_rst_inside, FIN_WAIT_2, "R seq 5", "A seq 2 ack 1 len 0", FIN_WAIT_2, 0, "RFC 5961 3.2")
ROW(cw_rst, CLOSE_WAIT, "R seq 2", NULL, CLOSED, EPIPE, "Linux tcp_reset(): EPIPE in CLOSE_WAIT")
ROW(cw_rst_inside, CLOSE_WAIT, "R seq 5", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0, "RFC 5961 3.2")
ROW(closing_rst, CLOSING, "R seq 2", NULL, CLOSED, ECONNRESET, "Linux tcp_reset(): ECONNRESET")
ROW(closing_rst_inside, CLOSING, "R seq 5", "A seq 2 ack 2 len 0", CLOSING, 0, "RFC 5961 3.2")
ROW(last_ack_rst, LAST_ACK, "R seq 2", NULL, CLOSED, ECONNRESET, "Linux tcp_reset(): ECONNRESET")
ROW(last_ack_rst_inside, LAST_ACK, "R seq 5", "A seq 2 ack 2 len 0", LAST_ACK, 0, "RFC 5961 3.2")
ROW(time_wait_rst, TIME_WAIT, "R seq 2", NULL, TIME_WAIT, 0,
    "RFC 1337 section 3 (F1): RSTs are ignored in TIME_WAIT")

/* ---- fourth: SYN (RFC 5961 4.2) ---- */

ROW(est_syn, ESTABLISHED, "S seq 5", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "RFC 5961 4.2: challenge ACK")
ROW(est_syn_outside, ESTABLISHED, "S seq 200000", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "RFC 5961 4.2: irrespective of the sequence number")
ROW(est_syn_ack_dup, ESTABLISHED, "SA seq 0 ack 1 <mss 1460>", "A seq 1 ack 1 len 0", ESTABLISHED,
    0, "RFC 9293 3.10.7.4: the third ACK was lost, the SYN-ACK comes again")
ROW(fw1_syn, FIN_WAIT_1, "S seq 5", "A seq 2 ack 1 len 0", FIN_WAIT_1, 0, "RFC 5961 4.2")
ROW(fw2_syn, FIN_WAIT_2, "S seq 5", "A seq 2 ack 1 len 0", FIN_WAIT_2, 0, "RFC 5961 4.2")
ROW(cw_syn, CLOSE_WAIT, "S seq 5", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0, "RFC 5961 4.2")
ROW(closing_syn, CLOSING, "S seq 5", "A seq 2 ack 2 len 0", CLOSING, 0, "RFC 5961 4.2")
ROW(last_ack_syn, LAST_ACK, "S seq 5", "A seq 2 ack 2 len 0", LAST_ACK, 0, "RFC 5961 4.2")
ROW(time_wait_syn_old, TIME_WAIT, "S seq 1", "A seq 2 ack 2 len 0", TIME_WAIT, 0,
    "RFC 9293 3.6.1: an old SYN in TIME_WAIT is answered by an ACK")

/* ---- fifth: ACK ---- */

ROW(syn_rcvd_no_ack, SYN_RECEIVED, "- seq 1 len 9", NULL, SYN_RECEIVED, 0,
    "3.10.7.4 fifth: no ACK bit: dropped")
ROW(syn_rcvd_ack, SYN_RECEIVED, "A seq 1 ack 1", NULL, ESTABLISHED, 0, "3.10.7.4 fifth")
ROW(syn_rcvd_ack_future, SYN_RECEIVED, "A seq 1 ack 9", "R seq 9 len 0", SYN_RECEIVED, 0,
    "3.10.7.4 fifth: <SEQ=SEG.ACK><CTL=RST>")
ROW(syn_rcvd_fin, SYN_RECEIVED, "FA seq 1 ack 1", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 fifth and eighth in one segment")
ROW(syn_rcvd_text, SYN_RECEIVED, "PA seq 1 ack 1 len 10", "A seq 1 ack 11 len 0", ESTABLISHED, 0,
    "3.10.7.4 fifth and seventh in one segment")
ROW(est_no_ack, ESTABLISHED, "- seq 1 len 9", NULL, ESTABLISHED, 0, "3.10.7.4 fifth: no ACK bit")
ROW(est_ack_future, ESTABLISHED, "A seq 1 ack 9", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "3.10.7.4 fifth: something not yet sent is acknowledged: send an ACK")
ROW(est_ack_ancient, ESTABLISHED, "A seq 1 ack -200000", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "RFC 5961 5.2: ACK older than MAX.SND.WND: challenge ACK")
ROW(est_ack_dup, ESTABLISHED, "A seq 1 ack 1", NULL, ESTABLISHED, 0, "3.10.7.4 fifth: ignored")
ROW(fw1_ack, FIN_WAIT_1, "A seq 1 ack 2", NULL, FIN_WAIT_2, 0,
    "3.10.7.4 fifth: our FIN is acknowledged")
ROW(fw1_ack_dup, FIN_WAIT_1, "A seq 1 ack 1", NULL, FIN_WAIT_1, 0, "3.10.7.4 fifth")
ROW(fw1_ack_future, FIN_WAIT_1, "A seq 1 ack 9", "A seq 2 ack 1 len 0", FIN_WAIT_1, 0,
    "3.10.7.4 fifth")
ROW(fw1_no_ack, FIN_WAIT_1, "F seq 1", NULL, FIN_WAIT_1, 0, "3.10.7.4 fifth: no ACK bit")
ROW(fw2_ack_future, FIN_WAIT_2, "A seq 1 ack 9", "A seq 2 ack 1 len 0", FIN_WAIT_2, 0,
    "3.10.7.4 fifth")
ROW(cw_ack_future, CLOSE_WAIT, "A seq 2 ack 9", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 fifth")
ROW(closing_ack, CLOSING, "A seq 2 ack 2", NULL, TIME_WAIT, 0,
    "3.10.7.4 fifth: CLOSING to TIME_WAIT")
ROW(closing_ack_dup, CLOSING, "A seq 2 ack 1", NULL, CLOSING, 0,
    "3.10.7.4 fifth: otherwise ignored")
ROW(last_ack_ack, LAST_ACK, "A seq 2 ack 2", NULL, CLOSED, 0, "3.10.7.4 fifth: LAST_ACK to CLOSED")
ROW(last_ack_ack_dup, LAST_ACK, "A seq 2 ack 1", NULL, LAST_ACK, 0, "3.10.7.4 fifth")
ROW(time_wait_ack, TIME_WAIT, "A seq 2 ack 2", NULL, TIME_WAIT, 0, "3.10.7.4 fifth")

/* ---- seventh: text ---- */

ROW(est_text, ESTABLISHED, "PA seq 1 ack 1 len 10", "A seq 1 ack 11 len 0", ESTABLISHED, 0,
    "3.10.7.4 seventh; Linux: quick ACKs at the start")
ROW(est_text_partly_old, ESTABLISHED, "PA seq -4 ack 1 len 10", "A seq 1 ack 6 len 0", ESTABLISHED,
    0, "3.10.7.4 first: trimmed to the window")
ROW(est_text_hole, ESTABLISHED, "PA seq 101 ack 1 len 10", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "RFC 5681 4.2: an ACK at once for a segment out of order")
ROW(fw1_text, FIN_WAIT_1, "PA seq 1 ack 1 len 10", "A seq 2 ack 11 len 0", FIN_WAIT_1, 0,
    "3.10.7.4 seventh: text is still taken after shutdown(WR)")
ROW(fw2_text, FIN_WAIT_2, "PA seq 1 ack 2 len 10", "A seq 2 ack 11 len 0", FIN_WAIT_2, 0,
    "3.10.7.4 seventh")
ROW(cw_text, CLOSE_WAIT, "PA seq 2 ack 1 len 10", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 seventh: text behind the FIN is not taken")

/* ---- eighth: FIN ---- */

ROW(est_fin, ESTABLISHED, "FA seq 1 ack 1", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0, "3.10.7.4 eighth")
ROW(est_text_fin, ESTABLISHED, "FPA seq 1 ack 1 len 10", "A seq 1 ack 12 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 eighth")
ROW(est_fin_hole, ESTABLISHED, "FA seq 11 ack 1", "A seq 1 ack 1 len 0", ESTABLISHED, 0,
    "3.10.7.4: a FIN behind a hole does not count yet")
ROW(fw1_fin, FIN_WAIT_1, "FA seq 1 ack 1", "A seq 2 ack 2 len 0", CLOSING, 0,
    "3.10.7.4 eighth: simultaneous close")
ROW(fw1_fin_ack, FIN_WAIT_1, "FA seq 1 ack 2", "A seq 2 ack 2 len 0", TIME_WAIT, 0,
    "3.10.7.4 eighth")
ROW(fw1_text_fin_ack, FIN_WAIT_1, "FPA seq 1 ack 2 len 10", "A seq 2 ack 12 len 0", TIME_WAIT, 0,
    "3.10.7.4 seventh and eighth")
ROW(fw2_fin, FIN_WAIT_2, "FA seq 1 ack 2", "A seq 2 ack 2 len 0", TIME_WAIT, 0, "3.10.7.4 eighth")
ROW(cw_fin, CLOSE_WAIT, "FA seq 1 ack 1", "A seq 1 ack 2 len 0", CLOSE_WAIT, 0,
    "3.10.7.4 first: the FIN again: acknowledged again")
ROW(closing_fin, CLOSING, "FA seq 1 ack 1", "A seq 2 ack 2 len 0", CLOSING, 0, "3.10.7.4 first")
ROW(closing_fin_ack, CLOSING, "FA seq 1 ack 2", "A seq 2 ack 2 len 0", CLOSING, 0,
    "3.10.7.4 first: not acceptable, so its ACK is not looked at")
ROW(last_ack_fin, LAST_ACK, "FA seq 1 ack 1", "A seq 2 ack 2 len 0", LAST_ACK, 0, "3.10.7.4 first")
ROW(time_wait_fin, TIME_WAIT, "FA seq 1 ack 2", "A seq 2 ack 2 len 0", TIME_WAIT, 0,
    "3.10.7.4 eighth: acknowledged, 2 MSL start anew")

/* ---- LISTEN (3.10.7.2) ---- */

static void listen_arrival(const char *file, int line, const char *segment, const char *answer,
                           enum tcp_state to)
{
    call_listen(5);
    h_inject(file, line, segment);
    if (answer)
        h_expect_tx(file, line, 0, 0, answer);
    h_expect_none(file, line, 0);
    h_expect_state(file, line, to);
}

#define LISTEN_ROW(id, segment, answer, to, cites)                                                 \
    TEST(arrives_listen_##id, cites)                                                               \
    {                                                                                              \
        listen_arrival(__FILE__, __LINE__, segment, answer, TCP_##to);                             \
    }

LISTEN_ROW(rst, "R seq 0", NULL, CLOSED, "3.10.7.2 first: ignored")
LISTEN_ROW(rst_ack, "RA seq 0 ack 5", NULL, CLOSED, "3.10.7.2 first: ignored")
LISTEN_ROW(syn_rst, "SR seq 0", NULL, CLOSED, "3.10.7.2 first: ignored")
LISTEN_ROW(ack, "A seq 0 ack 77", "R seq 77 len 0", CLOSED,
           "3.10.7.2 second: <SEQ=SEG.ACK><CTL=RST>")
LISTEN_ROW(syn_ack, "SA seq 0 ack 77", "R seq 77 len 0", CLOSED, "3.10.7.2 second")
LISTEN_ROW(fin_ack, "FA seq 0 ack 77", "R seq 77 len 0", CLOSED, "3.10.7.2 second")
LISTEN_ROW(syn, "S seq 0 <mss 1460>", "SA seq 0 ack 1 len 0", SYN_RECEIVED, "3.10.7.2 third")
LISTEN_ROW(syn_fin, "SF seq 0 <mss 1460>", NULL, CLOSED,
           "Linux tcp_rcv_state_process(): SYN,FIN is dropped")
LISTEN_ROW(text, "- seq 0 len 10", NULL, CLOSED, "3.10.7.2 fourth: dropped")
LISTEN_ROW(fin, "F seq 0", NULL, CLOSED, "3.10.7.2 fourth: dropped")

/* ---- SYN_RECEIVED of a passive open: the half-open entry ---- */

static void half_open_arrival(const char *file, int line, const char *segment, const char *answer,
                              enum tcp_state to)
{
    struct tcp_listener *l = call_listen(5);
    inject("S seq 0 <mss 1460>");
    expect_tx("SA seq 0 ack 1");
    h_inject(file, line, segment);
    if (answer)
        h_expect_tx(file, line, 0, 0, answer);
    h_expect_none(file, line, 0);
    h_expect_state(file, line, to);
    uint32_t syns, accepts, backlog;
    tcp_listener_queues(l, &syns, &accepts, &backlog);
    h_check_eq(file, line, syns, to == TCP_SYN_RECEIVED, "entries in the SYN queue");
    h_check_eq(file, line, accepts, to != TCP_SYN_RECEIVED && to != TCP_CLOSED,
               "entries in the accept queue");
}

#define HALF_OPEN_ROW(id, segment, answer, to, cites)                                              \
    TEST(arrives_half_open_##id, cites)                                                            \
    {                                                                                              \
        half_open_arrival(__FILE__, __LINE__, segment, answer, TCP_##to);                          \
    }

HALF_OPEN_ROW(ack, "A seq 1 ack 1", NULL, ESTABLISHED, "3.10.7.4 fifth")
HALF_OPEN_ROW(ack_text, "PA seq 1 ack 1 len 10", "A seq 1 ack 11", ESTABLISHED, "3.10.7.4 seventh")
HALF_OPEN_ROW(ack_fin, "FA seq 1 ack 1", "A seq 1 ack 2", CLOSE_WAIT, "3.10.7.4 eighth")
HALF_OPEN_ROW(ack_bad, "A seq 1 ack 9", "R seq 9 len 0", SYN_RECEIVED, "3.10.7.4 fifth: RST")
HALF_OPEN_ROW(rst, "R seq 1", NULL, CLOSED, "3.10.7.4 second: back to LISTEN")
HALF_OPEN_ROW(rst_outside, "R seq 200000", NULL, SYN_RECEIVED, "RFC 5961 3.2")
HALF_OPEN_ROW(rst_inside, "R seq 9", "A seq 1 ack 1 len 0", SYN_RECEIVED,
              "RFC 5961 3.2: challenge ACK")
HALF_OPEN_ROW(syn_again, "S seq 0 <mss 1460>", "SA seq 0 ack 1", SYN_RECEIVED,
              "RFC 9293 3.8.3: the SYN again: the SYN-ACK again")
HALF_OPEN_ROW(no_ack, "- seq 1 len 5", NULL, SYN_RECEIVED, "3.10.7.4 fifth: no ACK bit")
HALF_OPEN_ROW(window, "A seq 200000 ack 1 len 5", "A seq 1 ack 1 len 0", SYN_RECEIVED,
              "3.10.7.4 first")
