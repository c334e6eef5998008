/// One plane of a camera frame, where the camera put it: `data` from its beginning, `rowStride` bytes from row to row, `pixelStride`
/// from pixel to pixel. It is not copied: the frame must be locked until it was converted.
public struct YuvPlane {
    public let data: UnsafeRawBufferPointer
    public let rowStride: Int
    public let pixelStride: Int

    public init(_ data: UnsafeRawBufferPointer, rowStride: Int, pixelStride: Int) {
        self.data = data
        self.rowStride = rowStride
        self.pixelStride = pixelStride
    }
}

/// How a frame's numbers are colours: its pixel format says the range, its attachment (kCVImageBufferYCbCrMatrixKey) the matrix.
public enum YuvColours: CaseIterable, Sendable {
    /// 420f.
    case fullBt601
    case fullBt709
    /// 420v: black is 16, white 235.
    case videoBt601
    case videoBt709

    /// In 16 bits behind the point: of luma, red from Cr, green from Cb and Cr, blue from Cb.
    fileprivate var numbers: (luma: Int32, red: Int32, greenCb: Int32, greenCr: Int32, blue: Int32) {
        switch self {
        case .fullBt601: (65536, 91881, 22554, 46802, 116130)
        case .fullBt709: (65536, 103206, 12276, 30679, 121609)
        case .videoBt601: (76309, 104597, 25675, 53279, 132201)
        case .videoBt709: (76309, 117489, 13975, 34925, 138438)
        }
    }

    fileprivate var black: Int32 { self == .videoBt601 || self == .videoBt709 ? 16 : 0 }
}

/// A camera frame of luma and chroma at half the size, and the part of it that counts.
public struct YuvImage {
    public let width: Int
    public let height: Int
    public let y: YuvPlane
    public let u: YuvPlane
    public let v: YuvPlane
    public let colours: YuvColours
    public let crop: FrameCrop

    public init(
        width: Int, height: Int, y: YuvPlane, u: YuvPlane, v: YuvPlane, colours: YuvColours = .fullBt601, crop: FrameCrop? = nil
    ) {
        self.width = width
        self.height = height
        self.y = y
        self.u = u
        self.v = v
        self.colours = colours
        self.crop = crop ?? FrameCrop(left: 0, top: 0, right: width, bottom: height)
    }

    /// As cameras of iPhones give it (420f and 420v): luma, and Cb and Cr beside each other. Strides are CVPixelBuffer's bytes a row.
    public static func biplanar(
        width: Int, height: Int, luma: UnsafeRawBufferPointer, lumaStride: Int, chroma: UnsafeRawBufferPointer, chromaStride: Int,
        colours: YuvColours, crop: FrameCrop? = nil
    ) -> YuvImage {
        let red = UnsafeRawBufferPointer(rebasing: chroma.dropFirst())
        return YuvImage(
            width: width, height: height, y: YuvPlane(luma, rowStride: lumaStride, pixelStride: 1),
            u: YuvPlane(chroma, rowStride: chromaStride, pixelStride: 2), v: YuvPlane(red, rowStride: chromaStride, pixelStride: 2),
            colours: colours, crop: crop)
    }
}

/// A camera frame of type 32BGRA, where the camera put it.
public struct BgraImage {
    public let width: Int
    public let height: Int
    public let data: UnsafeRawBufferPointer
    public let rowStride: Int
    public let crop: FrameCrop

    public init(width: Int, height: Int, data: UnsafeRawBufferPointer, rowStride: Int, crop: FrameCrop? = nil) {
        self.width = width
        self.height = height
        self.data = data
        self.rowStride = rowStride
        self.crop = crop ?? FrameCrop(left: 0, top: 0, right: width, bottom: height)
    }
}

/// The part of a frame that counts, as its clean aperture says.
public struct FrameCrop: Equatable, Sendable {
    public let left: Int
    public let top: Int
    public let right: Int
    public let bottom: Int

    public init(left: Int, top: Int, right: Int, bottom: Int) {
        self.left = left
        self.top = top
        self.right = right
        self.bottom = bottom
    }
}

/// An upright picture: R, G, B and 255 of each pixel, row by row. A buffer: see `YuvConverter`.
public final class RgbaImage {
    public let width: Int
    public let height: Int
    public fileprivate(set) var pixels: [UInt8]

    init(width: Int, height: Int) {
        self.width = width
        self.height = height
        pixels = [UInt8](repeating: 255, count: 4 * width * height)
    }
}

/// Camera frames to upright RGBA. A frame allocates nothing unless it is of another size than the one before. For one thread.
///
/// Strides of rows and pixels are kept to, also where the last chroma byte or the last row's padding is absent, and the crop is cut
/// before it is turned. Nothing is mirrored: see `Orientation`.
public final class YuvConverter {
    private var out = RgbaImage(width: 1, height: 1)

    public init() {}

    /// `image` turned clockwise by `rotation` degrees (0, 90, 180 or 270), in a buffer that the next call fills anew.
    ///
    /// Throws `MobileBilayerError` for planes that are too short for their strides, and for a crop outside the picture.
    public func toRgba(_ image: YuvImage, rotation: Int) throws -> RgbaImage {
        let crop = image.crop
        try check(image.width, image.height, crop, rotation)
        try check("Y", image.y, crop.right, crop.bottom)
        try check("U", image.u, (crop.right + 1) / 2, (crop.bottom + 1) / 2)
        try check("V", image.v, (crop.right + 1) / 2, (crop.bottom + 1) / 2)
        let (first, right, down) = start(crop, rotation)
        let factors = image.colours.numbers
        let black = image.colours.black
        let (y, u, v) = (image.y, image.u, image.v)
        out.pixels.withUnsafeMutableBufferPointer { pixels in
            for row in crop.top..<crop.bottom {
                let lumaRow = row * y.rowStride
                let blueRow = row / 2 * u.rowStride
                let redRow = row / 2 * v.rowStride
                var at = 4 * (first + (row - crop.top) * down)
                for x in crop.left..<crop.right {
                    let l = (Int32(y.data[lumaRow + x * y.pixelStride]) - black) * factors.luma + 32768
                    let cb = Int32(u.data[blueRow + x / 2 * u.pixelStride]) - 128
                    let cr = Int32(v.data[redRow + x / 2 * v.pixelStride]) - 128
                    pixels[at] = toByte(l + factors.red * cr)
                    pixels[at + 1] = toByte(l - factors.greenCb * cb - factors.greenCr * cr)
                    pixels[at + 2] = toByte(l + factors.blue * cb)
                    at += 4 * right
                }
            }
        }
        return out
    }

    /// The same of a frame that has its colours already.
    public func toRgba(_ image: BgraImage, rotation: Int) throws -> RgbaImage {
        let crop = image.crop
        try check(image.width, image.height, crop, rotation)
        try check("BGRA", YuvPlane(image.data, rowStride: image.rowStride, pixelStride: 4), crop.right, crop.bottom, last: 4)
        let (first, right, down) = start(crop, rotation)
        out.pixels.withUnsafeMutableBufferPointer { pixels in
            for row in crop.top..<crop.bottom {
                var at = 4 * (first + (row - crop.top) * down)
                for from in stride(from: row * image.rowStride + 4 * crop.left, to: row * image.rowStride + 4 * crop.right, by: 4) {
                    pixels[at] = image.data[from + 2]
                    pixels[at + 1] = image.data[from + 1]
                    pixels[at + 2] = image.data[from]
                    at += 4 * right
                }
            }
        }
        return out
    }

    /// The pixel (x, y) of the crop goes to first + x * right + y * down. Makes a buffer of that size, if it has none.
    private func start(_ crop: FrameCrop, _ rotation: Int) -> (Int, Int, Int) {
        let (cropWidth, cropHeight) = (crop.right - crop.left, crop.bottom - crop.top)
        let (width, height) = rotation % 180 == 0 ? (cropWidth, cropHeight) : (cropHeight, cropWidth)
        if out.width != width || out.height != height { out = RgbaImage(width: width, height: height) }
        switch rotation {
        case 0: return (0, 1, width)
        case 90: return (width - 1, width, -1)
        case 180: return (width * height - 1, -1, -width)
        default: return (width * (height - 1), -width, 1)
        }
    }

    private func check(_ width: Int, _ height: Int, _ crop: FrameCrop, _ rotation: Int) throws {
        if !rightAngles.contains(rotation) {
            throw MobileBilayerError("A frame was to be turned by \(rotation) degrees; 0, 90, 180 or 270 is needed.")
        }
        let inside =
            crop.left >= 0 && crop.left < crop.right && crop.right <= width
            && crop.top >= 0 && crop.top < crop.bottom && crop.bottom <= height
        if !inside {
            throw MobileBilayerError(
                "A frame of \(width)x\(height) has the crop \(crop.left), \(crop.top) to \(crop.right), \(crop.bottom); it must lie "
                    + "inside and not be empty. Take the frame's own clean aperture.")
        }
    }

    private func check(_ name: String, _ plane: YuvPlane, _ right: Int, _ bottom: Int, last: Int = 1) throws {
        let row = (right - 1) * plane.pixelStride + last
        let needed = (bottom - 1) * plane.rowStride + row
        if plane.pixelStride < 1 || plane.rowStride < row || plane.data.count < needed {
            throw MobileBilayerError(
                "The frame's \(name) plane has \(plane.data.count) bytes, row stride \(plane.rowStride) and pixel stride "
                    + "\(plane.pixelStride); \(right) x \(bottom) pixels need \(needed) bytes. Pass the planes as the camera gives them.")
        }
    }
}

private func toByte(_ sixteenBitsUp: Int32) -> UInt8 { UInt8(min(max(sixteenBitsUp >> 16, 0), 255)) }
