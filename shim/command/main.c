/* tcpshim: the command beside libtcpshim.so. See command.h. */
#include <string.h>

#include "shim/command/command.h"

const struct subcommand *const subcommands[] = {
#define X(name) &command_##name,
    SUBCOMMANDS(X)
#undef X
};
const unsigned nsubcommands = sizeof(subcommands) / sizeof(subcommands[0]);

const struct subcommand *subcommand_find(const char *name)
{
    for (unsigned i = 0; i < nsubcommands; i++)
        if (strcmp(subcommands[i]->name, name) == 0)
            return subcommands[i];
    return NULL;
}

/* `tcpshim help [COMMAND]`, `tcpshim --help`. */
static int help(const char *name)
{
    const struct subcommand *s = name != NULL ? subcommand_find(name) : NULL;
    if (name != NULL && s == NULL)
        return complain(STATUS_USAGE, "there is no command '%s'; `tcpshim --help` lists all", name);
    if (s != NULL)
        help_subcommand(stdout, s);
    else
        help_all(stdout);
    return STATUS_OK;
}

/* What was printed did arrive? A full disk or a closed pipe must not look like success. */
static int finish(int status)
{
    if (fflush(stdout) != 0 && status == STATUS_OK)
        return complain(STATUS_FAILED, "cannot write: %m");
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help_all(stderr);
        return STATUS_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "help") == 0)
        return finish(help(argc > 2 ? argv[2] : NULL));
    if (strcmp(word, "--version") == 0) {
        puts("tcpshim " TCPSHIM_VERSION);
        return finish(STATUS_OK);
    }
    if (strcmp(word, "--generate") == 0 && argc == 3)
        return finish(generate(argv[2]));
    const struct subcommand *s = subcommand_find(word);
    if (s == NULL && word[0] == '-')
        return complain(STATUS_USAGE, "there is no option %s before a command; see tcpshim --help",
                        word);
    if (s == NULL)
        return complain(STATUS_USAGE, "there is no command '%s'; `tcpshim --help` lists all", word);
    complain_name = s->name;
    return finish(s->run(argc - 1, argv + 1));
}
