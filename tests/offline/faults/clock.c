/* Shifts the wall clock of one process by the seconds in the file $CLOCK_SHIFT. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
	int result = (int)syscall(SYS_clock_gettime, clock, time);
	const char *path = getenv("CLOCK_SHIFT");
	if (result != 0 || clock != CLOCK_REALTIME || path == NULL)
		return result;
	FILE *file = fopen(path, "r");
	long shift = 0;
	if (file != NULL) {
		if (fscanf(file, "%ld", &shift) == 1)
			time->tv_sec += shift;
		fclose(file);
	}
	return result;
}
