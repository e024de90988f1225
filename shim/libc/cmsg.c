#define _GNU_SOURCE
#include "shim/libc/cmsg.h"

#include <string.h>

#include "stack/base.h"

size_t cmsg_begin(struct msghdr *msg)
{
    const size_t room = msg->msg_control != NULL ? msg->msg_controllen : 0;
    msg->msg_controllen = 0;
    return room;
}

void cmsg_put(struct msghdr *msg, size_t room, int level, int type, const void *data, size_t len)
{
    const size_t left = room - msg->msg_controllen;
    if (left < sizeof(struct cmsghdr)) {
        msg->msg_flags |= MSG_CTRUNC;
        return;
    }
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    if (header.cmsg_len > left) {
        msg->msg_flags |= MSG_CTRUNC;
        header.cmsg_len = left;
    }
    char *at = (char *)msg->msg_control + msg->msg_controllen;
    memcpy(at, &header, sizeof(header));
    memcpy(at + CMSG_LEN(0), data, header.cmsg_len - CMSG_LEN(0));
    msg->msg_controllen += min_u64(CMSG_SPACE(len), left);
}
