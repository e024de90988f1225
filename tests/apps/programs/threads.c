/*
 * What threads do to each other's calls on sockets: one line for each situation, with what the
 * calls returned. Its output on the user stack is compared with its output on the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"

static int listener;
static struct sockaddr_in address;

static int dial(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect");
    return fd;
}

/* ---- a thread in a call ---- */

enum call { RECV, RECV_ALL, ACCEPT, POLL, SEND, READ_TWICE };

struct caller {
    pthread_t thread;
    enum call call;
    int fd;
    pid_t tid;
    long result;
    int err;
    bool done; /* (atomic) */
};

static void do_call(struct caller *c)
{
    static const char zeros[1 << 20];
    char buf[16];
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    switch (c->call) {
    case RECV:
        c->result = recv(c->fd, buf, sizeof(buf), 0);
        break;
    case RECV_ALL:
        c->result = recv(c->fd, buf, 8, MSG_WAITALL);
        break;
    case ACCEPT:
        c->result = accept(c->fd, NULL, NULL);
        break;
    case POLL:
        c->result = poll(&p, 1, -1);
        break;
    case SEND:
        while ((c->result = send(c->fd, zeros, sizeof(zeros), MSG_NOSIGNAL)) > 0)
            ;
        break;
    case READ_TWICE:
        c->result = read(c->fd, buf, sizeof(buf));
        if (c->result > 0)
            c->result = 100 * c->result + read(c->fd, buf, sizeof(buf));
        break;
    }
    c->err = c->result < 0 ? errno : 0;
    __atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
}

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    __atomic_store_n(&c->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    do_call(c);
    return c;
}

/* The state letter of a thread. */
static char state_of(pid_t tid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    const int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        text[0] = '\0';
    close(fd);
    const char *at = strrchr(text, ')');
    return at != NULL ? at[2] : 'X';
}

/* Until the thread sleeps, several times in a row: then it is in its call. */
static void await_sleep(const struct caller *c)
{
    for (int quiet = 0, i = 0; quiet < 5 && i < 2000; i++) {
        const pid_t tid = __atomic_load_n(&c->tid, __ATOMIC_ACQUIRE);
        quiet = tid != 0 && state_of(tid) == 'S' ? quiet + 1 : 0;
        usleep(2000);
    }
}

static void start(struct caller *c, enum call call, int fd)
{
    *c = (struct caller){.call = call, .fd = fd};
    must(pthread_create(&c->thread, NULL, caller_main, c) == 0, "pthread_create");
    await_sleep(c);
}

static void report(const char *what, struct caller *c)
{
    void *result;
    pthread_join(c->thread, &result);
    if (result == PTHREAD_CANCELED)
        printf("%s: cancelled\n", what);
    else if (result != c)
        printf("%s: ended by %ld\n", what, (long)result);
    else if (c->result < 0)
        printf("%s: %s\n", what, strerrorname_np(c->err));
    else
        printf("%s: %ld\n", what, c->call == ACCEPT ? 0 : c->result);
    fflush(stdout);
}

static bool still(const struct caller *c)
{
    for (int i = 0; i < 100 && !__atomic_load_n(&c->done, __ATOMIC_ACQUIRE); i++)
        usleep(1000);
    return !__atomic_load_n(&c->done, __ATOMIC_ACQUIRE);
}

/* Whether both ends still carry bytes. */
static void check_alive(const char *what, int pair[2])
{
    char byte = 'x';
    const bool ok = send(pair[0], &byte, 1, 0) == 1 && recv(pair[1], &byte, 1, 0) == 1 &&
                    send(pair[1], &byte, 1, 0) == 1 && recv(pair[0], &byte, 1, 0) == 1;
    printf("%s: %s\n", what, ok ? "alive" : "broken");
}

static void end_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

/* ---- close, dup2, shutdown against blocked calls ---- */

static void replaced_under_a_call(void)
{
    /* poll() returns on the user stack, as POSIX lets it; Linux's goes on */
    const enum call calls[] = {RECV, RECV_ALL};
    for (unsigned i = 0; i < 2; i++) {
        for (int by_dup = 0; by_dup < 2; by_dup++) {
            struct caller c;
            int pair[2];
            char what[64];
            connect_pair(listener, &address, pair);
            start(&c, calls[i], pair[0]);
            const int null = open("/dev/null", O_RDWR);
            if (by_dup)
                dup2(null, pair[0]);
            else
                close(pair[0]);
            snprintf(what, sizeof(what), "call %u under %s: waits %d", i, by_dup ? "dup2" : "close",
                     still(&c));
            must(send(pair[1], "12345678", 8, 0) == 8, "send");
            report(what, &c);
            /* the call was the last to have it: now the peer sees the end */
            char byte;
            const long r = recv(pair[1], &byte, 1, 0);
            printf("  peer: %s\n", r == 0 ? "end" : r < 0 ? strerrorname_np(errno) : "data");
            close(null);
            close(pair[1]);
            if (by_dup)
                close(pair[0]);
        }
    }
}

static void shut_down_under_a_call(void)
{
    struct caller c;
    int pair[2];
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
        connect_pair(listener, &address, pair);
        start(&c, RECV, pair[0]);
        shutdown(pair[0], how);
        if (how == SHUT_WR)
            must(still(&c) && close(pair[1]) == 0, "recv under SHUT_WR");
        report("recv under shutdown", &c);
        end_pair(pair);
    }
    connect_pair(listener, &address, pair);
    start(&c, SEND, pair[0]);
    shutdown(pair[0], SHUT_WR);
    report("send under shutdown", &c);
    end_pair(pair);
    const int before = listener;
    listener = listen_somewhere(&address, 64);
    start(&c, ACCEPT, listener);
    shutdown(listener, SHUT_RDWR);
    report("accept under shutdown", &c);
    close(listener);
    listener = listen_somewhere(&address, 64);
    start(&c, ACCEPT, listener);
    close(listener);
    printf("accept under close: waits %d\n", still(&c));
    const int fd = dial();
    report("accept after close", &c);
    close(fd);
    listener = before;
    socklen_t len = sizeof(address);
    getsockname(listener, (struct sockaddr *)&address, &len);
}

/* ---- cancellation ---- */

static void cancelled(void)
{
    const enum call calls[] = {RECV, RECV_ALL, POLL, READ_TWICE};
    struct caller c;
    int pair[2];
    connect_pair(listener, &address, pair);
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        start(&c, calls[i], pair[0]);
        pthread_cancel(c.thread);
        report("cancelled", &c);
        check_alive("  then", pair);
    }
    start(&c, ACCEPT, listener);
    pthread_cancel(c.thread);
    report("accept cancelled", &c);
    end_pair(pair);
    connect_pair(listener, &address, pair);
    check_alive("  then", pair);
    start(&c, SEND, pair[0]);
    pthread_cancel(c.thread);
    report("send cancelled", &c);
    end_pair(pair);
}

/* ---- signals ---- */

static volatile sig_atomic_t handled;
static sigjmp_buf back;
static pthread_t jumper;
static int handler_fd;

static void count(int sig)
{
    (void)sig;
    handled++;
}

static void jump(int sig)
{
    (void)sig;
    if (pthread_equal(pthread_self(), jumper))
        siglongjmp(back, 1);
}

static void end_thread(int sig)
{
    (void)sig;
    pthread_exit((void *)7L);
}

static void use_sockets(int sig)
{
    (void)sig;
    handled = (int)send(handler_fd, "h", 1, MSG_DONTWAIT);
    const int copy = dup(handler_fd);
    close(copy);
}

static void on(int sig, void (*handler)(int), int flags)
{
    const struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    sigaction(sig, &act, NULL);
}

static void interrupted(void)
{
    const enum call calls[] = {RECV, RECV_ALL, POLL, ACCEPT};
    for (unsigned i = 0; i < 4; i++) {
        for (int restart = 0; restart < 2; restart++) {
            struct caller c;
            int pair[2];
            char what[64];
            connect_pair(listener, &address, pair);
            start(&c, calls[i], calls[i] == ACCEPT ? listener : pair[0]);
            on(SIGUSR1, count, restart ? SA_RESTART : 0);
            handled = 0;
            pthread_kill(c.thread, SIGUSR1);
            for (int k = 0; k < 2000 && handled == 0; k++)
                usleep(1000);
            const bool waits = still(&c);
            snprintf(what, sizeof(what), "call %u, handler%s, waits %d, ran %d", i,
                     restart ? " with restart" : "", waits, (int)handled);
            int fd = -1;
            if (waits && calls[i] == ACCEPT)
                fd = dial();
            else if (waits)
                must(send(pair[1], "12345678", 8, 0) == 8, "send");
            report(what, &c);
            close(fd);
            end_pair(pair);
        }
    }
}

static void timed_out_or_interrupted(void)
{
    struct caller c;
    int pair[2];
    const struct timeval long_time = {.tv_sec = 30}, short_time = {.tv_usec = 30000};
    connect_pair(listener, &address, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof(long_time));
    on(SIGUSR1, count, SA_RESTART);
    start(&c, RECV, pair[0]);
    pthread_kill(c.thread, SIGUSR1);
    report("recv with a time-out, handler with restart", &c);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &short_time, sizeof(short_time));
    start(&c, RECV, pair[0]);
    report("recv timed out", &c);
    end_pair(pair);
}

static void *jump_out(void *arg)
{
    char buf[16];
    jumper = pthread_self();
    if (sigsetjmp(back, 1) == 0) {
        alarm(1);
        recv(*(int *)arg, buf, sizeof(buf), 0);
        return (void *)1L;
    }
    alarm(0);
    return (void *)2L;
}

static void handlers_that_do_more(void)
{
    struct caller c;
    int pair[2], other[2];
    void *result;
    pthread_t thread;
    connect_pair(listener, &address, pair);
    connect_pair(listener, &address, other);
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    on(SIGALRM, jump, 0);
    pthread_create(&thread, NULL, jump_out, &pair[0]);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    pthread_join(thread, &result);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    printf("siglongjmp out of recv: %ld\n", (long)result);
    check_alive("  then", pair);
    on(SIGUSR1, end_thread, 0);
    start(&c, RECV, pair[0]);
    pthread_kill(c.thread, SIGUSR1);
    report("pthread_exit in a handler", &c);
    check_alive("  then", pair);
    on(SIGUSR1, use_sockets, SA_RESTART);
    handler_fd = other[0];
    start(&c, RECV, pair[0]);
    pthread_kill(c.thread, SIGUSR1);
    char byte;
    printf("a handler sends: %ld", (long)recv(other[1], &byte, 1, 0));
    printf(", waits %d\n", still(&c));
    send(pair[1], "1", 1, 0);
    report("  then recv", &c);
    end_pair(pair);
    end_pair(other);
}

/* ---- many threads on few sockets ---- */

#define SOCKETS 4
#define THREADS 32 /* that send, and as many that receive */
#define ROUNDS  300

static int crowd[SOCKETS][2];
static unsigned long sent, received;
static int stop_signals;

static void *send_bytes(void *arg)
{
    unsigned char bytes[97];
    const unsigned long id = (unsigned long)arg;
    for (int i = 0; i < ROUNDS; i++) {
        const size_t n = (id * 31 + (unsigned)i * 7) % sizeof(bytes) + 1;
        unsigned long sum = 0;
        for (size_t k = 0; k < n; k++)
            sum += bytes[k] = (unsigned char)(id + (unsigned)i + k);
        __atomic_add_fetch(&sent, sum, __ATOMIC_RELAXED);
        for (size_t done = 0; done < n;) {
            const ssize_t r = send(crowd[id % SOCKETS][0], bytes + done, n - done, 0);
            if (r < 0 && errno != EINTR)
                return (void *)1L;
            done += r > 0 ? (size_t)r : 0;
        }
    }
    return NULL;
}

static void *receive_bytes(void *arg)
{
    unsigned char bytes[61];
    const unsigned long id = (unsigned long)arg;
    const int mine = dup(crowd[id % SOCKETS][1]);
    for (;;) {
        struct pollfd p = {.fd = mine, .events = POLLIN};
        if (id % 3 == 0)
            poll(&p, 1, -1);
        const ssize_t r = recv(mine, bytes, sizeof(bytes), id % 3 == 0 ? MSG_DONTWAIT : 0);
        if (r == 0)
            break;
        if (r < 0 && errno != EINTR && errno != EAGAIN)
            return (void *)1L;
        unsigned long sum = 0;
        for (ssize_t k = 0; k < r; k++)
            sum += bytes[k];
        __atomic_add_fetch(&received, sum, __ATOMIC_RELAXED);
    }
    close(mine);
    return NULL;
}

static void *send_signals(void *arg)
{
    const pthread_t *threads = arg;
    for (unsigned i = 0; !__atomic_load_n(&stop_signals, __ATOMIC_ACQUIRE); i++) {
        pthread_kill(threads[i % THREADS], SIGUSR2);
        usleep(200);
    }
    return NULL;
}

static void many(void)
{
    pthread_t senders[THREADS], receivers[THREADS], signals;
    long failures = 0;
    void *result;
    on(SIGUSR2, count, 0);
    for (int i = 0; i < SOCKETS; i++)
        connect_pair(listener, &address, crowd[i]);
    for (unsigned long i = 0; i < THREADS; i++) {
        pthread_create(&receivers[i], NULL, receive_bytes, (void *)i);
        pthread_create(&senders[i], NULL, send_bytes, (void *)i);
    }
    pthread_create(&signals, NULL, send_signals, receivers);
    for (int i = 0; i < 4; i++) { /* children come and go meanwhile */
        const pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(senders[i], &result);
        failures += result != NULL;
    }
    __atomic_store_n(&stop_signals, 1, __ATOMIC_RELEASE);
    pthread_join(signals, NULL);
    for (int i = 0; i < SOCKETS; i++)
        close(crowd[i][0]);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(receivers[i], &result);
        failures += result != NULL;
    }
    for (int i = 0; i < SOCKETS; i++)
        close(crowd[i][1]);
    printf("%d threads on %d sockets: %ld failed, all bytes %d\n", 2 * THREADS, SOCKETS, failures,
           sent == received);
}

int main(void)
{
    alarm(60);
    signal(SIGPIPE, SIG_IGN);
    listener = listen_somewhere(&address, 64);
    replaced_under_a_call();
    shut_down_under_a_call();
    cancelled();
    interrupted();
    timed_out_or_interrupted();
    handlers_that_do_more();
    many();
    return 0;
}
