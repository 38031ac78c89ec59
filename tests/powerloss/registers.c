// SPDX-License-Identifier: MIT
//
// Preloaded into user-mode Linux, this lets it run on processors whose registers it has no room for.
//
// It hands its processes' registers around in a buffer of 2,696 bytes: all there were before AMX. With AMX there are 11 kB, the
// kernel takes them only whole, and so user-mode Linux panics at its first process. Here its part is put into a buffer of the
// right size. The rest stays as it is in a process that never used it: nothing inside asks for AMX, which needs a permission.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long ptrace_function(int request, pid_t pid, void *address, void *data);

static ptrace_function *next;
static char whole[1 << 16];
static size_t whole_bytes; // what the kernel wants; known from the first reading, which comes before any writing

__attribute__((constructor)) static void find_next(void) { next = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace"); }

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);

    int is_reading = request == PTRACE_GETREGSET;
    if ((!is_reading && request != PTRACE_SETREGSET) || address != (void *)NT_X86_XSTATE)
        return next(request, pid, address, data);

    struct iovec *asked = data, all = {whole, is_reading ? sizeof whole : whole_bytes};
    if (!is_reading) {
        memset(whole, 0, sizeof whole);
        memcpy(whole, asked->iov_base, asked->iov_len < whole_bytes ? asked->iov_len : whole_bytes);
    }
    long result = next(request, pid, address, &all);
    if (is_reading && result == 0) {
        whole_bytes = all.iov_len;
        if (asked->iov_len > whole_bytes)
            asked->iov_len = whole_bytes;
        memcpy(asked->iov_base, whole, asked->iov_len);
    }
    return result;
}
