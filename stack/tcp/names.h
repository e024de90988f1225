/* The lists of TCP's nouns: states, timers, reasons. Each makes an enum, strings and documentation.
 */
#pragma once

#include "stack/base.h"

/* RFC 9293 3.3.2, numbered as Linux numbers them in TCP_INFO (enum in net/tcp_states.h). */
#define TCP_STATES(X)                                                                              \
    X(ESTABLISHED, 1)                                                                              \
    X(SYN_SENT, 2)                                                                                 \
    X(SYN_RECEIVED, 3)                                                                             \
    X(FIN_WAIT_1, 4)                                                                               \
    X(FIN_WAIT_2, 5)                                                                               \
    X(TIME_WAIT, 6)                                                                                \
    X(CLOSED, 7)                                                                                   \
    X(CLOSE_WAIT, 8)                                                                               \
    X(LAST_ACK, 9)                                                                                 \
    X(LISTEN, 10)                                                                                  \
    X(CLOSING, 11)

enum tcp_state {
#define X(id, n) TCP_##id = n,
    TCP_STATES(X)
#undef X
};
#define TCP_STATE_MAX 11

/* X(ID, word, what it does when it fires). A connection's deadlines; the earliest sits in the
 * wheel. */
#define TCP_TIMERS(X)                                                                              \
    X(RETRANSMIT, "retransmit", "sends the oldest unacknowledged segment again (RFC 6298)")        \
    X(PERSIST, "persist", "probes a zero window (RFC 9293 3.8.6.1)")                               \
    X(DELAYED_ACK, "delayed-ack", "sends an ACK that waited for company (RFC 9293 3.8.6.3)")       \
    X(KEEPALIVE, "keepalive", "asks a silent peer for a sign of life (RFC 9293 3.8.4)")            \
    X(CORK, "cork", "sends what a cork held for 200 ms, as Linux does")                            \
    X(FIN_WAIT_2, "fin-wait-2", "ends an orphan whose peer never closes")                          \
    X(REORDER, "reorder", "what is still missing now was lost, not reordered (RFC 8985 6.2)")      \
    X(LOSS_PROBE, "loss-probe", "asks for the ACK of a tail that may be lost (RFC 8985 7)")        \
    X(PACE, "pace", "sends what pacing held back")                                                 \
    X(SYN_ACK, "syn-ack", "sends the SYN-ACK of a half-open connection again")                     \
    X(TIME_WAIT, "time-wait", "ends TIME_WAIT after 2 MSL")

enum tcp_timer {
#define X(id, word, doc) TCP_TIMER_##id,
    TCP_TIMERS(X)
#undef X
        TCP_TIMER_COUNT
};
/* Those before this one are a connection's own; half-open and TIME_WAIT records have one each. */
#define TCP_CONN_TIMERS TCP_TIMER_SYN_ACK

/* X(ID, words): causes of transitions, of segments sent, of segments dropped, of silences. */
#define TCP_REASONS(X)                                                                             \
    X(NONE, "")                                                                                    \
    X(CALL_CONNECT, "connect()")                                                                   \
    X(CALL_LISTEN, "listen()")                                                                     \
    X(CALL_CLOSE, "close()")                                                                       \
    X(CALL_SHUTDOWN, "shutdown()")                                                                 \
    X(CALL_ABORT, "close() with SO_LINGER 0")                                                      \
    X(CALL_CLOSE_UNREAD, "close() with unread data")                                               \
    X(CALL_DISCONNECT, "connect(AF_UNSPEC)")                                                       \
    X(LISTENER_CLOSED, "the listener was closed")                                                  \
    X(DIED_INSIDE, "a process was killed in the middle of a change of it")                         \
    X(RX_SYN, "rx SYN")                                                                            \
    X(RX_SYN_ACK, "rx SYN,ACK")                                                                    \
    X(RX_ACK, "rx ACK")                                                                            \
    X(RX_ACK_OF_SYN, "rx ACK of our SYN")                                                          \
    X(RX_ACK_OF_FIN, "rx ACK of our FIN")                                                          \
    X(RX_FIN, "rx FIN")                                                                            \
    X(RX_FIN_AND_ACK, "rx FIN, and ACK of our FIN")                                                \
    X(RX_RST, "rx RST")                                                                            \
    X(RX_COOKIE, "rx ACK with a valid SYN cookie")                                                 \
    X(RX_DATA_AFTER_CLOSE, "data arrived after close()")                                           \
    X(RX_ICMP, "rx ICMP error")                                                                    \
    X(TIMEOUT_RETRANSMIT, "retransmissions exhausted")                                             \
    X(TIMEOUT_KEEPALIVE, "keepalive probes unanswered")                                            \
    X(TIMEOUT_USER, "user time-out")                                                               \
    X(TIMEOUT_TIME_WAIT, "2 MSL passed")                                                           \
    X(TIMEOUT_FIN_WAIT_2, "FIN_WAIT_2 time-out")                                                   \
    X(TIMEOUT_SYN_ACK, "SYN-ACK retransmissions exhausted")                                        \
    X(TIMEOUT_ORPHAN, "orphan retries exhausted")                                                  \
    X(NO_MEMORY, "out of memory")                                                                  \
    X(QUEUE_FULL, "accept queue full")                                                             \
    X(SYN_QUEUE_FULL, "SYN queue full")                                                            \
    X(SEND_SYN, "open")                                                                            \
    X(SEND_SYN_ACK, "answer to SYN")                                                               \
    X(SEND_DATA, "data")                                                                           \
    X(SEND_PUSH, "last of the data")                                                               \
    X(SEND_FIN, "close")                                                                           \
    X(SEND_RETRANSMIT, "retransmission time-out")                                                  \
    X(SEND_FAST_RETRANSMIT, "fast retransmit")                                                     \
    X(SEND_RECOVERY, "retransmission in recovery")                                                 \
    X(SEND_LOSS_PROBE, "tail loss probe")                                                          \
    X(SEND_FRTO, "new data after a time-out: its ACK tells whether anything was lost (F-RTO)")     \
    X(SEND_MTU_PROBE, "probe of the path's MTU")                                                   \
    X(SEND_PROBE, "window probe")                                                                  \
    X(SEND_KEEPALIVE, "keepalive probe")                                                           \
    X(SEND_ACK_NOW, "ACK of two segments or more")                                                 \
    X(SEND_ACK_QUICK, "quick ACK")                                                                 \
    X(SEND_ACK_DELAYED, "delayed ACK")                                                             \
    X(SEND_ACK_ECN, "ACK before the congestion mark changes")                                      \
    X(SEND_ACK_MARKS, "ACK of congestion marks, or of their end (RFC 9768 3.2.2.5.1)")             \
    X(SEND_ACK_OOO, "duplicate ACK for a hole")                                                    \
    X(SEND_ACK_FIN, "ACK of FIN")                                                                  \
    X(SEND_ACK_HANDSHAKE, "third ACK of the handshake")                                            \
    X(SEND_ACK_DUPLICATE, "ACK of a duplicate")                                                    \
    X(SEND_WINDOW_UPDATE, "window update")                                                         \
    X(SEND_CHALLENGE, "challenge ACK")                                                             \
    X(SEND_RST, "reset")                                                                           \
    X(HELD_NAGLE, "Nagle: a small segment waits for the ACK of the last")                          \
    X(HELD_CORK, "corked")                                                                         \
    X(HELD_FLIGHT, "enough in flight for a path without delay")                                    \
    X(HELD_CWND, "congestion window full")                                                         \
    X(HELD_RWND, "receiver's window full")                                                         \
    X(HELD_SWS, "less than a segment fits the receiver's window")                                  \
    X(HELD_PACING, "pacing")                                                                       \
    X(HELD_NO_ACK_YET, "delayed ACK: waiting for company")                                         \
    X(DROP_SEQ, "outside the window")                                                              \
    X(DROP_PAWS, "old timestamp (PAWS)")                                                           \
    X(DROP_ACK_OLD, "ACK too old")                                                                 \
    X(DROP_ACK_FUTURE, "ACK of data not sent")                                                     \
    X(DROP_NO_ACK, "no ACK flag")                                                                  \
    X(DROP_OTHERS, "for another listener of the port")                                             \
    X(ECN_MIXED, "asked for two kinds of ECN (RFC 9768 3.1.5)")                                    \
    X(DROP_STATE, "makes no sense in this state")                                                  \
    X(RECOVERY_ENTER, "losses found: recovery begins")                                             \
    X(RECOVERY_ECN, "the peer echoes congestion marks: cwnd is reduced")                           \
    X(RECOVERY_EXIT, "recovery ends")                                                              \
    X(RECOVERY_RTO, "time-out: everything in flight is taken for lost")                            \
    X(RECOVERY_UNDO, "nothing was lost: cwnd as before")                                           \
    X(RECOVERY_PROBE, "a probe repaired a loss: cwnd is reduced")                                  \
    X(UNDO_DSACK, "all that was sent again had arrived (D-SACK): cwnd as before")                  \
    X(UNDO_EIFEL,                                                                                  \
      "the ACK echoes an older timestamp than the retransmission (Eifel): cwnd as before")         \
    X(UNDO_FRTO, "what was sent once arrived after the time-out (F-RTO): cwnd as before")          \
    X(LOST_RACK, "sent before something that has arrived, and too long ago (RACK)")                \
    X(LOST_DUPACKS, "three duplicate ACKs")                                                        \
    X(LOST_PARTIAL_ACK, "partial ACK in recovery (NewReno)")                                       \
    X(LOST_RTO, "retransmission time-out")                                                         \
    X(LOST_RENEGED, "the receiver gave up what it had sacked")                                     \
    X(MTU_RAISED, "a larger segment arrived: the path's MTU is raised")                            \
    X(MTU_PROBE_LOST, "only the probe of the path's MTU was lost: cwnd as before")                 \
    X(SEEN_REORDERING, "a segment sent earlier arrived later")                                     \
    X(SEEN_DSACK, "the peer received something twice (D-SACK)")                                    \
    X(PROBE_NEEDLESS, "original and probe both arrived: nothing was lost")                         \
    X(PROBE_ANSWERED, "the loss probe was answered")

enum tcp_reason {
#define X(id, words) TCP_WHY_##id,
    TCP_REASONS(X)
#undef X
        TCP_REASON_COUNT
};

const char *tcp_state_name(unsigned state);
const char *tcp_timer_name(unsigned timer);
const char *tcp_reason_text(unsigned reason);
/* Its name in the list, "SEND_ACK_NOW": stable, while the words may become better ones. */
const char *tcp_reason_name(unsigned reason);
