/* stdio streams over user sockets (shim/libc/streams.c). */
#pragma once

/* At exit: libc flushes its streams only after the engine's last chance to send. */
void streams_flush(void);
/* At the beginning of an image: stdin, stdout and stderr are made anew where a user socket is
 * behind them. */
void streams_replace_standard(void);
