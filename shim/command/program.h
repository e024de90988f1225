/*
 * What a program on disk is, and whether a preloaded library reaches it. Scripts are followed to
 * their interpreter.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct program {
    int error;            /* positive errno: not found (ENOENT), cannot be executed */
    char path[PATH_MAX];  /* as found */
    char image[PATH_MAX]; /* the ELF file that runs in the end: of a script, its interpreter's */
    unsigned scripts;     /* interpreters followed */
    bool elf;
    bool foreign;  /* another word size or machine than this command, so than the library */
    bool dynamic;  /* has an interpreter (the loader) */
    bool musl;     /* whose name says musl */
    bool libc;     /* needs libc.so.6 */
    bool go;       /* made by the Go tool chain: calls the kernel without libc */
    bool io_uring; /* uses liburing, or functions of that name */
    bool setuid,
        setgid;        /* and the owner is another than this user: the loader ignores LD_PRELOAD */
    bool file_caps;    /* file capabilities, which make the loader ignore LD_PRELOAD */
    bool nosuid_mount; /* the mount makes the three without effect */
};

/* name is looked for in PATH as execvp(3) does. */
void program_inspect(const char *name, struct program *p);

/* Something that stands in a program's way, or is worth knowing. */
struct obstacle {
    bool fatal; /* tcpshim would not reach it at all */
    const char *what;
    const char *cure;
};
#define OBSTACLES_MAX 8
/* Fills out with what is known about p; returns the number. The texts are constant. */
unsigned program_obstacles(const struct program *p, struct obstacle *out);
