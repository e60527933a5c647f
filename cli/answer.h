/* answer.h - printing a finished task, for `apium result` and `apium call --wait`. */
#ifndef APM_CLI_ANSWER_H
#define APM_CLI_ANSWER_H

#include <apium/result.h>

#include "cli/cli.h"

typedef enum apm_answer { APM_ANSWER_VALUE, APM_ANSWER_TRACEBACK, APM_ANSWER_DOCUMENT } apm_answer;

/* Print it; gives the exit code: 1 when the task failed or was revoked. */
int apm_answer_print(const apium_result *res, apm_answer what);

#endif
