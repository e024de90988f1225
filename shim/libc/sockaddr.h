/* Between struct sockaddr of the program and struct endpoint of the engine. */
#pragma once

#include <sys/socket.h>

#include "stack/base.h"

union sockaddr_any {
    struct sockaddr sa;
    struct sockaddr_storage storage;
};

/*
 * An address that the program passes for a socket of `family`. 0, or as Linux: -EFAULT, -EINVAL
 * (too short), -EAFNOSUPPORT.
 */
int sockaddr_parse(int family, const struct sockaddr *sa, socklen_t len, struct endpoint *out);
/* The form that a socket of `family` shows; returns its length. */
socklen_t sockaddr_make(int family, const struct endpoint *ep, union sockaddr_any *out);
/*
 * Hands an address to the program: cut to *len, *len set to the full length (getsockname(2)).
 * 0, -EFAULT, -EINVAL.
 */
int sockaddr_give(int family, const struct endpoint *ep, struct sockaddr *sa, socklen_t *len);
