#include "CountAllocations.h"

#include <stddef.h>

#if defined(__linux__)
#include <errno.h>

static __thread uint64_t bytes __attribute__((tls_model("initial-exec")));
static __thread uint64_t count __attribute__((tls_model("initial-exec")));

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t number, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static void note(size_t size) {
    bytes += size;
    count++;
}

void *malloc(size_t size) {
    note(size);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    note(number * size);
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    note(size);
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    note(size);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    note(size);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

bool countAllocationsWorks(void) { return true; }
uint64_t allocatedBytes(void) { return bytes; }
uint64_t allocationCount(void) { return count; }
#else
bool countAllocationsWorks(void) { return false; }
uint64_t allocatedBytes(void) { return 0; }
uint64_t allocationCount(void) { return 0; }
#endif
