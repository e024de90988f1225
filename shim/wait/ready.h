/* Readiness of user sockets, and poll(2)'s bits to and from the engine's. */
#pragma once

#include <poll.h>

#include "shim/core/usock.h"

/* The engine's events that a set of poll or epoll bits asks for. */
static inline uint32_t ready_interest(uint32_t poll_events)
{
    uint32_t ev = poll_events &
                  (TCP_EV_IN | TCP_EV_PRI | TCP_EV_OUT | TCP_EV_ERR | TCP_EV_HUP | TCP_EV_RDHUP);
    if ((poll_events & 0x40u) != 0) /* POLLRDNORM */
        ev |= TCP_EV_IN;
    if ((poll_events & 0x100u) != 0) /* POLLWRNORM */
        ev |= TCP_EV_OUT;
    return ev;
}

/* The bits that Linux's tcp_poll() sets for them. */
static inline uint32_t ready_bits(uint32_t events)
{
    if ((events & TCP_EV_IN) != 0)
        events |= 0x40u;
    if ((events & TCP_EV_OUT) != 0)
        events |= 0x100u;
    return events;
}

/* Entered. What is true of the socket now (TCP_EV_*); of a listener, of the engine's queue only. */
static inline uint32_t ready_now(const struct usock *us)
{
    switch (us->kind) {
    case USOCK_CONN:
        return tcp_poll(us->conn);
    case USOCK_LISTENER:
        return tcp_listener_poll(us->listener);
    case USOCK_UNDECIDED: /* as a fresh TCP socket: TCP_CLOSE, with room to send */
        return us->conn != NULL ? tcp_poll(us->conn) : TCP_EV_OUT | TCP_EV_HUP;
    default:
        return 0;
    }
}
