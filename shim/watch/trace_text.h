/* The text sink of traces: one line per event on stderr or TCPSHIM_TRACE_FILE. */
#pragma once

#include "stack/trace.h"

/* As stack_ops.trace. Formats into a buffer on the stack, writes with one raw write(2), keeps
 * errno. */
void trace_text(struct stack_cx *cx, const struct trace_record *record);
/* For events outside the engine (calls, rules), not entered. */
void trace_text_now(const struct flow *flow, enum trace_event_id id, const uint64_t *argv,
                    unsigned argc);
/* From the constructor: keeps a duplicate of stderr when traces go there (files are opened at the
 * first event). */
void trace_text_open(void);
