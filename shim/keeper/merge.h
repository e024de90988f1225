/*
 * One keeper for the TIME_WAIT of many dead families. A program that closes first leaves a minute
 * of TIME_WAIT behind, and a shell loop of such programs would leave a keeper each. So a keeper
 * that has nothing else to do any more hands its entries, their guards and stand-ins to the one
 * that answers to a unix name in its network namespace, of the same user, and ends; where there is
 * none it takes the name itself. Plain data and descriptors pass, no arena.
 */
#pragma once

#include <poll.h>

#include "stack/stack.h"

/* Entries in pollfd that merge_poll() fills. */
#define MERGE_FDS 17

/* Nothing but TIME_WAIT is left. True: another keeper has it now, and this one may go. */
bool merge_offer(struct stack_cx *cx);
/* What to sleep for: MERGE_FDS entries. */
void merge_poll(struct pollfd fds[MERGE_FDS]);
/* After the sleep. True: something was taken over. */
bool merge_serve(struct stack_cx *cx, const struct pollfd fds[MERGE_FDS]);
