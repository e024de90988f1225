/* stdio streams over user sockets (shim/libc/streams.c). */
#pragma once

/* At exit: libc flushes its streams only after the engine's last chance to send. */
void streams_flush(void);
