/*
 * LD_PRELOAD for programs on the kernel's stack: each TCP socket has CUBIC from the start, and what
 * a listener accepts inherits it. Where BBR is the default, a socket that changes over after it is
 * connected (iperf3 -C) stays paced; and a namespace may not be allowed another default.
 * BENCH_SNDBUF=BYTES: and this SO_SNDBUF, of which the kernel lets half be text.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

__attribute__((visibility("default"))) int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    if (real == NULL)
        real = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    const int fd = real(domain, type, protocol);
    const char *sndbuf = getenv("BENCH_SNDBUF");
    if (fd < 0 || (domain != AF_INET && domain != AF_INET6) || (type & 0xf) != SOCK_STREAM)
        return fd;
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (sndbuf != NULL) {
        const int bytes = atoi(sndbuf);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
    return fd;
}
