/*
 * The kernel socket behind a descriptor. It costs 3.5 KB and 4 us from socket() to close(), and
 * most sockets never need it to remember anything: so the descriptors of those are duplicates of
 * one socket of the process, the common one of their family, and usock.shares says so. The first
 * call that would change it, or could tell it from others, gives the socket one of its own, under
 * the same numbers.
 *
 * A common socket carries a mark that descriptors show wherever they get to: by fork, exec or
 * message. All entered.
 */
#pragma once

#include <sys/socket.h>

#include "shim/libc/call.h"

/*
 * A descriptor for a new socket, as socket(2) chooses its number; flags: SOCK_CLOEXEC and
 * SOCK_NONBLOCK. *shares: it is the common socket. Negative errno as socket(2)'s.
 */
int backing_open(int family, int flags, bool *shares);
/* The same for socket(), of whose sockets many may soon need their own: then it gives them that. */
int backing_open_undecided(int family, int flags, bool *shares);
/* A socket that shares was connected by the engine: sharing paid. */
void backing_paid(void);
/* Whether the call's descriptor is a duplicate of a common socket. */
bool backing_is_common(const struct usock *us, int fd);
/* Gives the socket one of its own in this process, if it has none. Negative errno: not to be had.
 */
int backing_own(struct usock *us, int fd);
/* What the kernel says to the option and its value: for options that only the engine keeps. */
int backing_judge(int level, int name, const void *val, socklen_t len);
/* Before exec of an image without the shim: sockets that it inherits get their own. */
void backing_own_inherited(void);
/* Before system calls are forbidden: all get their own, nothing is shared from now on. */
void backing_forbid(void);
