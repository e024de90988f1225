/* The program at the interface's ingress: see ingress.h. */
#include <linux/if_ether.h>
#include <netinet/in.h>

#include "shim/link/bpf.h"
#include "shim/link/ingress.h"
#include "stack/tcp/marks.h"

/* Offsets in a frame. */
#define TYPE     12
#define IP       ETH_HLEN
#define FRAGMENT (IP + 6) /* flags and offset */
#define PROTOCOL (IP + 9)
#define SOURCE   (IP + 12)
#define TARGET   (IP + 16)
#define PORTS    (IP + 20)
#define TCP_MIN  20

#define INSN(c, d, s, o, i)                                                                        \
    ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define MOVE(d, s)          INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define NUMBER(d, i)        INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD(d, i)           INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)

enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP };

/* Of the frame, kept across the look-up. */
#define LOCAL   R6
#define REMOTE  R7
#define BOTH    R8 /* ports */
#define IFINDEX R9

#define JUMPS_MAX 16

struct assembler {
    struct bpf_insn *code;
    unsigned n;
    unsigned to_pass[JUMPS_MAX]; /* jumps to the end, where a frame passes */
    unsigned jumps;
};

static void put(struct assembler *a, struct bpf_insn i)
{
    a->code[a->n++] = i;
}

static void pass_if(struct assembler *a, struct bpf_insn jump)
{
    a->to_pass[a->jumps++] = a->n;
    put(a, jump);
}

static void demand(struct assembler *a, uint8_t reg, int32_t number)
{
    pass_if(a, INSN(BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0, number));
}

/* r0: the mark at the place of the frame's ports and source. */
static void look_up(struct assembler *a, int map)
{
    const int16_t place = -4;
    put(a, INSN(BPF_ALU | BPF_MOV | BPF_X, R1, BOTH, 0, 0));
    put(a, INSN(BPF_ALU | BPF_XOR | BPF_X, R1, REMOTE, 0, 0));
    put(a, INSN(BPF_ALU | BPF_MUL | BPF_K, R1, 0, 0, (int32_t)MARKS_HASH));
    put(a, INSN(BPF_ALU | BPF_RSH | BPF_K, R1, 0, 0, 32 - MARKS_BITS));
    put(a, INSN(BPF_STX | BPF_MEM | BPF_W, FP, R1, place, 0));
    put(a, INSN(BPF_LD | BPF_DW | BPF_IMM, R1, BPF_PSEUDO_MAP_FD, 0, map));
    put(a, INSN(0, 0, 0, 0, 0));
    put(a, MOVE(R2, FP));
    put(a, ADD(R2, place));
    put(a, INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem));
    pass_if(a, INSN(BPF_JMP | BPF_JEQ | BPF_K, R0, 0, 0, 0));
}

static void compare(struct assembler *a, uint8_t reg, int16_t member)
{
    put(a, LOAD(BPF_W, R1, R0, member));
    pass_if(a, INSN(BPF_JMP | BPF_JNE | BPF_X, R1, reg, 0, 0));
}

unsigned ingress_program(int map, struct bpf_insn *code)
{
    struct assembler a = {.code = code};
    put(&a, LOAD(BPF_W, R2, R1, offsetof(struct __sk_buff, data)));
    put(&a, LOAD(BPF_W, R3, R1, offsetof(struct __sk_buff, data_end)));
    put(&a, LOAD(BPF_W, IFINDEX, R1, offsetof(struct __sk_buff, ifindex)));
    put(&a, LOAD(BPF_W, R4, R1, offsetof(struct __sk_buff, vlan_present)));
    demand(&a, R4, 0);
    put(&a, MOVE(R4, R2));
    put(&a, ADD(R4, PORTS + TCP_MIN));
    pass_if(&a, INSN(BPF_JMP | BPF_JGT | BPF_X, R4, R3, 0, 0));
    put(&a, LOAD(BPF_H, R4, R2, TYPE));
    demand(&a, R4, htobe16(ETH_P_IP));
    put(&a, LOAD(BPF_B, R4, R2, IP));
    demand(&a, R4, 0x45);
    put(&a, LOAD(BPF_H, R4, R2, FRAGMENT));
    put(&a, INSN(BPF_ALU64 | BPF_AND | BPF_K, R4, 0, 0, htobe16(0x3fff)));
    demand(&a, R4, 0);
    put(&a, LOAD(BPF_B, R4, R2, PROTOCOL));
    demand(&a, R4, IPPROTO_TCP);
    put(&a, LOAD(BPF_W, LOCAL, R2, TARGET));
    put(&a, LOAD(BPF_W, REMOTE, R2, SOURCE));
    put(&a, LOAD(BPF_W, BOTH, R2, PORTS));
    look_up(&a, map);
    compare(&a, IFINDEX, offsetof(struct flow_mark, ifindex));
    compare(&a, BOTH, offsetof(struct flow_mark, ports));
    compare(&a, REMOTE, offsetof(struct flow_mark, remote));
    compare(&a, LOCAL, offsetof(struct flow_mark, local));
    put(&a, NUMBER(R0, TCX_DROP));
    put(&a, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
    for (unsigned i = 0; i < a.jumps; i++)
        code[a.to_pass[i]].off = (int16_t)(a.n - a.to_pass[i] - 1);
    put(&a, NUMBER(R0, TCX_NEXT));
    put(&a, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
    return a.n;
}
