/* Findings of `tcpshim doctor`, each a line or two; see doctor.c. */
#pragma once

#include <errno.h>

void doctor_heading(const char *text);
void doctor_good(const char *format, ...) __attribute__((format(printf, 1, 2)));
void doctor_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Something that keeps tcpshim from working. */
void doctor_bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Against the last one. */
void doctor_cure(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned doctor_obstacles(void);

/* doctor_machine.c, doctor_network.c */
void doctor_examine_machine(void);
void doctor_examine_network(void);
