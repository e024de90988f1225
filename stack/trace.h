/*
 * The schema of everything that can be watched. One list makes the enum, the names and the
 * documentation; every sink (text, JSON, probes, the ring) reads the same table.
 *
 * An event is its id, the flow it belongs to, and up to TRACE_ARGS_MAX unsigned 64-bit arguments.
 * What each argument means is spelled in the table: "name:type name:type ...", type being one of
 *   u       unsigned number          n       bytes
 *   i       signed number            bool    0 or 1
 *   ns      nanoseconds (a length)   time    nanoseconds of the clock; 0: none
 *   seq     sequence number, ours (counted from ISS); 32 bits
 *   pseq    sequence number, the peer's (counted from IRS); 32 bits
 *   state   enum tcp_state           reason  enum tcp_reason
 *   flags   TCP header flags         timer   enum tcp_timer
 *   err     positive errno           addr4   IPv4 address, network order
 *   str     const char * valid only during the call (never stored); NULL: none
 *   call    const char *, the name of a libc call
 *   opt     const struct tcp_options *, valid only during the call; NULL: none
 *   ranges  const struct trace_ranges *, valid only during the call
 */
#pragma once

#include "stack/base.h"

/* X(ID, word in TCPSHIM_TRACE, what it shows) */
#define TRACE_CLASSES(X)                                                                           \
    X(STATE, "state", "each transition of a connection with its cause")                            \
    X(QUEUE, "queue", "SYN queue and accept queue: entries made, moved, taken, refused")           \
    X(SEGMENT, "segment", "each segment, decoded; the reason of each sending and of each silence") \
    X(BUFFER, "buffer", "bytes entering and leaving the buffers, and what each recv() came from")  \
    X(TIMER, "timer", "timers set, fired, cancelled")                                              \
    X(CALL, "call", "socket calls of the program with their results")                              \
    X(RULE, "rule", "why a socket goes to the user stack or to the kernel")                        \
    X(LINK, "link", "ARP, ICMP, frames dropped and why")                                           \
    X(CC, "cc", "congestion control, round trips, losses and what was decided about them")

/*
 * X(ID, class, probe, name, arguments, what happened); `probe` names the USDT probe: the name with
 * underscores.
 */
// clang-format off
#define TRACE_EVENTS(X)                                                                            \
    X(STATE, STATE, state, "state",                                                                \
      "from:state to:state why:reason",                                                            \
      "a connection changed its state")                                                            \
    X(SYN_QUEUED, QUEUE, syn_queued, "syn-queued",                                                 \
      "syn_queue:u accept_queue:u backlog:u",                                                      \
      "a SYN made a half-open entry in the SYN queue")                                             \
    X(ACCEPT_QUEUED, QUEUE, accept_queued, "accept-queued",                                        \
      "syn_queue:u accept_queue:u backlog:u",                                                      \
      "the third ACK moved the entry from the SYN queue to the accept queue")                      \
    X(ACCEPTED, QUEUE, accepted, "accepted",                                                       \
      "syn_queue:u accept_queue:u backlog:u",                                                      \
      "accept() took the connection off the accept queue")                                         \
    X(REFUSED, QUEUE, refused, "refused",                                                          \
      "why:reason syn_queue:u accept_queue:u backlog:u",                                           \
      "a SYN or a third ACK was not admitted")                                                     \
    X(SYN_DROPPED, QUEUE, syn_dropped, "syn-dropped",                                              \
      "why:reason syn_queue:u accept_queue:u",                                                     \
      "a half-open entry was given up")                                                            \
    X(COOKIE_SENT, QUEUE, cookie_sent, "cookie-sent",                                              \
      "syn_queue:u",                                                                               \
      "SYN queue full: answered by a SYN cookie")                                                  \
    X(SEGMENT_IN, SEGMENT, rx, "rx",                                                               \
      "flags:flags seq:pseq ack:seq len:n wnd:n why:reason opt:opt",                               \
      "a segment arrived")                                                                         \
    X(SEGMENT_OUT, SEGMENT, tx, "tx",                                                              \
      "flags:flags seq:seq ack:pseq len:n wnd:n why:reason opt:opt",                               \
      "a segment was sent, and the reason for it")                                                 \
    X(SEGMENT_IGNORED, SEGMENT, ignored, "ignored",                                                \
      "flags:flags seq:pseq ack:seq len:n why:reason",                                             \
      "a segment that arrived is not used, and the reason")                                        \
    X(SEND_HELD, SEGMENT, held, "held",                                                            \
      "why:reason unsent:n in_flight:n cwnd:n snd_wnd:n",                                          \
      "data waits in the send buffer, and the reason for it")                                      \
    X(ACK_HELD, SEGMENT, ack_held, "ack-held",                                                     \
      "why:reason delay:ns owed:n",                                                                \
      "an acknowledgment waits, for how long at most, and how many bytes it is about")             \
    X(BUFFER_IN, BUFFER, to_sndbuf, "to-sndbuf",                                                   \
      "bytes:n queued:n limit:n unsent:n",                                                         \
      "send() put bytes into the send buffer")                                                     \
    X(BUFFER_ACKED, BUFFER, acked, "acked",                                                        \
      "bytes:n queued:n",                                                                          \
      "the peer acknowledged bytes: they leave the send buffer")                                   \
    X(BUFFER_RX, BUFFER, to_rcvbuf, "to-rcvbuf",                                                   \
      "bytes:n ready:n ooo:n hole:n",                                                              \
      "text entered the receive buffer; ooo bytes wait behind a hole of hole bytes (head of line)") \
    X(BUFFER_OUT, BUFFER, from_rcvbuf, "from-rcvbuf",                                              \
      "bytes:n ready:n",                                                                           \
      "recv() took bytes out of the receive buffer")                                               \
    X(RECV_FROM, BUFFER, recv_from, "recv-from",                                                   \
      "bytes:n segments:u from:ranges",                                                            \
      "the segments that the bytes of one recv() came in")                                         \
    X(TIMER_FIRED, TIMER, timer, "timer",                                                          \
      "timer:timer count:u",                                                                       \
      "a timer fired")                                                                             \
    X(TIMER_ARMED, TIMER, timer_armed, "timer-armed",                                              \
      "timer:timer in:ns",                                                                         \
      "a timer was set, to fire in this time")                                                     \
    X(TIMER_CANCELLED, TIMER, timer_cancelled, "timer-cancelled",                                  \
      "timer:timer",                                                                               \
      "a timer that ran is not needed any more")                                                   \
    X(CALL, CALL, call, "call",                                                                    \
      "call:call fd:u result:i err:err args:str begin:time",                                       \
      "a call of the program returned")                                                            \
    X(RULE, RULE, rule, "rule",                                                                    \
      "call:call user:bool why:str",                                                               \
      "user stack or kernel, and why")                                                             \
    X(ARP_RESOLVING, LINK, arp_ask, "arp-ask",                                                     \
      "addr:addr4 tries:u",                                                                        \
      "an ARP request was sent")                                                                   \
    X(ARP_LEARNED, LINK, arp_learned, "arp-learned",                                               \
      "addr:addr4",                                                                                \
      "a neighbour's address was learned")                                                         \
    X(ARP_FAILED, LINK, arp_failed, "arp-failed",                                                  \
      "addr:addr4",                                                                                \
      "a neighbour did not answer")                                                                \
    X(ARP_CONFLICT, LINK, arp_conflict, "arp-conflict",                                            \
      "addr:addr4",                                                                                \
      "another station claims our address")                                                        \
    X(ICMP_IN, LINK, icmp, "icmp",                                                                 \
      "type:u code:u info:u",                                                                      \
      "an ICMP message arrived")                                                                   \
    X(DROPPED, LINK, dropped, "dropped",                                                           \
      "why:str len:n",                                                                             \
      "a frame was dropped")                                                                       \
    X(IMPAIRED, LINK, impaired, "impaired",                                                        \
      "what:str dir:str flags:flags seq:u len:n rule:str",                                         \
      "TCPSHIM_IMPAIR did something to a segment; the clause that asked for it")                   \
    X(RECOVERY, CC, recovery, "recovery",                                                          \
      "why:reason cwnd:n ssthresh:n in_flight:n",                                                  \
      "loss recovery began or ended, or a reduction of cwnd was taken back")                       \
    X(LOST, CC, lost, "lost",                                                                      \
      "why:reason seq:seq len:n sent:u age:ns",                                                    \
      "bytes in flight are taken for lost; how often and how long ago they were sent")             \
    X(REORDERING, CC, reordering, "reordering",                                                    \
      "why:reason window:ns",                                                                      \
      "segments overtake each other or arrive twice, as ACKs show; RACK waits so long now") \
    X(RTT, CC, rtt, "rtt",                                                                         \
      "sample:ns srtt:ns rttvar:ns rto:ns min:ns",                                                 \
      "a round trip was measured")                                                                 \
    X(CWND, CC, cwnd, "cwnd",                                                                      \
      "cwnd:n ssthresh:n pipe:n srtt:ns rto:ns",                                                   \
      "the congestion window changed")
// clang-format on

#define TRACE_ARGS_MAX 8

/* Where the bytes of one recv() came from: runs of the peer's sequence space, in its order. */
#define TRACE_RANGES_MAX 16
struct trace_ranges {
    unsigned count;
    uint32_t more; /* bytes of whose origin nothing is listed */
    struct trace_range {
        uint32_t seq, len; /* the part that this recv() took */
        uint32_t of;       /* bytes that the frame brought; its segments had `segment` bytes each */
        uint32_t segment;
        nsec_t arrived;
    } ranges[TRACE_RANGES_MAX];
};

enum trace_class_bit {
#define X(id, word, doc) TRACE_BIT_##id,
    TRACE_CLASSES(X)
#undef X
        TRACE_CLASS_COUNT
};

enum trace_class {
#define X(id, word, doc) TRACE_##id = 1u << TRACE_BIT_##id,
    TRACE_CLASSES(X)
#undef X
        TRACE_ALL = (1u << TRACE_CLASS_COUNT) - 1
};

/*
 * In stack_cx.trace beside the classes: stack_ops.trouble() is called when a connection ends by an
 * error or a reset.
 */
#define TRACE_TROUBLE (1u << 31)

enum trace_event_id {
#define X(id, class, probe, name, args, doc) TRACE_EV_##id,
    TRACE_EVENTS(X)
#undef X
        TRACE_EVENT_COUNT
};

struct trace_event_info {
    enum trace_class class;
    const char *name;
    const char *args;
    const char *doc;
};

extern const struct trace_event_info trace_events[TRACE_EVENT_COUNT];
extern const char *const trace_class_words[TRACE_CLASS_COUNT];
extern const char *const trace_class_docs[TRACE_CLASS_COUNT];

struct flow;
struct stack_cx;

struct trace_record {
    enum trace_event_id id;
    nsec_t now;
    const struct flow *flow; /* NULL where the event belongs to no connection */
    unsigned argc;
    const uint64_t *argv;
};

/* Hands a record to the sink of the context; called through TRACE() only. */
void trace_emit(struct stack_cx *cx, const struct flow *flow, enum trace_event_id id,
                const uint64_t *argv, unsigned argc);

/* Emits event `ev` of class `cls` when the context watches that class; arguments are evaluated only
 * then. */
#define TRACE(cx, cls, flow, ev, ...)                                                              \
    do {                                                                                           \
        if (stack_traces((cx), TRACE_##cls)) {                                                     \
            const uint64_t trace_argv[] = {__VA_ARGS__};                                           \
            trace_emit((cx), (flow), TRACE_EV_##ev, trace_argv, ARRAY_LEN(trace_argv));            \
        }                                                                                          \
    } while (0)
