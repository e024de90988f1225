/*
 * The cost of libc calls as a program sees them, for callgrind to count, with the library preloaded
 * or without: calls on descriptors that are not ours. Prints `NAME OPERATIONS` for each.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/instructions/count.h"

#define WARM_UP    10
#define OPERATIONS 200

static int zero, channel[2];

static void read_zero(void)
{
    char c;
    if (read(zero, &c, 1) != 1)
        abort();
}

static void poll_pipe(void)
{
    struct pollfd p = {.fd = channel[0], .events = POLLIN};
    if (poll(&p, 1, 0) != 1)
        abort();
}

static void write_zero(void)
{
    if (write(zero, "x", 1) != 1)
        abort();
}

static void open_close(void)
{
    close(dup(zero));
}

static void measure(const char *name, void (*run)(void))
{
    for (unsigned i = 0; i < WARM_UP; i++)
        run();
    count_start();
    for (unsigned i = 0; i < OPERATIONS; i++) {
        count_begin();
        run();
        count_end();
    }
    count_done(name, OPERATIONS);
    printf("\n");
}

int main(void)
{
    zero = open("/dev/zero", O_RDWR);
    if (zero < 0 || pipe(channel) != 0 || write(channel[1], "x", 1) != 1)
        return 1;
    measure("read-zero", read_zero);
    measure("write-zero", write_zero);
    measure("poll-pipe", poll_pipe);
    measure("dup-close", open_close);
    return 0;
}
