/* Whether the network namespace is still of use to anybody. */
#pragma once

#include <stdbool.h>

/*
 * True: this process's network namespace has no name (a mount), is not the one of process 1, and
 * nobody lives in it but keepers, which would only keep each other and its devices alive. False
 * also where that cannot be seen.
 */
bool netns_deserted(void);
