// Faults in the calls that change a folder, loaded into a process by LD_PRELOAD.
//
// FAULT_DIR is the folder, FAULT_AT the number of the call counted from 1 (0: none), FAULT_KIND
// what happens: kill_before, kill_after, kill_half (a write of half of the bytes), or the number
// of an error. FAULT_LOG is a file that gets a line for each call. FAULT_STICKY: all later calls
// fail, too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int calls;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int is_inside(const char *path) {
    const char *folder = setting("FAULT_DIR");
    return *folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_file_inside(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_inside(path);
}

static void note(const char *call) {
    const char *log = setting("FAULT_LOG");
    if (!*log) return;
    int (*real_open)(const char *, int, ...) = real("open");
    ssize_t (*real_write)(int, const void *, size_t) = real("write");
    int file = real_open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (file < 0) return;
    real_write(file, call, strlen(call));
    real_write(file, "\n", 1);
    close(file);
}

enum { GO_ON, FAIL, KILL_AFTER, KILL_HALF };

static int next(const char *call) {
    int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    int at = atoi(setting("FAULT_AT"));
    const char *kind = setting("FAULT_KIND");
    note(call);
    int is_hit = at > 0 && (number == at || (number > at && *setting("FAULT_STICKY")));
    if (!is_hit) return GO_ON;
    if (strcmp(kind, "kill_before") == 0) raise(SIGKILL);
    if (strcmp(kind, "kill_after") == 0) return KILL_AFTER;
    if (strcmp(kind, "kill_half") == 0) return KILL_HALF;
    errno = atoi(kind);
    return FAIL;
}

static void after(int fate) {
    if (fate == KILL_AFTER || fate == KILL_HALF) raise(SIGKILL);
}

#define WRAP(inside, name, fail, call)      \
    if (!(inside)) return call;             \
    int fate = next(name);                  \
    if (fate == FAIL) return fail;          \
    __typeof__(call) result = call;         \
    after(fate);                            \
    return result;

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    int (*call)(const char *, int, ...) = real(name);
    WRAP(is_inside(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT)), "open", -1, call(path, flags, mode))
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return opened("open64", path, flags, mode);
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t (*call)(int, const void *, size_t) = real("write");
    if (!is_file_inside(file)) return call(file, bytes, count);
    int fate = next("write");
    if (fate == FAIL) return -1;
    ssize_t result = call(file, bytes, fate == KILL_HALF ? count / 2 : count);
    after(fate);
    return result;
}

int rename(const char *from, const char *to) {
    int (*call)(const char *, const char *) = real("rename");
    WRAP(is_inside(to), "rename", -1, call(from, to))
}

int mkdir(const char *path, mode_t mode) {
    int (*call)(const char *, mode_t) = real("mkdir");
    WRAP(is_inside(path), "mkdir", -1, call(path, mode))
}

int unlink(const char *path) {
    int (*call)(const char *) = real("unlink");
    WRAP(is_inside(path), "unlink", -1, call(path))
}

int fsync(int file) {
    int (*call)(int) = real("fsync");
    WRAP(is_file_inside(file), "fsync", -1, call(file))
}

int fdatasync(int file) {
    int (*call)(int) = real("fdatasync");
    WRAP(is_file_inside(file), "fdatasync", -1, call(file))
}

int ftruncate64(int file, off_t length) {
    int (*call)(int, off_t) = real("ftruncate64");
    WRAP(is_file_inside(file), "ftruncate", -1, call(file, length))
}
