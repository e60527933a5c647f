/* test_topic.c - which routing keys an exchange gives to a binding. */
#include <stdio.h>

#include "brokers/topic.h"
#include "tests/support/suite.h"

START_TEST(a_word_matches_itself_alone)
{
    ck_assert(apm_topic_match("img", "img"));
    ck_assert(!apm_topic_match("img", "imgs"));
    ck_assert(!apm_topic_match("img", "img.png"));
    ck_assert(!apm_topic_match("img.png", "img"));
    ck_assert(!apm_topic_match("img", ""));
}
END_TEST

START_TEST(a_star_stands_for_exactly_one_word)
{
    ck_assert(apm_topic_match("img.*", "img.png"));
    ck_assert(apm_topic_match("*.png", "img.png"));
    ck_assert(apm_topic_match("*", "img"));
    ck_assert(apm_topic_match("a.*.c", "a..c")); /* an empty word is a word */
    ck_assert(!apm_topic_match("img.*", "img"));
    ck_assert(!apm_topic_match("img.*", "img.png.big"));
    ck_assert(!apm_topic_match("*", ""));
}
END_TEST

START_TEST(a_hash_stands_for_any_number_of_words)
{
    ck_assert(apm_topic_match("#", ""));
    ck_assert(apm_topic_match("#", "a"));
    ck_assert(apm_topic_match("#", "a.b.c"));
    ck_assert(apm_topic_match("img.#", "img"));
    ck_assert(apm_topic_match("img.#", "img.png.big"));
    ck_assert(apm_topic_match("#.big", "big"));
    ck_assert(apm_topic_match("#.big", "img.png.big"));
    ck_assert(apm_topic_match("a.#.z", "a.z"));
    ck_assert(apm_topic_match("a.#.z", "a.b.z.z"));
    ck_assert(apm_topic_match("#.a.#.b", "x.a.a.y.b"));
    ck_assert(apm_topic_match("#.*", "a"));
    ck_assert(!apm_topic_match("#.*", ""));
    ck_assert(!apm_topic_match("a.#.z", "a.b"));
    ck_assert(!apm_topic_match("img.#", "image"));
}
END_TEST

START_TEST(many_hashes_do_not_take_for_ever)
{
    char pattern[200], key[250];
    size_t at = 0;

    for (int i = 0; i < 30; i++)
        at += (size_t)snprintf(pattern + at, sizeof(pattern) - at, "#.a.");
    snprintf(pattern + at, sizeof(pattern) - at, "z");
    at = 0;
    for (int i = 0; i < 100; i++)
        at += (size_t)snprintf(key + at, sizeof(key) - at, "a.");
    snprintf(key + at, sizeof(key) - at, "y");
    ck_assert(!apm_topic_match(pattern, key));
}
END_TEST

START_TEST(a_binding_asks_its_exchange_type)
{
    ck_assert(apm_binding_match(APM_DIRECT, "a.b", "a.b"));
    ck_assert(!apm_binding_match(APM_DIRECT, "a.*", "a.b"));
    ck_assert(!apm_binding_match(APM_DIRECT, "#", "a.b"));
    ck_assert(apm_binding_match(APM_TOPIC, "a.*", "a.b"));
    ck_assert(apm_binding_match(APM_FANOUT, "whatever", "a.b"));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_word_matches_itself_alone,           a_star_stands_for_exactly_one_word,
        a_hash_stands_for_any_number_of_words, many_hashes_do_not_take_for_ever,
        a_binding_asks_its_exchange_type,      NULL,
    };
    return suite_run("topic", tests, 4);
}
