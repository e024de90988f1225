/*
 * One end of the transfers of accecn_vm.py: over the shim in a namespace, or over the kernel of a
 * virtual machine (linked statically there). For each line of stdin one line of stdout:
 *
 *     set FILE VALUE                                of /proc/sys       `ok`
 *     listen|connect ADDRESS PORT SEND RECEIVE [turns]   `ready` once the listener listens, then
 *                                                   `ok KEY=NUMBER...` or what was wrong
 *
 * Both send and receive at the same time; with `turns` the listener has received all before it
 * sends. What arrives is compared with what must. The numbers are those of TCP_INFO, when all has
 * arrived and is acknowledged, both ways; only then the connection is closed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 60000
#define BLOCK       65536u
#define PERIOD      65521u /* of the bytes: a prime, so that a block in the wrong place is seen */

static uint8_t bytes[PERIOD + BLOCK];

static void make_bytes(void)
{
    uint32_t x = 1;
    for (uint32_t i = 0; i < sizeof(bytes); i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = i < PERIOD ? (uint8_t)(x >> 24) : bytes[i - PERIOD];
    }
}

/* NULL, or what was wrong. */
static const char *open_connection(bool server, const struct sockaddr_in *at, int *fd)
{
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    if (!server)
        return connect(*fd, (const struct sockaddr *)at, sizeof(*at)) ? strerror(errno) : NULL;
    if (bind(*fd, (const struct sockaddr *)at, sizeof(*at)) || listen(*fd, 1))
        return strerror(errno);
    puts("ready");
    struct pollfd waits = {.fd = *fd, .events = POLLIN};
    if (poll(&waits, 1, PATIENCE_MS) != 1)
        return "nobody connected";
    const int listener = *fd;
    *fd = accept(listener, NULL, NULL);
    close(listener);
    return NULL;
}

static bool unacknowledged(int fd)
{
    int left = 0;
    return ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0;
}

static const char *transfer(int fd, uint64_t to_send, uint64_t to_receive, bool turns)
{
    static uint8_t block[BLOCK];
    uint64_t sent = 0, received = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (sent < to_send || received < to_receive || unacknowledged(fd)) {
        const bool may_send = sent < to_send && (!turns || received == to_receive);
        struct pollfd waits = {.fd = fd, .events = POLLIN | (may_send ? POLLOUT : 0)};
        const bool rest =
            sent == to_send && received == to_receive; /* nothing to wait for but ACKs */
        const int n = poll(&waits, rest ? 0 : 1, rest ? 1 : PATIENCE_MS);
        if (n == 0 && !rest)
            return "nothing came";
        if (n > 0 && waits.revents & POLLOUT) {
            const uint64_t most = to_send - sent < BLOCK ? to_send - sent : BLOCK;
            const ssize_t done = send(fd, bytes + sent % PERIOD, most, MSG_NOSIGNAL);
            if (done < 0 && errno != EAGAIN)
                return strerror(errno);
            sent += done > 0 ? (uint64_t)done : 0;
        }
        if (n > 0 && waits.revents & (POLLIN | POLLERR | POLLHUP)) {
            const ssize_t done = recv(fd, block, BLOCK, 0);
            if (done == 0 || (done < 0 && errno != EAGAIN))
                return done ? strerror(errno) : "ended too early";
            if (done > 0 && memcmp(block, bytes + received % PERIOD, (size_t)done) != 0)
                return "the bytes differ";
            received += done > 0 ? (uint64_t)done : 0;
        }
    }
    return NULL;
}

/* Linux 7's TCP_INFO, of which Debian 12's header has the beginning. */
#define TCP_INFO_ACCECN 248
static void tell(int fd)
{
    static const char *const names[] = {"received_ce",     "delivered_e1", "delivered_e0",
                                        "delivered_bytes", "received_e1",  "received_e0",
                                        "received_bytes",  "mode"};
    union {
        struct tcp_info known;
        uint32_t words[128];
    } info = {0};
    socklen_t len = sizeof(info);
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    const struct tcp_info *i = &info.known;
    printf("ok ecn=%u ssthresh=%u cwnd=%u retrans=%u mss=%u delivered_ce=%u",
           i->tcpi_options & TCPI_OPT_ECN ? 1 : 0, i->tcpi_snd_ssthresh, i->tcpi_snd_cwnd,
           i->tcpi_total_retrans, i->tcpi_snd_mss, i->tcpi_delivered_ce);
    for (unsigned k = 0; k < sizeof(names) / sizeof(names[0]); k++)
        printf(" %s=%u", names[k], info.words[TCP_INFO_ACCECN / 4 + k]);
    putchar('\n');
}

static void play(bool server, const char *address, unsigned port, uint64_t to_send,
                 uint64_t to_receive, bool turns)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, address, &at.sin_addr);
    int fd;
    const char *wrong = open_connection(server, &at, &fd);
    if (!wrong)
        wrong = transfer(fd, to_send, to_receive, turns && server);
    if (wrong) {
        puts(wrong);
    } else {
        tell(fd);
        shutdown(fd, SHUT_WR);
        struct pollfd waits = {.fd = fd, .events = POLLIN};
        poll(&waits, 1, PATIENCE_MS);
    }
    close(fd);
}

static const char *set(const char *file, const char *value)
{
    const int fd = open(file, O_WRONLY);
    const bool done = write(fd, value, strlen(value)) > 0;
    const char *wrong = done ? "ok" : strerror(errno);
    close(fd);
    return wrong;
}

int main(void)
{
    char line[256], a[128], b[128], turns[8];
    unsigned port;
    unsigned long long to_send, to_receive;
    make_bytes();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("here");
    while (fgets(line, sizeof(line), stdin)) {
        turns[0] = '\0';
        if (sscanf(line, "set %127s %127s", a, b) == 2)
            puts(set(a, b));
        else if (sscanf(line, "%127s %127s %u %llu %llu %7s", a, b, &port, &to_send, &to_receive,
                        turns) >= 5)
            play(strcmp(a, "listen") == 0, b, port, to_send, to_receive, turns[0] != '\0');
        else
            puts("what?");
    }
    return 0;
}
