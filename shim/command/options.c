/* Reading a command line as getopt_long(3) does, from a subcommand's own table. */
#include <string.h>

#include "shim/command/command.h"
#include "shim/command/view/filter.h"

void options_begin(struct options *o, const struct subcommand *of, char **argv)
{
    *o = (struct options){.of = of, .words = argv + 1, .operands = argv};
}

static int by_letter(const struct subcommand *s, char letter)
{
    for (unsigned i = 0; i < s->noptions; i++)
        if (s->options[i].name != NULL && s->options[i].letter == letter)
            return (int)i;
    return OPTION_BAD;
}

/* By its whole name, or by a beginning of it that no other has. */
static int by_name(const struct subcommand *s, const char *name, size_t len)
{
    int found = OPTION_BAD;
    for (unsigned i = 0; i < s->noptions; i++) {
        const char *known = s->options[i].name;
        if (known == NULL || strncmp(known, name, len) != 0)
            continue;
        if (known[len] == '\0')
            return (int)i;
        found = found == OPTION_BAD ? (int)i : OPTION_END;
    }
    return found == OPTION_END ? OPTION_BAD : found;
}

static int unknown(const struct options *o, const char *option, int len)
{
    complain(STATUS_USAGE, "there is no option %.*s; `tcpshim %s --help` lists all", len, option,
             o->of->name);
    return OPTION_BAD;
}

static int take_help(const struct options *o)
{
    help_subcommand(stdout, o->of);
    return OPTION_HELP;
}

static int take_letter(struct options *o)
{
    const char letter[] = {'-', *o->letters++, '\0'};
    const int i = by_letter(o->of, letter[1]);
    if (i < 0)
        return letter[1] == 'h' ? take_help(o) : unknown(o, letter, 2);
    if (o->of->options[i].arg == NULL)
        return i;
    o->value = *o->letters != '\0' ? o->letters : *o->words;
    if (*o->letters == '\0' && o->value != NULL)
        o->words++;
    o->letters = NULL;
    if (o->value != NULL)
        return i;
    complain(STATUS_USAGE, "%s needs a value: %s %s", letter, letter, o->of->options[i].arg);
    return OPTION_BAD;
}

static int take_word(struct options *o, const char *word)
{
    const size_t len = strcspn(word + 2, "=");
    const bool joined = word[2 + len] == '=';
    const int i = by_name(o->of, word + 2, len);
    if (i < 0)
        return strcmp(word, "--help") == 0 ? take_help(o) : unknown(o, word, (int)len + 2);
    const struct option_spec *spec = &o->of->options[i];
    if (spec->arg == NULL && joined) {
        complain(STATUS_USAGE, "--%s takes no value", spec->name);
        return OPTION_BAD;
    }
    if (spec->arg == NULL)
        return i;
    o->value = joined ? word + 3 + len : *o->words;
    if (!joined && o->value != NULL)
        o->words++;
    if (o->value != NULL)
        return i;
    complain(STATUS_USAGE, "--%s needs a value: --%s %s", spec->name, spec->name, spec->arg);
    return OPTION_BAD;
}

int options_next(struct options *o)
{
    o->value = NULL;
    if (o->letters != NULL && *o->letters != '\0')
        return take_letter(o);
    for (char *word = *o->words; word != NULL; word = *o->words) {
        o->words++;
        if (!o->no_more && strcmp(word, "--") == 0) {
            o->no_more = true;
            continue;
        }
        if (!o->no_more && word[0] == '-' && word[1] == '-')
            return take_word(o, word);
        if (!o->no_more && word[0] == '-' && word[1] != '\0') {
            o->letters = word + 1;
            return take_letter(o);
        }
        o->operands[o->noperands++] = word;
        o->no_more |= o->of->command_at != 0 && o->noperands >= (int)o->of->command_at;
    }
    o->operands[o->noperands] = NULL;
    return OPTION_END;
}

bool option_time(const char *option, const char *value, int64_t *ns)
{
    if (parse_duration(value, ns))
        return true;
    complain(0, "%s %s: a time, as 1.5 or 20ms", option, value);
    return false;
}
