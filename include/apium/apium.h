/* apium/apium.h - everything: applications, tasks, calls, workflows and results. */
#ifndef APIUM_APIUM_H
#define APIUM_APIUM_H

#include <apium/app.h>
#include <apium/canvas.h>
#include <apium/result.h>
#include <apium/run.h>
#include <apium/send.h>
#include <apium/status.h>
#include <apium/task.h>
#include <apium/value.h>

#endif
