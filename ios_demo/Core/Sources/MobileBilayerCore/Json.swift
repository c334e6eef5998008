import Foundation

/// Strict JSON, as far as manifests and results need it.
///
/// Whole numbers are `whole`, others `number`. Refused: a key twice, anything behind the value, numbers that JSON does not have (NaN),
/// and nesting deeper than `deepest`. Foundation's own reader takes the first two.
public enum Json: Equatable, Sendable {
    case null
    case bool(Bool)
    case whole(Int64)
    case number(Double)
    case text(String)
    case list([Json])
    case object(JsonObject)

    public static let deepest = 64

    /// The value of a JSON text. `place` names the file in errors.
    public static func parse(_ text: String, where place: String) throws -> Json {
        var parser = Parser(text: Array(text.utf8), place: place)
        return try parser.whole()
    }

    /// Indented by one space, keys in the object's order; lists of numbers on one line. Numbers must be finite.
    public func write() throws -> String {
        var out = ""
        try write(&out, "\n")
        return out + "\n"
    }

    public subscript(key: String) -> Json? { object?[key] }

    public var object: JsonObject? { if case .object(let value) = self { value } else { nil } }
    public var list: [Json]? { if case .list(let value) = self { value } else { nil } }
    public var text: String? { if case .text(let value) = self { value } else { nil } }
    public var whole: Int64? { if case .whole(let value) = self { value } else { nil } }

    /// Of whole numbers, too.
    public var number: Double? {
        switch self {
        case .whole(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    private func write(_ out: inout String, _ line: String) throws {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .whole(let value): out += String(value)
        case .number(let value):
            guard value.isFinite else { throw MobileBilayerError("\(value) is no number that JSON has. Leave the value out.") }
            out += value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value)).0" : "\(value)"
        case .text(let value): Json.quote(value, &out)
        case .list(let parts) where parts.allSatisfy { $0.number != nil }:
            out += "["
            for (i, part) in parts.enumerated() {
                out += i > 0 ? ", " : ""
                try part.write(&out, "")
            }
            out += "]"
        case .list(let parts):
            try Json.all(parts, "[", "]", &out, line) { part, out, deeper in try part.write(&out, deeper) }
        case .object(let object):
            try Json.all(object.keys, "{", "}", &out, line) { key, out, deeper in
                Json.quote(key, &out)
                out += ": "
                try (object[key] ?? .null).write(&out, deeper)
            }
        }
    }

    private static func all<T>(
        _ parts: [T], _ open: String, _ close: String, _ out: inout String, _ line: String,
        _ one: (T, inout String, String) throws -> Void
    ) rethrows {
        out += open
        for (i, part) in parts.enumerated() {
            out += (i > 0 ? "," : "") + line + " "
            try one(part, &out, line + " ")
        }
        if !parts.isEmpty { out += line }
        out += close
    }

    private static func quote(_ text: String, _ out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": out += "\\" + String(scalar)
            case "\n": out += "\\n"
            case _ where scalar.value < 32: out += String(format: "\\u%04x", scalar.value)
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}

/// Values by key, in the order of a file. Two are the same if they hold the same, in whatever order.
public struct JsonObject: Equatable, Sendable, ExpressibleByDictionaryLiteral {
    public private(set) var keys: [String] = []
    private var values: [String: Json] = [:]

    public init() {}

    public init(dictionaryLiteral elements: (String, Json)...) {
        for (key, value) in elements { self[key] = value }
    }

    public subscript(key: String) -> Json? {
        get { values[key] }
        set {
            if values[key] == nil, newValue != nil { keys.append(key) }
            if newValue == nil { keys.removeAll { $0 == key } }
            values[key] = newValue
        }
    }

    public static func == (a: JsonObject, b: JsonObject) -> Bool { a.values == b.values }
}

private struct Parser {
    let text: [UInt8]
    let place: String
    var at = 0

    mutating func whole() throws -> Json {
        let value = try value(0)
        space()
        if at < text.count { throw error("something behind the end") }
        return value
    }

    private mutating func value(_ depth: Int) throws -> Json {
        if depth > Json.deepest { throw error("nested deeper than \(Json.deepest)") }
        space()
        switch try peek() {
        case UInt8(ascii: "{"): return try object(depth)
        case UInt8(ascii: "["): return try list(depth)
        case UInt8(ascii: "\""): return .text(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func object(_ depth: Int) throws -> Json {
        var out = JsonObject()
        at += 1
        if next("}") { return .object(out) }
        repeat {
            space()
            let key = try string()
            if !next(":") { throw error("no ':'") }
            if out[key] != nil { throw error("the key \"\(key.prefix(40))\" twice") }
            out[key] = try value(depth + 1)
        } while next(",")
        if !next("}") { throw error("no '}'") }
        return .object(out)
    }

    private mutating func list(_ depth: Int) throws -> Json {
        var out: [Json] = []
        at += 1
        if next("]") { return .list(out) }
        repeat { out.append(try value(depth + 1)) } while next(",")
        if !next("]") { throw error("no ']'") }
        return .list(out)
    }

    private mutating func string() throws -> String {
        if try peek() != UInt8(ascii: "\"") { throw error("no string") }
        at += 1
        var out: [UInt8] = []
        while true {
            let c = try peek()
            at += 1
            switch c {
            case UInt8(ascii: "\""): return String(decoding: out, as: UTF8.self)
            case 0..<32: throw error("a string without end")
            case UInt8(ascii: "\\"): out.append(contentsOf: try escaped())
            default: out.append(c)
            }
        }
    }

    private mutating func escaped() throws -> [UInt8] {
        let c = try peek()
        at += 1
        switch c {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [c]
        case UInt8(ascii: "b"): return [8]
        case UInt8(ascii: "f"): return [12]
        case UInt8(ascii: "n"): return [10]
        case UInt8(ascii: "r"): return [13]
        case UInt8(ascii: "t"): return [9]
        case UInt8(ascii: "u"): return try unicode()
        default: throw error("an unknown escape")
        }
    }

    /// One escape of four digits, or two that make one character.
    private mutating func unicode() throws -> [UInt8] {
        var code = try fourDigits()
        if (0xd800..<0xdc00).contains(code), at + 1 < text.count, text[at] == UInt8(ascii: "\\"), text[at + 1] == UInt8(ascii: "u") {
            at += 2
            let low = try fourDigits()
            guard (0xdc00..<0xe000).contains(low) else { throw error("half a character") }
            code = 0x10000 + (code - 0xd800) << 10 + low - 0xdc00
        }
        guard let scalar = Unicode.Scalar(code) else { throw error("half a character") }
        return Array(String(scalar).utf8)
    }

    private mutating func fourDigits() throws -> UInt32 {
        let digits = text[at..<min(at + 4, text.count)]
        guard digits.count == 4, digits.allSatisfy(isHexDigit), let code = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw error("no four hex digits") }
        at += 4
        return code
    }

    private mutating func number() throws -> Json {
        let begin = at
        if at < text.count, text[at] == UInt8(ascii: "-") { at += 1 }
        let first = at
        let whole = digits()
        if whole == 0 || (whole > 1 && text[first] == UInt8(ascii: "0")) {
            at = begin
            throw error("no value")
        }
        var isWhole = true
        let point = at
        if at < text.count, text[at] == UInt8(ascii: ".") {
            at += 1
            if digits() > 0 { isWhole = false } else { at = point }  // then the point is what lies behind
        }
        let exponent = at
        if at < text.count, text[at] | 32 == UInt8(ascii: "e") {
            at += 1
            if at < text.count, text[at] == UInt8(ascii: "+") || text[at] == UInt8(ascii: "-") { at += 1 }
            if digits() > 0 { isWhole = false } else { at = exponent }
        }
        let found = String(decoding: text[begin..<at], as: UTF8.self)
        if isWhole, let value = Int64(found) { return .whole(value) }
        guard let value = Double(found), value.isFinite else { throw error("a number that is too large") }
        return .number(value)
    }

    /// Goes behind them; how many there are.
    private mutating func digits() -> Int {
        let begin = at
        while at < text.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(text[at]) { at += 1 }
        return at - begin
    }

    private mutating func word(_ word: String, _ value: Json) throws -> Json {
        if !text[at...].starts(with: word.utf8) { throw error("no value") }
        at += word.utf8.count
        return value
    }

    private mutating func next(_ c: Unicode.Scalar) -> Bool {
        space()
        let found = at < text.count && text[at] == UInt8(ascii: c)
        if found { at += 1 }
        return found
    }

    private func peek() throws -> UInt8 {
        if at < text.count { return text[at] }
        throw error("the end of the file")
    }

    private mutating func space() {
        while at < text.count, [32, 9, 13, 10].contains(text[at]) { at += 1 }
    }

    private func error(_ what: String) -> MobileBilayerError {
        MobileBilayerError("\(place) is not JSON (\(what) at byte \(at)). Export or copy it again.")
    }
}

/// 0 to 9, a to f and A to F.
func isHexDigit(_ c: UInt8) -> Bool {
    switch c {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
    default: false
    }
}
