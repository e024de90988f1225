/* tcpshim doctor: what this machine allows, what would happen to a program, and the cures. */
#define _GNU_SOURCE
#include "shim/command/doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "shim/command/command.h"
#include "shim/command/program.h"
#include "shim/command/term.h"

static const struct option_spec options[] = {
    {'q', "quiet", NULL, "only what stands in the way"},
};

static const struct example examples[] = {
    {"tcpshim doctor", "would tcpshim work here, for this user?"},
    {"tcpshim doctor ping", "and for this program?"},
};

static struct {
    bool quiet;
    unsigned obstacles;
} state;

/* ---- what the examinations say ---- */

static void __attribute__((format(printf, 3, 0)))
finding(const char *mark, enum style style, const char *format, va_list ap)
{
    char text[600];
    vsnprintf(text, sizeof(text), format, ap);
    printf("  %s%-4s%s", term_style(stdout, style), mark, term_style(stdout, STYLE_PLAIN));
    help_wrap(stdout, text, 8, 6);
}

void doctor_good(const char *format, ...)
{
    va_list ap;
    if (state.quiet)
        return;
    va_start(ap, format);
    finding("ok", STYLE_GREEN, format, ap);
    va_end(ap);
}

void doctor_note(const char *format, ...)
{
    va_list ap;
    if (state.quiet)
        return;
    va_start(ap, format);
    finding("note", STYLE_YELLOW, format, ap);
    va_end(ap);
}

void doctor_bad(const char *format, ...)
{
    va_list ap;
    state.obstacles++;
    va_start(ap, format);
    finding("no", STYLE_RED, format, ap);
    va_end(ap);
}

void doctor_cure(const char *format, ...)
{
    char text[600] = "cure: ";
    va_list ap;
    va_start(ap, format);
    vsnprintf(text + 6, sizeof(text) - 6, format, ap);
    va_end(ap);
    help_wrap(stdout, text, 8, 0);
}

void doctor_heading(const char *text)
{
    if (!state.quiet)
        printf("%s%s%s\n", term_style(stdout, STYLE_BOLD), text, term_style(stdout, STYLE_PLAIN));
}

unsigned doctor_obstacles(void)
{
    return state.obstacles;
}

/* ---- the program ---- */

static void describe(const struct program *p)
{
    if (p->scripts > 0)
        doctor_good("%s is a script, run by %s", p->path, p->image);
    else
        doctor_good("found: %s", p->path);
    if (p->elf && p->dynamic && !p->foreign && p->libc)
        doctor_good("dynamically linked with glibc: the library is loaded and serves its calls");
    if (!p->elf)
        doctor_note("its file cannot be read, so little is known about it");
    if (p->nosuid_mount && (p->setuid || p->setgid || p->file_caps))
        doctor_note("its setuid bit or file capabilities are without effect: mounted nosuid");
}

static void examine_program(const char *name)
{
    struct obstacle found[OBSTACLES_MAX];
    struct program *p = malloc(sizeof(*p));
    if (p == NULL)
        return;
    program_inspect(name, p);
    if (p->error != 0) {
        doctor_bad("%s: %s", p->path,
                   p->error == ENOENT ? "there is no such program" : strerror(p->error));
        free(p);
        return;
    }
    describe(p);
    const unsigned n = program_obstacles(p, found);
    for (unsigned i = 0; i < n; i++) {
        if (found[i].fatal)
            doctor_bad("%s: %s", p->image, found[i].what);
        else
            doctor_note("%s", found[i].what);
        if (found[i].fatal || !state.quiet)
            doctor_cure("%s", found[i].cure);
    }
    free(p);
}

static int run(int argc, char **argv)
{
    struct options o;
    int option;
    (void)argc;
    options_begin(&o, &command_doctor, argv);
    while ((option = options_next(&o)) >= 0)
        state.quiet = true;
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    doctor_heading("This machine and this user");
    doctor_examine_machine();
    doctor_heading("Network");
    doctor_examine_network();
    const unsigned machine = state.obstacles;
    if (o.noperands > 0) {
        char text[200];
        snprintf(text, sizeof(text), "The program %.150s", o.operands[0]);
        doctor_heading(text);
        examine_program(o.operands[0]);
    }
    if (state.obstacles == 0 && !state.quiet)
        printf("%sIt would work: tcpshim run -- %s%s\n", term_style(stdout, STYLE_GREEN),
               o.noperands > 0 ? o.operands[0] : "CMD", term_style(stdout, STYLE_PLAIN));
    else if (state.obstacles > machine)
        puts("It would not work: the program is out of tcpshim's reach.");
    else if (state.obstacles > 0)
        puts("It would not work here as things are; see the cures above.");
    return state.obstacles == 0 ? STATUS_OK : STATUS_NO;
}

const struct subcommand command_doctor = {
    .name = "doctor",
    .synopsis = "[options] [CMD]",
    .summary = "say what would work here, and the cure for what would not",
    .text = "Examines this machine as this user sees it: the library, capabilities, raw sockets, "
            "the guard of ports, memory, namespaces, interfaces with their offloads. With CMD also "
            "the program: whether a preloaded library reaches it. Each obstacle comes with its "
            "cure. Nothing is changed; what is tried is undone at once.\n\n"
            "The exit status is 0 when `tcpshim run -- CMD` would work, else 1.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .command_at = 1,
    .run = run,
};
