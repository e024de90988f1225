/* stack/tcp/flow.c */
#include "stack/tcp/flow.h"
#include "tests/unit/pools.h"
#include "tests/unit/suites.h"

static struct flow_table table;

static void setup(void)
{
    const struct siphash_key key = {1, 2};
    table.buckets = calloc(FLOW_BUCKETS, sizeof(struct list));
    table.port_buckets = calloc(FLOW_PORT_BUCKETS, sizeof(struct list));
    flow_table_init(&table, &key);
}

static void teardown(void)
{
    free(table.buckets);
    free(table.port_buckets);
}

static struct flow_tuple tuple(uint32_t local, uint16_t lport, uint32_t remote, uint16_t rport)
{
    struct flow_tuple t;
    memset(&t, 0xa5, sizeof(t)); /* padding must not matter */
    t.local = ip_addr_from_v4(local);
    t.remote = ip_addr_from_v4(remote);
    t.lport = lport;
    t.rport = rport;
    return t;
}

START_TEST(test_exact_match)
{
    struct flow f = {.kind = FLOW_CONN, .tuple = tuple(1, 80, 2, 5000)};
    flow_insert(&table, &f);
    struct flow_tuple t = tuple(1, 80, 2, 5000);
    memset((char *)&t + 36, 0x5a, sizeof(t) - 36);
    ck_assert_ptr_eq(flow_find(&table, &t), &f);
    const struct flow_tuple others[] = {
        tuple(3, 80, 2, 5000), tuple(1, 81, 2, 5000), tuple(1, 80, 3, 5000),
        tuple(1, 80, 2, 5001), tuple(2, 5000, 1, 80),
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        ck_assert_ptr_null(flow_find(&table, &others[i]));
    ck_assert_uint_eq(table.count, 1);
    flow_remove(&table, &f);
    flow_remove(&table, &f); /* a second time is harmless */
    ck_assert_uint_eq(table.count, 0);
    ck_assert_ptr_null(flow_find(&table, &t));
}
END_TEST

START_TEST(test_ports)
{
    struct flow listener = {.kind = FLOW_LISTENER, .tuple = tuple(0, 80, 0, 0)};
    struct flow conn = {.kind = FLOW_CONN, .tuple = tuple(1, 80, 2, 5000)};
    ck_assert(!flow_port_used(&table, 80));
    flow_insert(&table, &conn);
    flow_insert(&table, &listener);
    ck_assert(flow_port_used(&table, 80));
    ck_assert(!flow_port_used(&table, 81));
    ck_assert_ptr_eq(list_first(flow_port_list(&table, 80), struct flow, port_link), &listener);
    flow_remove(&table, &listener);
    ck_assert(flow_port_used(&table, 80));
    flow_remove(&table, &conn);
    ck_assert(!flow_port_used(&table, 80));
}
END_TEST

/* What the last segment was for is remembered no longer than it is in the table. */
START_TEST(test_arriving)
{
    struct flow half_open = {.kind = FLOW_HALF_OPEN, .tuple = tuple(1, 80, 2, 3000)};
    struct flow conn = {.kind = FLOW_CONN, .tuple = half_open.tuple};
    struct flow other = {.kind = FLOW_CONN, .tuple = tuple(1, 80, 2, 3001)};
    flow_insert(&table, &other);
    flow_insert(&table, &half_open);
    ck_assert_ptr_eq(flow_find_arriving(&table, &conn.tuple), &half_open);
    ck_assert_ptr_eq(flow_find_arriving(&table, &other.tuple), &other);
    ck_assert_ptr_eq(flow_find_arriving(&table, &conn.tuple), &half_open);
    ck_assert_ptr_eq(flow_find_arriving(&table, &conn.tuple), &half_open);
    flow_insert(&table, &conn);
    ck_assert_ptr_eq(flow_find_arriving(&table, &conn.tuple), &conn);
    flow_remove(&table, &half_open);
    ck_assert_ptr_eq(flow_find_arriving(&table, &conn.tuple), &conn);
    flow_remove(&table, &conn);
    ck_assert_ptr_null(flow_find_arriving(&table, &conn.tuple));
    ck_assert_ptr_null(flow_find_arriving(&table, &half_open.tuple));
    flow_remove(&table, &other);
}
END_TEST

/* 100,000 connections of one server: all found, and no bucket is long. */
START_TEST(test_many)
{
    enum { N = 100000 };
    struct flow *flows = calloc(N, sizeof(*flows));
    for (uint32_t i = 0; i < N; i++) {
        flows[i].kind = FLOW_CONN;
        flows[i].tuple = tuple(1, 80, 2 + i / 50000, (uint16_t)(1024 + i % 50000));
        flow_insert(&table, &flows[i]);
    }
    ck_assert_uint_eq(table.count, N);
    unsigned found = 0;
    for (uint32_t i = 0; i < N; i++)
        found += flow_find(&table, &flows[i].tuple) == &flows[i];
    ck_assert_uint_eq(found, N);
    unsigned longest = 0;
    for (uint32_t b = 0; b < FLOW_BUCKETS; b++) {
        unsigned n = 0;
        list_for_each (node, flow_bucket_ready(&table.buckets[b]))
            n++;
        longest = n > longest ? n : longest;
    }
    ck_assert_uint_le(longest, 14);
    for (uint32_t i = 0; i < N; i++)
        flow_remove(&table, &flows[i]);
    ck_assert_uint_eq(table.count, 0);
    free(flows);
}
END_TEST

Suite *suite_flow(void)
{
    Suite *s = suite_create("flow");
    TCase *tc = tcase_create("flow");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_exact_match);
    tcase_add_test(tc, test_ports);
    tcase_add_test(tc, test_arriving);
    tcase_add_test(tc, test_many);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(s, tc);
    return s;
}
