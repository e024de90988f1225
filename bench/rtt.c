/*
 * Round trips by blocking calls.
 *
 *     rtt PORT                        server: sends back what it reads
 *     rtt ADDR PORT BYTES SECONDS     client: prints "median p99 count", times in microseconds
 */
#include "net.h"

#define SAMPLES_MAX (4 << 20)
#define BYTES_MAX   65536

static char buffer[BYTES_MAX];

static _Noreturn void serve(const char *port)
{
    const int listener = listen_on(port), one = 1;
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        must(fd >= 0, "accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        ssize_t n;
        while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0)
            must(send(fd, buffer, (size_t)n, 0) == n, "send");
        close(fd);
    }
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void round_trip(int fd, size_t bytes)
{
    must(send(fd, buffer, bytes, 0) == (ssize_t)bytes, "send");
    for (size_t got = 0; got < bytes;) {
        const ssize_t n = recv(fd, buffer, bytes - got, 0);
        must(n > 0, "recv");
        got += (size_t)n;
    }
}

int main(int argc, char **argv)
{
    if (argc == 2)
        serve(argv[1]);
    if (argc != 5)
        return 2;
    const struct sockaddr_in sa = address(argv[1], argv[2]);
    const size_t bytes = (size_t)atoi(argv[3]);
    must(bytes > 0 && bytes <= BYTES_MAX, "BYTES");
    float *samples = malloc(SAMPLES_MAX * sizeof(*samples));
    must(samples != NULL, "malloc");
    const int fd = connect_to(&sa);
    for (unsigned i = 0; i < 1000; i++) /* warm up */
        round_trip(fd, bytes);
    const double end = now_usec() + atof(argv[4]) * 1e6;
    size_t n = 0;
    for (double before = now_usec(), after; before < end && n < SAMPLES_MAX; before = after) {
        round_trip(fd, bytes);
        after = now_usec();
        samples[n++] = (float)(after - before);
    }
    qsort(samples, n, sizeof(*samples), by_size);
    printf("%.2f %.2f %zu\n", samples[n / 2], samples[n * 99 / 100], n);
    return 0;
}
