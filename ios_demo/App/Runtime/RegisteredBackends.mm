#import "RegisteredBackends.h"

#include <executorch/runtime/backend/interface.h>

size_t mb_registered_backends(void) { return executorch::runtime::get_num_registered_backends(); }

const char *mb_registered_backend(size_t index) {
    if (index >= mb_registered_backends()) {
        return nullptr;
    }
    auto name = executorch::runtime::get_backend_name(index);
    return name.ok() ? name.get() : nullptr;
}
