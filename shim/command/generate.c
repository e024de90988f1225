/* The manual page and the shell completions, from the same tables as the help texts. */
#include "shim/command/command.h"

int generate(const char *what)
{
    return complain(STATUS_USAGE, "nothing generates %s yet", what);
}
