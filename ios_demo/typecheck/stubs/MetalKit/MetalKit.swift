// Stands for Apple's MetalKit, iOS 17: a view that draws sixty times a second, by `draw` of a class made of it, on the main thread.
import Foundation
@_exported import Metal
@_exported import QuartzCore
@_exported import UIKit

@MainActor
open class MTKView: UIView {
    public init(frame: CGRect, device: (any MTLDevice)?) { super.init(frame: frame) }
    public required init(coder: NSCoder) { super.init(frame: .zero) }
    open var colorPixelFormat: MTLPixelFormat = .bgra8Unorm
    open var framebufferOnly = true
    open var preferredFramesPerSecond = 60
    open var isPaused = false
    open var enableSetNeedsDisplay = false
    open var drawableSize: CGSize = .zero
    open var currentDrawable: (any CAMetalDrawable)? { nil }
}
