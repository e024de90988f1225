/*
 * Large transfers between two ends of a family, while other things happen to them: readers and
 * writers at once, a killed writer, a reset, a buffer that is not the program's. Runs on any stack;
 * the last part is what a stack in the program's own process does better than to hang.
 */
#define _GNU_SOURCE
#include "pair.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PIECE   (300u << 10)
#define THREADS 3
#define TEXT    (24u << 20)
#define KILLS   12

static unsigned seed = 1;

static size_t some(size_t most)
{
    return 1 + (size_t)rand_r(&seed) % most;
}

/* Of every byte of the stream. */
static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i % 251);
}

static void send_all(int fd, const uint8_t *text, size_t len)
{
    while (len > 0) {
        const ssize_t n = send(fd, text, len, 0);
        must(n > 0, "send");
        text += n;
        len -= (size_t)n;
    }
}

/* ---- order: one writer, one reader, sizes at random ---- */

static void in_order(void)
{
    int pair[2];
    make_pair(pair);
    const pid_t writer = fork();
    must(writer >= 0, "fork");
    if (writer == 0) {
        static uint8_t text[PIECE + 251];
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = byte_at(i);
        for (size_t done = 0, n; done < TEXT; done += n) {
            n = some(PIECE);
            n = n < TEXT - done ? n : TEXT - done;
            send_all(pair[0], text + done % 251, n);
        }
        _exit(0);
    }
    close(pair[0]);
    static uint8_t text[PIECE];
    size_t got = 0;
    for (ssize_t n; (n = recv(pair[1], text, some(PIECE), 0)) != 0; got += (size_t)n) {
        must(n > 0, "recv");
        for (ssize_t i = 0; i < n; i++)
            must(text[i] == byte_at(got + (size_t)i), "a byte is wrong");
    }
    must(got == TEXT, "bytes are missing");
    close(pair[1]);
    waitpid(writer, NULL, 0);
}

/* ---- several writers and readers of one socket: each byte arrives once ---- */

struct crowd {
    int fd;
    uint8_t mark; /* of a writer */
    uint64_t count[THREADS];
};

static void *write_marks(void *arg)
{
    const struct crowd *c = arg;
    uint8_t *text = malloc(PIECE);
    memset(text, c->mark, PIECE);
    for (size_t done = 0; done < TEXT / THREADS;) {
        const size_t left = TEXT / THREADS - done, n = left < PIECE ? left : PIECE;
        send_all(c->fd, text, n);
        done += n;
    }
    free(text);
    return NULL;
}

static void *count_marks(void *arg)
{
    struct crowd *c = arg;
    uint8_t *text = malloc(PIECE);
    for (ssize_t n; (n = recv(c->fd, text, PIECE, 0)) > 0;)
        for (ssize_t i = 0; i < n; i++) {
            must(text[i] < THREADS, "nobody wrote that");
            c->count[text[i]]++;
        }
    free(text);
    return NULL;
}

static void all_at_once(void)
{
    struct crowd writers[THREADS] = {0}, readers[THREADS] = {0};
    pthread_t write[THREADS], read[THREADS];
    int pair[2];
    make_pair(pair);
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i].fd = pair[0];
        writers[i].mark = (uint8_t)i;
        readers[i].fd = pair[1];
        must(pthread_create(&write[i], NULL, write_marks, &writers[i]) == 0 &&
                 pthread_create(&read[i], NULL, count_marks, &readers[i]) == 0,
             "pthread_create");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(write[i], NULL);
    shutdown(pair[0], SHUT_WR);
    uint64_t count[THREADS] = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(read[i], NULL);
        for (unsigned m = 0; m < THREADS; m++)
            count[m] += readers[i].count[m];
    }
    for (unsigned m = 0; m < THREADS; m++)
        must(count[m] == TEXT / THREADS, "bytes are missing, or came twice");
    close(pair[0]);
    close(pair[1]);
}

/* ---- a writer is killed, at any moment: what came of it is a beginning ---- */

static void killed(void)
{
    static uint8_t text[PIECE + 251];
    for (unsigned k = 0; k < KILLS; k++) {
        int pair[2];
        make_pair(pair);
        const pid_t writer = fork();
        must(writer >= 0, "fork");
        if (writer == 0) {
            close(pair[1]);
            for (size_t i = 0; i < sizeof(text); i++)
                text[i] = byte_at(i);
            for (size_t done = 0, n;; done += n) {
                n = some(PIECE);
                send_all(pair[0], text + done % 251, n);
            }
        }
        close(pair[0]);
        const size_t enough = some(4 * PIECE);
        size_t got = 0;
        bool living = true;
        for (ssize_t n; (n = recv(pair[1], text, PIECE, 0)) != 0; got += (size_t)n) {
            if (n < 0 && errno == ECONNRESET) /* it died inside the stack */
                break;
            must(n > 0, "recv");
            for (ssize_t i = 0; i < n; i++)
                must(text[i] == byte_at(got + (size_t)i), "a byte is wrong");
            if (living && got + (size_t)n > enough) {
                kill(writer, SIGKILL);
                living = false;
            }
        }
        waitpid(writer, NULL, 0);
        close(pair[1]);
    }
}

/* ---- a reset while others write ---- */

static void *write_on(void *arg)
{
    const int fd = *(const int *)arg;
    static const uint8_t text[PIECE];
    while (send(fd, text, sizeof(text), MSG_NOSIGNAL) > 0)
        ;
    must(errno == ECONNRESET || errno == EPIPE, "send after a reset");
    return NULL;
}

static void reset(void)
{
    static uint8_t text[PIECE];
    const struct linger now = {.l_onoff = 1};
    for (unsigned k = 0; k < KILLS; k++) {
        pthread_t writers[2];
        int pair[2];
        make_pair(pair);
        for (unsigned i = 0; i < 2; i++)
            must(pthread_create(&writers[i], NULL, write_on, &pair[0]) == 0, "pthread_create");
        for (size_t got = 0, enough = some(4 * PIECE); got < enough;) {
            const ssize_t n = recv(pair[1], text, PIECE, 0);
            must(n > 0, "recv");
            got += (size_t)n;
        }
        setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(pair[1]);
        for (unsigned i = 0; i < 2; i++)
            pthread_join(writers[i], NULL);
        close(pair[0]);
    }
}

/* ---- a buffer whose second half is nobody's: EFAULT, a part, or SIGSEGV, and on from there ----
 */

static sigjmp_buf out;
static volatile sig_atomic_t signals;

static void leave(int sig)
{
    (void)sig;
    siglongjmp(out, 1);
}

static void count(int sig)
{
    (void)sig;
    signals = signals + 1;
}

static void exchange(int pair[2])
{
    static uint8_t text[PIECE];
    struct pollfd readable = {.fd = pair[1], .events = POLLIN};
    while (poll(&readable, 1, 0) == 1)
        must(recv(pair[1], text, sizeof(text), 0) > 0, "recv of what came");
    for (unsigned i = 0; i < 4; i++) {
        const size_t n = 1 + i * 20000;
        send_all(pair[0], text, n);
        must(recv(pair[1], text, n, MSG_WAITALL) == (ssize_t)n, "recv after a fault");
    }
}

static void faults(void)
{
    const size_t half = 64u << 10;
    int pair[2];
    uint8_t *bad = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(bad != MAP_FAILED && mprotect(bad + half, half, PROT_NONE) == 0, "mmap");
    signal(SIGSEGV, leave);
    signal(SIGUSR1, count);
    make_pair(pair);
    exchange(pair);
    if (sigsetjmp(out, 1) == 0)
        (void)!send(pair[0], bad, 2 * half, 0);
    exchange(pair);
    static const uint8_t text[100000];
    send_all(pair[0], text, sizeof(text));
    if (sigsetjmp(out, 1) == 0)
        (void)!recv(pair[1], bad, 2 * half, 0);
    exchange(pair);
    raise(SIGUSR1);
    exchange(pair);
    must(signals == 1, "a signal is held back");
    const pid_t other = fork(); /* nor does another process wait for us */
    if (other == 0) {
        exchange(pair);
        _exit(0);
    }
    int status;
    must(waitpid(other, &status, 0) == other && status == 0, "the other process");
    close(pair[0]);
    must(recv(pair[1], bad, 10, 0) == 0, "end of the stream"); /* nothing counts as a call on it */
    close(pair[1]);
}

int main(void)
{
    alarm(60);
    in_order();
    all_at_once();
    killed();
    reset();
    faults();
    printf("well\n");
    return 0;
}
