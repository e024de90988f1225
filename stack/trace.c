#include "stack/trace.h"

#include "stack/stack.h"

const struct trace_event_info trace_events[TRACE_EVENT_COUNT] = {
#define X(id, cls, probe, words, arguments, what)                                                  \
    [TRACE_EV_##id] = {.class = TRACE_##cls, .name = words, .args = arguments, .doc = what},
    TRACE_EVENTS(X)
#undef X
};

const char *const trace_class_words[TRACE_CLASS_COUNT] = {
#define X(id, word, what) [TRACE_BIT_##id] = word,
    TRACE_CLASSES(X)
#undef X
};

const char *const trace_class_docs[TRACE_CLASS_COUNT] = {
#define X(id, word, what) [TRACE_BIT_##id] = what,
    TRACE_CLASSES(X)
#undef X
};

void trace_emit(struct stack_cx *cx, const struct flow *flow, enum trace_event_id id,
                const uint64_t *argv, unsigned argc)
{
    if (cx->ops->trace == NULL)
        return;
    const struct trace_record record = {
        .id = id,
        .now = cx->now,
        .flow = flow,
        .argc = argc < TRACE_ARGS_MAX ? argc : TRACE_ARGS_MAX,
        .argv = argv,
    };
    cx->ops->trace(cx, &record);
}
