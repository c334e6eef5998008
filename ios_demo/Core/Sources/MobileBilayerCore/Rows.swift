/// Numbers that lie at distances of their own, as runtimes lay out what they give, to beside each other; `out` has as many as `shape`
/// says. No frame allocates.
///
/// `strides` how many numbers lie from one place of each dimension to the next. Numbers beyond `from` stay as they were.
public func copyRows(_ from: UnsafeBufferPointer<Float>, shape: [Int], strides: [Int], into out: inout [Float]) {
    precondition(shape.count == strides.count && !shape.isEmpty && shape.reduce(1, *) == out.count, "a stride for each dimension")
    let (width, step) = (shape[shape.count - 1], strides[strides.count - 1])
    let rows = width > 0 ? out.count / width : 0
    out.withUnsafeMutableBufferPointer { out in
        for row in 0..<rows {
            var left = row
            var start = 0
            for i in stride(from: shape.count - 2, through: 0, by: -1) {
                start += left % shape[i] * strides[i]
                left /= shape[i]
            }
            if start < 0 || start + (width - 1) * step >= from.count { continue }
            let to = row * width
            for x in 0..<width { out[to + x] = from[start + x * step] }
        }
    }
}
