// SPDX-License-Identifier: MIT
//
// Preloaded into a process, this makes the n-th system call that writes or syncs an LMDB data file go wrong.
//
// LMDB writes a commit as: new pages (writev, pwrite), fdatasync, one of two meta pages (pwrite through a handle with O_DSYNC).
// Only the data file of a store is watched. Nothing happens until fault_arm is called, which is once and while there is one thread.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action {
    COUNT,       // let all calls through
    KILL_BEFORE, // SIGKILL instead of the call
    KILL_HALF,   // do half of a write, then SIGKILL
    KILL_AFTER,  // do the call, then SIGKILL
    FAIL,        // return the error instead
    FAIL_HALF,   // write half and say so, as a full disk may
};

static const char WATCHED[] = "/data.mdb";
static enum action armed_action;
static int armed_error, is_lasting;
static long armed_call;
static atomic_long calls;

// Have `action` happen at the call-th call from now, and with `lasting` at all later ones.
void fault_arm(int action, long call, int error, int lasting) {
    armed_action = action;
    armed_call = call;
    armed_error = error;
    is_lasting = lasting;
    calls = 0;
}

// How many calls there were.
long fault_count(void) { return calls; }

static int is_watched(int fd) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    ssize_t tail = sizeof WATCHED - 1;
    return length >= tail && memcmp(path + length - tail, WATCHED, tail) == 0;
}

static enum action what_happens(int fd) {
    if (armed_call == 0 || !is_watched(fd))
        return COUNT;
    long call = ++calls;
    return call == armed_call || (is_lasting && call > armed_call) ? armed_action : COUNT;
}

static ssize_t with_fault(int fd, ssize_t (*do_call)(int fd, const struct iovec *parts, int count, off_t offset),
                          const struct iovec *parts, int count, off_t offset) {
    struct iovec half = {parts ? parts[0].iov_base : NULL, parts ? parts[0].iov_len / 2 : 0};
    switch (what_happens(fd)) {
    case KILL_HALF:
        if (parts)
            do_call(fd, &half, 1, offset);
        // fall through
    case KILL_BEFORE:
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    case KILL_AFTER:
        do_call(fd, parts, count, offset);
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    case FAIL_HALF:
        if (parts)
            return do_call(fd, &half, 1, offset);
        // fall through
    case FAIL:
        errno = armed_error;
        return -1;
    default:
        return do_call(fd, parts, count, offset);
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t do_writev(int fd, const struct iovec *parts, int count, off_t offset) {
    (void)offset;
    return REAL(writev)(fd, parts, count);
}

static ssize_t do_pwrite(int fd, const struct iovec *parts, int count, off_t offset) {
    (void)count;
    return REAL(pwrite)(fd, parts->iov_base, parts->iov_len, offset);
}

static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t offset) {
    (void)count, (void)offset;
    return REAL(write)(fd, parts->iov_base, parts->iov_len);
}

static ssize_t do_fsync(int fd, const struct iovec *parts, int count, off_t offset) {
    (void)parts, (void)count, (void)offset;
    return REAL(fsync)(fd);
}

static ssize_t do_fdatasync(int fd, const struct iovec *parts, int count, off_t offset) {
    (void)parts, (void)count, (void)offset;
    return REAL(fdatasync)(fd);
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return with_fault(fd, do_writev, parts, count, 0); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    struct iovec part = {(void *)data, size};
    return with_fault(fd, do_pwrite, &part, 1, offset);
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    return with_fault(fd, do_write, &part, 1, 0);
}

int fsync(int fd) { return (int)with_fault(fd, do_fsync, NULL, 0, 0); }

int fdatasync(int fd) { return (int)with_fault(fd, do_fdatasync, NULL, 0, 0); }
