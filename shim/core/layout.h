/*
 * A number that stands for the layout of everything in the arena: who reads an arena that another
 * build made (tcpshim ss, a new image after exec) compares it first. It changes with the sizes of
 * the objects, with places of members and with the lengths of the lists of states, events,
 * counters.
 */
#pragma once

#include <stdint.h>

uint64_t layout_tag(void);
