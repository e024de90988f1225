/* Traces as text and as JSON: a line for each type of argument, and none that anything can break.
 */
#include <errno.h>
#include <stdlib.h>

#include "shim/core/addr.h"
#include "shim/core/config.h"
#include "shim/watch/format.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/names.h"
#include "stack/tcp/wire.h"
#include "tests/unit/suites.h"

static struct line line;

static struct flow flow_of(uint32_t number, const char *local, uint16_t lport, const char *remote,
                           uint16_t rport)
{
    struct flow f = {.number = number, .kind = FLOW_TIME_WAIT};
    ck_assert(addr_parse(local, strlen(local), &f.tuple.local));
    ck_assert(addr_parse(remote, strlen(remote), &f.tuple.remote));
    f.tuple.lport = lport;
    f.tuple.rport = rport;
    return f;
}

static const char *format(void (*as)(struct line *, const struct shown *), const struct shown *s)
{
    line.n = 0;
    line.cut = false;
    as(&line, s);
    ck_assert_uint_le(line.n, LINE_MAX_BYTES);
    line.text[line.n] = '\0';
    return line.text;
}

static uint64_t pointer(const void *p)
{
    return (uintptr_t)p;
}

/* ---- golden lines ---- */

static const struct tcp_options syn_options = {.has_mss = true,
                                               .has_wscale = true,
                                               .sack_permitted = true,
                                               .has_ts = true,
                                               .mss = 1460,
                                               .wscale = 7,
                                               .ts_val = 100,
                                               .ts_ecr = 0};
static const struct tcp_options sack_options = {.sack_count = 2,
                                                .sack = {{{1101}, {1201}}, {{1301}, {1401}}}};
static const struct trace_ranges ranges = {
    .count = 2,
    .more = 5,
    .ranges = {{2001, 100, 100, 50, 1500000000}, {2101, 10, 1448, 1448, 1600000000}}};

/* Of connection 3, whose sequence numbers begin at 1000 (ours) and 2000. */
static const struct golden {
    enum trace_event_id id;
    unsigned argc;
    uint64_t argv[TRACE_ARGS_MAX];
    const char *text, *json;
} golden[] = {
    {TRACE_EV_STATE,
     3,
     {TCP_SYN_SENT, TCP_ESTABLISHED, TCP_WHY_RX_SYN_ACK},
     "state  SYN_SENT -> ESTABLISHED  rx SYN,ACK",
     "\"class\":\"state\",\"ev\":\"state\",@,\"from\":\"SYN_SENT\",\"to\":\"ESTABLISHED\","
     "\"why\":\"rx SYN,ACK\",\"why_id\":\"rx_syn_ack\""},
    {TRACE_EV_SYN_QUEUED,
     3,
     {1, 2, 128},
     "syn-queued  SYN queue 1, accept queue 2/128",
     "\"class\":\"queue\",\"ev\":\"syn-queued\",@,\"syn_queue\":1,\"accept_queue\":2,"
     "\"backlog\":128"},
    {TRACE_EV_REFUSED,
     4,
     {TCP_WHY_QUEUE_FULL, 1, 4, 3},
     "refused  accept queue full  SYN queue 1, accept queue 4/3",
     "\"class\":\"queue\",\"ev\":\"refused\",@,\"why\":\"accept queue full\","
     "\"why_id\":\"queue_full\",\"syn_queue\":1,\"accept_queue\":4,\"backlog\":3"},
    {TRACE_EV_SEGMENT_OUT,
     7,
     {TCP_SYN, 1000, 0, 0, 65535, TCP_WHY_SEND_SYN, 0},
     "tx SYN seq 0 (1000) win 65535 len 0 mss 1460 ws 7 sackOK ts 100 0  open",
     "\"class\":\"segment\",\"ev\":\"tx\",@,\"flags\":\"SYN\",\"seq\":1000,\"seq_rel\":0,\"len\":0,"
     "\"wnd\":65535,\"why\":\"open\",\"why_id\":\"send_syn\","
     "\"opt\":{\"mss\":1460,\"wscale\":7,\"sack_ok\":true,\"ts\":[100,0]}"},
    {TRACE_EV_SEGMENT_IN,
     7,
     {TCP_ACK, 2001, 1101, 0, 4096, TCP_WHY_NONE, 1},
     "rx ACK seq 1 (2001) ack 101 (1101) win 4096 len 0 sack 101-201,301-401",
     "\"class\":\"segment\",\"ev\":\"rx\",@,\"flags\":\"ACK\",\"seq\":2001,\"seq_rel\":1,"
     "\"ack\":1101,\"ack_rel\":101,\"len\":0,\"wnd\":4096,"
     "\"opt\":{\"sack\":[[1101,1201],[1301,1401]]}"},
    {TRACE_EV_ACK_HELD,
     3,
     {TCP_WHY_HELD_NO_ACK_YET, 40000000, 1448},
     "ack-held delay=40.000ms owed=1448  delayed ACK: waiting for company",
     "\"class\":\"segment\",\"ev\":\"ack-held\",@,\"why\":\"delayed ACK: waiting for company\","
     "\"why_id\":\"held_no_ack_yet\",\"delay\":0.040000000,\"owed\":1448"},
    {TRACE_EV_RECV_FROM,
     3,
     {115, 2, 0},
     "recv-from bytes=115 segments=2 from=1-101,101-111/1448,+5",
     "\"class\":\"buffer\",\"ev\":\"recv-from\",@,\"bytes\":115,\"segments\":2,\"from\":["
     "{\"seq\":2001,\"seq_rel\":1,\"len\":100,\"of\":100,\"segment\":50,\"t\":1.500000000},"
     "{\"seq\":2101,\"seq_rel\":101,\"len\":10,\"of\":1448,\"segment\":1448,\"t\":1.600000000}],"
     "\"more\":5"},
    {TRACE_EV_TIMER_FIRED,
     2,
     {TCP_TIMER_RETRANSMIT, 3},
     "timer timer=retransmit count=3",
     "\"class\":\"timer\",\"ev\":\"timer\",@,\"timer\":\"retransmit\",\"count\":3"},
    {TRACE_EV_TIMER_ARMED,
     2,
     {TCP_TIMER_PERSIST, 200000001},
     "timer-armed timer=persist in=200.000ms",
     "\"class\":\"timer\",\"ev\":\"timer-armed\",@,\"timer\":\"persist\",\"in\":0.200000001"},
    {TRACE_EV_CALL,
     6,
     {0, 5, (uint64_t)-1, EAGAIN, 0, 1400000000},
     "call  recv(5, 10, \"MSG\") = -1 EAGAIN  after 100.000ms",
     "\"class\":\"call\",\"ev\":\"call\",@,\"call\":\"recv\",\"fd\":5,\"result\":-1,\"err\":11,"
     "\"error\":\"EAGAIN\",\"args\":\"10, \\\"MSG\\\"\",\"begin\":1.400000000"},
    {TRACE_EV_RULE,
     3,
     {0, 1, 0},
     "rule  recv(): user  10, \"MSG\"",
     "\"class\":\"rule\",\"ev\":\"rule\",@,\"call\":\"recv\",\"user\":true,"
     "\"why\":\"10, \\\"MSG\\\"\""},
    {TRACE_EV_ARP_LEARNED,
     1,
     {0x0700000a},
     "arp-learned addr=10.0.0.7",
     "\"class\":\"link\",\"ev\":\"arp-learned\",@,\"addr\":\"10.0.0.7\""},
    {TRACE_EV_LOST,
     5,
     {TCP_WHY_LOST_RACK, 1101, 100, 2, 5000000},
     "lost seq=101 (1101) len=100 sent=2 age=5.000ms  sent before something that has arrived, and "
     "too long ago (RACK)",
     "\"class\":\"cc\",\"ev\":\"lost\",@,\"why\":\"sent before something that has arrived, and too "
     "long ago (RACK)\",\"why_id\":\"lost_rack\",\"seq\":1101,\"seq_rel\":101,\"len\":100,"
     "\"sent\":2,\"age\":0.005000000"},
};

/* The arguments with what is pointed to in its place. */
static void fill(const struct golden *g, uint64_t argv[TRACE_ARGS_MAX])
{
    memcpy(argv, g->argv, sizeof(g->argv));
    if (g->id == TRACE_EV_SEGMENT_OUT)
        argv[6] = pointer(&syn_options);
    if (g->id == TRACE_EV_SEGMENT_IN)
        argv[6] = pointer(&sack_options);
    if (g->id == TRACE_EV_RECV_FROM)
        argv[2] = pointer(&ranges);
    if (g->id == TRACE_EV_CALL || g->id == TRACE_EV_RULE)
        argv[0] = pointer("recv");
    if (g->id == TRACE_EV_CALL)
        argv[4] = pointer("10, \"MSG\"");
    if (g->id == TRACE_EV_RULE)
        argv[2] = pointer("10, \"MSG\"");
}

START_TEST(golden_lines)
{
    const struct flow f = flow_of(3, "10.0.0.1", 80, "10.0.0.2", 4000);
    config.start = 250000000;
    for (unsigned i = 0; i < ARRAY_LEN(golden); i++) {
        const struct golden *g = &golden[i];
        uint64_t argv[TRACE_ARGS_MAX];
        char wanted[1000];
        fill(g, argv);
        const struct trace_record r = {
            .id = g->id, .now = 1500000000, .flow = &f, .argc = g->argc, .argv = argv};
        const struct shown s = {.r = &r,
                                .info = &trace_events[g->id],
                                .isn = {true, true, 1000, 2000},
                                .pid = 7,
                                .now = r.now};
        snprintf(wanted, sizeof(wanted), "1.250000 7 #3 10.0.0.1:80 -> 10.0.0.2:4000  %s", g->text);
        ck_assert_str_eq(format(trace_text, &s), wanted);
        const char *rest = strstr(g->json, "@,") + 1;
        const int head = (int)(rest - 2 - g->json);
        snprintf(wanted, sizeof(wanted),
                 "{\"t\":1.500000000,\"pid\":7,%.*s,\"conn\":3,\"local\":\"10.0.0.1:80\","
                 "\"peer\":\"10.0.0.2:4000\"%s}",
                 head, g->json, rest);
        ck_assert_str_eq(format(trace_json, &s), wanted);
        snprintf(wanted, sizeof(wanted), "{\"t\":1.500000000,%.*s%s}", head, g->json, rest);
        ck_assert_str_eq(format(trace_json_event, &s), wanted);
    }
    config.start = 0;
}
END_TEST

static const char *json_of(const struct flow *f, bool past, const char *why)
{
    const uint64_t argv[] = {pointer(why), 60};
    const struct trace_record r = {
        .id = TRACE_EV_DROPPED, .now = 1, .flow = f, .argc = 2, .argv = argv};
    const struct shown s = {.r = &r, .info = &trace_events[r.id], .pid = 7, .now = 1, .past = past};
    return format(trace_json, &s);
}

#define DROPPED "{\"t\":0.000000001,\"pid\":7,\"class\":\"link\",\"ev\":\"dropped\""

START_TEST(whose_it_is)
{
    const struct flow six = flow_of(0, "fd00::1", 80, "fd00::2", 4000),
                      listener = flow_of(2, "0.0.0.0", 80, "0.0.0.0", 0);
    ck_assert_str_eq(json_of(NULL, false, NULL), DROPPED ",\"len\":60}");
    ck_assert_str_eq(json_of(NULL, true, ""), DROPPED ",\"past\":true,\"len\":60}");
    ck_assert_str_eq(json_of(&six, false, NULL),
                     DROPPED ",\"local\":\"[fd00::1]:80\",\"peer\":\"[fd00::2]:4000\",\"len\":60}");
    ck_assert_str_eq(json_of(&listener, false, NULL),
                     DROPPED ",\"conn\":2,\"local\":\"0.0.0.0:80\",\"len\":60}");
}
END_TEST

START_TEST(escaping)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a\"b\\c/d", "a\\\"b\\\\c/d"},
        {"\n\t\x01\x7f", "\\u000a\\u0009\\u0001\\u007f"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xff", "\\ufffd"},
        {"\xc3", "\\ufffd"},                                    /* ends in the middle */
        {"\xc0\xaf", "\\ufffd\\ufffd"},                         /* overlong */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},              /* half of a surrogate pair */
        {"\xf4\x90\x80\x80x", "\\ufffd\\ufffd\\ufffd\\ufffdx"}, /* beyond Unicode */
        {"\xe2\x82x", "\\ufffd\\ufffdx"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char wanted[200];
        snprintf(wanted, sizeof(wanted), DROPPED ",\"why\":\"%s\",\"len\":60}", cases[i].out);
        ck_assert_str_eq(json_of(NULL, false, cases[i].in), wanted);
    }
    /* in text a line stays a line, and a terminal is not led astray */
    const uint64_t argv[] = {pointer("a\nb\033[2Jc"), 60};
    const struct trace_record r = {.id = TRACE_EV_DROPPED, .argc = 2, .argv = argv};
    const struct shown s = {.r = &r, .info = &trace_events[r.id], .pid = 7};
    ck_assert_str_eq(format(trace_text, &s), "0.000000 7  dropped len=60  a b [2Jc");
}
END_TEST

START_TEST(other_lines)
{
    line.n = 0;
    trace_json_lost(&line, 7, 1500000000, UINT64_MAX);
    line.text[line.n] = '\0';
    ck_assert_str_eq(
        line.text, "{\"t\":1.500000000,\"pid\":7,\"ev\":\"lost\",\"count\":18446744073709551615}");
    static const struct {
        uint64_t sec;
        const char *date;
    } dates[] = {
        {0, "1970-01-01T00:00:00.000000001Z"},
        {951782400, "2000-02-29T00:00:00.000000001Z"},
        {1709251199, "2024-02-29T23:59:59.000000001Z"},
        {1795334400, "2026-11-22T08:00:00.000000001Z"},
        {4107542400, "2100-03-01T00:00:00.000000001Z"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(dates); i++) {
        line.n = 0;
        put_date(&line, dates[i].sec, 1);
        line.text[line.n] = '\0';
        ck_assert_str_eq(line.text, dates[i].date);
    }
}
END_TEST

/* ---- nothing breaks a line ---- */

/* A JSON text at *p (RFC 8259), passed over; false: it is none. */
static bool json_value(const char **p);

static bool json_string(const char **p)
{
    if (*(*p)++ != '"')
        return false;
    for (; **p != '"'; (*p)++) {
        if ((unsigned char)**p < ' ')
            return false;
        if (**p == '\\' && strchr("\"\\/bfnrtu", *++*p) == NULL)
            return false;
    }
    (*p)++;
    return true;
}

static bool json_list(const char **p, char end)
{
    const bool object = end == '}';
    (*p)++;
    if (**p == end)
        return (*p)++, true;
    for (;; (*p)++) {
        if (object && (!json_string(p) || *(*p)++ != ':'))
            return false;
        if (!json_value(p))
            return false;
        if (**p != ',')
            break;
    }
    return *(*p)++ == end;
}

static bool json_value(const char **p)
{
    static const char *const words[] = {"true", "false", "null"};
    if (**p == '{')
        return json_list(p, '}');
    if (**p == '[')
        return json_list(p, ']');
    if (**p == '"')
        return json_string(p);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strncmp(*p, words[i], strlen(words[i])) == 0)
            return *p += strlen(words[i]), true;
    char *end;
    strtod(*p, &end);
    const bool any = end > *p;
    *p = end;
    return any;
}

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t extreme(void)
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      255,
                                      65535,
                                      INT32_MAX,
                                      (uint64_t)INT32_MAX + 1,
                                      UINT32_MAX,
                                      INT64_MAX,
                                      (uint64_t)INT64_MAX + 1,
                                      UINT64_MAX};
    const uint64_t r = next_random();
    return r % 3 ? values[(r >> 8) % ARRAY_LEN(values)] : next_random() >> (r >> 8) % 64;
}

static char long_text[6000], wild_text[6000];
static struct tcp_options most_options = {.has_mss = true,
                                          .has_wscale = true,
                                          .sack_permitted = true,
                                          .has_ts = true,
                                          .mss = UINT16_MAX,
                                          .wscale = UINT8_MAX,
                                          .ts_val = UINT32_MAX,
                                          .ts_ecr = UINT32_MAX,
                                          .sack_count = TCP_SACK_BLOCKS_MAX};
static struct trace_ranges most_ranges = {.count = TRACE_RANGES_MAX, .more = UINT32_MAX}, no_ranges;

static uint64_t any_value(const struct shown_arg *a)
{
    const char *const texts[] = {"", "short", long_text, wild_text,
                                 wild_text + next_random() % 5000};
    if (arg_is(a, "opt"))
        return next_random() % 3 ? pointer(&most_options) : 0;
    if (arg_is(a, "ranges"))
        return pointer(next_random() % 3 ? &most_ranges : &no_ranges);
    if (arg_is(a, "call"))
        return pointer("recvmmsg");
    if (arg_is(a, "str"))
        return pointer(texts[next_random() % ARRAY_LEN(texts)]);
    return extreme();
}

/* Every event with values that no program has: a whole line, and in JSON one object. */
START_TEST(any_values)
{
    memset(long_text, 'x', sizeof(long_text) - 1);
    for (size_t i = 0; i < sizeof(wild_text) - 1; i++)
        wild_text[i] = (char)(1 + next_random() % 255);
    memset(most_options.sack, 0xff, sizeof(most_options.sack));
    memset(most_ranges.ranges, 0xff, sizeof(most_ranges.ranges));
    for (unsigned round = 0; round < 15 * TRACE_EVENT_COUNT; round++) {
        struct trace_record r = {.id = round % TRACE_EVENT_COUNT, .now = extreme()};
        const struct trace_event_info *info = &trace_events[r.id];
        uint64_t argv[TRACE_ARGS_MAX] = {0};
        struct flow f = flow_of((uint32_t)extreme(), "255.255.255.255", (uint16_t)extreme(),
                                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (uint16_t)extreme());
        struct shown_arg a;
        const char *spec = info->args;
        unsigned n = 0;
        r.argc = TRACE_ARGS_MAX;
        r.argv = argv;
        while (next_arg(&r, &spec, &n, &a))
            argv[n - 1] = any_value(&a);
        r.argc = next_random() % 4 ? n : (unsigned)(next_random() % (n + 1));
        r.flow = next_random() % 4 ? &f : NULL;
        const struct shown s = {.r = &r,
                                .info = info,
                                .isn = {next_random() & 1, next_random() & 1, 1, UINT32_MAX},
                                .pid = INT32_MAX,
                                .now = extreme(),
                                .past = next_random() & 1};
        const char *text = format(trace_text, &s);
        for (const char *p = text; *p; p++)
            ck_assert_msg((unsigned char)*p >= ' ', "%s: control character", info->name);
        const char *p = format(trace_json, &s);
        ck_assert_msg(!line.cut, "%s: does not fit", info->name);
        ck_assert_msg(json_value(&p) && *p == '\0', "%s: %s", info->name, line.text);
    }
}
END_TEST

START_TEST(cut)
{
    const uint64_t argv[] = {pointer("recv"), 1, 1, 0, pointer(long_text), 0};
    const struct trace_record r = {.id = TRACE_EV_CALL, .argc = 6, .argv = argv};
    const struct shown s = {.r = &r, .info = &trace_events[r.id], .pid = 7};
    memset(long_text, 'x', sizeof(long_text) - 1);
    format(trace_text, &s);
    ck_assert(line.cut);
    ck_assert_uint_eq(line.n, LINE_MAX_BYTES);
}
END_TEST

Suite *suite_trace_format(void)
{
    Suite *s = suite_create("trace_format");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, golden_lines);
    tcase_add_test(t, whose_it_is);
    tcase_add_test(t, escaping);
    tcase_add_test(t, other_lines);
    tcase_add_test(t, any_values);
    tcase_add_test(t, cut);
    suite_add_tcase(s, t);
    return s;
}
