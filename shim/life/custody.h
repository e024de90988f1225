/*
 * Guards in safe keeping. The kernel closes a process's sockets when it dies, and with its guards
 * (shim/link/guard.h) the kernel would answer for connections that the keeper still has to finish.
 * So every guard is also put into a socketpair, as a message that carries the descriptor
 * (SCM_RIGHTS): what lies in the queue stays open. The processes of a family hold both ends, the
 * keeper the reading one, which it looks into only when all writing ends are gone: then the family
 * is.
 */
#pragma once

#include "stack/base.h"

/* Descriptors of one message (the kernel takes up to 253). */
#define CUSTODY_BATCH 64

struct custody_item {
    uint64_t cookie; /* SO_COOKIE of the guard */
    int32_t pid;     /* who put it there */
    uint16_t port;   /* host order */
    bool named;      /* the program chose the port: another program may want it again */
};

/* Sends n guards as one message. 0 or negative errno (EAGAIN: the queue is full). */
int custody_send(int out, const struct custody_item *items, const int *fds, unsigned n);
/*
 * Takes one message. The number of guards (close-on-exec), -EAGAIN: none is left, other negative
 * errno. *lost (if not NULL): items from that number on for which there was no room for a
 * descriptor; they are closed.
 */
int custody_receive(int in, struct custody_item items[CUSTODY_BATCH], int fds[CUSTODY_BATCH],
                    unsigned *lost);
