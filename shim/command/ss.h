/* Printing snapshots. */
#pragma once

#include "shim/command/snapshot.h"

struct ss_wish {
    bool all;       /* sockets that are not connected yet, too */
    bool listening; /* listeners only */
    bool brief;     /* a line each */
    bool counters;  /* the stacks' counters, too */
    bool json;
    unsigned events; /* at most so many of the last events of each; 0: none */
    uint32_t states; /* bits 1 << enum tcp_state; 0: any */
    uint16_t port;   /* local or remote; 0: any */
    pid_t pid;       /* 0: any */
};

/* Whether the socket is wanted. */
bool ss_wanted(const struct ss_wish *w, const struct snapshot_socket *k);
/* All snapshots of one moment. Return how many sockets were shown. */
unsigned ss_print(const struct ss_wish *w, const struct snapshot *s, unsigned n);
unsigned ss_print_json(const struct ss_wish *w, const struct snapshot *s, unsigned n);
/* "10.0.0.1:80", "*:80" for any address, "[fd00::1]:80". */
void ss_endpoint(const struct endpoint *e, char *out, size_t size);
