/*
 * consumer.h - the smallest worker there can be: one process that takes requests from one queue, runs them one after
 * the other, stores each outcome and acknowledges. For tests of what is above the brokers without a worker.
 *
 *     pid_t pid = consumer_start(settings, tasks);
 *     ...
 *     consumer_stop(pid);
 */
#ifndef APM_TESTS_CONSUMER_H
#define APM_TESTS_CONSUMER_H

#include <sys/types.h>

#include <apium/app.h>

/* Fork a consumer of the default queue for an app with these settings ("name=value", ended by NULL). It dies with the
 * calling process. */
pid_t consumer_start(const char *const *settings, const apium_task_def *tasks);
void consumer_stop(pid_t pid);

#endif
