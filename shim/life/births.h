/*
 * How the keeper learns of each process of the family, and how the family is rung. Both are made
 * before the first fork and inherited by all: a socketpair, into which each process puts a pidfd of
 * itself, and an eventfd, the bell: whoever drives the engine in a family of several processes
 * sleeps on it too, so that it can be woken from any of them.
 *
 * A child may be killed before it comes to that, and its parent with it. So the parent first puts
 * in one end of a pipe, the lifeline, whose other end the child lets go of when its pidfd is in:
 * the keeper sees it break without a pidfd and knows. A child that finds the queue full keeps its
 * lifeline for good.
 */
#pragma once

#include <stdint.h>

#include "stack/base.h"

/* One message, with the pidfd. */
struct birth_notice {
    uint32_t number;     /* index + 1 in shared.processes */
    uint32_t generation; /* process.generation */
};

/* Once, at the start of the engine. */
void births_prepare(void);
/* Before a fork; the descriptor is closed by the child after births_announce(), and by the parent
 * after the fork. -1: there is none. */
int births_lifeline(uint32_t number, uint32_t generation);
/* Process `number` has this pid. Not entered. False: the queue is full, or there is none. */
bool births_announce(uint32_t number, uint32_t generation, int32_t pid);
/*
 * Asks the keeper for the program at an interface's ingress (shim/link/ingress.h): a message
 * without a descriptor, whose generation is the interface's number. False: as above.
 */
bool births_ask_ingress(uint32_t ifindex);
/* What a new image of the process needs of it (shim/life/handover.c); -1: there is none. */
enum { BIRTHS_HAVE = 3 };
void births_fds(int fds[BIRTHS_HAVE]);
void births_adopt(const int fds[BIRTHS_HAVE]);
/* The reading end for the keeper; -1: there is none. */
int births_in(void);
/* The bell; -1: there is none. */
int births_bell(void);
/* Rings the bell. */
void births_ring(void);
