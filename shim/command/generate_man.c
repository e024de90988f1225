/* docs/tcpshim.1, in the macros of man(7). */
#include "shim/command/generate.h"

#include <string.h>

#include "shim/command/command.h"

#define COLUMNS 78 /* of the source */

/* One character in roff's eyes. Returns the columns taken. */
static unsigned put(char c, bool line_start)
{
    if (line_start && (c == '.' || c == '\''))
        return (unsigned)printf("\\&%c", c);
    if (c == '\\')
        return (unsigned)printf("\\e");
    if (c == '-')
        return (unsigned)printf("\\-");
    if (c == '~')
        return (unsigned)printf("\\(ti");
    if (c == '^')
        return (unsigned)printf("\\(ha");
    putchar(c);
    return 1;
}

static void verbatim(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        put(line[i], i == 0);
    putchar('\n');
}

/* Lines that begin with a blank, as they are. Returns what follows. */
static const char *examples(const char *text)
{
    fputs(".PP\n.nf\n", stdout);
    while (*text == ' ') {
        const size_t len = strcspn(text, "\n");
        verbatim(text, len);
        text += len + (text[len] == '\n');
    }
    fputs(".fi\n", stdout);
    return text;
}

/* Paragraphs as in the help texts; `words in backquotes` are bold. */
static void paragraphs(const char *text, const char *between)
{
    unsigned column = 0;
    bool bold = false;
    while (*text != '\0') {
        if (*text == '\n' || (column == 0 && *text == ' ')) {
            const bool paragraph = text[0] == '\n' && text[1] == '\n';
            const bool lines = text[0] == ' ' || text[1] == ' ';
            if (column > 0)
                putchar('\n');
            column = 0;
            text += text[0] == '\n' ? 1 + paragraph : 0;
            if (paragraph)
                puts(between);
            if (lines)
                text = examples(text);
            continue;
        }
        if (*text == ' ') {
            text++;
            continue;
        }
        const size_t len = strcspn(text, " \n");
        if (column > 0 && column + 1 + len > COLUMNS) {
            putchar('\n');
            column = 0;
        }
        if (column > 0) {
            putchar(' ');
            column++;
        }
        for (size_t i = 0; i < len; i++) {
            if (text[i] == '`') {
                bold = !bold;
                column += (unsigned)printf(bold ? "\\fB" : "\\fR");
            } else {
                column += put(text[i], column == 0);
            }
        }
        text += len;
    }
    if (column > 0)
        putchar('\n');
}

static void bold(const char *text)
{
    fputs("\\fB", stdout);
    for (; *text != '\0'; text++)
        put(*text, false);
    fputs("\\fR", stdout);
}

static void italic(const char *text)
{
    fputs("\\fI", stdout);
    for (; *text != '\0'; text++)
        put(*text, false);
    fputs("\\fR", stdout);
}

static void option(const struct option_spec *o)
{
    const char letter[] = {'-', o->letter, '\0'};
    char name[60];
    snprintf(name, sizeof(name), "--%s", o->name);
    puts(".TP");
    if (o->letter != 0) {
        bold(letter);
        fputs(", ", stdout);
    }
    bold(name);
    if (o->arg != NULL) {
        putchar(' ');
        italic(o->arg);
    }
    putchar('\n');
    paragraphs(o->text, ".IP");
}

static void synopsis(const struct subcommand *s)
{
    const char *line = s->synopsis;
    for (;;) {
        const size_t len = strcspn(line, "\n");
        char name[40];
        snprintf(name, sizeof(name), "tcpshim %s", s->name);
        bold(name);
        putchar(' ');
        verbatim(line, len);
        if (line[len] == '\0')
            break;
        line += len + 1;
        puts(".br");
    }
}

static void subcommand(const struct subcommand *s)
{
    printf(".SS tcpshim %s\n", s->name);
    synopsis(s);
    puts(".PP");
    paragraphs(s->text, ".PP");
    for (unsigned i = 0; i < s->nverbs; i++) {
        puts(".TP");
        bold(s->verbs[i].name);
        putchar(' ');
        verbatim(s->verbs[i].synopsis, strlen(s->verbs[i].synopsis));
        paragraphs(s->verbs[i].text, ".IP");
    }
    for (unsigned i = 0; i < s->noptions; i++) {
        if (s->options[i].name == NULL) {
            puts(".PP");
            paragraphs(s->options[i].text, ".PP");
        } else {
            option(&s->options[i]);
        }
    }
    if (s->nexamples > 0)
        puts(".PP\nExamples:");
    for (unsigned i = 0; i < s->nexamples; i++) {
        puts(".PP\n.nf");
        verbatim(s->examples[i].line, strlen(s->examples[i].line));
        puts(".fi\n.RS 4");
        paragraphs(s->examples[i].text, ".PP");
        puts(".RE");
    }
}

static void section(const char *name, const char *text)
{
    printf(".SH %s\n", name);
    paragraphs(text, ".PP");
}

struct entry {
    const char *name, *text;
};

static void entries(const char *heading, const struct entry *e, unsigned n)
{
    printf(".SH %s\n", heading);
    for (unsigned i = 0; i < n; i++) {
        puts(".TP");
        bold(e[i].name);
        putchar('\n');
        paragraphs(e[i].text, ".IP");
    }
}

static const struct entry environment[] = {
    {"TCPSHIM_*",
     "The variables that the library reads; each has its option of `tcpshim run`, under "
     "which it is described. Set in the environment they hold for `tcpshim run`, too; "
     "an option overrides."},
    {"NO_COLOR", "Set and not empty: no colours. There are none either where the output is no "
                 "terminal."},
    {"COLUMNS", "The width of the output where it is no terminal; 80 if not set."},
    {"XDG_RUNTIME_DIR", "Where the laboratories of an ordinary user are found."},
    {"SHELL", "What `tcpshim lab shell` starts."},
    {"LAB, LAB_HOST, LAB_A, LAB_B", "Set for programs in a laboratory: its name, the host, and the "
                                    "hosts' addresses."},
};

static const struct entry files[] = {
    {"libtcpshim.so, tcpshim-keeper",
     "The library, and the program that finishes the connections of ended programs; they lie in "
     "one directory: that of the command, or ../lib or ../lib/tcpshim from it."},
    {"/run/tcpshim/NAME.lab, $XDG_RUNTIME_DIR/tcpshim/NAME.lab",
     "The socket by which a laboratory is asked; that of a dead one is removed when it is met."},
};

void generate_man(void)
{
    puts(".\\\" Made by `tcpshim --generate man` (make docs); change shim/command/ instead.\n"
         ".TH TCPSHIM 1 2026-11-22 \"tcpshim " TCPSHIM_VERSION "\" \"User Commands\"\n"
         ".SH NAME\ntcpshim \\- TCP of unmodified programs in user space: run it, watch it\n"
         ".SH SYNOPSIS");
    for (unsigned i = 0; i < nsubcommands; i++) {
        synopsis(subcommands[i]);
        if (i + 1 < nsubcommands)
            puts(".br");
    }
    section(
        "DESCRIPTION",
        "The library libtcpshim.so, preloaded into a dynamically linked program, serves its TCP "
        "socket calls "
        "from a TCP/IP stack inside the process, over a raw packet socket; the program does not "
        "know the difference. This command starts programs so, shows what their connections do, "
        "and makes laboratories to try it in. Begin with\n"
        "    tcpshim doctor\n"
        "    tcpshim run --trace state -- curl http://10.0.0.7/");
    puts(".SH COMMANDS");
    for (unsigned i = 0; i < nsubcommands; i++)
        subcommand(subcommands[i]);
    puts(".PP\nEach command also takes \\fB\\-h\\fR, \\fB\\-\\-help\\fR.");
    puts(".SH EXIT STATUS");
    for (unsigned i = 0; i < nexit_statuses; i++) {
        printf(".TP\n.B %s\n", exit_statuses[i].number);
        paragraphs(exit_statuses[i].text, ".IP");
    }
    entries("ENVIRONMENT", environment, sizeof(environment) / sizeof(environment[0]));
    entries("FILES", files, sizeof(files) / sizeof(files[0]));
    section(
        "SECURITY",
        "With file capabilities on this command, whoever may execute it can give CAP_NET_RAW to "
        "any program of his own: to read and send whatever frames the interfaces carry. Let a "
        "group execute it, not everybody (chgrp, chmod 750).\n\n"
        "The processes of a family (a program, its forks, what it starts with a connection of "
        "its own) share the memory of their stack and trust each other with it. Different "
        "families share nothing.");
    section("BUGS",
            "Statically linked programs, Go programs, and setuid programs of other owners are "
            "out of reach; `tcpshim doctor` says so for a given one.");
    puts(".SH SEE ALSO\n.BR ss (8),\n.BR ip\\-netns (8),\n.BR ld.so (8),\n.BR capabilities (7),\n"
         ".BR packet (7)");
}
