/* The TCPSHIM_* variables and the rules: what is understood, and what is said of the rest. */
#include "shim/core/addr.h"
#include "shim/core/config.h"
#include "shim/core/rules.h"
#include "shim/link/impair_rules.h"
#include "tests/unit/suites.h"

static void read_one(const char *entry)
{
    char copy[600];
    snprintf(copy, sizeof(copy), "%s", entry);
    char *env[] = {(char[]){"HOME=/"}, copy, NULL};
    config_read(env);
}

static struct endpoint at(const char *addr, uint16_t port)
{
    struct endpoint ep = {.port = port};
    ck_assert(addr_parse(addr, strlen(addr), &ep.addr));
    return ep;
}

START_TEST(defaults)
{
    config_read((char *[]){NULL});
    ck_assert_str_eq(config.error, "");
    ck_assert_str_eq(config.warning, "");
    ck_assert(!config.off && !config.own_address && !config.fallback_kernel);
    ck_assert_uint_eq(config.mem, (uint64_t)512 << 20);
    ck_assert_uint_eq(config.trace, 0);
    read_one("TCPSHIM_MEM="); /* empty: as if not set */
    ck_assert_str_eq(config.error, "");
}
END_TEST

START_TEST(understood)
{
    char *env[] = {(char[]){"TCPSHIM_ADDR=10.9.0.2/24"},
                   (char[]){"TCPSHIM_GW=10.9.0.1"},
                   (char[]){"TCPSHIM_IF=eth0"},
                   (char[]){"TCPSHIM_MEM=64M"},
                   (char[]){"TCPSHIM_TRACE=state,queue,,link"},
                   (char[]){"TCPSHIM_TRACE_FILE=/tmp/t.%p"},
                   (char[]){"TCPSHIM_TRACE_FORMAT=json"},
                   (char[]){"TCPSHIM_PCAP=/tmp/c.%p.pcap"},
                   (char[]){"TCPSHIM_IMPAIR=drop=1%,out delay ack 300ms"},
                   (char[]){"TCPSHIM_FALLBACK=kernel"},
                   (char[]){"TCPSHIM_LOOPBACK=user"},
                   (char[]){"TCPSHIM_CC=reno"},
                   (char[]){"TCPSHIM_ECN=accurate"},
                   (char[]){"TCPSHIM_SPIN=20"},
                   (char[]){"TCPSHIM_EXEC=plain"},
                   (char[]){"TCPSHIM_IO_URING=allow"},
                   (char[]){"TCPSHIM_RULES=kernel connect 10.0.0.0/8"},
                   NULL};
    config_read(env);
    ck_assert_str_eq(config.error, "");
    ck_assert(config.own_address && config.fallback_kernel && config.loopback_user);
    ck_assert_uint_eq(config.prefix, 96 + 24);
    ck_assert_str_eq(config.ifname, "eth0");
    ck_assert_uint_eq(config.ecn, STACK_ECN_ACCURATE);
    ck_assert_uint_eq(config.mem, 64 << 20);
    ck_assert_uint_eq(config.trace, TRACE_STATE | TRACE_QUEUE | TRACE_LINK);
    ck_assert(config.trace_json);
    ck_assert_str_eq(config.pcap, "/tmp/c.%p.pcap");
    ck_assert_uint_eq(impair_rules.n, 2);
    ck_assert_uint_eq(config.spin_usec, 20);
    ck_assert(!config.spin_auto);
    ck_assert_uint_eq(config.cc, 1);
    ck_assert_uint_eq(config.exec, EXEC_PLAIN);
    ck_assert(config.io_uring);
    read_one("TCPSHIM_TRACE=all");
    ck_assert_uint_eq(config.trace, TRACE_ALL);
    ck_assert(config.spin_auto);
    read_one("TCPSHIM_SPIN=0");
    ck_assert(!config.spin_auto && config.spin_usec == 0);
    read_one("TCPSHIM_SPIN=auto");
    ck_assert(config.spin_auto && config.spin_usec == 0);
    read_one("TCPSHIM_OFF=1");
    ck_assert(config.off);
}
END_TEST

/* Each gives one line that names the variable, the value and what is allowed. */
static const char *const malformed[] = {
    "TCPSHIM_OFF=yes",
    "TCPSHIM_EXEC=always",
    "TCPSHIM_IO_URING=1",
    "TCPSHIM_TRACE_FORMAT=xml",
    "TCPSHIM_ADDR=10.9.0.2",
    "TCPSHIM_ADDR=10.9.0.300/24",
    "TCPSHIM_ADDR=10.9.0.2/33",
    "TCPSHIM_ADDR=10.9.0.2/0",
    "TCPSHIM_ADDR=10.9.0.0/24",
    "TCPSHIM_ADDR=fd00::1/64",
    "TCPSHIM_ADDR=10.9.0.255/24",
    "TCPSHIM_ADDR=127.0.0.2/8",
    "TCPSHIM_ADDR=224.0.0.1/24",
    "TCPSHIM_ADDR=10.9.0.2/24x",
    "TCPSHIM_GW=router",
    "TCPSHIM_GW=10.9.0.1",
    "TCPSHIM_IF=a-name-that-is-too-long",
    "TCPSHIM_MEM=7M",
    "TCPSHIM_MEM=512MB",
    "TCPSHIM_MEM=-1",
    "TCPSHIM_MEM=99999999999999999999G",
    "TCPSHIM_MEM=M",
    "TCPSHIM_TRACE=state,quue",
    "TCPSHIM_IMPAIR=drop syn-akc 1",
    "TCPSHIM_IMPAIR=delay=20ms,,lose=1%",
    "TCPSHIM_FALLBACK=yes",
    "TCPSHIM_LOOPBACK=1",
    "TCPSHIM_CC=vegas",
    "TCPSHIM_ECN=3",
    "TCPSHIM_SPIN=1s",
    "TCPSHIM_SPIN=1000001",
    "TCPSHIM_RULES=maybe",
    "TCPSHIM_RULES=user connect 10.0.0.0/40",
    "TCPSHIM_RULES=user :99999",
    "TCPSHIM_RULES=kernel any * *",
    "TCPSHIM_RULES=user :90-80",
};

START_TEST(fastopen_key)
{
    static const uint8_t expected[16] = {0xf7, 0x63, 0xbf, 0xa0, 0x81, 0x3d, 0x80, 0xed,
                                         0x30, 0x1d, 0x64, 0xcd, 0x90, 0x4a, 0xbc, 0xce};
    uint8_t key[16] = {0};
    ck_assert(config_fastopen_key("a0bf63f7-ed803d81-cd641d30-cebc4a90\n", key));
    ck_assert_mem_eq(key, expected, sizeof(key));
    ck_assert(!config_fastopen_key("", key));
    ck_assert(!config_fastopen_key("a0bf63f7-ed803d81", key));
    ck_assert_mem_eq(key, expected, sizeof(key));
}
END_TEST

START_TEST(malformed_values)
{
    const char *entry = malformed[_i];
    char name[40];
    read_one(entry);
    ck_assert_msg(config.error[0] != '\0', "%s was taken", entry);
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(entry, "="), entry);
    ck_assert_ptr_nonnull(strstr(config.error, name));
    ck_assert_ptr_null(strchr(config.error, '\n'));
}
END_TEST

START_TEST(unknown_trace_word_lists_known)
{
    read_one("TCPSHIM_TRACE=segmnt");
    read_one("TCPSHIM_TRACE=segmnt"); /* again: the same list, once */
    ck_assert_ptr_nonnull(strstr(config.error, "segmnt"));
    for (unsigned i = 0; i < TRACE_CLASS_COUNT; i++)
        ck_assert_ptr_nonnull(strstr(config.error, trace_class_words[i]));
}
END_TEST

START_TEST(unknown_variable)
{
    read_one("TCPSHIM_TRCE=all");
    ck_assert_str_eq(config.error, "");
    ck_assert_ptr_nonnull(strstr(config.warning, "TCPSHIM_TRCE"));
    ck_assert_ptr_nonnull(strstr(config.warning, "the nearest is TCPSHIM_TRACE"));
    read_one("TCPSHIM_A_VERY_LONG_NAME_THAT_NOBODY_EVER_WOULD_THINK_OF=1");
    ck_assert(config.warning[0]);
}
END_TEST

START_TEST(gateway_must_be_on_link)
{
    char *env[] = {(char[]){"TCPSHIM_ADDR=10.9.0.2/24"}, (char[]){"TCPSHIM_GW=10.9.1.1"}, NULL};
    config_read(env);
    ck_assert_ptr_nonnull(strstr(config.error, "TCPSHIM_GW"));
}
END_TEST

static bool to_kernel(enum rule_call call, const char *addr, uint16_t port)
{
    const struct endpoint ep = at(addr, port);
    return rules_decide(call, &ep).verdict == VERDICT_KERNEL;
}

START_TEST(rules_first_match_wins)
{
    char error[120];
    ck_assert(rules_parse("user connect 10.1.2.3:80, kernel connect 10.0.0.0/8:1-1023\n"
                          "kernel listen :22,kernel any [fd00::]/16:443,, user",
                          error, sizeof(error)));
    ck_assert(!to_kernel(RULE_CONNECT, "10.1.2.3", 80));
    ck_assert(to_kernel(RULE_CONNECT, "10.1.2.4", 80));
    ck_assert(!to_kernel(RULE_CONNECT, "10.1.2.4", 1024));
    ck_assert(!to_kernel(RULE_CONNECT, "11.1.2.4", 80));
    ck_assert(to_kernel(RULE_LISTEN, "0.0.0.0", 22));
    ck_assert(!to_kernel(RULE_CONNECT, "9.9.9.9", 22));
    ck_assert(to_kernel(RULE_CONNECT, "fd00::1", 443));
    ck_assert(!to_kernel(RULE_CONNECT, "fe00::1", 443));
    const struct endpoint ep = at("10.1.2.4", 80);
    ck_assert_str_eq(rules_decide(RULE_CONNECT, &ep).why, "rule: kernel connect 10.0.0.0/8:1-1023");
}
END_TEST

START_TEST(rules_wildcards)
{
    char error[120];
    ck_assert(rules_parse("kernel * ", error, sizeof(error)));
    ck_assert(to_kernel(RULE_CONNECT, "1.2.3.4", 5));
    ck_assert(to_kernel(RULE_LISTEN, "::", 5));
    ck_assert(rules_parse("kernel *:80", error, sizeof(error)));
    ck_assert(to_kernel(RULE_LISTEN, "::", 80));
    ck_assert(!to_kernel(RULE_LISTEN, "::", 81));
    ck_assert(rules_parse("kernel 0.0.0.0/0", error, sizeof(error)));
    ck_assert(to_kernel(RULE_CONNECT, "1.2.3.4", 5));
    ck_assert(!to_kernel(RULE_CONNECT, "fd00::1", 5));
    ck_assert(rules_parse("", error, sizeof(error)));
    ck_assert(!to_kernel(RULE_CONNECT, "1.2.3.4", 5));
}
END_TEST

START_TEST(addresses)
{
    static const char *const texts[] = {"0.0.0.0", "10.9.100.255", "255.255.255.255", "fd00::1",
                                        "::"};
    char out[ADDR_TEXT_MAX];
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        const struct endpoint ep = at(texts[i], 0);
        ck_assert_uint_eq(addr_format(&ep.addr, out), strlen(texts[i]));
        ck_assert_str_eq(out, texts[i]);
    }
    const struct endpoint a = at("10.9.0.2", 0), b = at("10.9.1.2", 0);
    ck_assert(addr_in_prefix(&a.addr, &b.addr, 96 + 23));
    ck_assert(!addr_in_prefix(&a.addr, &b.addr, 96 + 24));
    ck_assert(addr_in_prefix(&a.addr, &a.addr, 128));
}
END_TEST

struct cover {
    const struct v4_prefix *except;
    unsigned n;
    uint64_t addresses; /* covered so far */
    uint64_t next;      /* prefixes come in order */
};

static uint64_t size_of(const struct v4_prefix *p)
{
    return (uint64_t)1 << (32 - p->len);
}

static int cover_visit(const struct v4_prefix *p, void *arg)
{
    struct cover *c = arg;
    ck_assert_uint_ge(p->addr, c->next);
    ck_assert_uint_eq(p->addr % size_of(p), 0);
    for (unsigned i = 0; i < c->n; i++) {
        const struct v4_prefix *e = &c->except[i];
        const bool apart = p->addr + size_of(p) <= e->addr || e->addr + size_of(e) <= p->addr;
        ck_assert(apart);
    }
    c->next = p->addr + size_of(p);
    c->addresses += size_of(p);
    return 0;
}

/* Disjoint, none of the exceptions, and nothing else is missing. */
START_TEST(cover_of_the_rest)
{
    static const struct v4_prefix sets[][4] = {
        {{0x7f000000, 8}},
        {{0x7f000000, 8}, {0x0a4d0001, 32}, {0xffffffff, 32}, {0x00000000, 32}},
        {{0x00000000, 1}, {0x80000000, 2}},
        {{0x00000000, 1}, {0x80000000, 1}},
        {{0x00000000, 0}},
    };
    static const uint64_t excepted[] = {1 << 24, (1 << 24) + 3, (uint64_t)3 << 30,
                                        (uint64_t)1 << 32, (uint64_t)1 << 32};
    static const unsigned counts[] = {1, 4, 2, 2, 1};
    struct cover c = {.except = sets[_i], .n = counts[_i]};
    ck_assert_int_eq(addr4_cover(c.except, c.n, cover_visit, &c), 0);
    ck_assert_uint_eq(c.addresses + excepted[_i], (uint64_t)1 << 32);
}
END_TEST

START_TEST(cover_of_all)
{
    struct cover c = {.n = 0};
    ck_assert_int_eq(addr4_cover(NULL, 0, cover_visit, &c), 0);
    ck_assert_uint_eq(c.addresses, (uint64_t)1 << 32);
}
END_TEST

Suite *suite_config(void)
{
    Suite *s = suite_create("config");
    TCase *tc = tcase_create("core");
    tcase_add_test(tc, defaults);
    tcase_add_test(tc, understood);
    tcase_add_test(tc, fastopen_key);
    tcase_add_loop_test(tc, malformed_values, 0, (int)ARRAY_LEN(malformed));
    tcase_add_test(tc, unknown_trace_word_lists_known);
    tcase_add_test(tc, unknown_variable);
    tcase_add_test(tc, gateway_must_be_on_link);
    tcase_add_test(tc, rules_first_match_wins);
    tcase_add_test(tc, rules_wildcards);
    tcase_add_test(tc, addresses);
    tcase_add_loop_test(tc, cover_of_the_rest, 0, 5);
    tcase_add_test(tc, cover_of_all);
    suite_add_tcase(s, tc);
    return s;
}
