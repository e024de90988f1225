/*
 * Guards of the shared address mode: each local port that the stack uses is held by a kernel TCP
 * socket that listens behind a filter, so that the kernel neither answers for the port nor gives
 * it to another program. Process-local descriptors; freed by the kernel when the process ends.
 */
#pragma once

#include <sys/socket.h>

#include "shim/core/usock.h"

/*
 * Turns the program's bound backing socket into the guard of its port: filter first, then listen.
 * local_clients: connections that come in over the loopback interface are still accepted by it (a
 * listener); otherwise nothing is. v6_kernel: native IPv6 passes to the kernel socket.
 * 0 or negative errno (EADDRINUSE as listen(2)).
 */
int guard_backing(int fd, bool local_clients, bool v6_kernel, int backlog);
/*
 * The program closed the backing socket of a guarded port that connections still use: keeps a
 * duplicate that admits nobody until the last flow of the port is gone.
 */
void guard_keep(int fd, uint16_t port);
/*
 * The guard of a port was a dead process's. False: nothing needs it any more; else it is kept as
 * by guard_keep(), unless somebody still listens on the port, and shares the port with sockets that
 * any process of the family binds with SO_REUSEADDR (guard_bind()).
 */
bool guard_adopt(int fd, uint16_t port);
/*
 * Whether a socket in custody is a member of an SO_REUSEPORT group whose listener died with the
 * last process that had it, while others of the family listen on: to the kernel it is a member
 * still, and new connections would be elected to it that nobody answers. Whoever put it there.
 */
bool guard_orphaned(int fd, uint64_t cookie, uint16_t port);
/* The backing socket fd guards the port no more: it listens no more, whoever else has it (the
 * keeper). */
void guard_end(int fd, uint16_t port);
/* bind() to a port that only a kept guard holds: the guard makes way. True when one did. */
bool guard_make_way(uint16_t port);
/*
 * bind(2) of a program's socket to sa. Where only kept guards hold the port and the program said
 * SO_REUSEADDR (reuseaddr), bind succeeds without a gap in the guard: prefer this to bind() and
 * guard_make_way(). 0 or negative errno.
 */
int guard_bind(int fd, const struct sockaddr *sa, socklen_t len, bool reuseaddr);
/*
 * Entered, shared address. Whether a SYN from this host to here, an address of this host, meets a
 * guard of this family that admits nobody: nothing listens there, and Linux would refuse it.
 */
bool guard_is_deaf(const struct endpoint *here);
/* Lets go of guards whose ports no flow uses any more; cheap, called now and then under the lock.
 */
void guard_sweep(struct stack_cx *cx);
/* The same at once, for the guards alone. */
void guard_release_unused(void);
/*
 * The program's listener stops listening, but connections of its port live on: its backing socket
 * stays their guard, admits nobody and resets who waits in it. 0 or negative errno.
 */
int guard_retire(int fd);
/*
 * Entered. The program is about to become user `uid`: its bound sockets and kept guards become that
 * user's, since only sockets of one user share a port (SO_REUSEPORT), and a guard of root's could
 * not make way without a gap later.
 */
void guard_give(uid_t uid);
