/* Stands before libc's file calls for what lies below one folder, Python's and SQLite's alike: counts them, fails or kills at
   the k-th, and records what they did. Nothing is ever synced: that a sync was asked for is all that tests need.

   Build: cc -shared -fPIC -O1 -o shim.so shim.c -pthread -ldl, then start a process with LD_PRELOAD=shim.so.
   Kinds of calls: C open that creates, N open to write, O open to read, P read, W write, T truncate, S sync a file,
   D sync a folder, R rename, E exchange, U unlink, X rmdir, M mkdir, L link. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FDS 4096
#define CALLS 65536
enum { FAIL = 1, SHORT = 2, KILL_BEFORE = 3, KILL_AFTER = 4 };
enum { GO = 0, REFUSE = 1, HALVE = 2, DIE = 3 };

static char root[PATH_MAX];
static size_t root_length;
static char below[FDS];  /* whether a descriptor is of something below the root */

static int action, code, sticky;
static long at, count;
static char kinds[64];   /* which kinds are counted */
static char log_[CALLS]; /* their kinds, in order */

/* Files are synced by several threads at once. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int recording;
static char *trace;
static size_t trace_size, trace_room;

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void shim_root(const char *path) {
  strncpy(root, path, sizeof root - 1);
  root_length = strlen(root);
}

/* From now on count calls of `wanted` kinds; at the k-th (from 1; 0 for none) do `what`. A sticky fault stays until disarmed. */
void shim_arm(const char *wanted, long k, int what, int error, int stays) {
  strncpy(kinds, wanted, sizeof kinds - 1);
  at = k, action = what, code = error, sticky = stays, count = 0;
}

long shim_disarm(void) {
  kinds[0] = 0;
  return count;
}

const char *shim_log(void) { return log_; }

void shim_record(int on) { recording = on, trace_size = on ? 0 : trace_size; }

const char *shim_trace(size_t *size) {
  *size = trace_size;
  return trace;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  pause();
}

static int judged(char kind) {
  if (!kinds[0] || !strchr(kinds, kind)) return GO;
  if (count < CALLS) log_[count] = kind;
  count++;
  if (!at || (sticky ? count < at : count != at)) return GO;
  if (action == KILL_BEFORE) die();
  if (action == KILL_AFTER) return DIE;
  if (action == SHORT) return HALVE;
  return REFUSE;
}

/* What to do with a call of this kind. */
static int gate(char kind) {
  pthread_mutex_lock(&one_at_a_time);
  int verdict = judged(kind);
  pthread_mutex_unlock(&one_at_a_time);
  if (verdict == REFUSE) errno = code;
  return verdict;
}

/* The same for a write: a full disk still takes one over bytes that a file has. */
static int gate_write(int fd, off64_t end) {
  struct stat status;
  int within = sticky && code == ENOSPC && !fstat(fd, &status) && end <= status.st_size;
  int verdict = gate('W');
  return within && verdict == REFUSE ? GO : verdict;
}

static void put(const void *data, size_t size) {
  if (trace_size + size > trace_room) {
    trace_room = 2 * (trace_size + size) + 65536;
    trace = realloc(trace, trace_room);
    if (!trace) abort();
  }
  memcpy(trace + trace_size, data, size);
  trace_size += size;
}

static void note(char kind, uint64_t a, uint64_t b, uint64_t c, const void *one, size_t one_size, const void *two, size_t two_size) {
  if (!recording) return;
  uint64_t head[6] = {(uint64_t)kind, a, b, c, one_size, two_size};
  pthread_mutex_lock(&one_at_a_time);
  put(head, sizeof head);
  put(one, one_size);
  put(two, two_size);
  pthread_mutex_unlock(&one_at_a_time);
}

/* A line that the test itself puts into the trace. */
void shim_mark(uint64_t number) { note('A', number, 0, 0, "", 0, "", 0); }

static int tracked(int folder, const char *path) {
  if (!root_length || !path) return 0;
  if (path[0] == '/') return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
  return folder >= 0 && folder < FDS && below[folder];
}

static int tracked_fd(int fd) { return fd >= 0 && fd < FDS && below[fd]; }

static uint64_t inode(int fd) {
  struct stat status;
  return fstat(fd, &status) ? 0 : status.st_ino;
}

static uint64_t inode_at(int folder, const char *path) {
  struct stat status;
  return fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) ? 0 : status.st_ino;
}

static const char *last(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static uint64_t parent(int folder, const char *path) {
  char outer[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (!slash) return inode(folder);
  size_t length = slash == path ? 1 : (size_t)(slash - path);
  memcpy(outer, path, length);
  outer[length] = 0;
  return inode_at(folder, outer);
}

static void note_name(char kind, int folder, const char *path, uint64_t target) {
  if (recording) note(kind, parent(folder, path), target, 0, last(path), strlen(last(path)), "", 0);
}

#define LEAVE(verdict, result) \
  do { \
    if ((verdict) == DIE) die(); \
    return (result); \
  } while (0)

static int open_(int folder, const char *path, int flags, mode_t mode) {
  REAL(openat64);
  int ours = tracked(folder, path), fd, verdict = GO, writes = (flags & O_ACCMODE) != O_RDONLY, stood = 0;
  if (ours) {
    stood = inode_at(folder, path) != 0;
    verdict = gate((flags & O_CREAT) && !stood ? 'C' : writes ? 'N' : 'O');
    if (verdict == REFUSE) return -1;
  }
  fd = real(folder, path, flags, mode);
  if (fd >= 0 && fd < FDS) below[fd] = ours;
  if (ours && fd >= 0) {
    if ((flags & O_CREAT) && !stood) note_name('C', folder, path, inode(fd));
    else if (flags & O_TRUNC) note('T', inode(fd), 0, 0, "", 0, "", 0);
  }
  LEAVE(verdict, fd);
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return open_(AT_FDCWD, path, flags, mode); \
  }
#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return open_(folder, path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  REAL(close);
  if (fd >= 0 && fd < FDS) below[fd] = 0;
  return real(fd);
}

ssize_t read(int fd, void *data, size_t size) {
  REAL(read);
  int verdict = tracked_fd(fd) ? gate('P') : GO;
  if (verdict == REFUSE) return -1;
  ssize_t got = real(fd, data, verdict == HALVE ? (size + 1) / 2 : size);
  LEAVE(verdict, got);
}

static ssize_t pread_(int fd, void *data, size_t size, off64_t offset) {
  REAL(pread64);
  int verdict = tracked_fd(fd) ? gate('P') : GO;
  if (verdict == REFUSE) return -1;
  ssize_t got = real(fd, data, verdict == HALVE ? (size + 1) / 2 : size, offset);
  LEAVE(verdict, got);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) { return pread_(fd, data, size, offset); }
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) { return pread_(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  if (!tracked_fd(fd)) return real(fd, data, size);
  int verdict = gate_write(fd, lseek(fd, 0, SEEK_CUR) + size);
  if (verdict == REFUSE) return -1;
  ssize_t done = real(fd, data, verdict == HALVE ? (size + 1) / 2 : size);
  if (done > 0) note('W', inode(fd), lseek(fd, 0, SEEK_CUR) - done, 0, data, done, "", 0);
  LEAVE(verdict, done);
}

static ssize_t pwrite_(int fd, const void *data, size_t size, off64_t offset) {
  REAL(pwrite64);
  if (!tracked_fd(fd)) return real(fd, data, size, offset);
  int verdict = gate_write(fd, offset + size);
  if (verdict == REFUSE) return -1;
  ssize_t done = real(fd, data, verdict == HALVE ? (size + 1) / 2 : size, offset);
  if (done > 0) note('W', inode(fd), offset, 0, data, done, "", 0);
  LEAVE(verdict, done);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite_(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite_(fd, data, size, offset); }

/* Copies inside the kernel would pass the trace by; programs fall back to read and write. */
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  REAL(sendfile);
  if (!tracked_fd(out)) return real(out, in, offset, size);
  errno = ENOTSOCK;
  return -1;
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) { return sendfile(out, in, offset, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  REAL(copy_file_range);
  if (!tracked_fd(out)) return real(in, from, out, to, size, flags);
  errno = ENOSYS;
  return -1;
}

static int sync_(int fd) {
  struct stat status;
  int folder = !fstat(fd, &status) && S_ISDIR(status.st_mode), verdict = gate(folder ? 'D' : 'S');
  if (verdict == REFUSE) return -1;
  note(folder ? 'D' : 'S', status.st_ino, 0, 0, "", 0, "", 0);
  LEAVE(verdict, 0);
}
int fsync(int fd) {
  REAL(fsync);
  return tracked_fd(fd) ? sync_(fd) : real(fd);
}
int fdatasync(int fd) {
  REAL(fdatasync);
  return tracked_fd(fd) ? sync_(fd) : real(fd);
}

static int ftruncate_(int fd, off64_t size) {
  REAL(ftruncate64);
  if (!tracked_fd(fd)) return real(fd, size);
  int verdict = gate('T');
  if (verdict == REFUSE) return -1;
  int failed = real(fd, size);
  if (!failed) note('T', inode(fd), size, 0, "", 0, "", 0);
  LEAVE(verdict, failed);
}
int ftruncate(int fd, off_t size) { return ftruncate_(fd, size); }
int ftruncate64(int fd, off64_t size) { return ftruncate_(fd, size); }

static int rename_(int folder, const char *path, int folder2, const char *path2, unsigned flags) {
  REAL(renameat2);
  if (!tracked(folder, path) && !tracked(folder2, path2)) return real(folder, path, folder2, path2, flags);
  char kind = flags & RENAME_EXCHANGE ? 'E' : 'R';
  int verdict = gate(kind);
  if (verdict == REFUSE) return -1;
  int failed = real(folder, path, folder2, path2, flags);
  if (!failed && recording)
    note(kind, parent(folder, path), parent(folder2, path2), 0, last(path), strlen(last(path)), last(path2), strlen(last(path2)));
  LEAVE(verdict, failed);
}
int rename(const char *path, const char *path2) { return rename_(AT_FDCWD, path, AT_FDCWD, path2, 0); }
int renameat(int folder, const char *path, int folder2, const char *path2) { return rename_(folder, path, folder2, path2, 0); }
int renameat2(int folder, const char *path, int folder2, const char *path2, unsigned flags) {
  return rename_(folder, path, folder2, path2, flags);
}

static int unlink_(int folder, const char *path, int flags) {
  REAL(unlinkat);
  if (!tracked(folder, path)) return real(folder, path, flags);
  char kind = flags & AT_REMOVEDIR ? 'X' : 'U';
  int verdict = gate(kind);
  if (verdict == REFUSE) return -1;
  int failed = real(folder, path, flags);
  if (!failed) note_name(kind, folder, path, 0);
  LEAVE(verdict, failed);
}
int unlink(const char *path) { return unlink_(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlink_(folder, path, flags); }
int rmdir(const char *path) { return unlink_(AT_FDCWD, path, AT_REMOVEDIR); }

static int mkdir_(int folder, const char *path, mode_t mode) {
  REAL(mkdirat);
  if (!tracked(folder, path)) return real(folder, path, mode);
  int verdict = gate('M');
  if (verdict == REFUSE) return -1;
  int failed = real(folder, path, mode);
  if (!failed) note_name('M', folder, path, inode_at(folder, path));
  LEAVE(verdict, failed);
}
int mkdir(const char *path, mode_t mode) { return mkdir_(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return mkdir_(folder, path, mode); }

static int link_(int folder, const char *path, int folder2, const char *path2, int flags) {
  REAL(linkat);
  if (!tracked(folder2, path2)) return real(folder, path, folder2, path2, flags);
  int verdict = gate('L');
  if (verdict == REFUSE) return -1;
  int failed = real(folder, path, folder2, path2, flags);
  if (!failed) note_name('L', folder2, path2, inode_at(folder, path));
  LEAVE(verdict, failed);
}
int link(const char *path, const char *path2) { return link_(AT_FDCWD, path, AT_FDCWD, path2, 0); }
int linkat(int folder, const char *path, int folder2, const char *path2, int flags) {
  return link_(folder, path, folder2, path2, flags);
}
