#define _GNU_SOURCE
#include "shim/link/foreign.h"

#include <stdio.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/link/diag.h"
#include "shim/link/group.h"

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

bool foreign_flow(struct stack_cx *cx, const struct flow_tuple *tuple, uint32_t ifindex,
                  bool unheard)
{
    struct diag_socket found;
    if (!ip_addr_is_v4(&tuple->local))
        return false;
    if (group_known(tuple->lport))
        return group_shares(cx, tuple, ifindex);
    if ((!unheard && cx->now >= engine.sh->foreign_until) || !diag_may_ask(cx->now, DIAG_FIND) ||
        diag_find(tuple, ifindex, &found) < 0)
        return false;
    /* a listener: of another address of this host */
    return found.kind == DIAG_FLOW || (unheard && group_not_ours(tuple->lport, &found));
}
