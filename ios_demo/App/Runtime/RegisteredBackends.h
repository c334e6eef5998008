// What ExecuTorch's registry holds, as C: its Swift interface does not tell. A backend whose library the linker left out is not there.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// How many backends registered themselves.
size_t mb_registered_backends(void);

/// The name of one of them, which lives as long as the process; NULL beyond the last.
const char *_Nullable mb_registered_backend(size_t index);

#ifdef __cplusplus
}
#endif
