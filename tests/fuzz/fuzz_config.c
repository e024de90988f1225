/*
 * libFuzzer target: the environment. Lines of the input are variables; those that do not begin with
 * TCPSHIM_ get one of the names in turn, so that each parser is found at once. Whatever they hold,
 * config_read() says at most one sentence, and what it read can be used.
 */
#include "shim/core/config.h"
#include "shim/core/rules.h"
#include "shim/link/impair_rules.h"
#include "shim/watch/filter.h"
#include "stack/tcp/flow.h"

#include <stdlib.h>
#include <string.h>

#define VARIABLES 16

static const char *const names[] = {
#define X(name, ...) "TCPSHIM_" #name "=",
    CONFIG_VARIABLES(X)
#undef X
};

static bool ends(const char *s, size_t room)
{
    return memchr(s, 0, room) != NULL;
}

static void use(void)
{
    if (!ends(config.error, sizeof(config.error)) ||
        !ends(config.warning, sizeof(config.warning)) ||
        !ends(config.ifname, sizeof(config.ifname)) || !ends(config.pcap, sizeof(config.pcap)) ||
        !ends(config.trace_file, sizeof(config.trace_file)))
        abort();
    if (impair_rules.n > IMPAIR_RULES_MAX || config.prefix > 128)
        abort();
    struct endpoint ep = {.addr = ip_addr_from_v4(0x0100000a), .port = 80};
    struct flow flow = {.tuple = {.local = ep.addr, .remote = ep.addr}};
    for (unsigned i = 0; i < 3; i++) {
        const struct decision d = rules_decide(i & 1 ? RULE_CONNECT : RULE_LISTEN, &ep);
        if (d.verdict == VERDICT_FAIL && d.err <= 0)
            abort();
        ep.port = (uint16_t)(ep.port * 257);
        (void)filter_passes(i ? &flow : NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *entries[VARIABLES + 1];
    unsigned n = 0;
    for (size_t at = 0; at < size && n < VARIABLES;) {
        const uint8_t *nl = memchr(data + at, '\n', size - at);
        const size_t len = nl ? (size_t)(nl - data) - at : size - at;
        const char *name = "";
        if (len > 0 && data[at] < ARRAY_LEN(names))
            name = names[data[at]];
        const size_t skip = *name != 0, have = strlen(name);
        entries[n] = malloc(have + len - skip + 1); /* of exact size, for the sanitizer */
        memcpy(entries[n], name, have);
        memcpy(entries[n] + have, data + at + skip, len - skip);
        entries[n++][have + len - skip] = 0;
        at += len + 1;
    }
    entries[n] = NULL;
    config_read(entries);
    use();
    for (unsigned i = 0; i < n; i++)
        free(entries[i]);
    return 0;
}
