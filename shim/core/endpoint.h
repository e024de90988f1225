/* The kernel's struct sockaddr_in and sockaddr_in6 as the engine has them. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "stack/base.h"

/* sa is whole, of AF_INET or AF_INET6; of another family: no address, port 0. */
static inline struct endpoint endpoint_of(const struct sockaddr *sa)
{
    struct endpoint e = {.port = 0};
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        e.addr = ip_addr_from_v4(in->sin_addr.s_addr);
        e.port = get_be16(&in->sin_port);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)sa;
        memcpy(e.addr.b, &in6->sin6_addr, sizeof(e.addr.b));
        e.port = get_be16(&in6->sin6_port);
    }
    return e;
}
