/* title.h - what ps shows for this process. Cosmetic: where it cannot be done, nothing happens. */
#ifndef APM_WORKER_TITLE_H
#define APM_WORKER_TITLE_H

void apm_title_set(const char *title);

#endif
