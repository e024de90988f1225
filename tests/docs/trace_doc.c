/*
 * Writes docs/trace.md's tables (--markdown) and docs/trace.schema.json (--schema) from the lists
 * of stack/trace.h and stack/tcp/names.h: what the sinks print cannot differ from what is
 * published.
 */
#include <ctype.h>
#include <stdio.h>

#include "stack/ring.h"
#include "stack/tcp/names.h"
#include "stack/trace.h"

static const struct type {
    const char *name, *words, *schema;
} types[] = {
    {"u", "number", "{\"type\":\"integer\",\"minimum\":0}"},
    {"i", "number, may be negative", "{\"type\":\"integer\"}"},
    {"n", "bytes", "{\"type\":\"integer\",\"minimum\":0}"},
    {"bool", "true or false", "{\"type\":\"boolean\"}"},
    {"ns", "seconds", "{\"type\":\"number\",\"minimum\":0}"},
    {"time", "seconds of the clock; absent: none", "{\"type\":\"number\",\"minimum\":0}"},
    {"seq", "our sequence number; `_rel` counts from ISS", "{\"$ref\":\"#/$defs/seq\"}"},
    {"pseq", "the peer's sequence number; `_rel` counts from IRS", "{\"$ref\":\"#/$defs/seq\"}"},
    {"state", "state", "{\"$ref\":\"#/$defs/state\"}"},
    {"reason", "reason in words; `why_id` names it", "{\"type\":\"string\"}"},
    {"flags", "flags: `SYN,ACK`",
     "{\"type\":\"string\",\"pattern\":\"^(none|(SYN|ACK|FIN|RST|PSH|URG|ECE|CWR)(,|$))+$\"}"},
    {"timer", "timer", "{\"$ref\":\"#/$defs/timer\"}"},
    {"err", "errno, with `error` its name; absent: none", "{\"type\":\"integer\",\"minimum\":1}"},
    {"addr4", "IPv4 address", "{\"type\":\"string\",\"format\":\"ipv4\"}"},
    {"str", "text", "{\"type\":\"string\"}"},
    {"call", "name of a libc function", "{\"type\":\"string\"}"},
    {"opt", "TCP options", "{\"$ref\":\"#/$defs/options\"}"},
    {"ranges", "runs of bytes; `more`: bytes that are not listed", "{\"$ref\":\"#/$defs/ranges\"}"},
};

struct arg {
    char name[32];
    const struct type *type;
};

/* The next argument of a schema string; NULL at its end. */
static const char *next(const char *p, struct arg *a)
{
    if (*p == '\0')
        return NULL;
    const size_t name = strcspn(p, ":"), type = strcspn(p + name + 1, " ");
    snprintf(a->name, sizeof(a->name), "%.*s", (int)name, p);
    a->type = NULL;
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strlen(types[i].name) == type && memcmp(types[i].name, p + name + 1, type) == 0)
            a->type = &types[i];
    p += name + 1 + type;
    return p + (*p == ' ');
}

static bool is(const struct arg *a, const char *type)
{
    return a->type && strcmp(a->type->name, type) == 0;
}

/* ---- Markdown ---- */

static void markdown_event(unsigned i)
{
    const struct trace_event_info *e = &trace_events[i];
    const char *between = "", *p = e->args;
    struct arg a;
    printf("| `%s` | ", e->name);
    while ((p = next(p, &a)) != NULL) {
        printf("%s`%s` %s", between, a.name, a.type->words);
        between = "; ";
    }
    printf(" | %s |\n", e->doc);
}

static void lower(const char *name)
{
    for (; *name; name++)
        putchar(tolower((unsigned char)*name));
}

static void markdown(void)
{
    for (unsigned c = 0; c < TRACE_CLASS_COUNT; c++) {
        printf("### `%s`: %s\n\n| event | arguments | what happened |\n|---|---|---|\n",
               trace_class_words[c], trace_class_docs[c]);
        for (unsigned i = 0; i < TRACE_EVENT_COUNT; i++)
            if (trace_events[i].class == 1u << c)
                markdown_event(i);
        printf("\n");
    }
    printf("### Timers\n\n| timer | what it does |\n|---|---|\n");
#define X(id, word, doc) printf("| `%s` | %s |\n", word, doc);
    TCP_TIMERS(X)
#undef X
    printf("\n### Reasons\n\n| `why_id` | `why` |\n|---|---|\n");
    for (unsigned i = 1; i < TCP_REASON_COUNT; i++) {
        printf("| `");
        lower(tcp_reason_name(i));
        printf("` | %s |\n", tcp_reason_text(i));
    }
}

/* ---- JSON Schema ---- */

static void schema_event(unsigned i)
{
    const struct trace_event_info *e = &trace_events[i];
    const char *p = e->args;
    struct arg a;
    printf("    "
           "{\"if\":{\"required\":[\"class\",\"ev\"],\"properties\":{\"ev\":{\"const\":\"%s\"}}},\n"
           "     \"then\":{\"description\":\"%s\",\"properties\":{\"class\":{\"const\":\"%s\"}",
           e->name, e->doc, trace_class_words[__builtin_ctz(e->class)]);
    while ((p = next(p, &a)) != NULL) {
        printf(",\"%s\":%s", a.name, a.type->schema);
        if (is(&a, "seq") || is(&a, "pseq"))
            printf(",\"%s_rel\":{\"$ref\":\"#/$defs/seq\"}", a.name);
        if (is(&a, "reason"))
            printf(",\"why_id\":{\"$ref\":\"#/$defs/why_id\"}");
        if (is(&a, "err"))
            printf(",\"error\":{\"type\":\"string\"}");
        if (is(&a, "ranges"))
            printf(",\"more\":{\"type\":\"integer\",\"minimum\":1}");
    }
    printf("},\n      \"required\":[\"pid\"");
    for (p = e->args; (p = next(p, &a)) != NULL;)
        /* what is always there: not a reason or an error that there may be none of */
        if (!is(&a, "reason") && !is(&a, "err") && !is(&a, "str") && !is(&a, "opt") &&
            !is(&a, "time") && !is(&a, "ranges") && strcmp(a.name, "ack") != 0)
            printf(",\"%s\"", a.name);
    printf("]}},\n");
}

static void words(const char *const *list, unsigned n, const char *before)
{
    for (unsigned i = 0; i < n; i++)
        printf("%s\"%s\"", i ? "," : before, list[i]);
}

static void schema_definitions(void)
{
    const char *between = "";
    printf(
        "  \"$defs\":{\n    \"seq\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295},\n"
        "    \"state\":{\"enum\":[");
    for (unsigned i = 1; i <= TCP_STATE_MAX; i++)
        printf("%s\"%s\"", i > 1 ? "," : "", tcp_state_name(i));
    printf("]},\n    \"timer\":{\"enum\":[");
    for (unsigned i = 0; i < TCP_TIMER_COUNT; i++)
        printf("%s\"%s\"", i ? "," : "", tcp_timer_name(i));
    printf("]},\n    \"why_id\":{\"enum\":[");
    for (unsigned i = 1; i < TCP_REASON_COUNT; i++) {
        printf("%s\"", between);
        lower(tcp_reason_name(i));
        printf("\"");
        between = ",";
    }
    printf("]},\n"
           "    \"options\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\n"
           "      \"mss\":{\"type\":\"integer\"},\"wscale\":{\"type\":\"integer\",\"maximum\":14},"
           "\"sack_ok\":{\"const\":true},\n"
           "      \"ts\":{\"$ref\":\"#/$defs/pair\"},"
           "\"sack\":{\"type\":\"array\",\"maxItems\":4,\"items\":{\"$ref\":\"#/$defs/pair\"}}}},\n"
           "    \"pair\":{\"type\":\"array\",\"minItems\":2,\"maxItems\":2,"
           "\"items\":{\"$ref\":\"#/$defs/seq\"}},\n"
           "    \"ranges\":{\"type\":\"array\",\"maxItems\":%d,\"items\":{\"type\":\"object\",\n"
           "      \"required\":[\"seq\",\"len\",\"of\",\"segment\",\"t\"],"
           "\"additionalProperties\":false,\"properties\":{\n"
           "      \"seq\":{\"$ref\":\"#/$defs/seq\"},\"seq_rel\":{\"$ref\":\"#/$defs/seq\"},"
           "\"len\":{\"type\":\"integer\"},\n"
           "      \"of\":{\"type\":\"integer\"},\"segment\":{\"type\":\"integer\"},"
           "\"t\":{\"type\":\"number\"}}}}\n  }\n",
           TRACE_RANGES_MAX);
}

static void schema(void)
{
    const char *names[TRACE_EVENT_COUNT];
    for (unsigned i = 0; i < TRACE_EVENT_COUNT; i++)
        names[i] = trace_events[i].name;
    printf("{\n"
           "  \"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\n"
           "  \"title\":\"A line of a tcpshim trace, version 1\",\n"
           "  \"type\":\"object\",\n"
           "  \"required\":[\"ev\",\"t\",\"pid\"],\n"
           "  \"properties\":{\n"
           "    \"t\":{\"type\":\"number\",\"minimum\":0,\"description\":\"CLOCK_MONOTONIC, "
           "seconds\"},\n"
           "    \"pid\":{\"type\":\"integer\",\"minimum\":1},\n"
           "    \"conn\":{\"type\":\"integer\",\"minimum\":1},\n"
           "    \"local\":{\"type\":\"string\"},\n"
           "    \"peer\":{\"type\":\"string\"},\n"
           "    \"past\":{\"const\":true,\"description\":\"told later, from the ring of last "
           "events\"},\n"
           "    \"class\":{\"enum\":[");
    words(trace_class_words, TRACE_CLASS_COUNT, "");
    printf("]},\n    \"ev\":{\"enum\":[\"trace\""); /* "lost" is an event of class cc, too */
    words(names, TRACE_EVENT_COUNT, ",");
    printf("]}\n  },\n  \"allOf\":[\n");
    for (unsigned i = 0; i < TRACE_EVENT_COUNT; i++)
        schema_event(i);
    printf("    {\"if\":{\"properties\":{\"ev\":{\"const\":\"trace\"}}},\n"
           "     \"then\":{\"description\":\"the first line of a process\",\"properties\":{"
           "\"v\":{\"const\":1},\"cmd\":{\"type\":\"string\"},\n"
           "      \"realtime\":{\"type\":\"string\",\"format\":\"date-time\"},"
           "\"classes\":{\"type\":\"string\"}},\n"
           "      \"required\":[\"v\",\"cmd\",\"realtime\",\"classes\"]}},\n"
           "    {\"if\":{\"properties\":{\"ev\":{\"const\":\"lost\"}},"
           "\"not\":{\"required\":[\"class\"]}},\n"
           "     \"then\":{\"description\":\"events that found no room\",\"properties\":{"
           "\"count\":{\"type\":\"integer\",\"minimum\":1}},\"required\":[\"count\"]}}\n"
           "  ],\n  \"unevaluatedProperties\":false,\n");
    schema_definitions();
    printf("}\n");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--schema") == 0)
        schema();
    else if (argc == 2 && strcmp(argv[1], "--markdown") == 0)
        markdown();
    else
        return 2;
    return 0;
}
