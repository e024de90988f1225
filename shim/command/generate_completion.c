/* Completions for bash and zsh. */
#include "shim/command/generate.h"

#include <string.h>

#include "shim/command/command.h"

/* Options whose value is a file. */
static bool file_value(const struct option_spec *o)
{
    return o->arg != NULL && strstr(o->arg, "FILE") != NULL;
}

static void bash_options(const struct subcommand *s)
{
    fputs("--help", stdout);
    for (unsigned i = 0; i < s->noptions; i++)
        if (s->options[i].name != NULL)
            printf(" --%s", s->options[i].name);
}

/* A pattern of the options that this is true of, as "--trace-file|-o". */
static void bash_pattern(const struct subcommand *s, bool files)
{
    const char *between = "";
    for (unsigned i = 0; i < s->noptions; i++) {
        const struct option_spec *o = &s->options[i];
        if (o->name == NULL || o->arg == NULL || (files && !file_value(o)))
            continue;
        printf("%s--%s", between, o->name);
        between = "|";
        if (o->letter != 0)
            printf("|-%c", o->letter);
    }
    if (*between == '\0')
        fputs("--no-such-option", stdout);
}

static void bash_subcommand(const struct subcommand *s)
{
    printf("    %s)\n        options=\"", s->name);
    bash_options(s);
    fputs("\"\n        files='@(", stdout);
    bash_pattern(s, true);
    fputs(")'\n        values='@(", stdout);
    bash_pattern(s, false);
    fputs(")'\n        verbs=\"", stdout);
    for (unsigned i = 0; i < s->nverbs; i++)
        printf("%s%s", i > 0 ? " " : "", s->verbs[i].name);
    printf("\"\n        command=%u operands=%s\n        ;;\n", s->command_at,
           s->takes_files ? "files" : "none");
}

void generate_bash(void)
{
    puts("# bash completion for tcpshim(1); made by `tcpshim --generate bash`.\n"
         "_tcpshim() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
         "    local options files values verbs command=0 operands=none word i seen=0\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    fputs("        COMPREPLY=($(compgen -W \"--help --version help", stdout);
    for (unsigned i = 0; i < nsubcommands; i++)
        printf(" %s", subcommands[i]->name);
    puts("\" -- \"$cur\"))\n"
         "        return\n"
         "    fi\n"
         "    shopt -q extglob || { shopt -s extglob; trap 'shopt -u extglob; trap - RETURN' "
         "RETURN; }\n"
         "    case ${COMP_WORDS[1]} in");
    for (unsigned i = 0; i < nsubcommands; i++)
        bash_subcommand(subcommands[i]);
    puts("    *) return ;;\n"
         "    esac\n"
         "    # operands before the word, and where a command line begins\n"
         "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
         "        word=${COMP_WORDS[i]}\n"
         "        case $word in\n"
         "        $values) ((i++)) ;;\n"
         "        --) ;;\n"
         "        -*) ;;\n"
         "        *) ((++seen)) ;;\n"
         "        esac\n"
         "        if ((command && seen >= command)); then\n"
         "            declare -F _command_offset >/dev/null && _command_offset \"$i\"\n"
         "            return\n"
         "        fi\n"
         "    done\n"
         "    case $prev in\n"
         "    $files) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
         "    $values) return ;;\n"
         "    esac\n"
         "    if [[ $cur == -* ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
         "    elif [ -n \"$verbs\" ] && ((seen == 0)); then\n"
         "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$cur\"))\n"
         "    elif ((command && seen + 1 == command)); then\n"
         "        COMPREPLY=($(compgen -c -- \"$cur\"))\n"
         "    elif [ \"$operands\" = files ]; then\n"
         "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "complete -o filenames -F _tcpshim tcpshim");
}

/* ---- zsh ---- */

/* Inside single quotes; brackets and colons mean something to _arguments. */
static void zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *text) != NULL)
            printf("\\%c", *text);
        else
            putchar(*text == '\n' ? ' ' : *text);
    }
}

static void zsh_option(const struct option_spec *o)
{
    fputs("            '", stdout);
    printf("--%s[", o->name);
    zsh_text(o->text);
    putchar(']');
    if (o->arg != NULL) {
        putchar(':');
        zsh_text(o->arg);
        putchar(':');
        if (file_value(o))
            fputs("_files", stdout);
    }
    puts("' \\");
}

static void zsh_subcommand(const struct subcommand *s)
{
    printf("    %s)\n        _arguments -S -s \\\n            '--help[this text]' \\\n", s->name);
    for (unsigned i = 0; i < s->noptions; i++)
        if (s->options[i].name != NULL)
            zsh_option(&s->options[i]);
    if (s->nverbs > 0) {
        fputs("            '1:what:(", stdout);
        for (unsigned i = 0; i < s->nverbs; i++)
            printf("%s%s", i > 0 ? " " : "", s->verbs[i].name);
        puts(")' \\\n            '2:host: ' \\\n            '*:: :_normal'");
    } else if (s->command_at > 0) {
        puts("            '(-)1:command:_command_names -e' \\\n            '*::arguments:_normal'");
    } else if (s->takes_files) {
        puts("            '*:file:_files'");
    } else {
        puts("            && return");
    }
    puts("        ;;");
}

void generate_zsh(void)
{
    puts("#compdef tcpshim\n"
         "# zsh completion for tcpshim(1); made by `tcpshim --generate zsh`.\n"
         "if ((CURRENT == 2)); then\n"
         "    local -a commands=(");
    for (unsigned i = 0; i < nsubcommands; i++) {
        printf("        '%s:", subcommands[i]->name);
        zsh_text(subcommands[i]->summary);
        puts("'");
    }
    puts("    )\n"
         "    _describe command commands\n"
         "    return\n"
         "fi\n"
         "shift words\n"
         "((CURRENT--))\n"
         "case $words[1] in");
    for (unsigned i = 0; i < nsubcommands; i++)
        zsh_subcommand(subcommands[i]);
    puts("esac");
}
