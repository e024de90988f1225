/*
 * User sockets in messages (SCM_RIGHTS) that nobody ever reads. A message counts as a reference,
 * and when its unix socket goes, or who receives it has no room for descriptors, nobody tells us.
 *
 * But the message also holds the backing socket's file. Each process that sends sockets has an
 * epoll set of its own with their files, for no event: the kernel takes a member out when its file
 * is gone, and /proc/self/fdinfo lists the others. The service thread looks now and then while
 * messages are under way, more rarely as time passes.
 *
 * A file that the keeper has in custody, too (the guard of a port: listeners), lives on there.
 */
#pragma once

#include "shim/core/usock.h"

/* Entered: descriptor fd, which is us, is about to go in a message. */
void transit_begin(struct stack_cx *cx, int fd, struct usock *us);
/* When the service thread is to look next; NSEC_NEVER: nothing is under way. Not entered. */
nsec_t transit_due(void);
/* Not entered: lets go of sockets whose messages are gone, if it is time to look. */
void transit_look(nsec_t now);
