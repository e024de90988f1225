/* An address of the stack's own is taken: by one family of processes, and by no other station. */
#pragma once

#include "shim/core/config.h"
#include "shim/link/link.h"

/*
 * Claims config.addr on this host, by a name in the network namespace that ends with the processes
 * that hold it. 0, or negative errno with one sentence in text.
 */
int own_address_lock(const struct config *cfg, char *text, size_t len);
/*
 * Asks the network whether another station has it (RFC 5227, in a hurry), then announces it. l, st:
 * the link and the stack that will run with it; nobody else uses them yet. As above.
 */
int own_address_probe(const struct config *cfg, struct stack *st, struct link *l, char *text,
                      size_t len);
void own_address_unlock(void);
/* A new image of the process has the lock by this descriptor (or -1). */
void own_address_adopt(int fd);
/* The descriptor that holds the address; -1: none. */
int own_address_fd(void);
