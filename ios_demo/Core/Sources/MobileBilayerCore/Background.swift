import Foundation

// What stands behind the person: made once per avatar, so that it may allocate.

/// The picture with the person taken out: colours flow in smoothly from around.
///
/// `alpha` as many numbers as the picture has pixels, [0, 1], 1 where the person is. Push-pull: averages of what is known, at ever
/// coarser sizes, fill what is not.
func fillBehind(_ rgb: RgbImage, alpha: [Float]) -> RgbImage {
    let (width, height) = (rgb.width, rgb.height)
    let count = width * height
    precondition(alpha.count == count, "alpha must have a number for each pixel")
    let grown = dilate(alpha, width, height, max(3, width / 24) | 1)
    var first = Plane(width, height)
    for i in 0..<count {
        let known = min(max(1 - 2 * grown[i], 0), 1)
        for c in 0..<3 { first.data[4 * i + c] = Float(rgb.pixels[3 * i + c]) * known }
        first.data[4 * i + 3] = known
    }
    var levels = [first]
    while let last = levels.last, min(last.width, last.height) > 2 { levels.append(last.halved()) }
    // Where even the coarsest level knows next to nothing, the mean of what is known; of all, if nothing is.
    var mean = [0.0, 0.0, 0.0]
    var weights = 0.0
    let anyKnown = (0..<count).contains { first.data[4 * $0 + 3] > 0 }
    for i in 0..<count {
        let weight = anyKnown ? Double(first.data[4 * i + 3]) : 1
        weights += weight
        for c in 0..<3 { mean[c] += weight * Double(rgb.pixels[3 * i + c]) }
    }
    let coarsest = levels[levels.count - 1]
    var filled = Plane(coarsest.width, coarsest.height)
    for i in 0..<(coarsest.width * coarsest.height) {
        for c in 0..<3 {
            filled.data[4 * i + c] = (coarsest.data[4 * i + c] + 1e-3 * Float(mean[c] / weights)) / (coarsest.data[4 * i + 3] + 1e-3)
        }
    }
    for (depth, level) in levels.enumerated().dropLast().reversed() {
        filled = filled.grown(level.width, level.height)
        for i in 0..<(level.width * level.height) {
            let weight = min(level.data[4 * i + 3], 1)
            for c in 0..<3 {
                let seen = level.data[4 * i + c]
                // The finest holds colours times what is known of them; the others' weights are means.
                let mine = depth == 0 ? seen : weight * seen / max(level.data[4 * i + 3], 1e-3)
                filled.data[4 * i + c] = mine + (1 - weight) * filled.data[4 * i + c]
            }
        }
    }
    var out = RgbImage(width: width, height: height)
    for i in 0..<count {
        for c in 0..<3 { out.pixels[3 * i + c] = toByte(filled.data[4 * i + c]) }
    }
    return out
}

/// What stands behind an avatar: `choice` is "keep", "blur" or "#rrggbb"; `kept` is the avatar's own. A user's picture is decoded by
/// the app, cut to a square and given to the avatar itself. Throws `MobileBilayerError` for any other choice.
public func changeBackground(_ choice: String, kept: RgbImage) throws -> RgbImage {
    if choice == "keep" { return kept }
    if choice == "blur" { return blur(kept, Double(kept.width) / 24) }
    let digits = choice.utf8.dropFirst()
    guard choice.utf8.first == UInt8(ascii: "#"), digits.count == 6, digits.allSatisfy(isHexDigit),
        let colour = Int(choice.dropFirst(), radix: 16)
    else {
        throw MobileBilayerError("The background is '\(choice.prefix(40))'; it must be keep, blur or a colour like #20a0ff.")
    }
    var out = kept
    for i in out.pixels.indices { out.pixels[i] = UInt8(colour >> (16 - 8 * (i % 3)) & 255) }
    return out
}

private func toByte(_ value: Float) -> UInt8 { UInt8(min(max(value, 0), 255).rounded(.toNearestOrEven)) }

/// Red, green, blue and weight of each pixel.
private struct Plane {
    let width: Int
    let height: Int
    var data: [Float]

    init(_ width: Int, _ height: Int) {
        self.width = width
        self.height = height
        data = [Float](repeating: 0, count: 4 * width * height)
    }

    /// Half as large, by area.
    func halved() -> Plane {
        resized((width + 1) / 2, (height + 1) / 2) { i, from, to in
            let ratio = Double(from) / Double(to)
            let (begin, end) = (Double(i) * ratio, Double(i + 1) * ratio)
            var out: [(Int, Float)] = []
            var k = Int(begin)
            while k < from, Double(k) < end - 1e-9 {
                out.append((k, Float((min(Double(k) + 1, end) - max(Double(k), begin)) / ratio)))
                k += 1
            }
            return out
        }
    }

    /// Larger, bilinearly.
    func grown(_ width: Int, _ height: Int) -> Plane {
        resized(width, height) { i, from, to in
            let place = (Double(i) + 0.5) * Double(from) / Double(to) - 0.5
            let low = place.rounded(.down)
            return [
                (min(max(Int(low), 0), from - 1), Float(1 - (place - low))), (min(max(Int(low) + 1, 0), from - 1), Float(place - low)),
            ]
        }
    }

    /// `weigh` says of the i-th place of a side which places it is made of, and of how much of each.
    private func resized(_ toWidth: Int, _ toHeight: Int, _ weigh: (_ i: Int, _ from: Int, _ to: Int) -> [(Int, Float)]) -> Plane {
        var narrow = Plane(toWidth, height)
        for x in 0..<toWidth {
            for (from, share) in weigh(x, width, toWidth) {
                for y in 0..<height {
                    for c in 0..<4 { narrow.data[4 * (y * toWidth + x) + c] += share * data[4 * (y * width + from) + c] }
                }
            }
        }
        var out = Plane(toWidth, toHeight)
        for y in 0..<toHeight {
            for (from, share) in weigh(y, height, toHeight) {
                for k in 0..<(4 * toWidth) { out.data[4 * y * toWidth + k] += share * narrow.data[4 * from * toWidth + k] }
            }
        }
        return out
    }
}

/// The largest value within an ellipse of `sidePx` around each pixel.
private func dilate(_ alpha: [Float], _ width: Int, _ height: Int, _ sidePx: Int) -> [Float] {
    let reach = sidePx / 2
    let radius = Double(reach)
    let halfWidths: [Int] = (0..<sidePx).map { row in
        let dy = Double(row - reach)
        let share: Double = 1 - dy * dy / (radius * radius)
        return Int((radius * share.squareRoot()).rounded(.toNearestOrEven))
    }
    var out = [Float](repeating: 0, count: alpha.count)
    for y in 0..<height {
        for x in 0..<width {
            var most: Float = 0
            for row in max(0, y - reach)...min(height - 1, y + reach) {
                let half = halfWidths[row - y + reach]
                for column in max(0, x - half)...min(width - 1, x + half) { most = max(most, alpha[row * width + column]) }
            }
            out[y * width + x] = most
        }
    }
    return out
}

/// Gaussian, the border repeated.
private func blur(_ picture: RgbImage, _ sigma: Double) -> RgbImage {
    let reach = (Int((6 * sigma + 1).rounded(.toNearestOrEven)) | 1) / 2  // as OpenCV has it
    let weights: [Double] = (-reach...reach).map { exp(-Double($0 * $0) / (2 * sigma * sigma)) }
    let total = weights.reduce(0, +)
    let (width, height) = (picture.width, picture.height)
    var narrow = [Float](repeating: 0, count: picture.pixels.count)
    var out = RgbImage(width: width, height: height)
    for y in 0..<height {
        for x in 0..<width {
            for c in 0..<3 {
                var sum = 0.0
                for i in weights.indices {
                    let from = min(max(x + i - reach, 0), width - 1)
                    sum += weights[i] * Double(picture.pixels[3 * (y * width + from) + c])
                }
                narrow[3 * (y * width + x) + c] = Float(sum / total)
            }
        }
    }
    for y in 0..<height {
        for k in 0..<(3 * width) {
            var sum = 0.0
            for i in weights.indices { sum += weights[i] * Double(narrow[min(max(y + i - reach, 0), height - 1) * 3 * width + k]) }
            out.pixels[y * 3 * width + k] = toByte(Float(sum / total))
        }
    }
    return out
}
