import Darwin
import Foundation

/// What the phone is, in its own words: "iPhone15,2"; a simulator tells of its processor.
func machineName() -> String {
    var about = utsname()
    uname(&about)
    return withUnsafeBytes(of: &about.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// The most memory that this process ever had, in MiB.
func peakMemoryMib() -> Double? {
    var used = Darwin.rusage()
    return getrusage(RUSAGE_SELF, &used) == 0 ? Double(used.ru_maxrss) / 1_048_576 : nil  // bytes here, kilobytes elsewhere
}

/// The app as it is installed, in MiB.
func packageMib() -> Double? {
    let files = FileManager.default.enumerator(at: Bundle.main.bundleURL, includingPropertiesForKeys: [.fileSizeKey])
    guard let files else { return nil }
    var bytes = 0
    for case let file as URL in files { bytes += (try? file.resourceValues(forKeys: [.fileSizeKey]).fileSize) ?? 0 }
    return bytes > 0 ? Double(bytes) / 1_048_576 : nil
}
