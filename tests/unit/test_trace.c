#include "tests/unit/suites.h"

#include "stack/stack.h"

static struct trace_record last;
static uint64_t last_args[TRACE_ARGS_MAX];
static unsigned records;

static void sink(struct stack_cx *cx, const struct trace_record *record)
{
    (void)cx;
    last = *record;
    memcpy(last_args, record->argv, record->argc * sizeof(record->argv[0]));
    records++;
}

/* The argument lists of the table are in the form that stack/trace.h promises to the sinks. */
START_TEST(schema_is_well_formed)
{
    static const char *const types[] = {"u",   "n",     "i",     "bool",   "ns",    "time",
                                        "seq", "pseq",  "state", "reason", "flags", "timer",
                                        "err", "addr4", "str",   "call",   "opt",   "ranges"};
    for (unsigned i = 0; i < TRACE_EVENT_COUNT; i++) {
        const struct trace_event_info *e = &trace_events[i];
        ck_assert_ptr_nonnull(e->name);
        ck_assert_ptr_nonnull(e->doc);
        ck_assert_uint_ne(e->class & TRACE_ALL, 0);
        ck_assert_uint_eq(e->class & (e->class - 1u), 0);
        unsigned args = 0;
        for (const char *p = e->args; *p != '\0'; args++) {
            const size_t name = strcspn(p, ": ");
            ck_assert_uint_gt(name, 0);
            ck_assert_int_eq(p[name], ':');
            p += name + 1;
            const size_t type = strcspn(p, " ");
            bool known = false;
            for (size_t k = 0; k < ARRAY_LEN(types); k++)
                known |= strlen(types[k]) == type && strncmp(types[k], p, type) == 0;
            ck_assert_msg(known, "event %s: type of argument %u", e->name, args);
            p += type + (p[type] == ' ');
        }
        ck_assert_uint_le(args, TRACE_ARGS_MAX);
    }
}
END_TEST

START_TEST(words_are_there_and_differ)
{
    for (unsigned i = 0; i < TRACE_CLASS_COUNT; i++) {
        ck_assert_ptr_nonnull(trace_class_words[i]);
        ck_assert_ptr_nonnull(trace_class_docs[i]);
        for (unsigned k = 0; k < i; k++)
            ck_assert_str_ne(trace_class_words[i], trace_class_words[k]);
    }
    ck_assert_str_eq(trace_class_words[TRACE_BIT_STATE], "state");
}
END_TEST

START_TEST(only_watched_classes_are_emitted)
{
    const struct stack_ops ops = {.trace = sink}, deaf = {0};
    struct stack_cx cx = {.now = 7, .ops = &ops, .trace = TRACE_LINK};
    unsigned evaluated = 0;
    records = 0;
    TRACE(&cx, LINK, NULL, DROPPED, (uintptr_t) "why", 99);
    ck_assert_uint_eq(records, 1);
    ck_assert_uint_eq(last.id, TRACE_EV_DROPPED);
    ck_assert_uint_eq(last.now, 7);
    ck_assert_uint_eq(last.argc, 2);
    ck_assert_uint_eq(last_args[1], 99);
    TRACE(&cx, CC, NULL, CWND, ++evaluated, 0, 0, 0);
    ck_assert_uint_eq(records, 1);
    ck_assert_uint_eq(evaluated, 0);
    cx.ops = &deaf;
    TRACE(&cx, LINK, NULL, DROPPED, 0, 0);
    ck_assert_uint_eq(records, 1);
}
END_TEST

Suite *suite_trace(void)
{
    Suite *s = suite_create("trace");
    TCase *t = tcase_create("all");
    tcase_add_test(t, schema_is_well_formed);
    tcase_add_test(t, words_are_there_and_differ);
    tcase_add_test(t, only_watched_classes_are_emitted);
    suite_add_tcase(s, t);
    return s;
}
