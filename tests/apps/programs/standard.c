/*
 * Serves one connection through stdio, as its standard input and output in the same image: what was printed
 * before and not flushed goes there, too. Arguments: port, how the descriptors get there.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(int conn, int at, const char *how)
{
    int got = -1;
    if (strcmp(how, "dup2") == 0) {
        got = dup2(conn, at);
    } else {
        close(at); /* the lowest free number comes next */
        got = strcmp(how, "dup") == 0 ? dup(conn) : fcntl(conn, F_DUPFD, at);
    }
    if (got != at)
        exit(2);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 1;
    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in here = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)atoi(argv[1])),
    };
    char line[70000];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (const struct sockaddr *)&here, sizeof(here)) != 0 || listen(listener, 1) != 0)
        return 3;
    const int conn = accept(listener, NULL, NULL);
    printf("printed before\n");
    put(conn, 0, argv[2]);
    put(conn, 1, argv[2]);
    close(conn);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        for (char *p = line; *p != '\0'; p++)
            *p = (char)toupper((unsigned char)*p);
        fputs(line, stdout);
    }
    return ferror(stdin) ? 4 : 0;
}
