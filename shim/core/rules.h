/*
 * TCPSHIM_RULES: which connections and listeners are the user stack's. Rules are separated by
 * commas or newlines, the first that matches decides, none: user.
 *
 *     user|kernel [connect|listen|any] [ADDR[/LEN]|*][:PORT[-PORT]]
 */
#pragma once

#include "shim/core/config.h"

enum rule_call { RULE_CONNECT = 1, RULE_LISTEN = 2, RULE_ANY = 3 };

/* Replaces the rules by those in text. On failure false, with one sentence in error (at most len
 * bytes). */
bool rules_parse(const char *text, char *error, size_t len);
/* connect: ep is the remote end; listen: the local one, which may be the any address. */
struct decision rules_decide(enum rule_call call, const struct endpoint *ep);
