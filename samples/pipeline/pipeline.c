/*
 * pipeline.c - thumbnails: every picture is scaled to several sizes at once, an entry of the
 * manifest joins its sizes, and a contact sheet joins the pictures. A chord whose header is made of
 * chords:
 *
 *     picture 1 ──┬─▶ scale 64 ──┬─▶ entry ─┐
 *                 └─▶ scale 128 ─┘          ├──▶ sheet
 *     picture 2 ──┬─▶ scale 64 ──┬─▶ entry ─┘
 *                 └─▶ scale 128 ─┘
 *
 *     pipeline [-o FOLDER] [-s 64,128,256] [PICTURE.ppm|.pgm...]   without pictures it draws some
 *     pipeline worker [OPTIONS]   a worker of these tasks; so with apium's other commands
 *
 * The folder gets NAME-SIZE.ppm, sheet.ppm and manifest.json, which is printed too.
 */
#include "../local.h"
#include "image.h"

#include <apium/cjson.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZES_MAX 8

/* --- tasks --- */

/* "folder/moon-64.ppm" for "/pictures/moon.pgm"; from the task's memory. */
static char *
thumbnail_path(apium_task *task, const char *folder, const char *picture, int side)
{
    const char *slash = strrchr(picture, '/'), *name = slash ? slash + 1 : picture;
    const char *dot = strrchr(name, '.');
    size_t size = strlen(folder) + strlen(name) + 32;
    char *path = apium_task_alloc(task, size);
    if (path)
        snprintf(path, size, "%s/%.*s-%d.ppm", folder, dot ? (int)(dot - name) : (int)strlen(name),
                 name, side);
    return path;
}

/* scale(picture, side, folder) -> {"file", "width", "height"} */
static apium_verdict
scale(apium_task *task)
{
    const char *picture, *folder, *why;
    int64_t side;
    image whole, small;

    if (!apium_args(task, "picture:str side:int folder:str", &picture, &side, &folder))
        return APIUM_FAILURE;
    if (side < 1 || side > IMAGE_SIDE_MAX)
        return apium_raise(task, "ValueError", "no picture is %lld pixels long", (long long)side);
    char *path = thumbnail_path(task, folder, picture, (int)side);
    if ((why = image_read(&whole, picture)))
        return apium_raise(task, "OSError", "cannot read %s: %s", picture, why);
    bool ok = path && image_scale(&whole, (int)side, &small);
    image_clear(&whole);
    if (!ok)
        return apium_raise(task, "MemoryError", "no memory to scale %s", picture);
    apium_verdict verdict;
    if ((why = image_write(&small, path)))
        verdict = apium_raise(task, "OSError", "cannot write %s: %s", path, why);
    else
        verdict = apium_return(task, apium_jsonf("{\"file\": %s, \"width\": %d, \"height\": %d}",
                                                 path, small.width, small.height));
    image_clear(&small);
    return verdict;
}

/* entry([scaled, ...], picture) -> {"picture", "sizes": [scaled, ...]}: what the manifest says of
 * a picture */
static apium_verdict
entry(apium_task *task)
{
    const char *sizes, *picture;

    if (!apium_args(task, "sizes:array picture:str", &sizes, &picture))
        return APIUM_FAILURE;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "picture", picture);
    cJSON_AddItemToObject(object, "sizes", apium_cjson_parse(sizes));
    apium_verdict verdict = apium_return(task, apium_cjson(object));
    cJSON_Delete(object);
    return verdict;
}

/* The first size of each entry side by side. NULL, or why not. */
static const char *
draw_sheet(const cJSON *entries, const char *path)
{
    image sheet = { 0 }, one;
    const char *why = NULL;
    const cJSON *e;
    int width = 0, height = 1;
    cJSON_ArrayForEach(e, entries)
    {
        const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItem(e, "sizes"), 0);
        int h = (int)cJSON_GetNumberValue(cJSON_GetObjectItem(first, "height"));
        width += (int)cJSON_GetNumberValue(cJSON_GetObjectItem(first, "width"));
        height = h > height ? h : height;
    }
    if (!image_init(&sheet, width, height))
        return "it would be too big";
    width = 0;
    cJSON_ArrayForEach(e, entries)
    {
        const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItem(e, "sizes"), 0);
        const char *file = cJSON_GetStringValue(cJSON_GetObjectItem(first, "file"));
        why = file ? image_read(&one, file) : "an entry has no sizes";
        if (why)
            break;
        image_put(&sheet, &one, width, 0);
        width += one.width;
        image_clear(&one);
    }
    if (!why)
        why = image_write(&sheet, path);
    image_clear(&sheet);
    return why;
}

static const char *
write_text(const char *text, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return strerror(errno);
    fprintf(file, "%s\n", text);
    return fclose(file) == 0 ? NULL : strerror(errno);
}

/* sheet([entry, ...], folder) -> {"sheet", "pictures": [entry, ...]}, which is written to
 * manifest.json too */
static apium_verdict
make_sheet(apium_task *task)
{
    const char *text, *folder, *why;
    char path[4096];

    if (!apium_args(task, "entries:array folder:str", &text, &folder))
        return APIUM_FAILURE;
    cJSON *manifest = cJSON_CreateObject(), *entries = apium_cjson_parse(text);
    snprintf(path, sizeof(path), "%s/sheet.ppm", folder);
    why = draw_sheet(entries, path);
    cJSON_AddStringToObject(manifest, "sheet", path);
    cJSON_AddItemToObject(manifest, "pictures", entries);
    if (!why) {
        char *json = cJSON_Print(manifest);
        snprintf(path, sizeof(path), "%s/manifest.json", folder);
        why = json ? write_text(json, path) : "no memory";
        cJSON_free(json);
    }
    apium_verdict verdict = why ? apium_raise(task, "OSError", "cannot write %s: %s", path, why)
                                : apium_return(task, apium_cjson(manifest));
    cJSON_Delete(manifest);
    return verdict;
}

/* Each may be repeated: it writes the same files again. So a worker that dies costs nothing but
 * time. */
static const apium_task_def tasks[] = {
    { .name = "pipeline.scale", .run = scale, .acks_late = APIUM_ON },
    { .name = "pipeline.entry", .run = entry, .acks_late = APIUM_ON },
    { .name = "pipeline.sheet", .run = make_sheet, .acks_late = APIUM_ON },
    { 0 },
};

/* --- the workflow --- */

typedef struct options {
    const char *broker, *backend, *folder;
    int sizes[SIZES_MAX];
    size_t n_sizes;
    char **pictures;
    size_t n_pictures;
} options;

/* One picture: all sizes at once, then its entry. */
static apium_sig *
flow_of_picture(const options *opts, const char *picture)
{
    apium_sig *scales[SIZES_MAX];
    for (size_t i = 0; i < opts->n_sizes; i++)
        scales[i] =
            apium_sig_new("pipeline.scale", "[%s, %d, %s]", picture, opts->sizes[i], opts->folder);
    return apium_chord(apium_group_of(opts->n_sizes, scales),
                       apium_sig_new("pipeline.entry", "[%s]", picture));
}

static apium_sig *
flow_of_all(const options *opts)
{
    apium_sig **pictures = calloc(opts->n_pictures, sizeof(*pictures));
    if (!pictures)
        return NULL;
    for (size_t i = 0; i < opts->n_pictures; i++)
        pictures[i] = flow_of_picture(opts, opts->pictures[i]);
    apium_sig *flow = apium_chord(apium_group_of(opts->n_pictures, pictures),
                                  apium_sig_new("pipeline.sheet", "[%s]", opts->folder));
    free(pictures);
    return flow;
}

static bool
run_flow(local *here, const options *opts)
{
    apium_run *run;
    apium_error err;
    if (apium_send(here->app, flow_of_all(opts), NULL, &run, &err) != APIUM_OK) {
        fprintf(stderr, "pipeline: %s\n", err.text);
        return false;
    }
    apium_result *res = local_get(here, run);
    cJSON *manifest = res ? apium_cjson_parse(apium_result_json(res)) : NULL;
    char *text = manifest ? cJSON_Print(manifest) : NULL;
    if (text)
        puts(text);
    bool ok = text != NULL;
    cJSON_free(text);
    cJSON_Delete(manifest);
    apium_result_free(res);
    apium_run_free(run);
    return ok;
}

/* --- pictures --- */

/* Apart from the folder and the ending? */
static bool
same_name(const char *a, const char *b)
{
    a = strrchr(a, '/') + 1; /* both are whole paths */
    b = strrchr(b, '/') + 1;
    const char *dot_a = strrchr(a, '.'), *dot_b = strrchr(b, '.');
    size_t len_a = dot_a ? (size_t)(dot_a - a) : strlen(a);
    size_t len_b = dot_b ? (size_t)(dot_b - b) : strlen(b);
    return len_a == len_b && strncmp(a, b, len_a) == 0;
}

static bool
add_picture(options *opts, const char *path)
{
    char full[PATH_MAX]; /* a worker may have another working directory */
    if (!realpath(path, full)) {
        fprintf(stderr, "pipeline: cannot read %s: %s\n", path, strerror(errno));
        return false;
    }
    for (size_t i = 0; i < opts->n_pictures; i++)
        if (same_name(opts->pictures[i], full)) {
            fprintf(stderr, "pipeline: %s and %s would have the same thumbnails\n",
                    opts->pictures[i], full);
            return false;
        }
    char **pictures = realloc(opts->pictures, (opts->n_pictures + 1) * sizeof(*pictures));
    char *copy = strdup(full);
    if (!pictures || !copy)
        exit(1);
    opts->pictures = pictures;
    opts->pictures[opts->n_pictures++] = copy;
    return true;
}

static bool
draw_pictures(options *opts)
{
    for (int i = 0; i < 6; i++) {
        char path[4096];
        image img;
        const char *why = "no memory";
        snprintf(path, sizeof(path), "%s/picture%d.ppm", opts->folder, i + 1);
        bool ok = image_draw(&img, i, 480, 360) && !(why = image_write(&img, path));
        image_clear(&img);
        if (!ok)
            fprintf(stderr, "pipeline: cannot draw %s: %s\n", path, why);
        if (!ok || !add_picture(opts, path))
            return false;
    }
    return true;
}

/* "64,128" */
static bool
read_sizes(options *opts, const char *text)
{
    opts->n_sizes = 0;
    for (char *end; opts->n_sizes < SIZES_MAX; text = end + 1) {
        long side = strtol(text, &end, 10);
        if (end == text || side < 1 || side > IMAGE_SIDE_MAX || (*end && *end != ','))
            return false;
        opts->sizes[opts->n_sizes++] = (int)side;
        if (!*end)
            return true;
    }
    return false;
}

static bool
prepare(options *opts, int n, char **pictures)
{
    static char folder[4096];
    if ((mkdir(opts->folder, 0777) != 0 && errno != EEXIST) || !realpath(opts->folder, folder)) {
        fprintf(stderr, "pipeline: cannot make %s: %s\n", opts->folder, strerror(errno));
        return false;
    }
    opts->folder = folder;
    for (int i = 0; i < n; i++)
        if (!add_picture(opts, pictures[i]))
            return false;
    return n > 0 || draw_pictures(opts);
}

int
main(int argc, char **argv)
{
    options opts = { .folder = "thumbnails", .sizes = { 64, 128, 256 }, .n_sizes = 3 };

    if (local_is_command(argc, argv))
        return apium_main(argc, argv, "pipeline", tasks);
    for (int c; (c = getopt(argc, argv, "b:r:o:s:h")) != -1;)
        if (c == 'b')
            opts.broker = optarg;
        else if (c == 'r')
            opts.backend = optarg;
        else if (c == 'o')
            opts.folder = optarg;
        else if (c != 's' || !read_sizes(&opts, optarg)) {
            fprintf(c == 'h' ? stdout : stderr,
                    "usage: pipeline [-b BROKER] [-r BACKEND] [-o FOLDER] [-s SIZE,...] "
                    "[PICTURE.ppm|.pgm...]\n"
                    "       pipeline worker ... (apium's commands)\n");
            return c == 'h' ? 0 : 2;
        }
    local here = {
        .name = "pipeline", .broker = opts.broker, .backend = opts.backend, .workers = LOCAL_WORKERS
    };
    bool ok = prepare(&opts, argc - optind, argv + optind);
    if (ok) {
        ok = local_open(&here, tasks) && run_flow(&here, &opts);
        local_close(&here);
    }
    for (size_t i = 0; i < opts.n_pictures; i++)
        free(opts.pictures[i]);
    free(opts.pictures);
    return ok ? 0 : 1;
}
