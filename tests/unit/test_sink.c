/* Where traces go: what a reader who is slow, gone or somebody else's does to the program: nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/watch/sink.h"
#include "shim/watch/trace.h"
#include "tests/unit/suites.h"

/* In place of the program's table of descriptors. */
int fd_make_internal(int fd)
{
    return fd;
}

void fd_release_internal(int fd)
{
    close(fd);
}

/* One event; its number is in the line. */
static void event(unsigned number)
{
    const uint64_t argv[] = {0, number};
    trace_now(NULL, TRACE_EV_DROPPED, argv, 2);
}

/* Traces go to fd, as the program's stderr. */
static void to(int fd)
{
    config.trace = TRACE_ALL;
    config.trace_json = true;
    ck_assert_int_eq(dup2(fd, 2), 2);
    close(fd);
    trace_open();
}

static char text[8 << 20];
static size_t len;

/* What is there to be read now. */
static void drain(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (len < sizeof(text) - 1 && poll(&p, 1, 0) == 1) {
        const ssize_t n = read(fd, text + len, sizeof(text) - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
}

struct reading {
    unsigned lines, headers, events;
    unsigned long long lost, said; /* events, and how often that was said */
    unsigned first, last;          /* numbers */
};

/* All lines are whole, and the events in their order. pid 0: of any process. */
static struct reading examine(int pid)
{
    struct reading r = {0};
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        unsigned long long count;
        unsigned number;
        const char *of = strstr(line, "\"pid\":");
        *end = '\0';
        ck_assert_msg(line[0] == '{' && end[-1] == '}' && of != NULL, "line: %s", line);
        if (pid == 0 || atoi(of + 6) == pid) {
            const char *const what = strstr(line, "\"ev\":\"");
            r.lines++;
            r.headers += strncmp(what, "\"ev\":\"trace\"", 12) == 0;
            if (sscanf(what, "\"ev\":\"lost\",\"count\":%llu}", &count) == 1) {
                r.lost += count;
                r.said++;
            } else if (sscanf(what, "\"ev\":\"dropped\",\"len\":%u}", &number) == 1) {
                ck_assert_uint_gt(number, r.last);
                r.first = r.first ? r.first : number;
                r.last = number;
                r.events++;
            }
        }
        *end = '\n';
    }
    ck_assert(len == 0 || text[len - 1] == '\n');
    return r;
}

/* A full buffer loses events, and how many is said as soon as there is room. */
START_TEST(full)
{
    enum { EVENTS = 12000 };
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    to(ends[1]);
    for (unsigned i = 1; i <= EVENTS; i++)
        event(i);
    ck_assert(sink_pending());
    ck_assert_uint_le(sink_buffer.head - sink_buffer.tail, 1u << 19);
    for (unsigned i = 0; i < 200 && sink_pending(); i++) {
        drain(ends[0]);
        trace_flush();
    }
    drain(ends[0]);
    struct reading r = examine(0);
    ck_assert_uint_eq(r.headers, 1);
    ck_assert_uint_eq(r.first, 1);
    ck_assert_uint_lt(r.events, EVENTS);
    event(EVENTS + 1);
    drain(ends[0]);
    r = examine(0);
    ck_assert_uint_gt(r.said, 0);
    ck_assert_uint_eq(r.last, EVENTS + 1);
    ck_assert_uint_eq(r.events + r.lost, EVENTS + 1);
    ck_assert_uint_eq(r.lines, r.headers + r.events + r.said);
}
END_TEST

/* A child does not write again what its parent has in its buffer, and begins with a line of its
 * own. */
START_TEST(forked)
{
    enum { EVENTS = 2000 };
    int ends[2], status;
    ck_assert_int_eq(pipe(ends), 0);
    to(ends[1]);
    for (unsigned i = 1; i <= EVENTS; i++) /* more than the pipe takes, less than the buffer does */
        event(i);
    ck_assert(sink_pending());
    const pid_t child = fork();
    if (child == 0) {
        event(1);
        trace_flush();
        _exit(sink_pending() ? 42 : 43);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WEXITSTATUS(status), 42); /* its line waits: the pipe is full */
    const pid_t second = fork();
    if (second == 0) {
        drain(ends[0]);
        event(1);
        event(2);
        trace_close();
        _exit(sink_pending() ? 1 : 0);
    }
    ck_assert_int_eq(waitpid(second, &status, 0), second);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    for (unsigned i = 0; i < 200 && sink_pending(); i++) {
        drain(ends[0]);
        trace_flush();
    }
    drain(ends[0]);
    struct reading r = examine(second);
    ck_assert_uint_eq(r.headers, 1);
    ck_assert_uint_eq(r.events, 2);
    r = examine(getpid());
    ck_assert_uint_eq(r.headers, 0); /* read by the second child */
    ck_assert_uint_eq(r.last, EVENTS);
    ck_assert_uint_gt(r.first, 1);
    ck_assert_uint_eq(r.events, EVENTS - r.first + 1);
}
END_TEST

static bool pending(int number)
{
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, number);
}

/* Nobody reads any more: no signal, no errno, and nothing is kept. */
static void reader_gone(int writer, int reader)
{
    to(writer);
    event(1);
    close(reader);
    errno = ENOTTY;
    for (unsigned i = 2; i < 1000; i++)
        event(i);
    ck_assert_int_eq(errno, ENOTTY);
    ck_assert(!sink_pending());
    ck_assert(!pending(SIGPIPE));
    trace_close();
    ck_assert_int_eq(errno, ENOTTY);
}

START_TEST(pipe_closed)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    reader_gone(ends[1], ends[0]);
}
END_TEST

START_TEST(socket_closed)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    reader_gone(ends[1], ends[0]);
}
END_TEST

static void open_terminal(int ends[2])
{
    ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert_int_ge(ends[0], 0);
    ck_assert_int_eq(grantpt(ends[0]), 0);
    ck_assert_int_eq(unlockpt(ends[0]), 0);
    ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(ends[1], 0);
}

START_TEST(terminal_closed)
{
    int ends[2];
    open_terminal(ends);
    reader_gone(ends[1], ends[0]);
}
END_TEST

/* A SIGPIPE of the program's own, which it has blocked, is not taken from it. */
START_TEST(own_sigpipe)
{
    int ends[2];
    sigset_t set, now;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    ck_assert(pending(SIGPIPE));
    ck_assert_int_eq(pipe(ends), 0);
    to(ends[1]);
    close(ends[0]);
    event(1);
    event(2);
    ck_assert(pending(SIGPIPE));
    sigprocmask(SIG_SETMASK, NULL, &now);
    ck_assert(sigismember(&now, SIGPIPE));
    ck_assert(!sigismember(&now, SIGTERM));
}
END_TEST

/* Of what the program shares with others nothing is changed: it stays blocking. */
static void stuck(int writer, int reader)
{
    const int flags = fcntl(writer, F_GETFL);
    const int mine = dup(writer);
    to(writer);
    for (unsigned i = 1; i <= 6000; i++)
        event(i);
    ck_assert(sink_pending());
    ck_assert_int_eq(fcntl(mine, F_GETFL), flags);
    ck_assert_int_eq(fcntl(2, F_GETFL), flags);
    close(reader);
}

START_TEST(stuck_pipe)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    stuck(ends[1], ends[0]);
}
END_TEST

START_TEST(stuck_socket)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    stuck(ends[1], ends[0]);
}
END_TEST

START_TEST(stuck_terminal)
{
    int ends[2];
    open_terminal(ends);
    stuck(ends[1], ends[0]);
}
END_TEST

Suite *suite_sink(void)
{
    Suite *s = suite_create("sink");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, full);
    tcase_add_test(t, forked);
    tcase_add_test(t, pipe_closed);
    tcase_add_test(t, socket_closed);
    tcase_add_test(t, terminal_closed);
    tcase_add_test(t, own_sigpipe);
    tcase_add_test(t, stuck_pipe);
    tcase_add_test(t, stuck_socket);
    tcase_add_test(t, stuck_terminal);
    suite_add_tcase(s, t);
    return s;
}
