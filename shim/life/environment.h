/* The environment of images that this process becomes or starts (TCPSHIM_EXEC). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* From the constructor: keeps what brought the shim here, before the program changes it. */
void environment_keep(char **environ_);
/* Takes NAME out of the environment; its value (that stays valid), or NULL. */
char *environment_take(char **environ_, const char *name);

/* Path of the file `name` in the library's directory. False: not known, or it cannot be run. */
bool environment_beside(const char *name, char *path, size_t size);

struct environment {
    char *const *envp; /* for execve(2) */
    void *map;         /* what to unmap if that fails */
    size_t size;
};
/*
 * envp for an image that is to have the shim: extra ("NAME=value") is added, and where envp lost
 * LD_PRELOAD, that and TCPSHIM_* too. False: no memory, or the library is not to be seen from here
 * (chroot), or TCPSHIM_EXEC or the program's own variables say that the shim is not to come along.
 */
bool environment_make(struct environment *e, char *const envp[], const char *extra);
void environment_drop(struct environment *e);
