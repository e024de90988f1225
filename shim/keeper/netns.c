#define _GNU_SOURCE
#include "shim/keeper/netns.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINK_MAX_BYTES 64

/* "net:[4026531840]"; false: it cannot be read, or is not there. */
static bool netns_of(const char *pid, char link[LINK_MAX_BYTES])
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.20s/ns/net", pid);
    const ssize_t n = readlink(path, link, LINK_MAX_BYTES - 1);
    link[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool is_keeper(const char *pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true; /* it ended meanwhile */
    (void)!fgets(name, sizeof(name), file);
    fclose(file);
    return strcmp(name, "tcpshim-keeper\n") == 0;
}

/* ip-netns(8) names a namespace by a mount of it; the root field of mountinfo says which. */
static bool has_name(const char *own)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL)
        return true;
    while (!found && fgets(line, sizeof(line), file) != NULL)
        found = strstr(line, own) != NULL;
    fclose(file);
    return found;
}

bool netns_deserted(void)
{
    char own[LINK_MAX_BYTES], other[LINK_MAX_BYTES];
    if (!netns_of("self", own) || !netns_of("1", other) || strcmp(own, other) == 0 || has_name(own))
        return false;
    DIR *dir = opendir("/proc");
    if (dir == NULL)
        return false;
    bool deserted = true;
    for (struct dirent *e; deserted && (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || !netns_of(e->d_name, other))
            continue;
        deserted = strcmp(own, other) != 0 || is_keeper(e->d_name);
    }
    closedir(dir);
    return deserted;
}
