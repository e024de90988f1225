/*
 * The script runner of the differential test. A seed gives a sequence of socket calls; the runner
 * makes them and writes one line for each with all that a program can see of its outcome. The same
 * seeds run on kernel sockets and on shim sockets (LD_PRELOAD) must give the same lines.
 *
 * What the script does next may depend on what it saw: as long as both logs are equal so are the
 * scripts. Lines name descriptors by slot, ports by a slot that has them.
 *
 * Linux promises no moment at which a segment arrives, so the runner settles after each call that
 * may cause one (settle.c) before it looks.
 */
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SOCKETS    8
#define SETS       3
#define PIPES      2 /* one pipe: its ends */
#define SLOTS      (SOCKETS + SETS + PIPES)
#define PORTS      64
#define STATE_TEXT 96

enum slot_kind { SLOT_SOCKET, SLOT_SET, SLOT_PIPE };

struct slot {
    int fd;        /* -1: nothing; a number that was closed may stay behind in `stale` */
    int stale;     /* the last number it had */
    unsigned file; /* number of the open file: duplicates share it */
    bool v6;       /* an AF_INET6 socket: its addresses are mapped ones */
    bool mixed;    /* a set with members other than user-stack sockets: order is not compared */
    bool used;     /* was connected, or tried */
    bool shut;     /* shutdown() while it was not connected */
    bool apart;    /* a socket that the shim leaves to the kernel (nobody listened) */
    char seen[STATE_TEXT]; /* what the last observation said */
};

struct world {
    uint64_t seed, random;
    struct slot slot[SLOTS];
    struct in_addr here;   /* 127.x.y.z, another for each seed */
    uint16_t ports[PORTS]; /* that sockets were bound to */
    unsigned nports;
    unsigned budget;     /* bytes that may still be sent without filling a window */
    unsigned files;      /* opened so far */
    unsigned registered; /* serial number of the last epoll registration */
    uint8_t position;    /* of the pattern that send calls write */
    bool urgent;         /* urgent data was sent: MSG_MORE then holds nothing back on Linux */
    bool corked;         /* data is held back on purpose: settling does not wait for it */
    int barrier;         /* a UDP socket connected to itself */
    bool sleepers;       /* threads that wait for what is done now */
};

/* ---- random (world.c) ---- */

uint64_t random_next(struct world *w);
/* Below n; n > 0. */
unsigned pick(struct world *w, unsigned n);
/* True once in n. */
bool once_in(struct world *w, unsigned n);
int pick_int(struct world *w, const int *values, unsigned n);
#define PICK(w, ...)                                                                               \
    pick_int((w), (const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))

/* ---- log (world.c) ---- */

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* " = 5" or " = -1 EAGAIN", and the SIGPIPEs that came meanwhile; ends the line. */
void say_result(long result, int err);
/* Names of bits: "IN|OUT". */
void say_events(uint32_t events);
const char *error_name(int err);
void log_flush(void);
void log_reset(void);

/* ---- slots (world.c) ---- */

enum slot_kind kind_of(unsigned slot);
const char *slot_name(unsigned slot); /* S0, E1, P0 */
/* A random slot that is in use (true), or free (false) when there is one; else any. */
unsigned pick_slot(struct world *w, enum slot_kind kind, bool used);
/* A socket slot in TCP state `state` (TCP_ESTABLISHED, ...); -1: none. */
int pick_state(struct world *w, int state);
/* The number to call with: mostly the slot's, or one that was closed. */
int fd_of(const struct world *w, unsigned slot);
/* A call gave a new descriptor for the slot (or failed: -1). Logs nothing. */
void slot_open(struct world *w, unsigned slot, int fd);
/* A free slot for a new descriptor; closes one when all are in use. */
unsigned slot_for_new(struct world *w, enum slot_kind kind);
void slot_close(struct world *w, unsigned slot);
/* The slot that holds the other end of a socket's connection; -1: none. */
int peer_slot(const struct world *w, unsigned slot);
int tcp_state_of(int fd);

void world_begin(struct world *w, uint64_t seed);
void world_end(struct world *w);

/* ---- addresses (world.c) ---- */

struct sockaddr_in address(const struct world *w, uint16_t port);
/* As the slot's socket takes an address: mapped (RFC 4291 2.5.5.2) for AF_INET6. Returns its
 * length. */
socklen_t address_for(const struct world *w, unsigned slot, const struct sockaddr_in *sa,
                      socklen_t len, struct sockaddr_storage *out);
socklen_t address_size(const struct world *w, unsigned slot);
/* The port that a socket is bound to; 0: none. */
uint16_t port_of(int fd);
/* slot: the socket whose name or peer it is, -1: none. */
void say_address(const struct world *w, int slot, const void *given, socklen_t len);

/* ---- settle.c ---- */

/* Waits until nothing is under way. */
void settle(struct world *w);
/* Logs what changed of each socket since the last time: state, readiness, bytes to read. */
void observe(struct world *w);

/* ---- operations ---- */

struct operation {
    unsigned weight;
    void (*run)(struct world *w);
};
extern const struct operation life_operations[], data_operations[], option_operations[],
    ready_operations[], wait_operations[], pointer_operations[],
    edge_operations[]; /* each ends with a NULL */
/* A listener, a connection to it and its accepted end. */
void life_pair(struct world *w);
void life_listener(struct world *w);
void ready_set(struct world *w);
/* A change of a set; a look at something (no change of who is registered). */
void ready_change(struct world *w);
void ready_look(struct world *w);
/* One socket, if there is one. */
void life_shutdown(struct world *w);
/* Buffers filled and emptied. Takes milliseconds. */
void data_fill(struct world *w);

void script_run(struct world *w);
