/* answer.c - printing a finished task; see answer.h. */
#include "cli/answer.h"

int
apm_answer_print(const apium_result *res, apm_answer what)
{
    bool ok = apium_result_ok(res);
    if (what == APM_ANSWER_DOCUMENT) {
        const char *doc = apium_result_document(res);
        puts(doc ? doc : "null");
    } else if (what == APM_ANSWER_TRACEBACK) {
        const char *traceback = apium_result_traceback(res);
        puts(traceback ? traceback : "None");
    } else if (ok) {
        const char *json = apium_result_json(res);
        puts(json ? json : "null");
    } else {
        const char *message = apium_result_message(res);
        fprintf(stderr, "%s\n", message ? message : apium_result_state(res));
    }
    return ok ? APM_EXIT_OK : APM_EXIT_FAILURE;
}
