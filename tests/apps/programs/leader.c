/*
 * The main thread of a process with a connection ends in various ways, alone or before others: how
 * the process ends then. Its output on the user stack is compared with its output on the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

#define PATIENCE 5000 /* ms */

enum place { PLAIN, SMALL, CHROOT, PLACES };
enum end { FILTERED, FILTERED_IN_SEND, RAW_EXIT, PTHREAD_EXIT, ENDS };

static const char *const places[] = {"", ", one descriptor", ", in a chroot"};
static const char *const ends[] = {"filtered", "filtered in send", "SYS_exit", "pthread_exit"};
static int pair[2];
static volatile int *worked; /* shared with the parent */

/* This thread ends at `number`. */
static void filter(long number)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof(code) / sizeof(*code), code};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
             prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0,
         "seccomp");
}

/* 200 ms later than the main thread. */
static void *work(void *unused)
{
    const struct timespec pause = {.tv_nsec = 200000000};
    char byte = 'x';
    nanosleep(&pause, NULL);
    *worked = send(pair[0], &byte, 1, MSG_NOSIGNAL) == 1 && recv(pair[1], &byte, 1, 0) == 1;
    return unused;
}

static void child(enum end end, enum place place, bool worker)
{
    static char block[1 << 16];
    pthread_t thread;
    const struct rlimit core = {0}, one = {1, 1};
    setrlimit(RLIMIT_CORE, &core);
    make_pair(
        pair); /* the service thread is there from now on, if anything is in the engine's hands */
    must(send(pair[0], block, sizeof(block), MSG_DONTWAIT) > 0, "send");
    usleep(30000);
    if (worker)
        must(recv(pair[1], block, sizeof(block), MSG_WAITALL) == sizeof(block) &&
                 pthread_create(&thread, NULL, work, NULL) == 0,
             "worker");
    if (place == SMALL)
        must(setrlimit(RLIMIT_NOFILE, &one) == 0, "setrlimit");
    if (place == CHROOT)
        must(chroot("/sys/kernel") == 0 && chdir("/") == 0, "chroot");
    switch (end) {
    case FILTERED:
        filter(SYS_getppid);
        syscall(SYS_getppid);
        break;
    case FILTERED_IN_SEND:
        filter(SYS_sendto);
        syscall(SYS_sendto, 0, 0, 0, 0, 0, 0);
        break;
    case RAW_EXIT:
        syscall(SYS_exit, 3);
        break;
    default:
        pthread_exit(NULL);
    }
    printf("goes on\n");
}

static double seconds(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

static void try(enum end end, enum place place, bool worker)
{
    struct rusage used = {0};
    int status = 0, waited = 0;
    pid_t done;
    *worked = 0;
    fflush(stdout);
    const pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        child(end, place, worker);
        exit(1);
    }
    while ((done = wait4(pid, &status, WNOHANG, &used)) == 0 && waited++ < PATIENCE / 10)
        usleep(10000);
    printf("%s%s%s: ", ends[end], places[place], worker ? ", with a worker" : "");
    if (done == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        printf("does not end\n");
        return;
    }
    if (worker) /* whose status it is depends on who was last */
        printf("ended");
    else if (WIFSIGNALED(status))
        printf("signal %d", WTERMSIG(status));
    else
        printf("status %d", WEXITSTATUS(status));
    printf(", the worker %s", *worked ? "worked" : "did not work");
    printf("%s\n", seconds(&used.ru_utime) + seconds(&used.ru_stime) > 0.5 ? ", SPINS" : "");
}

int main(void)
{
    worked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    make_pair(pair); /* of the family: the parent drives as well */
    for (enum end end = FILTERED; end < ENDS; end++)
        try(end, PLAIN, false);
    try(FILTERED, PLAIN, true);
    try(PTHREAD_EXIT, PLAIN, true);
    try(FILTERED_IN_SEND, SMALL, false);
    try(RAW_EXIT, CHROOT, false);
    close(pair[0]);
    close(pair[1]);
    try(FILTERED, PLAIN, false); /* nobody else is there to drive */
    return 0;
}
