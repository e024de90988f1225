/*
 * The `tcpshim` command: one program, a table of subcommands. Each subcommand is a file of this
 * folder that defines one `struct subcommand` and is named in SUBCOMMANDS; its help, its part of
 * the manual page (docs/tcpshim.1) and of the shell completions come from that table alone.
 *
 *     main.c     the table, --help, --version          options.c  reading a command line
 *     help.c     help texts, wrapped                   generate.c manual page and completions
 *     term.c     width and colours of the terminal
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses, documented in the manual page. Where a command was started, its own is passed on.
 */
enum status {
    STATUS_OK = 0,
    STATUS_NO = 1,     /* the answer is no: would not work, differs, nothing found */
    STATUS_USAGE = 2,  /* the command line makes no sense */
    STATUS_FAILED = 3, /* the system refused something that was needed, or a file is unreadable */
    /* of what starts a command (run, lab exec, lab shell), as of env(1) and timeout(1) */
    STATUS_START = 125,     /* tcpshim itself failed */
    STATUS_CANNOT = 126,    /* the command was found and cannot be run */
    STATUS_NOT_FOUND = 127, /* the command was not found */
};

/* An option, or a heading among the options (name NULL). */
struct option_spec {
    char letter;      /* 0: none */
    const char *name; /* behind two dashes; NULL: `text` is a heading */
    const char *arg;  /* what stands for its value, as "FILE"; NULL: it takes none */
    const char *text;
};

/* A word that a subcommand takes as its first operand, as `up` of `tcpshim lab up`. */
struct verb {
    const char *name;
    const char *synopsis; /* what follows it */
    const char *text;
};

/* An example, and what it shows. */
struct example {
    const char *line;
    const char *text;
};

struct subcommand {
    const char *name;
    const char *synopsis; /* what follows the name; lines separated by '\n' */
    const char *summary;  /* half a line */
    const char *text;     /* paragraphs separated by "\n\n" */
    const struct verb *verbs;
    unsigned nverbs;
    const struct option_spec *options;
    unsigned noptions;
    const struct example *examples;
    unsigned nexamples;
    unsigned
        command_at;   /* this operand (from 1) begins a command line: options end there; 0: none */
    bool takes_files; /* its operands are files, for completion */
    /* argv[0] is the subcommand's name. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

/* X(name): shim/command/name.c defines `const struct subcommand command_name`. In the order of the
 * help text. */
#define SUBCOMMANDS(X)                                                                             \
    X(run)                                                                                         \
    X(ss)                                                                                          \
    X(trace)                                                                                       \
    X(diagram)                                                                                     \
    X(compare)                                                                                     \
    X(doctor)                                                                                      \
    X(lab)

#define X(name) extern const struct subcommand command_##name;
SUBCOMMANDS(X)
#undef X

extern const struct subcommand *const subcommands[];
extern const unsigned nsubcommands;
/* NULL: there is none of that name. */
const struct subcommand *subcommand_find(const char *name);

/* ---- options.c ---- */

/* The reading of a command line. */
struct options {
    const struct subcommand *of;
    char **words;        /* yet to be read */
    const char *letters; /* yet to be read of -abc */
    const char *value;   /* of the option just returned */
    bool no_more;        /* "--" was met */
    char **operands;     /* what is no option; complete when OPTION_END was returned */
    int noperands;
};

enum { OPTION_END = -1, OPTION_BAD = -2, OPTION_HELP = -3 };

/* argv[0] is skipped. argv is rearranged: operands move to its front. */
void options_begin(struct options *o, const struct subcommand *of, char **argv);
/*
 * The index of the next option in of->options, with o->value. OPTION_END: none is left.
 * OPTION_HELP: help was asked for and given (return STATUS_OK). OPTION_BAD: one line on stderr said
 * what is wrong (return STATUS_USAGE).
 */
int options_next(struct options *o);
/* The value of `option` as a time in ns, as `1.5` (seconds) or `20ms`. False: one line on stderr
 * said what is wrong. */
bool option_time(const char *option, const char *value, int64_t *ns);

/* ---- help.c ---- */

/* One line on stderr, "tcpshim NAME: ...", and returns status. The name is set by main(). */
int complain(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern const char *complain_name;
/* text in paragraphs ("\n\n" apart; lines that begin with a blank stay as they are), each line
 * behind `indent` blanks and at most 80 columns; the first line begins at column `at`. */
void help_wrap(FILE *to, const char *text, unsigned indent, unsigned at);
void help_subcommand(FILE *to, const struct subcommand *s);
void help_all(FILE *to);

/* The exit statuses in words. */
struct exit_status {
    const char *number, *text;
};
extern const struct exit_status exit_statuses[];
extern const unsigned nexit_statuses;

/* ---- generate.c: `tcpshim --generate man|bash|zsh` ---- */
int generate(const char *what);

#define TCPSHIM_VERSION "0.9"
