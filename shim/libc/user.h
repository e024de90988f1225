/*
 * Pointers of the program. The kernel copies with a net under it and says EFAULT; the copies here
 * are plain loads and stores, and to ask the kernel about each buffer would cost a system call for
 * each call. So only addresses that can hardly be valid are asked about: the lowest 64 KiB (below
 * vm.mmap_min_addr in nearly every process) and all beyond what the kernel hands out unless a
 * program asks for more. Others that are not mapped, or not writable, end in SIGSEGV.
 */
#pragma once

#include "stack/base.h"

#define USER_LOW ((uintptr_t)1 << 16)
#if defined(__aarch64__)
#define USER_HIGH ((uintptr_t)1 << 48)
#else
#define USER_HIGH (((uintptr_t)1 << 47) - 4096)
#endif

/* Asks the kernel about an address that looks wrong. */
bool user_ask(const void *p);
/* False: len bytes cannot be at p (EFAULT). Where they begin is looked at, not where they end. */
static inline bool user_valid(const void *p, size_t len)
{
    return likely((uintptr_t)p - USER_LOW < USER_HIGH - USER_LOW) || len == 0 || user_ask(p);
}
