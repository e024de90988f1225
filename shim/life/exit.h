/* The end of a process, or of its image (exec). */
#pragma once

#include <stdbool.h>

/*
 * Drops this process's descriptors of user sockets and, as the last process of the family, leaves
 * the engine's open work to the keeper; without one it drives the engine until what send() accepted
 * is acknowledged (at most a minute). keep_shared: as in
 * usock_drop_all(). Does nothing when the engine never started.
 */
void exit_release(bool keep_shared);
