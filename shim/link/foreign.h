/*
 * Connections of the host's addresses that are neither the kernel's nor ours: those of a dead
 * server, which its keeper finishes (shim/keeper/guards.c) while its successor has the port. The
 * successor sees their segments too, and must not answer them.
 */
#pragma once

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "stack/stack.h"

/* The abstract unix name that a keeper binds for a port with such connections; returns its length.
 */
socklen_t foreign_name(uint16_t port, struct sockaddr_un *name);
/* Entered, at listen(): whether a keeper has connections of this port. */
void foreign_look(struct stack_cx *cx, uint16_t port);
/*
 * As stack_ops.foreign: whether the kernel has a socket of exactly this tuple, as keepers make, or
 * others may share the port (group.h), or listen on it at another address. Asks by sock_diag(7),
 * and only where there is reason to.
 */
bool foreign_flow(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                  bool unheard);
