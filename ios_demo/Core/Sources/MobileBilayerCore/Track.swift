import Foundation

/// Landmarks of a clip, one frame for each of its pictures.
public struct Track: Sendable {
    /// N times 478 x 3, in pixels of the driving picture.
    public let landmarks: [[Float]]
    /// N, seconds from the clip's start, strictly growing.
    public let timesS: [Double]
    /// N, whether a face was seen; if not, the landmarks are those of another frame.
    public let found: [Bool]
    /// Pixels of the driving picture.
    public let width: Int
    public let height: Int

    init(landmarks: [[Float]], timesS: [Double], found: [Bool], width: Int, height: Int) {
        self.landmarks = landmarks
        self.timesS = timesS
        self.found = found
        self.width = width
        self.height = height
    }

    /// From the bytes of a .track file; `place` names it in errors.
    public static func load(_ data: Data, where place: String) throws -> Track {
        let remedy = "Copy it again, or track the clip again."
        let file = try Safetensors.load(data, where: place)
        guard file.metadata["format"] == "mobile_bilayer track" else {
            throw MobileBilayerError("\(place) is a safetensors file, but not a track. Choose a .track file.")
        }
        guard file.metadata["version"] == "1" else {
            let version = file.metadata["version"]?.prefix(20) ?? "nothing"
            throw MobileBilayerError("\(place) is a track of version \(version); we read 1. Update mobile_bilayer.")
        }
        let count = file.tensors["times_s"]?.shape.first ?? 0
        func damaged(_ why: String) -> MobileBilayerError { MobileBilayerError("\(place) is damaged: \(why). \(remedy)") }
        func numbers(_ name: String, _ dtype: DType, _ shape: [Int]) throws -> Numbers {
            try file.tensor(name, dtype, shape, where: place, remedy: remedy).data
        }
        guard case .shorts(let steps) = try numbers("landmarks", .i16, [count, landmarkCount, 3]),
            case .ints(let offsets) = try numbers("offsets", .i32, [count, 3]),
            case .doubles(let times) = try numbers("times_s", .f64, [count]),
            case .bytes(let found) = try numbers("found", .bool, [count])
        else { preconditionFailure("each type has its numbers") }
        /// So many whole numbers above 0, with strokes between them.
        func whole(_ name: String, _ wanted: Int) throws -> [Int] {
            let text = file.metadata[name] ?? ""
            let parts = text.split(separator: "/", omittingEmptySubsequences: false)
            let good = parts.allSatisfy { part in
                (1...9).contains(part.utf8.count) && part.utf8.allSatisfy { (48...57).contains($0) } && part.utf8.first != 48
            }
            guard parts.count == wanted, good else { throw damaged("its \(name) is '\(text.prefix(40))'") }
            return parts.compactMap { Int($0) }
        }
        let ratio = try whole("step_px", 2)
        let step = Double(ratio[0]) / Double(ratio[1])
        let width = try whole("width", 1)[0]
        let height = try whole("height", 1)[0]
        if count < 1 { throw damaged("it has no frames") }
        if !times.allSatisfy(\.isFinite) || zip(times, times.dropFirst()).contains(where: { $1 <= $0 }) {
            throw damaged("its times do not grow")
        }
        var landmarks: [[Float]] = []
        for frame in 0..<count {
            var points = [Float](repeating: 0, count: 3 * landmarkCount)
            for k in points.indices {
                let steps = Int64(steps[3 * landmarkCount * frame + k]) + Int64(offsets[3 * frame + k % 3])
                points[k] = Float(Double(steps) * step)
                if !(abs(points[k]) <= limitPx) { throw damaged("its landmarks are no pixels") }
            }
            landmarks.append(points)
        }
        return Track(landmarks: landmarks, timesS: times, found: found.map { $0 != 0 }, width: width, height: height)
    }
}
