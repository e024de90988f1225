/*
 * Images that the shim cannot enter (static, setuid, another architecture): what they inherit of
 * user connections becomes one end of a socketpair each; tcpshim-relay has the other and the
 * connection.
 */
#pragma once

#include <stdbool.h>

/* Connections that one exec takes along; more are closed in order. */
#define RELAYS_MAX 16

struct relay_plan {
    unsigned n;
    int commit; /* closes with exec; -1: no relay */
    struct {
        int fd;    /* the program's number */
        int saved; /* a duplicate of what it was, close-on-exec */
    } fds[RELAYS_MAX];
};

/*
 * Not entered; before execve(2) of such an image. Puts relays in the place of inherited
 * connections, as far as that can be done: without the program tcpshim-relay beside the library it
 * cannot.
 */
void relay_start(struct relay_plan *plan);
/* exec failed: the connections come back to their numbers. */
void relay_cancel(struct relay_plan *plan);
