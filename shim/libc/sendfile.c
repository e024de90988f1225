/*
 * sendfile() from a file to a user socket, through a buffer: the engine takes bytes, not pages. The
 * file is never read with the engine entered.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/libc/scratch.h"
#include "shim/libc/sock.h"

struct file_range {
    int fd;
    off_t pos;
    size_t left;
};

/* Bytes worth reading: no more than a socket that does not block can take now. Entered. */
static size_t step_size(const struct call *c, size_t left)
{
    const uint32_t room = tcp_send_room(c->us->conn);
    return min_u64(left, c->us->nonblock && room > 0 ? min_u64(room, SCRATCH_SIZE) : SCRATCH_SIZE);
}

/* Whether the file has bytes there: what lies behind its end is not announced as following. */
static bool has_bytes(int fd, off_t pos)
{
    struct stat st;
    return fstat(fd, &st) == 0 && pos < st.st_size;
}

/* Reads and sends one piece. Bytes sent, 0 at the end of the file, or -errno. */
static int64_t send_piece(int out, struct file_range *in, void *buffer, size_t step)
{
    const ssize_t got = raw_syscall(SYS_pread64, in->fd, (long)buffer, (long)step, in->pos, 0, 0);
    if (got <= 0)
        return got == -ESPIPE ? -EINVAL : got;
    const bool more = (size_t)got < in->left && has_bytes(in->fd, in->pos + got);
    struct call c;
    if (!call_begin(&c, out, "sendfile", CALL_CONN))
        return -EBADF;
    const struct slice from = {.base = buffer, .len = (size_t)got};
    const ssize_t sent = call_end(&c, sock_send(&c, &from, 1, more ? MSG_MORE : 0));
    if (sent < 0)
        return -errno;
    in->pos += sent;
    in->left -= (size_t)sent;
    return sent;
}

static int64_t send_range(int out, struct file_range *in, size_t step)
{
    void *buffer = scratch_take();
    if (buffer == NULL)
        return -ENOMEM;
    size_t sent = 0;
    int64_t r = 0;
    while (in->left > 0) {
        r = send_piece(out, in, buffer, step);
        if (r <= 0)
            break;
        sent += (size_t)r;
        struct call c;
        if (in->left == 0 || !call_begin(&c, out, "sendfile", CALL_CONN))
            break;
        step = step_size(&c, in->left);
        call_pass(&c);
    }
    scratch_give(buffer);
    return sent > 0 ? (int64_t)sent : r;
}

SHIM_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
    struct call c;
    /* To a pipe Linux sends from anything that splice() takes. */
    if (unlikely(fd_usock(in) != NULL) && offset == NULL && raw_fcntl(out, F_GETPIPE_SZ, 0) > 0)
        return splice(in, NULL, out, NULL, count,
                      (raw_fcntl(out, F_GETFL, 0) & O_NONBLOCK) != 0 ? SPLICE_F_NONBLOCK : 0);
    if (likely(!call_begin(&c, out, "sendfile", CALL_CONN)))
        return real_ready()->sendfile(out, in, offset, count);
    struct file_range range = {.fd = in, .left = min_u64(count, TRANSFER_MAX)};
    const size_t step = step_size(&c, range.left);
    /* O_APPEND would have given it a file of its own. */
    const bool common = c.us->shares && c.us->refs == 1;
    tcp_unfinished_yet(c.cx.st, c.us->conn);
    call_pass(&c);
    const int saved = errno;
    if (offset != NULL && !user_valid(offset, sizeof(*offset)))
        return call_result(-EFAULT);
    if (!common && (raw_fcntl(out, F_GETFL, 0) & O_APPEND) != 0)
        return call_result(-EINVAL);
    range.pos = offset != NULL ? *offset : lseek(in, 0, SEEK_CUR);
    if (range.pos < 0)
        return call_result(offset == NULL && errno == EBADF ? -EBADF : -EINVAL);
    if (count == 0 && raw_fcntl(in, F_GETFD, 0) < 0)
        return call_result(-EBADF);
    const int64_t r = send_range(out, &range, step);
    if (r > 0 && offset == NULL)
        lseek(in, range.pos, SEEK_SET);
    else if (r > 0)
        *offset = range.pos;
    errno = saved;
    return call_result(r);
}
extern __typeof(sendfile) sendfile64
    __attribute__((nothrow, alias("sendfile"), visibility("default")));
