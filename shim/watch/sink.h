/* Where the lines of a trace go: stderr or TCPSHIM_TRACE_FILE, never waiting for the reader. */
#pragma once

#include "shim/watch/line.h"

/* From the constructor: keeps a duplicate of stderr when traces go there (files are opened with the
 * first line). */
void sink_open(void);
/* Opens now what the first event of this process would open. */
void sink_ready(void);
/* The process becomes another user, whose images are to write on to a file of this process alone.
 */
void sink_give(uint32_t uid);
/*
 * True: this thread may put lines until sink_end(). False: there is nowhere to write, or somebody
 * else puts and does not end. *fresh: nothing was put by this process yet.
 */
bool sink_begin(bool *fresh);
void sink_end(void);
/* Between those: takes the line and its newline into the buffer; false: it is full. */
bool sink_put(struct line *l);
/* The pid as of sink_begin(). */
int sink_pid(void);

struct sink_buffer {
    uint32_t head, tail; /* bytes ever put and ever written (atomic) */
};
extern struct sink_buffer sink_buffer;
static inline bool sink_pending(void)
{
    return __atomic_load_n(&sink_buffer.head, __ATOMIC_RELAXED) !=
           __atomic_load_n(&sink_buffer.tail, __ATOMIC_RELAXED);
}
/* Writes what the reader takes now. */
void sink_flush(void);
/* RLIMIT_FSIZE is about to become this: a file takes no more beyond it. */
void sink_limit(uint64_t bytes);
/* Before the process ends or becomes another image: waits for a slow reader, a second at most. */
void sink_flush_patiently(void);
