/* The manual page and the shell completions, from the same tables as the help texts. */
#include "shim/command/generate.h"

#include <string.h>

#include "shim/command/command.h"

int generate(const char *what)
{
    static const struct {
        const char *name;
        void (*make)(void);
    } makers[] = {{"man", generate_man}, {"bash", generate_bash}, {"zsh", generate_zsh}};
    for (unsigned i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
        if (strcmp(makers[i].name, what) == 0) {
            makers[i].make();
            return STATUS_OK;
        }
    }
    return complain(STATUS_USAGE, "--generate man, bash or zsh");
}
