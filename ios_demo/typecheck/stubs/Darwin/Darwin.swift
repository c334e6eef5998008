// Stands for Darwin, iOS 17: who the phone is, and what the process used.
public let RUSAGE_SELF: Int32 = 0

public struct rusage {
    /// In bytes.
    public var ru_maxrss = 0

    public init() {}
}

public func getrusage(_ who: Int32, _ used: UnsafeMutablePointer<rusage>) -> Int32 { 0 }
