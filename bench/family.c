/*
 * Runs two programs as relatives: they share a user-space stack if there is one.
 *
 *     family SERVER... -- CLIENT...
 *
 * Both inherit a listening socket from here. The client starts when the server listens on PORT (of
 * the environment); its status is this one's, and its end is the server's.
 */
#include "net.h"

#include <signal.h>
#include <sys/wait.h>

static pid_t start(char **argv, int quiet)
{
    const pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (quiet && freopen("/dev/null", "w", stdout) == NULL)
        _exit(127);
    execvp(argv[0], argv);
    _exit(127);
}

/* Whether a socket of the kernel's listens on the port: also one that holds it for another stack.
 */
static int listens(unsigned port)
{
    char line[256];
    unsigned local, state = 0;
    FILE *table = fopen("/proc/self/net/tcp", "r");
    must(table != NULL, "/proc/self/net/tcp");
    while (fgets(line, sizeof(line), table) != NULL)
        if (sscanf(line, " %*u: %*x:%x %*x:%*x %x", &local, &state) == 2 && local == port &&
            state == TCP_LISTEN)
            break;
    const int found = !feof(table);
    fclose(table);
    return found;
}

int main(int argc, char **argv)
{
    int at = 1, status;
    while (at < argc && strcmp(argv[at], "--") != 0)
        at++;
    const char *port = getenv("PORT");
    if (at + 1 >= argc || at == 1 || port == NULL)
        return 2;
    argv[at] = NULL;
    (void)listen_on("0"); /* what makes it a family: an inherited socket */
    const pid_t server = start(argv + 1, 1);
    for (unsigned tries = 0; tries < 1000 && !listens((unsigned)atoi(port)); tries++)
        usleep(5000);
    must(waitpid(start(argv + at + 1, 0), &status, 0) > 0, "waitpid");
    kill(server, SIGKILL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
