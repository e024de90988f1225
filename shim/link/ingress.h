/*
 * Shared address mode: what arrives for the stack arrives at the kernel, too. It takes each frame
 * through its IP and TCP as far as the guard, whose filter drops it (guard.h): a tenth of what a
 * busy sender on a veth costs. So, unless TCPSHIM_INGRESS=pass, the keeper of a family that
 * receives much puts an eBPF program at the ingress of the interface (tcx, Linux 6.6), behind the
 * packet sockets: it drops what belongs to a connection that is marked (stack/tcp/marks.h), and
 * nothing else. The marks lie in the memory of a map that all of the family have mapped. Where
 * anything of this cannot be had, and until it stands, the guards serve alone, as they do for
 * listeners, TIME_WAIT and connections without mark.
 *
 * The keeper and not the family's processes: some gave up the privileges that it needs, to attach
 * and detach it waits for a grace period of RCU (10 to 20 ms), and it ends when the keeper does.
 */
#pragma once

#include "stack/stack.h"

struct bpf_insn;

/*
 * At the start of the engine: makes the map and gives the stack its marks, mapped behind the end of
 * the arena. Without the privilege for it nothing happens.
 */
void ingress_prepare(struct stack *st, void *end);
/* The map's descriptor; -1: there is none. */
int ingress_fd(void);
/* In a new image or a process that joins: the marks at their address. False: not possible. */
bool ingress_adopt(const struct stack *st, int fd);

/*
 * Entered: so many frames arrived, the last over that interface of the stack. When there are many
 * the keeper is asked for the program, once an interface.
 */
void ingress_count(struct stack_cx *cx, unsigned frames, unsigned netif);

#define INGRESS_INSNS 64
/* The program over a map of marks: up to INGRESS_INSNS. Returns its length. */
unsigned ingress_program(int map, struct bpf_insn *code);
