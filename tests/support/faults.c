/* Faults below libc, for a process that was started with this library in LD_PRELOAD.
 *
 * faults_arm() names a directory, a set of calls, what is to happen, and at which of those calls on files of that
 * directory; faults_seen() says how many there were. Until it is armed the library only passes calls on. A descriptor
 * that was made by dup() is not followed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, COUNT, KILL_BEFORE, KILL_MIDDLE, FAIL_ONCE, FAIL_ON, HALVE };       /* what */
enum { OPEN = 1, MAKE = 2, READ = 4, WRITE = 8, SYNC = 16, SIZE = 32, NAME = 64 }; /* calls */

#define MOST 4096
static char place[4096];
static size_t place_length;
static int what, calls, code;
static long at;
static atomic_long seen;
static char ours[MOST];

void faults_arm(const char *directory, int which, int action, long number, int error)
{
    strncpy(place, directory, sizeof place - 1);
    place_length = strlen(place);
    calls = which;
    at = number;
    code = error;
    atomic_store(&seen, 0);
    what = action;
}

long faults_seen(void) { return atomic_load(&seen); }

static int struck(int call)
{
    if (what == NOTHING || !(calls & call))
        return NOTHING;
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (what == COUNT || number < at || (number > at && what != FAIL_ON))
        return NOTHING;
    if (what == KILL_BEFORE)
        kill(getpid(), SIGKILL);
    return what;
}

static int is_ours(int fd) { return what && fd >= 0 && fd < MOST && ours[fd]; }

static int is_there(const char *path)
{
    return what && !strncmp(path, place, place_length) && (path[place_length] == '/' || !path[place_length]);
}

static int is_at(int fd, const char *path) { return path[0] == '/' || fd == AT_FDCWD ? is_there(path) : is_ours(fd); }

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

/* The call is made in full unless it is to fail; "in the middle" of a call without bytes is behind it. */
#define WHOLE(type, call, failed, is, real)                                                                            \
    int strike = (is) ? struck(call) : NOTHING;                                                                        \
    if (strike == FAIL_ONCE || strike == FAIL_ON) {                                                                    \
        errno = code;                                                                                                  \
        return failed;                                                                                                 \
    }                                                                                                                  \
    type result = real;                                                                                                \
    if (strike == KILL_MIDDLE)                                                                                         \
        kill(getpid(), SIGKILL);                                                                                       \
    return result;

#define PARTS(call, is, count, real)                                                                                   \
    int strike = (is) ? struck(call) : NOTHING;                                                                        \
    if (strike == FAIL_ONCE || strike == FAIL_ON) {                                                                    \
        errno = code;                                                                                                  \
        return -1;                                                                                                     \
    }                                                                                                                  \
    if ((strike == KILL_MIDDLE || strike == HALVE) && count > 1)                                                       \
        count /= 2;                                                                                                    \
    ssize_t result = real;                                                                                             \
    if (strike == KILL_MIDDLE)                                                                                         \
        kill(getpid(), SIGKILL);                                                                                       \
    return result;

static int opened(const char *name, int fd, const char *path, int flags, mode_t mode)
{
    int is = is_at(fd, path);
    int strike = is ? struck(flags & O_CREAT ? MAKE : OPEN) : NOTHING;
    if (strike == FAIL_ONCE || strike == FAIL_ON) {
        errno = code;
        return -1;
    }
    int result = NEXT(int, name, int, const char *, int, ...)(fd, path, flags, mode);
    if (result >= 0 && result < MOST)
        ours[result] = (char)is;
    if (strike == KILL_MIDDLE)
        kill(getpid(), SIGKILL);
    return result;
}

#define MODE                                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE return opened("openat", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened("openat64", AT_FDCWD, path, flags, mode); }
int openat(int fd, const char *path, int flags, ...) { MODE return opened("openat", fd, path, flags, mode); }
int openat64(int fd, const char *path, int flags, ...) { MODE return opened("openat64", fd, path, flags, mode); }

int close(int fd)
{
    if (fd >= 0 && fd < MOST)
        ours[fd] = 0;
    return NEXT(int, "close", int)(fd);
}

#define READS(name, offset_type)                                                                                       \
    ssize_t name(int fd, void *data, size_t count, offset_type offset)                                                 \
    {                                                                                                                  \
        PARTS(READ, is_ours(fd), count, NEXT(ssize_t, #name, int, void *, size_t, offset_type)(fd, data, count, offset)) \
    }
READS(pread, off_t)
READS(pread64, off64_t)
ssize_t read(int fd, void *data, size_t count)
{
    PARTS(READ, is_ours(fd), count, NEXT(ssize_t, "read", int, void *, size_t)(fd, data, count))
}

/* Of several buffers only the first is halved: one is what Python passes. */
#define VECTORS(name, offset_type)                                                                                     \
    ssize_t name(int fd, const struct iovec *parts, int number, offset_type offset)                                    \
    {                                                                                                                  \
        struct iovec first = parts[0];                                                                                 \
        PARTS(READ, is_ours(fd), first.iov_len,                                                                        \
              number == 1 ? NEXT(ssize_t, #name, int, const struct iovec *, int, offset_type)(fd, &first, 1, offset)   \
                          : NEXT(ssize_t, #name, int, const struct iovec *, int, offset_type)(fd, parts, number, offset)) \
    }
VECTORS(preadv, off_t)
VECTORS(preadv64, off64_t)

#define WRITES(name, offset_type)                                                                                      \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset)                                           \
    {                                                                                                                  \
        PARTS(WRITE, is_ours(fd), count,                                                                               \
              NEXT(ssize_t, #name, int, const void *, size_t, offset_type)(fd, data, count, offset))                   \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)
ssize_t write(int fd, const void *data, size_t count)
{
    PARTS(WRITE, is_ours(fd), count, NEXT(ssize_t, "write", int, const void *, size_t)(fd, data, count))
}

int fsync(int fd) { WHOLE(int, SYNC, -1, is_ours(fd), NEXT(int, "fsync", int)(fd)) }
int fdatasync(int fd) { WHOLE(int, SYNC, -1, is_ours(fd), NEXT(int, "fdatasync", int)(fd)) }

#define CUTS(name, offset_type)                                                                                        \
    int name(int fd, offset_type size)                                                                                 \
    {                                                                                                                  \
        WHOLE(int, SIZE, -1, is_ours(fd), NEXT(int, #name, int, offset_type)(fd, size))                                \
    }
CUTS(ftruncate, off_t)
CUTS(ftruncate64, off64_t)

/* These return the error. */
#define RESERVES(name, offset_type)                                                                                    \
    int name(int fd, offset_type offset, offset_type count)                                                            \
    {                                                                                                                  \
        WHOLE(int, SIZE, code, is_ours(fd), NEXT(int, #name, int, offset_type, offset_type)(fd, offset, count))        \
    }
RESERVES(posix_fallocate, off_t)
RESERVES(posix_fallocate64, off64_t)

#define TWO_NAMES(name)                                                                                                \
    int name(const char *from, const char *to)                                                                         \
    {                                                                                                                  \
        WHOLE(int, NAME, -1, is_there(to), NEXT(int, #name, const char *, const char *)(from, to))                     \
    }
TWO_NAMES(rename)
TWO_NAMES(link)
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    WHOLE(int, NAME, -1, is_at(to_fd, to),
          NEXT(int, "linkat", int, const char *, int, const char *, int)(from_fd, from, to_fd, to, flags))
}
int unlink(const char *path) { WHOLE(int, NAME, -1, is_there(path), NEXT(int, "unlink", const char *)(path)) }
int unlinkat(int fd, const char *path, int flags)
{
    WHOLE(int, NAME, -1, is_at(fd, path), NEXT(int, "unlinkat", int, const char *, int)(fd, path, flags))
}
int rmdir(const char *path) { WHOLE(int, NAME, -1, is_there(path), NEXT(int, "rmdir", const char *)(path)) }
int mkdir(const char *path, mode_t mode)
{
    WHOLE(int, NAME, -1, is_there(path), NEXT(int, "mkdir", const char *, mode_t)(path, mode))
}
int mkdirat(int fd, const char *path, mode_t mode)
{
    WHOLE(int, NAME, -1, is_at(fd, path), NEXT(int, "mkdirat", int, const char *, mode_t)(fd, path, mode))
}
