/*
 * steps.c - the steps of the reading report that run in C; the others are in steps.py, the workflow
 * in flow.py.
 *
 *     read ──┬─▶ vocabulary ─┬─▶ grade ──▶ save
 *      C     │      Python   │   Python     C
 *            └─▶ measure ────┘
 *                   C
 */
#include <apium/apium.h>
#include <apium/cjson.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX (4 << 20)

/* Python makes a FileNotFoundError of OSError(2, ...), and so on. */
static apium_verdict
raise_errno(apium_task *task, const char *path)
{
    return apium_raise_in(task, "builtins", "OSError",
                          apium_jsonf("[%d, %s, %s]", errno, strerror(errno), path));
}

/* --- read(path) -> its sentences --- */

static void
add_sentence(cJSON *all, char *text, size_t len)
{
    while (len > 0 && text[len - 1] == ' ')
        len--;
    if (len == 0)
        return;
    char after = text[len];
    text[len] = '\0';
    cJSON_AddItemToArray(all, cJSON_CreateString(text));
    text[len] = after;
}

/* Blanks are made one each. A sentence ends at . ! or ? before a blank, and at an empty line. */
static cJSON *
sentences_of(char *text, size_t len)
{
    cJSON *all = cJSON_CreateArray();
    size_t from = 0, to = 0;
    int lines = 0;
    for (size_t i = 0; all && i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!isspace(c)) {
            text[to++] = (char)c;
            lines = 0;
            continue;
        }
        lines += c == '\n';
        bool ends = lines == 2 || (to > from && strchr(".!?", text[to - 1]));
        if (to > from && text[to - 1] != ' ')
            text[to++] = ' ';
        if (ends) {
            add_sentence(all, text + from, to - from);
            from = to;
        }
    }
    if (all)
        add_sentence(all, text + from, to - from);
    return all;
}

static apium_verdict
read_text(apium_task *task)
{
    const char *path;
    if (!apium_args(task, "path:str", &path))
        return APIUM_FAILURE;
    FILE *file = fopen(path, "r");
    char *text = malloc(TEXT_MAX + 1);
    bool ok = text && file;
    size_t len = ok ? fread(text, 1, TEXT_MAX + 1, file) : 0;
    apium_verdict verdict;
    if (!ok || ferror(file)) {
        verdict = raise_errno(task, path);
    } else if (len > TEXT_MAX) {
        verdict = apium_raise(task, "ValueError", "%s is too long", path);
    } else {
        cJSON *sentences = sentences_of(text, len);
        verdict = apium_return(task, apium_cjson(sentences));
        cJSON_Delete(sentences);
    }
    if (file)
        fclose(file);
    free(text);
    return verdict;
}

/* --- measure(sentences) -> {"sentences", "words", "syllables"} --- */

/* About: each run of vowels, but for a silent e at the end. */
static long
syllables_of(const char *word, size_t len)
{
    long n = 0;
    bool vowel = false;
    for (size_t i = 0; i < len; i++) {
        bool now = strchr("aeiouy", tolower((unsigned char)word[i])) != NULL;
        n += now && !vowel;
        vowel = now;
    }
    if (n > 1 && tolower((unsigned char)word[len - 1]) == 'e')
        n--;
    return n ? n : 1;
}

static apium_verdict
measure(apium_task *task)
{
    apium_strs sentences;
    long words = 0, syllables = 0;
    if (!apium_args(task, "sentences:str[]", &sentences))
        return APIUM_FAILURE;
    for (size_t i = 0; i < sentences.n; i++) {
        const char *p = sentences.items[i];
        while (*p) {
            const char *word = p;
            while (isalpha((unsigned char)*p))
                p++;
            if (p == word) {
                p++;
                continue;
            }
            words++;
            syllables += syllables_of(word, (size_t)(p - word));
        }
    }
    return apium_return(task,
                        apium_jsonf("{\"sentences\": %zu, \"words\": %ld, \"syllables\": %ld}",
                                    sentences.n, words, syllables));
}

/* --- save(text, path) -> {"file", "bytes"} --- */

static apium_verdict
save(apium_task *task)
{
    const char *text, *path;
    if (!apium_args(task, "text:str path:str", &text, &path))
        return APIUM_FAILURE;
    FILE *file = fopen(path, "w");
    if (!file)
        return raise_errno(task, path);
    bool ok = fputs(text, file) >= 0;
    if (fclose(file) != 0 || !ok)
        return raise_errno(task, path);
    return apium_return(task, apium_jsonf("{\"file\": %s, \"bytes\": %zu}", path, strlen(text)));
}

static const apium_task_def tasks[] = {
    { .name = "mixed.read", .run = read_text, .queue = "c", .acks_late = APIUM_ON },
    { .name = "mixed.measure", .run = measure, .queue = "c", .acks_late = APIUM_ON },
    { .name = "mixed.save", .run = save, .queue = "c", .acks_late = APIUM_ON },
    { 0 },
};

APIUM_MODULE("mixed", tasks);
