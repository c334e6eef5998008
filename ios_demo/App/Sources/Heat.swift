import Foundation

/// How warm the phone says it is, as `FramePacer.heat` has it: 0 (nominal) to 3 (critical).
func heatNow() -> Int { ProcessInfo.processInfo.thermalState.rawValue }
