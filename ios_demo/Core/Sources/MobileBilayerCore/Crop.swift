/// Of the half side: hair takes more room than the neck.
let cropUp = 1.0 / 6

/// A square of the picture: centre and half side in pixels (pixel i covers [i, i + 1]).
public struct Crop: Equatable, Sendable {
    public var xPx: Double
    public var yPx: Double
    public var halfPx: Double

    public init(xPx: Double, yPx: Double, halfPx: Double) {
        self.xPx = xPx
        self.yPx = yPx
        self.halfPx = halfPx
    }

    /// Points in pixels to [-1, 1] of the square; z keeps x's unit.
    ///
    /// `points` flat, of 2 or 3 numbers each
    public func toKeypoints(_ points: [Float], numbers: Int? = nil) -> [Float] {
        let numbers = numbers ?? dimensions(points)
        let half = Float(halfPx)
        let shifts = [Float(xPx / halfPx), Float(yPx / halfPx), 0]
        return points.indices.map { points[$0] / half - shifts[$0 % numbers] }
    }

    /// The way back of `toKeypoints`.
    public func toPixels(_ keypoints: [Float], numbers: Int? = nil) -> [Float] {
        let numbers = numbers ?? dimensions(keypoints)
        let half = Float(halfPx)
        let shifts = [Float(xPx), Float(yPx), 0]
        return keypoints.indices.map { keypoints[$0] * half + shifts[$0 % numbers] }
    }

    /// The square of `picture`, `sidePx` wide; outside the picture its border is repeated.
    public func cut(_ picture: RgbImage, sidePx: Int = 256) -> RgbImage {
        let scale = Double(sidePx) / (2 * halfPx)
        // Shrinking by more than 2 would alias: average first.
        if scale < 0.5 {
            let left = Int((xPx - halfPx).rounded(.down))
            let top = Int((yPx - halfPx).rounded(.down))
            let side = Int((2 * halfPx).rounded(.up)) + 1
            let shrunkPx = Int((Double(side) * scale).rounded(.toNearestOrEven))
            let shrunk = resizeArea(picture, left, top, side, shrunkPx)
            let factor = Double(shrunkPx) / Double(side)
            let inside = Crop(xPx: (xPx - Double(left)) * factor, yPx: (yPx - Double(top)) * factor, halfPx: halfPx * factor)
            return inside.cut(shrunk, sidePx: sidePx)
        }
        var out = RgbImage(width: sidePx, height: sidePx)
        let reach = scale > 1 ? 2 : 1  // cubic, or linear
        let rows = (0..<sidePx).map { neighbours(of: $0, scale, yPx - halfPx, reach, picture.height) }
        let columns = (0..<sidePx).map { neighbours(of: $0, scale, xPx - halfPx, reach, picture.width) }
        for y in 0..<sidePx {
            for x in 0..<sidePx {
                for c in 0..<3 {
                    var sum = 0.0
                    for (row, down) in rows[y] {
                        for (column, right) in columns[x] {
                            sum += down * right * Double(picture.pixels[3 * (row * picture.width + column) + c])
                        }
                    }
                    out.pixels[3 * (y * sidePx + x) + c] = UInt8(min(max(sum, 0), 255).rounded(.toNearestOrEven))
                }
            }
        }
        return out
    }
}

/// The paper's rule: the landmarks' box, half side = its larger side, moved up by a sixth of it.
///
/// `landmarks` 478 points of 2 or 3 numbers, in pixels; the iris points never widen the box
public func headCrop(_ landmarks: [Float]) -> Crop {
    let box = FaceBox(landmarks)
    let size = Double(max(box.width, box.height))
    return Crop(xPx: Double(box.x), yPx: Double(box.y) - size * cropUp, halfPx: size)
}

/// The landmarks' box, and its middle.
struct FaceBox {
    let x: Float
    let y: Float
    let width: Float
    let height: Float
    var area: Float { width * height }

    init(_ landmarks: [Float]) {
        let numbers = dimensions(landmarks)
        var (lowX, lowY) = (landmarks[0], landmarks[1])
        var (highX, highY) = (lowX, lowY)
        for i in stride(from: 0, to: landmarks.count, by: numbers) {
            lowX = min(lowX, landmarks[i])
            highX = max(highX, landmarks[i])
            lowY = min(lowY, landmarks[i + 1])
            highY = max(highY, landmarks[i + 1])
        }
        x = (lowX + highX) / 2
        y = (lowY + highY) / 2
        width = highX - lowX
        height = highY - lowY
    }
}

/// Which `2 * reach` places of a side of `px` the i-th of another is made of, and how much of each.
private func neighbours(of i: Int, _ scale: Double, _ first: Double, _ reach: Int, _ px: Int) -> [(Int, Double)] {
    let from = (Double(i) + 0.5) / scale - 0.5 + first
    let low = from.rounded(.down)
    return weights(from - low, reach).enumerated().map { k, weight in
        (min(max(Int(low) - reach + 1 + k, 0), px - 1), weight)
    }
}

/// Weights of the neighbours of a place `t` behind the first of the middle two: linear for two, cubic for four.
private func weights(_ t: Double, _ reach: Int) -> [Double] {
    if reach == 1 { return [1 - t, t] }
    let a = -0.75  // as OpenCV has it
    let before = t + 1
    let behind = 1 - t
    let first = ((a * before - 5 * a) * before + 8 * a) * before - 4 * a
    let second = ((a + 2) * t - (a + 3)) * t * t + 1
    let third = ((a + 2) * behind - (a + 3)) * behind * behind + 1
    return [first, second, third, 1 - first - second - third]
}

/// The square from (`left`, `top`) of a side of `sidePx`, averaged to `outPx`; outside the picture its border is repeated.
private func resizeArea(_ picture: RgbImage, _ left: Int, _ top: Int, _ sidePx: Int, _ outPx: Int) -> RgbImage {
    let ratio = Double(sidePx) / Double(outPx)
    var out = RgbImage(width: outPx, height: outPx)
    // First along rows, one row of the square at a time; each is shared out to the rows of the result.
    var narrow = [Double](repeating: 0, count: 3 * outPx)
    var sums = [Double](repeating: 0, count: 3 * outPx * outPx)
    for j in 0..<sidePx {
        let row = min(max(top + j, 0), picture.height - 1) * picture.width
        for k in narrow.indices { narrow[k] = 0 }
        for i in 0..<sidePx {
            let at = 3 * (row + min(max(left + i, 0), picture.width - 1))
            for (x, share) in spread(i, ratio, outPx) {
                for c in 0..<3 { narrow[3 * x + c] += share * Double(picture.pixels[at + c]) }
            }
        }
        for (y, share) in spread(j, ratio, outPx) {
            for k in narrow.indices { sums[3 * outPx * y + k] += share * narrow[k] }
        }
    }
    for k in sums.indices { out.pixels[k] = UInt8(min(max(sums[k].rounded(.toNearestOrEven), 0), 255)) }
    return out
}

/// Which pixels of the result the pixel `i` belongs to, and what share of each it is.
private func spread(_ i: Int, _ ratio: Double, _ outPx: Int) -> [(Int, Double)] {
    let first = min(Int(Double(i) / ratio), outPx - 1)
    let edge = Double(first + 1) * ratio
    if Double(i + 1) <= edge || first == outPx - 1 { return [(first, 1 / ratio)] }
    return [(first, (edge - Double(i)) / ratio), (first + 1, (Double(i + 1) - edge) / ratio)]
}
