/* The link under packetdrill: what the stack sends waits in memory. */
#pragma once

#include "tests/packetdrill/world.h"

/* Before the engine starts. */
void link_configure(const struct world_flags *flags);
/* The interface that packets arrive on. */
uint8_t link_netif(void);
bool link_has_packet(void);
/* Takes the oldest packet; 0: none, or longer than size. */
size_t link_take(void *buf, size_t size, nsec_t *at);
