#include "shim/command/privilege.h"

#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct sets {
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[2];
};

static bool read_sets(struct sets *s)
{
    *s = (struct sets){.header = {.version = _LINUX_CAPABILITY_VERSION_3}};
    return syscall(SYS_capget, &s->header, s->data) == 0;
}

static uint64_t join(uint32_t low, uint32_t high)
{
    return low | (uint64_t)high << 32;
}

uint64_t privilege_effective(void)
{
    struct sets s;
    return read_sets(&s) ? join(s.data[0].effective, s.data[1].effective) : 0;
}

bool privilege_of(pid_t pid, uint64_t *effective)
{
    char path[40], line[160];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
        unsigned long long mask;
        found = sscanf(line, "CapEff: %llx", &mask) == 1;
        if (found)
            *effective = mask;
    }
    if (f != NULL)
        fclose(f);
    return found;
}

uint64_t privilege_hand_down(uint64_t wanted)
{
    struct sets s;
    uint64_t done = 0;
    if (!read_sets(&s))
        return 0;
    const uint64_t have = wanted & join(s.data[0].permitted, s.data[1].permitted);
    if (geteuid() == 0)
        return have; /* root's exec gives root everything */
    for (unsigned i = 0; i < 2; i++)
        s.data[i].inheritable |= (uint32_t)(have >> (32 * i));
    if (syscall(SYS_capset, &s.header, s.data) < 0)
        return 0;
    for (unsigned c = 0; c < 64; c++)
        if ((have >> c & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0) == 0)
            done |= (uint64_t)1 << c;
    return done;
}
