/*
 * What calls answer when no descriptor is left, and that all goes on when one is. One line for each
 * situation; the output on the user stack is compared with that on the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"

#define MANY   512
#define ROUNDS 100

static struct sockaddr_in at;
static int listener, pair[2];
static int fds[MANY];
static unsigned nfds;

static void say(const char *what, long r)
{
    printf("%s: %s\n", what, r < 0 ? strerrorname_np(errno) : "fine");
}

static int dial(int fd)
{
    return connect(fd, (struct sockaddr *)&at, sizeof(at));
}

static bool alive(int a, int b)
{
    char byte = 'x';
    return send(a, &byte, 1, MSG_NOSIGNAL) == 1 && recv(b, &byte, 1, 0) == 1 &&
           send(b, &byte, 1, MSG_NOSIGNAL) == 1 && recv(a, &byte, 1, 0) == 1;
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    must(dir != NULL, "/proc/self/fd");
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void limit(unsigned n)
{
    struct rlimit l;
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = n;
    must(setrlimit(RLIMIT_NOFILE, &l) == 0, "setrlimit");
}

static void *late_reader(void *arg)
{
    char byte;
    struct pollfd p = {.fd = pair[1], .events = POLLIN};
    struct timeval soon = {.tv_sec = 5};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair[1], &set);
    bool *ok = arg;
    *ok = poll(&p, 1, 5000) == 1 && select(pair[1] + 1, &set, NULL, NULL, &soon) == 1 &&
          recv(pair[1], &byte, 1, 0) == 1;
    return NULL;
}

/* Everything that a program may do without a free descriptor. */
static void without_any(void)
{
    const int spare = fds[0], other = fds[1];
    struct pollfd door = {.fd = listener, .events = POLLIN};
    say("socket", socket(AF_INET, SOCK_STREAM, 0));
    say("socket of six", socket(AF_INET6, SOCK_STREAM, 0));
    say("unix socket", socket(AF_UNIX, SOCK_STREAM, 0));
    say("accept with nobody there", accept(listener, NULL, NULL));
    say("connect", dial(spare));
    printf("the door: %d\n", poll(&door, 1, 2000));
    say("accept", accept(listener, NULL, NULL));
    say("accept again", accept(listener, NULL, NULL));
    printf("the door: %d\n", poll(&door, 1, 2000));
    say("dup", dup(pair[0]));
    say("F_DUPFD", fcntl(pair[0], F_DUPFD, 0));
    say("epoll_create1", epoll_create1(0));
    say("open", open("/dev/null", O_RDONLY));
    say("listen", listen(other, 4));
    printf("alive: %d\n", alive(pair[0], pair[1]));
    pthread_t thread;
    bool ok = false;
    must(pthread_create(&thread, NULL, late_reader, &ok) == 0, "thread");
    usleep(30000);
    must(send(pair[0], "x", 1, 0) == 1, "send");
    pthread_join(thread, NULL);
    printf("another thread waits: %d\n", ok);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0)
        _exit(alive(pair[0], pair[1]) ? 7 : 8);
    int status = 0;
    waitpid(child, &status, 0);
    printf("a child: %d\n", WEXITSTATUS(status));
}

static void fill(void)
{
    int fd;
    while (nfds < MANY && (fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0)
        fds[nfds++] = fd;
    say("the last", nfds < MANY ? -1 : 0);
}

static void recover(void)
{
    close(fds[--nfds]);
    const int fd = accept(listener, NULL, NULL);
    say("accept with one free", fd);
    printf("alive: %d\n", alive(fds[0], fd));
    close(fd);
    const int set = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN}, got;
    say("a set with one free", set);
    say("add", epoll_ctl(set, EPOLL_CTL_ADD, pair[1], &e));
    must(send(pair[0], "x", 1, 0) == 1, "send");
    printf("events: %d\n", epoll_wait(set, &got, 1, 2000));
    printf("read: %zd\n", recv(pair[1], &got, 1, 0));
    close(set);
    while (nfds > 0)
        close(fds[--nfds]);
    printf("alive: %d\n", alive(pair[0], pair[1]));
}

/* The limit is reached again and again: nothing may stay behind. */
static void leaks(void)
{
    int out = socket(AF_INET, SOCK_STREAM, 0), fd;
    const unsigned first = open_fds();
    must(dial(out) == 0, "connect");
    for (unsigned i = 0; i < ROUNDS; i++) {
        while ((fd = dup(0)) >= 0)
            fds[nfds++] = fd;
        must(accept(listener, NULL, NULL) < 0 && errno == EMFILE, "accept with none");
        must(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EMFILE, "socket with none");
        must(epoll_create1(0) < 0 && errno == EMFILE, "set with none");
        must(dup(out) < 0 && errno == EMFILE, "dup with none");
        while (nfds > 0)
            close(fds[--nfds]);
    }
    const int in = accept(listener, NULL, NULL);
    must(in >= 0 && alive(in, out), "accept with one");
    close(in);
    /* a guard of its port may stand */
    printf("descriptors more than at first: %d\n", (int)open_fds() - (int)first > 2);
    close(out);
}

/* shutdown() of a connect() that nobody answered leaves an error, which listen() does not take
 * away. */
static void pending_error(void)
{
    struct sockaddr_in full;
    const int queue = listen_somewhere(&full, 0);
    int fd[4], err = -1;
    for (unsigned i = 0; i < 4; i++) { /* one has room */
        fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fd[i], (struct sockaddr *)&full, sizeof(full));
    }
    say("shutdown of an attempt", shutdown(fd[3], SHUT_RD));
    say("listen after it", listen(fd[3], 1));
    for (unsigned i = 0; i < 2; i++) {
        socklen_t len = sizeof(err);
        getsockopt(fd[3], SOL_SOCKET, SO_ERROR, &err, &len);
        printf("its error: %s\n", strerrorname_np(err));
    }
    for (unsigned i = 0; i < 4; i++)
        close(fd[i]);
    close(queue);
}

/* The engine runs already, or it starts under the limit. */
static void scene(const char *name, bool early)
{
    printf("%s\n", name);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        const unsigned n = early ? 24 : 40;
        if (early)
            limit(n);
        listener = listen_somewhere(&at, 64);
        connect_pair(listener, &at, pair);
        limit(n);
        fill();
        printf("%u sockets\n", nfds);
        without_any();
        recover();
        leaks();
        exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    printf("ends with %d\n", status);
}

int main(void)
{
    scene("limited early", true);
    pending_error();
    listener = listen_somewhere(&at, 64);
    connect_pair(listener, &at, pair);
    scene("limited late", false);
    return 0;
}
