/*
 * sim [--seeds N] [--first S] [--jobs J] [--verbose]: runs N seeds from S on in J processes. Prints
 * each seed that fails and why; `sim --first SEED --seeds 1 --verbose` shows all that happened in
 * one. --rates instead: how fast some transfers are (rates.c). The last line is `sim: N passed, N
 * failed, N skipped`; the exit status is 1 when one failed.
 */
#include "tests/sim/sim.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of all processes. */
static struct shared {
    _Atomic uint64_t next, passed, failed;
} * shared;

static uint64_t running;

static void crashed(void)
{
    printf("seed %llu: crashed\n", (unsigned long long)running);
    fflush(stdout);
}

/* NOLINTBEGIN(bugprone-signal-handler): the program ends here, whatever was interrupted */
static void on_alarm(int sig)
{
    (void)sig;
    printf("seed %llu: does not end\n", (unsigned long long)running);
    fflush(stdout);
    signal(SIGABRT, SIG_DFL);
    abort();
}
/* NOLINTEND(bugprone-signal-handler) */

__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static void work(uint64_t end, bool verbose)
{
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(crashed);
    signal(SIGALRM, on_alarm);
    app_pattern_init();
    while ((running = shared->next++) < end) {
        alarm(120);
        const char *why = sim_run(running, verbose);
        if (!why) {
            shared->passed++;
            continue;
        }
        shared->failed++;
        printf("seed %llu: %s\n", (unsigned long long)running, why);
        fflush(stdout);
    }
}

/* Starts a process for the seeds that are left; one that dies has failed in one seed. */
static void run_jobs(uint64_t end, unsigned jobs, bool verbose)
{
    unsigned live = 0;
    for (;;) {
        while (live < jobs && shared->next < end) {
            fflush(stdout);
            pid_t pid = fork();
            if (pid == 0) {
                work(end, verbose);
                fflush(stdout);
                _exit(0);
            }
            if (pid < 0) {
                perror("fork");
                exit(2);
            }
            live++;
        }
        if (!live)
            return;
        int status;
        if (wait(&status) < 0)
            return;
        live--;
        if (status != 0)
            shared->failed++;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seeds", required_argument, NULL, 'n'}, {"first", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},  {"rates", no_argument, NULL, 'r'},
        {"verbose", no_argument, NULL, 'v'},     {NULL, 0, NULL, 0}};
    uint64_t seeds = 10000, first = 1;
    unsigned jobs = 2;
    bool verbose = false, rates = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "n:f:j:rv", options, NULL)) != -1) {
        switch (opt) {
        case 'n':
            seeds = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            first = strtoull(optarg, NULL, 10);
            break;
        case 'j':
            jobs = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            rates = true;
            break;
        case 'v':
            verbose = true;
            break;
        default:
            return 2;
        }
    }
    if (rates) {
        app_pattern_init();
        return sim_rates(verbose) != 0;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    shared->next = first;
    if (seeds == 1 || jobs <= 1)
        run_jobs(first + seeds, 1, verbose);
    else
        run_jobs(first + seeds, jobs, verbose);
    printf("sim: %llu passed, %llu failed, 0 skipped\n", (unsigned long long)shared->passed,
           (unsigned long long)shared->failed);
    return shared->failed != 0;
}
