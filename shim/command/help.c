/* Help texts, from the tables, within 80 columns whatever the terminal. */
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/term.h"

#define COLUMNS      79
#define TEXT_COLUMN  26 /* where the texts of options begin */
#define NAMES_COLUMN 12 /* and those of subcommands */

const char *complain_name;

const struct exit_status exit_statuses[] = {
    {"0", "all is well"},
    {"1", "the answer is no (doctor: would not work; ss: nothing found)"},
    {"2", "the command line makes no sense"},
    {"3", "the system refused something, or a file cannot be read"},
    {"125", "run, lab: tcpshim itself failed before the program started"},
    {"126", "run, lab: the program was found and cannot be run"},
    {"127", "run, lab: the program was not found; other numbers are the program's own"},
};
const unsigned nexit_statuses = sizeof(exit_statuses) / sizeof(exit_statuses[0]);

static void blanks(FILE *to, unsigned n)
{
    fprintf(to, "%*s", (int)n, "");
}

/* On a terminal words stay whole; elsewhere a line stays a line. */
static void say(const char *line)
{
    const unsigned indent = (unsigned)strspn(line, " ");
    if (!isatty(STDERR_FILENO)) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    blanks(stderr, indent);
    help_wrap(stderr, line + indent, indent + 2, indent + 2);
}

int complain(int status, const char *format, ...)
{
    char text[2000];
    va_list ap;
    fflush(stdout);
    int n = snprintf(text, sizeof(text), "tcpshim%s%s: ", complain_name ? " " : "",
                     complain_name ? complain_name : "");
    va_start(ap, format);
    vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
    va_end(ap);
    for (char *line = text, *end; line != NULL; line = end) {
        end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        say(line);
    }
    return status;
}

/* A line that is to stay as it is. Returns what follows it. */
static const char *verbatim(FILE *to, const char *text, unsigned indent)
{
    const size_t len = strcspn(text, "\n");
    blanks(to, indent);
    fprintf(to, "%.*s\n", (int)len, text);
    return text + len + (text[len] == '\n');
}

void help_wrap(FILE *to, const char *text, unsigned indent, unsigned at)
{
    unsigned column = at;
    if (at < indent) {
        blanks(to, indent - at);
        column = indent;
    }
    bool begun = false; /* a word stands on the line */
    while (*text != '\0') {
        if (!begun && *text == ' ') {
            text = verbatim(to, text, indent - (column == indent ? indent : 0));
            column = 0;
            if (*text != '\0' && *text != ' ') {
                blanks(to, indent);
                column = indent;
            }
            continue;
        }
        if (*text == '\n') {
            const bool paragraph = text[1] == '\n', line = text[1] == ' ';
            text += 1 + paragraph;
            if (!paragraph && !line)
                continue;
            fputs(paragraph ? "\n\n" : "\n", to);
            blanks(to, indent);
            column = indent;
            begun = false;
            continue;
        }
        if (*text == ' ') {
            text++;
            continue;
        }
        const size_t len = strcspn(text, " \n");
        if (begun && column + 1 + len > COLUMNS) {
            fputc('\n', to);
            blanks(to, indent);
            column = indent;
            begun = false;
        }
        if (begun)
            fputc(' ', to);
        fprintf(to, "%.*s", (int)len, text);
        column += (unsigned)len + begun;
        text += len;
        begun = true;
    }
    if (column > 0)
        fputc('\n', to);
}

static void heading(FILE *to, const char *text)
{
    fprintf(to, "\n%s%s%s\n", term_style(to, STYLE_BOLD), text, term_style(to, STYLE_PLAIN));
}

static void entry(FILE *to, const char *names, const char *text, unsigned column)
{
    unsigned at = (unsigned)fprintf(to, "  %s", names);
    if (at + 2 > column) {
        fputc('\n', to);
        at = 0;
    }
    help_wrap(to, text, column, at);
}

static void help_options(FILE *to, const struct subcommand *s)
{
    for (unsigned i = 0; i < s->noptions; i++) {
        const struct option_spec *o = &s->options[i];
        char names[80], letter[] = "-x, ";
        if (i == 0 && o->name != NULL)
            heading(to, "Options:");
        if (o->name == NULL) {
            heading(to, o->text);
            continue;
        }
        letter[1] = o->letter;
        snprintf(names, sizeof(names), "%s--%s%s%s", o->letter ? letter : "    ", o->name,
                 o->arg ? " " : "", o->arg ? o->arg : "");
        entry(to, names, o->text, TEXT_COLUMN);
    }
    if (s->noptions == 0)
        heading(to, "Options:");
    entry(to, "-h, --help", "this text", TEXT_COLUMN);
}

/* A command line, continued as a shell would have it where it is too long. */
static void example_line(FILE *to, const char *line)
{
    unsigned indent = 2;
    for (;;) {
        const unsigned room = COLUMNS - indent;
        size_t len = strlen(line);
        if (len > room)
            for (len = room - 2; len > 0 && line[len] != ' '; len--)
                ;
        if (len == 0)
            len = strlen(line); /* one long word */
        blanks(to, indent);
        fprintf(to, "%.*s%s\n", (int)len, line, line[len] != '\0' ? " \\" : "");
        if (line[len] == '\0')
            return;
        line += len + 1;
        indent = 4;
    }
}

void help_subcommand(FILE *to, const struct subcommand *s)
{
    const char *line = s->synopsis, *lead = "usage: ";
    for (;;) {
        const size_t len = strcspn(line, "\n");
        fprintf(to, "%stcpshim %s %.*s\n", lead, s->name, (int)len, line);
        if (line[len] == '\0')
            break;
        line += len + 1;
        lead = "       ";
    }
    fputc('\n', to);
    help_wrap(to, s->text, 0, 0);
    if (s->nverbs > 0)
        fputc('\n', to);
    for (unsigned i = 0; i < s->nverbs; i++) {
        fprintf(to, "  %s%s%s %s\n", term_style(to, STYLE_BOLD), s->verbs[i].name,
                term_style(to, STYLE_PLAIN), s->verbs[i].synopsis);
        help_wrap(to, s->verbs[i].text, 6, 0);
    }
    help_options(to, s);
    if (s->nexamples > 0)
        heading(to, "Examples:");
    for (unsigned i = 0; i < s->nexamples; i++) {
        example_line(to, s->examples[i].line);
        help_wrap(to, s->examples[i].text, 6, 0);
    }
}

void help_all(FILE *to)
{
    fputs("usage: tcpshim COMMAND [options] ...\n\n", to);
    help_wrap(to,
              "Runs unmodified programs on a TCP stack of their own, in user space, and shows what "
              "their connections do.",
              0, 0);
    heading(to, "Commands:");
    for (unsigned i = 0; i < nsubcommands; i++)
        entry(to, subcommands[i]->name, subcommands[i]->summary, NAMES_COLUMN);
    fputc('\n', to);
    help_wrap(to,
              "`tcpshim COMMAND --help` says what each does and gives examples; the manual page is "
              "tcpshim(1). Begin with\n"
              "  tcpshim doctor                         what this machine allows\n"
              "  tcpshim run --trace state -- curl URL  one program, its states shown\n",
              0, 0);
    heading(to, "Options:");
    entry(to, "-h, --help", "this text", TEXT_COLUMN);
    entry(to, "    --version", "the version", TEXT_COLUMN);
    heading(to, "Exit status:");
    for (unsigned i = 0; i < nexit_statuses; i++)
        entry(to, exit_statuses[i].number, exit_statuses[i].text, 8);
}
