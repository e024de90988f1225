/* Capabilities of this process, and how they pass on to what it starts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Sets of capabilities as bit masks. 0 when they cannot be read. */
uint64_t privilege_effective(void);
/* Of another process; its effective set. */
bool privilege_of(pid_t pid, uint64_t *effective);
static inline uint64_t privilege_bit(unsigned capability)
{
    return (uint64_t)1 << capability;
}
/*
 * What the next execve() of an ordinary user would lose is made ambient (capabilities(7)): those of
 * `wanted` that this process has permitted. Such a program starts without AT_SECURE, so that the
 * loader still honours LD_PRELOAD. Returns those that will be there, negative errno as 0.
 */
uint64_t privilege_hand_down(uint64_t wanted);
