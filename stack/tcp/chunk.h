/* A chunk of payload: sixteen fill an arena span exactly. */
#pragma once

#include "stack/base.h"

#define CHUNK_DATA 4072

struct chunk {
    struct chunk *next;
    uint32_t start; /* the owner's: stream offset or fill mark */
    uint32_t end;
    uint8_t data[CHUNK_DATA];
};
_Static_assert(sizeof(struct chunk) == 4088, "sixteen chunks and the header make a span");
