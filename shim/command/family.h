/*
 * Families of processes that run under tcpshim now, found in /proc, and reading their arenas. All
 * that is read is a copy: the family goes on meanwhile and never notices, no lock is taken, and
 * nothing that stands in an arena is trusted (root looks into other users' programs).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stack/arena.h"

#define FAMILY_MEMBERS_MAX 256

struct family_member {
    pid_t pid;       /* as seen from here */
    pid_t inner_pid; /* in its own pid namespace: what it wrote into the arena */
    bool keeper;
    bool mapped; /* has the arena in its memory */
    char name[17];
};

struct family {
    struct arena_reader reader; /* first; base 0: not known */
    uint64_t inode;             /* of the arena's file: its identity */
    int file;                   /* the arena, opened; -1: read through `via` */
    pid_t via;
    unsigned nmembers;
    struct family_member members[FAMILY_MEMBERS_MAX];
};

/* All that this user may look into; *hidden: processes that may be some, and cannot be looked into.
 * The caller frees them by families_free(). */
unsigned families_find(struct family **out, unsigned *hidden);
void families_free(struct family *families, unsigned n);
/* [address, address+len) of the family's arena; false: outside, or gone. */
bool family_read(const struct family *f, uintptr_t address, void *to, size_t len);
/* Of a member's own memory. */
bool member_read(const struct family_member *m, uintptr_t address, void *to, size_t len);
/* Where it lives: "LAB/HOST" of a laboratory, else empty. */
void member_place(const struct family_member *m, char *out, size_t size);
/* The libtcpshim.so that it has loaded; empty: not known. */
void member_library(const struct family_member *m, char *out, size_t size);
