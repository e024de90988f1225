/* Round trips by blocking calls: the side that asks, with times, and the side that echoes. */
#pragma once

#include "net.h"

#define SAMPLES_MAX (4 << 20)
#define ROUND_MAX   65536
#define WARM_UP     1000

static char round_buffer[ROUND_MAX];

static inline _Noreturn void echo_forever(int listener)
{
    const int one = 1;
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        must(fd >= 0, "accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        ssize_t n;
        while ((n = recv(fd, round_buffer, sizeof(round_buffer), 0)) > 0)
            must(send(fd, round_buffer, (size_t)n, 0) == n, "send");
        close(fd);
    }
}

static inline void round_trip(int fd, size_t bytes)
{
    must(send(fd, round_buffer, bytes, 0) == (ssize_t)bytes, "send");
    for (size_t got = 0; got < bytes;) {
        const ssize_t n = recv(fd, round_buffer, bytes - got, 0);
        must(n > 0, "recv");
        got += (size_t)n;
    }
}

static inline int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Prints "median p99 count" of the samples, which it sorts. */
static inline void print_samples(float *samples, size_t n)
{
    must(n > 0, "samples");
    qsort(samples, n, sizeof(*samples), by_size);
    printf("%.2f %.2f %zu\n", samples[n / 2], samples[n * 99 / 100], n);
}

static inline float *samples_new(void)
{
    float *samples = malloc(SAMPLES_MAX * sizeof(*samples));
    must(samples != NULL, "malloc");
    return samples;
}

/* Round trips of so many bytes on a connected socket, for so long; prints as print_samples(). */
static inline void round_trips(int fd, size_t bytes, double seconds)
{
    float *samples = samples_new();
    for (unsigned i = 0; i < WARM_UP; i++)
        round_trip(fd, bytes);
    const double end = now_usec() + seconds * 1e6;
    size_t n = 0;
    for (double before = now_usec(), after; before < end && n < SAMPLES_MAX; before = after) {
        round_trip(fd, bytes);
        after = now_usec();
        samples[n++] = (float)(after - before);
    }
    print_samples(samples, n);
    free(samples);
}
