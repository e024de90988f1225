/*
 * A line of a trace while it is put together, without stdio and without memory of its own: what the
 * two formats (trace_text.c, trace_json.c) write with.
 */
#pragma once

#include "stack/base.h"

/* Below PIPE_BUF, so that a line leaves in one piece whatever the sink is. */
#define LINE_MAX_BYTES 3800

struct line {
    size_t n;
    bool cut; /* something did not fit */
    char text[LINE_MAX_BYTES + 2];
};

void put_char(struct line *l, char c);
void put(struct line *l, const char *s);
void put_n(struct line *l, const char *s, size_t n);
/* s, with a blank in the place of each control character. */
void put_plain(struct line *l, const char *s);
/* Decimal, with zeros in front up to width. */
void put_padded(struct line *l, uint64_t v, unsigned width);
void put_u64(struct line *l, uint64_t v);
void put_signed(struct line *l, int64_t v);
/* Seconds with 9 decimals. */
void put_seconds(struct line *l, uint64_t ns);
void put_addr(struct line *l, const struct ip_addr *addr);
/* "10.0.0.1:80", "[::1]:80"; "*" where nothing is chosen yet. */
void put_endpoint(struct line *l, const struct ip_addr *addr, uint16_t port);
/* "SYN,ACK" */
void put_flags(struct line *l, uint64_t flags);
/* "EAGAIN" */
void put_errno(struct line *l, uint64_t err);
/* 2026-11-22T08:00:00.123456789Z */
void put_date(struct line *l, uint64_t sec, uint64_t nsec);
