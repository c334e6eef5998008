import Foundation

/// A safetensors file in memory: named tensors and a few words.
public struct Safetensors {
    /// In the order in which they are saved.
    public private(set) var names: [String]
    public private(set) var tensors: [String: Tensor]
    public var metadata: [String: String]

    public init(_ tensors: [(String, Tensor)], metadata: [String: String] = [:]) {
        names = tensors.map(\.0)
        self.tensors = Dictionary(tensors, uniquingKeysWith: { _, last in last })
        self.metadata = metadata
    }

    /// The tensor `name`, which must be of this type and shape; `place` and `remedy` are for the error.
    public func tensor(_ name: String, _ dtype: DType, _ shape: [Int], where place: String, remedy: String) throws -> Tensor {
        guard let found = tensors[name], found.dtype == dtype, found.shape == shape else {
            let got = tensors[name].map { "\(text($0.shape)) \($0.dtype.rawValue)" } ?? "missing"
            throw MobileBilayerError("\(place): \(name) is \(got); it must be \(text(shape)) \(dtype.rawValue). \(remedy)")
        }
        return found
    }

    /// As a file's bytes. F16 is not written.
    public func save() throws -> Data {
        var header = JsonObject()
        if !metadata.isEmpty {
            var words = JsonObject()
            for key in metadata.keys.sorted() { words[key] = metadata[key].map(Json.text) }
            header["__metadata__"] = .object(words)
        }
        var body = Data()
        for name in names {
            guard let tensor = tensors[name] else { continue }
            precondition(tensor.dtype != .f16, "F16 is read only")
            let begin = body.count
            switch tensor.data {
            case .bytes(let all): body.append(contentsOf: all)
            case .shorts(let all): append(all.map(\.littleEndian), to: &body)
            case .ints(let all): append(all.map(\.littleEndian), to: &body)
            case .longs(let all): append(all.map(\.littleEndian), to: &body)
            case .floats(let all): append(all.map(\.bitPattern.littleEndian), to: &body)
            case .doubles(let all): append(all.map(\.bitPattern.littleEndian), to: &body)
            }
            var entry = JsonObject()
            entry["dtype"] = .text(tensor.dtype.rawValue)
            entry["shape"] = .list(tensor.shape.map { Json.whole(Int64($0)) })
            entry["data_offsets"] = .list([begin, body.count].map { Json.whole(Int64($0)) })
            header[name] = .object(entry)
        }
        var text = Data(try Json.object(header).write().utf8.dropLast())
        text.append(contentsOf: [UInt8](repeating: UInt8(ascii: " "), count: (8 - text.count % 8) % 8))
        var out = Data()
        append([UInt64(text.count).littleEndian], to: &out)
        return out + text + body
    }

    private func append<T>(_ numbers: [T], to out: inout Data) {
        numbers.withUnsafeBytes { out.append(contentsOf: $0) }
    }

    private static let largestHeader = 1 << 20

    /// The way back of `save`. `place` names the file in errors.
    ///
    /// Every byte behind the header must belong to exactly one tensor.
    public static func load(_ data: Data, where place: String) throws -> Safetensors {
        let all = [UInt8](data)
        func damaged(_ why: String) -> MobileBilayerError {
            MobileBilayerError("\(place) is no safetensors file, or it is damaged: \(why). Export or copy it again.")
        }
        let size = all.count >= 8 ? Int64(littleEndian: all.withUnsafeBytes { $0.loadUnaligned(as: Int64.self) }) : -1
        guard size >= 2, size <= min(largestHeader, all.count - 8) else { throw damaged("its header has \(size) bytes") }
        let begin = 8 + Int(size)
        let parsed = try Json.parse(String(decoding: all[8..<begin], as: UTF8.self), where: "\(place): the header")
        guard let header = parsed.object else { throw damaged("its header is no object") }
        guard let words = (header["__metadata__"] ?? .object([:])).object, words.keys.allSatisfy({ words[$0]?.text != nil })
        else { throw damaged("its metadata is no text") }
        var spans: [Range<Int>] = []
        var tensors: [(String, Tensor)] = []
        for key in header.keys where key != "__metadata__" {
            let name = key.prefix(40)
            guard let entry = header[key]?.object else { throw damaged("\(name) is no object") }
            guard let dtype = DType(rawValue: entry["dtype"]?.text ?? "") else { throw damaged("\(name) has an unknown type") }
            guard let shape = wholeNumbers(entry["shape"]) else { throw damaged("\(name) has no shape") }
            let count = shape.reduce(1) { $0 > all.count ? $0 : $0 * $1 }  // grows no further than can be
            guard let span = wholeNumbers(entry["data_offsets"]), span.count == 2, span[0] <= span[1], span[1] <= all.count - begin
            else { throw damaged("\(name) lies outside the file") }
            let length = span[1] - span[0]
            guard count <= all.count, count * dtype.bytes == length else {
                throw damaged("\(name) of shape \(text(shape)) has \(length) bytes")
            }
            spans.append(span[0]..<span[1])
            let numbers = all.withUnsafeBytes {
                read(UnsafeRawBufferPointer(rebasing: $0[(begin + span[0])..<(begin + span[1])]), dtype, count)
            }
            tensors.append((key, try Tensor(dtype, shape, numbers)))
        }
        var end = 0
        for span in spans.filter({ !$0.isEmpty }).sorted(by: { $0.lowerBound < $1.lowerBound }) {
            guard span.lowerBound == end else { throw damaged("its tensors do not fill it") }
            end = span.upperBound
        }
        guard end == all.count - begin else { throw damaged("its tensors do not fill it") }
        var metadata: [String: String] = [:]
        for key in words.keys { metadata[key] = words[key]?.text }
        return Safetensors(tensors, metadata: metadata)
    }

    private static func wholeNumbers(_ value: Json?) -> [Int]? {
        guard let list = value?.list else { return nil }
        let numbers = list.compactMap(\.whole).filter { (0...Int64(Int32.max)).contains($0) }
        return numbers.count == list.count ? numbers.map(Int.init) : nil
    }

    private static func read(_ from: UnsafeRawBufferPointer, _ dtype: DType, _ count: Int) -> Numbers {
        func each<T, U>(_ type: T.Type, _ value: (T) -> U) -> [U] {
            (0..<count).map { value(from.loadUnaligned(fromByteOffset: $0 * MemoryLayout<T>.size, as: type)) }
        }
        switch dtype {
        case .bool, .u8: return .bytes([UInt8](from))
        case .i16: return .shorts(each(Int16.self, Int16.init(littleEndian:)))
        case .i32: return .ints(each(Int32.self, Int32.init(littleEndian:)))
        case .i64: return .longs(each(Int64.self, Int64.init(littleEndian:)))
        case .f16: return .floats(each(UInt16.self) { halfToFloat(UInt16(littleEndian: $0)) })
        case .f32: return .floats(each(UInt32.self) { Float(bitPattern: UInt32(littleEndian: $0)) })
        case .f64: return .doubles(each(UInt64.self) { Double(bitPattern: UInt64(littleEndian: $0)) })
        }
    }

    /// The value of 16 bits that hold a half-precision number. Macs with Intel have no Float16.
    static func halfToFloat(_ bits: UInt16) -> Float {
        let sign: Float = bits & 0x8000 != 0 ? -1 : 1
        let exponent = UInt32(bits >> 10 & 0x1f)
        let fraction = UInt32(bits & 0x3ff)
        switch exponent {
        case 0: return sign * Float(fraction) / Float(1 << 24)
        case 31: return fraction == 0 ? sign * .infinity : .nan
        default: return Float(bitPattern: UInt32(bits & 0x8000) << 16 | (exponent + 112) << 23 | fraction << 13)
        }
    }
}
