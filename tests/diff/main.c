/*
 * The runner: diff [--first SEED] [--count N]. Writes "== SEED" and the log of each script, and
 * "== end" behind the last.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define HIGH_FD 200 /* the runner's own descriptors, out of the scripts' way */

volatile int sigpipes;

static void on_sigpipe(int number)
{
    (void)number;
    sigpipes++;
}

static int make_barrier(void)
{
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0 ||
        connect(fd, (struct sockaddr *)&sa, len) < 0) {
        fprintf(stderr, "diff: no loopback here: %s\n", strerror(errno));
        exit(2);
    }
    const int high = fcntl(fd, F_DUPFD, HIGH_FD);
    close(fd);
    return high;
}

/* One processor: see settle.c. */
static void stay_here(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 1;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--first") == 0) {
            first = strtoull(argv[i + 1], NULL, 0);
        } else if (i + 1 < argc && strcmp(argv[i], "--count") == 0) {
            count = strtoull(argv[i + 1], NULL, 0);
        } else {
            fprintf(stderr, "usage: %s [--first SEED] [--count N]\n", argv[0]);
            return 2;
        }
    }
    const struct sigaction action = {.sa_handler = on_sigpipe, .sa_flags = SA_RESTART};
    sigaction(SIGPIPE, &action, NULL);
    stay_here();
    static struct world w;
    w.barrier = make_barrier();
    for (uint64_t seed = first; seed < first + count; seed++) {
        log_reset();
        say("== %llu\n", (unsigned long long)seed);
        world_begin(&w, seed);
        script_run(&w);
        world_end(&w);
        log_flush();
    }
    say("== end\n");
    log_flush();
    return 0;
}
