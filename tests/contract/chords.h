/*
 * chords.h - what the tests of chords say to a backend, and how they run over one: the first argument names the adapter; "redis-list" is
 * Redis with Celery's other layout.
 */
#ifndef APM_TESTS_CHORDS_H
#define APM_TESTS_CHORDS_H

#include "side.h"

extern bool unordered; /* parts are in the order of their return */

side *open_side(bool broker);
/* Lives until the process ends. */
const char *fresh_id(void);

/* One operation in one unit. */
void expect(side *s, const char *group, int64_t size);
void extend(side *s, const char *group, int64_t by);
void add_arrival(side *s, apm_unit *unit, const char *group, const char *id, int64_t index,
                 const char *result);
/* Was it the last? */
bool arrive(side *s, const char *group, const char *id, int64_t index, const char *result);
apium_status claim(side *s, const char *group, apium_error *err);
void save_group(side *s, const char *group, const char *doc);

typedef struct gathered {
    bool known;
    apium_status status;
    size_t calls, n, most;
    char *text; /* all members, one a line */
    size_t len, cap;
    char tree[512];
    bool has_tree;
} gathered;

void on_parts(void *arg, const apm_parts *parts, const apium_error *err);
/* The text is to be freed. */
gathered parts_of(side *s, const char *group);
size_t count_parts(side *s, const char *group);
/* Whether they can be had. */
apium_status ask_parts(side *s, const char *group);
/* The parts are those that returned with these results, in this order. */
void check_results(side *s, const char *group, const char *const *results, size_t n);

typedef struct answer {
    bool known, there;
    char doc[512];
} answer;

void on_fetched(void *arg, apm_str doc, const apium_error *err);
answer fetch_group(side *s, const char *group);
void on_done(void *arg, apium_status status, const apium_error *err); /* arg: a bool */

typedef struct chord_test {
    const TTest *const *test;
    bool broker, steals; /* what it needs */
} chord_test;

/* The rest of main(). `tests` ends with an empty one. */
int chords_run(int argc, char **argv, const chord_test *tests);

#endif
