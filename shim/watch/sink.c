/*
 * The sink of traces. Events happen under the engine's lock, and who reads them may be slow,
 * stopped
 * (^S) or stuck; neither the engine nor the program may ever wait for that. So:
 *
 *     event ──► line ──► buffer of this process (a ring of SINK_BYTES) ──► write, without waiting
 *               under the engine's lock                        when the engine is left
 *
 * A line that finds no room is lost and counted; when there is room again, a line says how many.
 *
 * Not waiting is a matter of what the descriptor is. stderr's description is shared with the
 * program and with strangers, so O_NONBLOCK must not be set on it. files      are written: a disk
 * does not wait for a reader. pipes and terminals  are opened anew through /proc/self/fd: the same
 * pipe, a description of our own, non-blocking. A pipe takes up to PIPE_BUF (4096) bytes whole or
 * not at all, so whole lines of at most that are written, and those of several processes do not
 * mix. sockets    take MSG_DONTWAIT. where that is not allowed (no /proc, another user's terminal):
 * written only while poll() says that there is room, PIPE_BUF at a time; another writer of the same
 * pipe that comes in between might hold us up then. A pipe whose reader is gone would kill the
 * program by SIGPIPE: the signal is held back and taken.
 *
 * Lines are put by one thread at a time (`putting`), mostly the one in the engine, and written by
 * one at a time (`writing`): each flag holds the pid, so that a fork's child is not locked out by a
 * thread that it does not have. A child begins with an empty buffer: the lines are its parent's.
 */
#define _GNU_SOURCE
#include "shim/watch/sink.h"

#include <errno.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"

#define SINK_BYTES (1u << 19) /* a power of two */
/* From here on what is in the buffer is written although the engine is not left yet. */
#define SINK_MUCH (SINK_BYTES / 4)
#define WRITE_MAX 65536u
#define PUT_TRIES 20
#define PUT_NAPS  500
#define PUT_NAP   (200 * NSEC_PER_USEC)
#define EXIT_WAIT (NSEC_PER_SEC)
#define EXIT_STEP (100 * NSEC_PER_MSEC)

enum { FD_CLOSED = -1, FD_BROKEN = -2 };
enum how { HOW_WRITE, HOW_NONBLOCK, HOW_SOCKET, HOW_POLL };

struct sink_buffer sink_buffer;
static char ring[SINK_BYTES];

static struct {
    int fd;
    enum how how;
    bool pipe;   /* writing to it may raise SIGPIPE */
    int pid;     /* who opened it: a name with %p is another file after fork */
    bool fresh;  /* this process has put nothing yet */
    int putting; /* pid of the thread's process; 0: nobody (atomic) */
    int writing; /* likewise (atomic) */
} sink = {.fd = FD_CLOSED, .fresh = true};

/* ---- opening ---- */

/* The file's name with the pid for each %p. */
static void expand_name(struct line *l, int pid)
{
    l->n = 0;
    for (const char *p = config.trace_file; *p; p++) {
        if (p[0] == '%' && p[1] == 'p') {
            put_u64(l, (uint64_t)pid);
            p++;
        } else {
            put_char(l, *p);
        }
    }
    l->text[l->n] = '\0';
}

/* A description of our own for the same pipe or terminal, or negative errno. */
static int open_again(int fd)
{
    static struct line name;
    name.n = 0;
    put(&name, "/proc/self/fd/");
    put_u64(&name, (uint64_t)fd);
    name.text[name.n] = '\0';
    return raw_open(name.text, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
}

/* RLIMIT_FSIZE (atomic). A write beyond it raises SIGXFSZ, which would kill the program: sshd sets
 * it to 0 in its sandbox. */
static uint64_t file_limit = RLIM_INFINITY;

/* Finds out how to write to fd without waiting; returns the descriptor to use. */
static int settle_how(int fd)
{
    struct stat st = {0};
    struct rlimit limit;
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0) == 0)
        __atomic_store_n(&file_limit, limit.rlim_cur, __ATOMIC_RELAXED);
    const mode_t type =
        raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) == 0 ? st.st_mode & S_IFMT : 0;
    sink.pipe = type == S_IFIFO;
    sink.how = type == S_IFREG ? HOW_WRITE : type == S_IFSOCK ? HOW_SOCKET : HOW_POLL;
    if (type != S_IFIFO && type != S_IFCHR)
        return fd;
    const int again = open_again(fd);
    if (again < 0)
        return fd;
    raw_close(fd);
    sink.how = HOW_NONBLOCK;
    return again;
}

static void open_sink(int pid)
{
    static struct line name;
    int fd;
    sink.pid = pid;
    sink.fd = FD_BROKEN;
    if (config.trace_file[0]) {
        expand_name(&name, pid);
        /* non-blocking: a FIFO that nobody reads would hold the program up in open(2) */
        fd = raw_open(name.text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                      0644);
        if (fd < 0)
            config_complain("TCPSHIM_TRACE_FILE=%s: cannot be opened (%s); name a file that can "
                            "be written",
                            name.text, strerrorname_np(-fd));
    } else {
        /* a duplicate: the program may close 2 and get a socket of its own by that number */
        fd = raw_fcntl(2, F_DUPFD_CLOEXEC, 3);
    }
    if (fd < 0)
        return;
    fd = settle_how(fd);
    if (config.trace_file[0] && sink.how == HOW_POLL)
        sink.how = HOW_NONBLOCK;
    sink.fd = fd_make_internal(fd);
}

void sink_open(void)
{
    const int saved = errno;
    if (config.trace != 0 && config.trace_file[0] == '\0')
        open_sink(raw_getpid());
    errno = saved;
}

/* ---- putting ---- */

/* A process that was born by fork: what is in the buffer its parent writes. */
static void begin_anew(int pid)
{
    __atomic_store_n(&sink_buffer.tail, sink_buffer.head, __ATOMIC_RELEASE);
    __atomic_store_n(&sink.writing, 0, __ATOMIC_RELEASE);
    sink.fresh = true;
    if (sink.fd >= 0 && strstr(config.trace_file, "%p")) {
        fd_release_internal(sink.fd);
        sink.fd = FD_CLOSED;
    }
    sink.pid = pid;
}

/* Takes one of the two flags; false: another thread of this process has it. */
static bool take(int *flag, int pid)
{
    int holder = __atomic_load_n(flag, __ATOMIC_RELAXED);
    if (holder == pid)
        return false;
    return __atomic_compare_exchange_n(flag, &holder, pid, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

/* This thread is the one that puts: a crash inside that must not wait for itself. */
static __thread bool putting_here __attribute__((tls_model("initial-exec")));

/* On a busy machine the thread that puts may have lost its processor in the middle of it. */
static bool take_turn(int pid)
{
    const struct timespec nap = {.tv_nsec = PUT_NAP};
    if (putting_here)
        return false;
    for (unsigned tries = 0; !take(&sink.putting, pid); tries++) {
        if (tries == PUT_TRIES + PUT_NAPS)
            return false;
        if (tries < PUT_TRIES)
            raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
        else
            raw_syscall(SYS_nanosleep, (long)&nap, 0, 0, 0, 0, 0);
    }
    putting_here = true;
    return true;
}

bool sink_begin(bool *fresh)
{
    const int pid = raw_getpid();
    if (!take_turn(pid))
        return false;
    if (sink.pid != pid)
        begin_anew(pid);
    if (sink.fd == FD_CLOSED)
        open_sink(pid);
    if (sink.fd < 0) {
        sink_end();
        return false;
    }
    *fresh = sink.fresh;
    sink.fresh = false;
    return true;
}

void sink_end(void)
{
    putting_here = false;
    __atomic_store_n(&sink.putting, 0, __ATOMIC_RELEASE);
    if (sink_buffer.head - __atomic_load_n(&sink_buffer.tail, __ATOMIC_RELAXED) >= SINK_MUCH)
        sink_flush();
}

int sink_pid(void)
{
    return sink.pid;
}

bool sink_put(struct line *l)
{
    const uint32_t head = sink_buffer.head;
    const uint32_t used = head - __atomic_load_n(&sink_buffer.tail, __ATOMIC_ACQUIRE);
    l->text[l->n++] = '\n';
    if (l->n > SINK_BYTES - used)
        return false;
    const uint32_t at = head % SINK_BYTES;
    const size_t first = min_u64(l->n, SINK_BYTES - at);
    memcpy(ring + at, l->text, first);
    memcpy(ring, l->text + first, l->n - first);
    __atomic_store_n(&sink_buffer.head, head + (uint32_t)l->n, __ATOMIC_RELEASE);
    return true;
}

void sink_ready(void)
{
    const int pid = raw_getpid();
    if (config.trace == 0 || !take(&sink.putting, pid))
        return;
    if (sink.pid != pid)
        begin_anew(pid);
    if (sink.fd == FD_CLOSED)
        open_sink(pid);
    sink_end();
}

void sink_give(uint32_t uid)
{
    const int pid = raw_getpid();
    if (config.trace == 0 || strstr(config.trace_file, "%p") == NULL || !take(&sink.putting, pid))
        return;
    if (sink.pid == pid && sink.fd >= 0)
        raw_syscall(SYS_fchown, sink.fd, uid, -1, 0, 0, 0);
    sink_end();
}

/* ---- writing ---- */

/* What may be written at once: whole lines, as many as fit below PIPE_BUF. */
static uint32_t portion(uint32_t tail, uint32_t pending)
{
    uint32_t n = min_u32(pending, sink.how == HOW_WRITE ? WRITE_MAX : PIPE_BUF);
    while (n > 0 && ring[(tail + n - 1) % SINK_BYTES] != '\n')
        n--;
    /* without an end: the rest of a line that a terminal took a part of */
    return n > 0 ? n : min_u32(pending, PIPE_BUF);
}

/* Whether n more bytes may go to the file. */
static bool within_limit(uint32_t n)
{
    const uint64_t limit = __atomic_load_n(&file_limit, __ATOMIC_RELAXED);
    struct stat st = {0};
    return limit == RLIM_INFINITY ||
           (n < limit && raw_syscall(SYS_fstat, sink.fd, (long)&st, 0, 0, 0, 0) == 0 &&
            (uint64_t)st.st_size + n <= limit);
}

static long write_parts(uint32_t tail, uint32_t n)
{
    if (sink.how == HOW_WRITE && !within_limit(n))
        return -EFBIG;
    const uint32_t at = tail % SINK_BYTES;
    const uint32_t first = min_u32(n, SINK_BYTES - at);
    struct iovec parts[] = {{ring + at, first}, {ring, n - first}};
    const unsigned count = n > first ? 2 : 1;
    if (sink.how == HOW_SOCKET) {
        const struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
        return raw_sendmsg(sink.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (sink.how == HOW_POLL) {
        struct pollfd p = {.fd = sink.fd, .events = POLLOUT};
        struct timespec zero = {0};
        if (raw_ppoll(&p, 1, &zero) != 1 || !(p.revents & POLLOUT))
            return -EAGAIN;
    }
    return raw_syscall(SYS_writev, sink.fd, (long)parts, count, 0, 0, 0);
}

/* Keeps SIGPIPE from the program: blocked meanwhile, and taken if it came from us. */
static long write_quietly(uint32_t tail, uint32_t n)
{
    const uint64_t sigpipe = 1ull << (SIGPIPE - 1);
    uint64_t before = 0, pending = 0;
    if (!sink.pipe)
        return write_parts(tail, n);
    raw_sigprocmask(SIG_BLOCK, &sigpipe, &before);
    if (before & sigpipe)
        raw_syscall(SYS_rt_sigpending, (long)&pending, sizeof(pending), 0, 0, 0, 0);
    const long r = write_parts(tail, n);
    if (r == -EPIPE && !(pending & sigpipe)) {
        const struct timespec zero = {0};
        raw_syscall(SYS_rt_sigtimedwait, (long)&sigpipe, 0, (long)&zero, sizeof(sigpipe), 0, 0);
    }
    if (!(before & sigpipe))
        raw_sigprocmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* False: the reader takes no more now. */
static bool write_some(void)
{
    for (;;) {
        const uint32_t tail = sink_buffer.tail;
        const uint32_t pending = __atomic_load_n(&sink_buffer.head, __ATOMIC_ACQUIRE) - tail;
        if (pending == 0)
            return true;
        const long r = write_quietly(tail, portion(tail, pending));
        if (r == -EINTR)
            continue;
        if (r == -EAGAIN)
            return false;
        /* a reader that is gone, a disk that is full: what nobody can have is not kept */
        __atomic_store_n(&sink_buffer.tail, tail + (r > 0 ? (uint32_t)r : pending),
                         __ATOMIC_RELEASE);
    }
}

void sink_flush(void)
{
    const int pid = raw_getpid();
    if (pid != sink.pid || sink.fd < 0)
        return; /* a fork's child that has put nothing yet */
    while (sink_pending() && take(&sink.writing, pid)) {
        const bool all = write_some();
        __atomic_store_n(&sink.writing, 0, __ATOMIC_RELEASE);
        if (!all)
            return;
    }
}

void sink_limit(uint64_t bytes)
{
    sink_flush();
    __atomic_store_n(&file_limit, bytes, __ATOMIC_RELAXED);
}

void sink_flush_patiently(void)
{
    nsec_t waited = 0;
    sink_flush();
    while (sink_pending() && sink.pid == raw_getpid() && sink.fd >= 0 && waited < EXIT_WAIT) {
        const uint32_t before = sink_buffer.tail;
        struct pollfd p = {.fd = sink.fd, .events = POLLOUT};
        struct timespec step = {.tv_nsec = EXIT_STEP};
        raw_ppoll(&p, 1, &step);
        sink_flush();
        waited = sink_buffer.tail == before ? waited + EXIT_STEP : 0;
    }
}
