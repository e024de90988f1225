/*
 * The limits: what system calls, wake-ups and copies cost without a TCP. Two ends of a veth pair
 * exchange as many frames as TCP would, over packet sockets; nothing is looked up, timed or kept.
 *
 *     raw pong IF                     echoes
 *     raw ping IF BYTES SECONDS       round trips: prints "median p99 count", times in microseconds
 *     raw sink IF N                   takes bulk into N programs' buffers, and says so every other
 *                                     frame: prints its processor time
 *     raw source IF SECONDS N         bulk out of N programs' buffers, with one copy as for
 *                                     retransmission: print_bulk()
 *     raw accept IF                   the frames of short connections, and a descriptor each
 *     raw connect IF SECONDS          their other end: prints connections per second
 *     raw copy | call                 memcpy() in GB/s, a system call in nanoseconds
 *
 * pong, sink and accept say `ready` first.
 */
#define _GNU_SOURCE
#include "frames.h"
#include "round.h"

#include <fcntl.h>

#define WINDOW      16 /* frames under way */
#define ACK_EVERY   2
#define STREAMS_MAX 16

static int fd;
static uint8_t text[ROUND_MAX + 65536];

/* Waits for a frame, or with MSG_DONTWAIT looks whether there is one. */
static ssize_t receive_to(void *to, size_t room, int flags)
{
    struct frame f;
    struct iovec iov[] = {{&f, sizeof(f)}, {to, room}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    return recvmsg(fd, &m, flags);
}

static ssize_t receive(int flags)
{
    return receive_to(text, sizeof(text), flags);
}

static void ping(size_t bytes, double seconds)
{
    const struct frame f = make_frame(bytes);
    float *samples = samples_new();
    const double end = now_usec() + seconds * 1e6;
    size_t n = 0;
    for (double before = now_usec(), after; before < end && n < SAMPLES_MAX; before = after) {
        transmit(fd, &f, text, bytes);
        must(receive(0) > 0, "recvmsg");
        after = now_usec();
        samples[n++] = (float)(after - before);
    }
    print_samples(samples, n);
}

static _Noreturn void pong(void)
{
    say_ready();
    for (;;) {
        struct frame f;
        struct iovec iov[] = {{&f, sizeof(f)}, {text, sizeof(text)}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
        const ssize_t n = recvmsg(fd, &m, 0);
        must(n >= (ssize_t)sizeof(f), "recvmsg");
        transmit(fd, &f, text, (size_t)n - sizeof(f));
    }
}

static void source(double seconds, unsigned streams)
{
    static uint8_t program[STREAMS_MAX][TEXT_MAX], kept[WINDOW + BATCH][TEXT_MAX];
    const struct frame f = make_frame(TEXT_MAX);
    const double start = now_usec(), span = seconds * 1e6, cpu = cpu_seconds();
    double now = start;
    unsigned under_way = 0;
    size_t sent = 0;
    for (; now - start < span; now = now_usec()) {
        if (receive(under_way + BATCH > WINDOW ? 0 : MSG_DONTWAIT) > 0) {
            under_way -= ACK_EVERY;
            continue;
        }
        for (unsigned i = 0; i < BATCH; i++, sent++) {
            uint8_t *keep = kept[sent % (WINDOW + BATCH)];
            memcpy(keep, program[sent / 2 % streams], TEXT_MAX);
            batch_add(fd, &f, keep, TEXT_MAX);
        }
        batch_send();
        under_way += BATCH;
    }
    print_bulk((double)sent * TEXT_MAX, now - start, cpu);
    const struct frame last = make_frame(0);
    transmit(fd, &last, text, 0);
}

static void sink(unsigned streams)
{
    static uint8_t program[STREAMS_MAX][2][TEXT_MAX];
    const struct frame ack = make_frame(0);
    say_ready();
    for (unsigned n = 0;
         receive_to(program[n / 2 % streams][n & 1], TEXT_MAX, 0) > (ssize_t)sizeof(ack);) {
        if (++n % ACK_EVERY == 0)
            transmit(fd, &ack, text, 0);
    }
    printf("%.6f\n", cpu_seconds());
}

/* Of one connection: sends so many frames, then waits for so many. */
static void exchange(unsigned out, unsigned in)
{
    const struct frame f = make_frame(64);
    for (unsigned i = 0; i < out; i++)
        transmit(fd, &f, text, 64);
    for (unsigned i = 0; i < in; i++)
        must(receive(0) > 0, "recvmsg");
}

static void descriptor(void)
{
    close(dup(fd));
}

static _Noreturn void accept_all(void)
{
    say_ready();
    for (;;) {
        exchange(0, 1); /* SYN */
        descriptor();
        exchange(1, 2); /* SYN-ACK; ACK, request */
        exchange(2, 1); /* answer, FIN; FIN with the ACK of both */
        exchange(1, 0); /* ACK */
    }
}

static void connect_all(double seconds)
{
    const double start = now_usec(), span = seconds * 1e6;
    double now = start;
    unsigned done = 0;
    for (; now - start < span; now = now_usec(), done++) {
        descriptor();
        exchange(1, 1);
        exchange(2, 2);
        exchange(1, 1);
    }
    printf("%.0f\n", done / (now - start) * 1e6);
}

#define BLOCK  65536
#define BLOCKS 4 /* as much as a window */

static void copy_speed(void)
{
    static uint8_t from[BLOCKS][BLOCK], to[BLOCKS][BLOCK];
    double best = 0;
    for (unsigned round = 0; round < 50; round++) {
        const double before = now_usec();
        for (unsigned i = 0; i < 64; i++) {
            memcpy(to[i % BLOCKS], from[i % BLOCKS], BLOCK);
            __asm__ volatile("" ::: "memory");
        }
        const double speed = 64.0 * BLOCK / (now_usec() - before) / 1e3;
        best = speed > best ? speed : best;
    }
    printf("%.2f\n", best);
}

static void call_cost(void)
{
    double best = 1e9;
    for (unsigned round = 0; round < 50; round++) {
        const double before = now_usec();
        for (unsigned i = 0; i < 1000; i++)
            (void)syscall(SYS_getppid);
        const double cost = now_usec() - before;
        best = cost < best ? cost : best;
    }
    printf("%.1f\n", best);
}

static int run(int argc, char **argv)
{
    const char *mode = argv[1];
    if (argc > 2)
        fd = open_interface(argv[2]);
    if (argc == 2 && strcmp(mode, "copy") == 0)
        copy_speed();
    else if (argc == 2 && strcmp(mode, "call") == 0)
        call_cost();
    else if (argc == 3 && strcmp(mode, "pong") == 0)
        pong();
    else if (argc == 5 && strcmp(mode, "ping") == 0)
        ping((size_t)atoi(argv[3]), atof(argv[4]));
    else if (argc == 4 && strcmp(mode, "sink") == 0)
        sink((unsigned)atoi(argv[3]));
    else if (argc == 5 && strcmp(mode, "source") == 0)
        source(atof(argv[3]), (unsigned)atoi(argv[4]));
    else if (argc == 3 && strcmp(mode, "accept") == 0)
        accept_all();
    else if (argc == 4 && strcmp(mode, "connect") == 0)
        connect_all(atof(argv[3]));
    else
        return 2;
    return 0;
}

int main(int argc, char **argv)
{
    return argc < 2 ? 2 : run(argc, argv);
}
