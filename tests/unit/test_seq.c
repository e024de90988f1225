/* stack/tcp/seq.h and the strings of names.h */
#include "stack/tcp/names.h"
#include "stack/tcp/seq.h"
#include "tests/unit/suites.h"

/* RFC 9293 3.4: comparisons are modulo 2^32. */
START_TEST(test_order_across_wrap)
{
    const uint32_t bases[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};
    for (size_t i = 0; i < ARRAY_LEN(bases); i++) {
        const tcp_seq a = seq(bases[i]), b = seq_add(a, 100);
        ck_assert(seq_lt(a, b) && !seq_lt(b, a) && !seq_lt(a, a));
        ck_assert(seq_gt(b, a) && !seq_gt(a, b));
        ck_assert(seq_leq(a, a) && seq_leq(a, b) && !seq_leq(b, a));
        ck_assert(seq_geq(a, a) && seq_geq(b, a) && !seq_geq(a, b));
        ck_assert_int_eq(seq_diff(b, a), 100);
        ck_assert_int_eq(seq_diff(a, b), -100);
        ck_assert(seq_eq(seq_sub(b, 100), a));
        ck_assert(seq_eq(seq_max(a, b), b) && seq_eq(seq_min(a, b), a));
    }
}
END_TEST

START_TEST(test_in)
{
    const tcp_seq low = seq(0xffffff00);
    ck_assert(seq_in(low, low, 1));
    ck_assert(!seq_in(low, low, 0));
    ck_assert(seq_in(seq(0x10), low, 0x200));
    ck_assert(!seq_in(seq(0x100), low, 0x200));
    ck_assert(!seq_in(seq(0xfffffeff), low, 0x200));
}
END_TEST

START_TEST(test_names)
{
    ck_assert_str_eq(tcp_state_name(TCP_ESTABLISHED), "ESTABLISHED");
    ck_assert_str_eq(tcp_state_name(TCP_CLOSING), "CLOSING");
    ck_assert_str_eq(tcp_state_name(0), "?");
    ck_assert_str_eq(tcp_state_name(TCP_STATE_MAX + 1), "?");
    ck_assert_str_eq(tcp_timer_name(TCP_TIMER_RETRANSMIT), "retransmit");
    ck_assert_str_eq(tcp_timer_name(TCP_TIMER_COUNT), "?");
    ck_assert_str_eq(tcp_reason_text(TCP_WHY_NONE), "");
    ck_assert_str_eq(tcp_reason_text(TCP_WHY_RX_SYN_ACK), "rx SYN,ACK");
    ck_assert_str_eq(tcp_reason_text(TCP_REASON_COUNT), "?");
    for (unsigned i = 0; i < TCP_REASON_COUNT; i++)
        ck_assert_ptr_nonnull(tcp_reason_text(i));
}
END_TEST

Suite *suite_seq(void)
{
    Suite *s = suite_create("seq");
    TCase *tc = tcase_create("seq");
    tcase_add_test(tc, test_order_across_wrap);
    tcase_add_test(tc, test_in);
    tcase_add_test(tc, test_names);
    suite_add_tcase(s, tc);
    return s;
}
