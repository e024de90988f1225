/* Options of user sockets: the table in sockopt_table.c, its interpreter in sockopt.c. */
#pragma once

#include <sys/socket.h>

#include "shim/libc/call.h"

/* How a value lies in struct tcp_opts. */
enum option_field { FIELD_NONE, FIELD_BOOL, FIELD_U8, FIELD_U16, FIELD_U32, FIELD_I32 };

/* The kernel socket rounds or clamps the value: what it then reports is taken. */
#define OPTION_READBACK 0x1u
/* Once connected or listening, the engine alone is told: programs set it for every request. */
#define OPTION_HOT 0x2u
/* 0 in the engine stands for the system's default: the kernel socket is asked what that is. */
#define OPTION_ZERO_DEFAULT 0x4u
/* Would make the kernel socket do what the engine does not: refused with ENOPROTOOPT. */
#define OPTION_REFUSED 0x8u
/* The engine knows values that the kernel may lack (ENOENT). */
#define OPTION_OURS 0x10u
/* A value that the kernel accepts means nothing to it before it connects: any socket can judge it,
 * and options_repeat() tells it to the one that does connect. */
#define OPTION_JUDGED 0x20u

struct option {
    int level, name;
    uint8_t field; /* enum option_field */
    uint8_t flags;
    uint16_t offset; /* in struct tcp_opts */
    /*
     * For what is no plain field. set: after the kernel socket accepted the value; val has at least
     * 4 bytes. get: 0 or -errno, or CALL_PASS to let the kernel socket answer; val has room for
     * *len.
     */
    int (*set)(struct call *c, const void *val, socklen_t len);
    int64_t (*get)(struct call *c, void *val, socklen_t *len);
};

extern const struct option options[];
extern const unsigned options_count;

/* The engine's options of a socket, made at first need; NULL: none, and the arena is full. */
struct tcp_opts *option_opts(struct call *c);
/* Lets changed options take effect on a connection. */
void option_changed(struct call *c);
/* Copies n bytes of src out, cut to *len, and sets *len (as Linux's getsockopt does). */
int64_t option_give(void *val, socklen_t *len, const void *src, size_t n);
/* Tells a new kernel socket the values that others judged (OPTION_JUDGED). */
void options_repeat(const struct tcp_opts *opts, int fd);
/* shim/libc/errqueue.c */
#define OPT_TIMESTAMPING_NEW 65 /* SO_TIMESTAMPING_NEW: Debian 12's headers may lack it */
int option_set_timestamping(struct call *c, const void *val, socklen_t len);
int option_set_timestamping_new(struct call *c, const void *val, socklen_t len);
int64_t option_get_timestamping(struct call *c, void *val, socklen_t *len);
/* shim/libc/tcp_info.c */
int64_t option_get_tcp_info(struct call *c, void *val, socklen_t *len);
