/* Log every change that one process makes to one file, in order.
 *
 * Preloaded before the C library. SHIM_FILE names the file, by its absolute path;
 * SHIM_LOG the log; SHIM_ACKNOWLEDGE the descriptor on which the process says that
 * something is safe now. The log is a row of entries: kind, place and length, eight
 * bytes each in the order of this machine, then the bytes.
 *
 *     W  bytes written at a place
 *     T  file cut or grown to a length
 *     A  acknowledged
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*writer)(int, const void *, size_t);
typedef ssize_t (*placed_writer)(int, const void *, size_t, off_t);
typedef int (*cutter)(int, off_t);

static int log_descriptor = -1;

static void note(char kind, int64_t place, int64_t length, const void *bytes)
{
    static writer plain;
    if (!plain)
        plain = (writer)dlsym(RTLD_NEXT, "write");
    if (log_descriptor < 0)
        log_descriptor = open(getenv("SHIM_LOG"), O_CREAT | O_WRONLY | O_APPEND, 0600);
    int64_t head[3] = {kind, place, length};
    if (plain(log_descriptor, head, sizeof head) != (ssize_t)sizeof head)
        abort();
    if (bytes && plain(log_descriptor, bytes, length) != length)
        abort();
}

static int is_watched(int descriptor)
{
    const char *watched = getenv("SHIM_FILE");
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (!watched || length < 0)
        return 0;
    name[length] = 0;
    return strcmp(name, watched) == 0;
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t place)
{
    static placed_writer real;
    if (!real)
        real = (placed_writer)dlsym(RTLD_NEXT, "pwrite64");
    ssize_t done = real(descriptor, bytes, length, place);
    if (done > 0 && is_watched(descriptor))
        note('W', place, done, bytes);
    return done;
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t place)
{
    return pwrite64(descriptor, bytes, length, place);
}

int ftruncate64(int descriptor, off_t length)
{
    static cutter real;
    if (!real)
        real = (cutter)dlsym(RTLD_NEXT, "ftruncate64");
    int failed = real(descriptor, length);
    if (!failed && is_watched(descriptor))
        note('T', length, 0, NULL);
    return failed;
}

int ftruncate(int descriptor, off_t length)
{
    return ftruncate64(descriptor, length);
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    static writer real;
    if (!real)
        real = (writer)dlsym(RTLD_NEXT, "write");
    const char *told = getenv("SHIM_ACKNOWLEDGE");
    off_t place = 0;
    int watched = is_watched(descriptor);
    if (watched) /* our own repair writes where it has sought to */
        place = lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = real(descriptor, bytes, length);
    if (done > 0 && watched)
        note('W', place, done, bytes);
    if (done > 0 && told && descriptor == atoi(told))
        note('A', 0, done, bytes);
    return done;
}
