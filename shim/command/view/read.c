/* Reading JSON traces (read.h). */
#define _GNU_SOURCE
#include "shim/command/view/read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Far above the longest event; a file of another kind shall not fill the memory. */
#define LINE_MAX_BYTES (1U << 20)
#define READ_BYTES     65536U
/* So many malformed lines of a file are said one by one. */
#define MALFORMED_SAID 20

int reader_open(struct reader *r, const char *path)
{
    *r = (struct reader){.path = path};
    r->fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    return r->fd < 0 ? -errno : 0;
}

void reader_close(struct reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    free(r->buffer);
    *r = (struct reader){.fd = -1};
}

static void say_malformed(struct reader *r, const char *what)
{
    r->malformed++;
    if (r->malformed <= MALFORMED_SAID)
        fprintf(stderr, "tcpshim: %s:%lu: %s\n", r->path, r->line, what);
    else if (r->malformed == MALFORMED_SAID + 1)
        fprintf(stderr, "tcpshim: %s: more lines are malformed\n", r->path);
}

/* Takes more from the file. False at its end. */
static bool fill(struct reader *r)
{
    if (r->begin > 0) {
        memmove(r->buffer, r->buffer + r->begin, r->end - r->begin);
        r->end -= r->begin;
        r->begin = 0;
    }
    if (r->end + READ_BYTES > r->room) {
        r->room = r->end + 2 * READ_BYTES;
        r->buffer = must_alloc(r->buffer, r->room);
    }
    ssize_t n;
    do
        n = read(r->fd, r->buffer + r->end, READ_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        fprintf(stderr, "tcpshim: %s: %s\n", r->path, strerror(errno));
    r->ended = n <= 0;
    r->end += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next line and its length without the end of line; NULL: none yet. */
static char *next_line(struct reader *r, bool whole, size_t *n)
{
    size_t seen = 0;
    for (;;) {
        size_t have = r->end - r->begin;
        char *line = r->buffer ? r->buffer + r->begin : NULL;
        char *nl = line && have > seen ? memchr(line + seen, '\n', have - seen) : NULL;
        if (nl || (whole && r->ended && have > 0)) {
            *n = nl ? (size_t)(nl - line) : have;
            r->begin += nl ? *n + 1 : have;
            if (r->skipping) {
                r->skipping = false;
                seen = 0;
                continue;
            }
            r->line++;
            return line;
        }
        seen = have;
        if (have > LINE_MAX_BYTES) {
            if (!r->skipping) {
                r->line++;
                say_malformed(r, "line too long");
            }
            r->skipping = true;
            r->begin = r->end;
            seen = 0;
        }
        if (!fill(r) && !(whole && r->end > r->begin))
            return NULL;
    }
}

enum read_result reader_next(struct reader *r, bool whole, json_t **object, struct event *e)
{
    for (;;) {
        size_t n;
        const char *line = next_line(r, whole, &n);
        if (!line)
            return READ_NOTHING;
        if (n == 0 || (n == 1 && line[0] == '\r'))
            continue;
        json_error_t error;
        json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
        if (!o) {
            char what[JSON_ERROR_TEXT_LENGTH + 40];
            snprintf(what, sizeof(what), "not JSON: %s (column %d)", error.text, error.column);
            say_malformed(r, what);
            continue;
        }
        const char *wrong = event_from_json(e, o);
        if (!wrong) {
            *object = o;
            return READ_EVENT;
        }
        say_malformed(r, wrong);
        json_decref(o);
    }
}

bool file_is_capture(const char *path)
{
    static const unsigned char magics[][4] = {{0xa1, 0xb2, 0xc3, 0xd4},
                                              {0xd4, 0xc3, 0xb2, 0xa1},
                                              {0xa1, 0xb2, 0x3c, 0x4d},
                                              {0x4d, 0x3c, 0xb2, 0xa1},
                                              {0x0a, 0x0d, 0x0d, 0x0a}};
    if (strcmp(path, "-") == 0)
        return false;
    unsigned char head[4] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool complete = read(fd, head, sizeof(head)) == sizeof(head);
    close(fd);
    for (size_t i = 0; complete && i < sizeof(magics) / sizeof(magics[0]); i++)
        if (memcmp(head, magics[i], sizeof(head)) == 0)
            return true;
    return false;
}

int events_load(struct event_list *list, const char *path, unsigned source)
{
    if (file_is_capture(path))
        return capture_load(list, path, source);
    struct reader r;
    int err = reader_open(&r, path);
    if (err < 0) {
        fprintf(stderr, "tcpshim: %s: %s\n", path, strerror(-err));
        return err;
    }
    struct event e;
    json_t *object;
    while (reader_next(&r, true, &object, &e) == READ_EVENT) {
        e.source = source;
        *event_add(list) = e;
        json_decref(object);
    }
    bool malformed = r.malformed > 0;
    reader_close(&r);
    return malformed;
}
