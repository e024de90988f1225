/*
 * Connections one after another: connect, one request and its answer of 64 bytes, close.
 * The server closes first, so TIME_WAIT is its own and the client's ports are free again.
 *
 *     conn PORT                   server
 *     conn ADDR PORT SECONDS      client: prints connections per second
 */
#include "net.h"

#define BYTES 64

static _Noreturn void serve(const char *port)
{
    const int listener = listen_on(port);
    char buffer[BYTES];
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        must(fd >= 0, "accept");
        if (recv(fd, buffer, sizeof(buffer), MSG_WAITALL) == BYTES)
            must(send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL) == BYTES, "send");
        close(fd);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2)
        serve(argv[1]);
    if (argc != 4)
        return 2;
    const struct sockaddr_in sa = address(argv[1], argv[2]);
    char buffer[BYTES] = {0};
    const double start = now_usec(), span = atof(argv[3]) * 1e6;
    unsigned done = 0;
    double now = start;
    for (; now - start < span; now = now_usec(), done++) {
        const int fd = connect_to(&sa);
        must(send(fd, buffer, sizeof(buffer), 0) == BYTES, "send");
        must(recv(fd, buffer, sizeof(buffer), MSG_WAITALL) == BYTES, "recv");
        must(recv(fd, buffer, sizeof(buffer), 0) == 0, "end");
        close(fd);
    }
    printf("%.0f\n", done / (now - start) * 1e6);
    return 0;
}
