/* The strings of the lists in names.h. */
#include "stack/tcp/names.h"

const char *tcp_state_name(unsigned state)
{
    static const char *const names[TCP_STATE_MAX + 1] = {
#define X(id, n) [n] = #id,
        TCP_STATES(X)
#undef X
    };
    return state < ARRAY_LEN(names) && names[state] != NULL ? names[state] : "?";
}

const char *tcp_timer_name(unsigned timer)
{
    static const char *const names[TCP_TIMER_COUNT] = {
#define X(id, word, doc) [TCP_TIMER_##id] = word,
        TCP_TIMERS(X)
#undef X
    };
    return timer < ARRAY_LEN(names) ? names[timer] : "?";
}

const char *tcp_reason_text(unsigned reason)
{
    static const char *const texts[TCP_REASON_COUNT] = {
#define X(id, words) [TCP_WHY_##id] = words,
        TCP_REASONS(X)
#undef X
    };
    return reason < ARRAY_LEN(texts) ? texts[reason] : "?";
}

const char *tcp_reason_name(unsigned reason)
{
    static const char *const names[TCP_REASON_COUNT] = {
#define X(id, words) [TCP_WHY_##id] = #id,
        TCP_REASONS(X)
#undef X
    };
    return reason < ARRAY_LEN(names) ? names[reason] : "?";
}
