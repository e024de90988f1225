/*
 * Whether the main thread is still there. libc ends the process with its last thread, the kernel
 * with the last of all; both count the service thread, which must not be the one that is left.
 */
#pragma once

#include <stdbool.h>

/* In the main thread, if this is it: from now on its end can be seen. Cheap when repeated. */
void leader_know(void);
/* The same in fork's child, whose main thread is the one that forked. */
void leader_after_fork_child(void);
/* Before /proc, or the last free descriptor, is out of reach. */
void leader_keep_view(void);
/* The main thread calls pthread_exit(): libc's last thread calls exit(). */
void leader_leaves(void);
/* The main thread is gone, or about to be: pthread_exit(), SYS_exit, or a seccomp filter. */
bool leader_left(void);
/*
 * After leader_left(): ends the process as it would have ended without this thread, if no other is
 * left. Returns if there is one, or if that cannot be seen.
 */
void leader_end_if_alone(void);
