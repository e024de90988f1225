#define _GNU_SOURCE
#include "shim/link/foreign.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/names.h"

/* A flood of stray segments is answered without asking. */
#define ASK_MAX 500 /* a second */
/* A keeper lives no longer (shim/keeper/finish.c). */
#define KEEPER_LIFE (130 * NSEC_PER_SEC)

socklen_t foreign_name(uint16_t port, struct sockaddr_un *name)
{
    *name = (struct sockaddr_un){.sun_family = AF_UNIX}; /* sun_path[0] is 0: an abstract name */
    const int n =
        snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "tcpshim-keeper/%u", port);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

void foreign_look(struct stack_cx *cx, uint16_t port)
{
    struct sockaddr_un name;
    const socklen_t len = foreign_name(port, &name);
    const int fd = fd_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (raw_connect(fd, &name, len) == 0)
        engine.sh->foreign_until = cx->now + KEEPER_LIFE;
    raw_close(fd);
}

static bool may_ask(nsec_t now)
{
    static nsec_t since;
    static unsigned asked;
    if (now >= since + NSEC_PER_SEC) {
        since = now;
        asked = 0;
    }
    return asked++ < ASK_MAX;
}

static bool ask(int fd, const struct flow_tuple *t)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 ask;
    } request = {
        .head = {.nlmsg_len = sizeof(request),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST},
        .ask = {.sdiag_family = AF_INET,
                .sdiag_protocol = IPPROTO_TCP,
                .idiag_states = UINT32_MAX,
                .id = {.idiag_sport = htons(t->lport),
                       .idiag_dport = htons(t->rport),
                       .idiag_src = {ip_addr_v4(&t->local)},
                       .idiag_dst = {ip_addr_v4(&t->remote)},
                       .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    struct {
        struct nlmsghdr head;
        struct inet_diag_msg found;
        char more[512];
    } answer = {.head.nlmsg_type = NLMSG_NOOP};
    if (raw_send(fd, &request, sizeof(request), MSG_DONTWAIT) < 0)
        return false;
    const ssize_t n = raw_recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
    return n >= (ssize_t)(sizeof(answer.head) + sizeof(answer.found)) &&
           answer.head.nlmsg_type == SOCK_DIAG_BY_FAMILY &&
           answer.found.idiag_state != TCP_LISTEN; /* that is a guard, perhaps our own */
}

bool foreign_flow(struct stack_cx *cx, const struct flow_tuple *tuple)
{
    if (cx->now >= engine.sh->foreign_until || !ip_addr_is_v4(&tuple->local) || !may_ask(cx->now))
        return false;
    const int fd = fd_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return false;
    const bool found = ask(fd, tuple);
    raw_close(fd);
    return found;
}
