/*
 * Which text came in which frame: a ring that is written only while class `buffer` is traced, so
 * that an event of recv() can say where its bytes came from.
 */
#pragma once

#include "stack/base.h"

#define ARRIVALS_MAX 4096

struct arrival {
    uint32_t number; /* of the connection */
    uint32_t seq, len;
    uint32_t segment; /* bytes of a segment, where the frame held several */
    nsec_t when;
};

struct arrivals {
    uint64_t next; /* ever written */
    struct arrival ring[ARRIVALS_MAX];
};
