/* Control messages for a program, as Linux's put_cmsg() gives them. */
#pragma once

#include <sys/socket.h>

/* Before the first: takes the room that the program offers; msg_controllen grows from 0. */
size_t cmsg_begin(struct msghdr *msg);
/* Adds one; what does not fit is cut and MSG_CTRUNC says so. room: from cmsg_begin(). */
void cmsg_put(struct msghdr *msg, size_t room, int level, int type, const void *data, size_t len);
