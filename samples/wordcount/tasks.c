/*
 * tasks.c - the tasks of the word count:
 *
 *     count(path, begin, end)   a part of a file
 *         {"pid", "words", "bytes", "counts": {"the": 12, ...}}
 *     folder(path)              what is in a folder: it adds parts to the chord
 *         the same, of nothing
 *     merge([counts, ...])      all of them
 *         {"words", "bytes", "parts": {"<pid>": n}, "counts"}
 *     report(merged, rows)      what is to be shown
 *         {"words", "different", "bytes", "parts", "rows": [["the", 12], ...]}
 *     all(*paths)               all of this, as one call: it becomes the workflow
 *         as report
 */
#include "tasks.h"
#include "parts.h"
#include "words.h"

#include <apium/cjson.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- count --- */

/* ASCII's letters, whatever the locale: `tr -cs A-Za-z '\n'`. */
static bool
is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

typedef struct excerpt {
    char *p;
    size_t len, cap;
} excerpt;

/* Read up to n more bytes of the file; 0 at its end, -1 on failure. */
static ssize_t
read_more(int fd, off_t at, size_t n, excerpt *into)
{
    if (into->len + n > into->cap) {
        size_t cap = into->len + n > 2 * into->cap ? into->len + n : 2 * into->cap;
        char *p = realloc(into->p, cap);
        if (!p)
            return -1;
        into->p = p;
        into->cap = cap;
    }
    ssize_t got = pread(fd, into->p + into->len, n, at);
    if (got > 0)
        into->len += (size_t)got;
    return got;
}

/*
 * The text of the words that begin in begin..end: a word that begins before belongs to the part
 * before, and one that ends behind is read to its end. So parts may be cut anywhere, and each word
 * is in one of them.
 */
static bool
read_part(int fd, off_t begin, off_t end, excerpt *out)
{
    off_t at = begin > 0 ? begin - 1 : 0; /* the byte before tells whether a word begins at begin */
    ssize_t got = 1;
    size_t skip = 0;

    while (got > 0 && at < end) {
        got = read_more(fd, at, (size_t)(end - at), out);
        at += got > 0 ? got : 0;
    }
    while (got > 0 && out->len > 0 && is_letter(out->p[out->len - 1])) {
        got = read_more(fd, at, 1, out);
        at += got > 0 ? got : 0;
    }
    if (begin > 0)
        while (skip < out->len && is_letter(out->p[skip]))
            skip++;
    if (skip > 0)
        memmove(out->p, out->p + skip, out->len - skip);
    out->len -= skip;
    return got >= 0;
}

static bool
count_words(excerpt *in, words *table, long *total)
{
    for (size_t i = 0, from; i < in->len; i++) {
        for (from = i; i < in->len && is_letter(in->p[i]); i++)
            in->p[i] |= 0x20; /* lower case */
        if (i == from)
            continue;
        ++*total;
        if (!words_add(table, in->p + from, i - from, 1))
            return false;
    }
    return true;
}

/* Python makes a FileNotFoundError of OSError(2, "No such file ...", path), and so on. */
static apium_verdict
raise_errno(apium_task *task, const char *path)
{
    return apium_raise_in(task, "builtins", "OSError",
                          apium_jsonf("[%d, %s, %s]", errno, strerror(errno), path));
}

static apium_verdict
return_counts(apium_task *task, const words *table, long total, int64_t bytes)
{
    char *json = NULL;
    size_t size;
    FILE *out = open_memstream(&json, &size);
    if (!out)
        return apium_raise(task, "MemoryError", "no memory for the counts");
    fprintf(out, "{\"pid\": %d, \"words\": %ld, \"bytes\": %lld, \"counts\": ", (int)getpid(),
            total, (long long)bytes);
    words_write(table, out);
    putc('}', out);
    if (fclose(out) != 0) {
        free(json);
        return apium_raise(task, "MemoryError", "no memory for the counts");
    }
    return apium_return(task, apium_json_take(json));
}

static apium_verdict
count(apium_task *task)
{
    const char *path;
    int64_t begin, end;
    excerpt part = { 0 };
    words table = { 0 };
    long total = 0;
    apium_verdict verdict;

    if (!apium_args(task, "path:str begin:int end:int", &path, &begin, &end))
        return APIUM_FAILURE;
    if (begin < 0 || end < begin)
        return apium_raise(task, "ValueError", "%lld to %lld is no part of a file",
                           (long long)begin, (long long)end);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return raise_errno(task, path);
    if (!read_part(fd, begin, end, &part))
        verdict = raise_errno(task, path);
    else if (!count_words(&part, &table, &total))
        verdict = apium_raise(task, "MemoryError", "no memory for the words of %s", path);
    else
        verdict = return_counts(task, &table, total, end - begin);
    close(fd);
    free(part.p);
    words_clear(&table);
    return verdict;
}

/* --- folder --- */

/* The parts of what is in it; links are not followed. False: why says why not. */
static bool
look_into(DIR *folder, const char *path, parts *all, apium_error *why)
{
    char name[PATH_MAX];
    for (struct dirent *e; (e = readdir(folder));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(name, sizeof(name), "%s/%s", path, e->d_name) >= (int)sizeof(name) ||
            lstat(name, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
            continue;
        if (!parts_add(all, name, why))
            return false;
    }
    return true;
}

static apium_verdict
folder(apium_task *task)
{
    const char *path;
    parts found = { 0 };
    apium_error why;

    if (!apium_args(task, "path:str", &path))
        return APIUM_FAILURE;
    DIR *dir = opendir(path);
    if (!dir)
        return raise_errno(task, path);
    bool ok = look_into(dir, path, &found, &why);
    while (ok && found.n > 0)
        ok = apium_add_to_chord(task, found.sigs[--found.n], &why) == APIUM_OK;
    closedir(dir);
    parts_clear(&found);
    return ok ? return_counts(task, &(words){ 0 }, 0, 0)
              : apium_raise(task, "OSError", "%s", why.text);
}

/* --- merge --- */

static double
number_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

/* Add `counts`, an object of numbers. */
static bool
add_counts(words *table, const cJSON *counts)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, counts)
    {
        if (!words_add(table, row->string, strlen(row->string), (long)row->valuedouble))
            return false;
    }
    return true;
}

static void
add_share(cJSON *shares, long pid)
{
    char name[24];
    snprintf(name, sizeof(name), "%ld", pid);
    cJSON *count = cJSON_GetObjectItem(shares, name);
    if (count)
        cJSON_SetNumberValue(count, count->valuedouble + 1);
    else
        cJSON_AddNumberToObject(shares, name, 1);
}

static apium_verdict
return_merged(apium_task *task, const words *table, double total, double bytes, const cJSON *shares)
{
    char *json = NULL, *text = cJSON_PrintUnformatted(shares);
    size_t size;
    FILE *out = open_memstream(&json, &size);
    if (out) {
        fprintf(out, "{\"words\": %.0f, \"bytes\": %.0f, \"parts\": %s, \"counts\": ", total, bytes,
                text ? text : "{}");
        words_write(table, out);
        putc('}', out);
    }
    cJSON_free(text);
    if (!out || fclose(out) != 0) {
        free(json);
        return apium_raise(task, "MemoryError", "no memory for the sums");
    }
    return apium_return(task, apium_json_take(json));
}

static apium_verdict
merge(apium_task *task)
{
    const char *text;
    words table = { 0 };
    double total = 0, bytes = 0;
    bool ok = true;

    if (!apium_args(task, "counts:array", &text))
        return APIUM_FAILURE;
    cJSON *all = apium_cjson_parse(text), *shares = cJSON_CreateObject();
    const cJSON *one;
    cJSON_ArrayForEach(one, all)
    {
        ok = ok && add_counts(&table, cJSON_GetObjectItem(one, "counts"));
        total += number_of(one, "words");
        bytes += number_of(one, "bytes");
        add_share(shares, (long)number_of(one, "pid"));
    }
    apium_verdict verdict = ok && all && shares
                                ? return_merged(task, &table, total, bytes, shares)
                                : apium_raise(task, "MemoryError", "no memory to add it all up");
    cJSON_Delete(all);
    cJSON_Delete(shares);
    words_clear(&table);
    return verdict;
}

/* --- report --- */

/* The first n rows, all of them for n = 0: then by the alphabet. */
static cJSON *
rows_of(words *table, size_t n)
{
    cJSON *rows = cJSON_CreateArray();
    words_sort(table, n == 0);
    for (size_t i = 0; rows && i < table->used && (n == 0 || i < n); i++) {
        cJSON *row = cJSON_CreateArray();
        cJSON_AddItemToArray(row, cJSON_CreateString(table->rows[i].text));
        cJSON_AddItemToArray(row, cJSON_CreateNumber((double)table->rows[i].count));
        cJSON_AddItemToArray(rows, row);
    }
    return rows;
}

static apium_verdict
report(apium_task *task)
{
    const char *text;
    int64_t n;
    words table = { 0 };

    if (!apium_args(task, "merged:object rows:int=12", &text, &n))
        return APIUM_FAILURE;
    if (n < 0)
        return apium_raise(task, "ValueError", "there are no %lld rows", (long long)n);
    cJSON *merged = apium_cjson_parse(text), *shown = cJSON_CreateObject();
    bool ok = add_counts(&table, cJSON_GetObjectItem(merged, "counts"));
    cJSON_AddNumberToObject(shown, "words", number_of(merged, "words"));
    cJSON_AddNumberToObject(shown, "bytes", number_of(merged, "bytes"));
    cJSON_AddNumberToObject(shown, "different", (double)table.used);
    cJSON_AddItemToObject(shown, "parts", cJSON_DetachItemFromObject(merged, "parts"));
    cJSON_AddItemToObject(shown, "rows", rows_of(&table, (size_t)n));
    apium_verdict verdict = ok && shown
                                ? apium_return(task, apium_cjson(shown))
                                : apium_raise(task, "MemoryError", "no memory for the report");
    cJSON_Delete(merged);
    cJSON_Delete(shown);
    words_clear(&table);
    return verdict;
}

/* --- all --- */

static apium_verdict
count_all(apium_task *task)
{
    const char *text;
    parts all = { 0 };
    apium_error why;
    bool ok = true;

    if (!apium_args(task, "*paths", &text))
        return APIUM_FAILURE;
    cJSON *paths = apium_cjson_parse(text);
    const cJSON *path;
    cJSON_ArrayForEach(path, paths)
    {
        ok = ok && parts_add(&all, cJSON_IsString(path) ? path->valuestring : "", &why);
    }
    apium_verdict verdict = ok ? apium_replace(task, parts_flow(&all, 12))
                               : apium_raise(task, "OSError", "%s", why.text);
    cJSON_Delete(paths);
    parts_clear(&all);
    return verdict;
}

/* A part whose worker dies goes to another one. */
const apium_task_def wordcount_tasks[] = {
    { .name = "wordcount.count",
      .run = count,
      .acks_late = APIUM_ON,
      .doc = "count(path, begin, end): the words of a part of a file" },
    { .name = "wordcount.folder",
      .run = folder,
      .acks_late = APIUM_ON,
      .doc = "folder(path): all that is in a folder" },
    { .name = "wordcount.all",
      .run = count_all,
      .acks_late = APIUM_ON,
      .doc = "all(*paths): the report on files and folders" },
    { .name = "wordcount.merge",
      .run = merge,
      .acks_late = APIUM_ON,
      .doc = "merge(counts): all of them in one" },
    { .name = "wordcount.report",
      .run = report,
      .acks_late = APIUM_ON,
      .doc = "report(merged, rows=12): what is shown of it; 0: all words" },
    { 0 },
};
