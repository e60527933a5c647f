/* tasks.h - what the workers of the word count do. */
#ifndef WORDCOUNT_TASKS_H
#define WORDCOUNT_TASKS_H

#include <apium/task.h>

extern const apium_task_def wordcount_tasks[];

#endif
