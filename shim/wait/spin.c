#include "shim/wait/spin.h"

/* Sleeps below this are short: a wake-up included, that a look would have saved. */
#define SHORT_SLEEP (150 * NSEC_PER_USEC)
/* Short sleeps in a row that a look which found nothing makes necessary, at most. */
#define WANTED_MAX 64
/* A yield that takes longer gave the processor to somebody who computes. */
#define YIELD_MAX (200 * NSEC_PER_USEC)
/* For so many times as long no more is tried: it costs a small part of the time at most. */
#define PAUSE 16
/* Kernel descriptors wait no longer than this for a thread that always finds frames. */
#define KERNEL_LOOK (500 * NSEC_PER_USEC)

struct lesson {
    bool on;
    uint8_t wanted; /* short sleeps in a row that switch it on, */
    uint8_t seen;   /* and how many there were */
};

static __thread struct {
    struct lesson of[SPIN_KINDS];
    nsec_t paused_until;
    nsec_t kernel_asked;
} spin __attribute__((tls_model("initial-exec")));

bool spin_due(enum spin_kind kind, nsec_t now, bool kernel)
{
    return spin.of[kind].on && now >= spin.paused_until &&
           (!kernel || now - spin.kernel_asked < KERNEL_LOOK);
}

void spin_ended(enum spin_kind kind, bool found)
{
    struct lesson *l = &spin.of[kind];
    l->on = found;
    l->seen = 0;
    l->wanted = found ? 1 : (uint8_t)min_u32(max_u32(l->wanted, 1) * 2, WANTED_MAX);
}

bool spin_yielded(nsec_t now, nsec_t took)
{
    if (likely(took < YIELD_MAX))
        return true;
    spin.paused_until = now + PAUSE * took;
    return false;
}

void spin_slept(enum spin_kind kind, nsec_t now, nsec_t waited, bool frames, bool kernel)
{
    struct lesson *l = &spin.of[kind];
    if (kernel)
        spin.kernel_asked = now;
    if (waited >= SHORT_SLEEP)
        l->seen = 0;
    else if (frames && ++l->seen >= l->wanted)
        l->on = true;
}
