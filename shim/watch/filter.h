/*
 * TCPSHIM_TRACE_FILTER: which connections are traced.
 *
 *     TERM[,TERM...]                          one of them is enough
 *     TERM       CONDITION [and CONDITION]... all of them are needed
 *     CONDITION  [not] port N[-M] | [not] addr A.B.C.D[/LEN] | [not] conn N[-M]
 *
 * Ports and addresses are of either end; conn is the number behind # (JSON: "conn"). Events that
 * belong to no connection and no addresses are not shown then.
 */
#pragma once

#include "stack/base.h"

struct flow;

/* Reads the terms, in place of what was read before. False: out says what is not understood. */
bool filter_parse(const char *text, char *error, size_t error_len);
void filter_clear(void);
/* Whether an event of this flow (NULL: of none) is to be shown. */
bool filter_passes(const struct flow *flow);
