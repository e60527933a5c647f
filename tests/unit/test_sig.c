/* test_sig.c - client/sig: signatures as C builds them and as Celery writes them. */
#include "client/sig.h"

#include "tests/support/suite.h"

static apium_error error, *err = &error;

/* Signatures are JSON: equal ones may differ in order and space. */
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

#define TAIL "\"subtask_type\": null, \"immutable\": false}"

START_TEST(a_signature_is_celerys_json)
{
    is_json(
        apium_sig_new("t.add", "[%d, %s]", 2, "x\""),
        "{\"task\": \"t.add\", \"args\": [2, \"x\\\"\"], \"kwargs\": {}, \"options\": {}, " TAIL);
    is_json(apium_sig_new("t.add", "{\"x\": %d}", 2),
            "{\"task\": \"t.add\", \"args\": [], \"kwargs\": {\"x\": 2}, \"options\": {}, " TAIL);
    is_json(
        apium_sig_immutable(apium_sig_kwargs(apium_sig_new("t.add", "[1.0]"), "{\"k\": %s}", "v")),
        "{\"task\": \"t.add\", \"args\": [1.0], \"kwargs\": {\"k\": \"v\"}, \"options\": {}, "
        "\"subtask_type\": null, "
        "\"immutable\": true}");
    is_json(apium_sig_new("t.add", NULL),
            "{\"task\": \"t.add\", \"args\": [], \"kwargs\": {}, \"options\": {}, " TAIL);
}
END_TEST

START_TEST(options_have_celerys_names)
{
    const apium_send_opts opts = { .countdown = 2.5,
                                   .queue = "q",
                                   .has_priority = true,
                                   .task_id = "id",
                                   .time_limit = 30,
                                   .ignore_result = APIUM_OFF,
                                   .persistent = APIUM_OFF,
                                   .headers = "{\"h\": 1.0}",
                                   .expires_at_us = 1893553445000678 };
    is_json(apium_sig_set(apium_sig_new("t.a", NULL), &opts),
            "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {\"queue\": \"q\", "
            "\"task_id\": \"id\", "
            "\"countdown\": 2.5, \"time_limit\": 30, \"expires\": "
            "\"2030-01-02T03:04:05.000678+00:00\", \"priority\": 0, "
            "\"ignore_result\": false, \"delivery_mode\": 1, \"headers\": {\"h\": 1.0}}, " TAIL);
}
END_TEST

START_TEST(links_are_lists_of_signatures)
{
    apium_sig *sig = apium_sig_new("t.a", NULL);
    sig = apium_sig_link(sig, apium_sig_new("t.b", "[1]"));
    sig = apium_sig_set(sig,
                        &(apium_send_opts){ .link = "[{\"task\": \"t.c\"}, {\"task\": \"t.d\"}]" });
    sig = apium_sig_link_error(sig, apium_sig_new("t.e", NULL));
    is_json(sig, "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {\"link\": "
                 "[{\"task\": \"t.b\", \"args\": [1], "
                 "\"kwargs\": {}, \"options\": {}, " TAIL
                 ", {\"task\": \"t.c\"}, {\"task\": \"t.d\"}], \"link_error\": "
                 "[{\"task\": \"t.e\", \"args\": [], \"kwargs\": {}, \"options\": {}, " TAIL
                 "]}, " TAIL);
}
END_TEST

START_TEST(what_was_read_is_written_again)
{
    static const char *const texts[] = {
        "{\"task\": \"t.add\", \"args\": [1180591620717411303424, 1.0], \"kwargs\": {\"k\": NaN}, "
        "\"options\": {\"queue\": "
        "\"q\", \"countdown\": 3, \"eta\": \"2030-01-02T03:04:05+00:00\", \"expires\": 60, "
        "\"retries\": 2, \"priority\": 5, "
        "\"group_id\": \"g\", \"chord\": {\"task\": \"t.body\"}, \"stamped_headers\": [\"s\"], "
        "\"s\": \"x\", "
        "\"delivery_mode\": 2, \"link\": [{\"task\": \"t.b\"}]}, \"subtask_type\": null, "
        "\"immutable\": true, "
        "\"chord_size\": null}",
        "{\"task\": \"celery.group\", \"args\": [], \"kwargs\": {\"tasks\": [{\"task\": "
        "\"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {}, " TAIL "]}, \"options\": {}, "
        "\"subtask_type\": \"group\", \"immutable\": false}",
        /* an option with a value that only a newer Celery may understand */
        "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {\"queue\": {\"name\": "
        "\"q\"}, \"priority\": "
        "\"high\", \"eta\": 7, \"expires\": \"soon\", \"headers\": 5, \"retries\": \"x\", "
        "\"ignore_result\": 1}, " TAIL,
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        apium_sig *sig;
        ck_ok(apium_sig_parse(texts[i], &sig, err));
        is_json(sig, texts[i]);
    }
}
END_TEST

START_TEST(nulls_and_gaps_are_defaults)
{
    apium_sig *sig;
    ck_ok(apium_sig_parse(
        "{\"task\": \"t.a\", \"args\": null, \"kwargs\": null, \"options\": null}", &sig, err));
    is_json(sig, "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {}, " TAIL);
    ck_ok(apium_sig_parse(
        "{\"task\": \"t.a\", \"options\": {\"queue\": null, \"link\": null, \"chord\": null}}",
        &sig, err));
    is_json(sig, "{\"task\": \"t.a\", \"args\": [], \"kwargs\": {}, \"options\": {\"queue\": null, "
                 "\"link\": null, \"chord\": null}, " TAIL);
}
END_TEST

START_TEST(what_is_no_signature_is_refused)
{
    static const struct {
        const char *json;
        apium_status status;
    } bad[] = {
        { "{", APIUM_E_DECODE },
        { "[]", APIUM_E_INVALID },
        { "{}", APIUM_E_INVALID },
        { "{\"task\": 5}", APIUM_E_INVALID },
        { "{\"task\": \"\"}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"args\": {}}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"kwargs\": []}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"options\": []}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"options\": {\"link\": [5]}}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"options\": {\"link\": 5}}", APIUM_E_INVALID },
        { "{\"task\": \"a\", \"options\": {\"link\": {\"args\": []}}}", APIUM_E_INVALID },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        apium_sig *sig = NULL;
        ck_fails(apium_sig_parse(bad[i].json, &sig, err), bad[i].status);
        ck_assert_ptr_null(sig);
        ck_assert_ptr_eq(strstr(err->text, "cannot read a signature: "), err->text);
    }
}
END_TEST

START_TEST(a_broken_signature_says_so_when_it_is_used)
{
    apium_sig *sig = apium_sig_new("t.a", "[%d", 1);
    ck_assert_ptr_null(apium_sig_json(sig, err));
    ck_assert_ptr_eq(strstr(err->text, "the signature of t.a: its arguments: "), err->text);
    /* and everything that is linked to it */
    apium_sig *first = apium_sig_link(apium_sig_new("t.b", NULL), sig);
    ck_assert_ptr_null(apium_sig_json(first, err));
    apium_sig_free(first);
    sig = apium_sig_new(NULL, NULL);
    ck_assert_ptr_null(apium_sig_json(sig, err));
    apium_sig_free(sig);
    sig = apium_sig_kwargs(apium_sig_new("t.a", NULL), "[1]");
    ck_assert_ptr_null(apium_sig_json(sig, err));
    apium_sig_free(sig);
    ck_assert_ptr_null(apium_sig_link(NULL, apium_sig_new("t.a", NULL)));
    ck_assert_ptr_null(apium_sig_set(NULL, &(apium_send_opts){ 0 }));
    apium_sig_free(NULL);
}
END_TEST

START_TEST(later_options_win_and_times_replace_times)
{
    apium_send_opts opts = {
        .countdown = 5, .expires = 9, .queue = "a", .priority = 3, .has_priority = true
    };
    apm_opts_lay(&opts, &(apium_send_opts){ .eta_us = 7, .priority = 4 });
    ck_assert(opts.countdown == 0 && opts.eta_us == 7 && opts.expires == 9);
    ck_assert_str_eq(opts.queue, "a");
    ck_assert_int_eq(opts.priority, 4);
    apm_opts_lay(&opts,
                 &(apium_send_opts){ .has_priority = true, .expires_at_us = 8, .queue = "b" });
    ck_assert(opts.priority == 0 && opts.has_priority && opts.expires == 0 &&
              opts.expires_at_us == 8);
    ck_assert_str_eq(opts.queue, "b");
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_signature_is_celerys_json,
        options_have_celerys_names,
        links_are_lists_of_signatures,
        what_was_read_is_written_again,
        nulls_and_gaps_are_defaults,
        what_is_no_signature_is_refused,
        a_broken_signature_says_so_when_it_is_used,
        later_options_win_and_times_replace_times,
        NULL,
    };
    return suite_run("sig", tests, 4);
}
