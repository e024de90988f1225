#include "shim/libc/scratch.h"

#include "shim/core/raw.h"

/* A few stay mapped for the life of the process; more callers at once map their own. */
#define SCRATCH_KEPT 4

static struct {
    bool busy;
    void *buffer;
} kept[SCRATCH_KEPT];

static void *map_one(void)
{
    void *p =
        raw_mmap(NULL, SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return raw_is_error(p) ? NULL : p;
}

void *scratch_take(void)
{
    for (unsigned i = 0; i < SCRATCH_KEPT; i++) {
        if (__atomic_exchange_n(&kept[i].busy, true, __ATOMIC_ACQUIRE))
            continue;
        if (kept[i].buffer == NULL)
            kept[i].buffer = map_one();
        if (kept[i].buffer == NULL)
            __atomic_store_n(&kept[i].busy, false, __ATOMIC_RELEASE);
        return kept[i].buffer;
    }
    return map_one();
}

void scratch_give(void *buffer)
{
    for (unsigned i = 0; i < SCRATCH_KEPT; i++) {
        if (kept[i].buffer == buffer) {
            __atomic_store_n(&kept[i].busy, false, __ATOMIC_RELEASE);
            return;
        }
    }
    raw_munmap(buffer, SCRATCH_SIZE);
}
