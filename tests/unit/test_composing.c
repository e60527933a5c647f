/* test_composing.c - client/canvas: workflows built in C are those that Celery builds; what cannot be one says so. */
#include <apium/canvas.h>

#include <stdio.h>
#include <stdlib.h>

#include "client/sig.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;

static void
is_json(apium_sig *sig, const char *expected)
{
    apm_json a, b;
    const char *json = apium_sig_json(sig, err);
    ck_assert_msg(json, "%s", err->text);
    ck_ok(apm_json_parse(apm_strz(json), &a, err));
    ck_ok(apm_json_parse(apm_strz(expected), &b, err));
    ck_assert_msg(apm_json_equal(a, b), "%s instead of %s", json, expected);
    apium_sig_free(sig);
}

static void
is_broken(apium_sig *sig, apium_status status, const char *words)
{
    ck_assert_ptr_null(apium_sig_json(sig, err));
    ck_assert_int_eq(err->status, status);
    ck_assert_msg(strstr(err->text, words), "%s", err->text);
    apium_sig_free(sig);
}

static apium_sig *
task(const char *name)
{
    return apium_sig_new(name, NULL);
}

/* What json.dumps() of Celery's own signatures printed. */
#define TAIL       "\"subtask_type\": null, \"immutable\": false}"
#define TASK(name) "{\"task\": \"" name "\", \"args\": [], \"kwargs\": {}, \"options\": {}, " TAIL
#define CHAIN(tasks, options)                                                                      \
    "{\"task\": \"celery.chain\", \"args\": [], \"kwargs\": {\"tasks\": [" tasks                   \
    "]}, \"options\": {" options "}, \"subtask_type\": \"chain\", \"immutable\": false}"
#define GROUP(tasks)                                                                               \
    "{\"task\": \"celery.group\", \"args\": [], \"kwargs\": {\"tasks\": [" tasks                   \
    "]}, \"options\": {}, \"subtask_type\": \"group\", \"immutable\": false}"
#define CHORD(header, body)                                                                        \
    "{\"task\": \"celery.chord\", \"args\": [], \"kwargs\": {\"kwargs\": {}, \"header\": [" header \
    "], \"body\": " body "}, \"options\": {}, \"subtask_type\": \"chord\", \"immutable\": false}"

START_TEST(composites_are_celerys_json)
{
    is_json(apium_chain(task("t.a"), task("t.b"), NULL), CHAIN(TASK("t.a") ", " TASK("t.b"), ""));
    is_json(apium_group(task("t.a"), task("t.b"), NULL), GROUP(TASK("t.a") ", " TASK("t.b")));
    is_json(apium_chord(apium_group(task("t.a"), task("t.b"), NULL), task("t.c")),
            CHORD(TASK("t.a") ", " TASK("t.b"), TASK("t.c")));
    /* a header that is no group is a header of one */
    is_json(apium_chord(apium_chain(task("t.a"), task("t.b"), NULL), task("t.c")),
            CHORD(CHAIN(TASK("t.a") ", " TASK("t.b"), ""), TASK("t.c")));
    is_json(apium_group_of(0, NULL), GROUP(""));
    apium_sig *parts[] = { task("t.a"), apium_chord(task("t.b"), task("t.c")) };
    is_json(apium_chain_of(2, parts), CHAIN(TASK("t.a") ", " CHORD(TASK("t.b"), TASK("t.c")), ""));
}
END_TEST

START_TEST(a_kind_has_a_name)
{
    apium_sig *sig = apium_chord(apium_group(task("t.a"), NULL), task("t.b"));
    ck_assert_str_eq(apium_sig_kind(sig), "chord");
    apium_sig_free(sig);
    sig = task("t.a");
    ck_assert_str_eq(apium_sig_kind(sig), "task");
    apium_sig_free(sig);
}
END_TEST

START_TEST(maps_are_celerys_json)
{
    is_json(apium_map(task("t.a"), apium_json("[1, 1.0]")),
            "{\"task\": \"celery.map\", \"args\": [], \"kwargs\": {\"task\": " TASK(
                "t.a") ", \"it\": [1, 1.0]}, "
                       "\"options\": {}, \"subtask_type\": null, \"immutable\": true}");
    is_json(apium_starmap(task("t.a"), apium_json("[[1, 2]]")),
            "{\"task\": \"celery.starmap\", \"args\": [], \"kwargs\": {\"task\": " TASK(
                "t.a") ", \"it\": [[1, 2]]}, "
                       "\"options\": {}, \"subtask_type\": null, \"immutable\": true}");
    is_json(apium_chunks(task("t.a"), apium_json("[1, 2, 3]"), 2),
            "{\"task\": \"celery.chunks\", \"args\": [], \"kwargs\": {\"task\": " TASK(
                "t.a") ", \"it\": [1, 2, 3], "
                       "\"n\": 2}, \"options\": {}, \"subtask_type\": null, \"immutable\": true}");
    is_broken(apium_map(task("t.a"), apium_json("{}")), APIUM_E_INVALID, "items are no JSON array");
    is_broken(apium_map(apium_group(task("t.a"), NULL), apium_json("[]")), APIUM_E_INVALID,
              "a single task, not a group");
    is_broken(apium_chunks(task("t.a"), apium_json("[]"), 0), APIUM_E_INVALID, "no items");
}
END_TEST

START_TEST(links_of_composites_go_where_celery_puts_them)
{
    apium_sig *sig = apium_chain(task("t.a"), task("t.b"), NULL);
    sig = apium_sig_link_error(apium_sig_link(sig, task("t.l")), task("t.e"));
    is_json(sig, CHAIN(TASK("t.a") ", " TASK("t.b"),
                       "\"link\": [" TASK("t.l") "], \"link_error\": [" TASK("t.e") "]"));
    sig = apium_chord(apium_group(task("t.a"), task("t.b"), NULL), task("t.c"));
    sig = apium_sig_link_error(apium_sig_link(sig, task("t.l")), task("t.e"));
    is_json(
        sig,
        CHORD(TASK("t.a") ", " TASK("t.b"),
              "{\"task\": \"t.c\", \"args\": [], \"kwargs\": {}, \"options\": {\"link\": [" TASK(
                  "t.l") "], \"link_error\": [" TASK("t.e") "]}, " TAIL));
    /* a callback may be of any kind, and is not repeated */
    sig = apium_sig_link(task("t.a"), apium_group(task("t.l"), NULL));
    sig = apium_sig_link(sig, apium_group(task("t.l"), NULL));
    is_json(sig,
            "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {\"link\": [" GROUP(
                TASK("t.l")) "]}, " TAIL);
    /* of a group the first member is followed, once all the same, and each reports its error */
    sig = apium_group(task("t.a"), task("t.b"), NULL);
    sig = apium_sig_link_error(apium_sig_link(sig, task("t.l")), task("t.e"));
    const char *json = apium_sig_json(sig, err);
    ck_assert_msg(json, "%s", err->text);
    ck_assert_ptr_nonnull(strstr(json, "\"t.l\""));
    ck_assert_ptr_null(strstr(strstr(json, "\"t.l\"") + 1, "\"t.l\""));
    ck_assert_ptr_nonnull(strstr(strstr(json, "\"t.e\"") + 1, "\"t.e\""));
    apium_sig_free(sig);
}
END_TEST

START_TEST(a_part_may_be_changed_until_all_is_sent)
{
    apium_sig *a = task("t.a"), *chain = apium_chain(a, task("t.b"), NULL);
    apium_sig_kwargs(apium_sig_set(a, &(apium_send_opts){ .queue = "q" }), "{\"k\": %d}", 1);
    is_json(chain, CHAIN("{\"task\": \"t.a\", \"args\": [], \"kwargs\": {\"k\": 1}, \"options\": "
                         "{\"queue\": \"q\"}, " TAIL ", " TASK("t.b"),
                         ""));
}
END_TEST

START_TEST(a_part_is_in_one_place)
{
    apium_sig *a = task("t.a"), *chain = apium_chain(a, task("t.b"), NULL);
    is_broken(apium_group(a, task("t.c"), NULL), APIUM_E_INVALID,
              "the group: part 1 is a part of another workflow already");
    is_json(chain, CHAIN(TASK("t.a") ", " TASK("t.b"), "")); /* whose it still is */
    a = task("t.a");
    is_broken(apium_group(a, a, NULL), APIUM_E_INVALID,
              "part 2 is a part of this workflow already");
    a = task("t.a");
    is_broken(apium_chord(a, a), APIUM_E_INVALID, "its body is a part of this workflow already");
    a = task("t.a");
    chain = apium_chain(a, NULL);
    is_broken(apium_map(a, apium_json("[]")), APIUM_E_INVALID, "already");
    apium_sig_free(a); /* it is the chain's to release */
    is_json(chain, CHAIN(TASK("t.a"), ""));
}
END_TEST

START_TEST(a_workflow_cannot_contain_itself)
{
    apium_sig *a = task("t.a"), *group = apium_group(a, NULL), *chain = apium_chain(group, NULL);
    apium_sig_link(a, chain);
    is_broken(chain, APIUM_E_INVALID, "a part of the same workflow");
    a = task("t.a");
    is_broken(apium_sig_link(a, a), APIUM_E_INVALID, "a part of the same workflow");
    a = task("t.a");
    chain = apium_chain(a, task("t.b"), NULL);
    is_broken(apium_sig_link(chain, a), APIUM_E_INVALID, "a part of the same workflow");
}
END_TEST

START_TEST(what_is_wrong_with_a_part_is_wrong_with_the_whole)
{
    is_broken(apium_chain(task("t.a"), apium_group(apium_sig_new("t.b", "[%d", 1), NULL), NULL),
              APIUM_E_ENCODE, "the signature of t.b: its arguments");
}
END_TEST

START_TEST(what_is_missing_is_named)
{
    apium_sig *holed[] = { task("t.a"), NULL, task("t.b") };
    is_broken(apium_group_of(3, holed), APIUM_E_NOMEM, "the group: part 2 is missing");
    is_broken(apium_chain_of(0, NULL), APIUM_E_INVALID, "the chain: it has no steps");
    ck_assert_ptr_null(apium_chord(NULL, task("t.a")));
    ck_assert_ptr_null(apium_chord(task("t.a"), NULL));
    ck_assert_ptr_null(apium_chain(NULL, NULL));
    ck_assert_ptr_null(apium_map(NULL, apium_json("[]")));
    ck_assert_ptr_null(apium_sig_stamp(NULL, "x", apium_int(1)));
    ck_assert_ptr_null(apium_sig_clone(NULL, NULL));
    is_broken(apium_sig_kwargs(apium_group(task("t.a"), NULL), "{}"), APIUM_E_INVALID,
              "only a task has those with names");
}
END_TEST

START_TEST(nesting_has_a_bound)
{
    apium_sig *sig = task("t.a");
    for (int i = 0; i < 100; i++)
        sig = apium_group(sig, NULL);
    ck_assert_msg(apium_sig_json(sig, err), "%s", err->text);
    for (int i = 0; i < 100; i++)
        sig = apium_group(sig, NULL);
    is_broken(sig, APIUM_E_TOOBIG, "nested deeper than");
}
END_TEST

START_TEST(a_clone_is_a_signature_of_its_own)
{
    apium_sig *sig = apium_sig_kwargs(apium_sig_new("t.a", "[1]"), "{\"k\": 1, \"l\": 2}");
    apium_sig *clone = apium_sig_clone(sig, "[%d]", 2);
    apium_sig *named = apium_sig_clone(sig, "{\"l\": 3, \"m\": 4}");
    is_json(clone, "{\"task\": \"t.a\", \"args\": [2, 1], \"kwargs\": {\"k\": 1, \"l\": 2}, "
                   "\"options\": {}, " TAIL);
    is_json(named, "{\"task\": \"t.a\", \"args\": [1], \"kwargs\": {\"k\": 1, \"l\": 3, \"m\": 4}, "
                   "\"options\": {}, " TAIL);
    is_json(apium_sig_clone(apium_sig_immutable(sig), "[7]"),
            "{\"task\": \"t.a\", \"args\": [1], \"kwargs\": {\"k\": 1, \"l\": 2}, \"options\": {}, "
            "\"subtask_type\": null, \"immutable\": true}");
    apium_sig_free(sig);
    /* of a composite, whole: the original may be changed and sent */
    sig = apium_chain(task("t.a"), apium_group(task("t.b"), NULL), NULL);
    clone = apium_sig_clone(sig, NULL);
    apium_sig_free(sig);
    is_json(apium_group(clone, NULL), GROUP(CHAIN(TASK("t.a") ", " GROUP(TASK("t.b")), "")));
    sig = apium_sig_new("t.a", "[%d", 1);
    is_broken(apium_sig_clone(sig, NULL), APIUM_E_ENCODE, "the signature of t.a");
    is_broken(sig, APIUM_E_ENCODE, "the signature of t.a");
    sig = task("t.a");
    is_broken(apium_sig_clone(sig, "5"), APIUM_E_INVALID, "partial arguments");
    apium_sig_free(sig);
}
END_TEST

START_TEST(stamps_are_celerys)
{
    apium_sig *sig = apium_sig_link(apium_sig_new("t.a", "[1]"), task("t.b"));
    sig = apium_sig_stamp(apium_sig_stamp(sig, "user", apium_string("bob")), "n", apium_int(3));
#define STAMPS(user) "\"user\": \"" user "\", \"n\": 3, \"stamped_headers\": [\"user\", \"n\"]"
#define STAMPED(user)                                                                              \
    "{\"task\": \"t.a\", \"args\": [1], \"kwargs\": {}, \"options\": {\"link\": [{\"task\": "      \
    "\"t.b\", \"args\": [], \"kwargs\": {}, \"options\": {" STAMPS(user) "}, " TAIL "], " STAMPS(  \
        user) "}, " TAIL
    is_json(apium_sig_clone(sig, NULL), STAMPED("bob"));
    apium_sig *other = apium_sig_clone(sig, NULL);
    apium_sig_free(sig);
    is_json(apium_sig_stamp(other, "user", apium_string("eve")), STAMPED("eve"));
#define BY_BOB(name)                                                                               \
    "{\"task\": \"" name "\", \"args\": [], \"kwargs\": {}, \"options\": {\"user\": \"bob\", "     \
    "\"stamped_headers\": [\"user\"]}, " TAIL
    is_json(
        apium_sig_stamp(apium_chain(task("t.a"), task("t.b"), NULL), "user", apium_string("bob")),
        CHAIN(BY_BOB("t.a") ", " BY_BOB("t.b"), ""));
    is_json(apium_sig_stamp(apium_chord(apium_group(task("t.a"), NULL), task("t.c")), "user",
                            apium_string("bob")),
            CHORD(BY_BOB("t.a"), TASK("t.c")));
    is_broken(apium_sig_stamp(task("t.a"), "queue", apium_int(1)), APIUM_E_INVALID,
              "cannot be named queue");
    is_broken(apium_sig_stamp(task("t.a"), "", apium_int(1)), APIUM_E_INVALID, "no name");
}
END_TEST

START_TEST(where_a_signature_is_wrong_is_said)
{
    static const struct {
        const char *json, *words;
    } bad[] = {
        { "{\"task\": \"celery.chain\", \"subtask_type\": \"chain\", \"kwargs\": {}}",
          "kwargs.tasks is missing" },
        { "{\"task\": \"celery.group\", \"subtask_type\": \"group\", \"kwargs\": {\"tasks\": 5}}",
          "kwargs.tasks is no list" },
        { "{\"task\": \"celery.chord\", \"subtask_type\": \"chord\", \"kwargs\": {\"header\": [], "
          "\"body\": null}}",
          "kwargs.body is missing" },
        { "{\"task\": \"celery.chord\", \"subtask_type\": \"chord\", \"kwargs\": {\"header\": 7, "
          "\"body\": {\"task\": \"t\"}}}",
          "kwargs.header is no list" },
        { "{\"task\": \"celery.chord\", \"subtask_type\": \"chord\", \"kwargs\": {\"body\": "
          "{\"task\": \"t\"}}}",
          "kwargs.header is missing" },
        { "{\"task\": \"celery.chain\", \"subtask_type\": \"chain\", \"kwargs\": {\"tasks\": "
          "[{\"task\": \"a\"}, "
          "{\"task\": \"celery.group\", \"subtask_type\": \"group\", \"kwargs\": {\"tasks\": "
          "[{\"args\": []}]}}]}}",
          "kwargs.tasks[1].kwargs.tasks[0] names no task" },
        { "{\"task\": \"t\", \"options\": {\"link\": [{\"task\": \"u\"}, 5]}}",
          "options.link[1] is no object" },
        { "{\"task\": \"t\", \"options\": {\"chord\": {\"task\": 1}}}",
          "options.chord.task is no name" },
        { "{\"task\": \"t\\u0000\"}", "task is no name" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        apium_sig *sig = NULL;
        ck_fails(apium_sig_parse(bad[i].json, &sig, err), APIUM_E_INVALID);
        ck_assert_msg(strstr(err->text, bad[i].words), "%s", err->text);
    }
}
END_TEST

START_TEST(an_id_is_given_once)
{
    apium_sig *sig;
    ck_ok(apium_sig_parse("{\"task\": \"celery.chain\", \"subtask_type\": \"chain\", \"kwargs\": "
                          "{\"tasks\": [{\"task\": \"a\", "
                          "\"options\": {\"task_id\": \"x\"}}, {\"task\": \"b\"}, {\"task\": "
                          "\"a\", \"options\": {\"task_id\": \"x\"}}]}}",
                          &sig, err));
    ck_fails(apm_sig_check_ids(sig->tree, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "the id \"x\" is given twice: tasks[0] and tasks[2]");
    apium_sig_free(sig);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        composites_are_celerys_json,
        a_kind_has_a_name,
        maps_are_celerys_json,
        links_of_composites_go_where_celery_puts_them,
        a_part_may_be_changed_until_all_is_sent,
        a_part_is_in_one_place,
        a_workflow_cannot_contain_itself,
        what_is_wrong_with_a_part_is_wrong_with_the_whole,
        what_is_missing_is_named,
        nesting_has_a_bound,
        a_clone_is_a_signature_of_its_own,
        stamps_are_celerys,
        where_a_signature_is_wrong_is_said,
        an_id_is_given_once,
        NULL,
    };
    return suite_run("composing", tests, 4);
}
