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
    off_t size; /* of the file: what lies behind is not announced as following */
};

/* Bytes worth reading: no more than a socket that does not block can take now. */
static size_t step_size(int out, size_t left)
{
    size_t step = min_u64(left, SCRATCH_SIZE);
    struct call c;
    if (call_begin(&c, out, "sendfile", CALL_CONN)) {
        const uint32_t room = tcp_send_room(c.us->conn);
        if (c.us->nonblock && room > 0)
            step = min_u64(step, room);
        call_pass(&c);
    }
    return step;
}

/* Reads and sends one piece. Bytes sent, 0 at the end of the file, or -errno. */
static int64_t send_piece(int out, struct file_range *in, void *buffer)
{
    const size_t step = step_size(out, in->left);
    const ssize_t got = raw_syscall(SYS_pread64, in->fd, (long)buffer, (long)step, in->pos, 0, 0);
    if (got <= 0)
        return got == -ESPIPE ? -EINVAL : got;
    const bool more = (size_t)got < in->left && in->pos + got < in->size;
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

static int64_t send_range(int out, struct file_range *in)
{
    void *buffer = scratch_take();
    if (buffer == NULL)
        return -ENOMEM;
    size_t sent = 0;
    int64_t r = 0;
    while (in->left > 0) {
        r = send_piece(out, in, buffer);
        if (r <= 0)
            break;
        sent += (size_t)r;
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
    call_pass(&c);
    const int saved = errno;
    struct stat st;
    if (offset != NULL && !user_valid(offset, sizeof(*offset)))
        return call_result(-EFAULT);
    if (fstat(in, &st) < 0)
        return -1;
    if ((raw_fcntl(out, F_GETFL, 0) & O_APPEND) != 0)
        return call_result(-EINVAL);
    struct file_range range = {.fd = in, .left = min_u64(count, TRANSFER_MAX), .size = st.st_size};
    range.pos = offset != NULL ? *offset : lseek(in, 0, SEEK_CUR);
    if (range.pos < 0)
        return call_result(-EINVAL);
    const int64_t r = send_range(out, &range);
    if (r > 0 && offset == NULL)
        lseek(in, range.pos, SEEK_SET);
    else if (r > 0)
        *offset = range.pos;
    errno = saved;
    return call_result(r);
}
extern __typeof(sendfile) sendfile64
    __attribute__((nothrow, alias("sendfile"), visibility("default")));
