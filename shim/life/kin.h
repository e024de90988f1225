/*
 * Kin: processes that come of one by fork, without exec in between. They belong to one family
 * although there was no socket yet when they were forked: what tells them of it is a page of memory
 * that the first fork makes and all inherit. The first of them that uses TCP starts the engine and
 * writes itself down there; the others join it, if they are in the same network namespace and are
 * the same user. A process that gives up privileges before it uses TCP stays alone, as do images
 * after exec.
 */
#pragma once

#include <stdbool.h>

/* Before a fork, as long as there is no engine. */
void kin_before_fork(void);
/* In the child. */
void kin_after_fork_child(void);
/*
 * The engine is about to be started. From here to kin_end() this process alone of its kin does so.
 * True: it has joined a relative's.
 */
bool kin_begin(void);
/* started: there is an engine now. */
void kin_end(bool started);
/* This process has nothing to do with its kin any more. */
void kin_part(void);
