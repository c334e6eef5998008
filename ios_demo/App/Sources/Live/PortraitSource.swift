import Foundation
import MobileBilayerCore

/// In place of a camera, for benchmarks: a portrait of the app's that moves, as frames of 640 x 480 in 420f at 30 a second. A frame whose
/// time comes while the one before it is looked at is left out, as a camera's would be.
final class PortraitSource: @unchecked Sendable {  // the lock is around what is counted
    static let fps = 30

    private static let width = 640
    private static let height = 480
    private static let reach = 20  // pixels to each side
    private static let periodNs = Int64(1_000_000_000 / fps)

    private let stop = Stop()
    private let wake = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private var overdue = 0

    init(_ session: LiveSession, onError: @escaping @Sendable (any Error) -> Void) throws {
        let name = "portraits/\(Avatars.first).jpg"
        let portrait = try readPhoto(try asset(name))
        let side = PortraitSource.width + 2 * PortraitSource.reach
        let middle = Crop(
            xPx: Double(portrait.width) / 2, yPx: Double(portrait.height) / 2,
            halfPx: Double(min(portrait.width, portrait.height)) / 2)
        let planes = BiplanarPicture(middle.cut(portrait, sidePx: side))
        let thread = Thread { [self] in
            do {
                try frames(planes, session)
            } catch {
                if !stop.isSet { onError(error) }
            }
            ended.signal()
        }
        thread.name = "camera"
        thread.qualityOfService = .userInteractive
        thread.start()
    }

    /// Frames that were left out.
    var leftOut: Int {
        lock.lock()
        defer { lock.unlock() }
        return overdue
    }

    /// No frame is made any more; waits for the one that is looked at.
    func close() {
        stop.set()
        wake.signal()
        ended.wait()
        ended.signal()  // so that it may be called again
    }

    private func frames(_ planes: BiplanarPicture, _ session: LiveSession) throws {
        let reach = Double(PortraitSource.reach)
        var nextNs = nowNs()
        var due = 0
        while !stop.isSet {
            let place = reach + reach * sin(Double(due) * 0.15)
            let left = Int(place.rounded()) / 2 * 2
            let top = Int((2 * reach - place).rounded()) / 2 * 2
            let crop = FrameCrop(left: left, top: top, right: left + PortraitSource.width, bottom: top + PortraitSource.height)
            try autoreleasepool { try planes.seen(crop) { try session.frame($0, rotation: 0, capturedNs: nextNs) } }
            due += 1
            nextNs += PortraitSource.periodNs
            while nextNs + PortraitSource.periodNs <= nowNs() {  // the latest one that is due
                nextNs += PortraitSource.periodNs
                due += 1
                lock.lock()
                overdue += 1
                lock.unlock()
            }
            _ = wake.wait(timeout: DispatchTime(uptimeNanoseconds: UInt64(nextNs)))
        }
    }
}

/// A picture as a camera gives it: luma, and Cb and Cr beside each other at half the size; BT.601 in full range. Its side is even.
private struct BiplanarPicture {
    private let width: Int
    private let height: Int
    private var luma: [UInt8]
    private var chroma: [UInt8]

    init(_ rgb: RgbImage) {
        width = rgb.width
        height = rgb.height
        luma = [UInt8](repeating: 0, count: width * height)
        chroma = [UInt8](repeating: 0, count: width * height / 2)
        func level(_ x: Int, _ y: Int, _ c: Int) -> Double { Double(rgb.pixels[3 * (y * width + x) + c]) }
        func byte(_ value: Double) -> UInt8 { UInt8(min(max(value, 0), 255).rounded()) }
        for y in 0..<height {
            for x in 0..<width {
                luma[y * width + x] = byte(0.299 * level(x, y, 0) + 0.587 * level(x, y, 1) + 0.114 * level(x, y, 2))
            }
        }
        for y in 0..<(height / 2) {
            for x in 0..<(width / 2) {
                func mean(_ c: Int) -> Double {
                    let (x, y) = (2 * x, 2 * y)
                    return (level(x, y, c) + level(x + 1, y, c) + level(x, y + 1, c) + level(x + 1, y + 1, c)) / 4
                }
                let (red, green, blue) = (mean(0), mean(1), mean(2))
                chroma[y * width + 2 * x] = byte(128 - 0.168736 * red - 0.331264 * green + 0.5 * blue)
                chroma[y * width + 2 * x + 1] = byte(128 + 0.5 * red - 0.418688 * green - 0.081312 * blue)
            }
        }
    }

    /// `look` gets the part that counts as a camera frame, which must not be kept.
    func seen(_ crop: FrameCrop, _ look: (YuvImage) throws -> Void) rethrows {
        try luma.withUnsafeBytes { luma in
            try chroma.withUnsafeBytes { chroma in
                try look(
                    .biplanar(
                        width: width, height: height, luma: luma, lumaStride: width, chroma: chroma, chromaStride: width,
                        colours: .fullBt601, crop: crop))
            }
        }
    }
}
