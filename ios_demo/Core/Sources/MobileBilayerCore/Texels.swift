/// Layers as a texture takes them: the channels of each pixel beside each other, in a buffer that each call fills anew. No frame
/// allocates; for one thread.
///
/// `channels` x `sidePx` x `sidePx` is what `of` is given. Metal has no texture of three channels of 32 bits: `padded` leaves a fourth.
public final class Texels {
    public let channels: Int
    public let sidePx: Int
    private let stride: Int
    private var beside: [Float]

    public init(channels: Int, sidePx: Int, padded: Bool = false) {
        self.channels = channels
        self.sidePx = sidePx
        stride = padded && channels == 3 ? 4 : channels
        beside = [Float](repeating: 0, count: stride * sidePx * sidePx)
    }

    /// What `use` is given must not be kept.
    public func of<R>(_ planes: [Float], _ use: (UnsafeBufferPointer<Float>) throws -> R) rethrows -> R {
        let pixels = sidePx * sidePx
        precondition(planes.count == channels * pixels, "layers must be of the channels and the side given")
        for c in 0..<channels {
            for i in 0..<pixels { beside[stride * i + c] = planes[c * pixels + i] }
        }
        return try beside.withUnsafeBufferPointer(use)
    }
}
