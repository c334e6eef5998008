import CoreGraphics
import Foundation
import ImageIO
import MobileBilayerCore

private let largestPx = 2048  // a face in it is large enough for 256 pixels, and memory is not

/// A photo of any kind that the phone reads, upright. Not for the main thread. Throws `MobileBilayerError` for what is no picture.
func readPhoto(_ content: Data) throws -> RgbImage {
    // A thumbnail of all of it: made upright as its EXIF says, and not larger than it was.
    let options =
        [
            kCGImageSourceCreateThumbnailFromImageAlways: true, kCGImageSourceCreateThumbnailWithTransform: true,
            kCGImageSourceThumbnailMaxPixelSize: largestPx,
        ] as CFDictionary
    guard let source = CGImageSourceCreateWithData(content as CFData, nil),
        let picture = CGImageSourceCreateThumbnailAtIndex(source, 0, options), let colours = CGColorSpace(name: CGColorSpace.sRGB)
    else { throw MobileBilayerError(Words.photoUnreadable) }
    let (width, height) = (picture.width, picture.height)
    var rgba = [UInt8](repeating: 0, count: 4 * width * height)
    let drawn = rgba.withUnsafeMutableBytes { bytes in
        let context = CGContext(
            data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width, space: colours,
            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        context?.draw(picture, in: CGRect(x: 0, y: 0, width: width, height: height))
        return context != nil
    }
    if !drawn { throw MobileBilayerError(Words.photoUnreadable) }
    var rgb = [UInt8](repeating: 0, count: 3 * width * height)
    for i in 0..<(width * height) {
        for c in 0..<3 { rgb[3 * i + c] = rgba[4 * i + c] }
    }
    return try RgbImage(width: width, height: height, pixels: rgb)
}
