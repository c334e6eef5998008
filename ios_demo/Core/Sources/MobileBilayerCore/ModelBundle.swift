import Foundation

/// A file of a bundle is not larger than this, in bytes.
let largestFile = 64 << 20

/// A checked bundle in memory: the folder a phone loads. Make it with `open`. (Foundation has a Bundle already.)
public struct ModelBundle: Sendable {
    public let manifest: Manifest
    public let contents: [String: Data]
    /// Names it in errors.
    public let place: String
    /// Of manifest.json, which has the hashes of all other files.
    public let sha256: String
    /// Of all files together.
    public let bytes: Int

    /// MODEL_CARD.md.
    public var card: String { contents["MODEL_CARD.md"].map { String(decoding: $0, as: UTF8.self) } ?? "" }

    /// A door to `program`, which runs this bundle's program.
    public func network(_ program: any Program) -> FrameNetwork { FrameNetwork(program, manifest.methods, where: place) }

    func method(_ name: String) -> MethodSpec {
        guard let spec = manifest.methods[name] else { preconditionFailure("every manifest has \(name)") }
        return spec
    }

    /// An avatar of a face in a photo.
    ///
    /// `rgb` the photo, upright; `landmarks` 478 x 3 in its pixels. Takes as long as the network's `encode_avatar` and some tenths of
    /// a second: not for the main thread.
    public func avatar(_ rgb: RgbImage, landmarks: [Float], network: FrameNetwork) throws -> Avatar {
        try checkLandmarks(landmarks)
        if dimensions(landmarks) != 3 {
            throw MobileBilayerError("A photo's landmarks have 2 numbers each; 3 are needed, in pixels. Take MediaPipe's own.")
        }
        let crop = headCrop(landmarks)
        let texture = crop.cut(rgb, sidePx: manifest.imagePx)
        let keypoints = crop.toKeypoints(landmarks)
        let spec = method("encode_avatar")
        let pixels = manifest.imagePx * manifest.imagePx
        var image = [Float](repeating: 0, count: 3 * pixels)
        for i in 0..<pixels {
            for c in 0..<3 { image[c * pixels + i] = Float(texture.pixels[3 * i + c]) / 255 }
        }
        let outputs = spec.outputs.map { Tensor.zeros($0.shape) }
        let points = try Tensor.of(networkPoints(keypoints), spec.inputs[1].shape)
        try network.run("encode_avatar", inputs: [try Tensor.of(image, spec.inputs[0].shape), points], outputs: outputs)
        let alpha = outputs[2].floats.map { $0 > 0 ? min($0, 1) : 0 }
        let background = fillBehind(texture, alpha: grown(alpha, outputs[2].shape[2], manifest.imagePx))
        return Avatar(
            bundle: self, texture: texture, background: background,
            alpha: alpha.map { UInt8(($0 * 255).rounded(.toNearestOrEven)) }, landmarkFeatures: outputs[0].floats,
            mapFeatures: outputs[1].floats, sourceLandmarks: keypoints)
    }

    /// Golden vectors: real inputs, what the float student gives for them, and the tolerance of each output.
    public func golden() throws -> Golden {
        let name = "\(place): golden.safetensors"
        let file = try Safetensors.load(contents["golden.safetensors"] ?? Data(), where: name)
        let tolerances = try Json.parse(file.metadata["tolerances"] ?? "null", where: "\(name): tolerances")
        var numbers: [String: Double] = [:]
        for output in ModelBundle.checked {
            guard let number = tolerances[output]?.number else {
                let all = ModelBundle.checked.joined(separator: ", ")
                throw MobileBilayerError("\(name) lacks tolerances of \(all). Export the bundle again.")
            }
            numbers[output] = number
        }
        return Golden(file, tolerances: numbers, bundle: self)
    }

    /// Run the golden inputs through the program and the compositor; largest error of each output, as `checked` names them.
    ///
    /// Throws `MobileBilayerError` when one is over its tolerance: this runtime computes something else than the student.
    @discardableResult
    public func verify(_ network: FrameNetwork) throws -> [String: Float] {
        let golden = try golden()
        let (encode, render) = (method("encode_avatar"), method("render_layers"))
        let features = encode.outputs.map { Tensor.zeros($0.shape) }
        let layers = render.outputs.map { Tensor.zeros($0.shape) }
        let source = try golden.tensor("source_points", encode.inputs[1])
        try network.run("encode_avatar", inputs: [try golden.tensor("image", encode.inputs[0]), source], outputs: features)
        let inputs = [
            try golden.tensor("landmark_features", render.inputs[0]), try golden.tensor("map_features", render.inputs[1]), source,
            try golden.tensor("driving_points", render.inputs[3]),
        ]
        try network.run("render_layers", inputs: inputs, outputs: layers)
        var errors: [String: Float] = [:]
        for (spec, got) in zip(encode.outputs, features) {
            errors[spec.name] = largest(got.floats[...], try golden.numbers(spec.name)[...])
        }
        let (gotA, gotB) = (layers[0].floats, layers[1].floats)
        let (a, b) = (try golden.numbers("layers_a"), try golden.numbers("layers_b"))
        let plane = a.count / 4
        let parts: [(String, Range<Int>)] = [
            ("flow", 0..<(2 * plane)), ("gate", (2 * plane)..<(3 * plane)), ("mask", (3 * plane)..<(4 * plane)),
        ]
        for (part, range) in parts {
            errors[part] = largest(gotA[range], a[range])
        }
        errors["layers_b"] = largest(gotB[...], b[...])
        let composed = try golden.numbers("composed")
        errors["composed"] = largest(try golden.composed(gotA, gotB)[...], composed[...])
        errors["composed_from_golden"] = largest(try golden.composed(a, b)[...], composed[...])
        for name in ModelBundle.checked {
            guard let error = errors[name], let most = golden.tolerances[name] else { preconditionFailure("\(name) is checked") }
            if !(Double(error) <= most) {
                throw MobileBilayerError(
                    "\(place): \(name) is \(error) from the golden vectors; at most \(most) is right. This runtime computes something "
                        + "else than the exported student: use the runtime that the bundle was exported for.")
            }
        }
        return errors
    }

    /// Write the program, a file or a folder, into `folder` under its own name: for runtimes that want it where it can be mapped or
    /// compiled. What was in `folder` is replaced; it is there when all of it is.
    public func writeProgram(to folder: URL) throws {
        let manager = FileManager.default
        let aside = folder.deletingLastPathComponent().appendingPathComponent(".\(folder.lastPathComponent).part")
        do {
            if manager.fileExists(atPath: aside.path) { try manager.removeItem(at: aside) }
            for (name, content) in contents where name == manifest.program || name.hasPrefix("\(manifest.program)/") {
                let file = aside.appendingPathComponent(name)
                try manager.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
                try content.write(to: file)
            }
            if manager.fileExists(atPath: folder.path) { try manager.removeItem(at: folder) }
            try manager.moveItem(at: aside, to: folder)
        } catch {
            try? manager.removeItem(at: aside)
            throw MobileBilayerError(
                "\(place): the program could not be written to \(folder.path) (\(error.localizedDescription)). Free some space, and "
                    + "try again.", cause: error)
        }
    }

    /// What `verify` looks at. layers_a by its parts: a tolerance that suits a mask would pass any flow.
    public static let checked = [
        "landmark_features", "map_features", "alpha", "flow", "gate", "mask", "layers_b", "composed", "composed_from_golden",
    ]

    /// The bundle at `url`, a folder or a zip. Throws `MobileBilayerError` that says what is wrong.
    public static func open(_ url: URL) throws -> ModelBundle {
        var isFolder: ObjCBool = false
        if !FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) {
            throw MobileBilayerError("\(url.path) does not exist; a bundle (a folder or a zip) is needed. Check the path.")
        }
        if isFolder.boolValue { return try open(url.path) { try whole(url.appendingPathComponent($0), url.path) } }
        let zip = try Zip(data: whole(url, url.path) ?? Data(), where: url.path)
        // File managers zip the folder itself: its name stands before each file's.
        let inside = zip.names.filter { $0.hasSuffix("/manifest.json") && $0.split(separator: "/").count == 2 }
        let prefix = !zip.names.contains("manifest.json") && inside.count == 1 ? String(inside[0].dropLast("manifest.json".count)) : ""
        return try open(url.path) { try zip.read(prefix + $0, atMost: largestFile) }
    }

    /// A bundle wherever it lies, as among an app's resources: `read` gives a file's content, or nil where there is none.
    ///
    /// Every file's sha256 is checked.
    public static func open(_ place: String, read: (String) throws -> Data?) throws -> ModelBundle {
        func needed(_ name: String) throws -> Data {
            if let data = try read(name) { return data }
            throw MobileBilayerError(
                "\(place): \(name) is missing. A bundle holds manifest.json, a program, golden.safetensors and MODEL_CARD.md; "
                    + "export or copy it again.")
        }
        let text = try needed("manifest.json")
        let manifest = try Manifest.fromJson(String(decoding: text, as: UTF8.self), where: place)
        try checkPoints(manifest, place)
        for name in ["golden.safetensors", "MODEL_CARD.md"] where manifest.sha256[name] == nil {
            throw MobileBilayerError("\(place): manifest.json does not list \(name). Export the bundle again.")
        }
        var contents: [String: Data] = [:]
        for (name, wanted) in manifest.sha256.sorted(by: { $0.key < $1.key }) {
            let data = try needed(name)
            let got = MobileBilayerCore.sha256(data)
            if got != wanted {
                throw MobileBilayerError(
                    "\(place): \(name) has sha256 \(got.prefix(12))…, the manifest says \(wanted.prefix(12))…: it was changed or damaged. "
                        + "Export or copy the bundle again.")
            }
            contents[name] = data
        }
        let bytes = contents.values.reduce(text.count) { $0 + $1.count }
        return ModelBundle(manifest: manifest, contents: contents, place: place, sha256: MobileBilayerCore.sha256(text), bytes: bytes)
    }

    /// nil where there is no such file.
    private static func whole(_ url: URL, _ place: String) throws -> Data? {
        var isFolder: ObjCBool = false
        if !FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) || isFolder.boolValue { return nil }
        let data: Data
        do {
            data = try Data(contentsOf: url, options: .mappedIfSafe)
        } catch {
            throw MobileBilayerError(
                "\(place): \(url.lastPathComponent) can't be read (\(error.localizedDescription)). Copy the bundle again.", cause: error)
        }
        if data.count > largestFile { throw tooLarge(place, url.lastPathComponent) }
        return data
    }

    /// A program made for other points than those computed here would be fed the wrong ones.
    private static func checkPoints(_ manifest: Manifest, _ place: String) throws {
        let template = faceTemplate()
        let here: [(String, [Double], [Double])] = [
            ("mesh", manifest.mesh.map(Double.init), mesh.map(Double.init)),
            ("head_points", manifest.headPoints.flatMap { $0 }, headPoints.flatMap { $0.map(Double.init) }),
            ("torso_points", manifest.torsoPoints.flatMap { $0 }, torsoPoints.flatMap { $0.map(Double.init) }),
            ("template_points", manifest.templatePoints.flatMap { $0 }, template.doubles),
            ("rigid", manifest.rigid.map(Double.init), template.rigid.map(Double.init)),
            ("crop_up", [manifest.cropUp], [cropUp]),
        ]
        for (name, got, wanted) in here {
            if got.count != wanted.count || zip(got, wanted).contains(where: { abs($0 - $1) > 1e-5 }) {
                throw MobileBilayerError(
                    "\(place): manifest.json: \(name) is not what this version computes. Export the bundle again, or update the app.")
            }
        }
    }
}

func tooLarge(_ place: String, _ name: String) -> MobileBilayerError {
    MobileBilayerError("\(place): \(name) is larger than \(largestFile >> 20) MiB. This is no bundle of ours.")
}

/// The vectors of `ModelBundle.golden`, and their tolerances.
public struct Golden {
    public let tolerances: [String: Double]
    private let file: Safetensors
    private let place: String
    private let shapes: [String: [Int]]

    init(_ file: Safetensors, tolerances: [String: Double], bundle: ModelBundle) {
        self.file = file
        self.tolerances = tolerances
        place = bundle.place
        let encode = bundle.method("encode_avatar")
        let side = file.tensors["composite_texture"]?.shape.first ?? 0  // composites may be of any side
        var shapes: [String: [Int]] = ["image": Array(encode.inputs[0].shape.dropFirst())]
        for name in ["composite_texture", "composite_background", "composed"] { shapes[name] = [side, side, 3] }
        for name in ["source_points", "driving_points"] { shapes[name] = Array(encode.inputs[1].shape.dropFirst()) }
        for spec in encode.outputs + bundle.method("render_layers").outputs { shapes[spec.name] = spec.shape }
        self.shapes = shapes
    }

    /// The tensor `name` as floats; bytes of "image" become [0, 1], of other pictures [-1, 1].
    public func numbers(_ name: String) throws -> [Float] {
        let wanted = shapes[name] ?? []
        let found = file.tensors[name]
        if let found, found.shape == wanted {
            if case .floats(let all) = found.data { return all }
            if case .bytes(let all) = found.data { return name == "image" ? all.map { Float($0) / 255 } : toFloat(all) }
        }
        let got = found.map { "\(text($0.shape)) \($0.dtype.rawValue)" } ?? "missing"
        throw MobileBilayerError("\(place): golden.safetensors: \(name) is \(got); it must be \(text(wanted)). Export the bundle again.")
    }

    /// The same as an input of the program.
    public func tensor(_ name: String, _ spec: TensorSpec) throws -> Tensor { try Tensor.of(numbers(name), spec.shape) }

    /// The golden texture and background joined by such layers.
    public func composed(_ layersA: [Float], _ layersB: [Float]) throws -> [Float] {
        let (texture, background) = (try numbers("composite_texture"), try numbers("composite_background"))
        let compositor = Compositor(
            sidePx: shapes["composed"]?.first ?? 0, aPx: shapes["layers_a"]?.last ?? 0, bPx: shapes["layers_b"]?.last ?? 0)
        return compositor.composite(texture: texture, background: background, layersA: layersA, layersB: layersB)
    }
}

private func largest(_ got: ArraySlice<Float>, _ wanted: ArraySlice<Float>) -> Float {
    var most: Float = 0
    for (a, b) in zip(got, wanted) {
        let error = abs(a - b)
        if error.isNaN { return error }
        most = max(most, error)
    }
    return most
}

/// A square of `px` numbers a side, bilinearly grown.
func grown(_ plane: [Float], _ px: Int, _ toPx: Int) -> [Float] {
    let ratio = Double(px) / Double(toPx)
    let places: [Double] = (0..<toPx).map { i in
        let place: Double = (Double(i) + 0.5) * ratio - 0.5
        return min(max(place, 0), Double(px - 1))
    }
    func along(_ row: Int, _ x: Double) -> Double {
        let left = Int(x)
        let first = Double(plane[row * px + left])
        let second = Double(plane[row * px + min(left + 1, px - 1)])
        return first + (second - first) * (x - Double(left))
    }
    var out: [Float] = []
    out.reserveCapacity(toPx * toPx)
    for y in places {
        let top = Int(y)
        for x in places {
            let above = along(top, x)
            let under = along(min(top + 1, px - 1), x)
            out.append(Float(above + (under - above) * (y - Double(top))))
        }
    }
    return out
}
