/* The program at the interfaces' ingress (shim/link/ingress.h): the keeper has it there. */
#pragma once

#include "stack/base.h"

/* The family asks for it at this interface. What cannot be had is left. */
void ingress_attach(uint32_t ifindex);
/*
 * The family is gone, and nobody keeps its marks any more: the programs drop nothing from here on.
 * They go with the keeper.
 */
void ingress_end(void);
