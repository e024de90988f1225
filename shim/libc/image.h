/* What a program file will be once it runs: whether the loader will put the shim into it. */
#pragma once

enum image {
    IMAGE_NONE,    /* execve(2) will refuse it */
    IMAGE_DYNAMIC, /* the loader reads LD_PRELOAD */
    IMAGE_FOREIGN, /* static, of another architecture, or it gains privileges (setuid) */
};

/* Of the file that execveat(2) would run, interpreters of scripts followed. errno may change. */
enum image image_of(int dir, const char *path, int flags);
