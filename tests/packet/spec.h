/* The notation for segments (grammar: harness.h), between text and struct. */
#pragma once

#include "tests/packet/frame.h"

enum spec_cmp { SPEC_ABSENT, SPEC_EQ, SPEC_GT, SPEC_LT, SPEC_ANY };

struct spec_num {
    enum spec_cmp cmp;
    uint32_t v;
};

enum spec_opt_kind {
    OPT_MSS,
    OPT_WSCALE,
    OPT_SACKOK,
    OPT_TS,
    OPT_SACK,
    OPT_NOP,
    OPT_EOL,
    OPT_HEX,
    OPT_NONE,
    OPT_ACCECN
};

struct spec_opt {
    enum spec_opt_kind kind;
    bool absent; /* `!name` */
    unsigned n;
    struct spec_num v[8];
    uint8_t hex[40];
};

struct spec {
    uint16_t flags;
    bool psh_named;
    struct spec_num seq, ack, win, len, urg, gso, tos;
    bool has_opts;
    unsigned nopts;
    struct spec_opt opts[12];
};

/* NULL, or what is wrong with the text. */
const char *spec_parse(const char *text, struct spec *out);
bool spec_num_fits(const struct spec_num *n, uint32_t v);
/* Writes what a header's flags and options say, as the notation has it. */
void spec_print_flags(uint16_t flags, char out[12]);
