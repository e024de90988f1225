/* Plots of a connection over time: sequence numbers as Stevens draws them, and congestion control.
 */
#pragma once

#include "shim/command/view/flow.h"
#include "shim/command/view/svg.h"

struct plot_options {
    int sender;  /* whose bytes; -1: who sent more */
    bool narrow; /* for two side by side */
    bool own_style;
    const char *title; /* NULL: the addresses */
    int64_t span;      /* ns that the time axis covers, so that two plots compare; 0: the flow's */
};

void plot_sequence(struct text *to, const struct flow *f, const struct plot_options *options);
/* cwnd, ssthresh and bytes in flight above, round-trip times and RTO below. */
void plot_congestion(struct text *to, const struct flow *f, const struct plot_options *options);
