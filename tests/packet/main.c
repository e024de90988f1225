/*
 * packet [-v] [-l] [NAME...]: runs the packet tests whose names are given (or begin with NAME if it
 * ends in *; all without any). -v prints the diagram of those that pass too, -l lists the names.
 * The last line is `packet: N passed, N failed, N skipped`; the exit status is 1 when one failed.
 */
#include "tests/packet/harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct packet_test *tests;
static const struct packet_test *running;
static unsigned passed, failed, skipped;

void packet_test_register(struct packet_test *t)
{
    t->next = tests;
    tests = t;
}

static int by_place(const void *a, const void *b)
{
    const struct packet_test *x = *(struct packet_test *const *)a;
    const struct packet_test *y = *(struct packet_test *const *)b;
    int d = strcmp(x->file, y->file);
    return d ? d : strcmp(x->name, y->name);
}

/* NOLINTBEGIN(bugprone-signal-handler): the program ends here, whatever was interrupted */
static void summary(void)
{
    printf("packet: %u passed, %u failed, %u skipped\n", passed, failed, skipped);
    fflush(stdout);
}

/* The sanitizer's last words come before this. */
static void on_death(void)
{
    if (!running) /* a leak, found at the exit */
        return;
    printf("%s: crashed\n", running->name);
    failed++;
    summary();
}

static void on_alarm(int sig)
{
    (void)sig;
    printf("%s: does not end\n", running ? running->name : "?");
    failed++;
    summary();
    abort();
}
/* NOLINTEND(bugprone-signal-handler) */

__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static bool wanted(const struct packet_test *t, int n, char **names)
{
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        bool prefix = len && names[i][len - 1] == '*';
        if (prefix ? strncmp(t->name, names[i], len - 1) == 0 : strcmp(t->name, names[i]) == 0)
            return true;
    }
    return n == 0;
}

static void run_one(const struct packet_test *t, bool verbose)
{
    running = t;
    alarm(60);
    if (verbose)
        printf("== %s (%s)\n", t->name, t->what);
    bool ok = packet_run(t, verbose);
    if (packet_skipped())
        skipped++;
    else if (ok)
        passed++;
    else
        failed++;
}

int main(int argc, char **argv)
{
    bool verbose = false, list = false;
    int opt;
    while ((opt = getopt(argc, argv, "vl")) != -1) {
        verbose |= opt == 'v';
        list |= opt == 'l';
        if (opt == '?')
            return 2;
    }
    static struct packet_test *sorted[8192];
    size_t n = 0;
    for (struct packet_test *t = tests; t && n < ARRAY_LEN(sorted); t = t->next)
        sorted[n++] = t;
    qsort(sorted, n, sizeof(sorted[0]), by_place);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(on_death);
    signal(SIGALRM, on_alarm);
    for (size_t i = 0; i < n; i++) {
        if (!wanted(sorted[i], argc - optind, argv + optind))
            continue;
        if (list)
            printf("%-40s %s\n", sorted[i]->name, sorted[i]->what);
        else
            run_one(sorted[i], verbose);
    }
    if (list)
        return 0;
    running = NULL;
    summary();
    return failed || passed + skipped == 0;
}
