/*
 * Guards of the shared address mode: each local port that the stack uses is held by a kernel TCP
 * socket that listens behind a filter, so that the kernel neither answers for the port nor gives
 * it to another program. Process-local descriptors; freed by the kernel when the process ends.
 */
#pragma once

#include <sys/socket.h>

#include "shim/core/usock.h"

/*
 * Turns us's bound backing socket, fd, into the guard of its port: filter first, then listen. Older
 * guards beside which it was bound (guard_bind()) end.
 * local_clients: connections that come in over the loopback interface are still accepted by it (a
 * listener); otherwise nothing is. v6_kernel: native IPv6 passes to the kernel socket.
 * 0 or negative errno (EADDRINUSE as listen(2)).
 */
int guard_backing(struct usock *us, int fd, bool local_clients, bool v6_kernel, int backlog);
/*
 * The program closed the backing socket of a guarded port that connections still use: keeps a
 * duplicate that admits nobody until the last flow of the port is gone.
 */
void guard_keep(int fd, uint16_t port);
/*
 * The guard of a port was a dead process's. False: nothing needs it any more; else it is kept as
 * by guard_keep(), unless somebody still listens on the port.
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
/*
 * bind(2) of us's backing socket, fd, to sa. Where nobody of the family listens on the port and
 * only its guards hold it, for connections of other sockets, and both sides said SO_REUSEADDR, bind
 * succeeds as in Linux, and without a gap in the guard: both share the port until guard_backing().
 * 0 or negative errno.
 */
int guard_bind(struct usock *us, int fd, const struct sockaddr *sa, socklen_t len);
/* How the guards of a port make room for a newer socket of the family. */
struct guard_yield {
    struct endpoint to;
    uid_t uid;    /* whose the newer socket is: only sockets of one user share a port */
    bool end;     /* they end; else they share the port with it */
    bool foreign; /* out: another user's is among them, which this process cannot give away */
};
/* A guard in custody, of whatever process: does so if its program said SO_REUSEADDR. True: it
 * ended. */
bool guard_yields(int fd, struct guard_yield *y);
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
 * Entered. The program, root's, is about to become user `uid`: its bound sockets and root's kept
 * guards become that user's, since only sockets of one user share a port (SO_REUSEPORT), and a
 * guard of root's could not make way without a gap later.
 */
void guard_give(uid_t uid);
