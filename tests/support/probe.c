/*
 * probe.c - what tests in Python do many thousand times, over any broker:
 *     probe send TASK PREFIX COUNT MS   call TASK with [KEY, MS], KEY (and the task's id) being PREFIX-0 ...
 *     probe chords PREFIX COUNT PARTS   send chords of flows.part and flows.body, print the ids of the bodies
 *     probe states < ids                print "ID STATE [EXCEPTION]" for each
 *     probe save < canvas               send a group, save it, print its tuple
 *     probe restore ID                  wait for a saved group, print its values
 *     probe open TUPLE                  wait for what a tuple stands for, print its value
 *     probe revoke TUPLE                revoke all that a tuple stands for
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <apium/apium.h>

static int
fail(const char *what, const apium_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

static int
send_all(apium_app *app, const char *task, const char *prefix, int count, int ms)
{
    apium_error err;
    char key[128];
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%s-%d", prefix, i);
        apium_send_opts opts = { .task_id = key };
        if (apium_call(app, task, apium_jsonf("[%s, %d]", key, ms), &opts, NULL, &err) != APIUM_OK)
            return fail(key, &err);
    }
    return 0;
}

static int
send_chords(apium_app *app, const char *prefix, int count, int parts)
{
    apium_error err;
    apium_sig **header = calloc((size_t)parts, sizeof(*header));
    int code = header ? 0 : 1;
    for (int i = 0; i < count && code == 0; i++) {
        apium_run *run = NULL;
        char key[128];
        for (int j = 0; j < parts; j++) {
            snprintf(key, sizeof(key), "%s-%d.%d", prefix, i, j);
            header[j] = apium_sig_new("flows.part", "[%s, 1]", key);
        }
        snprintf(key, sizeof(key), "%s-%d", prefix, i);
        apium_sig *body = apium_sig_new("flows.body", "[%s, 1]", key);
        if (apium_send(app, apium_chord(apium_group_of((size_t)parts, header), body), NULL, &run,
                       &err) != APIUM_OK)
            code = fail(key, &err);
        else
            puts(apium_run_id(run));
        apium_run_free(run);
    }
    free(header);
    return code;
}

static int
print_states(apium_app *app)
{
    apium_error err;
    char id[128];
    while (fgets(id, sizeof(id), stdin)) {
        id[strcspn(id, "\n")] = 0;
        apium_run *run = NULL;
        apium_result *res = NULL;
        if (apium_run_of(app, id, &run, &err) != APIUM_OK ||
            apium_state(run, &res, &err) != APIUM_OK) {
            apium_run_free(run);
            return fail(id, &err);
        }
        const char *type = apium_result_exception(res);
        printf("%s %s%s%s\n", id, apium_result_state(res), type ? " " : "", type ? type : "");
        apium_result_free(res);
        apium_run_free(run);
    }
    return 0;
}

static int
save_group(apium_app *app)
{
    apium_error err;
    apium_sig *sig;
    apium_run *run = NULL;
    char json[65536];
    json[fread(json, 1, sizeof(json) - 1, stdin)] = 0;
    if (apium_sig_parse(json, &sig, &err) != APIUM_OK ||
        apium_send(app, sig, NULL, &run, &err) != APIUM_OK ||
        apium_run_save(run, &err) != APIUM_OK) {
        apium_run_free(run);
        return fail("save", &err);
    }
    puts(apium_run_tuple(run));
    apium_run_free(run);
    return 0;
}

/* Open a run by the id of a group or by a tuple, wait, print. */
static int
print_value(apium_app *app, const char *id, const char *tuple)
{
    apium_error err;
    apium_run *run = NULL;
    apium_result *res = NULL;
    apium_status st =
        id ? apium_run_restore(app, id, &run, &err) : apium_run_of_tuple(app, tuple, &run, &err);
    if (st == APIUM_OK)
        st = apium_get(run, 30000, &res, &err);
    if (st == APIUM_OK)
        puts(apium_result_json(res));
    apium_result_free(res);
    apium_run_free(run);
    return st == APIUM_OK ? 0 : fail("open", &err);
}

static int
revoke(apium_app *app, const char *tuple)
{
    apium_error err;
    apium_run *run = NULL;
    apium_status st = apium_run_of_tuple(app, tuple, &run, &err);
    if (st == APIUM_OK)
        st = apium_revoke(run, NULL, &err);
    apium_run_free(run);
    return st == APIUM_OK ? 0 : fail("revoke", &err);
}

int
main(int argc, char **argv)
{
    apium_app *app = NULL;
    apium_error err;
    int code = 2;
    if (apium_app_new("probe", NULL, &app, &err) != APIUM_OK)
        return fail("cannot start", &err);
    if (argc == 6 && strcmp(argv[1], "send") == 0)
        code = send_all(app, argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
    else if (argc == 5 && strcmp(argv[1], "chords") == 0)
        code = send_chords(app, argv[2], atoi(argv[3]), atoi(argv[4]));
    else if (argc == 2 && strcmp(argv[1], "states") == 0)
        code = print_states(app);
    else if (argc == 2 && strcmp(argv[1], "save") == 0)
        code = save_group(app);
    else if (argc == 3 && strcmp(argv[1], "restore") == 0)
        code = print_value(app, argv[2], NULL);
    else if (argc == 3 && strcmp(argv[1], "open") == 0)
        code = print_value(app, NULL, argv[2]);
    else if (argc == 3 && strcmp(argv[1], "revoke") == 0)
        code = revoke(app, argv[2]);
    apium_app_free(app);
    return code;
}
