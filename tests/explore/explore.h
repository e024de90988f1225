/*
 * Two engines and a small channel between them, driven through every order of calls, deliveries,
 * losses and timers. Theory of operation in explore.c.
 */
#pragma once

#include "stack/tcp/conn.h"

#define CHANNEL_MAX 16
#define PACKET_MAX  1600

/* What can happen next. X(id, what) */
#define ACTIONS(X)                                                                                 \
    X(OPEN_A, "A opens")                                                                           \
    X(OPEN_B, "B opens")                                                                           \
    X(SEND_A, "A sends a byte")                                                                    \
    X(SEND_B, "B sends a byte")                                                                    \
    X(SHUT_A, "A calls shutdown(SHUT_WR)")                                                         \
    X(SHUT_B, "B calls shutdown(SHUT_WR)")                                                         \
    X(CLOSE_A, "A closes")                                                                         \
    X(CLOSE_B, "B closes")                                                                         \
    X(UNLISTEN_B, "B closes its listener")                                                         \
    X(DELIVER_A, "the oldest packet of A arrives")                                                 \
    X(DELIVER_B, "the oldest packet of B arrives")                                                 \
    X(OVERTAKE_A, "a younger packet of A overtakes and arrives")                                   \
    X(OVERTAKE_B, "a younger packet of B overtakes and arrives")                                   \
    X(LOSE_A, "the oldest packet of A is lost")                                                    \
    X(LOSE_B, "the oldest packet of B is lost")                                                    \
    X(DOUBLE_A, "the oldest packet of A arrives, and stays")                                       \
    X(DOUBLE_B, "the oldest packet of B arrives, and stays")                                       \
    X(TIMER, "the next timer fires")

enum action {
#define X(id, what) ACT_##id,
    ACTIONS(X)
#undef X
        ACTION_COUNT
};
extern const char *const action_names[ACTION_COUNT];

/* What each side does, and how often the channel may err. */
struct scenario {
    const char *name;
    bool b_listens; /* else B connects to A as A does to B, or does nothing */
    bool b_connects;
    uint8_t losses, doubles, overtakings, timers;
    uint8_t depth;   /* actions in a row */
    uint32_t states; /* at most */
};

struct packet {
    uint32_t len;
    uint8_t bytes[PACKET_MAX];
};

struct host {
    struct stack_cx cx;
    void *memory;
    uint8_t netif;
    uint32_t ip;
    uint16_t port;
    struct tcp_conn *conn;
    struct tcp_listener *listener;
    bool opened, sent, shut, closed, unlistened;
    uint32_t wrote, read;
    /* what left this host and has not arrived */
    unsigned npackets;
    struct packet packets[CHANNEL_MAX];
};

struct world {
    const struct scenario *scenario;
    struct host hosts[2];
    nsec_t now;
    uint8_t losses, doubles, overtakings, timers; /* so far */
    enum action current;
    uint64_t step; /* actions done, in all plays */
    bool overflow; /* the channel was full: what came last is lost */
};
extern struct world world;

/* world.c */
void world_begin(const struct scenario *scenario);
bool world_can(enum action a);
void world_do(enum action a);
/* A fingerprint of everything that decides what can happen from here on, but for the time. */
uint64_t world_hash(void);
/*
 * From here on the network is good and both programs close: whether it comes to an end. NULL, or
 * what is wrong.
 */
const char *world_end(void);

/* figure.c: which arrows of RFC 9293 figure 5 were seen. */
/* Records a transition; false: no arrow, and not one of those that are allowed beside them. */
bool figure_saw(enum tcp_state from, enum tcp_state to, enum tcp_reason why);
/* Prints the table; the number of arrows and states never seen. */
unsigned figure_print(void);
/* Says what is wrong, with the way that led there, and ends the program. */
_Noreturn void explore_fail(const char *what);
