/* TCPSHIM_TRACE_RING=dump: what happened last is told when the program crashes. */
#pragma once

/* From the constructor. Handlers for signals of which the program's own would come later. */
void crash_watch(void);
