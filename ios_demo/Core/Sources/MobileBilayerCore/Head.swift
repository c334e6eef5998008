import Foundation

/// In the template's units: 1 is the distance of the outer eye corners; x right, y down, z away from the camera.
let headPoints: [[Float]] = [
    [0, -1.45, 0.5], [-0.6, -1.3, 0.5], [0.6, -1.3, 0.5],  // hair
    [-0.95, -0.9, 0.7], [0.95, -0.9, 0.7],
    [-1.05, -0.2, 1], [1.05, -0.2, 1],  // sides, crown
    [-0.95, 0.4, 0.9], [0.95, 0.4, 0.9], [0, -1.2, 1.2],
    [-0.6, 1.05, 0.6], [0.6, 1.05, 0.6], [0, 1.2, 0.35],  // neck
]

/// In crop coordinates: shoulders stay where they are when the head moves.
let torsoPoints: [[Float]] = [[-0.8, 0.93], [0, 0.98], [0.8, 0.93]]

/// How many points the networks take: mesh, head and torso.
let pointCount = mesh.count + headPoints.count + torsoPoints.count

private let head: [Double] = headPoints.flatMap { $0.map(Double.init) }

/// The mean face of many people.
public final class FaceTemplate: Sendable {
    /// 478 x 3, symmetric; units as `headPoints`.
    let points: [Float]
    /// Indices of landmarks that expressions hardly move.
    let rigid: [Int]
    /// 478, how far down each landmark goes when the lips part by 1; 0 in the upper face.
    let jaw: [Float]
    /// The points as doubles, and the rows that find a pose: see `fitHead`.
    let doubles: [Double]
    let middle: [Double]
    let solver: [Double]

    init(points: [Float], rigid: [Int], jaw: [Float]) {
        self.points = points
        self.rigid = rigid
        self.jaw = jaw
        let doubles = points.map(Double.init)
        var middle = [0.0, 0.0, 0.0]
        for i in rigid {
            for c in 0..<3 { middle[c] += doubles[3 * i + c] / Double(rigid.count) }
        }
        var around: [Double] = []
        for i in rigid {
            for c in 0..<3 { around.append(doubles[3 * i + c] - middle[c]) }
        }
        self.doubles = doubles
        self.middle = middle
        solver = FaceTemplate.pseudoInverse(around)
    }

    /// (3, rigid): the pseudo-inverse of the rigid points around their middle, by the inverse of a 3 x 3 matrix.
    private static func pseudoInverse(_ around: [Double]) -> [Double] {
        let n = around.count / 3
        var m = [Double](repeating: 0, count: 9)
        for k in 0..<9 {
            for i in 0..<n { m[k] += around[3 * i + k / 3] * around[3 * i + k % 3] }
        }
        func cofactor(_ r: Int, _ c: Int) -> Double {
            let (r1, r2) = ((r + 1) % 3, (r + 2) % 3)
            let (c1, c2) = ((c + 1) % 3, (c + 2) % 3)
            return m[3 * r1 + c1] * m[3 * r2 + c2] - m[3 * r1 + c2] * m[3 * r2 + c1]
        }
        var determinant = 0.0
        for i in 0..<3 { determinant += m[i] * cofactor(0, i) }
        var out = [Double](repeating: 0, count: 3 * n)
        for k in 0..<(3 * n) {
            let (row, point) = (k / n, k % n)
            for i in 0..<3 { out[k] += cofactor(i, row) / determinant * around[3 * point + i] }
        }
        return out
    }

    /// From the bytes of face_template.safetensors.
    static func load(_ data: Data, where place: String) throws -> FaceTemplate {
        let file = try Safetensors.load(data, where: place)
        let remedy = "Copy it again from mobile_bilayer/assets."
        let count = file.tensors["rigid"]?.shape ?? [0]
        let points = try file.tensor("points", .f32, [landmarkCount, 3], where: place, remedy: remedy).floats
        let jaw = try file.tensor("jaw", .f32, [landmarkCount], where: place, remedy: remedy).floats
        guard case .ints(let rigid) = try file.tensor("rigid", .i32, count, where: place, remedy: remedy).data else {
            preconditionFailure("I32 holds ints")
        }
        return FaceTemplate(points: points, rigid: rigid.map(Int.init), jaw: jaw)
    }

    fileprivate static let shipped: FaceTemplate = {
        let name = "face_template.safetensors"
        guard let path = Foundation.Bundle.module.path(forResource: "face_template", ofType: "safetensors"),
            let data = FileManager.default.contents(atPath: path)
        else { fatalError("\(name) is not among the package's resources. Build Core with its Resources folder.") }
        do {
            return try load(data, where: name)
        } catch {
            fatalError("\(error)")
        }
    }()
}

/// The template shipped with this package: a resource, the same file that Python has.
func faceTemplate() -> FaceTemplate { FaceTemplate.shipped }

/// Weak perspective: picture = scale * (rotation @ template)[:2] + shift.
///
/// It is a buffer: functions that take `out` fill it anew.
public final class HeadPose {
    /// Pixels (or keypoint units) a template unit.
    var scale = 1.0
    /// (3, 3) row by row, template to camera.
    var rotation: [Double] = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    /// x, y.
    var shift: [Double] = [0, 0]

    public init() {}

    /// Become like `other`.
    func set(_ other: HeadPose) {
        scale = other.scale
        copy(other.rotation, to: &rotation)
        copy(other.shift, to: &shift)
    }

    /// Where a template point goes: x. In float32, as landmarks are.
    func x(_ points: [Double], _ at: Int) -> Float {
        let along = rotation[0] * points[at] + rotation[1] * points[at + 1] + rotation[2] * points[at + 2]
        return Float(scale * along + shift[0])
    }

    func y(_ points: [Double], _ at: Int) -> Float {
        let along = rotation[3] * points[at] + rotation[4] * points[at + 1] + rotation[5] * points[at + 2]
        return Float(scale * along + shift[1])
    }

    /// The first two rows, and from them the third, as in the first six of `nearestRows`.
    func setRows(_ rows: [Double]) {
        for i in 0..<6 { rotation[i] = rows[i] }
        completeRotation()
    }

    fileprivate func completeRotation() {
        let (a, b, c) = (rotation[0], rotation[1], rotation[2])
        let (d, e, f) = (rotation[3], rotation[4], rotation[5])
        rotation[6] = b * f - c * e
        rotation[7] = c * d - a * f
        rotation[8] = a * e - b * d
    }
}

/// Number by number: an assignment would make two owners of one array, and the next write a copy.
func copy<T>(_ from: [T], to out: inout [T]) {
    precondition(from.count <= out.count)
    for i in from.indices { out[i] = from[i] }
}

/// A head taken apart: where it is, and the face in its own frame, with its shape and expression.
///
/// It is a buffer, as `HeadPose` is.
public final class Motion {
    let pose = HeadPose()
    /// 478 x 3 in the template's units, seen from the front; what depth hides is the template's.
    var face = [Double](repeating: 0, count: 3 * landmarkCount)

    public init() {}

    /// Become like `other`.
    func set(_ other: Motion) {
        pose.set(other.pose)
        copy(other.face, to: &face)
    }
}

/// Least-squares head pose of landmarks (478 points of 2 or 3 numbers), in their unit; z is not used.
///
/// Lips, brows and chin have no say: what they do moves neither the place nor the size found.
@discardableResult
func fitHead(_ landmarks: [Float], out: HeadPose = HeadPose()) -> HeadPose {
    let numbers = dimensions(landmarks)
    let template = faceTemplate()
    let rigid = template.rigid
    let n = rigid.count
    let solver = template.solver
    var (a, b, c, x) = (0.0, 0.0, 0.0, 0.0)
    var (u, v, w, y) = (0.0, 0.0, 0.0, 0.0)
    // The solver's rows add up to 0: there is no mean to be taken off before.
    for i in 0..<n {
        let px = Double(landmarks[numbers * rigid[i]])
        let py = Double(landmarks[numbers * rigid[i] + 1])
        let (s, t, r) = (solver[i], solver[n + i], solver[2 * n + i])
        a += s * px
        b += t * px
        c += r * px
        x += px
        u += s * py
        v += t * py
        w += r * py
        y += py
    }
    out.rotation[0] = a
    out.rotation[1] = b
    out.rotation[2] = c
    out.rotation[3] = u
    out.rotation[4] = v
    out.rotation[5] = w
    out.scale = nearestRows(&out.rotation)
    out.completeRotation()
    let (rows, m) = (out.rotation, template.middle)
    let alongX = rows[0] * m[0] + rows[1] * m[1] + rows[2] * m[2]
    let alongY = rows[3] * m[0] + rows[4] * m[1] + rows[5] * m[2]
    out.shift[0] = x / Double(n) - out.scale * alongX
    out.shift[1] = y / Double(n) - out.scale * alongY
    return out
}

/// Makes the first six numbers of `rows`, two rows of three, orthonormal: the nearest such rows. Returns the mean of the
/// singular values.
///
/// In closed form, (A A^T)^(-1/2) A: phones have no decomposition at hand.
func nearestRows(_ rows: inout [Double]) -> Double {
    let (x, y, z) = (rows[0], rows[1], rows[2])
    let (u, v, w) = (rows[3], rows[4], rows[5])
    let a = x * x + y * y + z * z
    let b = x * u + y * v + z * w
    let d = u * u + v * v + w * w
    let root = max(a * d - b * b, 1e-24).squareRoot()  // the product of the singular values
    let total = (a + d + 2 * root).squareRoot()  // their sum
    let p = (d + root) / (total * root)
    let q = -b / (total * root)
    let r = (a + root) / (total * root)
    rows[0] = p * x + q * u
    rows[1] = p * y + q * v
    rows[2] = p * z + q * w
    rows[3] = q * x + r * u
    rows[4] = q * y + r * v
    rows[5] = q * z + r * w
    return total / 2
}

/// The face, 478 x 3 in the template's units, without head pose. What depth hides stays the template's.
func unposed(_ landmarks: [Float], _ pose: HeadPose, out: inout [Double]) {
    let numbers = dimensions(landmarks)
    let template = faceTemplate().doubles
    let r = pose.rotation
    let per = 1 / pose.scale
    let (shiftX, shiftY) = (pose.shift[0], pose.shift[1])
    for i in 0..<landmarkCount {
        // (landmarks - shift) / scale along the rows that are seen, the template along the one that is not.
        let x = (Double(landmarks[numbers * i]) - shiftX) * per
        let y = (Double(landmarks[numbers * i + 1]) - shiftY) * per
        let z = r[6] * template[3 * i] + r[7] * template[3 * i + 1] + r[8] * template[3 * i + 2]
        out[3 * i] = r[0] * x + r[3] * y + r[6] * z
        out[3 * i + 1] = r[1] * x + r[4] * y + r[7] * z
        out[3 * i + 2] = r[2] * x + r[5] * y + r[8] * z
    }
}

/// Head pose and face of landmarks (478 points of 2 or 3 numbers), in any unit; `putTogether` is the way back.
@discardableResult
public func takeApart(_ landmarks: [Float], out: Motion = Motion()) -> Motion {
    fitHead(landmarks, out: out.pose)
    unposed(landmarks, out.pose, out: &out.face)
    return out
}

/// Landmarks, 478 x 2 in the unit of the pose.
public func putTogether(_ motion: Motion) -> [Float] {
    var out = [Float](repeating: 0, count: 2 * landmarkCount)
    putTogether(motion, out: &out)
    return out
}

/// The same, into a buffer.
public func putTogether(_ motion: Motion, out: inout [Float]) {
    for i in 0..<landmarkCount {
        out[2 * i] = motion.pose.x(motion.face, 3 * i)
        out[2 * i + 1] = motion.pose.y(motion.face, 3 * i)
    }
}

/// The points that the networks take, `pointCount` x 2: mesh, head and torso.
///
/// `landmarks` 478 points of 2 or 3 numbers, in [-1, 1] of the source's crop
func networkPoints(_ landmarks: [Float]) -> [Float] {
    var out = [Float](repeating: 0, count: 2 * pointCount)
    networkPoints(landmarks, out: &out, pose: HeadPose())
    return out
}

/// The same, into a buffer; `pose` is one for what is fitted.
func networkPoints(_ landmarks: [Float], out: inout [Float], pose: HeadPose) {
    let numbers = dimensions(landmarks)
    var at = 0
    for landmark in mesh {
        out[at] = landmarks[numbers * landmark]
        out[at + 1] = landmarks[numbers * landmark + 1]
        at += 2
    }
    fitHead(landmarks, out: pose)
    for i in headPoints.indices {
        out[at] = pose.x(head, 3 * i)
        out[at + 1] = pose.y(head, 3 * i)
        at += 2
    }
    for point in torsoPoints {
        out[at] = point[0]
        out[at + 1] = point[1]
        at += 2
    }
}
