/*
 * fixture.h - the captured messages and results of real Celery programs in tests/fixtures, one at a
 * time, as the program that received them saw them.
 */
#ifndef APM_TESTS_FIXTURE_H
#define APM_TESTS_FIXTURE_H

#include "core/base/json.h"

typedef enum fixture_kind {
    FIXTURE_ENVELOPE, /* text: what was pushed to a Redis list */
    FIXTURE_FRAMES,   /* text: body, props: JSON of the basic properties, headers: JSON */
    FIXTURE_CASE, /* the same of a malformed message, outcome: JSON of what a worker did with it */
    FIXTURE_RESULT, /* text: a result document, in JSON or msgpack */
} fixture_kind;

typedef struct fixture {
    const char *file;  /* "5.6.2/msg_basic.json" */
    const char *name;  /* "msg_basic" */
    size_t number;     /* of the message in the file, from 1; of a case 0 */
    const char *label; /* of a case: its name */
    fixture_kind kind;
    apm_str text, headers;
    apm_json props, outcome;
    bool binary; /* of a result: msgpack or pickle */
} fixture;

typedef void fixture_visit(const fixture *one);
/* Visit them all in order of their names; the number of files. Ends the test when a file cannot be
 * read. */
size_t fixtures_each(fixture_visit *visit);

#endif
