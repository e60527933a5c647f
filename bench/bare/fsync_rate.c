/*
 * fsync_rate - how often a second this disk can make 4 KiB at the end of a file durable: what bounds a durable queue in a file.
 *
 *     fsync_rate FOLDER
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRITES 200

int
main(int argc, char **argv)
{
    static char block[4096];
    char path[4096];
    struct timespec begin, end;

    if (argc != 2) {
        fprintf(stderr, "usage: fsync_rate FOLDER\n");
        return 2;
    }
    snprintf(path, sizeof(path), "%s/fsync-rate", argv[1]);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) {
        fprintf(stderr, "fsync_rate: cannot write %s: %s\n", path, strerror(errno));
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < WRITES; i++) {
        if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || fdatasync(fd) != 0) {
            fprintf(stderr, "fsync_rate: cannot write %s: %s\n", path, strerror(errno));
            return 1;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    close(fd);
    unlink(path);
    printf("%.0f\n", WRITES / ((double)(end.tv_sec - begin.tv_sec) +
                               (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    return 0;
}
