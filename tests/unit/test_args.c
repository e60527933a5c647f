/* test_args.c - client/args: arguments bound as Python binds them, with Python's messages. */
#include <apium/task.h>

#include <math.h>

#include "tests/support/run_task.h"

/* What the handler below is to read; set by each test. */
static const char *spec;
static enum {
    ONE_INT,
    TWO_INTS,
    ONE_DOUBLE,
    ONE_NUMBER,
    ONE_BOOL,
    ONE_TEXT,
    ONE_BYTES,
    TEXT_AND_RESTS,
    THREE_INTS
} shape;

static int64_t a, b, c;
static double d;
static bool yes;
static apium_number number;
static apium_text bytes;
static const char *s, *rest, *kwrest;

static apium_verdict
read_args(apium_task *task)
{
    bool ok = false;
    switch (shape) {
    case ONE_INT:
        ok = apium_args(task, spec, &a);
        break;
    case TWO_INTS:
        ok = apium_args(task, spec, &a, &b);
        break;
    case THREE_INTS:
        ok = apium_args(task, spec, &a, &b, &c);
        break;
    case ONE_DOUBLE:
        ok = apium_args(task, spec, &d);
        break;
    case ONE_NUMBER:
        ok = apium_args(task, spec, &number);
        break;
    case ONE_BOOL:
        ok = apium_args(task, spec, &yes);
        break;
    case ONE_TEXT:
        ok = apium_args(task, spec, &s);
        break;
    case ONE_BYTES:
        ok = apium_args(task, spec, &bytes);
        break;
    case TEXT_AND_RESTS:
        ok = apium_args(task, spec, &s, &rest, &kwrest);
        break;
    }
    if (!ok)
        return APIUM_FAILURE;
    /* Text lives as long as the task: show it in the result. */
    if (shape == ONE_TEXT)
        return apium_return(task, apium_string(s));
    if (shape == ONE_BYTES)
        return apium_return(task, apium_stringn(bytes.p, bytes.len));
    if (shape == TEXT_AND_RESTS)
        return apium_return(task, apium_jsonf("[%s, %s, %s]", s, rest, kwrest));
    return APIUM_SUCCESS;
}

static void
call(const char *args, const char *kwargs)
{
    run_task(&(apium_task_def){ .name = "tasks.add", .run = read_args }, args, kwargs);
}

static void
succeeds(const char *args, const char *kwargs)
{
    call(args, kwargs);
    ck_assert_msg(outcome.kind == APM_DONE_SUCCESS, "%s %s: %s", args, kwargs, raised());
}

static void
raises(const char *args, const char *kwargs, const char *exception)
{
    call(args, kwargs);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), exception);
}

static void
two_ints(const char *with)
{
    shape = TWO_INTS;
    spec = with;
    a = b = c = -7;
}

START_TEST(arguments_come_by_position_and_by_name)
{
    two_ints("x:int y:int");
    succeeds("[2, 3]", "{}");
    ck_assert_int_eq(a, 2);
    ck_assert_int_eq(b, 3);
    succeeds("[4]", "{\"y\": 5}");
    ck_assert_int_eq(a, 4);
    ck_assert_int_eq(b, 5);
    succeeds("[]", "{\"y\": 6, \"x\": -9223372036854775808}");
    ck_assert(a == INT64_MIN);
    ck_assert_int_eq(b, 6);
    succeeds("[]",
             "{\"x\": 1, \"\\u0079\": 2, \"x\": 3}"); /* escapes in names; the last of two wins */
    ck_assert_int_eq(a, 3);
    ck_assert_int_eq(b, 2);
}
END_TEST

/* Each message is what CPython 3.11 says for def add(...) called like that. */
START_TEST(wrong_calls_raise_what_python_raises)
{
    two_ints("x:int y:int");
    raises("[1]", "{}", "TypeError: add() missing 1 required positional argument: 'y'");
    raises("[]", "{}", "TypeError: add() missing 2 required positional arguments: 'x' and 'y'");
    raises("[1, 2, 3]", "{}", "TypeError: add() takes 2 positional arguments but 3 were given");
    raises("[1, 2]", "{\"z\": 3}", "TypeError: add() got an unexpected keyword argument 'z'");
    raises("[1, 2]", "{\"x\": 3}", "TypeError: add() got multiple values for argument 'x'");
    raises("[1, 2, 3]", "{\"z\": 3}", "TypeError: add() got an unexpected keyword argument 'z'");

    shape = THREE_INTS;
    spec = "x:int y:int z:int";
    raises("[]", "{}",
           "TypeError: add() missing 3 required positional arguments: 'x', 'y', and 'z'");
    spec = "x:int y:int=2 z:int=3";
    raises("[1, 2, 3, 4]", "{}",
           "TypeError: add() takes from 1 to 3 positional arguments but 4 were given");
    spec = "x:int * y:int z:int";
    raises("[1]", "{}", "TypeError: add() missing 2 required keyword-only arguments: 'y' and 'z'");
    raises("[1, 2]", "{\"y\": 1}",
           "TypeError: add() takes 1 positional argument but 2 positional arguments (and 1 "
           "keyword-only argument) were "
           "given");
    spec = "x:int=0 * y:int=0 z:int=0";
    raises("[1, 2]", "{}",
           "TypeError: add() takes from 0 to 1 positional arguments but 2 were given");

    shape = ONE_INT;
    spec = "x:int";
    raises("[1, 2]", "{}", "TypeError: add() takes 1 positional argument but 2 were given");
    spec = "* x:int";
    raises("[1]", "{}", "TypeError: add() takes 0 positional arguments but 1 was given");
}
END_TEST

START_TEST(nothing_is_written_when_a_call_is_wrong)
{
    two_ints("x:int y:int");
    call("[1, \"two\"]", "{}");
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_int_eq(a, -7);
    ck_assert_int_eq(b, -7);
}
END_TEST

START_TEST(a_wrong_type_is_named_with_its_argument)
{
    two_ints("x:int y:int");
    raises("[1, \"2\"]", "{}", "TypeError: add() argument 'y' must be int, not str");
    raises("[1, 2.0]", "{}", "TypeError: add() argument 'y' must be int, not float");
    raises("[1, true]", "{}", "TypeError: add() argument 'y' must be int, not bool");
    raises("[null, 1]", "{}", "TypeError: add() argument 'x' must be int, not NoneType");
    raises("[1]", "{\"y\": []}", "TypeError: add() argument 'y' must be int, not list");
    raises("[1, {}]", "{}", "TypeError: add() argument 'y' must be int, not dict");
}
END_TEST

START_TEST(an_integer_beyond_64_bits_overflows_by_name)
{
    two_ints("x:int y:int");
    raises("[1, 9223372036854775808]", "{}",
           "OverflowError: add() argument 'y' does not fit in 64 bits: 9223372036854775808");
    shape = ONE_NUMBER;
    spec = "x:number";
    raises("[1180591620717411303424]", "{}",
           "OverflowError: add() argument 'x' does not fit in 64 bits: 1180591620717411303424");
}
END_TEST

START_TEST(floats_take_integers_and_the_odd_values)
{
    shape = ONE_DOUBLE;
    spec = "x:float";
    succeeds("[2]", "{}");
    ck_assert(d == 2.0);
    succeeds("[1e308]", "{}");
    ck_assert(d == 1e308);
    succeeds("[-Infinity]", "{}");
    ck_assert(isinf(d) && d < 0);
    succeeds("[NaN]", "{}");
    ck_assert(isnan(d));
    succeeds("[1180591620717411303424]", "{}");
    ck_assert(d == 1180591620717411303424.0);
    raises("[\"1\"]", "{}", "TypeError: add() argument 'x' must be float, not str");
}
END_TEST

START_TEST(a_number_tells_int_from_float)
{
    shape = ONE_NUMBER;
    spec = "x:number";
    succeeds("[2]", "{}");
    ck_assert(!number.is_float && number.i == 2 && number.d == 2.0);
    succeeds("[2.0]", "{}");
    ck_assert(number.is_float && number.d == 2.0);
    raises("[true]", "{}", "TypeError: add() argument 'x' must be int or float, not bool");
}
END_TEST

START_TEST(strings_are_unescaped)
{
    shape = ONE_TEXT;
    spec = "x:str";
    succeeds("[\"a\\u00e9\\n\"]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"a\\u00e9\\n\"");
    succeeds("[\"\\ud800\"]", "{}"); /* a lone surrogate goes in and out */
    ck_assert_str_eq(text(outcome.result), "\"\\ud800\"");
    raises("[\"a\\u0000b\"]", "{}", "ValueError: add() argument 'x' has a NUL character");
    raises("[1]", "{}", "TypeError: add() argument 'x' must be str, not int");
}
END_TEST

START_TEST(bytes_take_any_string_and_what_python_makes_of_bytes)
{
    shape = ONE_BYTES;
    spec = "x:bytes";
    succeeds("[\"a\\u0000b\"]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"a\\u0000b\"");
    succeeds("[{\"__type__\": \"bytes\", \"__value__\": \"abc\"}]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"abc\"");
    succeeds("[{\"__type__\": \"base64\", \"__value__\": \"YWJj\"}]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"abc\"");
    raises("[{\"__type__\": \"uuid\", \"__value__\": \"1\"}]", "{}",
           "TypeError: add() argument 'x' must be str or bytes, not dict");
    raises("[{}]", "{}", "TypeError: add() argument 'x' must be str or bytes, not dict");
}
END_TEST

START_TEST(json_is_the_text_that_was_sent)
{
    shape = ONE_TEXT;
    spec = "x:json";
    succeeds("[ {\"b\":1.0 ,\"a\":[1e2,NaN]} ]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"{\\\"b\\\":1.0 ,\\\"a\\\":[1e2,NaN]}\"");
    spec = "x:array";
    succeeds("[[1]]", "{}");
    raises("[{}]", "{}", "TypeError: add() argument 'x' must be list, not dict");
    spec = "x:object";
    succeeds("[{}]", "{}");
    raises("[3]", "{}", "TypeError: add() argument 'x' must be dict, not int");
    spec = "x"; /* no type is json */
    succeeds("[null]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"null\"");
}
END_TEST

START_TEST(bools_are_only_true_and_false)
{
    shape = ONE_BOOL;
    spec = "x:bool";
    succeeds("[true]", "{}");
    ck_assert(yes);
    succeeds("[false]", "{}");
    ck_assert(!yes);
    raises("[1]", "{}", "TypeError: add() argument 'x' must be bool, not int");
}
END_TEST

START_TEST(a_default_stands_in_for_what_is_missing)
{
    two_ints("x:int y:int=5");
    succeeds("[1]", "{}");
    ck_assert_int_eq(b, 5);
    succeeds("[1, 2]", "{}");
    ck_assert_int_eq(b, 2);
    raises("[1, null]", "{}", "TypeError: add() argument 'y' must be int, not NoneType");

    shape = ONE_TEXT;
    spec = "x:str='fast one'";
    succeeds("[]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"fast one\"");
    spec = "x:str=null";
    succeeds("[]", "{}");
    ck_assert_str_eq(text(outcome.result), "null");
    succeeds("[null]", "{}");
    ck_assert_str_eq(text(outcome.result), "null");
    spec = "x:array=[1, {\"a\": \"b c\"}]";
    succeeds("[]", "{}");
    ck_assert_str_eq(text(outcome.result), "\"[1, {\\\"a\\\": \\\"b c\\\"}]\"");
}
END_TEST

START_TEST(a_question_mark_leaves_the_variable_alone)
{
    two_ints("x:int y:int?");
    b = 42;
    succeeds("[1]", "{}");
    ck_assert_int_eq(b, 42);
    succeeds("[1, null]", "{}");
    ck_assert_int_eq(b, 42);
    succeeds("[1]", "{\"y\": 3}");
    ck_assert_int_eq(b, 3);
}
END_TEST

START_TEST(stars_take_what_is_left)
{
    shape = TEXT_AND_RESTS;
    spec = "x:str *rest **more";
    succeeds("[\"a\", 1, 2.0, [3]]", "{\"k\": null, \"l\": \"m\"}");
    ck_assert_str_eq(text(outcome.result),
                     "[\"a\", \"[1, 2.0, [3]]\", \"{\\\"k\\\": null, \\\"l\\\": \\\"m\\\"}\"]");
    succeeds("[\"a\"]", "{}");
    ck_assert_str_eq(text(outcome.result), "[\"a\", \"[]\", \"{}\"]");
    raises("[]", "{}", "TypeError: add() missing 1 required positional argument: 'x'");
}
END_TEST

static apium_ints ints;
static apium_floats floats;
static apium_numbers numbers;
static apium_strs strs;

static apium_verdict
read_arrays(apium_task *task)
{
    if (!apium_args(task, "a:int[] b:float[]=[] c:number[]=null d:str[]?", &ints, &floats, &numbers,
                    &strs))
        return APIUM_FAILURE;
    int64_t sum = 0;
    for (size_t i = 0; i < ints.n; i++)
        sum += ints.items[i];
    return apium_return(task,
                        apium_jsonf("[%d, %f, %s]", (int)sum, floats.n ? floats.items[0] : 0.5,
                                    strs.n > 1 ? strs.items[1] : "none"));
}

START_TEST(arrays_have_items_and_a_count)
{
    const apium_task_def def = { .name = "tasks.arrays", .run = read_arrays };
    run_task(&def, "[[1, 2, -5]]", "{}");
    ck_assert_str_eq(text(outcome.result), "[-2, 0.5, \"none\"]");
    ck_assert_uint_eq(ints.n, 3);
    ck_assert_uint_eq(numbers.n, 0);
    ck_assert_ptr_null(numbers.items);
    run_task(&def, "[[]]", "{\"b\": [2, 3.5], \"c\": [1, 1.0], \"d\": [\"x\", \"y\\u00e9\"]}");
    ck_assert_str_eq(text(outcome.result), "[0, 2.0, \"y\\u00e9\"]");
    ck_assert(numbers.n == 2 && !numbers.items[0].is_float && numbers.items[1].is_float);
    run_task(&def, "[[1, 2, \"x\"]]", "{}");
    ck_assert_str_eq(raised(), "TypeError: arrays() argument 'a[2]' must be int, not str");
    run_task(&def, "[[99999999999999999999]]", "{}");
    ck_assert_str_eq(
        raised(),
        "OverflowError: arrays() argument 'a[0]' does not fit in 64 bits: 99999999999999999999");
    run_task(&def, "[3]", "{}");
    ck_assert_str_eq(raised(), "TypeError: arrays() argument 'a' must be list, not int");
}
END_TEST

START_TEST(a_wrong_specification_says_where)
{
    static const char *const bad[] = { "x:number8", "x:int=",   "x:int='5", "x:int=null", "*a *b",
                                       "**k x",     "x:int=5x", ":int",     "x:int?y" };
    two_ints(NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        spec = bad[i];
        call("[1, 2]", "{}");
        ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
        ck_assert_msg(strstr(raised(), "SystemError: ") == raised(), "%s: %s", bad[i], raised());
    }
}
END_TEST

START_TEST(a_request_with_broken_arguments_fails)
{
    two_ints("x:int y:int");
    raises("null", "{}", "TypeError: add() argument after * must be an iterable");
    raises("[1, 2]", "[]", "TypeError: add() argument after ** must be a mapping");
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        arguments_come_by_position_and_by_name,
        wrong_calls_raise_what_python_raises,
        nothing_is_written_when_a_call_is_wrong,
        a_wrong_type_is_named_with_its_argument,
        an_integer_beyond_64_bits_overflows_by_name,
        floats_take_integers_and_the_odd_values,
        a_number_tells_int_from_float,
        strings_are_unescaped,
        bytes_take_any_string_and_what_python_makes_of_bytes,
        json_is_the_text_that_was_sent,
        bools_are_only_true_and_false,
        a_default_stands_in_for_what_is_missing,
        a_question_mark_leaves_the_variable_alone,
        stars_take_what_is_left,
        arrays_have_items_and_a_count,
        a_wrong_specification_says_where,
        a_request_with_broken_arguments_fails,
        NULL,
    };
    return suite_run("args", tests, 4);
}
