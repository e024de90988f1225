/* The program at the interfaces' ingress (shim/link/ingress.h): the keeper has it there. */
#pragma once

#include "stack/stack.h"

/* The family asks for it at this interface. What cannot be had is left. */
void ingress_attach(uint32_t ifindex);
/*
 * The family is gone, and this process works without marks: the programs drop nothing from here on.
 * They go with the keeper.
 */
void ingress_end(struct stack *st);
