/*
 * Descriptors in messages (SCM_RIGHTS). A user socket on its way is held by the message, as in the
 * kernel; who receives it finds it by SO_COOKIE of the backing socket. All not entered, on
 * descriptors that are not user sockets themselves.
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

#include "shim/core/engine.h"
#include "shim/libc/user.h"

/* Whether the message has control data at all: the rest is not worth a call. */
static inline bool rights_possible(const struct msghdr *msg)
{
    return unlikely(user_valid(msg, sizeof(*msg)) && msg->msg_control != NULL &&
                    msg->msg_controllen >= sizeof(struct cmsghdr)) &&
           user_valid(msg->msg_control, msg->msg_controllen);
}
/* Before sendmsg(fd, msg), and when it failed. */
void rights_send(int fd, const struct msghdr *msg);
void rights_unsend(const struct msghdr *msg);
/* recvmsg(fd, msg, flags) succeeded. */
void rights_received(int fd, const struct msghdr *msg, int flags);
