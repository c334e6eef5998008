// Stands for QuartzCore, iOS 17: layers. Apple's are for any thread, and used from the main one.
import Foundation

open class CALayer: NSObject {
    public var frame = CGRect.zero

    public override init() {}

    public func addSublayer(_ layer: CALayer) {}
}
