/// Kinds of numbers, named as in safetensors files.
public enum DType: String, CaseIterable, Sendable {
    case bool = "BOOL"
    case u8 = "U8"
    case i16 = "I16"
    case i32 = "I32"
    case i64 = "I64"
    case f16 = "F16"
    case f32 = "F32"
    case f64 = "F64"

    public var bytes: Int {
        switch self {
        case .bool, .u8: 1
        case .i16, .f16: 2
        case .i32, .f32: 4
        case .i64, .f64: 8
        }
    }
}

/// What a tensor holds: bytes for BOOL and U8; F16 is held as floats.
public enum Numbers: Equatable, Sendable {
    case bytes([UInt8])
    case shorts([Int16])
    case ints([Int32])
    case longs([Int64])
    case floats([Float])
    case doubles([Double])

    fileprivate func count(of dtype: DType) -> Int? {
        switch (self, dtype) {
        case (.bytes(let all), .u8), (.bytes(let all), .bool): all.count
        case (.shorts(let all), .i16): all.count
        case (.ints(let all), .i32): all.count
        case (.longs(let all), .i64): all.count
        case (.floats(let all), .f32), (.floats(let all), .f16): all.count
        case (.doubles(let all), .f64): all.count
        default: nil
        }
    }
}

/// Numbers with a shape. A buffer: what one who has it writes into its floats, all see.
public final class Tensor {
    public let dtype: DType
    public let shape: [Int]
    /// Of F32 and F16, else none. They are changed in place, as many as they are, unless somebody else holds the array itself.
    public var floats: [Float]
    private let others: Numbers

    /// Throws unless there are as many numbers as the shape says, of this type.
    public init(_ dtype: DType, _ shape: [Int], _ data: Numbers) throws {
        let count = data.count(of: dtype)
        guard let count, shape.allSatisfy({ $0 >= 0 }), count == shape.reduce(1, *) else {
            throw MobileBilayerError(
                "A tensor of shape \(text(shape)) and type \(dtype.rawValue) was made of \(count.map(String.init) ?? "other") numbers. "
                    + "Give it as many as the shape says, of that type.")
        }
        self.dtype = dtype
        self.shape = shape
        if case .floats(let all) = data { floats = all } else { floats = [] }
        others = dtype == .f32 || dtype == .f16 ? .floats([]) : data
    }

    private init(zeros shape: [Int]) {
        dtype = .f32
        self.shape = shape
        floats = [Float](repeating: 0, count: shape.reduce(1, *))
        others = .floats([])
    }

    public var data: Numbers { dtype == .f32 || dtype == .f16 ? .floats(floats) : others }

    /// Of U8 and BOOL.
    public var bytes: [UInt8] {
        guard case .bytes(let all) = others else { preconditionFailure("\(dtype.rawValue) holds no bytes") }
        return all
    }

    /// A float tensor around `data`.
    public static func of(_ data: [Float], _ shape: [Int]) throws -> Tensor {
        try Tensor(.f32, shape, .floats(data))
    }

    /// A float tensor of zeros.
    public static func zeros(_ shape: [Int]) -> Tensor { Tensor(zeros: shape) }
}

/// [256, 256, 3] as people write it.
func text(_ shape: [Int]) -> String { "(" + shape.map(String.init).joined(separator: ", ") + ")" }
