/*
 * What a preloaded library adds to calls that are none of its business.
 *
 *     plain read | poll | spawn      prints nanoseconds a call
 *
 * read: of a byte of /dev/zero; poll: of a pipe that is readable; of both the cheapest of many
 * short batches counts, as what else the machine does only adds. spawn: /bin/true from posix_spawn
 * to its end, the median. PRELOAD names the library that /bin/true gets.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>

#include "round.h"

#define BATCHES 2000
#define CALLS   300
#define SPAWNS  200

static int zero, channel[2];
static char *child_env[2];

static void read_zero(void)
{
    char c;
    must(read(zero, &c, 1) == 1, "read");
}

static void poll_pipe(void)
{
    struct pollfd p = {.fd = channel[0], .events = POLLIN};
    must(poll(&p, 1, 0) == 1, "poll");
}

static void spawn(void)
{
    static char *const argv[] = {"true", NULL};
    pid_t pid;
    int status;
    must(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, child_env) == 0, "posix_spawn");
    must(waitpid(pid, &status, 0) == pid && status == 0, "/bin/true");
}

/* Prints the batch that comes `rank`th of all by its nanoseconds a call. */
static void measure(void (*run)(void), unsigned batches, unsigned calls, unsigned rank)
{
    float samples[BATCHES] = {0};
    run();
    for (unsigned b = 0; b < batches; b++) {
        const double before = now_usec();
        for (unsigned i = 0; i < calls; i++)
            run();
        samples[b] = (float)((now_usec() - before) * 1e3 / calls);
    }
    qsort(samples, batches, sizeof(*samples), by_size);
    printf("%.2f\n", samples[rank]);
}

int main(int argc, char **argv)
{
    static char preload[4096] = "LD_PRELOAD=";
    if (argc != 2)
        return 2;
    zero = open("/dev/zero", O_RDONLY);
    must(zero >= 0 && pipe(channel) == 0 && write(channel[1], "x", 1) == 1, "descriptors");
    if (getenv("PRELOAD") != NULL) {
        snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", getenv("PRELOAD"));
        child_env[0] = preload;
    }
    if (strcmp(argv[1], "read") == 0)
        measure(read_zero, BATCHES, CALLS, 0);
    else if (strcmp(argv[1], "poll") == 0)
        measure(poll_pipe, BATCHES, CALLS, 0);
    else if (strcmp(argv[1], "spawn") == 0)
        measure(spawn, SPAWNS, 1, SPAWNS / 2);
    else
        return 2;
    return 0;
}
