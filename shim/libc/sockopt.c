/*
 * setsockopt() and getsockopt(). The kernel socket behind each descriptor judges every value (so
 * its errno is Linux's by construction) and remembers it; what means something to the engine goes
 * there too. Once a connection lives, what the engine knows better is answered from it.
 */
#define _GNU_SOURCE
#include "shim/libc/sockopt.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"

static const struct option *find(int level, int name)
{
    for (unsigned i = 0; i < options_count; i++) {
        if (options[i].name == name && options[i].level == level)
            return &options[i];
    }
    return NULL;
}

struct tcp_opts *option_opts(struct call *c)
{
    struct usock *us = c->us;
    if (us->kind == USOCK_LISTENER)
        return tcp_listener_opts(us->listener);
    struct tcp_conn *conn = usock_conn(&c->cx, us);
    return conn != NULL ? tcp_opts(conn) : NULL;
}

void option_changed(struct call *c)
{
    if (c->us->conn != NULL)
        tcp_opts_changed(&c->cx, c->us->conn);
}

int64_t option_give(void *val, socklen_t *len, const void *src, size_t n)
{
    if (*len > n)
        *len = (socklen_t)n;
    if (*len > 0)
        memcpy(val, src, *len);
    return 0;
}

static void store(const struct option *o, struct tcp_opts *opts, int value)
{
    void *field = (char *)opts + o->offset;
    switch ((enum option_field)o->field) {
    case FIELD_BOOL:
        *(bool *)field = value != 0;
        break;
    case FIELD_U8:
        *(uint8_t *)field = (uint8_t)value;
        break;
    case FIELD_U16:
        *(uint16_t *)field = (uint16_t)value;
        break;
    case FIELD_U32:
    case FIELD_I32:
        *(int32_t *)field = value;
        break;
    case FIELD_NONE:
        break;
    }
}

static int load(const struct option *o, const struct tcp_opts *opts)
{
    const void *field = (const char *)opts + o->offset;
    switch ((enum option_field)o->field) {
    case FIELD_BOOL:
        return *(const bool *)field;
    case FIELD_U8:
        return *(const uint8_t *)field;
    case FIELD_U16:
        return *(const uint16_t *)field;
    case FIELD_U32:
    case FIELD_I32:
        return *(const int32_t *)field;
    case FIELD_NONE:
        break;
    }
    return 0;
}

void options_repeat(const struct tcp_opts *opts, int fd)
{
    const struct linger linger = {.l_onoff = opts->linger, .l_linger = opts->linger_secs};
    struct tcp_opts defaults;
    tcp_opts_init(&defaults, engine.st);
    for (unsigned i = 0; i < options_count; i++) {
        const struct option *o = &options[i];
        if ((o->flags & OPTION_JUDGED) == 0 || o->field == FIELD_NONE)
            continue;
        const int value = load(o, opts);
        if (value != load(o, &defaults))
            raw_setsockopt(fd, o->level, o->name, &value, sizeof(value));
    }
    if (opts->linger)
        raw_setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* Options of the IP level may be a single byte. */
static int value_of(const struct option *o, const void *val, socklen_t len)
{
    int value = 0;
    if (len >= sizeof(int))
        memcpy(&value, val, sizeof(value));
    else if (o->level == IPPROTO_IP && len >= 1)
        value = *(const uint8_t *)val;
    return value;
}

static int tell_engine(struct call *c, const struct option *o, const void *val, socklen_t len)
{
    if (o->set != NULL)
        return o->set(c, val, len);
    if (o->field == FIELD_NONE)
        return 0;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    int value = value_of(o, val, len);
    if ((o->flags & OPTION_READBACK) != 0) {
        socklen_t size = sizeof(value);
        raw_getsockopt(c->fd, o->level, o->name, &value, &size);
    }
    store(o, opts, value);
    option_changed(c);
    return 0;
}

static int sock_setsockopt(struct call *c, int level, int name, const void *val, socklen_t len)
{
    const struct option *o = find(level, name);
    if (o != NULL && (o->flags & OPTION_REFUSED) != 0)
        return -ENOPROTOOPT;
    if (o != NULL && (o->flags & OPTION_HOT) != 0 && c->us->kind != USOCK_UNDECIDED) {
        if ((int)len < (int)sizeof(int))
            return -EINVAL;
        if (!user_valid(val, sizeof(int)))
            return -EFAULT;
        return tell_engine(c, o, val, len);
    }
    int r = 0;
    if (c->us->shares && o != NULL && (o->flags & OPTION_JUDGED) != 0) {
        r = backing_judge(level, name, val, len);
    } else {
        r = backing_own(c->us, c->fd);
        if (r == 0)
            r = raw_setsockopt(c->fd, level, name, val, len);
    }
    if (r == -ENOENT && o != NULL && (o->flags & OPTION_OURS) != 0)
        return tell_engine(c, o, val, len); /* the engine has it, whatever modules the kernel has */
    return r < 0 || o == NULL ? r : tell_engine(c, o, val, len);
}

SHIM_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "setsockopt", CALL_ANY)))
        return real_ready()->setsockopt(fd, level, name, val, len);
    call_note(
        &c,
        (struct call_args){
            .shape = ARGS_OPTION, .a = (uint64_t)level, .b = (uint64_t)name, .p = val, .len = len});
    return (int)call_end(&c, sock_setsockopt(&c, level, name, val, len));
}

/* CALL_PASS: the kernel socket's answer is the right one. */
static int64_t sock_getsockopt(struct call *c, int level, int name, void *val, socklen_t *len)
{
    const struct option *o = find(level, name);
    if (o == NULL || !user_valid(len, sizeof(*len)) || (int)*len < 0 || !user_valid(val, *len))
        return CALL_PASS;
    if (o->get != NULL)
        return o->get(c, val, len);
    const struct usock *us = c->us;
    if (o->field == FIELD_NONE || (us->conn == NULL && us->listener == NULL))
        return CALL_PASS;
    const int value = load(o, option_opts(c));
    if (value == 0 && (o->flags & OPTION_ZERO_DEFAULT) != 0)
        return CALL_PASS;
    if (o->level == IPPROTO_IP && *len > 0 && *len < sizeof(value) && value >= 0 && value <= 255)
        *len = 1; /* Linux: a byte where an int does not fit */
    return option_give(val, len, &value, sizeof(value));
}

SHIM_EXPORT int getsockopt(int fd, int level, int name, void *restrict val, socklen_t *restrict len)
{
    struct call c;
    if (unlikely(call_begin(&c, fd, "getsockopt", CALL_ANY))) {
        call_note(&c, (struct call_args){
                          .shape = ARGS_OPTION, .a = (uint64_t)level, .b = (uint64_t)name});
        const int64_t r = sock_getsockopt(&c, level, name, val, len);
        if (r != CALL_PASS)
            return (int)call_end(&c, r);
        call_pass(&c);
    }
    return real_ready()->getsockopt(fd, level, name, val, len);
}
