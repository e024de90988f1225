/*
 * The keeper: a small process beside each family of processes with connections. It sleeps until
 * the last of the family is gone, whatever the cause, then finishes the engine's open work: data
 * that send() took, FIN, TIME_WAIT. This is the family's side; the keeper's own is shim/keeper/.
 */
#pragma once

#include "stack/base.h"

struct guard_yield;

/* Descriptors by which the keeper is started: what it finds as its numbers 3, 4, ... */
enum keeper_fd {
    KEEPER_FD_PACKET = 3, /* the packet socket */
    KEEPER_FD_ARENA,      /* the memfd */
    KEEPER_FD_CUSTODY,    /* the reading end of the guards in custody */
    KEEPER_FD_ADDRESS,    /* the lock of the own address, or not open */
    KEEPER_FD_BIRTHS,     /* the reading end of births (shim/life/births.h) */
    KEEPER_FD_BELL,       /* the family's bell */
    KEEPER_FD_CAPTURE,    /* TCPSHIM_PCAP's file, or not open */
    KEEPER_FD_MARKS,      /* the map of marks (shim/link/ingress.h), or not open */
    KEEPER_FD_END,
};

/*
 * At the start of the engine: finds the executable beside the library and makes what all processes
 * of the family inherit. arena: the memfd; taken over. Without an executable nothing happens.
 */
void keeper_prepare(int arena);
/* What a new image of the process needs of it (shim/life/handover.c); -1: there is none. */
enum { KEEPER_PROGRAM, KEEPER_ARENA, KEEPER_OUT, KEEPER_IN, KEEPER_HAS };
void keeper_fds(int fds[KEEPER_HAS]);
void keeper_adopt(const int fds[KEEPER_HAS]);
/* Begins to start the family's keeper unless that was done. Not entered; errno unchanged. */
void keeper_begin(void);
/*
 * The same, also in place of one that was killed, and waits until it stands. True: it does, and the
 * process may go.
 */
bool keeper_start(void);

/* Whether it stands: then it notices deaths in the family. */
bool keeper_watches(void);

/* ---- guards, entered ---- */

/*
 * A new guard of this port. named: the program chose the port. False: it ends with this process.
 * Takes guards of dead processes down where no flow needs them, a few at a time.
 */
bool keeper_hold(int fd, uint16_t port, bool named);
/* The guard's descriptor is about to be closed and the port to be free. fd < 0: known by its port.
 */
void keeper_let_go(int fd, uint16_t port);
/* guard_yields() for each guard of that port, if the program chose it, of whatever process. */
void keeper_yield(struct guard_yield *y);
/*
 * The process is dead, others of the family live: its guards of ports that the program chose come
 * to this one where flows still need them, and are closed where not.
 */
void keeper_inherit(int32_t pid);
