/*
 * Listeners of several stacks on one port and address (SO_REUSEPORT): families of processes that
 * know nothing of each other. Their backing sockets, which guard the port, form the kernel's own
 * group, and the kernel's hash decides whose a connection is: for clients on this host by itself,
 * for those of the wire because each stack asks it, answers its own share and is silent else. A
 * stack keeps what it has: whatever the group becomes, segments of its connections are found in its
 * table first.
 */
#pragma once

#include "shim/link/diag.h"

/* As stack_ops.elect. Members are known by the SO_COOKIE of their backing sockets. */
bool group_elect(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                 uint64_t *member);
/* Entered: a listener of this port has SO_REUSEPORT; and whether there ever was one in this stack.
 */
void group_note(uint16_t port);
bool group_known(uint16_t port);
/* A listener that is none of this stack's. */
bool group_not_ours(uint16_t port, const struct diag_socket *s);
/*
 * Entered. Whether a segment for no connection of this stack may be for one of another stack:
 * others have sockets of its port. Asks the kernel, unless it said yes a moment ago, or was asked
 * too much.
 */
bool group_shares(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex);
/*
 * Entered. Whether a program listens there in the kernel by SO_REUSEPORT. One that joins it had
 * better listen there, too: the kernel would reset connections of a stack when the group changes.
 */
bool group_of_kernel(const struct endpoint *local);
