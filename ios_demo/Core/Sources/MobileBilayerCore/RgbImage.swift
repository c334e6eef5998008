/// An upright picture: R, G, B of each pixel, row by row.
public struct RgbImage: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public internal(set) var pixels: [UInt8]

    /// Throws unless there is a pixel, and three bytes for each.
    public init(width: Int, height: Int, pixels: [UInt8]) throws {
        guard width >= 1, height >= 1, pixels.count == 3 * width * height else {
            throw MobileBilayerError(
                "A picture of \(width)x\(height) pixels was made of \(pixels.count) bytes; it needs three a pixel, and a pixel at least.")
        }
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// A black one.
    init(width: Int, height: Int) {
        precondition(width >= 1 && height >= 1)
        self.width = width
        self.height = height
        pixels = [UInt8](repeating: 0, count: 3 * width * height)
    }
}
