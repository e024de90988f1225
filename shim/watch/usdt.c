#include "shim/watch/usdt.h"

#include "stack/tcp/flow.h"

#if __has_include(<sys/sdt.h>)

unsigned short usdt_semaphore __attribute__((section(".probes"), used));

/* Each probe has a semaphore by its own name: other names of the one. */
#define X(id, class, probe, name, args, doc)                                                       \
    extern unsigned short tcpshim_##probe##_semaphore                                              \
        __attribute__((alias("usdt_semaphore"), visibility("hidden")));
TRACE_EVENTS(X)
#undef X

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

void usdt_fire(const struct trace_record *r)
{
    uint64_t a[6] = {0};
    const uint64_t number = r->flow ? r->flow->number : 0;
    const uint64_t lport = r->flow ? r->flow->tuple.lport : 0;
    const uint64_t rport = r->flow ? r->flow->tuple.rport : 0;
    for (unsigned i = 0; i < r->argc && i < ARRAY_LEN(a); i++)
        a[i] = r->argv[i];
    switch (r->id) {
#define X(id, class, probe, name, args, doc)                                                       \
    case TRACE_EV_##id:                                                                            \
        STAP_PROBE9(tcpshim, probe, number, lport, rport, a[0], a[1], a[2], a[3], a[4], a[5]);     \
        break;
        TRACE_EVENTS(X)
#undef X
    default:
        break;
    }
}

#else

unsigned short usdt_semaphore;

void usdt_fire(const struct trace_record *r)
{
    (void)r;
}

#endif
