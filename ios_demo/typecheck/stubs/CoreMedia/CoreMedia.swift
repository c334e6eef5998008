// Stands for CoreMedia, iOS 17: samples and their times.
@_exported import CoreVideo
import Foundation

public struct CMTime: Sendable {
    public static let zero = CMTime(value: 0, timescale: 1)
    public var value: Int64 = 0
    public var timescale: Int32 = 1
    public var seconds: Double { 0 }

    public init(value: Int64, timescale: Int32) {}
}

public final class CMSampleBuffer {}

public final class CMClock {}

public typealias CMClockOrTimebase = CFTypeRef

public func CMClockGetHostTimeClock() -> CMClock { CMClock() }

public func CMSyncConvertTime(_ time: CMTime, from: CMClockOrTimebase, to: CMClockOrTimebase) -> CMTime { time }

public func CMSampleBufferGetPresentationTimeStamp(_ sbuf: CMSampleBuffer) -> CMTime { CMTime(value: 0, timescale: 1) }

public func CMSampleBufferGetImageBuffer(_ sbuf: CMSampleBuffer) -> CVImageBuffer? { nil }
