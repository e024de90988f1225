/* RFC 9293 figure 5: its states and arrows, and what was seen of them. */
#include "tests/explore/explore.h"

#include <stdio.h>

struct arrow {
    enum tcp_state from, to;
    const char *label;
    const char *absent; /* why it cannot be seen; NULL: it must be */
    uint64_t seen;
};

/* As the figure has them. SYN_RECEIVED to LISTEN is the end of a half-open entry: the listener
 * itself never leaves LISTEN. */
static struct arrow arrows[] = {
    {TCP_CLOSED, TCP_LISTEN, "passive OPEN", NULL, 0},
    {TCP_CLOSED, TCP_SYN_SENT, "active OPEN / snd SYN", NULL, 0},
    {TCP_LISTEN, TCP_CLOSED, "CLOSE", NULL, 0},
    {TCP_LISTEN, TCP_SYN_RECEIVED, "rcv SYN / snd SYN,ACK", NULL, 0},
    {TCP_LISTEN, TCP_SYN_SENT, "SEND / snd SYN", "no such call in the sockets API", 0},
    {TCP_SYN_SENT, TCP_CLOSED, "CLOSE", NULL, 0},
    {TCP_SYN_SENT, TCP_SYN_RECEIVED, "rcv SYN / snd SYN,ACK", NULL, 0},
    {TCP_SYN_SENT, TCP_ESTABLISHED, "rcv SYN,ACK / snd ACK", NULL, 0},
    {TCP_SYN_RECEIVED, TCP_LISTEN, "rcv RST (note 1)", NULL, 0},
    {TCP_SYN_RECEIVED, TCP_ESTABLISHED, "rcv ACK of SYN", NULL, 0},
    {TCP_SYN_RECEIVED, TCP_FIN_WAIT_1, "CLOSE / snd FIN", NULL, 0},
    {TCP_ESTABLISHED, TCP_FIN_WAIT_1, "CLOSE / snd FIN", NULL, 0},
    {TCP_ESTABLISHED, TCP_CLOSE_WAIT, "rcv FIN / snd ACK", NULL, 0},
    {TCP_FIN_WAIT_1, TCP_FIN_WAIT_2, "rcv ACK of FIN", NULL, 0},
    {TCP_FIN_WAIT_1, TCP_CLOSING, "rcv FIN / snd ACK", NULL, 0},
    {TCP_FIN_WAIT_1, TCP_TIME_WAIT, "rcv FIN,ACK of FIN / snd ACK (note 2)", NULL, 0},
    {TCP_FIN_WAIT_2, TCP_TIME_WAIT, "rcv FIN / snd ACK", NULL, 0},
    {TCP_CLOSING, TCP_TIME_WAIT, "rcv ACK of FIN", NULL, 0},
    {TCP_CLOSE_WAIT, TCP_LAST_ACK, "CLOSE / snd FIN", NULL, 0},
    {TCP_LAST_ACK, TCP_CLOSED, "rcv ACK of FIN", NULL, 0},
    {TCP_TIME_WAIT, TCP_CLOSED, "2 MSL passed", NULL, 0},
};

static uint64_t ended_early; /* by RST, time-out or abort: not in the figure */
static uint64_t states[TCP_CLOSING + 1];

static struct arrow *find(enum tcp_state from, enum tcp_state to)
{
    for (unsigned i = 0; i < ARRAY_LEN(arrows); i++)
        if (arrows[i].from == from && arrows[i].to == to)
            return &arrows[i];
    return NULL;
}

/* The causes of arrows that share their ends with a connection's early end. */
static bool early(enum tcp_state from, enum tcp_state to, enum tcp_reason why)
{
    if (to != TCP_CLOSED)
        return false;
    switch (from) {
    case TCP_LAST_ACK:
        return why != TCP_WHY_RX_ACK_OF_FIN;
    case TCP_SYN_SENT:
        return why != TCP_WHY_CALL_CLOSE && why != TCP_WHY_CALL_DISCONNECT;
    case TCP_LISTEN:
    case TCP_TIME_WAIT:
        return false;
    default:
        return true;
    }
}

/* One segment that acknowledges our FIN and brings the peer's: two transitions in one step. */
static bool note_2(enum tcp_state from, enum tcp_state to)
{
    static uint64_t acked_in; /* the step in which our FIN was acknowledged */
    if (from == TCP_FIN_WAIT_1 && to == TCP_FIN_WAIT_2)
        acked_in = world.step;
    return from == TCP_FIN_WAIT_2 && to == TCP_TIME_WAIT && acked_in == world.step;
}

bool figure_saw(enum tcp_state from, enum tcp_state to, enum tcp_reason why)
{
    states[from]++;
    states[to]++;
    if (from == TCP_SYN_RECEIVED && to == TCP_CLOSED && why == TCP_WHY_RX_RST) {
        find(TCP_SYN_RECEIVED, TCP_LISTEN)->seen++;
        return true;
    }
    if (note_2(from, to)) {
        find(TCP_FIN_WAIT_1, TCP_TIME_WAIT)->seen++;
        return true;
    }
    if (early(from, to, why)) {
        ended_early++;
        return true;
    }
    struct arrow *a = find(from, to);
    if (a == NULL || a->absent != NULL)
        return false;
    a->seen++;
    return true;
}

unsigned figure_print(void)
{
    unsigned missing = 0;
    printf("%-13s %-13s %-40s %s\n", "from", "to", "RFC 9293 figure 5", "seen");
    for (unsigned i = 0; i < ARRAY_LEN(arrows); i++) {
        const struct arrow *a = &arrows[i];
        printf("%-13s %-13s %-40s ", tcp_state_name(a->from), tcp_state_name(a->to), a->label);
        if (a->absent != NULL)
            printf("%s\n", a->absent);
        else
            printf("%llu\n", (unsigned long long)a->seen);
        missing += a->seen == 0 && a->absent == NULL;
    }
    printf("ended early (RST, time-out, abort): %llu\n", (unsigned long long)ended_early);
    unsigned reached = 0;
    for (unsigned s = TCP_ESTABLISHED; s <= TCP_CLOSING; s++)
        reached += states[s] != 0;
    printf("%u of 11 states reached\n", reached);
    return missing + (11 - reached);
}
