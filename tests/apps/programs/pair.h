/* What the programs of case against-kernel share: the end of one that cannot go on, and a
 * connection of the process with itself. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void must(bool ok, const char *what)
{
    if (ok)
        return;
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

/* A listener on a free port of 127.0.0.1, which stands in *at then. */
static inline int listen_somewhere(struct sockaddr_in *at, int backlog)
{
    socklen_t len = sizeof(*at);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(fd, (struct sockaddr *)at, len) == 0 && listen(fd, backlog) == 0 &&
             getsockname(fd, (struct sockaddr *)at, &len) == 0,
         "listen");
    return fd;
}

/* Both ends of a new connection through `listener`: who connects, who accepts. */
static inline void connect_pair(int listener, const struct sockaddr_in *at, int pair[2])
{
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(pair[0], (const struct sockaddr *)at, sizeof(*at)) == 0, "connect");
    pair[1] = accept(listener, NULL, NULL);
    must(pair[1] >= 0, "accept");
}

static inline void make_pair(int pair[2])
{
    struct sockaddr_in at;
    const int listener = listen_somewhere(&at, 1);
    connect_pair(listener, &at, pair);
    close(listener);
}
