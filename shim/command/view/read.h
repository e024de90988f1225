/* Files of events: JSON traces line by line, captures whole. */
#pragma once

#include "shim/command/view/event.h"

/* A JSON trace that is being read; zero it, then reader_open(). */
struct reader {
    const char *path;
    int fd;
    char *buffer;
    size_t begin, end, room;
    unsigned long line;      /* number of the last line returned */
    unsigned long malformed; /* lines that were said to be wrong */
    bool skipping;           /* the rest of a line that is too long */
    bool ended;              /* the last read() found the end */
};

/* "-" is standard input. 0, or a negative errno. */
int reader_open(struct reader *r, const char *path);
void reader_close(struct reader *r);

enum read_result { READ_EVENT, READ_NOTHING };
/*
 * The next event: *object is the caller's to release, *e its short form. Malformed lines are said
 * on stderr with their number, and left out. READ_NOTHING: the end for now. whole: an unfinished
 * last line is a line.
 */
enum read_result reader_next(struct reader *r, bool whole, json_t **object, struct event *e);

/* Whether the file begins as a capture (pcap or pcapng) does. */
bool file_is_capture(const char *path);

/*
 * Adds all events of a trace or a capture to the list. Returns 0, 1 when lines were malformed
 * (said on stderr), or a negative errno when the file could not be read (said, too).
 */
int events_load(struct event_list *list, const char *path, unsigned source);

/* ---- capture.c ---- */

/* A frame as captured: its first `caplen` bytes of `len`; link: DLT_... Adds a segment, or nothing
 * where it is no TCP. t: ns. Returns the event, which the next one added moves. */
struct event *segment_from_frame(struct event_list *list, int link, const uint8_t *frame,
                                 size_t caplen, size_t len, int64_t t);
/* As events_load(). */
int capture_load(struct event_list *list, const char *path, unsigned source);
