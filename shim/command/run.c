/* tcpshim run: a program under the user stack. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/lab.h"
#include "shim/command/library.h"
#include "shim/command/privilege.h"
#include "shim/command/program.h"
#include "shim/core/config.h"

enum own { OWN_LAB, OWN_DRY_RUN, OWN_FORCE, OWN_LIBRARY, OWN_HEADING, OWN_COUNT };

static const struct option_spec options[] = {
    [OWN_LAB] = {'l', "lab", "[LAB/]HOST", "run it on this host of a laboratory (see tcpshim lab)"},
    [OWN_DRY_RUN] = {'n', "dry-run", NULL, "check, and print the command that would be run"},
    [OWN_FORCE] = {'f', "force", NULL, "run it although a check says that tcpshim cannot reach it"},
    [OWN_LIBRARY] = {0, "library", "FILE",
                     "another libtcpshim.so than the one beside this command"},
    [OWN_HEADING] = {0, NULL, NULL, "Options that set a variable (TCPSHIM_ADDR, ...):"},
#define X(name, parser, option, argument, set, text) {0, option, argument, text},
    CONFIG_VARIABLES(X)
#undef X
};

static const struct {
    const char *name, *set;
} variables[] = {
#define X(name, parser, option, argument, set, text) {"TCPSHIM_" #name, set},
    CONFIG_VARIABLES(X)
#undef X
};

static const struct example examples[] = {
    {"tcpshim run --trace state,segment -- curl http://10.0.0.7/",
     "fetches a page and shows states and segments"},
    {"tcpshim run --trace all --trace-file /tmp/trace.%p -- nginx",
     "a server, with a file of traces for each of its processes"},
    {"tcpshim run --addr 10.0.0.99/24 -- nc -l 8080",
     "listens on an address that the kernel does not have"},
    {"tcpshim run --lab a -- python3 -m http.server 80", "the same in a laboratory, without root"},
};

struct plan {
    const char *lab, *library;
    bool dry_run, force;
    char **argv;
    struct library lib;
};

static int read_options(char **argv, struct plan *plan)
{
    struct options o;
    int option;
    options_begin(&o, &command_run, argv);
    while ((option = options_next(&o)) >= 0) {
        if (option == OWN_LAB)
            plan->lab = o.value;
        else if (option == OWN_DRY_RUN)
            plan->dry_run = true;
        else if (option == OWN_FORCE)
            plan->force = true;
        else if (option == OWN_LIBRARY)
            plan->library = o.value;
        else
            setenv(variables[option - OWN_COUNT].name,
                   o.value != NULL ? o.value : variables[option - OWN_COUNT].set, 1);
    }
    plan->argv = o.operands;
    if (option == OPTION_END && o.noperands == 0) {
        complain(STATUS_USAGE, "which command? as in: tcpshim run -- curl http://10.0.0.7/");
        return OPTION_BAD;
    }
    return option;
}

/* The variables mean something; said now rather than by the program later. */
static int check_variables(void)
{
    config_read(environ);
    if (config.error[0] != '\0')
        return complain(STATUS_USAGE, "%s", config.error);
    if (config.warning[0] != '\0')
        complain(STATUS_OK, "%s", config.warning);
    return STATUS_OK;
}

static int check_program(const struct plan *plan)
{
    struct obstacle found[OBSTACLES_MAX];
    struct program *p = malloc(sizeof(*p));
    int status = STATUS_OK;
    if (p == NULL)
        return complain(STATUS_START, "no memory");
    program_inspect(plan->argv[0], p);
    if (p->error == ENOENT)
        status = complain(STATUS_NOT_FOUND, "%s: not found", plan->argv[0]);
    else if (p->error != 0)
        status = complain(STATUS_CANNOT, "%s: cannot be run: %s", p->path, strerror(p->error));
    const unsigned n = program_obstacles(p, found);
    for (unsigned i = 0; i < n; i++) {
        if (!found[i].fatal)
            continue;
        complain(STATUS_CANNOT, "%s: %s\n  cure: %s", p->image, found[i].what, found[i].cure);
        if (!plan->force)
            status = STATUS_CANNOT;
    }
    if (status == STATUS_CANNOT && p->error == 0)
        fprintf(stderr, "  (--force runs it all the same, with the kernel's TCP)\n");
    free(p);
    return status;
}

static int check_privilege(void)
{
    const uint64_t wanted = privilege_bit(CAP_NET_RAW) | privilege_bit(CAP_NET_ADMIN);
    const uint64_t handed = privilege_hand_down(wanted);
    if (config.off || config.fallback_kernel || (handed & privilege_bit(CAP_NET_RAW)) != 0)
        return STATUS_OK;
    char own[PATH_MAX] = "tcpshim";
    (void)!readlink("/proc/self/exe", own, sizeof(own) - 1);
    return complain(STATUS_START,
                    "the user stack needs CAP_NET_RAW, which this process has not\n"
                    "  cure: sudo tcpshim run ..., or once, as root:\n"
                    "        setcap cap_net_raw,cap_net_admin+ep %s\n"
                    "        (whoever may execute that file then gets both), or a laboratory,\n"
                    "        which needs neither: tcpshim lab up; tcpshim run --lab a -- CMD",
                    own);
}

/* A word as a shell would need it. */
static void print_quoted(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./:=,+@%";
    if (*word != '\0' && word[strspn(word, plain)] == '\0') {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*word);
    }
    putchar('\'');
}

static int print_command(const struct plan *plan)
{
    for (char **e = environ; *e != NULL; e++) {
        const char *value = strchr(*e, '=');
        if (value == NULL ||
            (strncmp(*e, "TCPSHIM_", 8) != 0 && strncmp(*e, "LD_PRELOAD=", 11) != 0))
            continue;
        printf("%.*s=", (int)(value - *e), *e);
        print_quoted(value + 1);
        putchar(' ');
    }
    for (char **word = plan->argv; *word != NULL; word++) {
        print_quoted(*word);
        putchar(word[1] != NULL ? ' ' : '\n');
    }
    return STATUS_OK;
}

static int run(int argc, char **argv)
{
    struct plan plan = {0};
    (void)argc;
    const int option = read_options(argv, &plan);
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    int status = check_variables();
    library_find(plan.library, &plan.lib);
    if (status == STATUS_OK && plan.lib.problem != NULL)
        status = complain(STATUS_START, "%s: %s",
                          plan.lib.path[0] ? plan.lib.path : "libtcpshim.so", plan.lib.problem);
    if (status == STATUS_OK && plan.lab != NULL)
        status = lab_enter(plan.lab);
    if (status == STATUS_OK)
        status = check_program(&plan);
    if (status == STATUS_OK)
        status = check_privilege();
    if (status != STATUS_OK)
        return status;
    if (library_preload(&plan.lib) < 0)
        return complain(STATUS_START, "no memory");
    if (plan.dry_run)
        return print_command(&plan);
    execvp(plan.argv[0], plan.argv);
    return complain(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT, "%s: %s", plan.argv[0],
                    strerror(errno));
}

const struct subcommand command_run = {
    .name = "run",
    .synopsis = "[options] [--] CMD [ARGUMENT...]",
    .summary = "run a program with its TCP in user space",
    .text = "Runs CMD with libtcpshim.so preloaded, so that its TCP connections live in a stack "
            "inside its own process. Before, it checks what can be checked: the values of the "
            "options, that CMD exists and that a preloaded library reaches it, and that the raw "
            "socket is allowed; where something stands in the way, it says what to do.\n\n"
            "It needs CAP_NET_RAW. Root has it. An ordinary user gets it where this command has it "
            "as a file capability (it is then handed to CMD as an ambient capability, with "
            "CAP_NET_ADMIN where there is that, too), or in a laboratory (--lab). The exit status "
            "is CMD's.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .command_at = 1,
    .run = run,
};
