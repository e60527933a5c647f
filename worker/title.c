/*
 * title.c - see title.h. The usual way is to write over argv, which others may still point to (a
 * path, a URL). Instead the kernel is told that the command line is somewhere else: PR_SET_MM_MAP,
 * which needs no privilege.
 */
#include "worker/title.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SHOWN_SIZE 128

/* Of its own mapping: the kernel reads a command line from anonymous memory only, not from a
 * program's data. */
static char *shown;

void
apm_title_set(const char *title)
{
    char text[2048];
    unsigned long long field[52] = { 0 };
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    text[n] = '\0';
    /* proc(5): the second field, the name in brackets, may hold anything; the third is a letter. */
    char *at = strrchr(text, ')');
    for (int i = 3; at && i < 52; i++) {
        at = strchr(at + 1, ' ');
        if (at)
            (void)sscanf(at, "%llu", &field[i]);
    }
    if (field[51] == 0)
        return;
    if (!shown) {
        void *page =
            mmap(NULL, SHOWN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return;
        shown = page;
    }
    snprintf(shown, SHOWN_SIZE, "%s", title);
    struct prctl_mm_map map = {
        .start_code = field[26],
        .end_code = field[27],
        .start_stack = field[28],
        .start_data = field[45],
        .end_data = field[46],
        .start_brk = field[47],
        .brk = (uintptr_t)sbrk(0),
        .arg_start = (uintptr_t)shown,
        .arg_end = (uintptr_t)shown + strlen(shown) + 1,
        .env_start = field[50],
        .env_end = field[51],
        .exe_fd = (uint32_t)-1,
    };
    (void)prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0);
}
