/* Marks of connections (stack/tcp/marks.h), as the stack sets and clears them. */
#include "stack/tcp/marks.h"
#include "tests/packet/harness.h"

static struct flow_mark marks[MARKS];

static void use_marks(void)
{
    memset(marks, 0, sizeof(marks));
    tcp_use_marks(the_stack(), marks);
}

static unsigned marked(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MARKS; i++)
        n += marks[i].ifindex != 0;
    return n;
}

TEST(mark_lives, "a connection is marked as long as it has something to say")
{
    use_marks();
    struct tcp_conn *c = established(NULL);
    check_eq(marked(), 1);
    call_abort(c);
    expect_tx("RA");
    check_eq(marked(), 0);
}

TEST(mark_comes_again, "whose place another got has it again when it has traffic")
{
    use_marks();
    established(NULL);
    memset(marks, 0, sizeof(marks));
    inject("A ack 1");
    check_eq(marked(), 0);
    for (unsigned i = 0; i < 64; i++)
        inject("A ack 1");
    check_eq(marked(), 1);
}
