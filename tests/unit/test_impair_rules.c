/* TCPSHIM_IMPAIR: what is understood, and what is said of the rest. */
#include "shim/link/impair_rules.h"

#include "tests/unit/suites.h"

static struct impair_rules rules;

static const struct impair_rule *one(const char *text)
{
    const char *error = impair_rules_parse(&rules, text);
    ck_assert_msg(error == NULL, "%s: %s", text, error);
    ck_assert_uint_eq(rules.n, 1);
    return &rules.rule[0];
}

START_TEST(chances)
{
    ck_assert_ptr_null(impair_rules_parse(
        &rules,
        "drop=1%,delay=20ms,reorder=2%,dup=0.5%,corrupt=0.1%,jitter=1.5ms,rate=10M,seed=7"));
    ck_assert_uint_eq(rules.n, 7);
    ck_assert_uint_eq(rules.seed, 7);
    const struct impair_rule *r = rules.rule;
    ck_assert_int_eq(r[0].verb, IMPAIR_DROP);
    ck_assert_int_eq(r[0].kind, IMPAIR_ANY);
    ck_assert(r[0].dirs[IMPAIR_IN] && r[0].dirs[IMPAIR_OUT]);
    ck_assert_uint_eq(r[0].chance, IMPAIR_ALWAYS / 100);
    ck_assert_int_eq(r[1].verb, IMPAIR_DELAY);
    ck_assert_uint_eq(r[1].time, 20 * NSEC_PER_MSEC);
    ck_assert_uint_eq(r[1].chance, IMPAIR_ALWAYS);
    ck_assert_uint_eq(r[3].chance, IMPAIR_ALWAYS / 200);
    ck_assert_uint_eq(r[4].chance, IMPAIR_ALWAYS / 1000);
    ck_assert_uint_eq(r[5].time, 1500 * NSEC_PER_USEC);
    ck_assert_uint_eq(r[6].rate, 10000000);
    ck_assert_str_eq(r[3].text, "dup=0.5%");
}
END_TEST

START_TEST(single_things)
{
    const struct impair_rule *r = one("drop syn-ack 1");
    ck_assert_int_eq(r->kind, IMPAIR_SYN_ACK);
    ck_assert(r->first == 1 && r->last == 1 && !r->retransmit);
    r = one(" drop fin 2nd retransmit ");
    ck_assert_int_eq(r->kind, IMPAIR_FIN);
    ck_assert(r->first == 2 && r->last == 2 && r->retransmit);
    ck_assert_str_eq(r->text, "drop fin 2nd retransmit");
    r = one("delay ack 300ms");
    ck_assert_int_eq(r->kind, IMPAIR_ACK);
    ck_assert_uint_eq(r->time, 300 * NSEC_PER_MSEC);
    r = one("rst after 1MB");
    ck_assert_int_eq(r->verb, IMPAIR_RESET);
    ck_assert_uint_eq(r->after, 1 << 20);
    r = one("zero-window 5s");
    ck_assert_int_eq(r->verb, IMPAIR_ZERO_WINDOW);
    ck_assert_uint_eq(r->time, 5 * NSEC_PER_SEC);
    ck_assert(r->dirs[IMPAIR_IN] && !r->dirs[IMPAIR_OUT]); /* the peer's window */
    r = one("zero-window out 5s after 64K");
    ck_assert(!r->dirs[IMPAIR_IN] && r->dirs[IMPAIR_OUT]);
    ck_assert_uint_eq(r->after, 65536);
    r = one("drop data 3-5 50% in port 8000-8099");
    ck_assert(r->first == 3 && r->last == 5 && r->chance == IMPAIR_ALWAYS / 2);
    ck_assert(r->dirs[IMPAIR_IN] && !r->dirs[IMPAIR_OUT]);
    ck_assert(r->port_low == 8000 && r->port_high == 8099);
    r = one("out port 80 drop=100%");
    ck_assert(r->port_low == 80 && r->port_high == 80 && r->dirs[IMPAIR_OUT]);
    ck_assert_uint_eq(r->chance, IMPAIR_ALWAYS);
}
END_TEST

START_TEST(nothing)
{
    ck_assert_ptr_null(impair_rules_parse(&rules, " , ;"));
    ck_assert_uint_eq(rules.n, 0);
    ck_assert_ptr_null(impair_rules_parse(&rules, "seed=3"));
    ck_assert_uint_eq(rules.n, 0);
}
END_TEST

/* The text, and the word that the complaint must name ("": it is missing). */
static const struct {
    const char *text, *word;
} mistakes[] = {
    {"drop syn-akc 1", "syn-akc"},
    {"drop", "drop"},
    {"drop 101%", "101%"},
    {"drop 1.%%", "1.%%"},
    {"drop 0", "0"},
    {"drop 5-3", "5-3"},
    {"drop 2xd", "2xd"},
    {"delay 20", "delay 20"},
    {"delay=20m", "20m"},
    {"delay=9999999999s", "9999999999s"},
    {"delay", "delay"},
    {"jitter 1% 5ms", "1%"},
    {"rate=0", "0"},
    {"rate=10Q", "10Q"},
    {"rst after", "rst after"},
    {"rst 1MB", "1MB"},
    {"rst after 1X", "1X"},
    {"zero-window", "zero-window"},
    {"lose=1%", "lose"},
    {"in out drop 1", "out"},
    {"drop 1 port", "port"},
    {"drop 1 port http", "http"},
    {"drop 1 port 70000", "70000"},
    {"seed=x", "x"},
    {"seed=1 drop", "drop"},
    {"port 80", "port 80"},
    {"drop a-word-that-is-much-too-long-for-this", "a-word"},
};

START_TEST(malformed)
{
    const char *error = impair_rules_parse(&rules, mistakes[_i].text);
    ck_assert_msg(error != NULL, "%s was taken", mistakes[_i].text);
    ck_assert_msg(strstr(error, mistakes[_i].word) != NULL, "%s: %s", mistakes[_i].text, error);
    ck_assert_uint_eq(rules.n, 0);
}
END_TEST

START_TEST(too_many)
{
    char text[400] = "";
    for (unsigned i = 0; i < IMPAIR_RULES_MAX; i++)
        strcat(text, "drop 1%,");
    ck_assert_ptr_null(impair_rules_parse(&rules, text));
    strcat(text, "dup 1%");
    ck_assert_ptr_nonnull(impair_rules_parse(&rules, text));
}
END_TEST

Suite *suite_impair_rules(void)
{
    Suite *s = suite_create("impair_rules");
    TCase *tc = tcase_create("core");
    tcase_add_test(tc, chances);
    tcase_add_test(tc, single_things);
    tcase_add_test(tc, nothing);
    tcase_add_loop_test(tc, malformed, 0, (int)ARRAY_LEN(mistakes));
    tcase_add_test(tc, too_many);
    suite_add_tcase(s, tc);
    return s;
}
