/*
 * A family of processes that transfer checksummed data while some of them are killed; and its peer.
 * Nothing in here knows of tcpshim.
 *
 *     family peer PORT                          echoes, one process, many connections (poll)
 *     family kill ADDRESS PORT KILLS SEED       stayers and victims against that peer
 *     family calm ADDRESS PORT                  exchanges until stdin ends, and nobody is killed
 *     family bomb ADDRESS PORT CHILDREN         that many children at once, each with a connection
 *     family crowd PAIRS full|idle              that many connections to itself, with full buffers
 *     family mass PAIRS PROCESSES               the same over several processes
 *     family pingpong ROUNDS                    a byte to and fro between two processes, on
 * 127.0.0.1
 *
 * Stayers echo blocks and check every byte. Victims do the same, by all kinds of calls, and are
 * killed at random moments. The last line says how it went:
 *
 *     kills N fds N resets N late N slowest N us bytes N
 *
 * fds: descriptors more than before. resets: connections of stayers that broke. late: how often a
 * stayer saw no progress for more than 100 ms; slowest: for how long at most. In front of it is a
 * line for each of these: `wait BEGIN LENGTH us queued N again N since N`, with the
 * time that it waited for a processor, what it sent again meanwhile, and for how many ms the stack
 * had not heard of the peer when it ended. `calm` says the same of waits of half
 * that length of a process on the kernel's sockets, which nobody's death concerns: then the machine
 * was late. The program sleeps after the last line until its stdin ends, so that what is left of it
 * can be looked at.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STAYERS           3
#define VICTIMS           4 /* at once */
#define BLOCK             16384
#define PEER_CONNS        4096
#define LIFE_MIN          300 /* us from the birth of a victim to its end */
#define LIFE_SPAN         6000
#define STUCK             20     /* seconds */
#define LATE              100000 /* us */
#define PER_PORT          8000   /* connections to one listener, as there are ports for */
#define PER_PORT_OF_SHARE 1000   /* each process takes client ports of its own */

#define WAITS_MAX 1024

/* No progress for a long time. */
struct wait {
    uint64_t begin, end;
    uint64_t queued; /* us for a processor */
    uint32_t again;  /* segments that were sent again meanwhile */
    uint32_t since;  /* ms since the stack last heard of the peer, when it ended */
};

struct tally {
    uint64_t bytes, resets, late, slowest; /* us */
    uint64_t most;                         /* a longer wait is late */
    struct wait *waits;                    /* the first WAITS_MAX; NULL: not kept */
    bool over;
};

static struct tally *tallies; /* shared with all processes, one for each stayer */
static struct sockaddr_in peer_addr;
static volatile bool *enough;

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "family: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static uint32_t rnd(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* What is left of the family can be looked at until stdin ends. */
static void rest(void)
{
    char byte;
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
}

/* ---- the peer ---- */

static void peer(uint16_t port)
{
    static struct pollfd fds[PEER_CONNS];
    static char block[65536];
    unsigned n = 1;
    const int on = 1;
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    fds[0] = (struct pollfd){.fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN};
    setsockopt(fds[0].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fds[0].fd, (const struct sockaddr *)&any, sizeof(any)) < 0 || listen(fds[0].fd, 1024))
        fail("bind");
    for (;;) {
        poll(fds, n, -1);
        if (fds[0].revents && n < PEER_CONNS) {
            const int fd = accept4(fds[0].fd, NULL, NULL, 0);
            if (fd >= 0)
                fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
        for (unsigned i = n; i-- > 1;) {
            if (!fds[i].revents)
                continue;
            const ssize_t got = recv(fds[i].fd, block, sizeof(block), MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN)
                continue;
            if (got > 0 && send(fds[i].fd, block, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT) == got)
                continue;
            close(fds[i].fd);
            fds[i] = fds[--n];
        }
    }
}

/* ---- one exchange ---- */

/*
 * Each word of a stream says whose it is and where it stands, so that what is found in the wrong
 * place tells where it belongs.
 */
struct stamp {
    uint8_t mark, conn; /* of that process */
    uint16_t owner;     /* its pid */
    uint32_t offset;    /* in the stream */
};
#define STAMP_MARK 0xc5

static void fill(uint8_t *p, size_t len, struct stamp from)
{
    from.mark = STAMP_MARK;
    for (size_t i = 0; i < len; i += sizeof(from), from.offset += sizeof(from))
        memcpy(p + i, &from, sizeof(from));
}

/* What stands at p, of which `left` bytes are there. */
static void explain(char *to, size_t room, const uint8_t *p, size_t left)
{
    struct stamp s;
    for (size_t at = 0; at + 2 * sizeof(s) <= left && at < sizeof(s); at++) {
        memcpy(&s, p + at, sizeof(s));
        if (s.mark != STAMP_MARK || p[at + sizeof(s)] != STAMP_MARK)
            continue;
        snprintf(to, room, "process %u connection %u offset %u", s.owner, s.conn,
                 s.offset - (unsigned)at);
        return;
    }
    size_t zeroes = 0;
    while (zeroes < left && p[zeroes] == 0)
        zeroes++;
    snprintf(to, room, zeroes > 0 ? "%zu zeroes" : "no stamp (%zu bytes)", zeroes ? zeroes : left);
}

static int dial(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        fail("socket");
    if (connect(fd, (const struct sockaddr *)&peer_addr, sizeof(peer_addr)) == 0)
        return fd;
    close(fd);
    return -1;
}

static const char *who = "the family"; /* this process is */

/* The echo differs from what was sent: what is known of it, and the end. */
static _Noreturn void wrong_bytes(int fd, const struct stamp *of, const uint8_t *sent,
                                  const uint8_t *got, size_t from, size_t len)
{
    char first[80], next[80] = "nothing";
    struct sockaddr_in at = {.sin_port = 0};
    socklen_t size = sizeof(at);
    size_t i = from, j;
    while (got[i] == sent[i])
        i++;
    for (j = i; j < from + len && got[j] != sent[j];)
        j++;
    explain(first, sizeof(first), got + i, from + len - i);
    if (j < from + len)
        explain(next, sizeof(next), got + j, from + len - j);
    getsockname(fd, (struct sockaddr *)&at, &size);
    fprintf(stderr,
            "family: not what was sent: %s, process %u connection %u port %u: of %zu bytes from "
            "offset %zu on the one at %zu is of %s; the same again from %zu on: %s\n",
            who, of->owner, of->conn, ntohs(at.sin_port), len, of->offset + from, of->offset + i,
            first, of->offset + j, next);
    _exit(1);
}

/* Microseconds that this process has waited for a processor. */
static uint64_t queued_us(void)
{
    static int fd = -1;
    static pid_t of;
    char text[80];
    if (of != getpid()) {
        of = getpid();
        if (fd >= 0)
            close(fd);
        fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
    }
    const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    const char *second = strchr(text, ' ');
    return second != NULL ? strtoull(second, NULL, 10) / 1000 : 0;
}

static struct tcp_info info_of(int fd)
{
    struct tcp_info info = {.tcpi_total_retrans = 0};
    socklen_t len = sizeof(info);
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    return info;
}

static void begin_wait(struct wait *w, int fd, const struct tally *t)
{
    w->begin = now_us();
    if (t->waits == NULL)
        return;
    w->queued = queued_us();
    w->again = info_of(fd).tcpi_total_retrans;
}

static void end_wait(struct wait *w, int fd, struct tally *t)
{
    const uint64_t at = now_us(), took = at - w->begin;
    if (took > t->slowest)
        t->slowest = took;
    if (took <= t->most)
        return;
    if (t->waits != NULL && t->late < WAITS_MAX) {
        const struct tcp_info info = info_of(fd);
        const uint32_t data = info.tcpi_last_data_recv, ack = info.tcpi_last_ack_recv;
        t->waits[t->late] = (struct wait){.begin = w->begin,
                                          .end = at,
                                          .queued = queued_us() - w->queued,
                                          .again = info.tcpi_total_retrans - w->again,
                                          .since = data < ack ? data : ack};
    }
    t->late++;
}

/*
 * Sends a block and takes it back: the next of the stream, where of->offset goes on. False: the
 * connection broke.
 */
static bool exchange(int fd, struct stamp *of, struct tally *t)
{
    static uint8_t out[BLOCK], back[BLOCK];
    size_t sent = 0, got = 0;
    struct wait w;
    begin_wait(&w, fd, t);
    fill(out, BLOCK, *of);
    while (got < BLOCK) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < BLOCK ? POLLOUT : 0))};
        const int r = poll(&p, 1, STUCK * 1000);
        if (r == 0)
            errno = ETIMEDOUT, fail("stuck");
        if (p.revents & POLLOUT && sent < BLOCK) {
            const ssize_t n = send(fd, out + sent, BLOCK - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                return false;
            sent += n > 0 ? (size_t)n : 0;
        }
        if (p.revents & (POLLIN | POLLERR | POLLHUP)) {
            const ssize_t n = recv(fd, back + got, BLOCK - got, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN))
                return false;
            if (n > 0 && memcmp(back + got, out + got, (size_t)n) != 0)
                wrong_bytes(fd, of, out, back, got, (size_t)n);
            got += n > 0 ? (size_t)n : 0;
        }
        end_wait(&w, fd, t);
        begin_wait(&w, fd, t);
    }
    of->offset += BLOCK;
    return true;
}

/* Of a new connection of this process. */
static struct stamp stamp_new(void)
{
    static uint8_t conns;
    return (struct stamp){.conn = conns++, .owner = (uint16_t)getpid()};
}

/* ---- who stays ---- */

static _Noreturn void stayer(struct tally *t)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    who = "a stayer";
    struct stamp of = stamp_new();
    int fd = dial();
    if (fd < 0)
        fail("the first connect");
    while (!*enough) {
        if (exchange(fd, &of, t)) {
            t->bytes += BLOCK;
            continue;
        }
        t->resets++;
        close(fd);
        while ((fd = dial()) < 0 && !*enough)
            t->resets++;
        of = stamp_new();
    }
    if (fd >= 0)
        close(fd);
    t->over = true;
    _exit(0);
}

/* ---- who is killed ---- */

/* Whoever dies by another signal than a kill crashed. */
static void reap(pid_t pid)
{
    int status = 0;
    if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        fprintf(stderr, "family: process %d of %s died of signal %d\n", pid, who, WTERMSIG(status));
}

static void churn(void)
{
    who = "a victim that connects again and again";
    for (;;) {
        const int fd = dial();
        struct tally t = {.most = UINT64_MAX};
        struct stamp of = stamp_new();
        if (fd >= 0 && exchange(fd, &of, &t))
            close(fd);
    }
}

static void by_epoll(void)
{
    uint8_t block[BLOCK];
    const int set = epoll_create1(0);
    int fds[4];
    for (unsigned i = 0; i < 4; i++) {
        fds[i] = dial();
        struct epoll_event e = {.events = EPOLLIN | (i % 2 ? EPOLLET : 0), .data.fd = fds[i]};
        epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &e);
        fill(block, BLOCK, stamp_new());
        (void)!send(fds[i], block, BLOCK, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    for (;;) {
        struct epoll_event events[4];
        const int n = epoll_wait(set, events, 4, -1);
        for (int i = 0; i < n; i++) {
            const ssize_t got = recv(events[i].data.fd, block, BLOCK, MSG_DONTWAIT);
            if (got > 0)
                (void)!send(events[i].data.fd, block, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
}

static void flood(void)
{
    static uint8_t block[1 << 18];
    const int fd = dial();
    for (;;) {
        (void)!send(fd, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)!recv(fd, block, sizeof(block), MSG_DONTWAIT);
    }
}

static void blocked(uint32_t seed)
{
    uint8_t byte = (uint8_t)seed;
    const int fd = dial(), other = dup(fd);
    for (;;) {
        (void)!write(other, &byte, 1);
        (void)!read(fd, &byte, 1);
        close(dup(other));
    }
}

static void breeds(void)
{
    const pid_t self = getpid();
    int fd;
    while ((fd = dial()) < 0) /* reset, when a death was inside the engine */
        ;
    struct stamp of = stamp_new();
    who = "the child of a victim";
    for (;; of.offset += BLOCK) {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != self) /* killed before that */
                _exit(0);
            struct tally t = {.most = UINT64_MAX};
            exchange(fd, &of, &t);
            _exit(0);
        }
        reap(pid);
    }
}

static _Noreturn void victim(uint32_t seed)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    switch (seed % 6) {
    case 0:
        by_epoll();
        break;
    case 1:
        flood();
        break;
    case 2:
        blocked(seed);
        break;
    case 3:
        breeds();
        break;
    default:
        churn();
    }
    _exit(0);
}

struct victim {
    pid_t pid;
    uint64_t end;
};

static void kill_some(unsigned kills, uint32_t *random)
{
    struct victim v[VICTIMS] = {{0}};
    unsigned born = 0, killed = 0;
    while (killed < kills) {
        uint64_t next = UINT64_MAX;
        for (unsigned i = 0; i < VICTIMS; i++) {
            if (v[i].pid > 0 && now_us() >= v[i].end) {
                kill(v[i].pid, SIGKILL);
                reap(v[i].pid);
                v[i].pid = 0;
                killed++;
            }
            if (v[i].pid == 0 && born < kills) {
                const uint32_t seed = rnd(random);
                v[i].pid = fork();
                if (v[i].pid < 0)
                    fail("fork");
                if (v[i].pid == 0)
                    victim(seed);
                v[i].end = now_us() + LIFE_MIN + rnd(random) % LIFE_SPAN;
                born++;
            }
            if (v[i].pid > 0 && v[i].end < next)
                next = v[i].end;
        }
        const uint64_t at = now_us();
        if (next != UINT64_MAX && next > at)
            usleep((useconds_t)(next - at));
    }
}

/* Descriptors of this process, the library's own among them. */
static int open_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL)
        n++;
    if (dir != NULL)
        closedir(dir);
    return n;
}

static void make_tallies(uint64_t most)
{
    const size_t bytes = STAYERS * (sizeof(struct tally) + WAITS_MAX * sizeof(struct wait)) + 1;
    tallies = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct wait *waits = (struct wait *)(tallies + STAYERS);
    enough = (volatile bool *)(waits + STAYERS * WAITS_MAX);
    for (unsigned i = 0; i < STAYERS; i++) {
        tallies[i].most = most;
        tallies[i].waits = waits + i * WAITS_MAX;
    }
}

static void print_waits(const char *what, const struct tally *t)
{
    for (uint64_t i = 0; i < t->late && i < WAITS_MAX; i++)
        printf("%s %lu %lu us queued %lu again %u since %u\n", what,
               (unsigned long)t->waits[i].begin,
               (unsigned long)(t->waits[i].end - t->waits[i].begin),
               (unsigned long)t->waits[i].queued, t->waits[i].again, t->waits[i].since);
}

/* The same without deaths, until stdin ends: what the machine does to it. */
static void calm(void)
{
    struct pollfd in = {.events = POLLIN};
    make_tallies(LATE / 2);
    struct stamp of = stamp_new();
    const int fd = dial();
    while (fd >= 0 && poll(&in, 1, 2) == 0)
        if (!exchange(fd, &of, tallies))
            fail("a calm connection");
    print_waits("calm", tallies);
}

/* That, in this session (for a scheduler that knows of them), on the kernel's sockets. Ends when
 * the descriptor is closed. */
static int start_calm(char **argv)
{
    int gate[2];
    if (pipe2(gate, O_CLOEXEC) < 0)
        fail("pipe");
    if (fork() == 0) {
        dup2(gate[0], 0);
        unsetenv("LD_PRELOAD");
        execl("/proc/self/exe", argv[0], "calm", argv[2], argv[3], (char *)NULL);
        _exit(1);
    }
    close(gate[0]);
    return gate[1];
}

static void family(unsigned kills, uint32_t seed, char **argv)
{
    const int machine = start_calm(argv);
    struct tally sum = {0};
    make_tallies(LATE);
    const int own = dial(); /* held by all */
    if (own < 0)
        fail("connect");
    const int before = open_fds();
    for (unsigned i = 0; i < STAYERS; i++)
        if (fork() == 0)
            stayer(&tallies[i]);
    kill_some(kills, &seed);
    *enough = true;
    fflush(stdout);
    close(machine);
    unsigned over = 0;
    for (int status; wait(&status) > 0;)
        over += status == 0;
    over -= over > 0; /* the calm one */
    for (unsigned i = 0; i < STAYERS; i++) {
        print_waits("wait", &tallies[i]);
        sum.bytes += tallies[i].bytes;
        sum.resets += tallies[i].resets;
        sum.late += tallies[i].late;
        sum.slowest = tallies[i].slowest > sum.slowest ? tallies[i].slowest : sum.slowest;
    }
    struct tally last = {.most = UINT64_MAX};
    struct stamp of = stamp_new();
    const bool whole = exchange(own, &of, &last);
    const int leaked = open_fds() - before;
    close(own);
    if (over != STAYERS)
        printf("a stayer failed\n");
    printf("kills %u fds %d resets %lu late %lu slowest %lu us bytes %lu%s\n", kills,
           leaked > 0 ? leaked : 0, (unsigned long)sum.resets + !whole, (unsigned long)sum.late,
           (unsigned long)sum.slowest, (unsigned long)sum.bytes, over == STAYERS ? "" : " BAD");
    rest();
}

/* ---- a fork bomb ---- */

static _Noreturn void fragment(int own, int gate)
{
    char byte;
    struct tally t = {.most = UINT64_MAX};
    struct stamp of = stamp_new();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = dial();
    const bool ok = fd >= 0 && exchange(fd, &of, &t);
    (void)!read(gate, &byte, 1); /* all live at once */
    close(own);
    _exit(ok && exchange(fd, &of, &t) ? 0 : 1);
}

static void bomb(unsigned children)
{
    int gate[2];
    unsigned born = 0, good = 0;
    struct tally t = {.most = UINT64_MAX};
    const int own = dial();
    if (own < 0 || pipe(gate) < 0)
        fail("connect");
    for (; born < children; born++) {
        const pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            close(gate[1]);
            fragment(own, gate[0]);
        }
    }
    close(gate[1]);
    for (int status; wait(&status) > 0;)
        good += status == 0;
    struct stamp of = stamp_new();
    const bool whole = exchange(own, &of, &t);
    close(own);
    printf("born %u good %u own %d\n", born, good, whole);
    rest();
}

/* ---- from process to process ---- */

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void pingpong(unsigned rounds)
{
    uint32_t *took = calloc(rounds, sizeof(*took));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    char byte = 1;
    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0)
        fail("listen");
    if (fork() == 0) {
        const int fd = accept(listener, NULL, NULL);
        while (read(fd, &byte, 1) == 1)
            (void)!write(fd, &byte, 1);
        _exit(0);
    }
    peer_addr = at;
    const int fd = dial();
    for (unsigned i = 0; i < rounds; i++) {
        usleep(i % 16 == 0 ? 12000 : 100); /* so that service threads drive now and then */
        const uint64_t begin = now_us();
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
            fail("round");
        took[i] = (uint32_t)(now_us() - begin);
    }
    qsort(took, rounds, sizeof(*took), by_size);
    printf("rounds %u p50 %u us p99 %u us most %u us\n", rounds, took[rounds / 2],
           took[rounds * 99 / 100], took[rounds - 1]);
    close(fd);
    wait(NULL);
}

/* ---- many connections, and more than there is memory for ---- */

static int listen_here(void)
{
    socklen_t len = sizeof(peer_addr);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    peer_addr =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&peer_addr, len) < 0 || listen(listener, 64) < 0 ||
        getsockname(listener, (struct sockaddr *)&peer_addr, &len) < 0)
        fail("listen");
    return listener;
}

static uint64_t processor_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static bool are_ends(int client, int server)
{
    struct sockaddr_in local = {0}, remote = {0};
    socklen_t len = sizeof(local);
    if (getsockname(client, (struct sockaddr *)&local, &len) < 0)
        return false;
    len = sizeof(remote);
    return getpeername(server, (struct sockaddr *)&remote, &len) == 0 &&
           local.sin_port == remote.sin_port;
}

/* Both ends of a new connection; false: errno says why not. */
static bool make_pair(int listener, int ends[2])
{
    errno = 0;
    struct pollfd door = {.fd = listener, .events = POLLIN};
    const struct timeval patience = {.tv_sec = 2};
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (ends[0] < 0)
        return false;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(ends[0], (struct sockaddr *)&peer_addr, sizeof(peer_addr)) == 0) {
        /* one that was given up for lack of memory may be accepted late */
        while (poll(&door, 1, 2000) == 1 && (ends[1] = accept(listener, NULL, NULL)) >= 0) {
            if (are_ends(ends[0], ends[1]))
                return true;
            close(ends[1]);
        }
        if (errno == 0)
            errno = ETIMEDOUT;
    }
    const int err = errno;
    close(ends[0]);
    errno = err;
    return false;
}

static uint64_t stuff(int fd)
{
    static uint8_t block[1 << 16];
    uint64_t sum = 0;
    ssize_t n;
    fill(block, sizeof(block), (struct stamp){.offset = 0});
    while ((n = send(fd, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
        sum += (uint64_t)n;
    if (errno != EAGAIN)
        fail("send to full buffers");
    return sum;
}

static uint64_t empty(int fd)
{
    static uint8_t block[1 << 16];
    uint64_t sum = 0;
    ssize_t n;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 5000) == 1 && (n = recv(fd, block, sizeof(block), 0)) > 0)
        sum += (uint64_t)n;
    return sum;
}

static void crowd(unsigned pairs, bool full)
{
    int(*ends)[2] = calloc(pairs, sizeof(*ends));
    uint64_t *put = calloc(pairs, sizeof(*put)), lost = 0;
    unsigned made = 0, again = 0, good = 0;
    int listener = listen_here();
    struct tally t = {.most = UINT64_MAX};
    while (made < pairs && make_pair(listener, ends[made])) {
        if (made % PER_PORT == PER_PORT - 1) {
            close(listener);
            listener = listen_here();
        }
        if (full)
            put[made] = stuff(ends[made][0]);
        made++;
    }
    const int err = made < pairs ? errno : 0;
    /* whoever blocks sleeps, and does not ask again and again */
    const struct timeval half = {.tv_usec = 500000};
    const uint64_t before = processor_us();
    if (full && made > 0) {
        setsockopt(ends[made / 2][0], SOL_SOCKET, SO_SNDTIMEO, &half, sizeof(half));
        if (send(ends[made / 2][0], &t, sizeof(t), MSG_NOSIGNAL) != -1 || errno != EAGAIN)
            put[made / 2] += sizeof(t); /* room was found */
    }
    const uint64_t used = processor_us() - before;
    for (unsigned i = 0; i < made; i++) {
        shutdown(ends[i][0], SHUT_WR);
        if (full)
            lost += empty(ends[i][1]) != put[i];
        close(ends[i][0]);
        close(ends[i][1]);
    }
    for (; again < 20 && make_pair(listener, ends[0]); again++) {
        char byte = 'x';
        good += write(ends[0][0], &byte, 1) == 1 && read(ends[0][1], &byte, 1) == 1;
        close(ends[0][0]);
        close(ends[0][1]);
    }
    close(listener);
    printf("made %u errno %d lost %lu blocked %lu us again %u\n", made, err, (unsigned long)lost,
           (unsigned long)used, good);
    free(ends);
    free(put);
    rest();
}

/* ---- more connections than a process has descriptors for ---- */

/* Bytes that the stack's memory takes in all processes together: the file behind it. */
static uint64_t arena_bytes(void)
{
    char path[64], target[64];
    struct stat st;
    for (int fd = 3; fd < 65536; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        const ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strncmp(target, "/memfd:tcpshim", 14) == 0 && stat(path, &st) == 0)
            return (uint64_t)st.st_blocks * 512;
    }
    return 0;
}

struct share {
    unsigned made, good;
    int error;
};

/* One process: makes its connections, says so, and when all have theirs tries each of them. */
static void hold_share(unsigned pairs, struct share *share, int ready, int gate)
{
    int(*ends)[2] = calloc(pairs, sizeof(*ends));
    int listener = listen_here();
    char byte = 'x';
    while (share->made < pairs && make_pair(listener, ends[share->made])) {
        share->made++;
        if (share->made % PER_PORT_OF_SHARE == 0) {
            close(listener);
            listener = listen_here();
        }
    }
    share->error = share->made < pairs ? errno : 0;
    close(ready);
    (void)!read(gate, &byte, 1); /* ends when the gate does */
    for (unsigned i = 0; i < share->made; i++) {
        struct pollfd p = {.fd = ends[i][1], .events = POLLIN};
        byte = (char)i;
        share->good += write(ends[i][0], &byte, 1) == 1 && poll(&p, 1, 20000) == 1 &&
                       read(ends[i][1], &byte, 1) == 1 && byte == (char)i;
    }
    for (unsigned i = 0; i < share->made; i++) {
        close(ends[i][0]);
        close(ends[i][1]);
    }
    close(listener);
}

static void mass(unsigned pairs, unsigned processes)
{
    struct share *shares = mmap(NULL, processes * sizeof(*shares), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct share sum = {0};
    int ready[2], gate[2];
    char byte;
    close(listen_here()); /* the stack is there before the family grows */
    if (shares == MAP_FAILED || pipe(ready) < 0 || pipe(gate) < 0)
        fail("pipe");
    const uint64_t empty_arena = arena_bytes();
    for (unsigned i = 0; i < processes; i++) {
        const unsigned part = pairs / processes + (i < pairs % processes);
        const pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid > 0)
            continue;
        close(ready[0]);
        close(gate[1]);
        hold_share(part, &shares[i], ready[1], gate[0]);
        _exit(0);
    }
    close(ready[1]);
    (void)!read(ready[0], &byte, 1); /* all have closed their ends */
    const uint64_t bytes = arena_bytes() - empty_arena;
    close(gate[0]);
    close(gate[1]);
    while (wait(NULL) > 0)
        ;
    for (unsigned i = 0; i < processes; i++) {
        sum.made += shares[i].made;
        sum.good += shares[i].good;
        sum.error = shares[i].error != 0 ? shares[i].error : sum.error;
    }
    printf("made %u good %u errno %d arena %lu each %lu\n", sum.made, sum.good, sum.error,
           (unsigned long)bytes, (unsigned long)(sum.made > 0 ? bytes / sum.made : 0));
    rest();
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[1], "peer") == 0) {
        peer((uint16_t)atoi(argv[2]));
    } else if (argc == 6 && strcmp(argv[1], "kill") == 0) {
        peer_addr.sin_family = AF_INET;
        peer_addr.sin_port = htons((uint16_t)atoi(argv[3]));
        inet_pton(AF_INET, argv[2], &peer_addr.sin_addr);
        family((unsigned)atoi(argv[4]), (uint32_t)atoi(argv[5]), argv);
    } else if (argc == 4 && strcmp(argv[1], "calm") == 0) {
        peer_addr.sin_family = AF_INET;
        peer_addr.sin_port = htons((uint16_t)atoi(argv[3]));
        inet_pton(AF_INET, argv[2], &peer_addr.sin_addr);
        calm();
    } else if (argc == 5 && strcmp(argv[1], "bomb") == 0) {
        peer_addr.sin_family = AF_INET;
        peer_addr.sin_port = htons((uint16_t)atoi(argv[3]));
        inet_pton(AF_INET, argv[2], &peer_addr.sin_addr);
        bomb((unsigned)atoi(argv[4]));
    } else if (argc == 4 && strcmp(argv[1], "crowd") == 0) {
        crowd((unsigned)atoi(argv[2]), strcmp(argv[3], "full") == 0);
    } else if (argc == 4 && strcmp(argv[1], "mass") == 0) {
        mass((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
    } else if (argc == 3 && strcmp(argv[1], "pingpong") == 0) {
        pingpong((unsigned)atoi(argv[2]));
    } else {
        return 2;
    }
    return 0;
}
