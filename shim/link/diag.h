/*
 * The kernel's TCP sockets of a port, by sock_diag(7): any process may ask. Guards (guard.h) are
 * marked by options that mean nothing to TCP and that the kernel tells everybody, so that all
 * stacks of a host know each other's.
 */
#pragma once

#include "stack/stack.h"
#include "stack/tcp/isn.h"

enum diag_kind {
    DIAG_NONE,
    DIAG_FLOW,   /* a connection, or what stands for one (shim/keeper/guards.h) */
    DIAG_KERNEL, /* a program listens, without the shim or by its rules */
    DIAG_DOOR,   /* the listener of a stack: accepts local clients */
    DIAG_DEAF,   /* a guard that admits nobody */
};

struct diag_socket {
    enum diag_kind kind;
    uint64_t cookie;      /* SO_COOKIE */
    struct ip_addr local; /* of a listener */
};

/* Marks a socket that is to listen, or listens, as a DOOR or as DEAF. */
void diag_mark(int fd, bool door);
/* Whether it was marked as a DOOR last. */
bool diag_is_door(int fd);
/* SO_COOKIE; 0: cannot be had. */
uint64_t diag_cookie(int fd);

/* ---- entered ---- */

/*
 * Which socket the kernel finds for a segment of this tuple that arrives by interface ifindex. Of
 * the members of an SO_REUSEPORT group it is the one that the kernel's hash chooses. IPv4. Two
 * system calls, some microseconds. 0 or negative errno.
 */
int diag_find(const struct flow_tuple *tuple, uint32_t ifindex, struct diag_socket *out);
/* Visits all that listen on the port. The kernel walks all its listeners: some 100 us. 0 or
 * negative errno. */
int diag_listeners(uint16_t port, void (*visit)(const struct diag_socket *s, void *arg), void *arg);
/* Whether such a question may be asked for the sake of a stray segment: so many a second. */
enum diag_question { DIAG_FIND, DIAG_LISTENERS, DIAG_QUESTIONS };
bool diag_may_ask(nsec_t now, enum diag_question which);
/* A sandbox is entered: nothing is asked any more that would need another descriptor. */
void diag_forbid(void);
