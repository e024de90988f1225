#include "tests/unit/bpf.h"

static bool known(uint16_t code)
{
    switch (code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_H | BPF_ABS:
    case BPF_LD | BPF_B | BPF_ABS:
    case BPF_LD | BPF_W | BPF_IND:
    case BPF_LD | BPF_H | BPF_IND:
    case BPF_LD | BPF_B | BPF_IND:
    case BPF_LDX | BPF_B | BPF_MSH:
    case BPF_MISC | BPF_TAX:
    case BPF_JMP | BPF_JA:
    case BPF_JMP | BPF_JEQ | BPF_K:
    case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K:
    case BPF_JMP | BPF_JGT | BPF_K:
    case BPF_JMP | BPF_JSET | BPF_K:
    case BPF_RET | BPF_K:
        return true;
    default:
        return false;
    }
}

bool bpf_valid(const struct sock_filter *code, unsigned n)
{
    if (n == 0 || n > BPF_MAXINSNS || code[n - 1].code != (BPF_RET | BPF_K))
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (!known(code[i].code))
            return false;
        if (BPF_CLASS(code[i].code) != BPF_JMP)
            continue;
        if (BPF_OP(code[i].code) == BPF_JA) {
            if (code[i].k >= n - i - 1)
                return false;
        } else if (i + code[i].jt + 1u >= n || i + code[i].jf + 1u >= n) {
            return false;
        }
    }
    return true;
}

/* Loads size bytes at the signed offset k. False: outside. */
static bool load(const struct bpf_frame *f, uint32_t k, unsigned size, uint32_t *out)
{
    if ((int32_t)k < 0 && k >= (uint32_t)SKF_AD_OFF) {
        switch (k - (uint32_t)SKF_AD_OFF) {
        case SKF_AD_PROTOCOL:
            *out = f->protocol;
            return true;
        case SKF_AD_PKTTYPE:
            *out = f->pkttype;
            return true;
        case SKF_AD_IFINDEX:
            *out = f->ifindex;
            return true;
        case SKF_AD_VLAN_TAG_PRESENT:
            *out = f->vlan;
            return true;
        default:
            return false;
        }
    }
    if ((int32_t)k < 0)
        k = k - (uint32_t)SKF_NET_OFF + f->network;
    if (k > f->len || f->len - k < size)
        return false;
    *out = size == 4 ? get_be32(f->data + k) : size == 2 ? get_be16(f->data + k) : f->data[k];
    return true;
}

static unsigned size_of(uint16_t code)
{
    return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

static bool compare(const struct sock_filter *i, uint32_t a, uint32_t x)
{
    const uint32_t with = BPF_SRC(i->code) == BPF_X ? x : i->k;
    switch (BPF_OP(i->code)) {
    case BPF_JEQ:
        return a == with;
    case BPF_JGE:
        return a >= with;
    case BPF_JGT:
        return a > with;
    default:
        return (a & with) != 0;
    }
}

uint32_t bpf_run(const struct sock_filter *code, const struct bpf_frame *f)
{
    uint32_t a = 0, x = 0;
    for (const struct sock_filter *i = code;; i++) {
        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            if (!load(f, i->k + (BPF_MODE(i->code) == BPF_IND ? x : 0), size_of(i->code), &a))
                return 0;
            break;
        case BPF_LDX:
            if (!load(f, i->k, 1, &x))
                return 0;
            x = (x & 0xf) * 4;
            break;
        case BPF_MISC:
            x = a;
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA)
                i += i->k;
            else
                i += compare(i, a, x) ? i->jt : i->jf;
            break;
        default:
            return i->k;
        }
    }
}
