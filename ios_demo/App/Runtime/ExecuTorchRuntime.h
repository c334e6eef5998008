// The framework ExecuTorchRuntime: ExecuTorch, and a few lines to call it by. Apart from the app, as MediaPipe holds an XNNPACK too.
#import "RegisteredBackends.h"
