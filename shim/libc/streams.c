/*
 * stdio over a user socket. libc's streams read and write inside libc, past every hook; so fdopen()
 * of a user socket gives a stream with our own functions (fopencookie(3)), which knows its
 * descriptor all the same (fileno(3)). dprintf() likewise writes inside libc. An image that begins
 * with a user socket as its standard input or output (inetd), or puts one there, gets such streams
 * for those.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/libc/streams.h"

/* Open streams, so that exit can flush them. More than these are flushed by the program or lost. */
#define STREAMS_MAX 256

struct stream {
    FILE *file; /* NULL: free */
    int fd;
    bool taken;
};
static struct stream streams[STREAMS_MAX];

/* The cookie is the descriptor itself, one up so that 0 is not NULL. */
static int cookie_fd(void *cookie)
{
    return (int)(intptr_t)cookie - 1;
}

static ssize_t cookie_read(void *cookie, char *buf, size_t n)
{
    return read(cookie_fd(cookie), buf, n);
}

/* fopencookie(3): a short count, never a negative one, is how errors are told. */
static ssize_t cookie_write(void *cookie, const char *buf, size_t n)
{
    size_t done = 0;
    while (done < n) {
        const ssize_t r = write(cookie_fd(cookie), buf + done, n - done);
        if (r <= 0)
            break;
        done += (size_t)r;
    }
    return (ssize_t)done;
}

static int cookie_seek(void *cookie, off64_t *offset, int whence)
{
    (void)cookie, (void)offset, (void)whence;
    errno = ESPIPE;
    return -1;
}

static int cookie_close(void *cookie)
{
    const int fd = cookie_fd(cookie);
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        if (streams[i].taken && streams[i].fd == fd && streams[i].file != NULL) {
            streams[i].file = NULL;
            __atomic_store_n(&streams[i].taken, false, __ATOMIC_RELEASE);
            break;
        }
    }
    return close(fd);
}

static void remember(FILE *f, int fd)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        if (__atomic_exchange_n(&streams[i].taken, true, __ATOMIC_ACQ_REL))
            continue;
        streams[i].fd = fd;
        streams[i].file = f;
        return;
    }
}

void streams_flush(void)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        FILE *f = streams[i].file;
        /* A stream that another thread holds is left alone, as libc does at exit. */
        if (!streams[i].taken || f == NULL || ftrylockfile(f) != 0)
            continue;
        if (__fpending(f) > 0)
            fflush_unlocked(f);
        funlockfile(f);
    }
}

static FILE *open_stream(int fd, const char *mode)
{
    static const cookie_io_functions_t functions = {
        .read = cookie_read,
        .write = cookie_write,
        .seek = cookie_seek,
        .close = cookie_close,
    };
    FILE *f = fopencookie((void *)((intptr_t)fd + 1), mode, functions);
    if (f == NULL)
        return NULL;
    f->_fileno = fd;
    remember(f, fd);
    return f;
}

SHIM_EXPORT FILE *fdopen(int fd, const char *mode)
{
    if (likely(fd_usock(fd) == NULL))
        return real_ready()->fdopen(fd, mode);
    if (mode == NULL || strchr("rwa", mode[0]) == NULL || mode[0] == '\0') {
        errno = EINVAL;
        return NULL;
    }
    FILE *f = open_stream(fd, mode);
    if (f != NULL && strchr(mode, 'e') != NULL)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    return f;
}

/* The streams that libc began with, by descriptor; NULL: not replaced. */
static FILE *replaced[STDERR_FILENO + 1];

/* Where the program finds the one of descriptor fd. */
static FILE **standard(int fd)
{
    FILE **const all[] = {&stdin, &stdout, &stderr};
    return all[fd];
}

/* What the program wrote and libc has not yet goes where the descriptor leads now. */
static void take_unwritten(FILE *old, FILE *f)
{
    const size_t n = __fpending(old);
    if (n == 0 || !__fwriting(old))
        return;
    fwrite(old->_IO_write_base, 1, n, f);
    __fpurge(old);
}

/* What libc read and the program has not yet comes first. */
static void take_unread(FILE *old, FILE *f)
{
    const char *p = old->_IO_read_end;
    while (p > old->_IO_read_ptr)
        if (ungetc((unsigned char)*--p, f) == EOF)
            break;
    __fpurge(old);
}

static void replace_standard(int fd)
{
    FILE *f = open_stream(fd, fd == STDIN_FILENO ? "r" : "w");
    if (f == NULL)
        return;
    if (fd == STDERR_FILENO) {
        setvbuf(f, NULL, _IONBF, 0);
        fwide(f, -1); /* else perror() writes to a stream of its own, inside libc */
    }
    FILE *old = *standard(fd);
    if (fd == STDIN_FILENO)
        take_unread(old, f);
    else
        take_unwritten(old, f);
    replaced[fd] = old;
    *standard(fd) = f;
}

void streams_follow(int fd)
{
    const int saved = errno;
    const FILE *f = *standard(fd);
    if (fd_usock(fd) != NULL && replaced[fd] == NULL && f != NULL && f->_fileno == fd)
        replace_standard(fd);
    errno = saved;
}

void streams_replace_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        streams_follow(fd);
}

static bool is_ours(const FILE *f)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++)
        if (streams[i].taken && streams[i].file == f)
            return true;
    return false;
}

/*
 * freopen(3) makes the stream libc's again, which it could not do by itself. A standard stream goes
 * back to the one that libc began with; of others the program would keep the pointer.
 */
static FILE *reopen(const char *path, const char *mode, FILE *f,
                    FILE *(*how)(const char *, const char *, FILE *))
{
    if (likely(f == NULL || !is_ours(f)))
        return how(path, mode, f);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (*standard(fd) != f || replaced[fd] == NULL || path == NULL)
            continue;
        fclose(f);
        *standard(fd) = replaced[fd];
        replaced[fd] = NULL;
        return how(path, mode, *standard(fd));
    }
    errno = EINVAL;
    return NULL;
}

SHIM_EXPORT FILE *freopen(const char *path, const char *mode, FILE *f)
{
    return reopen(path, mode, f, real_ready()->freopen);
}

SHIM_EXPORT FILE *freopen64(const char *path, const char *mode, FILE *f)
{
    return reopen(path, mode, f, real_ready()->freopen64);
}

FILE *_IO_fdopen(int fd, const char *mode);
SHIM_EXPORT FILE *_IO_fdopen(int fd, const char *mode)
{
    return fdopen(fd, mode);
}

static int print(int fd, const char *format, va_list ap)
{
    char small[1024];
    va_list again;
    va_copy(again, ap);
    const int n = vsnprintf(small, sizeof(small), format, ap);
    char *text = small;
    if (n >= (int)sizeof(small) && vasprintf(&text, format, again) < 0)
        text = NULL;
    va_end(again);
    if (n < 0 || text == NULL)
        return -1;
    int done = 0;
    while (done < n) {
        const ssize_t r = write(fd, text + done, (size_t)(n - done));
        if (r <= 0)
            break;
        done += (int)r;
    }
    if (text != small)
        free(text);
    return done == n ? n : -1;
}

SHIM_EXPORT int vdprintf(int fd, const char *restrict format, va_list ap)
{
    if (likely(fd_usock(fd) == NULL))
        return real_ready()->vdprintf(fd, format, ap);
    return print(fd, format, ap);
}

SHIM_EXPORT int dprintf(int fd, const char *restrict format, ...)
{
    va_list ap;
    va_start(ap, format);
    const int r = vdprintf(fd, format, ap);
    va_end(ap);
    return r;
}

/* flag: how _FORTIFY_SOURCE wants %n checked; what is printed to a socket here is not checked for
 * it. */
SHIM_EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
    if (likely(fd_usock(fd) == NULL))
        return real_ready()->__vdprintf_chk(fd, flag, format, ap);
    return print(fd, format, ap);
}

SHIM_EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const int r = __vdprintf_chk(fd, flag, format, ap);
    va_end(ap);
    return r;
}
