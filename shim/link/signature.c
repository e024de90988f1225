#include "shim/link/signature.h"

#include <linux/tcp.h>
#include <netinet/in.h>

#include "shim/core/addr.h"
#include "shim/core/raw.h"
#include "shim/link/interfaces.h"

struct key_target {
    int fd;
    bool v6;
};

static int add_key(const struct v4_prefix *prefix, void *arg)
{
    const struct key_target *t = arg;
    struct tcp_md5sig sig = {
        .tcpm_flags = TCP_MD5SIG_FLAG_PREFIX, .tcpm_prefixlen = prefix->len, .tcpm_keylen = 16};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(prefix->addr)}};
    if (t->v6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&in6.sin6_addr.s6_addr[12], &in.sin_addr, 4);
        memcpy(&sig.tcpm_addr, &in6, sizeof(in6));
    } else {
        memcpy(&sig.tcpm_addr, &in, sizeof(in));
    }
    raw_getrandom(sig.tcpm_key, sig.tcpm_keylen);
    return raw_setsockopt(t->fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &sig, sizeof(sig));
}

int signature_guard(int fd, bool local_clients)
{
    struct v4_prefix local[SIGNATURE_LOCAL_MAX + 1] = {{.addr = 0x7f000000, .len = 8}};
    unsigned n = 0;
    int domain = AF_INET;
    socklen_t len = sizeof(domain);
    raw_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    struct key_target target = {.fd = fd, .v6 = domain == AF_INET6};
    if (local_clients && ifaces_read() == 0) {
        struct ip_addr addr;
        for (n = 1; n <= SIGNATURE_LOCAL_MAX && iface_addr(n - 1, &addr); n++)
            local[n] = (struct v4_prefix){.addr = get_be32(&addr.b[12]), .len = 32};
    } else if (local_clients) {
        n = 1;
    }
    return addr4_cover(local, n, add_key, &target);
}
