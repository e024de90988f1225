/*
 * libFuzzer target: what the command reads: the input as a file of JSON lines or a capture, made
 * into events, connections, lines of text, ladders and plots.
 */
#define _GNU_SOURCE
#include "shim/command/view/filter.h"
#include "shim/command/view/flow.h"
#include "shim/command/view/ladder.h"
#include "shim/command/view/plot.h"
#include "shim/command/view/print.h"
#include "shim/command/view/read.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int file = -1;
static FILE *nowhere;
static char path[40];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    nowhere = fopen("/dev/null", "w");
    file = memfd_create("input", MFD_CLOEXEC);
    if (!nowhere || file < 0)
        abort();
    stderr = nowhere; /* complaints about each line; sanitizers write to the descriptor */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return 0;
}

static void print_all(enum print_time time)
{
    struct printer p = {.to = nowhere, .width = 100, .colored = true, .time = time};
    struct filter f = {.ports = "80,443", .addrs = "10.0.0.1", .from = TIME_NONE, .to = TIME_NONE};
    struct reader r;
    struct event e;
    json_t *object;
    if (reader_open(&r, path) < 0)
        return;
    while (reader_next(&r, true, &object, &e) == READ_EVENT) {
        print_event(&p, &e, object);
        (void)filter_takes(&f, &e);
        json_decref(object);
    }
    reader_close(&r);
    printer_free(&p);
}

static void draw(const struct flow *f)
{
    struct text t = {0};
    const struct ladder_options l = {
        .show = ~0u, .full = true, .from = TIME_NONE, .to = TIME_NONE, .page = 700};
    const struct ladder_options narrow = {
        .show = SHOW_DEFAULT, .narrow = true, .from = TIME_NONE, .to = TIME_NONE};
    const struct plot_options p = {.sender = -1};
    ladder_draw(&t, f, &l);
    ladder_draw(&t, f, &narrow);
    plot_sequence(&t, f, &p);
    plot_congestion(&t, f, &p);
    text_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (ftruncate(file, 0) < 0 || pwrite(file, data, size, 0) < 0)
        abort();
    struct event_list events = {0};
    struct flow_list flows = {0};
    if (!file_is_capture(path))
        print_all((enum print_time)(size % 4));
    if (events_load(&events, path, 0) >= 0) {
        event_sort(&events);
        flows_build(&flows, &events);
        for (size_t i = 0; i < flows.n && i < 20; i++)
            draw(flows.items[i]);
        flows_free(&flows);
    }
    event_list_free(&events);
    return 0;
}
