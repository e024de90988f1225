/*
 * Runs the unit tests. Two binaries are made of this folder:
 *
 *   unit     main.c + every test_*.c of UNIT_SUITES + all of stack/.
 *   unit_ip  main.c, stub_tcp.c, ip_harness.c and the test_*.c of UNIT_IP_SUITES, all compiled with
 *            -DUNIT_IP, + stack/ without stack/tcp (stub_tcp.c stands in for it).
 *
 * Both link -lcheck (pkg-config --libs check). An argument runs the suite of that name alone.
 * CK_FORK=no runs all in one process, for debuggers and sanitizers.
 */
#include "tests/unit/suites.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define X(name) {#name, suite_##name},
    SUITES(X)
#undef X
};

int main(int argc, char **argv)
{
    SRunner *runner = NULL;
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (argc > 1 && strcmp(argv[1], suites[i].name) != 0)
            continue;
        Suite *s = suites[i].make();
        if (runner == NULL)
            runner = srunner_create(s);
        else
            srunner_add_suite(runner, s);
    }
    if (runner == NULL)
        return EXIT_FAILURE;
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
