/*
 * The cost of libc calls as a program sees them, for callgrind to count. Prints `NAME OPERATIONS`
 * for each, several times: the least counts.
 *
 *     calls            on descriptors that are no sockets: with the library preloaded or without
 *     calls sockets    on a connection to this host (with TCPSHIM_LOOPBACK=user: inside the stack)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench/instructions/count.h"

#define WARM_UP    10
#define OPERATIONS 20
/* The service thread may come in between: the cheapest round counts. */
#define ROUNDS 10

static int zero, channel[2];

static void read_zero(void)
{
    char c;
    if (read(zero, &c, 1) != 1)
        abort();
}

static void poll_pipe(void)
{
    struct pollfd p = {.fd = channel[0], .events = POLLIN};
    if (poll(&p, 1, 0) != 1)
        abort();
}

static void write_zero(void)
{
    if (write(zero, "x", 1) != 1)
        abort();
}

static void open_close(void)
{
    close(dup(zero));
}

/* ---- a connection ---- */

static int client, server, epoll;

static void connect_both(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    const int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&sa, len) != 0 || listen(listener, 5) != 0 ||
        getsockname(listener, (struct sockaddr *)&sa, &len) != 0 ||
        connect(client, (struct sockaddr *)&sa, len) != 0)
        abort();
    server = accept(listener, NULL, NULL);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    if (server < 0 || setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event) != 0)
        abort();
}

static void send_both(void)
{
    static const char request[64];
    if (send(client, request, sizeof(request), 0) != sizeof(request))
        abort();
}

static void receive_part(void)
{
    char answer[1];
    if (recv(server, answer, sizeof(answer), 0) != sizeof(answer))
        abort();
}

static void poll_ready(void)
{
    struct pollfd p = {.fd = server, .events = POLLIN};
    if (poll(&p, 1, -1) != 1)
        abort();
}

static void epoll_ready(void)
{
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1)
        abort();
}

static void receive_nothing(void)
{
    char answer[1];
    if (recv(client, answer, sizeof(answer), MSG_DONTWAIT) != -1)
        abort();
}

/* ---- */

static void measure(const char *name, void (*run)(void))
{
    for (unsigned i = 0; i < WARM_UP; i++)
        run();
    count_start();
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < OPERATIONS; i++) {
            count_begin();
            run();
            count_end();
        }
        count_done(name, OPERATIONS);
        printf("\n");
    }
    count_stop();
}

static int sockets(void)
{
    connect_both();
    measure("socket-send-64", send_both);
    measure("socket-recv-1", receive_part);
    measure("socket-recv-nothing", receive_nothing);
    measure("socket-poll", poll_ready);
    measure("socket-epoll", epoll_ready);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        return sockets();
    zero = open("/dev/zero", O_RDWR);
    if (zero < 0 || pipe(channel) != 0 || write(channel[1], "x", 1) != 1)
        return 1;
    measure("read-zero", read_zero);
    measure("write-zero", write_zero);
    measure("poll-pipe", poll_pipe);
    measure("dup-close", open_close);
    return 0;
}
