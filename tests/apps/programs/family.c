/*
 * What processes of a family do with the descriptors of one connection: one line for each
 * situation. Its output on the user stack is compared with its output on the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"

static int pair[2];
static char stack[65536] __attribute__((aligned(16)));

static void check_alive(const char *what)
{
    char byte = 'x';
    const bool ok = send(pair[0], &byte, 1, MSG_NOSIGNAL) == 1 && recv(pair[1], &byte, 1, 0) == 1 &&
                    send(pair[1], &byte, 1, MSG_NOSIGNAL) == 1 && recv(pair[0], &byte, 1, 0) == 1;
    printf("%s: %s\n", what, ok ? "alive" : "broken");
    fflush(stdout);
}

static int reaped(pid_t pid)
{
    int status = -1;
    must(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- children that replace descriptors in borrowed memory ---- */

static int close_both(void *unused)
{
    (void)unused;
    close(pair[0]);
    return dup2(STDIN_FILENO, pair[1]) < 0;
}

static void borrowers(void)
{
    const pid_t child = vfork();
    if (child == 0) {
        close(pair[0]);
        _exit(5);
    }
    printf("vfork: %d\n", reaped(child));
    check_alive("  then");
    const int flags[] = {SIGCHLD, CLONE_VM | SIGCHLD, CLONE_VM | CLONE_VFORK | SIGCHLD};
    for (unsigned i = 0; i < 3; i++) {
        printf("clone %u: %d\n", i,
               reaped(clone(close_both, stack + sizeof(stack), flags[i], NULL)));
        check_alive("  then");
    }
    const int quiet = clone(close_both, stack + sizeof(stack), CLONE_VM, NULL);
    printf("clone without a signal: %d\n", waitpid(quiet, NULL, __WCLONE) == quiet);
    check_alive("  then");
}

static void spawned(void)
{
    char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 6", NULL};
    char *const env[] = {NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, pair[0]);
    posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, pair[1]);
    printf("posix_spawn: %d\n", posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, env));
    printf("  %d\n", reaped(pid));
    printf("posix_spawn of nothing: %s\n",
           strerrorname_np(posix_spawn(&pid, "/nonexistent", &actions, NULL, argv, env)));
    printf("posix_spawnp: %d\n", posix_spawnp(&pid, "sh", NULL, NULL, argv, env));
    printf("  %d\n", reaped(pid));
    posix_spawn_file_actions_addopen(&actions, 9, "/nonexistent", O_RDONLY, 0);
    printf("posix_spawn with a file that is not there: %s\n",
           strerrorname_np(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, env)));
    posix_spawn_file_actions_destroy(&actions);
    const int status = system("exit 8");
    printf("system: %d, no child %d\n", WEXITSTATUS(status), waitpid(-1, NULL, 0) < 0);
    char text[16] = "";
    FILE *f = popen("echo said; exit 9", "r");
    must(f != NULL && fgets(text, sizeof(text), f) != NULL, "popen");
    printf("popen: %.4s, pclose: %d\n", text, WEXITSTATUS(pclose(f)));
    check_alive("  then");
}

/* ---- one description ---- */

static void shared(void)
{
    pid_t child = fork();
    if (child == 0) {
        fcntl(pair[0], F_SETFL, O_NONBLOCK);
        _exit(0);
    }
    reaped(child);
    char byte;
    printf("non-blocking by the child: %d", (fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0);
    printf(", %s\n", recv(pair[0], &byte, 1, 0) < 0 ? strerrorname_np(errno) : "data");
    fcntl(pair[0], F_SETFL, 0);
    const int copy = fcntl(pair[0], F_DUPFD_CLOEXEC, 50), again = dup3(pair[0], 60, O_CLOEXEC);
    struct stat a, b;
    fstat(pair[0], &a);
    fstat(copy, &b);
    printf("duplicates: %d %d, same file %d, close-on-exec %d %d\n", copy, again,
           a.st_ino == b.st_ino, fcntl(copy, F_GETFD), fcntl(pair[0], F_GETFD));
    close(pair[0]);
    pair[0] = copy;
    close(again);
    check_alive("  then");
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", pair[0]);
    printf("opened again: %s\n", open(path, O_RDWR) < 0 ? strerrorname_np(errno) : "open");
}

static void copied(void)
{
    int pipe_fds[2];
    char byte = 0;
    must(pipe(pipe_fds) == 0, "pipe");
    const pid_t parent = getpid(), child = fork();
    if (child == 0) {
        close(pair[0]);
        const int pidfd = pidfd_open(parent, 0), fd = pidfd_getfd(pidfd, pair[0], 0);
        _exit(fd < 0 ? 1 : send(fd, "c", 1, MSG_NOSIGNAL) != 1);
    }
    const int status = reaped(child);
    printf("pidfd_getfd: %d, the peer got %zd\n", status, recv(pair[1], &byte, 1, MSG_DONTWAIT));
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    check_alive("  then");
}

/* ---- messages ---- */

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static void send_fd(int to, int fd)
{
    union control control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                                        .cmsg_level = SOL_SOCKET,
                                        .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t) "m", 1};
    const struct msghdr m = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    must(sendmsg(to, &m, 0) == 1, "sendmsg");
}

static int receive_fd(int from, int flags)
{
    union control control;
    char byte;
    int fd = -1;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    must(recvmsg(from, &m, flags) == 1, "recvmsg");
    if (m.msg_controllen >= sizeof(struct cmsghdr))
        memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    return fd;
}

static void passed(void)
{
    int unix_pair[2];
    char byte;
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair) == 0, "socketpair");
    send_fd(unix_pair[0], pair[0]);
    close(pair[0]);
    const int peeked = receive_fd(unix_pair[1], MSG_PEEK);
    close(peeked);
    struct pollfd p = {.fd = pair[1], .events = POLLIN};
    printf("in a message only: %d events\n", poll(&p, 1, 50));
    pair[0] = receive_fd(unix_pair[1], 0);
    check_alive("passed");
    for (int i = 0; i < 2; i++) {
        send_fd(unix_pair[0], pair[i]);
        close(pair[i]);
        pair[i] = receive_fd(unix_pair[1], 0);
    }
    check_alive("passed, both");
    const pid_t child = fork();
    if (child == 0) {
        close(pair[1]);
        const int fd = receive_fd(unix_pair[1], 0);
        _exit(send(fd, "p", 1, MSG_NOSIGNAL) != 1);
    }
    send_fd(unix_pair[0], pair[0]);
    close(pair[0]);
    const int status = reaped(child);
    printf("passed to a child: %d, %zd", status, recv(pair[1], &byte, 1, 0));
    printf(", then the end %zd\n", recv(pair[1], &byte, 1, 0));
    close(pair[1]);
}

/* ---- who closes last ---- */

static void last_close(void)
{
    int pipe_fds[2];
    char byte;
    make_pair(pair);
    must(pipe(pipe_fds) == 0, "pipe");
    const pid_t child = fork();
    if (child == 0) {
        close(pair[1]);
        close(pipe_fds[1]);
        _exit(read(pipe_fds[0], &byte, 1) != 0);
    }
    close(pair[0]);
    struct pollfd p = {.fd = pair[1], .events = POLLIN};
    printf("closed by one: %d events", poll(&p, 1, 50));
    close(pipe_fds[1]);
    reaped(child);
    printf(", by both: %d", poll(&p, 1, 1000));
    printf(", %zd\n", recv(pair[1], &byte, 1, 0));
    close(pair[1]);
}

/* ---- exec while threads are at work ---- */

static void *work(void *arg)
{
    char buf[64] = "";
    for (;;) {
        struct pollfd p = {.fd = pair[1], .events = POLLPRI};
        switch ((long)arg % 4) {
        case 0:
            poll(&p, 1, 1);
            break;
        case 1:
            recv(pair[1], buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT);
            break;
        case 2:
            close(fcntl(pair[0], F_DUPFD_CLOEXEC, 0)); /* or exec closes it */
            break;
        default:
            recv(pair[0], buf, 1, 0); /* nobody sends: until exec ends it */
        }
    }
    return NULL;
}

/* The image execs itself `left` times more. */
static void exec_at_work(const char *self, int left)
{
    if (left == 0) {
        check_alive("after many images");
        close(pair[0]); /* no call of an image that is gone holds it */
        char byte;
        printf("  then the end: %zd\n", recv(pair[1], &byte, 1, 0));
        return;
    }
    for (long i = 0; i < 8; i++) {
        pthread_t thread;
        must(pthread_create(&thread, NULL, work, (void *)i) == 0, "pthread_create");
    }
    usleep(5000);
    char words[3][12];
    snprintf(words[0], sizeof(words[0]), "%d", left - 1);
    snprintf(words[1], sizeof(words[1]), "%d", pair[0]);
    snprintf(words[2], sizeof(words[2]), "%d", pair[1]);
    char *const argv[] = {(char *)self, words[0], words[1], words[2], NULL};
    char *const env[] = {NULL};
    execve("/nonexistent", argv, env);
    execve(self, argv, env);
    must(false, "execve");
}

int main(int argc, char **argv)
{
    alarm(30);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4) {
        pair[0] = atoi(argv[2]);
        pair[1] = atoi(argv[3]);
        exec_at_work("/proc/self/exe", atoi(argv[1]));
        return 0;
    }
    make_pair(pair);
    borrowers();
    spawned();
    shared();
    copied();
    passed();
    last_close();
    make_pair(pair);
    exec_at_work("/proc/self/exe", 30);
    return 0;
}
