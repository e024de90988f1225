/*
 * Round trips by blocking calls.
 *
 *     rtt PORT                        server: sends back what it reads
 *     rtt ADDR PORT BYTES SECONDS     client: prints "median p99 count", times in microseconds
 */
#include "round.h"

int main(int argc, char **argv)
{
    if (argc == 2)
        echo_forever(listen_on(argv[1]));
    if (argc != 5)
        return 2;
    const struct sockaddr_in sa = address(argv[1], argv[2]);
    const size_t bytes = (size_t)atoi(argv[3]);
    must(bytes > 0 && bytes <= ROUND_MAX, "BYTES");
    round_trips(connect_to(&sa), bytes, atof(argv[4]));
    return 0;
}
