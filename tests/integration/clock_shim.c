/* For LD_PRELOAD: the wall clock of one process alone is ahead by what a file says.
 *
 * The fence compares two clocks; a test must not set the machine's.  FENCE_CLOCK names a
 * file with a number of seconds; without it the clock is right.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long done = syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("FENCE_CLOCK");
    char text[32] = "";

    if (done != 0 || clock != CLOCK_REALTIME || path == NULL)
        return (int)done;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) > 0)
            now->tv_sec += strtol(text, NULL, 10);
        close(fd);
    }
    return 0;
}
