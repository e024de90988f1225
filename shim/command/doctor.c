#include "shim/command/command.h"

static int run(int argc, char **argv)
{
    struct options o;
    (void)argc;
    options_begin(&o, &command_doctor, argv);
    const int option = options_next(&o);
    if (option == OPTION_HELP)
        return STATUS_OK;
    if (option == OPTION_BAD)
        return STATUS_USAGE;
    return complain(STATUS_FAILED, "not there yet");
}

const struct subcommand command_doctor = {.name = "doctor",
                                          .synopsis = "",
                                          .summary = "not there yet",
                                          .text = "Not there yet.",
                                          .run = run};
