/*
 * Many idle connections, and round trips beside them. Each of the processes holds `COUNT` of them;
 * they are forks of one process, whose own connection, on PORT, is the one that works.
 *
 *     idle serve PORT PROCESSES COUNT            they listen on PORT + 1, PORT + 2, ...
 *     idle hold ADDR PORT PROCESSES COUNT SECONDS
 *
 * `hold` says `up` when only its own connection stands, `open` when all do, and each time goes on
 * after a line from its standard input. At the end it prints "median p99 count" of round trips of
 * 64 bytes, times in microseconds.
 */
#include "round.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define BYTES    64
#define HELD_MAX 8000 /* descriptors of a process */
static unsigned number(const char *word)
{
    return (unsigned)strtoul(word, NULL, 10);
}

static void raise_limit(void)
{
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    /* a preloaded library may want the rest for itself */
    limit.rlim_cur = limit.rlim_max < 2 * HELD_MAX ? limit.rlim_max / 2 : HELD_MAX;
    must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

/* "PORT" + n as text. */
static const char *port_of(const char *port, unsigned n)
{
    static char text[8];
    snprintf(text, sizeof(text), "%u", number(port) + n);
    return text;
}

static _Noreturn void rest(void)
{
    for (;;)
        pause();
}

static _Noreturn void accept_all(const char *port, unsigned count)
{
    const int listener = listen_on(port);
    for (unsigned i = 0; i < count; i++)
        must(accept(listener, NULL, NULL) >= 0, "accept");
    rest();
}

static _Noreturn void serve(const char *port, unsigned processes, unsigned count)
{
    const int listener = listen_on(port);
    for (unsigned i = 0; i < processes; i++)
        if (fork() == 0)
            accept_all(port_of(port, i + 1), count);
    echo_forever(listener);
}

/* To each of the servers in turn: a local port serves one connection to each of them. */
static _Noreturn void connect_all(char **argv, unsigned first, int go, int done)
{
    char c;
    const unsigned servers = number(argv[4]), count = number(argv[5]);
    must(read(go, &c, 1) == 1, "go");
    for (unsigned i = 0; i < count; i++) {
        const struct sockaddr_in sa = address(argv[2], port_of(argv[3], 1 + (first + i) % servers));
        (void)connect_to(&sa);
    }
    must(write(done, "", 1) == 1, "done");
    rest();
}

static void say(const char *word)
{
    char line[8];
    printf("%s\n", word);
    fflush(stdout);
    must(fgets(line, sizeof(line), stdin) != NULL, "standard input");
}

static void hold(char **argv)
{
    const struct sockaddr_in sa = address(argv[2], argv[3]);
    const unsigned processes = number(argv[4]);
    const int fd = connect_to(&sa);
    int go[2], done[2];
    char c;
    must(pipe(go) == 0 && pipe(done) == 0, "pipe");
    for (unsigned i = 0; i < processes; i++)
        if (fork() == 0)
            connect_all(argv, i, go[0], done[1]);
    say("up");
    for (unsigned i = 0; i < processes; i++)
        must(write(go[1], "", 1) == 1, "go");
    close(done[1]);
    for (unsigned i = 0; i < processes; i++)
        must(read(done[0], &c, 1) == 1, "a process that could not hold its connections");
    say("open");
    round_trips(fd, BYTES, atof(argv[6]));
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM); /* the others of the group, which `setsid` or the lab made ours */
}

int main(int argc, char **argv)
{
    raise_limit();
    if (argc == 5 && strcmp(argv[1], "serve") == 0)
        serve(argv[2], number(argv[3]), number(argv[4]));
    if (argc != 7 || strcmp(argv[1], "hold") != 0)
        return 2;
    hold(argv);
    return 0;
}
