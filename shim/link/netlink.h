/* One persistent rtnetlink socket (netlink(7), rtnetlink(7)). Used under the engine lock, or before
 * the engine runs. */
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "stack/base.h"

/* A request being put together. */
struct nl_request {
    struct nlmsghdr header;
    char body[256];
};

/* Starts a request whose fixed part is the len bytes at fixed. */
void nl_begin(struct nl_request *rq, uint16_t type, uint16_t flags, const void *fixed, size_t len);
/* Appends an attribute; what does not fit is left out (cannot happen with our requests). */
void nl_put(struct nl_request *rq, uint16_t type, const void *value, size_t len);
static inline void nl_put_u32(struct nl_request *rq, uint16_t type, uint32_t value)
{
    nl_put(rq, type, &value, sizeof(value));
}

/*
 * Sends the request and hands each message of the answer to visit (errors and ends excepted).
 * 0, the error that the kernel answered, or the one of the socket.
 */
int nl_ask(struct nl_request *rq, void (*visit)(const struct nlmsghdr *m, void *arg), void *arg);
/* Points table[type] at each attribute of [rta, rta+len), for types up to max; the others to NULL.
 */
void nl_parse(const struct rtattr *rta, size_t len, const struct rtattr **table, unsigned max);
/* The attributes behind the fixed part of a message. */
static inline const struct rtattr *nl_attrs(const struct nlmsghdr *m, size_t fixed, size_t *len)
{
    *len = m->nlmsg_len > NLMSG_SPACE(fixed) ? m->nlmsg_len - NLMSG_SPACE(fixed) : 0;
    return (const struct rtattr *)((const char *)m + NLMSG_SPACE(fixed));
}
uint32_t nl_u32(const struct rtattr *a);
