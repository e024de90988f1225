/*
 * The service thread: drives the engine while no caller does, passes on wake-ups that other
 * processes send to sleepers of this one, and sends ACKs that go aside (shim/link/aside.h). Theory
 * of operation in service.c.
 */
#pragma once

#include "shim/core/engine.h"

/* Entered, by engine_leave(): whether there is work and no service thread yet. */
bool service_wanted(struct stack_cx *cx);
/* Not entered. Starts it; errno unchanged. When it cannot be, the next try is a while later. */
void service_start(void);
/*
 * Entered, in the parent after a fork: there is another process now whose wake-ups must be passed
 * on. A service thread that drives, and sleeps as if there were none, is to look again.
 */
void service_forked(void);
/* Entered: there is something to look at later (transit_due()), although nothing else may happen.
 */
void service_look_again(void);
/*
 * Entered, by engine_leave(): nobody drives and no caller sleeps that could. The thread is to look
 * again if it counts on the driver that was, or if it still sleeps as the driver that it was itself
 * and a timer ends before its sleep does.
 */
void service_left_alone(const struct stack_cx *cx);
/*
 * Not entered, before a fork that libc does not know of: a thread that was made and does not run
 * yet would be in the child's list of threads for ever, and setuid() there would wait for it.
 */
void service_await_start(void);
/* While on: this thread does not start it, nor does the child that it forks, whose libc may be
 * locked. */
void service_put_off(bool on);
/* Not entered: the thread ends as soon as it can. */
void service_stop(void);
/* In fork's child: the thread is not there. */
void service_after_fork_child(void);
/* The main thread leaves by pthread_exit(): the process ends with the last thread but this one. */
void service_main_left(void);
