/* The traces of the shim: from the engine's events to lines of text or JSON (TCPSHIM_TRACE). */
#pragma once

#include "stack/trace.h"

/* As stack_ops.trace: filters, formats, and puts the line into the sink's buffer. Keeps errno. */
void trace_record(struct stack_cx *cx, const struct trace_record *record);
/* As stack_ops.trouble: the connection's last events from the ring. */
void trace_trouble(struct stack_cx *cx, const struct flow *flow);
/* From a handler of SIGSEGV and the like: the last events of all connections. */
struct stack;
void trace_crash(const struct stack *st);
/* For events outside the engine (rules), not entered. */
void trace_now(const struct flow *flow, enum trace_event_id id, const uint64_t *argv,
               unsigned argc);
/* From the constructor, after config_read(). */
void trace_open(void);
/* The process is about to lose its rights or its view of the files: opens what it will need. */
void trace_ready(void);
/* It becomes another user: the trace's file does, too. */
void trace_give(uint32_t uid);
/* Writes what waits in the buffer, as far as its reader takes it without waiting. */
void trace_flush(void);
/* The process ends or becomes another image. */
void trace_close(void);
