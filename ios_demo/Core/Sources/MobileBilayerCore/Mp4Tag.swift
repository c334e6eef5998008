import Foundation

/// What every video says of itself, here and in what Python writes.
public let aiGenerated = "AI-generated: a photo animated by mobile_bilayer"

/// A file whose index is larger is none of ours, in bytes.
private let largestIndex: UInt64 = 64 << 20

/// Make `file`, a finished MP4, say in its metadata what it is: its title, comment and description become `words`.
///
/// Byte for byte what Android writes, so that what reads the one reads the other. The index (moov) is written anew behind all else, so
/// that no frame moves; a former one before the frames becomes free space. Throws `MobileBilayerError` for what is no MP4, which is left
/// as it was.
public func tagMp4(_ file: URL, words: String = aiGenerated) throws {
    do {
        let handle = try FileHandle(forUpdating: file)
        defer { try? handle.close() }
        try tag(handle, file.lastPathComponent, words)
    } catch let refused as MobileBilayerError {
        throw refused
    } catch {
        throw MobileBilayerError(
            "\(file.lastPathComponent) could not be tagged (\(error.localizedDescription)). Free some space, and record again.",
            cause: error)
    }
}

/// A box of an MP4: where it lies, with its header of `header` bytes.
private struct Box {
    let type: [UInt8]
    let start: UInt64
    let header: UInt64
    let size: UInt64

    func has(_ name: String) -> Bool { type == latin1(name) }
}

private func tag(_ file: FileHandle, _ name: String, _ words: String) throws {
    func refused(_ why: String) -> MobileBilayerError { MobileBilayerError("\(name) is no whole MP4: \(why). Record it again.") }
    func read(_ at: UInt64, _ count: UInt64) throws -> [UInt8] {
        try file.seek(toOffset: at)
        let got = try file.read(upToCount: Int(count)) ?? Data()
        if got.count != Int(count) { throw refused("\(got.count) of \(count) bytes are at \(at)") }
        return [UInt8](got)
    }
    let end = try file.seekToEnd()
    let found = try boxes(from: 0, to: end, refused, read)
    let indices = found.filter { $0.has("moov") }
    guard let moov = indices.first, indices.count == 1 else { throw refused("it has \(indices.count) indices (moov), not one") }
    if !found[0].has("ftyp") { throw refused("it begins with '\(text(found[0].type))'") }
    if moov.size > largestIndex { throw refused("its index has \(moov.size) bytes") }
    let old = try read(moov.start, moov.size)
    func parts(_ box: [UInt8], _ header: UInt64) throws -> [Box] {
        try boxes(from: header, to: UInt64(box.count), refused) { at, count in Array(box[Int(at)..<Int(at + count)]) }
    }
    func bytes(_ box: [UInt8], _ part: Box) -> [UInt8] { Array(box[Int(part.start)..<Int(part.start + part.size)]) }
    var inside: [UInt8] = []
    var user: [UInt8] = []
    for part in try parts(old, moov.header) {
        if !part.has("udta") {
            inside += bytes(old, part)
            continue
        }
        let udta = bytes(old, part)
        for kept in try parts(udta, part.header) where !kept.has("meta") { user += bytes(udta, kept) }
    }
    let new = box("moov", inside + box("udta", user + metadata(words)))
    let isLast = moov.start + moov.size == end
    try file.seek(toOffset: isLast ? moov.start : end)
    try file.write(contentsOf: new)
    if isLast {
        try file.truncate(atOffset: moov.start + UInt64(new.count))
    } else {
        try file.seek(toOffset: moov.start + 4)
        try file.write(contentsOf: latin1("free"))
    }
}

/// As iTunes and FFmpeg have it: a list (ilst) of name, comment and description, each of text.
private func metadata(_ words: String) -> [UInt8] {
    let none = [UInt8](repeating: 0, count: 4)
    let handler = box("hdlr", none + none + latin1("mdirappl") + [UInt8](repeating: 0, count: 9))
    let data = box("data", [0, 0, 0, 1] + none + Array(words.utf8))
    return box("meta", none + handler + box("ilst", box("\u{a9}nam", data) + box("\u{a9}cmt", data) + box("desc", data)))
}

private func box(_ type: String, _ content: [UInt8]) -> [UInt8] {
    let size = UInt32(8 + content.count)
    return (0..<4).map { UInt8(truncatingIfNeeded: size >> (24 - 8 * $0)) } + latin1(type) + content
}

/// The boxes one behind another; `read` gives bytes from a place.
private func boxes(
    from begin: UInt64, to end: UInt64, _ refused: (String) -> MobileBilayerError, _ read: (_ at: UInt64, _ count: UInt64) throws -> [UInt8]
) throws -> [Box] {
    var found: [Box] = []
    var at = begin
    while at < end {
        if end - at < 8 { throw refused("\(end - at) bytes are left over at \(at)") }
        let head = try read(at, min(16, end - at))
        func number(_ bytes: Range<Int>) -> UInt64 { head[bytes].reduce(0) { $0 << 8 | UInt64($1) } }
        let type = Array(head[4..<8])
        var header: UInt64 = 8
        var size = number(0..<4)
        if size == 1, head.count == 16 {  // a large one says so behind its type
            header = 16
            size = number(8..<16)
        }
        if size == 0 { size = end - at }  // up to the end
        if size < header || size > end - at { throw refused("'\(text(type))' at \(at) has \(size) of \(end - at) bytes") }
        found.append(Box(type: type, start: at, header: header, size: size))
        at += size
    }
    return found
}

private func latin1(_ text: String) -> [UInt8] { text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) } }

private func text(_ latin1: [UInt8]) -> String { String(String.UnicodeScalarView(latin1.map { Unicode.Scalar($0) })) }
