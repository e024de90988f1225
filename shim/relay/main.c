/*
 * tcpshim-relay: carries bytes between a user socket and a socketpair whose other end an image has
 * that the shim cannot enter (shim/life/relay.c). An ordinary program under the shim.
 *
 *     tcpshim-relay COMMIT SOCKET PAIR [SOCKET PAIR]...
 *
 * Nothing happens before COMMIT says that the image is there (end of file); a byte on it says that
 * exec failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM      65536
#define PAIRS_MAX 16

/* Bytes that were read from one end and are yet to be written to the other. */
struct way {
    int from, to; /* indexes into relay.fd */
    size_t have, done;
    bool ended; /* nothing more will be read */
    bool told;  /* and the other end knows */
    char buf[ROOM];
};

struct relay {
    int fd[2];
    struct way way[2];
};

static struct relay relays[PAIRS_MAX];
static struct pollfd fds[2 * PAIRS_MAX];

static bool would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* Moves what can be moved without waiting. False: the other end is gone. */
static bool advance(const struct relay *r, struct way *w)
{
    if (w->have == w->done && !w->ended) {
        const ssize_t n = read(r->fd[w->from], w->buf, ROOM);
        w->have = n > 0 ? (size_t)n : 0;
        w->done = 0;
        w->ended = n == 0 || (n < 0 && !would_block());
    }
    while (w->done < w->have) {
        const ssize_t n = write(r->fd[w->to], w->buf + w->done, w->have - w->done);
        if (n < 0)
            return would_block();
        w->done += (size_t)n;
    }
    if (w->ended && !w->told) {
        w->told = true;
        shutdown(r->fd[w->to], SHUT_WR);
    }
    return true;
}

static bool over(const struct relay *r)
{
    return r->way[0].told && r->way[1].told;
}

static void step(struct relay *r)
{
    if (advance(r, &r->way[0]) && advance(r, &r->way[1]) && !over(r))
        return;
    close(r->fd[0]); /* with unread data: the peer is reset, as if the image had closed it */
    close(r->fd[1]);
    r->fd[0] = r->fd[1] = -1;
}

/* What poll() is to wait for. False: nothing is left of it. */
static bool expect(const struct relay *r, struct pollfd *p)
{
    for (int i = 0; i < 2; i++) {
        const struct way *out = &r->way[i], *in = &r->way[1 - i]; /* from and to fd[i] */
        p[i] = (struct pollfd){.fd = r->fd[i]};
        if (!out->ended && out->have == out->done)
            p[i].events |= POLLIN;
        if (in->done < in->have)
            p[i].events |= POLLOUT;
        if (p[i].events == 0)
            p[i].fd = -1;
    }
    return r->fd[0] >= 0;
}

static bool committed(int fd)
{
    char byte;
    ssize_t n;
    while ((n = read(fd, &byte, 1)) < 0 && errno == EINTR)
        ;
    close(fd);
    return n == 0;
}

int main(int argc, char **argv)
{
    const int n = (argc - 2) / 2;
    if (argc < 4 || n > PAIRS_MAX)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "tcpshim-relay");
    if (!committed(atoi(argv[1])))
        return 0;
    for (int i = 0; i < n; i++) {
        struct relay *r = &relays[i];
        for (int k = 0; k < 2; k++) {
            r->fd[k] = atoi(argv[2 + 2 * i + k]);
            fcntl(r->fd[k], F_SETFL, fcntl(r->fd[k], F_GETFL) | O_NONBLOCK);
            r->way[k].from = k;
            r->way[k].to = 1 - k;
        }
    }
    for (;;) {
        bool any = false;
        for (int i = 0; i < n; i++)
            any |= expect(&relays[i], &fds[2 * i]);
        if (!any)
            return 0;
        if (poll(fds, 2 * (nfds_t)n, -1) < 0)
            continue;
        for (int i = 0; i < n; i++)
            if (relays[i].fd[0] >= 0 && (fds[2 * i].revents | fds[2 * i + 1].revents) != 0)
                step(&relays[i]);
    }
}
