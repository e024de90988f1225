/*
 * From image to image: what a process hands to the program that it becomes by exec. The family's
 * descriptors (arena, packet socket, the keeper's) stay open, TCPSHIM_HANDOVER says which they are,
 * and the process keeps its place in the arena.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Name of the variable; the constructor takes it out of the environment. */
#define HANDOVER_VARIABLE "TCPSHIM_HANDOVER"
/* Room for "NAME=value". */
#define HANDOVER_TEXT 256

/* Whether an image that this process, or a child of it, becomes now would have something of the
 * family's. */
bool handover_due(void);
/* The same, or this process is of the family by itself and not by fork. */
bool handover_due_self(void);
/* Text of the variable. False: this family cannot be handed over (its arena has no file). */
bool handover_text(char text[HANDOVER_TEXT]);
/*
 * Not entered; before execve(2). From here on other threads stop at the engine's door; listeners
 * that are close-on-exec are let go of, as are the epoll sets; nobody waits for this process's
 * sleepers. Other sockets that are close-on-exec go when the new image adopts the rest.
 */
void handover_begin(void);
/* execve(2) failed: takes everything back that others kept alive. errno unchanged. */
void handover_cancel(void);
/* At the start of the engine: what handover_join() needs to know goes into the arena. */
void handover_publish(void);
/*
 * Joins the family of process pid, whose descriptors are fetched with pidfd_getfd(2): for who may
 * trace it (same user, or CAP_SYS_PTRACE). family: the inode that its arena must have, 0: any.
 * False: it has none, it is full, or it is not allowed.
 */
bool handover_join(int pid, uint64_t family);
/* The inode of this process's arena; 0: it has none, or cannot be joined. */
uint64_t handover_family(void);
/* In the new image, before anything else uses the engine. False: there is nothing to be had. */
bool handover_adopt(const char *value);
