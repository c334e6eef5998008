/// The formula that every model shares, on the CPU: the reference for the shader, and what a phone without one would do.
///
///     head(p) = gate(p) * texture(p + flow(p)) + lf(p)
///     rgb(p)  = mask(p) * head(p) + (1 - mask(p)) * background(p)
///
/// Layers are resized bilinearly, pixel centres at (i + 0.5) / n, and the texture is sampled so; both repeat their border.
public struct Compositor: Sendable {
    /// Of texture, background and result.
    public let sidePx: Int
    /// Sides of the layers.
    public let aPx: Int
    public let bPx: Int
    private let a: Places
    private let b: Places

    public init(sidePx: Int, aPx: Int, bPx: Int) {
        self.sidePx = sidePx
        self.aPx = aPx
        self.bPx = bPx
        a = Places(sidePx, aPx)
        b = Places(sidePx, bPx)
    }

    /// Join an avatar's texture and background with one frame's layers, in `out`. No frame allocates.
    ///
    /// `texture`, `background`, `out` sidePx x sidePx x 3, [-1, 1]; the result is not clamped
    /// `layersA` 4 x aPx x aPx: flow x, flow y (of [-1, 1] across the frame), gate, mask
    /// `layersB` 3 x bPx x bPx: lf
    public func composite(texture: [Float], background: [Float], layersA: [Float], layersB: [Float], out: inout [Float]) {
        let pixels = 3 * sidePx * sidePx
        precondition(texture.count == pixels && background.count == pixels && out.count == pixels, "pictures must be of the side given")
        precondition(layersA.count == 4 * aPx * aPx && layersB.count == 3 * bPx * bPx, "layers must be of the sides given")
        let plane = aPx * aPx
        let half = Float(sidePx) / 2
        for y in 0..<sidePx {
            for x in 0..<sidePx {
                let fromX = Float(x) + half * a.sample(layersA, 0, x, y)
                let fromY = Float(y) + half * a.sample(layersA, plane, x, y)
                let gate = a.sample(layersA, 2 * plane, x, y)
                let mask = a.sample(layersA, 3 * plane, x, y)
                let left = fromX.rounded(.down)
                let top = fromY.rounded(.down)
                let right = fromX - left
                let down = fromY - top
                let (x0, x1) = (inside(left), inside(left + 1))
                let (row0, row1) = (inside(top) * sidePx, inside(top + 1) * sidePx)
                for c in 0..<3 {
                    let above = texture[3 * (row0 + x0) + c] * (1 - right) + texture[3 * (row0 + x1) + c] * right
                    let below = texture[3 * (row1 + x0) + c] * (1 - right) + texture[3 * (row1 + x1) + c] * right
                    let warped = above * (1 - down) + below * down
                    let head = gate * warped + b.sample(layersB, c * bPx * bPx, x, y)
                    let at = 3 * (y * sidePx + x) + c
                    out[at] = background[at] + mask * (head - background[at])
                }
            }
        }
    }

    /// The same, in numbers of its own.
    public func composite(texture: [Float], background: [Float], layersA: [Float], layersB: [Float]) -> [Float] {
        var out = [Float](repeating: 0, count: 3 * sidePx * sidePx)
        composite(texture: texture, background: background, layersA: layersA, layersB: layersB, out: &out)
        return out
    }

    /// The nearest pixel of the texture: also for what is not a number, which is 0.
    private func inside(_ place: Float) -> Int { place > 0 ? Int(Swift.min(place, Float(sidePx - 1))) : 0 }
}

/// Where the pixels of a side lie between those of another, and how far to the second.
private struct Places: Sendable {
    private let fromPx: Int
    private let low: [Int]
    private let high: [Int]
    private let part: [Float]

    init(_ sidePx: Int, _ fromPx: Int) {
        self.fromPx = fromPx
        let ratio = Double(fromPx) / Double(sidePx)
        let places: [Double] = (0..<sidePx).map { (Double($0) + 0.5) * ratio - 0.5 }
        let first = places.map { $0.rounded(.down) }
        low = first.map { min(max(Int($0), 0), fromPx - 1) }
        high = first.map { min(max(Int($0) + 1, 0), fromPx - 1) }
        part = zip(places, first).map { Float($0 - $1) }
    }

    func sample(_ plane: [Float], _ at: Int, _ x: Int, _ y: Int) -> Float {
        let row0 = at + low[y] * fromPx
        let row1 = at + high[y] * fromPx
        let above = plane[row0 + low[x]] * (1 - part[x]) + plane[row0 + high[x]] * part[x]
        let below = plane[row1 + low[x]] * (1 - part[x]) + plane[row1 + high[x]] * part[x]
        return above * (1 - part[y]) + below * part[y]
    }
}

/// Bytes [0, 255] to [-1, 1].
public func toFloat(_ rgb: [UInt8]) -> [Float] { rgb.map { Float($0) / 127.5 - 1 } }

/// [-1, 1] to bytes: clamped, then rounded, then cast, so that nothing wraps. What is not a number is black.
public func toRgb(_ frame: [Float], out: inout [UInt8]) {
    for i in frame.indices {
        let value = frame[i]
        let inside = value > -1 ? min(value, 1) : -1  // a comparison with NaN is false
        out[i] = UInt8((inside * 127.5 + 127.5).rounded(.toNearestOrEven))
    }
}

/// The same, in bytes of its own.
public func toRgb(_ frame: [Float]) -> [UInt8] {
    var out = [UInt8](repeating: 0, count: frame.count)
    toRgb(frame, out: &out)
    return out
}
