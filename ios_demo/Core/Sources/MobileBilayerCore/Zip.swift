import Foundation

/// A zip in memory, as far as bundles need it: files that are stored or deflated. No Zip64, no encryption.
struct Zip {
    /// Of all files in it.
    let names: [String]
    private let data: [UInt8]
    private let entries: [String: Entry]
    private let place: String

    private struct Entry {
        let method: Int
        let packed: Int
        let size: Int
        let crc: UInt32
        let header: Int
    }

    /// `place` names it in errors.
    init(data: Data, where place: String) throws {
        self.data = [UInt8](data)
        self.place = place
        let all = self.data
        // The directory's end lies before a comment of at most 65535 bytes.
        let lowest = max(all.count - 22 - 65535, 0)
        guard all.count >= 22,
            let end = stride(from: all.count - 22, through: lowest, by: -1).first(where: { number(all, $0, 4) == 0x0605_4b50 })
        else { throw MobileBilayerError("\(place) is no bundle: neither a folder nor a readable zip. Choose the folder, or zip it again.") }
        func damaged() -> MobileBilayerError { MobileBilayerError("\(place) is a damaged zip: its directory is cut. Copy it again.") }
        var at = number(all, end + 16, 4)
        var names: [String] = []
        var entries: [String: Entry] = [:]
        for _ in 0..<number(all, end + 10, 2) {
            guard at + 46 <= end, number(all, at, 4) == 0x0201_4b50 else { throw damaged() }
            let length = number(all, at + 28, 2)
            let next = at + 46 + length + number(all, at + 30, 2) + number(all, at + 32, 2)
            guard next <= end else { throw damaged() }
            let name = String(decoding: all[(at + 46)..<(at + 46 + length)], as: UTF8.self)
            names.append(name)
            entries[name] = Entry(
                method: number(all, at + 8, 2) & 1 == 1 ? -1 : number(all, at + 10, 2), packed: number(all, at + 20, 4),
                size: number(all, at + 24, 4), crc: UInt32(number(all, at + 16, 4)), header: number(all, at + 42, 4))
            at = next
        }
        self.names = names
        self.entries = entries
    }

    /// The file `name`, or nil where there is none. Throws for more than `atMost` bytes, whatever size the zip claims.
    func read(_ name: String, atMost: Int) throws -> Data? {
        guard let entry = entries[name] else { return nil }
        func refused(_ why: String) -> MobileBilayerError {
            MobileBilayerError("\(place): \(name) can't be unpacked (\(why)). Copy the bundle again.")
        }
        if entry.size > atMost { throw tooLarge(place, name) }
        guard entry.header + 30 <= data.count, number(data, entry.header, 4) == 0x0403_4b50 else { throw refused("it has no header") }
        let begin = entry.header + 30 + number(data, entry.header + 26, 2) + number(data, entry.header + 28, 2)
        guard begin + entry.packed <= data.count else { throw refused("it is cut") }
        let packed = data[begin..<(begin + entry.packed)]
        let out: [UInt8]
        switch entry.method {
        case 0: out = [UInt8](packed)
        case 8:
            guard let unpacked = inflate(packed, size: entry.size) else { throw refused("it is damaged") }
            out = unpacked
        default: throw refused("it is encrypted or packed in an unusual way")
        }
        guard out.count == entry.size, crc32(out) == entry.crc else { throw refused("it is damaged") }
        return Data(out)
    }
}

/// So many bytes, the lowest first.
private func number(_ data: [UInt8], _ at: Int, _ bytes: Int) -> Int {
    var out = 0
    for i in 0..<bytes { out |= Int(data[at + i]) << (8 * i) }
    return out
}

private let crcs: [UInt32] = (0..<256).map { i in
    var crc = UInt32(i)
    for _ in 0..<8 { crc = crc & 1 == 1 ? 0xedb8_8320 ^ (crc >> 1) : crc >> 1 }
    return crc
}

/// The checksum of zips.
func crc32(_ data: [UInt8]) -> UInt32 {
    let table = crcs
    var crc = UInt32.max
    for byte in data { crc = table[Int((crc ^ UInt32(byte)) & 255)] ^ (crc >> 8) }
    return ~crc
}

/// What was packed by DEFLATE (RFC 1951), or nil for what is none or more than `size` bytes.
func inflate(_ packed: ArraySlice<UInt8>, size: Int) -> [UInt8]? {
    var bits = Bits(packed)
    var out: [UInt8] = []
    out.reserveCapacity(size)
    while true {
        guard let last = bits.take(1), let kind = bits.take(2) else { return nil }
        switch kind {
        case 0:
            bits.toByte()
            guard let length = bits.take(16), let check = bits.take(16), length == ~check & 0xffff, out.count + length <= size else {
                return nil
            }
            for _ in 0..<length {
                guard let byte = bits.take(8) else { return nil }
                out.append(UInt8(byte))
            }
        case 1:
            guard block(&bits, plainLengths, plainDistances, size, &out) else { return nil }
        case 2:
            guard let (lengths, distances) = codes(&bits), block(&bits, lengths, distances, size, &out) else { return nil }
        default: return nil
        }
        if last == 1 { return out }
    }
}

private struct Bits {
    private let data: ArraySlice<UInt8>
    private var at: Int
    private var held: UInt64 = 0
    private var count = 0

    init(_ data: ArraySlice<UInt8>) {
        self.data = data
        at = data.startIndex
    }

    /// The next `n` bits, the lowest first; nil at the end.
    mutating func take(_ n: Int) -> Int? {
        while count < n {
            if at == data.endIndex { return nil }
            held |= UInt64(data[at]) << UInt64(count)
            at += 1
            count += 8
        }
        defer {
            held >>= UInt64(n)
            count -= n
        }
        return Int(held & ((1 << UInt64(n)) - 1))
    }

    /// Leave out what is left of a byte.
    mutating func toByte() {
        held >>= UInt64(count % 8)
        count -= count % 8
    }
}

/// A Huffman code, by how many words there are of each length, and their symbols in order.
private struct Code {
    private var counts = [Int](repeating: 0, count: 16)
    private var symbols: [Int] = []

    /// nil for more words than there is room for.
    init?(_ lengths: [Int]) {
        for length in lengths { counts[length] += 1 }
        counts[0] = 0
        var room = 1
        for length in 1..<16 {
            room = 2 * room - counts[length]
            if room < 0 { return nil }
        }
        for length in 1..<16 { symbols += lengths.indices.filter { lengths[$0] == length } }
    }

    func next(_ bits: inout Bits) -> Int? {
        var (word, first, index) = (0, 0, 0)
        for length in 1..<16 {
            guard let bit = bits.take(1) else { return nil }
            word |= bit
            if word - first < counts[length] { return symbols[index + word - first] }
            index += counts[length]
            first = (first + counts[length]) << 1
            word <<= 1
        }
        return nil
    }
}

private let plainLengths = Code((0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 })
private let plainDistances = Code([Int](repeating: 5, count: 30))
private let lengthBase = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
]
private let lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]
private let distanceBase = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385,
    24577,
]

private func codes(_ bits: inout Bits) -> (Code?, Code?)? {
    guard let a = bits.take(5), let b = bits.take(5), let c = bits.take(4), a <= 29, b <= 29 else { return nil }
    let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    var lengths = [Int](repeating: 0, count: 19)
    for i in 0..<(c + 4) {
        guard let length = bits.take(3) else { return nil }
        lengths[order[i]] = length
    }
    guard let code = Code(lengths) else { return nil }
    let (literals, all) = (a + 257, a + b + 258)
    var out: [Int] = []
    while out.count < all {
        guard let symbol = code.next(&bits) else { return nil }
        switch symbol {
        case 16:
            guard let last = out.last, let more = bits.take(2) else { return nil }
            out += [Int](repeating: last, count: 3 + more)
        case 17:
            guard let more = bits.take(3) else { return nil }
            out += [Int](repeating: 0, count: 3 + more)
        case 18:
            guard let more = bits.take(7) else { return nil }
            out += [Int](repeating: 0, count: 11 + more)
        default: out.append(symbol)
        }
    }
    guard out.count == all, let first = Code(Array(out[..<literals])), let second = Code(Array(out[literals...])) else { return nil }
    return (first, second)
}

private func block(_ bits: inout Bits, _ lengths: Code?, _ distances: Code?, _ size: Int, _ out: inout [UInt8]) -> Bool {
    guard let lengths, let distances else { return false }
    while let symbol = lengths.next(&bits) {
        if symbol == 256 { return true }
        if symbol < 256 {
            if out.count == size { return false }
            out.append(UInt8(symbol))
            continue
        }
        guard symbol < 286, let more = bits.take(lengthBits[symbol - 257]), let far = distances.next(&bits), far < 30,
            let farther = bits.take(max(far / 2 - 1, 0))
        else { return false }
        let length = lengthBase[symbol - 257] + more
        let distance = distanceBase[far] + farther
        if distance > out.count || out.count + length > size { return false }
        for _ in 0..<length { out.append(out[out.count - distance]) }
    }
    return false
}
