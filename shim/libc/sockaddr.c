#include "shim/libc/sockaddr.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "shim/core/endpoint.h"
#include "shim/libc/user.h"

/* RFC 2133's sockaddr_in6 had no scope: the least that Linux takes. */
#define SIN6_LEN_MIN 24

int sockaddr_parse(int family, const struct sockaddr *sa, socklen_t len, struct endpoint *out)
{
    if (len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    if (!user_valid(sa, len))
        return -EFAULT;
    if (len < (family == AF_INET6 ? SIN6_LEN_MIN : sizeof(struct sockaddr_in)))
        return -EINVAL;
    if (sa->sa_family != family)
        return -EAFNOSUPPORT;
    *out = endpoint_of(sa);
    return 0;
}

socklen_t sockaddr_make(int family, const struct endpoint *ep, union sockaddr_any *out)
{
    memset(out, 0, sizeof(*out));
    if (family == AF_INET) {
        struct sockaddr_in *in = (void *)out;
        in->sin_family = AF_INET;
        put_be16(&in->sin_port, ep->port);
        in->sin_addr.s_addr = ip_addr_v4(&ep->addr);
        return sizeof(*in);
    }
    struct sockaddr_in6 *in6 = (void *)out;
    in6->sin6_family = AF_INET6;
    put_be16(&in6->sin6_port, ep->port);
    memcpy(&in6->sin6_addr, ep->addr.b, sizeof(ep->addr.b));
    return sizeof(*in6);
}

int sockaddr_give(int family, const struct endpoint *ep, struct sockaddr *sa, socklen_t *len)
{
    if (!user_valid(len, sizeof(*len)))
        return -EFAULT;
    if ((int)*len < 0)
        return -EINVAL;
    union sockaddr_any full;
    const socklen_t full_len = sockaddr_make(family, ep, &full);
    if (!user_valid(sa, *len < full_len ? *len : full_len))
        return -EFAULT;
    if (*len > 0)
        memcpy(sa, &full, *len < full_len ? *len : full_len);
    *len = full_len;
    return 0;
}
