/* TCPSHIM_TRACE_FILTER: its grammar, and which flows it lets through. */
#include "shim/core/addr.h"
#include "shim/watch/filter.h"
#include "stack/tcp/flow.h"
#include "tests/unit/suites.h"

static bool parses(const char *text)
{
    char error[200] = "";
    const bool good = filter_parse(text, error, sizeof(error));
    ck_assert_msg(good == (error[0] == '\0'), "%s: '%s'", text, error);
    return good;
}

static struct flow flow(uint32_t number, const char *local, uint16_t lport, const char *remote,
                        uint16_t rport)
{
    struct flow f = {.number = number, .tuple = {.lport = lport, .rport = rport}};
    ck_assert(addr_parse(local, strlen(local), &f.tuple.local));
    ck_assert(addr_parse(remote, strlen(remote), &f.tuple.remote));
    return f;
}

START_TEST(grammar)
{
    static const char *const good[] = {
        "port 80",
        "port 80-90",
        "port 0",
        "port 65535",
        "not port 80",
        " port 80 ",
        "port 80,port 443",
        "port 80 , port 443",
        "port 80 and port 443",
        "addr 10.0.0.1",
        "addr 10.0.0.0/8",
        "addr 10.0.0.0/0",
        "addr 10.0.0.0/32",
        "addr ::1",
        "addr fd00::/128",
        "conn 7",
        "conn 1-4294967295",
        "not  conn 7\tand  addr 1.2.3.4",
        "port 80,port 443 and not addr 10.0.0.0/8",
    };
    static const char *const bad[] = {
        "",
        " ",
        ",",
        "port",
        "port ",
        "port x",
        "port -1",
        "port 65536",
        "port 90-80",
        "port 80-",
        "port 80-70000",
        "port 99999999999999999999999",
        "80",
        "Port 80",
        "port 80,",
        ",port 80",
        "port 80 and",
        "port 80 and ",
        "port 80 or port 81",
        "port 80 port 81",
        "not",
        "not not port 80",
        "not port",
        "addr",
        "addr 10.0.0",
        "addr 10.0.0.1/33",
        "addr 10.0.0.1/",
        "addr ::1/129",
        "addr 10.0.0.1/8/8",
        "conn 4294967296",
        "conn",
    };
    for (unsigned i = 0; i < ARRAY_LEN(good); i++)
        ck_assert_msg(parses(good[i]), "%s", good[i]);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(!parses(bad[i]), "%s", bad[i]);
}
END_TEST

START_TEST(how_many)
{
    char text[40 * 16] = "";
    for (unsigned i = 0; i < 32; i++)
        strcat(text, i ? ",conn 1" : "conn 1");
    ck_assert(parses(text));
    strcat(text, ",conn 1");
    ck_assert(!parses(text));
    /* what could not be read filters nothing */
    ck_assert(filter_passes(NULL));
}
END_TEST

static bool passes(const char *text, const struct flow *f)
{
    ck_assert_msg(parses(text), "%s", text);
    return filter_passes(f);
}

START_TEST(matching)
{
    const struct flow f = flow(7, "10.0.0.1", 80, "192.0.2.9", 4000);
    const struct {
        const char *text;
        bool shown;
    } cases[] = {
        {"port 80", true},
        {"port 4000", true},
        {"port 81", false},
        {"port 79-81", true},
        {"port 3999-4000", true},
        {"port 4001-65535", false},
        {"not port 80", false},
        {"not port 81", true},
        {"conn 7", true},
        {"conn 8", false},
        {"conn 1-6", false},
        {"not conn 1-6", true},
        {"addr 10.0.0.1", true},
        {"addr 192.0.2.9", true},
        {"addr 10.0.0.2", false},
        {"addr 10.0.0.0/31", true},
        {"addr 10.0.0.2/31", false},
        {"addr 0.0.0.0/0", true},
        {"addr fd00::/8", false},
        {"not addr 192.0.2.0/24", false},
        {"port 80 and conn 7", true},
        {"port 80 and conn 8", false},
        {"port 81 and conn 7", false},
        {"port 81,conn 7", true},
        {"conn 7,port 81", true},
        {"port 81,conn 8", false},
        {"port 81 and conn 7,port 80 and conn 7", true},
        {"port 80 and conn 8,conn 8", false},
        {"port 80,port 443 and not addr 10.0.0.0/8", true},
        {"port 443,port 80 and not addr 10.0.0.0/8", false},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        ck_assert_msg(passes(cases[i].text, &f) == cases[i].shown, "%s", cases[i].text);
}
END_TEST

START_TEST(no_connection)
{
    const struct flow listener = flow(2, "0.0.0.0", 80, "0.0.0.0", 0);
    filter_clear();
    ck_assert(filter_passes(NULL));
    ck_assert(!passes("port 80", NULL));
    ck_assert(!passes("not port 80", NULL));
    /* a listener has no other end: nothing is said about that */
    ck_assert(passes("port 80", &listener));
    ck_assert(!passes("port 0", &listener));
    filter_clear();
    ck_assert(filter_passes(&listener));
}
END_TEST

Suite *suite_trace_filter(void)
{
    Suite *s = suite_create("trace_filter");
    TCase *t = tcase_create("all");
    tcase_add_test(t, grammar);
    tcase_add_test(t, how_many);
    tcase_add_test(t, matching);
    tcase_add_test(t, no_connection);
    suite_add_tcase(s, t);
    return s;
}
