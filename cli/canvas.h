/* canvas.h - a workflow from a file. */
#ifndef APM_CLI_CANVAS_H
#define APM_CLI_CANVAS_H

#include <apium/send.h>

/* Read a signature of any kind in Celery's JSON form; "-" is standard input. E_CONFIG names the file and what is wrong with it. */
apium_status apm_canvas_file(const char *path, apium_sig **out, apium_error *err);

#endif
