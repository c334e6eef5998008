import Foundation

/// One person, ready to be driven. Made by `ModelBundle.avatar`, or loaded.
public struct Avatar: Sendable {
    public let bundle: ModelBundle
    /// 256 x 256, the photo's head crop.
    public let texture: RgbImage
    /// The same without the person.
    public let background: RgbImage
    /// 128 x 128, the person in the crop.
    public let alpha: [UInt8]
    /// What the frame network reads.
    public let landmarkFeatures: [Float]
    public let mapFeatures: [Float]
    /// 478 x 3 in [-1, 1] of the crop.
    public let sourceLandmarks: [Float]

    private static let format = "mobile_bilayer avatar"
    private static let version = "1"

    /// As the bytes of NAME.avatar. It carries an AI-generated tag, as it is there to make such pictures.
    public func save() throws -> Data {
        let data: [String: Numbers] = [
            "texture": .bytes(texture.pixels),
            "background": .bytes(background.pixels),
            "alpha": .bytes(alpha),
            "landmark_features": .floats(landmarkFeatures),
            "map_features": .floats(mapFeatures),
            "source_landmarks": .floats(sourceLandmarks),
        ]
        let header = [
            "format": Avatar.format,
            "version": Avatar.version,
            "student": bundle.manifest.student,
            "content": "AI-generated avatar of a photo",
        ]
        // Wide numbers first, so that they lie where readers in place want them.
        let specs = Avatar.tensorSpecs(bundle)
        let order = specs.filter { $0.dtype == .f32 } + specs.filter { $0.dtype == .u8 }
        let tensors = try order.map { spec in
            guard let numbers = data[spec.name] else { preconditionFailure("\(spec.name) is part of an avatar") }
            return (spec.name, try Tensor(spec.dtype, spec.shape, numbers))
        }
        return try Safetensors(tensors, metadata: header).save()
    }

    /// The way back of `save`; `place` names the file in errors. `bundle` must hold the same student as the one that made it.
    ///
    /// Throws `MobileBilayerError` that says what is wrong.
    public static func load(_ data: Data, where place: String, bundle: ModelBundle) throws -> Avatar {
        let file = try Safetensors.load(data, where: place)
        let header = file.metadata
        if header["format"] != format { throw MobileBilayerError("\(place) is not an avatar. Make one of a photo.") }
        if header["version"] != version {
            let got = header["version"]?.prefix(20) ?? "nothing"
            throw MobileBilayerError("\(place) has format version \(got); this one reads \(version). Update the app.")
        }
        if header["student"] != bundle.manifest.student {
            throw MobileBilayerError(
                "\(place) was made with the student \(header["student"]?.prefix(16) ?? "nothing"); \(bundle.place) holds "
                    + "\(bundle.manifest.student). Make the avatar of its photo again.")
        }
        let remedy = "Make the avatar of its photo again."
        var tensors: [String: Tensor] = [:]
        for spec in tensorSpecs(bundle) {
            let tensor = try file.tensor(spec.name, spec.dtype, spec.shape, where: place, remedy: remedy)
            if case .floats(let all) = tensor.data, !all.allSatisfy(\.isFinite) {
                throw MobileBilayerError("\(place): \(spec.name) holds what is not a number. \(remedy)")
            }
            tensors[spec.name] = tensor
        }
        func tensor(_ name: String) -> Tensor {
            guard let tensor = tensors[name] else { preconditionFailure("\(name) was read") }
            return tensor
        }
        func picture(_ name: String) throws -> RgbImage {
            try RgbImage(width: tensor(name).shape[1], height: tensor(name).shape[0], pixels: tensor(name).bytes)
        }
        let landmarks = tensor("source_landmarks").floats
        do {
            try checkLandmarks(landmarks)
        } catch let error as MobileBilayerError {
            throw MobileBilayerError("\(place): source_landmarks: \(error.message) \(remedy)", cause: error)
        }
        return Avatar(
            bundle: bundle, texture: try picture("texture"), background: try picture("background"), alpha: tensor("alpha").bytes,
            landmarkFeatures: tensor("landmark_features").floats, mapFeatures: tensor("map_features").floats, sourceLandmarks: landmarks)
    }

    private static func tensorSpecs(_ bundle: ModelBundle) -> [(name: String, dtype: DType, shape: [Int])] {
        let inputs = bundle.method("render_layers").inputs
        let side = bundle.manifest.imagePx
        return [
            ("texture", .u8, [side, side, 3]),
            ("background", .u8, [side, side, 3]),
            ("alpha", .u8, [128, 128]),
            ("landmark_features", .f32, inputs[0].shape),
            ("map_features", .f32, inputs[1].shape),
            ("source_landmarks", .f32, [landmarkCount, 3]),
        ]
    }
}

/// One frame's layers, in buffers: `a` 1 x 4 x h x w (flow x, flow y, gate, mask), `b` 1 x 3 x h' x w' (lf).
///
/// Read them where they lie (`a.floats.withUnsafeBytes`): who keeps the array makes the next frame copy it.
public final class Layers {
    public let a: Tensor
    public let b: Tensor
    /// When the camera took the frame they follow.
    public internal(set) var capturedNs: Int64 = 0
    /// Whether no face was found in it.
    public internal(set) var lost = false
    let both: [Tensor]

    public init(_ manifest: Manifest) {
        let outputs = manifest.methods["render_layers"]?.outputs ?? []
        a = Tensor.zeros(outputs[0].shape)
        b = Tensor.zeros(outputs[1].shape)
        both = [a, b]
    }
}

/// An avatar that is driven: motion in, layers out. No frame allocates. For one thread.
public final class Renderer {
    public let avatar: Avatar
    private let network: FrameNetwork
    private let retargeter: Retargeter
    private var moved = [Float](repeating: 0, count: 2 * landmarkCount)
    private let points: Tensor
    private let pose = HeadPose()
    private let inputs: [Tensor]

    /// `neutral` what of the driver means "as in the photo"; `setNeutral` changes it.
    public init(_ avatar: Avatar, _ network: FrameNetwork, _ neutral: Motion, mode: Mode = .relative) throws {
        self.avatar = avatar
        self.network = network
        retargeter = Retargeter(source: takeApart(avatar.sourceLandmarks), neutral: neutral, mode: mode)
        let specs = avatar.bundle.method("render_layers").inputs
        points = Tensor.zeros(specs[3].shape)
        inputs = [
            try Tensor.of(avatar.landmarkFeatures, specs[0].shape), try Tensor.of(avatar.mapFeatures, specs[1].shape),
            try Tensor.of(networkPoints(avatar.sourceLandmarks), specs[2].shape), points,
        ]
    }

    /// From now on with another neutral frame.
    public func setNeutral(_ neutral: Motion) { retargeter.setNeutral(neutral) }

    /// The driver's motion on the source: 478 x 2 in [-1, 1] of the source's crop.
    public func move(_ driving: Motion) -> [Float] { retargeter.retarget(driving) }

    /// The layers of landmarks (478 points of 2 or 3 numbers) in [-1, 1] of the source's crop.
    public func layers(_ moved: [Float], into out: Layers) throws {
        networkPoints(moved, out: &points.floats, pose: pose)
        try network.run("render_layers", inputs: inputs, outputs: out.both)
    }

    /// Both in one, without numbers that are made anew.
    func layers(moving driving: Motion, into out: Layers) throws {
        retargeter.retarget(driving, out: &moved)
        try layers(moved, into: out)
    }
}
