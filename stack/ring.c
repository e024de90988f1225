#include "stack/ring.h"

#include "stack/internal.h"

const struct ring *stack_ring(const struct stack *st)
{
    return &st->ring;
}

unsigned ring_expand(const struct ring_event *e, uint64_t argv[TRACE_ARGS_MAX])
{
    const uint32_t *v = e->values;
    switch (e->event) {
    case TRACE_EV_STATE: /* from to why */
        for (unsigned i = 0; i < 3; i++)
            argv[i] = e->small[i];
        return 3;
    case TRACE_EV_SEGMENT_IN:
    case TRACE_EV_SEGMENT_OUT: /* flags seq ack len wnd why */
        argv[0] = e->small[0];
        for (unsigned i = 0; i < 4; i++)
            argv[1 + i] = v[i];
        argv[5] = e->small[1];
        return 6;
    case TRACE_EV_TIMER_FIRED: /* timer count */
        argv[0] = e->small[0];
        argv[1] = v[0];
        return 2;
    case TRACE_EV_RECOVERY:  /* why cwnd ssthresh in_flight */
    case TRACE_EV_SEND_HELD: /* why unsent in_flight cwnd snd_wnd */
        argv[0] = e->small[0];
        for (unsigned i = 0; i < 4; i++)
            argv[1 + i] = v[i];
        return e->event == TRACE_EV_RECOVERY ? 4 : 5;
    default:
        return 0;
    }
}

/* False: empty, being written, or written over since. */
static bool copy_event(const struct ring *r, uint64_t i, struct ring_event *out)
{
    const struct ring_event *e = &r->events[i % RING_EVENTS];
    const uint32_t number = __atomic_load_n(&e->number, __ATOMIC_ACQUIRE);
    *out = *e;
    ring_fence();
    return number != 0 && __atomic_load_n(&e->number, __ATOMIC_RELAXED) == number &&
           __atomic_load_n(&r->next, __ATOMIC_RELAXED) - i <= RING_EVENTS;
}

void ring_walk(const struct ring *r, uint32_t number, unsigned most,
               void (*visit)(const struct ring_event *e, void *arg), void *arg)
{
    const uint64_t end = __atomic_load_n(&r->next, __ATOMIC_ACQUIRE);
    uint64_t begin = end;
    const uint64_t oldest = end > RING_EVENTS ? end - RING_EVENTS : 0;
    for (unsigned found = 0; begin > oldest && found < most; begin--) {
        const uint32_t whose = r->events[(begin - 1) % RING_EVENTS].number;
        found += number ? whose == number : whose != 0;
    }
    for (uint64_t i = begin; i < end; i++) {
        struct ring_event e;
        if (copy_event(r, i, &e) && (number == 0 || e.number == number))
            visit(&e, arg);
    }
}
