/* splice() between a pipe and a user socket, through a buffer. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/libc/scratch.h"
#include "shim/libc/sock.h"

/* A pipe that is ready for writing takes this much without blocking (a page: one slot). */
#define PIPE_STEP 4096

static bool is_pipe(int fd)
{
    return raw_fcntl(fd, F_GETPIPE_SZ, 0) > 0;
}

/* Whether fd is ready, waiting for it if asked to: 1, 0, or -errno. */
static int pipe_ready(int fd, short events, bool wait)
{
    struct pollfd p = {.fd = fd, .events = events};
    const int r = real_ready()->poll(&p, 1, wait ? -1 : 0);
    return r < 0 ? -errno : r;
}

/* As many of the n bytes as the pipe takes; the first page may wait. */
static int64_t fill_pipe(int fd, const char *bytes, size_t n, bool wait)
{
    size_t done = 0;
    while (done < n) {
        int64_t r = pipe_ready(fd, POLLOUT, wait && done == 0);
        if (r == 0)
            r = -EAGAIN;
        if (r > 0)
            r = raw_write(fd, bytes + done, min_u64(n - done, PIPE_STEP));
        if (r < 0)
            return done > 0 ? (int64_t)done : r;
        done += (size_t)r;
    }
    return (int64_t)done;
}

/*
 * Peeks, gives the pipe what it takes, then takes just that out of the socket: nothing is lost when
 * the pipe is full. With two readers on one socket the kernel would not say who gets what either.
 */
static int64_t socket_to_pipe(int in, int out, size_t len, unsigned flags, char *buffer)
{
    const int dontwait = (flags & SPLICE_F_NONBLOCK) != 0 ? MSG_DONTWAIT : 0;
    int64_t r = pipe_ready(out, POLLOUT, dontwait == 0);
    if (r <= 0)
        return r < 0 ? r : -EAGAIN;
    struct call c;
    if (!call_begin(&c, in, "splice", CALL_CONN))
        return -EBADF;
    /* Linux: an urgent byte that is next ends the splice, and none passes it */
    if (tcp_at_mark(c.us->conn) && tcp_unread(c.us->conn) > 0)
        return call_end(&c, dontwait != 0 || c.us->nonblock ? -EAGAIN : 0) < 0 ? -errno : 0;
    struct slice piece = {.base = buffer, .len = min_u64(len, SCRATCH_SIZE)};
    const int32_t peek_off = c.us->peek_off; /* SO_PEEK_OFF is not for this peek */
    c.us->peek_off = -1;
    r = sock_recv(&c, &piece, 1, MSG_PEEK | dontwait);
    if (r > 0) {
        r = fill_pipe(out, buffer, (size_t)r, false);
        piece.len = r > 0 ? (size_t)r : 0;
        if (r > 0)
            r = sock_recv(&c, &piece, 1, MSG_DONTWAIT);
    }
    c.us->peek_off = peek_off;
    return call_end(&c, r) < 0 ? -errno : r;
}

static int64_t pipe_to_socket(int in, int out, size_t len, unsigned flags, char *buffer)
{
    const bool nonblock = (flags & SPLICE_F_NONBLOCK) != 0;
    if ((raw_fcntl(out, F_GETFL, 0) & O_APPEND) != 0)
        return -EINVAL;
    int64_t r = pipe_ready(in, POLLIN, !nonblock);
    if (r <= 0)
        return r < 0 ? r : -EAGAIN;
    struct call c;
    if (!call_begin(&c, out, "splice", CALL_CONN))
        return -EBADF;
    const int dontwait = nonblock || c.us->nonblock ? MSG_DONTWAIT : 0;
    const int more = (flags & SPLICE_F_MORE) != 0 ? MSG_MORE : 0;
    /* What leaves the pipe cannot go back: no more than fits, unless the socket may wait. */
    const uint32_t room = tcp_send_room(c.us->conn);
    size_t take = min_u64(len, SCRATCH_SIZE);
    if (dontwait != 0)
        take = min_u64(take, room);
    if (take == 0) {
        r = engine_drain(&c.cx) > 0 ? tcp_send_room(c.us->conn) : 0;
        take = min_u64(min_u64(len, SCRATCH_SIZE), (uint64_t)r);
    }
    r = take > 0 ? raw_read(in, buffer, take) : -EAGAIN;
    if (r > 0) {
        const struct slice piece = {.base = buffer, .len = (size_t)r};
        r = sock_send(&c, &piece, 1, dontwait | more);
    }
    return call_end(&c, r) < 0 ? -errno : r;
}

SHIM_EXPORT ssize_t splice(int in, off_t *in_off, int out, off_t *out_off, size_t len,
                           unsigned flags)
{
    const bool from_socket = fd_usock(in) != NULL, to_socket = fd_usock(out) != NULL;
    if (likely(!from_socket && !to_socket))
        return real_ready()->splice(in, in_off, out, out_off, len, flags);
    const int socket = from_socket ? in : out;
    struct call c;
    if (!call_begin(&c, socket, "splice", CALL_CONN))
        return real_ready()->splice(in, in_off, out, out_off, len, flags);
    call_pass(&c);
    if (len == 0)
        return 0;
    if (!is_pipe(from_socket ? out : in))
        return call_result(-EINVAL);
    if ((from_socket ? out_off : in_off) != NULL)
        return call_result(-ESPIPE);
    if (in_off != NULL || out_off != NULL)
        return call_result(-EINVAL); /* a socket has no place to be at */
    char *buffer = scratch_take();
    if (buffer == NULL)
        return call_result(-ENOMEM);
    const int saved = errno;
    const int64_t r = from_socket ? socket_to_pipe(in, out, len, flags, buffer)
                                  : pipe_to_socket(in, out, len, flags, buffer);
    scratch_give(buffer);
    errno = saved;
    return call_result(r);
}
