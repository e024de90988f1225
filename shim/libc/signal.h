/* The handlers of the program run behind a trampoline: see signal.c. */
#pragma once

/* In fork's child: the lock of the table is free. */
void signals_after_fork_child(void);
