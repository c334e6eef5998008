// Stands for CoreGraphics and, of CoreFoundation, the names that its functions use; iOS 17.
import Foundation

// On Apple's systems these are bridged: `as` is needed there, and is nothing here.
public typealias CFString = String
public typealias CFData = Data
public typealias CFDictionary = [AnyHashable: Any]
public typealias CFTypeRef = AnyObject
public typealias OSType = UInt32
public typealias OSStatus = Int32

public final class CFAllocator {}

public final class CGImage {
    public var width: Int { 0 }
    public var height: Int { 0 }
}

public final class CGColorSpace {
    public static let sRGB: CFString = ""

    public init?(name: CFString) {}
}

public enum CGImageAlphaInfo: UInt32 {
    case none
    case premultipliedLast
    case premultipliedFirst
    case last
    case first
    case noneSkipLast
    case noneSkipFirst
    case alphaOnly
}

public final class CGContext {
    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: UInt32
    ) {}

    public func draw(_ image: CGImage, in rect: CGRect) {}
}
