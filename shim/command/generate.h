/* What is made from the tables of the subcommands. All write to stdout. */
#pragma once

void generate_man(void);
void generate_bash(void);
void generate_zsh(void);
