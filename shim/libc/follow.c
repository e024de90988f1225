#include "shim/libc/follow.h"

#include "shim/core/family.h"
#include "shim/core/shared.h"

/* So many times in a row. */
#define SURE 16
/* At once. */
#define SOON (50 * NSEC_PER_USEC)
/* The last of them stands for all that follow, which never wait. */
#define WRITES 4

static __thread struct {
    const struct usock *us; /* of the latest write; NULL: none, or it read since */
    nsec_t at;
    uint8_t which; /* write since something was read, from 0 */
    bool waits;
    uint8_t followed[WRITES]; /* how many in a row were, up to SURE */
} last __attribute__((tls_model("initial-exec")));

static void learn(bool followed)
{
    uint8_t *n = &last.followed[last.which];
    *n = followed ? (uint8_t)min_u32(*n + 1u, SURE) : 0;
}

/* Whether what comes now comes at once, and nothing else came in between that ended its wait. */
static bool follows(const struct call *c)
{
    return c->cx.now - last.at < SOON && (!last.waits || tcp_unfinished(c->cx.st, c->us->conn));
}

/* Whether somebody will look if the thread does not come back: no other thread sleeps on. */
static bool attended(void)
{
    const struct process *self = process_self();
    return engine.sh->driver == 0 && list_empty(&engine.sh->sleepers) && !engine.sandboxed &&
           self != NULL && self->service == SERVICE_TICK;
}

bool follow_write(const struct call *c)
{
    const bool again = last.us == c->us;
    if (last.us != NULL)
        learn(again && follows(c));
    last.which = again ? (uint8_t)min_u32(last.which + 1u, WRITES - 1) : 0;
    last.us = c->us;
    last.at = c->cx.now;
    last.waits =
        last.followed[last.which] == SURE && last.which < WRITES - 1 && !c->traced && attended();
    return last.waits;
}

void follow_close(const struct call *c)
{
    if (last.us != c->us)
        return;
    learn(follows(c));
    last.us = NULL;
}

void follow_read(const struct call *c)
{
    if (likely(last.us != c->us))
        return;
    learn(false);
    last.us = NULL;
}
