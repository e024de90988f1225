/* What the small programs of bench/ share: plain blocking sockets and a clock. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline void must(int ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static inline double now_usec(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static inline struct sockaddr_in address(const char *addr, const char *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    must(inet_pton(AF_INET, addr, &sa.sin_addr) == 1, addr);
    return sa;
}

static inline int listen_on(const char *port)
{
    const struct sockaddr_in sa = address("0.0.0.0", port);
    const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    must(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    must(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0, "bind");
    must(listen(fd, 1024) == 0, "listen");
    return fd;
}

static inline int connect_to(const struct sockaddr_in *sa)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    must(fd >= 0, "socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    must(connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0, "connect");
    return fd;
}
