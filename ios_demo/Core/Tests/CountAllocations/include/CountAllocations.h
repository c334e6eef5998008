// How many bytes this thread has asked the system for, and how often. Only where malloc can be put in front of: glibc.
#pragma once
#include <stdbool.h>
#include <stdint.h>

bool countAllocationsWorks(void);
uint64_t allocatedBytes(void);
uint64_t allocationCount(void);
