/// The newest manifest that this reader knows; 1 had `rigid_points` in place of the whole template, and no stabiliser.
let formatVersion = 2

/// The backend whose program is a folder.
let coreMl = "coreml"

/// Of each method, names of its inputs and of its outputs.
let methods: [String: (takes: [String], gives: [String])] = [
    "encode_avatar": (["image", "source_landmarks"], ["landmark_features", "map_features", "alpha"]),
    "render_layers": (["landmark_features", "map_features", "source_landmarks", "landmarks"], ["layers_a", "layers_b"]),
]

/// An input or output: always float32. `low` and `high` say its range; nil where there is none.
public struct TensorSpec: Equatable, Sendable {
    public let name: String
    public let shape: [Int]
    public let low: Double?
    public let high: Double?

    /// How many numbers there are.
    var count: Int { shape.reduce(1, *) }
}

/// A method of the program.
public struct MethodSpec: Equatable, Sendable {
    public let inputs: [TensorSpec]
    public let outputs: [TensorSpec]
    /// Operator outside the backend: why.
    public let undelegated: [String: String]
    /// Of each output against the float student.
    public let largestError: [String: Double]
}

/// manifest.json: what a bundle says of itself.
public struct Manifest: Equatable, Sendable {
    public let formatVersion: Int
    public let name: String
    /// First 16 digits of the sha256 of the float weights: avatars fit every bundle of one student.
    public let student: String
    public let size: String
    public let precision: String
    public let backend: String
    public let minimumRuntime: String
    /// File name of the ExecuTorch program; of a Core ML one, the folder that holds a package for each method.
    public let program: String
    /// Of every other file.
    public let sha256: [String: String]
    public let methods: [String: MethodSpec]
    /// Landmark indices, in the order the program takes them.
    public let mesh: [Int]
    /// x, y, z in the face template's units, behind the mesh.
    public let headPoints: [[Double]]
    /// x, y in crop coordinates, last.
    public let torsoPoints: [[Double]]
    /// x, y, z of the face template's 478 landmarks.
    public let templatePoints: [[Double]]
    /// Those that the head's pose is fitted to.
    public let rigid: [Int]
    /// How the driver's motion is smoothed, unless a user wants it otherwise.
    public let stabilizer: StabilizerConfig
    /// The crop's half side is the larger side of the landmarks' box, moved up by this share of it.
    public let cropUp: Double
    /// Side of source, texture and result.
    public let imagePx: Int

    private static let keys: Set<String> = [
        "format_version", "name", "student", "size", "precision", "backend", "minimum_runtime", "program", "sha256", "methods",
        "mesh", "head_points", "torso_points", "template_points", "rigid", "stabilizer", "crop_up", "image_px",
    ]

    /// Strict: every key there, none unknown, every value of its kind. `place` names the bundle in errors.
    ///
    /// A manifest of version 1 becomes one of this version. Throws `MobileBilayerError`.
    public static func fromJson(_ json: String, where place: String) throws -> Manifest {
        let read = ManifestReader(place: "\(place): manifest.json")
        var values = try read.object(try Json.parse(json, where: read.place), "the manifest")
        let newest = MobileBilayerCore.formatVersion
        let version = try read.whole(values["format_version"], "format_version")
        if !(1...newest).contains(version) {
            let remedy = version > newest ? "Update the app." : "Export the bundle again."
            throw MobileBilayerError("\(read.place) has format version \(version); this reader knows 1 to \(newest). \(remedy)")
        }
        if version == 1 { values = try read.secondVersion(values) }
        try read.keys(values, keys, "the manifest")
        func text(_ key: String) throws -> String { try read.text(values[key], key) }
        let specs = try read.object(values["methods"], "methods")
        let wanted = MobileBilayerCore.methods.keys.sorted()
        if specs.keys.sorted() != wanted { throw read.error("methods are \(specs.keys.sorted()); they must be \(wanted)") }
        var methods: [String: MethodSpec] = [:]
        for name in wanted { methods[name] = try read.method(specs[name], name) }
        var sha256: [String: String] = [:]
        let hashes = try read.object(values["sha256"], "sha256")
        for name in hashes.keys {
            sha256[try read.file(name, try text("backend"), try text("program"))] = try read.hash(hashes[name], name)
        }
        let manifest = Manifest(
            formatVersion: newest,
            name: try text("name"),
            student: try text("student"),
            size: try text("size"),
            precision: try text("precision"),
            backend: try text("backend"),
            minimumRuntime: try text("minimum_runtime"),
            program: try text("program"),
            sha256: sha256,
            methods: methods,
            mesh: try read.landmarks(values["mesh"], "mesh"),
            headPoints: try read.points(values["head_points"], 3, "head_points"),
            torsoPoints: try read.points(values["torso_points"], 2, "torso_points"),
            templatePoints: try read.points(values["template_points"], 3, "template_points"),
            rigid: try read.landmarks(values["rigid"], "rigid"),
            stabilizer: try read.stabilizer(values["stabilizer"]),
            cropUp: try read.number(values["crop_up"], "crop_up"),
            imagePx: try read.whole(values["image_px"], "image_px"))
        if manifest.imagePx != 256 { throw read.error("image_px is \(manifest.imagePx); this reader runs 256") }
        let packages = wanted.map { "\(manifest.program)/\($0).mlpackage/Manifest.json" }
        let programs: [String] = manifest.backend == coreMl ? packages : [manifest.program]
        for file in programs where sha256[file] == nil {
            throw read.error("sha256 does not list the program \(file)")
        }
        return manifest
    }
}

/// Those of this version's face template, as a manifest has them.
func templatePoints() -> [[Double]] {
    let points = faceTemplate().points
    return (0..<landmarkCount).map { i in
        (0..<3).map { (Double(points[3 * i + $0]) * 1e6).rounded(.toNearestOrEven) / 1e6 }
    }
}

/// Checks of one file's values.
private struct ManifestReader {
    let place: String

    func error(_ what: String) -> MobileBilayerError { MobileBilayerError("\(place): \(what). Export or copy the bundle again.") }

    private func wrong(_ value: Json?, _ name: String, _ kind: String) -> MobileBilayerError {
        let got = value.flatMap { try? $0.write() } ?? "nothing"
        return error("\(name) is '\(got.prefix(40).filter { !$0.isNewline })'; it must be \(kind)")
    }

    func text(_ value: Json?, _ name: String) throws -> String {
        guard let text = value?.text else { throw wrong(value, name, "text") }
        return text
    }

    func whole(_ value: Json?, _ name: String) throws -> Int {
        guard let whole = value?.whole else { throw wrong(value, name, "a whole number") }
        guard let small = Int32(exactly: whole) else { throw error("\(name) is \(whole); it is too large") }
        return Int(small)
    }

    func list(_ value: Json?, _ name: String) throws -> [Json] {
        guard let list = value?.list else { throw wrong(value, name, "a list") }
        return list
    }

    func object(_ value: Json?, _ name: String) throws -> JsonObject {
        guard let object = value?.object else { throw wrong(value, name, "an object") }
        return object
    }

    func number(_ value: Json?, _ name: String) throws -> Double {
        guard let number = value?.number else { throw wrong(value, name, "a number") }
        if !(abs(number) < 1e6) { throw error("\(name) is \(number); it must be a number below a million") }
        return number
    }

    func keys(_ values: JsonObject, _ wanted: Set<String>, _ name: String) throws {
        let got = Set(values.keys)
        let wrong: [(String, Set<String>)] = [("lacks", wanted.subtracting(got)), ("has unknown", got.subtracting(wanted))]
        for (kind, names) in wrong where !names.isEmpty {
            let few = names.sorted().prefix(5).map { String($0.prefix(40)) }
            throw error("\(name) \(kind) \(few.joined(separator: ", "))")
        }
    }

    func points(_ value: Json?, _ size: Int, _ name: String) throws -> [[Double]] {
        let rows = try list(value, name).map { try list($0, name) }
        if rows.isEmpty || rows.contains(where: { $0.count != size }) { throw error("\(name) must be points of \(size) numbers") }
        return try rows.map { row in try row.map { try number($0, name) } }
    }

    func landmarks(_ value: Json?, _ name: String) throws -> [Int] {
        let indices = try list(value, name).map { try whole($0, name) }
        if indices.isEmpty || Set(indices).count != indices.count || !indices.allSatisfy({ (0..<landmarkCount).contains($0) }) {
            throw error("\(name) must be different landmark indices in 0..477")
        }
        return indices
    }

    func stabilizer(_ value: Json?) throws -> StabilizerConfig {
        let values = try object(value, "stabilizer")
        try keys(values, ["pose", "skin", "brows", "mouth", "lids", "gaze", "gap_s"], "stabilizer")
        func part(_ name: String) throws -> Smoothing { try smoothing(values[name], "stabilizer.\(name)") }
        let pose = try part("pose")
        let skin = try part("skin")
        let brows = try part("brows")
        let mouth = try part("mouth")
        let lids = try part("lids")
        let gaze = try part("gaze")
        let gapS = try number(values["gap_s"], "stabilizer.gap_s")
        return try built("stabilizer") {
            try StabilizerConfig(pose: pose, skin: skin, brows: brows, mouth: mouth, lids: lids, gaze: gaze, gapS: gapS)
        }
    }

    private func smoothing(_ value: Json?, _ name: String) throws -> Smoothing {
        let values = try object(value, name)
        try keys(values, ["rest_hz", "speed_hz", "newest", "kernel"], name)
        func part(_ key: String) throws -> Double { try number(values[key], "\(name).\(key)") }
        let (restHz, speedHz, newest) = (try part("rest_hz"), try part("speed_hz"), try part("newest"))
        let kernel = try list(values["kernel"], "\(name).kernel").map { try number($0, "\(name).kernel") }
        return try built(name) { try Smoothing(restHz: restHz, speedHz: speedHz, newest: newest, kernel: kernel) }
    }

    private func built<T>(_ name: String, _ make: () throws -> T) throws -> T {
        do {
            return try make()
        } catch let refused as MobileBilayerError {
            throw MobileBilayerError("\(place): \(name): \(refused.message) Export or copy the bundle again.", cause: refused)
        }
    }

    /// A plain file name; of a Core ML program, one that lies in the program's folder.
    func file(_ name: String, _ backend: String, _ program: String) throws -> String {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        let inFolder = backend == coreMl && parts.count > 1 && parts.count <= 8 && parts[0] == program
        guard parts.count == 1 || inFolder, parts.allSatisfy({ isPlain($0.utf8) }) else {
            throw error("'\(name.prefix(60))' is no plain file name")
        }
        return name
    }

    /// Letters, digits, and from the second on dots and dashes.
    private func isPlain(_ name: Substring.UTF8View) -> Bool {
        (1...100).contains(name.count)
            && name.enumerated().allSatisfy { i, c in
                switch c {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
                case UInt8(ascii: "."), UInt8(ascii: "-"): i > 0
                default: false
                }
            }
    }

    func hash(_ value: Json?, _ name: String) throws -> String {
        let digits = try text(value, "sha256 of \(name)")
        guard digits.utf8.count == 64, digits.utf8.allSatisfy({ isHexDigit($0) && !(65...70).contains($0) }) else {
            throw error("sha256 of \(name) must be 64 hex digits")
        }
        return digits
    }

    func method(_ value: Json?, _ name: String) throws -> MethodSpec {
        let values = try object(value, name)
        try keys(values, ["inputs", "outputs", "undelegated", "largest_error"], name)
        func tensors(_ kind: String) throws -> [TensorSpec] {
            try list(values[kind], "\(name).\(kind)").map { try tensor($0, name) }
        }
        let (inputs, outputs) = (try tensors("inputs"), try tensors("outputs"))
        let wanted = methods[name] ?? ([], [])
        let sides: [(String, [TensorSpec], [String])] = [("takes", inputs, wanted.takes), ("gives", outputs, wanted.gives)]
        for (kind, got, names) in sides where got.map(\.name) != names {
            let found = got.prefix(5).map { String($0.name.prefix(40)) }.joined(separator: ", ")
            throw error("\(name) \(kind) \(found.isEmpty ? "nothing" : found); it must be \(names.joined(separator: ", "))")
        }
        var undelegated: [String: String] = [:]
        let why = try object(values["undelegated"], "\(name).undelegated")
        for key in why.keys { undelegated[key] = try text(why[key], "\(name).undelegated") }
        var largestError: [String: Double] = [:]
        let errors = try object(values["largest_error"], "\(name).largest_error")
        for key in errors.keys { largestError[key] = try number(errors[key], "\(name).largest_error") }
        return MethodSpec(inputs: inputs, outputs: outputs, undelegated: undelegated, largestError: largestError)
    }

    private func tensor(_ value: Json, _ method: String) throws -> TensorSpec {
        let values = try object(value, "\(method)'s tensors")
        try keys(values, ["name", "shape", "low", "high"], "a tensor of \(method)")
        let name = try text(values["name"], "a tensor's name in \(method)")
        let shape = try list(values["shape"], "\(name).shape").map { try whole($0, "\(name).shape") }
        if !(1...4).contains(shape.count) || !shape.allSatisfy({ (1...4096).contains($0) }) {
            throw error("\(name) of \(method) has shape \(shape.prefix(6))")
        }
        func limit(_ key: String) throws -> Double? { values[key] == .null ? nil : try number(values[key], "\(name).\(key)") }
        return TensorSpec(name: name, shape: shape, low: try limit("low"), high: try limit("high"))
    }

    /// A first manifest's values: it had the template's rigid points alone, which must be those that we know.
    func secondVersion(_ old: JsonObject) throws -> JsonObject {
        for key in ["rigid", "rigid_points"] where old[key] == nil { throw error("the manifest lacks \(key)") }
        let rigid = try landmarks(old["rigid"], "rigid")
        let points = try points(old["rigid_points"], 3, "rigid_points")
        if rigid.count != points.count { throw error("rigid has \(rigid.count) landmarks and rigid_points \(points.count)") }
        let known = templatePoints()
        for (i, point) in zip(rigid, points) where zip(known[i], point).contains(where: { abs($0 - $1) > 1e-5 }) {
            throw error("rigid_points are not those of the face template that this version has")
        }
        let ours = StabilizerConfig.live
        var stabilizer: JsonObject = ["gap_s": .number(ours.gapS)]
        let parts: [(String, Smoothing)] = [
            ("pose", ours.pose), ("skin", ours.skin), ("brows", ours.brows), ("mouth", ours.mouth), ("lids", ours.lids),
            ("gaze", ours.gaze),
        ]
        for (name, part) in parts {
            stabilizer[name] = .object([
                "rest_hz": .number(part.restHz), "speed_hz": .number(part.speedHz), "newest": .number(part.newest),
                "kernel": .list(part.kernel.map(Json.number)),
            ])
        }
        let twice = ["stabilizer", "template_points"].filter { old[$0] != nil }
        if !twice.isEmpty { throw error("the manifest has unknown \(twice.joined(separator: ", "))") }
        var values = old
        values["rigid_points"] = nil
        values["template_points"] = .list(known.map { .list($0.map(Json.number)) })
        values["stabilizer"] = .object(stabilizer)
        return values
    }
}
