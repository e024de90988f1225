/*
 * What a program does after a write. Servers write a header, then a body, and close: three frames,
 * each with the cost of a system call and of the peer's wake-up, where one would do. A write that
 * has been followed at once by another one to the same socket, or by its close(), many times in a
 * row waits for that (TCP_SEND_UNFINISHED): in no case beyond the end of the thread's next call of
 * the library, its next sleep, or a look of the service thread (20 to 40 ms), should it compute
 * instead.
 *
 * Told apart are the first, second, ... write since something was read. Per thread, no locks; what
 * one of these functions learns it learns of the thread's latest write. All entered.
 */
#pragma once

#include "shim/libc/call.h"

/* The program writes. Whether that had better wait. */
bool follow_write(const struct call *c);
/* It closes, or writes no more. */
void follow_close(const struct call *c);
/* It reads. */
void follow_read(const struct call *c);
