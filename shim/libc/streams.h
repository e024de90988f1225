/* stdio streams over user sockets (shim/libc/streams.c). */
#pragma once

#include <unistd.h>

#include "stack/base.h"

/* At exit: libc flushes its streams only after the engine's last chance to send. */
void streams_flush(void);
/* At the beginning of an image: stdin, stdout and stderr are made anew where a user socket is
 * behind them. */
void streams_replace_standard(void);
/* The same for one of them, whose descriptor was replaced. Not entered; errno unchanged. */
void streams_follow(int fd);
/* A descriptor of a user socket appeared; fd may be negative, an error. */
static inline int streams_arrived(int fd)
{
    if (unlikely(fd >= STDIN_FILENO && fd <= STDERR_FILENO))
        streams_follow(fd);
    return fd;
}
